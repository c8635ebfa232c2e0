//! What CubeCL is told before it opens a GPU: where compiled kernels are kept, and how memory is given out.

use crate::device::{DeviceKind, DeviceSpec};
#[cfg(feature = "cube")]
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, memory::PersistentMemory};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the device will compile all its kernels, as nothing that this build compiled for it before was found. Known for CUDA only.
pub fn compiles_first(device: &DeviceSpec) -> bool {
    #[cfg(feature = "cuda")]
    if device.kind == DeviceKind::Cuda {
        return cuda::folder().is_some_and(|folder| !folder.exists());
    }
    let _ = (device, DeviceKind::Cuda);
    false
}

/// Whether GPUs give out memory of exact sizes.
static EXACT: AtomicBool = AtomicBool::new(false);

/// Has GPUs that are opened from now on give out memory of exactly the sizes that tensors have, and keep it for tensors of that size
/// until [`SolverOps::give_back_memory`](crate::SolverOps::give_back_memory). It suits work on few sizes, such as pruning. Otherwise pools take
/// pages of up to a quarter of the GPU's memory. A GPU that is open already stays as it is.
pub fn exact_memory() {
    EXACT.store(true, Ordering::Relaxed);
}

/// Sets what CubeCL takes from its configuration, unless this process has used a GPU before. What a `cubecl.toml` or an
/// environment variable says stays.
#[cfg(feature = "cube")]
pub(crate) fn configure() {
    if CubeClRuntimeConfig::storage().lock().is_some() {
        return;
    }
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    if EXACT.load(Ordering::Relaxed) {
        config.memory.persistent_memory = PersistentMemory::Enforced;
    }
    #[cfg(feature = "cuda")]
    if config.compilation.cache.is_none() {
        config.compilation.cache = cuda::folder().map(cubecl::config::cache::CacheConfig::File);
    }
    // Another thread may have been faster: then its settings hold, which are the same.
    let mut state = CubeClRuntimeConfig::storage().lock();
    state.get_or_insert_with(|| config.into());
}

/// CUDA's kernels are compiled by NVRTC, a third of a second each, some hundred a run.
#[cfg(feature = "cuda")]
pub(crate) mod cuda {
    use cudarc::driver::{result, sys};
    use std::path::PathBuf;
    use std::time::UNIX_EPOCH;

    /// Whether the driver's library is there.
    pub(crate) fn has_driver() -> bool {
        // SAFETY: loads the library by its well-known name and drops it again; no symbol is called.
        #[allow(unsafe_code, reason = "the only way to ask without a panic")]
        unsafe {
            sys::is_culib_present()
        }
    }

    /// Whether the run-time compiler's library is there.
    pub(crate) fn has_compiler() -> bool {
        // SAFETY: as for the driver's.
        #[allow(unsafe_code, reason = "the only way to ask without a panic")]
        unsafe {
            cudarc::nvrtc::sys::is_culib_present()
        }
    }

    /// The folder of kernels that this program compiled for these GPUs; `None` where there is none to be had.
    ///
    /// CubeCL knows a kernel by its name and sizes, not by its source: another build of the program, another compiler and another
    /// kind of GPU have folders of their own.
    pub(super) fn folder() -> Option<PathBuf> {
        let program = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
        let built = program.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let kind = kind_of_gpus()?;
        let compiler = compiler()?;
        let name = format!(
            "{kind}-nvrtc{compiler}-{:x}-{:x}",
            program.len(),
            built.as_nanos()
        );
        Some(cache()?.join("fista-pruner").join("kernels").join(name))
    }

    /// `sm_90`; `None` where there are GPUs of more than one kind, as CubeCL has one folder a process.
    fn kind_of_gpus() -> Option<String> {
        if !has_driver() {
            return None;
        }
        result::init().ok()?;
        let kinds = (0..result::device::get_count().ok()?).map(|index| {
            let device = result::device::get(index).ok()?;
            let ask = |what| {
                // SAFETY: the device is one that the driver has just named.
                #[allow(unsafe_code, reason = "a question to the driver")]
                unsafe {
                    result::device::get_attribute(device, what).ok()
                }
            };
            let major = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            Some(format!("sm_{major}{minor}"))
        });
        let kinds: Vec<String> = kinds.collect::<Option<_>>()?;
        let first = kinds.first()?;
        kinds.iter().all(|kind| kind == first).then(|| first.clone())
    }

    /// `12.8`; `None` where the library is not there.
    fn compiler() -> Option<String> {
        if !has_compiler() {
            return None;
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is there, and the function writes two numbers.
        #[allow(unsafe_code, reason = "a question to the compiler")]
        let answer = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        answer.result().ok()?;
        Some(format!("{major}.{minor}"))
    }

    /// The user's folder for what can be made again.
    fn cache() -> Option<PathBuf> {
        let from = |name| {
            std::env::var_os(name)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        let of_windows = || from("LOCALAPPDATA").filter(|_| cfg!(windows));
        from("XDG_CACHE_HOME")
            .or_else(of_windows)
            .or_else(|| from("HOME").map(|home| home.join(".cache")))
    }
}
