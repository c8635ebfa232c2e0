//! Text from a model, token by token, with a key-value cache: enough to see whether a pruned model still speaks.

use crate::checkpoint::Checkpoint;
use crate::error::{ConfigError, Error, Result, SolverError};
use crate::prune::Limits;
use crate::solver::download;
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, Embedding, Head, KvCache, Layer};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the `top_k` most likely tokens are drawn from; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability are drawn from (nucleus sampling).
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Checks every value's range.
    ///
    /// # Errors
    /// [`ConfigError::Setting`], naming the flag.
    pub fn validate(&self) -> Result<()> {
        let wrong = |setting, reason: &str| {
            Err(Error::from(ConfigError::Setting {
                setting,
                reason: reason.into(),
            }))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("‹temperature›", "must not be negative");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("‹top-p›", "must lie above 0 and at most at 1");
        }
        Ok(())
    }
}

/// A whole model on a device, ready to continue text.
#[derive(Debug)]
pub struct Generator<B: SolverOps> {
    embedding: Embedding<B>,
    layers: Vec<Layer<B>>,
    head: Head<B>,
    device: B::Device,
    max_positions: usize,
}

impl<B: SolverOps> Generator<B> {
    /// Loads every layer.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(checkpoint: &Checkpoint, decoder: &Decoder, device: &B::Device) -> Result<Self> {
        Limits::of::<B>(decoder, device)?;
        decoder.head_weight()?;
        let layers = (0..decoder.config().num_layers())
            .map(|layer| decoder.layer::<B>(layer, checkpoint, device))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: decoder.embedding::<B>(checkpoint, device)?,
            layers,
            head: decoder.head::<B>(checkpoint, device)?,
            device: device.clone(),
            max_positions: decoder.config().max_positions(),
        })
    }

    /// Continues `prompt` by at most `max_new` tokens, or up to one of `end`, or to the model's last position. Each new
    /// token is handed to `each` as soon as it is known; the end token is not part of the result.
    ///
    /// # Errors
    /// When the prompt is empty or too long, or the logits are not finite.
    pub fn generate(
        &self,
        prompt: &[u32],
        max_new: usize,
        end: &[u32],
        sampling: &Sampling,
        mut each: impl FnMut(u32),
    ) -> Result<Vec<u32>> {
        sampling.validate()?;
        if prompt.is_empty() || prompt.len() >= self.max_positions {
            return Err(Error::from(ConfigError::Setting {
                setting: "‹prompt›",
                reason: format!(
                    "has {} tokens; the model takes 1 to {}",
                    prompt.len(),
                    self.max_positions - 1
                ),
            }));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        let mut caches: Vec<KvCache<B>> = self.layers.iter().map(|_| KvCache::new()).collect();
        let mut new = Vec::new();
        let mut input = prompt.to_vec();
        let mut position = 0;
        while new.len() < max_new && position + input.len() <= self.max_positions {
            let logits = self.step(&input, position, &mut caches)?;
            position += input.len();
            let token = choose(&logits, sampling, &mut rng)?;
            if end.contains(&token) {
                break;
            }
            each(token);
            new.push(token);
            input = vec![token];
        }
        Ok(new)
    }

    /// Logits `[vocabulary]` after the last token of `input`, which begins at `position`.
    fn step(&self, input: &[u32], position: usize, caches: &mut [KvCache<B>]) -> Result<Vec<f32>> {
        let ids: Vec<i64> = input.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [1, input.len()]), &self.device);
        let mut hidden = self.embedding.forward(ids, position);
        for (layer, cache) in self.layers.iter().zip(caches) {
            hidden = layer.forward_cached(hidden, cache);
        }
        let [_, tokens, width] = hidden.dims();
        download(
            self.head
                .forward(hidden.slice([0..1, tokens - 1..tokens, 0..width])),
        )
    }
}

/// The next token from its logits.
fn choose(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> Result<u32> {
    if logits.iter().any(|l| l.is_nan()) {
        return Err(Error::from(SolverError::NotFinite {
            what: "the logits",
            operator: "the head".into(),
        }));
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if sampling.temperature == 0.0 {
        return order
            .into_iter()
            .min_by(by_logit)
            .ok_or_else(|| Error::internal("a vocabulary without tokens"));
    }
    order.sort_unstable_by(by_logit);
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let highest = f64::from(logits[order[0] as usize]);
    let mut weights: Vec<f64> = order
        .iter()
        .map(|i| ((f64::from(logits[*i as usize]) - highest) / sampling.temperature).exp())
        .collect();
    let nucleus = sampling.top_p * weights.iter().sum::<f64>();
    let mut reached = 0.0;
    let size = weights.iter().position(|w| {
        reached += w;
        reached >= nucleus
    });
    weights.truncate(size.map_or(weights.len(), |last| last + 1));
    let mut draw = rng.random::<f64>() * weights.iter().sum::<f64>();
    let chosen = weights.iter().position(|w| {
        draw -= w;
        draw < 0.0
    });
    Ok(order[chosen.unwrap_or(weights.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: &Sampling) -> [usize; 4] {
        let logits = [0.0, (2.0f32).ln(), (4.0f32).ln(), (1e-3f32).ln()];
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        let mut counts = [0; 4];
        for _ in 0..7000 {
            counts[choose(&logits, sampling, &mut rng).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities_and_their_cuts() {
        let plain = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: 1,
        };
        let [a, b, c, d] = draws(&plain);
        assert!((900..1100).contains(&a) && (1850..2150).contains(&b) && (3800..4200).contains(&c) && d < 10);
        let [a, b, c, d] = draws(&Sampling {
            top_k: 2,
            ..plain.clone()
        });
        assert!(a == 0 && d == 0 && b > 2000 && c > 4000, "{a} {b} {c} {d}");
        assert_eq!(
            draws(&Sampling {
                top_p: 0.5,
                ..plain.clone()
            }),
            [0, 0, 7000, 0]
        );
        assert_eq!(
            draws(&Sampling {
                temperature: 0.0,
                ..plain
            }),
            [0, 0, 7000, 0]
        );
    }
}
