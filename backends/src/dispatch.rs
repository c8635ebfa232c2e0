//! From a device's name to generic code running on it: the one place where concrete backends are named.

#[cfg(feature = "wgpu")]
use crate::adapters::{Adapter, adapters};
use crate::device::{DeviceKind, DeviceSpec};
use crate::error::DeviceError;
use crate::ops::SolverOps;
use crate::self_check::Computed;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

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
/// When the device was not compiled in, or a GPU gives up in the middle of the work: what burn makes a panic of, such as
/// memory that is not there, is an error.
pub fn dispatch_opened<J: DeviceJob>(spec: &DeviceSpec, job: J) -> Result<J::Output, DeviceError> {
    if spec.kind.is_host() {
        return run_on(spec, job);
    }
    catch_unwind(AssertUnwindSafe(|| run_on(spec, job))).unwrap_or_else(|panic| {
        Err(DeviceError::Failed {
            device: spec.shown(),
            reason: panic_text(panic.as_ref()),
        })
    })
}

/// Opens a device and checks that it computes known results rightly.
///
/// A GPU's library failures can be silent, so a device is never trusted before it has shown right results.
///
/// # Errors
/// As [`dispatch`].
pub fn open(spec: &DeviceSpec) -> Result<(), DeviceError> {
    presence(spec)?;
    match quietly(|| run_on(spec, SelfCheck)) {
        Ok(result) => result?.map_err(|reason| DeviceError::SelfCheck {
            device: spec.shown(),
            reason,
        }),
        Err(reason) => Err(DeviceError::Unavailable {
            device: spec.shown(),
            reason,
        }),
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

/// What `f` gives, or the message of its panic, which nobody sees: opening a device can panic inside burn.
fn quietly<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is the process's own; two threads that swap it would lose it.
    static HOOK: Mutex<()> = Mutex::new(());
    let _only = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = catch_unwind(AssertUnwindSafe(f));
    std::panic::set_hook(hook);
    outcome.map_err(|panic| panic_text(panic.as_ref()))
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

/// The driver, and the headers that burn's run-time compiler includes.
#[cfg(feature = "cuda")]
fn cuda_presence(spec: &DeviceSpec) -> Result<(), DeviceError> {
    let missing = |reason: &str| {
        Err(DeviceError::Unavailable {
            device: spec.shown(),
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

/// Known results: see [`crate::self_check`].
struct SelfCheck;

impl DeviceJob for SelfCheck {
    type Output = Result<(), String>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        Computed::on::<B>(device)?.check()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
