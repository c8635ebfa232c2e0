//! What wgpu can compute on here, asked without opening anything: an adapter that is not there would be a panic inside burn.
#![cfg(feature = "wgpu")]

use burn::backend::wgpu::WgpuDevice;
use burn::backend::wgpu::graphics::{AutoGraphicsApi, GraphicsApi};
use std::fmt;
use std::sync::OnceLock;

/// A way to compute through wgpu, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Adapter {
    /// Such as `llvmpipe (LLVM 15.0.6, 256 bits)`.
    name: String,
    /// What burn opens it as.
    pub(crate) device: WgpuDevice,
}

impl Adapter {
    /// Whether the "GPU" is a driver that computes on the CPU.
    pub(crate) fn software(&self) -> bool {
        self.device == WgpuDevice::Cpu
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// All adapters in the order of their numbers: discrete GPUs, integrated ones, virtual ones, software. The first is the
/// default.
pub(crate) fn adapters() -> &'static [Adapter] {
    static ADAPTERS: OnceLock<Vec<Adapter>> = OnceLock::new();
    ADAPTERS.get_or_init(|| {
        let backends = wgpu::Backends::from(AutoGraphicsApi::backend());
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let found = cubecl::future::block_on(instance.enumerate_adapters(backends));
        in_order(found.iter().map(|adapter| {
            let info = adapter.get_info();
            (info.name, info.device_type)
        }))
    })
}

/// The adapters in the order of their numbers, from names and types in the order in which the driver lists them: burn
/// counts each type from 0, and knows one software driver.
fn in_order(found: impl Iterator<Item = (String, wgpu::DeviceType)>) -> Vec<Adapter> {
    use wgpu::DeviceType;
    let mut kinds: [Vec<Adapter>; 5] = Default::default();
    for (name, kind) in found {
        let (kind, device): (usize, fn(usize) -> WgpuDevice) = match kind {
            DeviceType::DiscreteGpu => (0, WgpuDevice::DiscreteGpu),
            DeviceType::IntegratedGpu => (1, WgpuDevice::IntegratedGpu),
            DeviceType::VirtualGpu => (2, WgpuDevice::VirtualGpu),
            DeviceType::Other => (3, |_| WgpuDevice::DefaultDevice),
            DeviceType::Cpu => (4, |_| WgpuDevice::Cpu),
        };
        let number = kinds[kind].len();
        // What burn cannot tell apart is listed once.
        if kind < 3 || number == 0 {
            kinds[kind].push(Adapter {
                name,
                device: device(number),
            });
        }
    }
    kinds.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::DeviceType;

    #[test]
    fn discrete_gpus_come_first_and_software_last() {
        let found = [
            ("software", DeviceType::Cpu),
            ("laptop", DeviceType::IntegratedGpu),
            ("card 0", DeviceType::DiscreteGpu),
            ("another software", DeviceType::Cpu),
            ("card 1", DeviceType::DiscreteGpu),
        ];
        let adapters = in_order(found.into_iter().map(|(name, kind)| (name.to_owned(), kind)));
        let expected = [
            ("card 0", WgpuDevice::DiscreteGpu(0)),
            ("card 1", WgpuDevice::DiscreteGpu(1)),
            ("laptop", WgpuDevice::IntegratedGpu(0)),
            ("software", WgpuDevice::Cpu),
        ];
        assert_eq!(adapters.len(), expected.len());
        for (adapter, (name, device)) in adapters.iter().zip(expected) {
            assert_eq!((adapter.name.as_str(), &adapter.device), (name, &device));
            assert_eq!(adapter.software(), name == "software");
        }
    }
}
