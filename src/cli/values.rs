//! How the values of flags are read: names of closed sets, devices, propagation, bytes. Values are checked here for their form
//! only; their meaning is checked where they are used.

use crate::config::{
    Baseline, ComparisonGroup, LambdaSearch, LambdaUnit, Method, PolicyLoss, Propagation, Removable, Scaling,
    ShapeRule, StructuredMethod, WarmStart, means, shown,
};
use crate::prune::plan::StatePlace;
use crate::text::DrawFrom;
use bytesize::ByteSize;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use fista_pruner_backends::{DeviceError, DeviceSpec};

pub(crate) fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse().map_err(|e: DeviceError| match e.hint() {
        Some(hint) => format!("{e}; {hint}"),
        None => e.to_string(),
    })
}

pub(crate) fn parse_propagation(text: &str) -> Result<Propagation, String> {
    use crate::config::LayerInput::{Dense, Pruned};
    if let Some((_, named)) = Propagation::NAMED.iter().find(|(name, _)| means(text, name)) {
        return Ok(*named);
    }
    let mut propagation = Propagation::INTRA;
    for switch in text.split(',') {
        match switch.trim() {
            "input=dense" => propagation.layer_input = Dense,
            "input=pruned" => propagation.layer_input = Pruned,
            "within=corrected" => propagation.corrected = true,
            "within=uncorrected" => propagation.corrected = false,
            "target=dense" => propagation.dense_share = 1.0,
            "target=current" => propagation.dense_share = 0.0,
            other => {
                let share = other.strip_prefix("target=").and_then(|share| share.parse().ok());
                if let Some(share) = share.filter(|share| (0.0..=1.0).contains(share)) {
                    propagation.dense_share = share;
                    continue;
                }
                let names = Propagation::NAMED.map(|(name, _)| shown(name)).join(", ");
                return Err(format!("`{other}` is neither one of {names} nor a switch"));
            }
        }
    }
    Ok(propagation)
}

/// A number of bytes with an optional unit: `24GB`, `20GiB`, `500MB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        _ => Err(format!("`{text}` is no number of bytes, such as 24GB or 20GiB")),
    }
}

/// Names of a closed set of values, from the table that the value's own module keeps. Where users see another name, the
/// table's name is accepted too.
macro_rules! named_values {
    ($kind:ty) => {
        impl ValueEnum for $kind {
            fn value_variants<'a>() -> &'a [Self] {
                const VARIANTS: [$kind; <$kind>::ALL.len()] = {
                    let mut variants = [<$kind>::ALL[0].1; <$kind>::ALL.len()];
                    let mut i = 0;
                    while i < variants.len() {
                        variants[i] = <$kind>::ALL[i].1;
                        i += 1;
                    }
                    variants
                };
                &VARIANTS
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                let (name, _) = Self::ALL.iter().find(|(_, v)| v == self)?;
                let value = PossibleValue::new(shown(name));
                Some(if shown(name) == *name {
                    value
                } else {
                    value.alias(*name)
                })
            }
        }
    };
}

named_values!(Method);
named_values!(WarmStart);
named_values!(LambdaSearch);
named_values!(LambdaUnit);
named_values!(Scaling);
named_values!(ComparisonGroup);
named_values!(StatePlace);
named_values!(DrawFrom);
named_values!(Removable);
named_values!(ShapeRule);
named_values!(StructuredMethod);
named_values!(Baseline);
named_values!(PolicyLoss);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_by_name_and_by_switches() {
        for (name, propagation) in Propagation::NAMED {
            assert_eq!(parse_propagation(name), Ok(propagation));
            assert_eq!(parse_propagation(shown(name)), Ok(propagation));
        }
        assert_eq!(
            parse_propagation("input=pruned,within=uncorrected,target=current"),
            Ok(Propagation::SEQUENTIAL)
        );
        assert!(parse_propagation("input=sparse").is_err());
    }
}
