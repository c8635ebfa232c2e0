//! The devices to test, and work that is run on them and on Flex.

use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::{DeviceError, DeviceJob, DeviceKind, DeviceSpec, SolverOps, dispatch, open};
use std::sync::OnceLock;

/// A matrix on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

impl Matrix {
    pub(crate) fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(rows * columns, values.len());
        Self {
            rows,
            columns,
            values,
        }
    }

    /// Entries of both signs below 1, no two of one size.
    pub(crate) fn mixed(rows: usize, columns: usize, seed: u32) -> Self {
        let entry = |k: usize| {
            let bits = (k as u32)
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed.wrapping_mul(40_503));
            (bits >> 8) as f32 / 8_388_608.0 - 1.0
        };
        Self::new(rows, columns, (0..rows * columns).map(entry).collect())
    }

    pub(crate) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let values = self.values.into_iter().map(f).collect();
        Self::new(self.rows, self.columns, values)
    }

    pub(crate) fn on<B: SolverOps>(&self, device: &B::Device) -> Tensor<B, 2> {
        let data = TensorData::new(self.values.clone(), [self.rows, self.columns]);
        Tensor::from_data(data, device)
    }

    pub(crate) fn of<B: SolverOps>(tensor: Tensor<B, 2>) -> Self {
        let [rows, columns] = tensor.dims();
        let values = tensor.try_into_data().unwrap().iter::<f32>().collect();
        Self::new(rows, columns, values)
    }
}

/// Every compiled-in device that can be opened.
#[allow(clippy::print_stderr, reason = "a skipped device says so")]
pub(crate) fn devices() -> &'static [DeviceSpec] {
    static DEVICES: OnceLock<Vec<DeviceSpec>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let needed = std::env::var("FISTA_PRUNER_DEVICES").unwrap_or_default();
        let needed: Vec<DeviceSpec> = needed
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.parse().unwrap())
            .collect();
        let compiled = DeviceKind::ALL.into_iter().filter(|kind| kind.compiled());
        let mut devices = needed.clone();
        devices.extend(
            compiled
                .map(|kind| DeviceSpec { kind, index: None })
                .filter(|spec| !needed.contains(spec)),
        );
        devices.retain(|spec| match open(spec) {
            Ok(()) => true,
            Err(error @ DeviceError::Unavailable { .. }) if !needed.contains(spec) => {
                eprintln!("skipped: {error}");
                false
            }
            Err(error) => panic!("{error}"),
        });
        devices
    })
}

/// What `job` gives on Flex, and on each device.
pub(crate) fn outputs<J: DeviceJob + Clone>(job: &J) -> (J::Output, Vec<(DeviceSpec, J::Output)>) {
    let flex = DeviceSpec {
        kind: DeviceKind::Flex,
        index: None,
    };
    let expected = dispatch(&flex, job.clone()).unwrap();
    let found = devices()
        .iter()
        .map(|device| (*device, dispatch(device, job.clone()).unwrap()))
        .collect();
    (expected, found)
}

/// Runs `job` everywhere and compares its matrices entry by entry: no further apart than `tolerance` of the largest entry.
pub(crate) fn assert_alike<J>(name: &str, job: &J, tolerance: f32)
where
    J: DeviceJob<Output = Vec<Matrix>> + Clone,
{
    let (expected, found) = outputs(job);
    for (device, found) in found {
        assert_eq!(found.len(), expected.len());
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(
                (found.rows, found.columns),
                (expected.rows, expected.columns),
                "{name} on {device}"
            );
            let largest = expected.values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for (k, (x, y)) in found.values.iter().zip(&expected.values).enumerate() {
                assert!(
                    (x - y).abs() <= tolerance * largest.max(f32::MIN_POSITIVE),
                    "{name} on {device}, output {part}, entry {k}: {x} and on flex {y}"
                );
            }
        }
    }
}
