//! From a device's name to generic code running on it: the one place where concrete backends are named.

#[cfg(feature = "wgpu")]
use crate::adapters::{Adapter, adapters};
use crate::device::{DeviceError, DeviceKind, DeviceSpec};
use crate::failure;
use crate::ops::SolverOps;
use crate::self_check::Computed;

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
/// When the device was not compiled in, is not there, fails its self-check, or gives up in the middle of the work.
pub fn dispatch<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    open(spec)?;
    dispatch_opened(spec, job)
}

/// Runs `job` on a device that [`open`] has opened before; for threads, as opening is nothing for two at once.
///
/// # Errors
/// When the device was not compiled in, or a GPU gives up in the middle of the work: what burn makes a panic of, on this thread
/// or on one of its own, such as memory that is not there, is an error.
pub fn dispatch_opened<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    if spec.kind.is_host() {
        return run_on(spec, job);
    }
    failure::watch();
    let outcome = failure::at_work(|| run_on(spec, job));
    let failed = |reason| {
        Err(DeviceError::Failed {
            device: spec.shown(),
            reason,
        })
    };
    match (failure::take(), outcome) {
        (Some(reason), _) => failed(reason),
        (None, Ok(output)) => output,
        (None, Err(reason)) => failed(reason),
    }
}

/// Opens a device and checks that it computes known results rightly.
///
/// A GPU's library failures can be silent, so a device is never trusted before it has shown right results.
///
/// # Errors
/// As [`dispatch`].
pub fn open(spec: &DeviceSpec) -> Result<(), DeviceError> {
    presence(spec)?;
    failure::watch();
    #[cfg(feature = "cube")]
    if !spec.kind.is_host() {
        crate::compiled::configure();
    }
    let outcome = failure::quietly(|| run_on(spec, SelfCheck));
    let device = spec.shown();
    match (failure::take(), outcome) {
        (Some(reason), _) | (None, Err(reason)) => Err(DeviceError::Unavailable { device, reason }),
        (None, Ok(result)) => result?.map_err(|reason| DeviceError::SelfCheck { device, reason }),
    }
}

