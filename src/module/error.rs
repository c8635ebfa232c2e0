//! What can go wrong with a caller's module.

/// Why a module cannot be pruned, or a mask not be used with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The module holds no `Linear`.
    #[error("the module has no `Linear` layer")]
    NoLinear,

    /// A glob, or the whole choice, that matches no `Linear`.
    #[error("{what} matches no `Linear` of the module, which has {}", list(linears))]
    NothingMatches {
        /// The glob in backticks, or a description of the choice.
        what: String,
        /// The paths of all `Linear` layers.
        linears: Vec<String>,
    },

    /// A pattern or a mask for a path where no chosen `Linear` is.
    #[error("there is a {what} for `{path}`, where the module has no chosen `Linear`")]
    NoSuchLayer {
        /// "pattern" or "mask".
        what: &'static str,
        /// The path.
        path: String,
    },

    /// Two `Linear` layers whose weights have one id, so that nobody can tell their inputs apart.
    #[error("`{first}` and `{second}` are copies of one layer: their weights share one parameter id")]
    SharedId {
        /// The path of the first one.
        first: String,
        /// The path of the other.
        second: String,
    },

    /// A quantized weight.
    #[error("the weight of `{path}` is quantized")]
    Quantized {
        /// The layer's path.
        path: String,
    },

    /// No batches to run the module on.
    #[error("there is no batch to run the module on")]
    NoBatches,

    /// A chosen layer whose input was never recorded, on any batch.
    #[error("the input of `{path}` was never recorded")]
    NeverSeen {
        /// The layer's path.
        path: String,
    },

    /// A recorded input that the layer cannot take.
    #[error("`{path}` takes {expected} inputs, and an input of width {found} was recorded for it")]
    InputWidth {
        /// The layer's path.
        path: String,
        /// Inputs of the layer.
        expected: usize,
        /// The last dimension of what was recorded.
        found: usize,
    },

    /// A layer that sees other tokens in the pruned module than in the dense one.
    #[error("`{path}` sees {found} where the dense module's saw {expected}")]
    OtherTokens {
        /// The layer's path.
        path: String,
        /// What the dense module's layer saw.
        expected: String,
        /// What the pruned module's layer sees.
        found: String,
    },

    /// A mask of another layer.
    #[error("the mask of `{path}` is for {mask:?} weights, and the layer has {layer:?}, outputs by inputs")]
    MaskShape {
        /// The layer's path.
        path: String,
        /// `[out, in]` of the mask.
        mask: [usize; 2],
        /// `[out, in]` of the layer.
        layer: [usize; 2],
    },
}

impl ModuleError {
    /// What the caller can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NothingMatches { .. } => "`*` stands for one part of a path, `**` for any number of parts".into(),
            Self::SharedId { .. } => "initialise every layer on its own instead of cloning one".into(),
            Self::Quantized { .. } => "prune first and quantize the pruned module".into(),
            Self::NeverSeen { path } => format!(
                "let the forward pass apply the layer with `ApplyLinear::apply`, put `watched` around it, or leave the layer out: `PathFilter::except([\"{path}\"])`"
            ),
            Self::InputWidth { .. } => "record the very tensor that the layer is applied to".into(),
            Self::OtherTokens { .. } => {
                "the forward pass must take the same way whatever the weights are; without that use `Correction::OwnTarget`".into()
            }
            _ => return None,
        })
    }
}

/// The first few paths, in backticks.
fn list(paths: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| format!("`{path}`")).collect();
    match paths.len() {
        0 => "none".into(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
