//! A decoder layer of any family, evaluated whole or in stages, so that a caller can look at an operator's input, and
//! replace operators, between the stages.

use crate::error::ModelError;
use crate::llama::LlamaLayer;
use crate::opt::OptLayer;
use crate::packed::{Pack, Tokens};
use crate::parts::{KvCache, on_host};
use crate::state::{LayerState, by_sequence};
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rayon::prelude::*;

/// A decoder layer. Cloning shares the weights.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a layer is one of a few, and its tensors dwarf it"
)]
pub enum Layer<B: Backend> {
    /// OPT.
    Opt(OptLayer<B>),
    /// LLaMA and its relatives.
    Llama(LlamaLayer<B>),
}

impl<B: Backend> Layer<B> {
    /// Operator groups of a layer, in every family.
    pub const GROUPS: usize = 4;

    /// Those of them that belong to attention; the others are the MLP's.
    pub const ATTENTION_GROUPS: usize = 2;

    /// The input of the first group's operators, from the layer's input `[batch, tokens, hidden]`.
    ///
    /// The sequences start at position 0 and have no padding.
    pub fn begin(&self, hidden: Tensor<B, 3>) -> LayerState<B> {
        by_sequence(LayerState::last(hidden), |state| self.start(state.input))
    }

    /// The state after [`Self::ATTENTION_GROUPS`] groups, from its residual stream `[batch, tokens, hidden]` alone.
    pub fn middle(&self, stream: Tensor<B, 3>) -> LayerState<B> {
        by_sequence(LayerState::last(stream), |state| match self {
            Self::Opt(layer) => layer.middle(state.input),
            Self::Llama(layer) => layer.middle(state.input),
        })
    }

    fn start(&self, hidden: Tensor<B, 3>) -> LayerState<B> {
        match self {
            Self::Opt(layer) => layer.begin(hidden),
            Self::Llama(layer) => layer.begin(hidden),
        }
    }

    /// Applies operator group `group` to the state's input, and what follows it up to the next group.
    ///
    /// The state must come from [`Self::begin`] or from `advance` over the group before; the operators may have
    /// changed in between, and so may `state.input`.
    ///
    /// # Panics
    /// When `group` is not below [`Self::GROUPS`].
    pub fn advance(&self, state: LayerState<B>, group: usize) -> LayerState<B> {
        by_sequence(state, |state| self.step(state, group, Tokens::Whole))
    }

    fn step(&self, state: LayerState<B>, group: usize, tokens: Tokens<'_, B>) -> LayerState<B> {
        assert!(group < Self::GROUPS, "no operator group {group} in a layer");
        match self {
            Self::Opt(layer) => layer.advance(state, group, tokens),
            Self::Llama(layer) => layer.advance(state, group, tokens),
        }
    }

    /// The whole layer: `[batch, tokens, hidden]` to the same shape.
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let all = |state: LayerState<B>| {
            (0..Self::GROUPS).fold(self.start(state.input), |state, group| {
                self.step(state, group, Tokens::Whole)
            })
        };
        by_sequence(LayerState::last(hidden), all).input
    }

    /// The whole layer on the tokens that follow those in `cache`, which takes them up: `[batch, new, hidden]` to the
    /// same shape. The embedding must have been told the same first position.
    pub fn forward_cached(&self, hidden: Tensor<B, 3>, cache: &mut KvCache<B>) -> Tensor<B, 3> {
        (0..Self::GROUPS)
            .fold(self.start(hidden), |state, group| {
                self.step(state, group, Tokens::Continued(&mut *cache))
            })
            .input
    }

    /// The whole layer on packed rows: `[1, rows, hidden]` of each pack to the same shape. On a host backend the packs
    /// are spread over the cores, for the reason that sequences are in [`Self::forward`].
    pub fn forward_packs(&self, hidden: Vec<Tensor<B, 3>>, packs: &[Pack<B>]) -> Vec<Tensor<B, 3>> {
        let all = |(hidden, pack): (Tensor<B, 3>, &Pack<B>)| {
            (0..Self::GROUPS)
                .fold(self.start(hidden), |state, group| {
                    self.step(state, group, Tokens::Packed(pack))
                })
                .input
        };
        match hidden.first() {
            Some(first) if on_host::<B>(&first.device()) => {
                hidden.into_par_iter().zip(packs.par_iter()).map(all).collect()
            }
            _ => hidden.into_iter().zip(packs).map(all).collect(),
        }
    }

    /// The weight `[out, in]` of an operator such as `self_attn.q_proj`, if the layer has it.
    pub fn weight(&self, operator: &str) -> Option<Tensor<B, 2>> {
        self.linear(operator)
            .map(|linear| linear.weight.val().transpose())
    }

    /// Replaces the weight `[out, in]` of an operator.
    ///
    /// # Errors
    /// [`ModelError::NoSuchOperator`] and [`ModelError::WeightShape`].
    pub fn set_weight(&mut self, operator: &str, weight: Tensor<B, 2>) -> Result<(), ModelError> {
        let Some(linear) = self.linear_mut(operator) else {
            return Err(ModelError::NoSuchOperator {
                operator: operator.to_owned(),
            });
        };
        let [inputs, outputs] = linear.weight.val().dims();
        if weight.dims() != [outputs, inputs] {
            return Err(ModelError::WeightShape {
                operator: operator.to_owned(),
                expected: [outputs, inputs],
                found: weight.dims(),
            });
        }
        linear.weight = linear.weight.clone().map(|_| weight.transpose());
        Ok(())
    }

    /// The rows of attention, `[batch, tokens, heads, tokens]`, from the input of the first group; nothing where no heads can be
    /// removed.
    pub fn attention_rows(&self, input: Tensor<B, 3>) -> Option<Tensor<B, 4>> {
        match self {
            Self::Opt(_) => None,
            Self::Llama(layer) => Some(layer.attention_rows(input)),
        }
    }

    /// The bias `[out]` of an operator, if it has one.
    pub fn bias(&self, operator: &str) -> Option<Tensor<B, 1>> {
        self.linear(operator)?.bias.as_ref().map(|bias| bias.val())
    }

    /// Replaces the bias `[out]` of an operator that has one.
    pub fn set_bias(&mut self, operator: &str, bias: Tensor<B, 1>) {
        if let Some(linear) = self.linear_mut(operator) {
            linear.bias = linear.bias.take().map(|old| old.map(|_| bias));
        }
    }

    fn linear(&self, operator: &str) -> Option<&Linear<B>> {
        match self {
            Self::Opt(layer) => layer.linear(operator),
            Self::Llama(layer) => layer.linear(operator),
        }
    }

    fn linear_mut(&mut self, operator: &str) -> Option<&mut Linear<B>> {
        match self {
            Self::Opt(layer) => layer.linear_mut(operator),
            Self::Llama(layer) => layer.linear_mut(operator),
        }
    }
}
