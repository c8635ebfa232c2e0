//! What a device's panics become.

use crate::present::devices;
use fista_pruner_backends::{DeviceError, DeviceJob, DeviceKind, SolverOps, dispatch};

struct GivesUp;

impl DeviceJob for GivesUp {
    type Output = ();

    fn run<B: SolverOps>(self, _device: &B::Device) {
        panic!("no memory is left");
    }
}

#[test]
fn a_gpu_that_gives_up_is_an_error_with_advice() {
    let on_cpu = |kind| matches!(kind, DeviceKind::Flex | DeviceKind::NdArray);
    for device in devices().iter().filter(|device| !on_cpu(device.kind)) {
        let error = dispatch(device, GivesUp).unwrap_err();
        assert!(error.hint().is_some());
        let DeviceError::Failed { device: name, reason } = error else {
            panic!("{error}");
        };
        assert_eq!((name, reason.as_str()), (device.to_string(), "no memory is left"));
    }
}
