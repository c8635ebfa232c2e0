//! Matrices only: from an operator's weight and its statistics to a weight with the pattern.
//!
//! Legend, for all of `solver/`:
//!
//! | symbol | shape | meaning |
//! |---|---|---|
//! | `W` | `[m, n]` | the dense weight, outputs by inputs |
//! | `V` | `[m, n]` | a candidate for the pruned weight |
//! | `X`, `X*` | `[n, p]` | dense input activation, and the input the operator really gets; columns are tokens |
//! | `G = X* X*ᵀ / p` | `[n, n]` | Gram matrix |
//! | `P = W (X* − X) X*ᵀ / p` | `[m, n]` | drift: `W G − C` with `C = W X X*ᵀ / p`; zero where `X* = X` |
//! | `R = ‖W (X* − X)‖²_F / p` | scalar | energy of the drift |
//! | `T = ‖W X‖²_F / p` | scalar | energy of the target |
//!
//! Everything is per token (divided by `p`), so that errors and λ do not depend on the amount of calibration data. The
//! error is taken in the centred form, which does not cancel in f32 (FISTAPruner, arXiv 2408.03728, Eq. 3, expanded
//! around `W`):
//!
//! ```text
//! ‖V X* − W X‖² / p = tr((V−W) G (V−W)ᵀ) + 2 tr((V−W) Pᵀ) + R
//! ```

pub mod admm;
pub(crate) mod columns;
mod error;
pub mod fista;
mod inverse;
pub mod magnitude;
pub mod polish;
mod problem;
pub mod reference;
mod ridge;
pub mod scaled;
mod solution;
pub mod sparsegpt;
mod together;
pub mod wanda;
mod warm_start;

pub(crate) use columns::unit_scores;
pub use error::SolverError;
pub(crate) use problem::{CHUNK, download, largest, not_below_zero};
pub use problem::{LayerProblem, Means};
pub use solution::{Round, Solution, SolveInfo, StopReason};
pub(crate) use together::Together;
pub use together::solve;
