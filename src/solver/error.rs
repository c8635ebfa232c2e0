//! Numbers that cannot be computed with.

/// Why an operator's weights, or a loss, could not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolverError {
    /// A value that is not finite, in weights, activations or statistics.
    #[error("{what} of `{operator}` holds a value that is not finite")]
    NotFinite {
        /// "the weight", "the input activation", …
        what: &'static str,
        /// The operator or tensor.
        operator: String,
    },

    /// A matrix that no damping made positive definite.
    #[error(
        "the Gram matrix of `{operator}` cannot be factorised, even with damping {damping:e} of its mean diagonal"
    )]
    Factorisation {
        /// The operator.
        operator: String,
        /// The largest damping tried, relative to the mean diagonal.
        damping: f64,
    },

    /// The device failed in the middle of the work.
    #[error("the device failed: {reason}")]
    DeviceFailed {
        /// What it said.
        reason: String,
    },
}

impl SolverError {
    pub(crate) fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::NotFinite {
                what: "the weight", ..
            } => "the checkpoint is damaged or was saved in the middle of a diverged training",
            Self::NotFinite { .. } => "the model's activations overflow; check the checkpoint with `eval`",
            Self::Factorisation { .. } => "give more calibration text: ‹samples›, ‹seq-len›",
            Self::DeviceFailed { .. } => return None,
        };
        Some(advice.to_owned())
    }
}
