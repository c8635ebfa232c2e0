//! How whole columns of an operator are chosen.

use serde::{Deserialize, Serialize};

/// What the columns of an operator are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// What removing them adds to the error, the others being refitted: backward elimination on the inverse Gram matrix.
    Obs,
    /// `Var(x_j) · ‖W_:j‖²` (FLAP, arXiv 2312.11983).
    Flap,
    /// `√E x_j² · Σ_i |W_ij|` (Wanda by structures, as FLAP and arXiv 2406.10576 have it).
    WandaSp,
    /// `‖W_:j‖²`.
    Magnitude,
    /// Ridge leverage scores of the Gram matrix (MoDeGPT's type I, arXiv 2408.09632).
    Leverage,
    /// Numbers from elsewhere.
    Given,
}

/// How the columns of an operator are chosen, and what becomes of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnConfig {
    /// What they are judged by.
    pub criterion: Criterion,
    /// Whether the columns that stay are fitted by least squares.
    pub refit: bool,
    /// Whether all columns are fitted before some of them go (the two-step reconstruction of arXiv 2407.19126).
    pub fit_first: bool,
}
