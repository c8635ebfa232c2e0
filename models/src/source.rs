//! Where weights come from: the one door through which a decoder asks for a tensor. The crate itself opens no files.

use burn::tensor::TensorData;
use std::collections::HashMap;

/// What went wrong inside a [`TensorSource`], in the words of the source.
pub type SourceError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Named tensors of a checkpoint.
///
/// A source converts what it stores (f16, bf16, f32) to f32, checks the shape, and says in its error which file and
/// tensor were wrong.
pub trait TensorSource {
    /// The tensor `name` as row-major f32 of exactly `shape`.
    ///
    /// # Errors
    /// When the tensor is missing, has another shape, cannot be read, or holds a value that is not finite.
    fn load(&self, name: &str, shape: &[usize]) -> Result<TensorData, SourceError>;

    /// Whether the source holds a tensor of that name.
    fn contains(&self, name: &str) -> bool;

    /// The names of all tensors, where they are known: a decoder then finds its own behind a prefix that wrappers put before
    /// every name, such as `_orig_mod.`.
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// A source in memory, for tests and for models that never were a file. Values are row-major f32 with their shape.
impl TensorSource for HashMap<String, (Vec<usize>, Vec<f32>)> {
    fn load(&self, name: &str, shape: &[usize]) -> Result<TensorData, SourceError> {
        let (found, values) = self
            .get(name)
            .ok_or_else(|| format!("tensor `{name}` is missing"))?;
        if found != shape {
            return Err(format!("tensor `{name}` has shape {found:?}, expected {shape:?}").into());
        }
        Ok(TensorData::new(values.clone(), shape.to_vec()))
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}
