//! Stored number formats. In: bytes of a checkpoint, or f32 values with a mask. Out: the other.
//!
//! The reader decodes with this, the writer encodes with it, and `prune` rounds with it, so that errors are measured on
//! exactly the values that a reader of the written checkpoint will see.

use super::{CheckpointError, StoredDtype};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements converted by one task: large enough to hide the scheduling, small enough to keep two cores busy on a
/// 768 × 768 weight.
pub(crate) const CHUNK_ELEMENTS: usize = 1 << 16;

/// Decodes little-endian `bytes` into `values` (one element each). Returns the first position that is not finite in f32.
///
/// `dtype` must be a weight format; other formats leave `values` as they are.
pub(crate) fn decode_into(bytes: &[u8], dtype: &StoredDtype, values: &mut [f32]) -> Option<usize> {
    match dtype {
        StoredDtype::F32 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        StoredDtype::F16 => {
            // The bytes of a file are not aligned, and the hardware conversion wants a slice of f16: a small buffer
            // between the two, which stays in the first-level cache.
            let mut buffer = [f16::ZERO; 1024];
            for (v, b) in values
                .chunks_mut(buffer.len())
                .zip(bytes.as_chunks::<2>().0.chunks(buffer.len()))
            {
                for (h, b) in buffer.iter_mut().zip(b) {
                    *h = f16::from_le_bytes(*b);
                }
                buffer[..v.len()].convert_to_f32_slice(v);
            }
        }
        StoredDtype::BF16 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *v = bf16::from_le_bytes(*b).to_f32();
            }
        }
        StoredDtype::F64 => {
            for (v, b) in values.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *v = f64::from_le_bytes(*b) as f32;
            }
        }
        StoredDtype::Other(_) => {}
    }
    // A branch-free sum first: the position is wanted only where something is wrong.
    let finite = values.iter().fold(true, |all, v| all & v.is_finite());
    if finite {
        None
    } else {
        values.iter().position(|v| !v.is_finite())
    }
}

/// What one kept value becomes in a format: rounded to nearest even, but never from non-zero to zero, and never −0.
macro_rules! stored_half {
    ($half:ty, $value:expr) => {{
        let rounded = <$half>::from_f32($value);
        match (rounded.to_bits() & 0x7FFF == 0, $value) {
            (true, v) if v > 0.0 => <$half>::from_bits(0x0001),
            (true, v) if v < 0.0 => <$half>::from_bits(0x8001),
            (true, _) => <$half>::ZERO,
            (false, _) => rounded,
        }
    }};
}

fn stored_f16(value: f32) -> f16 {
    stored_half!(f16, value)
}

fn stored_bf16(value: f32) -> bf16 {
    stored_half!(bf16, value)
}

/// Adding +0 turns −0 into +0 and leaves everything else as it is.
fn stored_f32(value: f32) -> f32 {
    value + 0.0
}

/// Encodes row-major f32 `values` in `dtype`, little-endian.
///
/// Entries that `keep` does not keep become +0. A kept value that is not zero stays so: where it would round to zero it
/// becomes the smallest subnormal of its sign, so that the mask survives the file. −0 is never written.
///
/// # Errors
/// When a kept value is not finite or overflows the format, when the format is not one of weights, or when `keep` has
/// another length than `values`.
pub fn encode(
    values: &[f32],
    keep: Option<&[bool]>,
    dtype: &StoredDtype,
) -> std::result::Result<Vec<u8>, CheckpointError> {
    if let Some(keep) = keep
        && keep.len() != values.len()
    {
        return Err(CheckpointError::Length {
            tensor: "the weight".into(),
            what: "mask entries",
            expected: values.len(),
            found: keep.len(),
        });
    }
    let size = match dtype {
        StoredDtype::F16 | StoredDtype::BF16 => 2,
        StoredDtype::F32 => 4,
        StoredDtype::F64 => 8,
        StoredDtype::Other(_) => {
            return Err(CheckpointError::NotWritable {
                what: "the weight".into(),
                dtype: dtype.clone(),
            });
        }
    };
    let mut bytes = vec![0; values.len() * size];
    let bad = bytes
        .par_chunks_mut(CHUNK_ELEMENTS * size)
        .zip(values.par_chunks(CHUNK_ELEMENTS))
        .enumerate()
        .filter_map(|(chunk, (bytes, values))| {
            let start = chunk * CHUNK_ELEMENTS;
            let keep = keep.map(|keep| &keep[start..start + values.len()]);
            encode_chunk(bytes, values, keep, dtype).map(|position| start + position)
        })
        .min();
    match bad {
        None => Ok(bytes),
        Some(position) => Err(CheckpointError::DoesNotFit {
            what: "the weight".into(),
            value: values[position],
            position,
            dtype: dtype.clone(),
        }),
    }
}

