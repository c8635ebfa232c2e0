//! What does not fit one tensor of the device, found out before any work. Graphics drivers bind buffers of a certain size
//! only, from 128 MB up, however much memory there is.
//!
//! What can be cut up is: token batches here, the head by vocabulary and attention by blocks in the decoders. A layer's
//! weight, a Gram matrix or a single window cannot.

use crate::error::{Error, PruneError, Result};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{Decoder, LayerOperator};

/// A device's limit, and what a decoder needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'a> {
    decoder: &'a Decoder,
    /// Elements of f32; `None` where only memory is the limit.
    elements: Option<u64>,
}

impl<'a> Limits<'a> {
    /// Checks that every weight of a decoder layer fits one tensor of `device`.
    ///
    /// # Errors
    /// [`PruneError::TooLargeForDevice`], naming the first one that does not.
    pub(crate) fn of<B: SolverOps>(decoder: &'a Decoder, device: &B::Device) -> Result<Self> {
        Self::new(decoder, B::max_tensor_bytes(device))
    }

    fn new(decoder: &'a Decoder, bytes: Option<u64>) -> Result<Self> {
        let limits = Self {
            decoder,
            elements: bytes.map(|bytes| bytes / size_of::<f32>() as u64),
        };
        // All layers are alike.
        for (name, shape) in decoder.layer_tensors(0) {
            limits.check(|| format!("the weight `{name}`"), &shape, None)?;
        }
        Ok(limits)
    }

    /// Tokens of a batch of windows of one length: `wanted`, or as many as the widest activation has room for, but no less
    /// than one window.
    ///
    /// # Errors
    /// [`PruneError::TooLargeForDevice`] when not even that fits.
    pub(crate) fn batch_tokens(&self, wanted: usize, windows: &[Vec<u32>]) -> Result<usize> {
        let window = windows.first().map_or(0, Vec::len);
        let widest = self.widest();
        let what = || format!("an activation of a window of {window} tokens");
        self.check(
            what,
            &[window, widest],
            Some("take shorter windows with ‹seq-len›"),
        )?;
        Ok(wanted.min(self.rows().max(window)))
    }

    /// Rows of activations that have room at once.
    pub(crate) fn rows(&self) -> usize {
        self.elements.map_or(usize::MAX, |elements| {
            usize::try_from(elements).unwrap_or(usize::MAX) / self.widest().max(1)
        })
    }

    /// Checks that the Gram matrices of operators to prune fit.
    ///
    /// # Errors
    /// [`PruneError::TooLargeForDevice`], naming the first operator whose does not.
    pub(crate) fn grams(&self, operators: &[LayerOperator]) -> Result<()> {
        for operator in operators {
            let inputs = operator.spec.in_features;
            let what = || format!("the Gram matrix of `{}`", operator.name);
            self.check(
                what,
                &[inputs, inputs],
                Some("leave the operator out with ‹ignore›"),
            )?;
        }
        Ok(())
    }

    /// Features of a layer's widest activation.
    fn widest(&self) -> usize {
        let operators = self.decoder.config().operator_groups().into_iter().flatten();
        operators
            .map(|operator| operator.in_features.max(operator.out_features))
            .max()
            .unwrap_or(1)
    }

    fn check(&self, what: impl Fn() -> String, shape: &[usize], remedy: Option<&'static str>) -> Result<()> {
        let needed: u64 = shape.iter().map(|size| *size as u64).product();
        match self.elements {
            Some(elements) if needed > elements => Err(Error::from(PruneError::TooLargeForDevice {
                what: what(),
                bytes: needed * size_of::<f32>() as u64,
                limit: elements * size_of::<f32>() as u64,
                remedy,
            })),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::tensor::TensorData;
    use fista_pruner_models::{ModelConfig, SourceError, TensorSource};

    /// A checkpoint that has every tensor and is never read.
    struct Names;

    impl TensorSource for Names {
        fn load(&self, name: &str, _shape: &[usize]) -> Result<TensorData, SourceError> {
            Err(format!("`{name}` is not to be read").into())
        }

        fn contains(&self, _name: &str) -> bool {
            true
        }
    }

    /// LLaMA-3-70B's layers.
    fn decoder() -> Decoder {
        let config = r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192,
            "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8,
            "num_hidden_layers": 80, "vocab_size": 128256, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": false}"#;
        Decoder::new(ModelConfig::from_json(config).unwrap(), &Names).unwrap()
    }

    fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert!(error.hint().is_some());
        assert!(matches!(
            error,
            Error::Prune(PruneError::TooLargeForDevice { .. })
        ));
        error.to_string()
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let decoder = decoder();
        let all: Vec<LayerOperator> = decoder.operators().collect();
        // gate_proj takes 940 MB, down_proj's Gram matrix 3.3 GB.
        assert!(refused(Limits::new(&decoder, Some(128 << 20))).contains("layers.0.self_attn.q_proj"));
        assert!(refused(Limits::new(&decoder, Some(512 << 20))).contains("layers.0.mlp.gate_proj"));
        let limits = Limits::new(&decoder, Some(2 << 30)).unwrap();
        assert!(refused(limits.grams(&all)).contains("Gram matrix of `model.layers.0.mlp.down_proj`"));
        for bytes in [Some(4 << 30), None] {
            Limits::new(&decoder, bytes).unwrap().grams(&all).unwrap();
        }
    }

    #[test]
    fn batches_shrink_to_what_fits_but_not_below_a_window() {
        let decoder = decoder();
        let windows = [vec![0; 8192], vec![0; 8192]];
        let limits = |bytes| Limits::new(&decoder, bytes).unwrap();
        assert_eq!(limits(None).batch_tokens(1 << 16, &windows).unwrap(), 1 << 16);
        // Two windows of 28672 features in f32 take 1.9 GB, one takes half of that.
        assert_eq!(
            limits(Some(2 << 30)).batch_tokens(1 << 16, &windows).unwrap(),
            18_724
        );
        assert_eq!(
            limits(Some(1 << 30)).batch_tokens(1 << 16, &windows).unwrap(),
            9_362
        );
        assert_eq!(limits(Some(1 << 30)).batch_tokens(4096, &windows).unwrap(), 4096);
        let long = [vec![0; 10_000]];
        assert!(refused(limits(Some(1 << 30)).batch_tokens(4096, &long)).contains("10000 tokens"));
    }
}
