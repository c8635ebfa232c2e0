//! A device that fails on a thread of its own, of which burn says nothing. In a process of its own, as the failure is the process's.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![cfg(feature = "flex")]

#[allow(dead_code, reason = "the other device tests need the rest")]
#[path = "devices/present.rs"]
mod present;

use burn::tensor::Tensor;
use fista_pruner_backends::{DeviceError, DeviceJob, SolverOps, device_failure, dispatch};
use present::{Matrix, devices};

/// Reads a little of a tensor for which there is no memory: without care, what lies in a buffer that nothing was written to.
struct TooLarge;

impl DeviceJob for TooLarge {
    type Output = Option<String>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Option<String> {
        let columns = 1 << 14;
        let rows = usize::try_from(B::max_tensor_bytes(device)?).unwrap() / (4 * columns) + 1;
        let large = Tensor::<B, 2>::ones([rows, columns], device);
        let other = Matrix::mixed(1, 4, 1).on::<B>(device);
        let data = (large.slice([0..1, 0..4]) + other).try_into_data();
        // Whoever reads a result can ask.
        data.err().map(|error| error.to_string()).or_else(device_failure)
    }
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    for device in devices().iter().filter(|device| !device.kind.is_host()) {
        let error = dispatch(device, TooLarge).unwrap_err();
        assert!(error.hint().is_some());
        let DeviceError::Failed { device: name, reason } = error else {
            panic!("{error}");
        };
        assert_eq!(name, device.to_string());
        assert!(reason.contains("its memory does not suffice"), "{reason}");
    }
}
