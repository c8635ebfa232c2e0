//! Devices of fista-pruner: open one by name, dispatch generic code to it, and the solver's inner operations.

mod error;

pub use error::DeviceError;
