//! The names of stored number formats, and their sizes.

use std::fmt;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoredDtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// IEEE double precision.
    F64,
    /// Anything else, by its safetensors name ("I64", "F8_E4M3", …): copied untouched, never read as a weight.
    Other(String),
}

/// safetensors names of formats that are not read as weights, with their bits, so that sizes can be checked.
const OTHER_BITS: [(&str, u64); 16] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("I16", 16),
    ("U16", 16),
    ("I32", 32),
    ("U32", 32),
    ("I64", 64),
    ("U64", 64),
    ("C64", 64),
];

impl StoredDtype {
    /// The format of that safetensors name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F64" => Self::F64,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its safetensors name.
    pub fn name(&self) -> &str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::Other(name) => name,
        }
    }

    /// Bits an element, where the format is a known one.
    pub fn bits(&self) -> Option<u64> {
        match self {
            Self::F16 | Self::BF16 => Some(16),
            Self::F32 => Some(32),
            Self::F64 => Some(64),
            Self::Other(name) => OTHER_BITS
                .iter()
                .find(|(known, _)| known == name)
                .map(|&(_, bits)| bits),
        }
    }

    /// Whether weights in it can be read as f32.
    pub fn is_weight(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
