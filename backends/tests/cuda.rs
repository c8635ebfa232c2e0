//! Every kernel of this crate through NVIDIA's own compilers, for three kinds of GPU and without one. None of them may spill registers or
//! take more shared memory than each GPU has; the products of cubek are compiled and shown too.
//!
//! A driver of no GPU (`cuda/driver.c`) lets CubeCL make CUDA sources as it would there and compile them with the real NVRTC; `ptxas` says
//! what each kernel takes. FISTA_PRUNER_CUDA names a folder with the wheels `nvidia-cuda-nvrtc-cu12`, `-runtime-cu12`, `-nvcc-cu12` and
//! `-cccl-cu12` (`…/site-packages/nvidia`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[path = "devices/everything.rs"]
mod everything;

use everything::OWN;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ampere, Hopper and Blackwell.
const KINDS: [&str; 3] = ["80", "90", "120"];
/// What a cube may have on every GPU without asking for more.
const SHARED: usize = 48 * 1024;

/// In a process of its own, where the driver is that of no GPU.
#[test]
fn launches_everything_on_no_gpu() {
    if std::env::var_os("FAKE_CUDA_SM").is_none() {
        return;
    }
    everything::launch("cuda");
}

/// What `ptxas` says of a kernel.
#[derive(Debug, Default)]
struct Taken {
    registers: usize,
    spills: usize,
    shared: usize,
    units: usize,
}

#[test]
#[allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the test says what it compiled, or that it did not"
)]
fn kernels_compile_without_spills_and_with_little_shared_memory() {
    if std::env::var_os("FAKE_CUDA_SM").is_some() {
        return;
    }
    let Some(wheels) = std::env::var_os("FISTA_PRUNER_CUDA").map(PathBuf::from) else {
        eprintln!("skipped: FISTA_PRUNER_CUDA names no folder with NVIDIA's compilers");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-gpu");
    let _ = fs::remove_dir_all(&folder);
    prepare(&folder, &wheels);
    let mut faults = Vec::new();
    for kind in KINDS {
        let out = folder.join(format!("sm_{kind}"));
        fs::create_dir(&out).unwrap();
        let outcome = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "launches_everything_on_no_gpu", "--nocapture"])
            .env("FAKE_CUDA_SM", kind)
            .env("FAKE_CUDA_OUT", &out)
            .env("CUDA_PATH", &folder)
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .env("LD_LIBRARY_PATH", folder.join("lib"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert!(
            outcome.status.success(),
            "sm_{kind}: {said}{}",
            String::from_utf8_lossy(&outcome.stdout)
        );
        let kernels = kernels(&wheels, &out, kind);
        for name in OWN {
            assert!(
                kernels.keys().any(|kernel| kernel.contains(name)),
                "sm_{kind}: no `{name}` was launched"
            );
        }
        println!("sm_{kind}: registers, units, bytes of shared memory, bytes of spills");
        for (name, taken) in &kernels {
            let Taken {
                registers,
                units,
                shared,
                spills,
            } = taken;
            println!("{registers:>6}{units:>6}{shared:>8}{spills:>6}  {name}");
            let own = OWN.iter().any(|own| name.starts_with(own));
            if own && (*spills > 0 || *shared > SHARED) {
                faults.push(format!("sm_{kind}, {name}: {taken:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `include` with the headers of all wheels, and `lib` with NVRTC and the driver of no GPU.
fn prepare(folder: &Path, wheels: &Path) {
    let (include, lib) = (folder.join("include"), folder.join("lib"));
    fs::create_dir_all(&include).unwrap();
    fs::create_dir_all(&lib).unwrap();
    for wheel in ["cuda_runtime", "cuda_nvcc", "cuda_cccl"] {
        for entry in fs::read_dir(wheels.join(wheel).join("include")).unwrap() {
            let entry = entry.unwrap();
            let to = include.join(entry.file_name());
            if !to.exists() {
                std::os::unix::fs::symlink(entry.path(), to).unwrap();
            }
        }
    }
    for entry in fs::read_dir(wheels.join("cuda_nvrtc/lib")).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), lib.join(entry.file_name())).unwrap();
    }
    if !lib.join("libnvrtc.so").exists() {
        std::os::unix::fs::symlink(lib.join("libnvrtc.so.12"), lib.join("libnvrtc.so")).unwrap();
    }
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/driver.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(lib.join("libcuda.so"))
        .arg(driver)
        .status();
    assert!(built.unwrap().success());
    std::os::unix::fs::symlink(lib.join("libcuda.so"), lib.join("libcuda.so.1")).unwrap();
}

/// Each kernel that was launched, by its name in the source and its number.
fn kernels(wheels: &Path, out: &Path, kind: &str) -> BTreeMap<String, Taken> {
    let launches = fs::read_to_string(out.join("launches")).unwrap();
    let launches: BTreeSet<Vec<&str>> = launches.lines().map(|line| line.split('\t').collect()).collect();
    let mut kernels: BTreeMap<String, Taken> = BTreeMap::new();
    for launch in launches {
        let [module, function, units, shared] = launch[..] else {
            panic!("{launch:?}")
        };
        let taken = kernels.entry(format!("{function} ({module})")).or_default();
        taken.units = taken.units.max(units.parse().unwrap());
        let dynamic: usize = shared.parse().unwrap();
        if taken.registers == 0 {
            *taken = Taken {
                units: taken.units,
                ..said_by_ptxas(wheels, &out.join(format!("{module}.ptx")), kind)
            };
        }
        taken.shared = taken.shared.max(dynamic);
    }
    kernels
}

fn said_by_ptxas(wheels: &Path, module: &Path, kind: &str) -> Taken {
    // Hopper's and Blackwell's own instructions need the `a`, as CubeCL asks for.
    let feature = if kind.parse::<usize>().unwrap() >= 90 {
        "a"
    } else {
        ""
    };
    let outcome = Command::new(wheels.join("cuda_nvcc/bin/ptxas"))
        .args(["-v", &format!("-arch=sm_{kind}{feature}"), "-o", "/dev/null"])
        .arg(module)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(outcome.status.success(), "{}: {said}", module.display());
    let before = |what: &str| {
        let number = said.split(what).next().unwrap().rsplit(' ').next().unwrap_or("0");
        if said.contains(what) {
            number.parse().unwrap()
        } else {
            0
        }
    };
    Taken {
        registers: before(" registers"),
        spills: before(" bytes spill stores") + before(" bytes spill loads"),
        shared: before(" bytes smem"),
        units: 0,
    }
}
