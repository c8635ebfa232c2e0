//! What can be wrong with a configuration, a checkpoint's tensors, or a request to a decoder.

use crate::source::SourceError;

/// Why a decoder, or a part of one, could not be built or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `config.json` is not what it should be.
    #[error("config.json: {0}")]
    Config(String),
    /// A model of another family, or an option that no decoder here implements.
    #[error("config.json: {what} `{found}` is not supported (supported: {supported})")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        found: String,
        /// What would be understood.
        supported: String,
    },
    /// The checkpoint names its tensors in a way that no known layout of the family has.
    #[error("the checkpoint has none of the tensors {tried:?}: it is not a decoder of family `{family}`")]
    UnknownLayout {
        /// The family that the configuration names.
        family: &'static str,
        /// One tensor of each known layout.
        tried: Vec<String>,
    },
    /// The checkpoint is of a model without a head, as embedding models are: it predicts no tokens.
    #[error("the model has no `lm_head.weight`, so it predicts no tokens; it can be pruned and inspected")]
    NoHead,
    /// A tensor could not be had from the source.
    #[error("{0}")]
    Source(#[source] SourceError),
    /// A layer beyond the last one.
    #[error("the model has {layers} layers, there is no layer {layer}")]
    NoSuchLayer {
        /// The layer asked for, counted from 0.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// An operator name that the family's layers do not have.
    #[error("a decoder layer has no operator `{operator}`")]
    NoSuchOperator {
        /// The name asked for.
        operator: String,
    },
    /// A weight of another shape than the operator's.
    #[error("operator `{operator}` has weights of shape {expected:?}, not {found:?}")]
    WeightShape {
        /// The operator's name inside its layer.
        operator: String,
        /// `[out, in]` of the operator.
        expected: [usize; 2],
        /// The shape that was given.
        found: [usize; 2],
    },
}
