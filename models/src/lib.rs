//! Decoders of fista-pruner on burn: OPT and the LLaMA family, one layer at a time, from any tensor source.
//!
//! ```text
//! config.json ── ModelConfig ──┐
//! TensorSource (name, shape) ──┴─ Decoder ─┬─ Embedding   ids -> hidden
//!                                          ├─ Layer 0..n  hidden -> hidden, whole or in stages
//!                                          └─ Head        hidden -> logits, or likelihood of tokens
//! ```
//!
//! Weights are `[out, in]` on the outside, as in the checkpoint; only inside a layer they are burn's `[in, out]`.

mod error;
mod fields;
mod source;

mod activation;
mod config;
mod rope;
mod units;

mod decoder;
mod embedding;
mod head;
mod layer;
mod likelihood;
mod llama;
mod opt;

mod attention;
mod host;
mod packed;
mod parts;
mod state;

pub use activation::ActivationKind;
pub use config::{Family, LlamaConfig, ModelConfig, OperatorSpec, OptConfig};
pub use decoder::{Decoder, LayerOperator};
pub use embedding::Embedding;
pub use error::ModelError;
pub use head::Head;
pub use host::HOST_QUERY_ROWS;
pub use layer::Layer;
pub use llama::LlamaLayer;
pub use opt::OptLayer;
pub use packed::Pack;
pub use parts::{KvCache, on_host};
pub use rope::{RopeConfig, RopePrecision, RopeScaling};
pub use source::{SourceError, TensorSource};
pub use state::LayerState;
pub use units::{Sizes, Unit, UnitAxis};
