//! Statistics in safetensors files: what `prune --save-statistics` writes and `solve` reads.
//!
//! For each operator `NAME.weight [out, in]`, `NAME.gram [in, in]` (`X* X*ᵀ / p`) and, where the operator's input is not
//! the dense one, `NAME.cross [in, in]` (`X X*ᵀ / p`) and `NAME.dense_gram [in, in]` (`X Xᵀ / p`). `NAME.tokens [1]`, which may
//! be missing, counts the different calibration tokens.

use crate::checkpoint::StoredDtype;
use crate::error::{Error, PruneError, Result};
use crate::prune::{SavedStatistics, Statistics};
use crate::solver::LayerProblem;
use crate::system::AtomicFile;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// One operator of a statistics file, on the host.
#[derive(Debug, Clone)]
pub(crate) struct SavedOperator(SavedStatistics);

/// Reads one operator.
///
/// # Errors
/// When the file cannot be read, the operator is not in it, or shapes do not fit together.
pub(crate) fn read(path: &Path, operator: &str) -> Result<SavedOperator> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let malformed = |reason: String| {
        Error::from(PruneError::Statistics {
            path: path.to_path_buf(),
            reason,
        })
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(e.to_string()))?;
    let tensor = |kind: &str| -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let name = format!("{operator}.{kind}");
        match file.tensor(&name) {
            Ok(view) => Ok(Some((
                view.shape().to_vec(),
                values(&view, &name).map_err(malformed)?,
            ))),
            Err(_) => Ok(None),
        }
    };
    let needed = |kind: &str| {
        tensor(kind)?.ok_or_else(|| {
            let mut known: Vec<_> = file
                .names()
                .into_iter()
                .filter_map(|n| n.strip_suffix(".weight"))
                .collect();
            known.sort_unstable();
            malformed(format!(
                "it has no tensor `{operator}.{kind}` (operators: {})",
                known.join(", ")
            ))
        })
    };
    let (shape, weight) = needed("weight")?;
    let [outputs, inputs] = shape[..] else {
        return Err(malformed(format!(
            "`{operator}.weight` is no matrix: its shape is {shape:?}"
        )));
    };
    let square = |kind: &str, (shape, values): (Vec<usize>, Vec<f32>)| {
        if shape == [inputs, inputs] {
            Ok(values)
        } else {
            Err(malformed(format!(
                "`{operator}.{kind}` has shape {shape:?}, and the weight has {inputs} inputs"
            )))
        }
    };
    let gram = square("gram", needed("gram")?)?;
    let cross = tensor("cross")?.map(|t| square("cross", t)).transpose()?;
    let dense = tensor("dense_gram")?
        .map(|t| square("dense_gram", t))
        .transpose()?;
    // Without X Xᵀ the target's energy is not known; that of W X* stands in, and the drift's own energy, a constant, is
    // left out of the error.
    let cross = cross.map(|cross| {
        let dense = dense.unwrap_or_else(|| stand_in(&gram, &cross, inputs));
        (cross, dense)
    });
    let tokens = match tensor("tokens")? {
        None => None,
        Some((shape, values)) => match values[..] {
            [tokens] if tokens >= 1.0 => Some(tokens as usize),
            _ => {
                return Err(malformed(format!(
                    "`{operator}.tokens` has shape {shape:?} and is no number of tokens"
                )));
            }
        },
    };
    Ok(SavedOperator(SavedStatistics {
        name: operator.to_owned(),
        outputs,
        inputs,
        tokens,
        weight,
        gram,
        cross,
    }))
}

/// The `X Xᵀ` that makes the drift's energy zero: `K + Kᵀ − G`.
fn stand_in(gram: &[f32], cross: &[f32], n: usize) -> Vec<f32> {
    (0..n * n)
        .map(|k| cross[k] + cross[(k % n) * n + k / n] - gram[k])
        .collect()
}

fn values(view: &TensorView<'_>, name: &str) -> Result<Vec<f32>, String> {
    let bytes = view.data();
    let dtype = match view.dtype() {
        Dtype::F64 => StoredDtype::F64,
        Dtype::F32 => StoredDtype::F32,
        Dtype::F16 => StoredDtype::F16,
        Dtype::BF16 => StoredDtype::BF16,
        other => {
            return Err(format!(
                "`{name}` is stored as {other:?}, which is no floating-point format"
            ));
        }
    };
    let mut values = vec![0.0; view.shape().iter().product()];
    match crate::checkpoint::decode_into(bytes, &dtype, &mut values) {
        None => Ok(values),
        Some(position) => Err(format!(
            "`{name}` holds a value that is not finite, at position {position}"
        )),
    }
}

impl SavedOperator {
    /// The operator's problem on a device.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn problem<B: SolverOps>(&self, device: &B::Device) -> Result<LayerProblem<B>> {
        let saved = &self.0;
        let n = saved.inputs;
        let matrix = |values: &Vec<f32>, rows: usize| {
            Tensor::<B, 2>::from_data(TensorData::new(values.clone(), [rows, n]), device)
        };
        let gram = matrix(&saved.gram, n);
        let (drift, drift_gram) = match &saved.cross {
            None => (None, None),
            Some((cross, dense)) => {
                let (cross, dense) = (matrix(cross, n), matrix(dense, n));
                let drift = gram.clone() - cross.clone();
                // (X* − X)(X* − X)ᵀ = G − K − Kᵀ + X Xᵀ
                let drift_gram = drift.clone() - cross.transpose() + dense;
                (Some(drift), Some(drift_gram))
            }
        };
        let statistics = Statistics {
            gram,
            drift,
            drift_gram,
            on_outputs: BTreeMap::new(),
            mean: None,
            tokens: saved.tokens.unwrap_or(0),
        };
        let mut problem = statistics.problem(&saved.name, matrix(&saved.weight, saved.outputs));
        problem.tokens = saved.tokens;
        Ok(problem)
    }
}

/// A named row-major f32 tensor with its shape.
pub(crate) type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Writes tensors to a safetensors file; it appears whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, v)| bytemuck::cast_slice(v).to_vec())
        .collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|e| {
            Error::from(PruneError::Statistics {
                path: path.to_path_buf(),
                reason: e.to_string(),
            })
        })?;
    // Short enough to be waited for by an interruption, which would leave the temporary file.
    let _hold = crate::system::cleanup::hold();
    let mut file = AtomicFile::create(path)?;
    file.write(&views)?;
    file.finish()
}

/// The tensors of one operator, as [`read`] expects them.
pub(crate) fn tensors(saved: SavedStatistics) -> Vec<NamedTensor> {
    let n = saved.inputs;
    let mut tensors = vec![
        (
            format!("{}.weight", saved.name),
            vec![saved.outputs, n],
            saved.weight,
        ),
        (format!("{}.gram", saved.name), vec![n, n], saved.gram),
    ];
    if let Some(tokens) = saved.tokens {
        tensors.push((format!("{}.tokens", saved.name), vec![1], vec![tokens as f32]));
    }
    if let Some((cross, dense)) = saved.cross {
        tensors.push((format!("{}.cross", saved.name), vec![n, n], cross));
        tensors.push((format!("{}.dense_gram", saved.name), vec![n, n], dense));
    }
    tensors
}