/// One task of [`encode`]: the first position that does not fit.
fn encode_chunk(
    bytes: &mut [u8],
    values: &[f32],
    keep: Option<&[bool]>,
    dtype: &StoredDtype,
) -> Option<usize> {
    let kept = |i: usize, v: f32| {
        if keep.is_none_or(|keep| keep[i]) { v } else { 0.0 }
    };
    let mut bad = None;
    let mut note = |i: usize, fits: bool| {
        if !fits && bad.is_none() {
            bad = Some(i);
        }
    };
    match dtype {
        StoredDtype::F32 => {
            for (i, (b, &v)) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values).enumerate() {
                let stored = stored_f32(kept(i, v));
                note(i, stored.is_finite());
                *b = stored.to_le_bytes();
            }
        }
        StoredDtype::F16 => {
            for (i, (b, &v)) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values).enumerate() {
                let stored = stored_f16(kept(i, v));
                note(i, stored.is_finite());
                *b = stored.to_le_bytes();
            }
        }
        StoredDtype::BF16 => {
            for (i, (b, &v)) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values).enumerate() {
                let stored = stored_bf16(kept(i, v));
                note(i, stored.is_finite());
                *b = stored.to_le_bytes();
            }
        }
        StoredDtype::F64 => {
            for (i, (b, &v)) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(values).enumerate() {
                let stored = f64::from(stored_f32(kept(i, v)));
                note(i, stored.is_finite());
                *b = stored.to_le_bytes();
            }
        }
        StoredDtype::Other(_) => {}
    }
    bad
}

