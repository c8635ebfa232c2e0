//! Gradients of one decoder layer by burn's autodiff, window by window. In: a layer on any backend, what to differentiate, a
//! loss. Out: the loss and its gradients, on the same backend. Block reconstruction and the factors' training use it.

use crate::error::{Error, Result};
use crate::solver::download;
use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use fista_pruner_models::{Layer, on_host};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A layer, or its input, whose gradients are taken.
pub(super) type Tracked<B> = Autodiff<B>;

/// A loss and its gradients.
#[derive(Debug)]
pub(super) struct Gradients<B: Backend> {
    pub(super) loss: f64,
    /// Of the weights `[out, in]` that were asked for, in that order.
    pub(super) weights: Vec<Tensor<B, 2>>,
    /// Of the input `[windows, tokens, hidden]`, where it was asked for.
    pub(super) input: Option<Tensor<B, 3>>,
}

impl<B: Backend> Gradients<B> {
    /// Both losses, and both gradients of weights.
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        let ours = std::mem::take(&mut self.weights);
        self.weights = ours.into_iter().zip(other.weights).map(|(a, b)| a + b).collect();
    }
}

/// What is differentiated with respect to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Operators of the layer, such as `self_attn.q_proj`.
    pub(super) operators: &'a [&'static str],
    /// Whether the input is wanted too.
    pub(super) input: bool,
}

/// The gradients of `loss`, a function of the layer and its input `[windows, tokens, hidden]` that gives one number.
///
/// # Errors
/// When the device fails, or the loss does not depend on what is wanted.
pub(super) fn gradients<B: Backend>(
    layer: &Layer<B>,
    input: Tensor<B, 3>,
    wanted: Wanted<'_>,
    loss: impl FnOnce(&Layer<Tracked<B>>, Tensor<Tracked<B>, 3>) -> Tensor<Tracked<B>, 1>,
) -> Result<Gradients<B>> {
    let missing = |what: &str| Error::internal(format!("a loss does not depend on {what}"));
    let mut tracked = Layer::<Tracked<B>>::from_inner(layer.clone()).no_grad();
    let mut leaves = Vec::with_capacity(wanted.operators.len());
    for operator in wanted.operators {
        let weight = layer.weight(operator).ok_or_else(|| missing(operator))?;
        let leaf = Tensor::<Tracked<B>, 2>::from_inner(weight).require_grad();
        tracked.set_weight(operator, leaf.clone())?;
        leaves.push(leaf);
    }
    let mut input = Tensor::from_inner(input);
    if wanted.input {
        input = input.require_grad();
    }
    let loss = loss(&tracked, input.clone());
    let value = download(loss.clone().inner())?;
    let mut all = loss.backward();
    let of_weight = |(leaf, name): (&Tensor<Tracked<B>, 2>, &&str)| {
        leaf.grad_remove(&mut all).ok_or_else(|| missing(name))
    };
    let weights = leaves
        .iter()
        .zip(wanted.operators)
        .map(of_weight)
        .collect::<Result<_>>()?;
    let input = match wanted.input {
        true => Some(input.grad_remove(&mut all).ok_or_else(|| missing("the input"))?),
        false => None,
    };
    Ok(Gradients {
        loss: value.iter().map(|v| f64::from(*v)).sum(),
        weights,
        input,
    })
}

/// [`each`] for `f` that takes gradients: on threads of its own instead of rayon's. burn's autodiff holds a lock while it goes
/// back through a graph. A thread of rayon's that waits for a product in there may begin another item, and then waits for
/// its own lock.
///
/// # Errors
/// The first one of `f`.
pub(super) fn each_gradient<B: Backend, T: Send, R: Send>(
    device: &B::Device,
    items: Vec<T>,
    f: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    if !on_host::<B>(device) {
        return items.into_iter().map(f).collect();
    }
    let threads = rayon::current_num_threads().min(items.len());
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let results: Mutex<BTreeMap<usize, Result<R>>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, item)) = next else { break };
                    let result = f(item);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(index, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    debug_assert_eq!(results.len(), count);
    results.into_values().collect()
}

/// `f` of every item, in their order: on all cores where the backend computes on the calling thread, one after the other
/// elsewhere.
///
/// # Errors
/// The first one of `f`.
pub(super) fn each<B: Backend, T: Send, R: Send>(
    device: &B::Device,
    items: Vec<T>,
    f: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    if on_host::<B>(device) {
        items.into_par_iter().map(f).collect()
    } else {
        items.into_iter().map(f).collect()
    }
}
