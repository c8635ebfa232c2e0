//! Sparsity patterns: what the user asks for, how many weights that is exactly, and whether a matrix has it.
//!
//! A pattern comes in from the command line or a `PruneConfig`; the solver asks it which
//! entries of a score matrix to keep, and the writer asks it to check what was written.

use super::select::{keep_all_but, keep_in_groups};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a sparsity is none, or why a matrix does not have it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A text or number that is no sparsity.
    #[error("`{text}` is not a sparsity: {reason}")]
    Malformed {
        /// What was given.
        text: String,
        /// Why it cannot be.
        reason: String,
    },

    /// An n:m pattern on an operator whose inputs are no multiple of m.
    #[error("`{operator}` has {inputs} inputs, which {pattern} does not divide")]
    DoesNotFit {
        /// The pattern asked for.
        pattern: Pattern,
        /// The operator's full name.
        operator: String,
        /// Its number of inputs.
        inputs: usize,
    },

    /// A finished matrix without its pattern: a fault of this program.
    #[error("`{operator}` does not have the pattern {pattern}: {reason}")]
    Broken {
        /// The pattern asked for.
        pattern: Pattern,
        /// The operator's full name.
        operator: String,
        /// Where it is broken.
        reason: String,
    },
}

impl PatternError {
    pub(crate) fn hint(&self) -> Option<String> {
        let advice = match self {
            Self::Malformed { .. } => return None,
            Self::DoesNotFit { .. } => {
                "leave the operator out with ‹ignore›, or choose an m that divides its inputs"
            }
            Self::Broken { .. } => "this is a fault of fista-pruner, please report it; nothing was written",
        };
        Some(advice.to_owned())
    }
}

type Result<T> = std::result::Result<T, PatternError>;

/// Which entries compete for the zeros of an unstructured pattern. In an n:m pattern it is always the group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComparisonGroup {
    /// Those of the whole matrix.
    Matrix,
    /// Those of one output row; every row gets its share.
    Row,
}

impl ComparisonGroup {
    /// Every threshold, with the name the command line uses.
    pub const ALL: [(&'static str, Self); 2] = [("matrix", Self::Matrix), ("row", Self::Row)];
}

/// The zeros a pruned weight matrix `[out, in]` must have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Pattern {
    /// This fraction of the matrix is zero, anywhere. `0.0 <= rate < 1.0`.
    Unstructured(f64),
    /// At most `n` of each `m` consecutive inputs of a row are non-zero. `0 < n < m`.
    NOfM {
        /// Weights kept in a group.
        n: usize,
        /// Size of a group, along the inputs.
        m: usize,
    },
    /// `kept` of `of` blocks of consecutive inputs stay, the same in every row: structured pruning. `0 < kept <= of`.
    Columns {
        /// Blocks that stay.
        kept: usize,
        /// Blocks of equal width that the inputs are made of: channels, or heads.
        of: usize,
    },
}

impl Pattern {
    /// An unstructured pattern with the given fraction of zeros.
    ///
    /// # Errors
    /// Unless `0 <= rate < 1`.
    pub fn unstructured(rate: f64) -> Result<Self> {
        if (0.0..1.0).contains(&rate) {
            Ok(Self::Unstructured(rate))
        } else {
            Err(PatternError::Malformed {
                text: rate.to_string(),
                reason: "the fraction of zeros must be at least 0 and below 1".into(),
            })
        }
    }

    /// A pattern that keeps `n` of each `m` consecutive inputs.
    ///
    /// # Errors
    /// Unless `0 < n < m`.
    pub fn n_of_m(n: usize, m: usize) -> Result<Self> {
        if 0 < n && n < m {
            Ok(Self::NOfM { n, m })
        } else {
            Err(PatternError::Malformed {
                text: format!("{n}:{m}"),
                reason: "n:m keeps n of each m inputs, so 0 < n < m".into(),
            })
        }
    }

    /// Number of zeros in a `[rows, columns]` matrix: `floor(rate · rows · columns)`, or `m − n` in each group. One weight at least
    /// is left.
    ///
    /// The floor is what the official SparseGPT and Wanda codes take (`int(numel * sparsity)`).
    pub fn zeros(&self, rows: usize, columns: usize) -> usize {
        match *self {
            // The nudge undoes the binary representation of decimal rates: 0.7 · 10 is 7 zeros, never 6.
            Self::Unstructured(rate) => {
                let wanted = ((rate * (rows * columns) as f64) + 1e-6).floor() as usize;
                wanted.min((rows * columns).saturating_sub(1))
            }
            Self::NOfM { n, m } => rows * (columns / m) * (m - n),
            Self::Columns { kept, of } => rows * (columns / of) * (of - kept),
        }
    }

