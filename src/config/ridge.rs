//! How strongly a weight is held at its dense values. In: the number of inputs and of calibration tokens. Out: one number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Pull of `l0` and of the polish towards the dense weight: against fitting what only the calibration tokens have.
///
/// With `g_j = G_jj` and `ḡ` their mean, `r √(ḡ g_j)` is added to every diagonal entry of `G`. SparseGPT and ALPS add `0.01 ḡ` and
/// call it damping; the geometric mean generalises a little better (`docs/algorithm.md`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Ridge {
    /// `r = n / p` for `n` inputs and `p` calibration tokens, at most 0.5: the share of what is fitted that is owed to the chance of
    /// the tokens. 0.005 where the number of tokens is not known.
    #[default]
    Auto,
    /// This `r`.
    Relative(f64),
}

impl Ridge {
    /// Most of `r`, for [`Ridge::Auto`].
    const MOST: f64 = 0.5;
    /// `r` for statistics whose number of tokens is not known: the error on those is what counts then.
    const UNKNOWN: f64 = 5e-3;

    /// `r` for an operator with `inputs` inputs, whose statistics come from `tokens` tokens, if that is known.
    pub fn relative(self, inputs: usize, tokens: Option<usize>) -> f64 {
        match (self, tokens) {
            (Self::Relative(r), _) => r,
            (Self::Auto, None) => Self::UNKNOWN,
            (Self::Auto, Some(tokens)) => (inputs as f64 / tokens.max(1) as f64).min(Self::MOST),
        }
    }
}

impl fmt::Display for Ridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Relative(r) => r.fmt(f),
        }
    }
}

impl FromStr for Ridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = || format!("`{text}` is neither `auto` nor a number");
        text.parse().map(Self::Relative).map_err(|_| wrong())
    }
}

impl Serialize for Ridge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Relative(r) => serializer.serialize_f64(*r),
        }
    }
}

impl<'de> Deserialize<'de> for Ridge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Number(f64),
            Word(String),
        }
        match Stored::deserialize(deserializer)? {
            Stored::Number(r) => Ok(Self::Relative(r)),
            Stored::Word(word) => word.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_as_tokens_become_many() {
        assert_eq!(Ridge::Auto.relative(512, Some(8192)), 0.0625);
        assert_eq!(Ridge::Auto.relative(512, Some(65536)), 0.0078125);
        assert_eq!(Ridge::Auto.relative(512, Some(3)), 0.5);
        assert_eq!(Ridge::Auto.relative(512, None), 0.005);
        assert_eq!(Ridge::Relative(0.3).relative(512, Some(8192)), 0.3);
    }

    #[test]
    fn what_is_written_is_read() {
        for (ridge, json, word) in [
            (Ridge::Auto, "\"auto\"", "auto"),
            (Ridge::Relative(0.25), "0.25", "0.25"),
        ] {
            assert_eq!(serde_json::to_string(&ridge).unwrap(), json);
            assert_eq!(serde_json::from_str::<Ridge>(json).unwrap(), ridge);
            assert_eq!(word.parse(), Ok(ridge));
            assert_eq!(ridge.to_string(), word);
        }
        assert!("much".parse::<Ridge>().unwrap_err().contains("much"));
        assert!(serde_json::from_str::<Ridge>("\"much\"").is_err());
    }
}
