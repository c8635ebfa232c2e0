//! What the chosen layers see while a module runs.

use super::error::ModuleError;
use super::layers::Layer;
use crate::prune::Accumulator;
use burn::module::ParamId;
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use fista_pruner_backends::SolverOps;
use std::collections::{BTreeMap, VecDeque};

/// A way to apply a module's `Linear` layers. A forward pass that takes one serves training and inference with [`Direct`]
/// and the pruner with its [`Recorder`].
pub trait ApplyLinear<B: Backend> {
    /// `layer.forward(input)`: `[.., in]` to `[.., out]`.
    fn apply<const D: usize>(&mut self, layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D>;
}

/// Applies layers and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl<B: Backend> ApplyLinear<B> for Direct {
    fn apply<const D: usize>(&mut self, layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
        layer.forward(input)
    }
}

/// Applies layers, and takes what the pruner needs of the inputs of those that are to be pruned. Layers are told apart by
/// the ids of their weights; one that is applied several times sees all those inputs.
#[derive(Debug)]
pub struct Recorder<B: SolverOps> {
    sites: BTreeMap<ParamId, Site<B>>,
    /// In the order of their first inputs.
    order: Vec<ParamId>,
    /// The first thing that went wrong.
    problem: Option<ModuleError>,
}

/// A layer that is watched.
#[derive(Debug)]
struct Site<B: SolverOps> {
    path: String,
    inputs: usize,
    tokens: usize,
    sink: Sink<B>,
}

/// Where a layer's inputs go.
#[derive(Debug)]
enum Sink<B: SolverOps> {
    /// NullSink: only the order matters.
    Order,
    /// Into statistics of what the layer itself sees.
    Gram(Accumulator<B>),
    /// They are kept, in the order of calls.
    Kept(VecDeque<Tensor<B, 2>>),
    /// Into statistics together with the dense module's, which wait here in the order of calls.
    Paired(VecDeque<Tensor<B, 2>>, Accumulator<B>),
}

/// What a recorder does with inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Order,
    Gram,
    Keep,
    Pair,
}

impl<B: SolverOps> ApplyLinear<B> for Recorder<B> {
    fn apply<const D: usize>(&mut self, layer: &Linear<B>, input: Tensor<B, D>) -> Tensor<B, D> {
        let [inputs, outputs] = layer.weight.dims();
        let mut dims = input.dims();
        if dims[D - 1] != inputs {
            // The layer would panic; the pruner reports it once the forward pass is over.
            self.observe(layer, input.clone());
            let path = self.sites.get(&layer.weight.id).map(|site| site.path.clone());
            self.problem.get_or_insert(ModuleError::InputWidth {
                path: path.unwrap_or_else(|| "a layer".into()),
                expected: inputs,
                found: dims[D - 1],
            });
            dims[D - 1] = outputs;
            return Tensor::zeros(dims, (&input.device(), input.dtype()));
        }
        self.observe(layer, input.clone());
        layer.forward(input)
    }
}

impl<B: SolverOps> Recorder<B> {
    pub(crate) fn new<'a>(layers: impl IntoIterator<Item = &'a Layer>, purpose: Purpose) -> Self {
        let sites = layers.into_iter().map(|layer| {
            let sink = match purpose {
                Purpose::Order => Sink::Order,
                Purpose::Gram => Sink::Gram(Accumulator::default()),
                Purpose::Keep => Sink::Kept(VecDeque::new()),
                Purpose::Pair => Sink::Paired(VecDeque::new(), Accumulator::default()),
            };
            let site = Site {
                path: layer.path.clone(),
                inputs: layer.shape[1],
                tokens: 0,
                sink,
            };
            (layer.id, site)
        });
        Self {
            sites: sites.collect(),
            order: Vec::new(),
            problem: None,
        }
    }

    /// Notes an input `[.., in]` of a layer that is applied elsewhere.
    pub fn observe<const D: usize>(&mut self, layer: &Linear<B>, input: Tensor<B, D>) {
        let dims = input.dims();
        self.note(layer.weight.id, &dims, |shape| input.reshape(shape));
    }

    /// Notes an input of shape `dims` of the layer with that weight, if it is to be pruned; `matrix` gives it as
    /// `[tokens, in]`.
    pub(crate) fn note(
        &mut self,
        id: ParamId,
        dims: &[usize],
        matrix: impl FnOnce([usize; 2]) -> Tensor<B, 2>,
    ) {
        let Some(site) = self.sites.get_mut(&id) else {
            return;
        };
        let (width, rows) = dims
            .split_last()
            .map_or((0, &[][..]), |(width, rows)| (*width, rows));
        if width != site.inputs {
            self.problem.get_or_insert(ModuleError::InputWidth {
                path: site.path.clone(),
                expected: site.inputs,
                found: width,
            });
            return;
        }
        let tokens: usize = rows.iter().product();
        if tokens == 0 || self.problem.is_some() {
            return;
        }
        if site.tokens == 0 {
            self.order.push(id);
        }
        site.tokens += tokens;
        let matrix = || matrix([tokens, width]).cast(DType::F32);
        match &mut site.sink {
            Sink::Order => {}
            Sink::Gram(accumulator) => accumulator.add(matrix()),
            Sink::Kept(kept) => kept.push_back(matrix()),
            Sink::Paired(dense, accumulator) => match dense.pop_front() {
                Some(dense) if dense.dims()[0] == tokens => accumulator.add_pair(dense, matrix()),
                other => {
                    let rows = |n: usize| format!("an input of {n} rows");
                    self.problem = Some(ModuleError::OtherTokens {
                        path: site.path.clone(),
                        expected: other.map_or("none".into(), |dense| rows(dense.dims()[0])),
                        found: rows(tokens),
                    });
                }
            },
        }
    }

    /// Ends a forward pass.
    ///
    /// # Errors
    /// What went wrong in it.
    pub(crate) fn end_of_batch(&mut self) -> Result<(), ModuleError> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        for site in self.sites.values() {
            if let Sink::Paired(dense, _) = &site.sink
                && let Some(left) = dense.front()
            {
                return Err(ModuleError::OtherTokens {
                    path: site.path.clone(),
                    expected: format!("an input of {} rows", left.dims()[0]),
                    found: "none".into(),
                });
            }
        }
        Ok(())
    }

    /// Hands the inputs that this recorder kept to one that pairs them with the pruned module's.
    pub(crate) fn hand_over(&mut self, pairing: &mut Self) {
        for (id, site) in &mut self.sites {
            if let (
                Sink::Kept(kept),
                Some(Site {
                    sink: Sink::Paired(dense, _),
                    ..
                }),
            ) = (&mut site.sink, pairing.sites.get_mut(id))
            {
                dense.append(kept);
            }
        }
    }

    /// The layers that were seen, in the order of their first inputs.
    pub(crate) fn order(&self) -> &[ParamId] {
        &self.order
    }

    /// A layer's statistics.
    ///
    /// # Errors
    /// When there were none.
    pub(crate) fn take(&mut self, layer: &Layer) -> Result<Accumulator<B>, ModuleError> {
        match self.sites.remove(&layer.id) {
            Some(Site {
                tokens: 1..,
                sink: Sink::Gram(accumulator) | Sink::Paired(_, accumulator),
                ..
            }) => Ok(accumulator),
            _ => Err(ModuleError::NeverSeen {
                path: layer.path.clone(),
            }),
        }
    }
}