    /// The fraction of zeros the pattern asks for.
    pub fn rate(&self) -> f64 {
        match *self {
            Self::Unstructured(rate) => rate,
            Self::NOfM { n, m } => 1.0 - n as f64 / m as f64,
            Self::Columns { kept, of } => 1.0 - kept as f64 / of as f64,
        }
    }

    /// Checks that a matrix with that many inputs can have the pattern.
    ///
    /// # Errors
    /// When the number of inputs is no multiple of `m`.
    pub fn check_inputs(&self, operator: &str, columns: usize) -> Result<()> {
        match *self {
            Self::NOfM { m, .. } | Self::Columns { of: m, .. } if !columns.is_multiple_of(m) => {
                Err(PatternError::DoesNotFit {
                    pattern: *self,
                    operator: operator.to_owned(),
                    inputs: columns,
                })
            }
            _ => Ok(()),
        }
    }

    /// Which entries to keep: those with the largest absolute score, `true` = keep, with exactly [`Pattern::zeros`]
    /// entries `false`. The choice among equal ones depends on the scores alone.
    ///
    /// `scores` is `[rows, columns]` row-major. A score that is not a number counts as the smallest.
    pub fn keep_largest(&self, scores: &[f32], rows: usize, columns: usize) -> Vec<bool> {
        debug_assert_eq!(scores.len(), rows * columns);
        match *self {
            Self::Unstructured(_) => keep_all_but(scores, self.zeros(rows, columns)),
            Self::NOfM { n, m } => keep_in_groups(scores, n, m),
            Self::Columns { kept, of } => {
                let width = columns / of;
                let sums: Vec<f32> = (0..of)
                    .map(|block| {
                        let in_row = |row: &[f32]| -> f32 {
                            row[block * width..(block + 1) * width]
                                .iter()
                                .map(|s| s.abs())
                                .sum()
                        };
                        scores.chunks(columns).map(in_row).sum()
                    })
                    .collect();
                let blocks = keep_all_but(&sums, of - kept);
                (0..rows * columns).map(|i| blocks[i % columns / width]).collect()
            }
        }
    }

    /// As [`Pattern::keep_largest`], with the zeros of an unstructured pattern spread evenly over the rows, as Wanda
    /// compares scores within one output only. Row budgets differ by at most one, and their sum is exact.
    pub fn keep_largest_per_row(&self, scores: &[f32], rows: usize, columns: usize) -> Vec<bool> {
        use rayon::prelude::*;
        debug_assert_eq!(scores.len(), rows * columns);
        match *self {
            Self::Unstructured(_) if columns > 0 => {
                let zeros = self.zeros(rows, columns);
                let upto = |row: usize| (row as u128 * zeros as u128 / rows as u128) as usize;
                scores
                    .par_chunks(columns)
                    .enumerate()
                    .flat_map_iter(|(row, scores)| keep_all_but(scores, upto(row + 1) - upto(row)))
                    .collect()
            }
            _ => self.keep_largest(scores, rows, columns),
        }
    }

    /// [`Pattern::keep_largest`] or [`Pattern::keep_largest_per_row`].
    pub fn keep_within(
        &self,
        threshold: ComparisonGroup,
        scores: &[f32],
        rows: usize,
        columns: usize,
    ) -> Vec<bool> {
        match threshold {
            ComparisonGroup::Matrix => self.keep_largest(scores, rows, columns),
            ComparisonGroup::Row => self.keep_largest_per_row(scores, rows, columns),
        }
    }