/// Rounds `values` in place to what a reader of [`encode`]'s bytes will see.
///
/// A value that overflows the format becomes infinite, so that the error which [`encode`] reports for it shows up in
/// whatever is computed from it too. Formats that are not of weights change nothing but the mask.
///
/// # Panics
/// When `keep` has another length than `values`.
pub fn round_to(values: &mut [f32], keep: Option<&[bool]>, dtype: &StoredDtype) {
    if let Some(keep) = keep {
        assert_eq!(keep.len(), values.len(), "one mask entry for each value");
    }
    values
        .par_chunks_mut(CHUNK_ELEMENTS)
        .enumerate()
        .for_each(|(chunk, values)| {
            let start = chunk * CHUNK_ELEMENTS;
            if let Some(keep) = keep {
                for (v, &keep) in values.iter_mut().zip(&keep[start..]) {
                    *v = if keep { *v } else { 0.0 };
                }
            }
            match dtype {
                StoredDtype::F16 => values.iter_mut().for_each(|v| *v = stored_f16(*v).to_f32()),
                StoredDtype::BF16 => values.iter_mut().for_each(|v| *v = stored_bf16(*v).to_f32()),
                StoredDtype::F32 | StoredDtype::F64 | StoredDtype::Other(_) => {
                    values.iter_mut().for_each(|v| *v = stored_f32(*v));
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEIGHT_DTYPES: [StoredDtype; 4] = [
        StoredDtype::F32,
        StoredDtype::F16,
        StoredDtype::BF16,
        StoredDtype::F64,
    ];

    fn decode(bytes: &[u8], dtype: &StoredDtype, elements: usize) -> Vec<f32> {
        let mut values = vec![0.0; elements];
        assert_eq!(decode_into(bytes, dtype, &mut values), None);
        values
    }

    /// Every finite f32 that also fits f16: all signs, subnormals of each format, both zeros, the largest values.
    fn weight() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -65504.0f32..65504.0,
            2 => -1e-6f32..1e-6,
            1 => (0u32..0x0080_0000).prop_map(f32::from_bits),
            1 => (0x8000_0000u32..0x8080_0000).prop_map(f32::from_bits),
            1 => Just(0.0),
            1 => Just(-0.0),
            1 => Just(65504.0),
        ]
    }

    proptest! {
        #[test]
        fn encoding_keeps_the_mask_and_rounds_as_announced(
            entries in proptest::collection::vec((weight(), any::<bool>()), 0..200),
            dtype in proptest::sample::select(WEIGHT_DTYPES.to_vec()),
        ) {
            let (values, keep): (Vec<f32>, Vec<bool>) = entries.into_iter().unzip();
            let bytes = encode(&values, Some(&keep), &dtype).unwrap();
            let seen = decode(&bytes, &dtype, values.len());
            let mut rounded = values.clone();
            round_to(&mut rounded, Some(&keep), &dtype);
            for i in 0..values.len() {
                prop_assert_eq!(seen[i].to_bits(), rounded[i].to_bits());
                prop_assert_eq!(seen[i] != 0.0, keep[i] && values[i] != 0.0);
                prop_assert!(seen[i] != 0.0 || seen[i].is_sign_positive());
                prop_assert!(seen[i] == 0.0 || seen[i].is_sign_negative() == values[i].is_sign_negative());
            }
            // What was read is representable: encoding it again changes nothing.
            prop_assert_eq!(encode(&seen, None, &dtype).unwrap(), bytes);
        }
    }

    #[test]
    fn every_half_survives_a_round_trip() {
        for (dtype, to_f32) in [
            (
                StoredDtype::F16,
                (|b| f16::from_bits(b).to_f32()) as fn(u16) -> f32,
            ),
            (StoredDtype::BF16, |b| bf16::from_bits(b).to_f32()),
        ] {
            let bits: Vec<u16> = (0..=u16::MAX)
                .filter(|&b| to_f32(b).is_finite() && b != 0x8000)
                .collect();
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            let values = decode(&bytes, &dtype, bits.len());
            assert_eq!(values, bits.iter().map(|&b| to_f32(b)).collect::<Vec<_>>());
            assert_eq!(encode(&values, None, &dtype).unwrap(), bytes);
        }
    }

    #[test]
    fn a_kept_value_never_underflows_to_zero() {
        let tiny = [1e-30f32, -1e-30, f32::from_bits(1), -f32::from_bits(1)];
        assert_eq!(
            encode(&tiny[..2], None, &StoredDtype::F16).unwrap(),
            [1, 0, 1, 0x80]
        );
        assert_eq!(
            encode(&tiny[2..], None, &StoredDtype::BF16).unwrap(),
            [1, 0, 1, 0x80]
        );
        assert_eq!(encode(&[-0.0], None, &StoredDtype::F32).unwrap(), [0; 4]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_position() {
        let mut values = vec![0.5f32; 3 * CHUNK_ELEMENTS];
        values[2 * CHUNK_ELEMENTS + 7] = 70_000.0;
        values[2 * CHUNK_ELEMENTS + 9] = f32::NAN;
        let error = encode(&values, None, &StoredDtype::F16).unwrap_err();
        assert!(matches!(
            error,
            CheckpointError::DoesNotFit { position, value: 70_000.0, .. }
                if position == 2 * CHUNK_ELEMENTS + 7
        ));
        let mut keep = vec![true; values.len()];
        keep[2 * CHUNK_ELEMENTS + 7] = false;
        keep[2 * CHUNK_ELEMENTS + 9] = false;
        assert!(encode(&values, Some(&keep), &StoredDtype::F16).is_ok());
        assert!(encode(&[f32::INFINITY], None, &StoredDtype::F32).is_err());
        assert!(encode(&[1.0], None, &StoredDtype::Other("I8".into())).is_err());
        assert!(encode(&[1.0], Some(&[]), &StoredDtype::F32).is_err());
    }

    #[test]
    fn decoding_finds_the_first_value_that_is_not_finite() {
        let values = [1.0, f32::INFINITY, f32::NAN];
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        assert_eq!(decode_into(&bytes, &StoredDtype::F16, &mut [0.0; 3]), Some(1));
        let too_large = 1e300f64.to_le_bytes();
        assert_eq!(decode_into(&too_large, &StoredDtype::F64, &mut [0.0]), Some(0));
    }
}
