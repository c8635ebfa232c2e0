//! From a device's name to generic code running on it: the one place where concrete backends are named.

use crate::device::{DeviceKind, DeviceSpec};
use crate::error::DeviceError;
use crate::ops::SolverOps;
use burn::tensor::{Tensor, TensorData};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Work that runs on any device, written once.
pub trait DeviceJob {
    /// What the work gives back.
    type Output;

    /// Does the work on `device`.
    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output;
}

/// Runs `job` on the device that `spec` names, after [`open`].
///
/// # Errors
/// When the device was not compiled in, is not there, or fails its self-check.
pub fn dispatch<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    open(spec)?;
    dispatch_opened(spec, job)
}

/// Runs `job` on a device that [`open`] has opened before; for threads, as opening is nothing for two at once.
///
/// # Errors
/// When the device was not compiled in.
pub fn dispatch_opened<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    run_on(spec, job)
}

/// Opens a device and checks that it computes a known product rightly.
///
/// A GPU's library failures can be silent, so a device is never trusted before it has shown a right result.
///
/// # Errors
/// As [`dispatch`].
pub fn open(spec: &DeviceSpec) -> Result<(), DeviceError> {
    presence(spec)?;
    // Opening a device that is not there panics inside burn; the message becomes the error's reason.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(|| run_on(spec, SelfCheck)));
    std::panic::set_hook(hook);
    match outcome {
        Ok(result) => result?.map_err(|reason| DeviceError::SelfCheck {
            device: spec.to_string(),
            reason,
        }),
        Err(panic) => Err(DeviceError::Unavailable {
            device: spec.to_string(),
            reason: panic_text(panic.as_ref()),
        }),
    }
}

/// The first compiled-in device that can be opened, GPUs before the CPU, and for each one passed over, why.
///
/// # Errors
/// When none can be opened: the last one's error.
pub fn open_default() -> Result<(DeviceSpec, Vec<DeviceError>), DeviceError> {
    let mut passed_over = Vec::new();
    for kind in DeviceKind::ALL.into_iter().filter(|kind| kind.compiled()) {
        let spec = DeviceSpec { kind, index: None };
        match open(&spec) {
            Ok(()) => return Ok((spec, passed_over)),
            Err(error) => passed_over.push(error),
        }
    }
    Err(passed_over.pop().unwrap_or(DeviceError::NotCompiled {
        device: "flex".into(),
        feature: "flex",
    }))
}

/// The one match from names to types.
fn run_on<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    match spec.kind {
        #[cfg(feature = "flex")]
        DeviceKind::Flex => Ok(job.run::<burn::backend::Flex>(&Default::default())),
        #[cfg(feature = "ndarray")]
        DeviceKind::NdArray => Ok(job.run::<burn::backend::NdArray>(&Default::default())),
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda => Ok(
            job.run::<burn::backend::Cuda>(&burn::backend::cuda::CudaDevice::new(spec.index.unwrap_or(0)))
        ),
        #[cfg(feature = "rocm")]
        DeviceKind::Rocm => Ok(
            job.run::<burn::backend::Rocm>(&burn::backend::rocm::RocmDevice::new(spec.index.unwrap_or(0)))
        ),
        // One type for all of wgpu: which shader language is compiled is the adapter's affair at run time.
        #[cfg(feature = "wgpu")]
        DeviceKind::Wgpu => Ok(job.run::<burn::backend::Wgpu>(&wgpu_device(spec))),
        #[cfg(feature = "vulkan")]
        DeviceKind::Vulkan => Ok(job.run::<burn::backend::Wgpu>(&wgpu_device(spec))),
        #[cfg(feature = "metal")]
        DeviceKind::Metal => Ok(job.run::<burn::backend::Wgpu>(&wgpu_device(spec))),
        #[allow(unreachable_patterns, reason = "all kinds may be compiled in")]
        kind => Err(DeviceError::NotCompiled {
            device: spec.to_string(),
            feature: kind.name(),
        }),
    }
}

#[cfg(feature = "wgpu")]
fn wgpu_device(spec: &DeviceSpec) -> burn::backend::wgpu::WgpuDevice {
    use burn::backend::wgpu::WgpuDevice;
    spec.index
        .map_or(WgpuDevice::DefaultDevice, WgpuDevice::DiscreteGpu)
}

/// What can be known about a device without opening it.
fn presence(spec: &DeviceSpec) -> Result<(), DeviceError> {
    if !spec.kind.compiled() {
        return Err(DeviceError::NotCompiled {
            device: spec.to_string(),
            feature: spec.kind.name(),
        });
    }
    #[cfg(feature = "cuda")]
    if spec.kind == DeviceKind::Cuda {
        cuda_presence(spec)?;
    }
    Ok(())
}

/// The driver, and the headers that burn's run-time compiler includes.
#[cfg(feature = "cuda")]
fn cuda_presence(spec: &DeviceSpec) -> Result<(), DeviceError> {
    let missing = |reason: &str| {
        Err(DeviceError::Unavailable {
            device: spec.to_string(),
            reason: reason.to_owned(),
        })
    };
    // SAFETY: loads the driver library by its well-known name and drops it again; no symbol is called.
    #[allow(unsafe_code, reason = "the only way to ask without a panic")]
    let driver = unsafe { cudarc::driver::sys::is_culib_present() };
    if !driver {
        return missing("the NVIDIA driver library (libcuda) is not installed");
    }
    let headers = cubecl::cuda::install::cuda_path()
        .is_some_and(|path| path.join("include").join("cuda_runtime.h").is_file());
    if !headers {
        return missing(
            "the CUDA toolkit's headers are not found; set CUDA_PATH to a folder that holds include/cuda_runtime.h",
        );
    }
    Ok(())
}

/// A product, an element-wise step and a reduction with known results.
struct SelfCheck;

impl DeviceJob for SelfCheck {
    type Output = Result<(), String>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        const ROWS: usize = 48;
        const COLUMNS: usize = 80;
        // Small integers: exact in f32, and in any reduced precision a product may be taken in.
        let entry = |i: usize, j: usize| ((i * 7 + j * 3) % 5) as f32 - 2.0;
        let values: Vec<f32> = (0..ROWS * COLUMNS)
            .map(|k| entry(k / COLUMNS, k % COLUMNS))
            .collect();
        let a = Tensor::<B, 2>::from_data(TensorData::new(values, [ROWS, COLUMNS]), device);
        let product = a.clone().matmul(a.transpose());
        let step = B::prox_gradient_step(product.clone(), product.clone(), 0.5, 1.0);
        let norm = B::inner(step.clone(), step);
        let read = |t: Tensor<B, 2>| t.try_into_data().map_err(|e| e.to_string());
        let product = read(product)?;
        let mut expected_norm = 0.0;
        for (k, found) in product.iter::<f32>().enumerate() {
            let (i, j) = (k / ROWS, k % ROWS);
            let expected: f32 = (0..COLUMNS).map(|c| entry(i, c) * entry(j, c)).sum();
            if found != expected {
                return Err(format!("a product entry is {found} and should be {expected}"));
            }
            expected_norm += f64::from((0.5 * expected.abs() - 1.0).max(0.0)).powi(2);
        }
        if (norm - expected_norm).abs() > 1e-4 * expected_norm {
            return Err(format!("a norm is {norm} and should be {expected_norm}"));
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