    /// Checks the values of a finished `[rows, columns]` matrix against the pattern.
    ///
    /// # Errors
    /// When there are fewer zeros than [`Pattern::zeros`], or a group with more than `n` non-zeros.
    pub fn check(&self, operator: &str, values: &[f32], rows: usize, columns: usize) -> Result<()> {
        let broken = |reason: String| PatternError::Broken {
            pattern: *self,
            operator: operator.to_owned(),
            reason,
        };
        match *self {
            Self::Unstructured(_) => {
                let zeros = values.iter().filter(|v| **v == 0.0).count();
                let wanted = self.zeros(rows, columns);
                if zeros < wanted {
                    return Err(broken(format!("{zeros} zeros, {wanted} are needed")));
                }
            }
            Self::NOfM { n, m } => {
                for (group, values) in values.chunks(m).enumerate() {
                    let kept = values.iter().filter(|v| **v != 0.0).count();
                    if kept > n {
                        let (row, first) = (group * m / columns, group * m % columns);
                        return Err(broken(format!(
                            "{kept} non-zeros in inputs {first}..{} of row {row}",
                            first + m
                        )));
                    }
                }
            }
            Self::Columns { kept, of } => {
                let width = columns / of;
                let used = |block: &usize| {
                    let of_row =
                        |row: &[f32]| row[block * width..(block + 1) * width].iter().any(|v| *v != 0.0);
                    values.chunks(columns).any(of_row)
                };
                let found = (0..of).filter(used).count();
                if found > kept {
                    return Err(broken(format!("{found} blocks of inputs are in use")));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured(rate) => write!(f, "{rate}"),
            Self::NOfM { n, m } => write!(f, "{n}:{m}"),
            Self::Columns { kept, of } => write!(f, "{kept} of {of}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    /// `0.5`, `50%`, or `2:4`.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = || PatternError::Malformed {
            text: text.to_owned(),
            reason: "write a fraction such as 0.5, a percentage such as 50%, or n:m such as 2:4".into(),
        };
        if let Some((n, m)) = text.split_once(':') {
            let parse = |s: &str| s.trim().parse::<usize>().map_err(|_| malformed());
            return Self::n_of_m(parse(n)?, parse(m)?);
        }
        let (number, scale) = match text.trim().strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        let rate: f64 = number.trim().parse().map_err(|_| malformed())?;
        Self::unstructured(rate / scale)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    /// As a report has it: what a user may write, or blocks of inputs, which follow from a shape.
    fn try_from(text: String) -> Result<Self> {
        let blocks = text.split_once(" of ").and_then(|(kept, of)| {
            let (kept, of) = (kept.parse().ok()?, of.parse().ok()?);
            (0 < kept && kept <= of).then_some(Self::Columns { kept, of })
        });
        blocks.map_or_else(|| text.parse(), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        assert_eq!("0.5".parse::<Pattern>().unwrap(), Pattern::Unstructured(0.5));
        assert_eq!("70%".parse::<Pattern>().unwrap(), Pattern::Unstructured(0.7));
        assert_eq!("4:8".parse::<Pattern>().unwrap(), Pattern::NOfM { n: 4, m: 8 });
        for bad in [
            "", "1", "1.5", "-0.1", "4:2", "0:4", "2:2", "2:4:8", "half", "NaN",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn decimal_rates_count_as_written() {
        for tenths in 0..10 {
            let pattern = Pattern::Unstructured(f64::from(tenths) / 10.0);
            assert_eq!(pattern.zeros(10, 10), tenths as usize * 10);
        }
    }

    proptest! {
        #[test]
        fn counts_are_exact(
            rows in 1usize..9,
            groups in 1usize..6,
            m in 2usize..17,
            n_seed in 0usize..100,
            rate in 0.0f64..1.0,
            seed in prop::collection::vec(-3i8..4, 9 * 6 * 17),
        ) {
            let columns = groups * m;
            let scores: Vec<f32> = seed.iter().take(rows * columns).map(|s| f32::from(*s)).collect();
            let nm = Pattern::NOfM { n: 1 + n_seed % (m - 1), m };
            let blocks = Pattern::Columns { kept: 1 + n_seed % groups, of: groups };
            prop_assert_eq!(Pattern::try_from(blocks.to_string()).unwrap(), blocks);
            for pattern in [nm, blocks, Pattern::Unstructured(rate)] {
                for keep in [
                    pattern.keep_largest(&scores, rows, columns),
                    pattern.keep_largest_per_row(&scores, rows, columns),
                ] {
                    prop_assert_eq!(keep.iter().filter(|k| !**k).count(), pattern.zeros(rows, columns));
                    let values: Vec<f32> = keep.iter().map(|k| f32::from(u8::from(*k))).collect();
                    prop_assert!(pattern.check("w", &values, rows, columns).is_ok());
                }
            }
            let keep = Pattern::Unstructured(rate).keep_largest(&scores, rows, columns);
            let least_kept = keep.iter().zip(&scores).filter(|(k, _)| **k).map(|(_, s)| s.abs()).fold(f32::INFINITY, f32::min);
            let most_cut = keep.iter().zip(&scores).filter(|(k, _)| !**k).map(|(_, s)| s.abs()).fold(f32::NEG_INFINITY, f32::max);
            prop_assert!(most_cut <= least_kept);
        }
    }
}