/// The first compiled-in device that can be opened, GPUs before the CPU, and for each one passed over, why. A driver that
/// computes on the CPU in a GPU's place is passed over: the CPU's own device is faster.
///
/// # Errors
/// When none can be opened: the last one's error.
pub fn open_default() -> Result<(DeviceSpec, Vec<DeviceError>), DeviceError> {
    let mut passed_over = Vec::new();
    for kind in DeviceKind::ALL.into_iter().filter(|kind| kind.compiled()) {
        let spec = DeviceSpec { kind, index: None };
        match no_software(&spec).and_then(|()| open(&spec)) {
            Ok(()) => return Ok((spec, passed_over)),
            Err(error) => passed_over.push(error),
        }
    }
    Err(passed_over.pop().unwrap_or(DeviceError::NotCompiled {
        device: DeviceKind::Flex.shown().into(),
        feature: DeviceKind::Flex.name(),
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
        DeviceKind::Wgpu => Ok(job.run::<burn::backend::Wgpu>(&adapter(spec)?.device)),
        #[cfg(feature = "vulkan")]
        DeviceKind::Vulkan => Ok(job.run::<burn::backend::Wgpu>(&adapter(spec)?.device)),
        #[cfg(feature = "metal")]
        DeviceKind::Metal => Ok(job.run::<burn::backend::Wgpu>(&adapter(spec)?.device)),
        #[allow(unreachable_patterns, reason = "all kinds may be compiled in")]
        kind => Err(DeviceError::NotCompiled {
            device: spec.shown(),
            feature: kind.name(),
        }),
    }
}

/// The adapter that a wgpu device's number stands for; the first without one.
#[cfg(feature = "wgpu")]
fn adapter(spec: &DeviceSpec) -> Result<&'static Adapter, DeviceError> {
    let adapters = adapters();
    let number = spec.index.unwrap_or(0);
    adapters.get(number).ok_or_else(|| {
        let reason = match adapters {
            [] => "no driver offers an adapter for compute".to_owned(),
            _ => {
                let names = adapters.iter().map(Adapter::to_string);
                let list: Vec<String> = names
                    .enumerate()
                    .map(|(i, name)| format!("{i}: {name}"))
                    .collect();
                format!("there is no adapter {number}, only {}", list.join(", "))
            }
        };
        DeviceError::Unavailable {
            device: spec.shown(),
            reason,
        }
    })
}

/// That a device is more than a driver which computes on the CPU.
fn no_software(spec: &DeviceSpec) -> Result<(), DeviceError> {
    #[cfg(feature = "wgpu")]
    if spec.kind.through_wgpu() {
        let adapter = adapter(spec)?;
        if adapter.software() {
            return Err(DeviceError::Unavailable {
                device: spec.shown(),
                reason: format!("{adapter} is a driver that computes on the CPU, used only when asked for"),
            });
        }
    }
    let _ = spec;
    Ok(())
}

/// What can be known about a device without opening it.
fn presence(spec: &DeviceSpec) -> Result<(), DeviceError> {
    if !spec.kind.compiled() {
        return Err(DeviceError::NotCompiled {
            device: spec.shown(),
            feature: spec.kind.name(),
        });
    }
    #[cfg(feature = "cuda")]
    if spec.kind == DeviceKind::Cuda {
        cuda_presence(spec)?;
    }
    #[cfg(feature = "wgpu")]
    if spec.kind.through_wgpu() {
        adapter(spec)?;
    }
    Ok(())
}

/// The driver, a GPU of that number, and what burn compiles kernels with at run time.
#[cfg(feature = "cuda")]
fn cuda_presence(spec: &DeviceSpec) -> Result<(), DeviceError> {
    cuda_parts(spec.index.unwrap_or(0)).map_err(|reason| DeviceError::Unavailable {
        device: spec.shown(),
        reason,
    })
}

/// Asks for one part after the other, each in words of its own: burn would only panic on a thread of its own.
#[cfg(feature = "cuda")]
fn cuda_parts(index: usize) -> Result<(), String> {
    use crate::compiled::cuda;
    use cudarc::driver::result;

    if !cuda::has_driver() {
        return Err("the NVIDIA driver library (libcuda) is not installed".into());
    }
    result::init().map_err(|error| format!("the NVIDIA driver does not start: {error}"))?;
    let gpus =
        result::device::get_count().map_err(|error| format!("the NVIDIA driver lists no GPU: {error}"))?;
    match usize::try_from(gpus).unwrap_or(0) {
        0 => return Err("the NVIDIA driver sees no GPU".into()),
        gpus if index >= gpus => {
            return Err(format!(
                "there is no GPU {index}: the driver sees {gpus}, counted from 0"
            ));
        }
        _ => {}
    }
    if !cuda::has_compiler() {
        return Err(
            "the run-time compiler (libnvrtc) is not found; install the CUDA toolkit, and put its lib64 folder into \
             LD_LIBRARY_PATH"
                .into(),
        );
    }
    let include = cubecl::cuda::install::cuda_path().map(|path| path.join("include"));
    // CUDA 13 has the last of them in a folder of its own.
    let headers: [(&str, &[&str]); 3] = [
        ("cuda_runtime.h", &["cuda_runtime.h"]),
        ("mma.h", &["mma.h"]),
        ("cuda/barrier", &["cuda/barrier", "cccl/cuda/barrier"]),
    ];
    for (name, places) in headers {
        let found = |include: &std::path::PathBuf| places.iter().any(|place| include.join(place).is_file());
        if !include.as_ref().is_some_and(found) {
            return Err(format!(
                "the CUDA toolkit's headers are not found; set CUDA_PATH to a folder that holds include/{name}"
            ));
        }
    }
    Ok(())
}

/// Known results: see [`crate::self_check`].
struct SelfCheck;

impl DeviceJob for SelfCheck {
    type Output = Result<(), String>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        Computed::on::<B>(device)?.check()
    }
}
