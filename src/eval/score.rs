//! Perplexity as reports hold it.

use serde::{Deserialize, Serialize};

/// How likely a model finds the evaluation windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `exp(mean_nll)`; `None` where that is not finite, as a model that pruning has destroyed may have it.
    pub perplexity: Option<f64>,
    /// Mean negative log-likelihood per target, in nats.
    pub mean_nll: Option<f64>,
    /// Mean negative log-likelihood of each window.
    pub window_nll: Vec<Option<f64>>,
}

impl Score {
    /// From each window's mean negative log-likelihood; the windows have one length.
    pub fn of(window_nll: &[f64]) -> Self {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let mean = window_nll.iter().sum::<f64>() / window_nll.len() as f64;
        Self {
            perplexity: finite(mean.exp()),
            mean_nll: finite(mean),
            window_nll: window_nll.iter().copied().map(finite).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::check_windows;

    #[test]
    fn a_destroyed_model_has_a_score_that_json_can_hold() {
        let score = Score::of(&[2.0, 4.0]);
        assert_eq!(score.mean_nll, Some(3.0));
        assert_eq!(score.perplexity, Some(3f64.exp()));
        for (nll, mean) in [(1000.0, Some(1000.0)), (f64::NAN, None), (f64::INFINITY, None)] {
            let score = Score::of(&[nll]);
            assert_eq!((score.mean_nll, score.perplexity), (mean, None));
            let json = serde_json::to_string(&score).unwrap();
            assert_eq!(serde_json::from_str::<Score>(&json).unwrap(), score);
        }
    }

    #[test]
    fn a_window_has_something_to_predict() {
        assert!(check_windows(&[vec![1, 2]], "‹eval-seq-len›").is_ok());
        for windows in [vec![], vec![vec![1]]] {
            assert!(check_windows(&windows, "‹eval-seq-len›").is_err());
        }
    }
}
