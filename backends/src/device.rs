//! Device names: what a user may write, and what this program was built with.

use crate::error::DeviceError;
use std::fmt;
use std::str::FromStr;

/// The kinds of device burn 0.21 can compute on, as far as this project supports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// burn-flex: pure Rust on the CPU, the default.
    Flex,
    /// burn-ndarray: the CPU, with an optional BLAS.
    NdArray,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs through ROCm.
    Rocm,
    /// Whatever wgpu finds: Vulkan on Linux and Windows, Metal on a Mac.
    Wgpu,
    /// wgpu, on Vulkan with SPIR-V shaders.
    Vulkan,
    /// wgpu, on Metal with MSL shaders.
    Metal,
}

impl DeviceKind {
    /// Every kind, in the order in which [`open_default`](crate::open_default) tries those that are compiled in.
    pub const ALL: [Self; 7] = [
        Self::Cuda,
        Self::Rocm,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
        Self::Flex,
        Self::NdArray,
    ];

    /// The name a user writes, which is also the cargo feature that adds the kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
        }
    }

    /// The name that help and messages show: what people call the device. Reports and files have [`DeviceKind::name`].
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Flex => "cpu",
            _ => self.name(),
        }
    }

    /// Whether this program was built with the kind.
    pub const fn compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
        }
    }

    /// Whether wgpu finds it.
    #[cfg(feature = "wgpu")]
    pub(crate) const fn through_wgpu(self) -> bool {
        matches!(self, Self::Wgpu | Self::Vulkan | Self::Metal)
    }

    /// Whether it is the host itself, whose memory it computes in.
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Flex | Self::NdArray)
    }

    /// Whether there can be several of it, told apart by an index.
    const fn indexed(self) -> bool {
        !self.is_host()
    }
}

/// A device as the user names it: `flex`, `cuda`, `cuda:1`, `wgpu`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    /// The kind of device.
    pub kind: DeviceKind,
    /// Which of several; `None` leaves the choice to the driver.
    pub index: Option<usize>,
}

impl DeviceSpec {
    /// As it is shown in messages: see [`DeviceKind::shown`].
    pub fn shown(&self) -> String {
        match self.index {
            Some(index) => format!("{}:{index}", self.kind.shown()),
            None => self.kind.shown().to_owned(),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match self.index {
            Some(index) => write!(f, ":{index}"),
            None => Ok(()),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    /// A name of [`DeviceKind::name`] (`cpu` is another word for `flex`), with `:index` where there can be several.
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let name = if name == "cpu" { "flex" } else { name };
        let kind = DeviceKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(unknown)?;
        if index.is_some() && !kind.indexed() {
            return Err(unknown());
        }
        Ok(Self { kind, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in [
            "flex", "ndarray", "cuda", "cuda:1", "wgpu:0", "vulkan", "metal", "rocm:2",
        ] {
            assert_eq!(
                text.parse::<DeviceSpec>().map(|d| d.to_string()).ok().as_deref(),
                Some(text)
            );
        }
        assert_eq!(
            "cpu".parse::<DeviceSpec>().map(|d| d.kind).ok(),
            Some(DeviceKind::Flex)
        );
        for (text, shown) in [
            ("flex", "cpu"),
            ("cpu", "cpu"),
            ("ndarray", "ndarray"),
            ("cuda:1", "cuda:1"),
        ] {
            assert_eq!(
                text.parse::<DeviceSpec>().map(|d| d.shown()).ok().as_deref(),
                Some(shown)
            );
        }
        for bad in ["", "gpu", "flex:1", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(bad.parse::<DeviceSpec>().is_err(), "{bad}");
        }
    }
}
