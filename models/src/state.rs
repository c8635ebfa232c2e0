//! A layer's evaluation between two operator groups: what every family's layer takes and gives, and what `layer` puts around
//! them all.

use crate::parts::on_host;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rayon::prelude::*;

/// A layer's evaluation between two operator groups.
#[derive(Clone, Debug)]
pub struct LayerState<B: Backend> {
    /// The input of the next group's operators, `[batch, tokens, in_features]`; after the last group the layer's
    /// output, `[batch, tokens, hidden]`.
    pub input: Tensor<B, 3>,
    /// What the next residual sum adds, `[batch, tokens, hidden]`; nothing after the last group.
    residual: Option<Tensor<B, 3>>,
}

impl<B: Backend> LayerState<B> {
    /// The input, and what the next residual sum adds, if there is one: all that an evaluation needs to go on.
    pub fn into_parts(self) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
        (self.input, self.residual)
    }

    /// The state that [`into_parts`](Self::into_parts) took apart.
    pub fn from_parts(input: Tensor<B, 3>, residual: Option<Tensor<B, 3>>) -> Self {
        Self { input, residual }
    }

    pub(crate) fn new(input: Tensor<B, 3>, residual: Tensor<B, 3>) -> Self {
        Self {
            input,
            residual: Some(residual),
        }
    }

    /// The residual stream that the next residual sum adds to, `[batch, tokens, hidden]`; nothing after the last group.
    pub fn residual(&self) -> Option<&Tensor<B, 3>> {
        self.residual.as_ref()
    }

    /// The state of sequence `i` alone, in memory of its own: host backends are slow on parts of a buffer.
    fn sequence(&self, i: usize) -> Self {
        let part = |x: &Tensor<B, 3>| x.clone().slice_dim(0, i..i + 1).mul_scalar(1.0);
        Self {
            input: part(&self.input),
            residual: self.residual.as_ref().map(part),
        }
    }

    pub(crate) fn last(output: Tensor<B, 3>) -> Self {
        Self {
            input: output,
            residual: None,
        }
    }

    /// Changes the input and carries the residual on.
    pub(crate) fn map(self, f: impl FnOnce(Tensor<B, 3>) -> Tensor<B, 3>) -> Self {
        Self {
            input: f(self.input),
            residual: self.residual,
        }
    }

    /// `f(input) + residual`, `[batch, tokens, hidden]`.
    pub(crate) fn add_residual(self, f: impl FnOnce(Tensor<B, 3>) -> Tensor<B, 3>) -> Tensor<B, 3> {
        let sum = f(self.input);
        match self.residual {
            Some(residual) => sum + residual,
            None => sum,
        }
    }
}

/// Applies `f` to each sequence on its own, on all cores, where that is faster: on a host backend, whose elementwise
/// operations run on one core and are fastest in its cache. Elsewhere, and for a single sequence, it is just `f`.
///
/// The sequences do not depend on each other, so the result is the same but for the rounding of products of other
/// sizes.
pub(crate) fn by_sequence<B: Backend>(
    state: LayerState<B>,
    f: impl Fn(LayerState<B>) -> LayerState<B> + Sync,
) -> LayerState<B> {
    let [batch, _, _] = state.input.dims();
    if batch == 1 || !on_host::<B>(&state.input.device()) {
        return f(state);
    }
    let states: Vec<LayerState<B>> = (0..batch).into_par_iter().map(|i| f(state.sequence(i))).collect();
    let residual = states.iter().map(|state| state.residual.clone()).collect();
    let inputs = states.into_iter().map(|state| state.input).collect();
    LayerState {
        input: Tensor::cat(inputs, 0),
        residual: Option::map(residual, |parts: Vec<_>| Tensor::cat(parts, 0)),
    }
}
