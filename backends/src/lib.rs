//! Devices of fista-pruner: open one by name, run generic code on it, and the solver's inner operations.
//!
//! Concrete burn backends are named in this crate only. A caller writes its work once as a [`DeviceJob`], generic over
//! [`SolverOps`], and [`dispatch`] runs it on the device that a [`DeviceSpec`] names.
//!
//! ```
//! use burn::tensor::Tensor;
//! use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch};
//!
//! struct Trace;
//! impl DeviceJob for Trace {
//!     type Output = f64;
//!     fn run<B: SolverOps>(self, device: &B::Device) -> f64 {
//!         let identity = Tensor::<B, 2>::eye(3, device);
//!         B::inner(identity.clone(), identity)
//!     }
//! }
//! let device: DeviceSpec = "flex".parse()?;
//! assert_eq!(dispatch(&device, Trace)?, 3.0);
//! # Ok::<(), fista_pruner_backends::DeviceError>(())
//! ```

mod adapters;
mod border;
mod compiled;
mod cube;
mod device;
mod dispatch;
mod failure;
mod flex;
mod forward;
mod gram;
#[cfg(all(test, feature = "flex"))]
mod gram_tests;
mod ops;
mod selection;
mod self_check;
#[cfg(test)]
mod testing;
mod upper_half;

pub use border::{border_bin, size_bin};
pub use compiled::{compiles_first, exact_memory};
pub use device::{DeviceError, DeviceKind, DeviceSpec};
pub use dispatch::{DeviceJob, dispatch, dispatch_opened, open, open_default};
pub use failure::device_failure;
pub use forward::{gpu_product, product};
pub use gram::GramSum;
pub use ops::{AcceleratedState, AcceleratedStep, ConjugateState, Progress, SolverOps, SplittingStep};
pub use selection::Selection;
pub use upper_half::UpperHalf;
