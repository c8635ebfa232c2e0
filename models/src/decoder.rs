//! A model whose tensors are found by name in a source and loaded part by part: embedding, one layer, head. At no time
//! does this module hold more than the caller asked for.

use crate::config::{ModelConfig, OperatorSpec};
use crate::embedding::{self, Embedding};
use crate::error::ModelError;
use crate::head::{self, Head};
use crate::layer::Layer;
use crate::llama::LlamaLayer;
use crate::opt::OptLayer;
use crate::parts::{Loader, NamedShape};
use crate::rope::Rope;
use crate::source::TensorSource;
use burn::tensor::backend::Backend;
use std::sync::{Arc, OnceLock};

/// Name of the head's weight in every family.
const HEAD: &str = "lm_head.weight";

/// A linear operator of a decoder layer.
#[derive(Clone, Debug)]
pub struct LayerOperator {
    /// The layer, counted from 0.
    pub layer: usize,
    /// The group within the layer.
    pub group: usize,
    /// Its name within the layer, and its inputs and outputs.
    pub spec: OperatorSpec,
    /// Its full name, such as `model.layers.3.self_attn.q_proj`.
    pub name: String,
}

impl LayerOperator {
    /// The full name of its weight.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Shape of its weight, `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.spec.out_features, self.spec.in_features]
    }
}

/// Names and shapes of a model, resolved against a checkpoint.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: ModelConfig,
    /// What stands before `layers.0`: `model.decoder.`, `model.` and so on.
    prefix: String,
    /// Full name of the token embedding.
    embedding: String,
    /// Full name of the head's weight, unless the model has none.
    head: Option<String>,
    /// The rotation that all layers share, made for the first one that asks.
    rope: OnceLock<Arc<Rope>>,
}

impl Decoder {
    /// Finds out how `source` names the model's tensors.
    ///
    /// A tied head is the token embedding, and either may stand for the other where the checkpoint has only one of
    /// them. Where it has both, both are used: that is what transformers does where they differ. A checkpoint with neither a tied
    /// head nor one of its own has no head.
    ///
    /// Where no known layout fits as it is, one prefix before all names may be what wrappers such as `torch.compile` leave.
    ///
    /// # Errors
    /// [`ModelError::UnknownLayout`] when no known naming fits.
    pub fn new(config: ModelConfig, source: &dyn TensorSource) -> Result<Self, ModelError> {
        let prefixes: &[&str] = match config {
            ModelConfig::Opt(_) => &["model.decoder.", "decoder.", ""],
            ModelConfig::Llama(_) => &["model.", ""],
        };
        let embedding = |prefix: &str| format!("{prefix}embed_tokens.weight");
        let first_norm = |prefix: &str| match config {
            ModelConfig::Opt(_) => format!("{prefix}layers.0.self_attn.q_proj.weight"),
            ModelConfig::Llama(_) => format!("{prefix}layers.0.input_layernorm.weight"),
        };
        let known = prefixes
            .iter()
            .find(|prefix| source.contains(&first_norm(prefix)))
            .map(|prefix| (*prefix).to_owned());
        let found = known.or_else(|| wrapped_prefix(&first_norm(""), source));
        let prefix = found.ok_or_else(|| ModelError::UnknownLayout {
            family: config.family().name(),
            tried: prefixes.iter().map(|prefix| first_norm(prefix)).collect(),
        })?;
        let table = embedding(&prefix);
        let has_table = source.contains(&table);
        let own = head_name(&prefix, source);
        let (embedding, head) = match (config.tied_head(), has_table, own) {
            (true, true, None) => (table.clone(), Some(table)),
            (true, false, Some(own)) => (own.clone(), Some(own)),
            (_, _, own) => (table, own),
        };
        Ok(Self {
            prefix,
            embedding,
            head,
            rope: OnceLock::new(),
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What stands before the names of a layer's tensors, such as `model.layers.3.`.
    pub fn layer_prefix(&self, layer: usize) -> String {
        format!("{}layers.{layer}.", self.prefix)
    }

    /// Full name of an operator, such as `model.layers.3.self_attn.q_proj`; its weight is that name with `.weight`.
    pub fn operator_name(&self, layer: usize, operator: &str) -> String {
        format!("{}{operator}", self.layer_prefix(layer))
    }

    /// Every linear operator of the decoder layers, layer by layer in the order of evaluation.
    pub fn operators(&self) -> impl Iterator<Item = LayerOperator> + '_ {
        let groups = self.config.operator_groups();
        (0..self.config.num_layers()).flat_map(move |layer| {
            let in_group = |(group, operators): (usize, &Vec<OperatorSpec>)| -> Vec<LayerOperator> {
                let operator = |spec: &OperatorSpec| LayerOperator {
                    layer,
                    group,
                    spec: *spec,
                    name: self.operator_name(layer, spec.name),
                };
                operators.iter().map(operator).collect()
            };
            groups.iter().enumerate().flat_map(in_group).collect::<Vec<_>>()
        })
    }

    /// Name and shape of every tensor that the decoder needs: embedding, layers in order, head. A tensor that serves
    /// as embedding and head is listed once.
    pub fn tensors(&self) -> Vec<NamedShape> {
        let mut tensors = self.embedding_tensors();
        for layer in 0..self.config.num_layers() {
            tensors.extend(self.layer_tensors(layer));
        }
        if self.head.is_some() {
            let head = self.head_tensors();
            tensors.extend(head.into_iter().filter(|(name, _)| *name != self.embedding));
        }
        tensors
    }

    /// Name and shape of the tensors of one layer.
    pub fn layer_tensors(&self, layer: usize) -> Vec<NamedShape> {
        with_prefix(&self.layer_prefix(layer), self.config.layer_tensors())
    }

    /// Name and shape of the tensors of the embedding.
    pub fn embedding_tensors(&self) -> Vec<NamedShape> {
        let (rows, columns) = self.table_shape();
        let mut tensors = vec![(self.embedding.clone(), vec![rows, columns])];
        if let ModelConfig::Opt(config) = &self.config {
            tensors.extend(with_prefix(&self.prefix, embedding::position_tensors(config)));
        }
        tensors
    }

    /// Name and shape of the tensors of the head, the norm before it included.
    pub fn head_tensors(&self) -> Vec<NamedShape> {
        let (rows, columns) = self.table_shape();
        let mut tensors = with_prefix(&self.prefix, head::norm_tensors(&self.config));
        tensors.extend(self.head.clone().map(|head| (head, vec![rows, columns])));
        tensors
    }

    /// The full name of the head's weight.
    ///
    /// # Errors
    /// [`ModelError::NoHead`] when the model has none.
    pub fn head_weight(&self) -> Result<&str, ModelError> {
        self.head.as_deref().ok_or(ModelError::NoHead)
    }

    /// Shape of the token embedding and of the head's weight.
    fn table_shape(&self) -> (usize, usize) {
        let columns = match &self.config {
            ModelConfig::Opt(config) => config.embedding_size,
            ModelConfig::Llama(config) => config.hidden_size,
        };
        (self.config.vocab_size(), columns)
    }

    /// Loads the embedding.
    ///
    /// # Errors
    /// [`ModelError::Source`] when a tensor cannot be had.
    pub fn embedding<B: Backend>(
        &self,
        source: &dyn TensorSource,
        device: &B::Device,
    ) -> Result<Embedding<B>, ModelError> {
        let (rows, columns) = self.table_shape();
        let table = source
            .load(&self.embedding, &[rows, columns])
            .map_err(ModelError::Source)?;
        let loader = Loader {
            source,
            device,
            prefix: self.prefix.clone(),
        };
        Embedding::load(&self.config, table, &loader)
    }

    /// Loads one decoder layer, counted from 0.
    ///
    /// # Errors
    /// [`ModelError::NoSuchLayer`], and [`ModelError::Source`] when a tensor cannot be had.
    pub fn layer<B: Backend>(
        &self,
        layer: usize,
        source: &dyn TensorSource,
        device: &B::Device,
    ) -> Result<Layer<B>, ModelError> {
        let layers = self.config.num_layers();
        if layer >= layers {
            return Err(ModelError::NoSuchLayer { layer, layers });
        }
        let loader = Loader {
            source,
            device,
            prefix: self.layer_prefix(layer),
        };
        match &self.config {
            ModelConfig::Opt(config) => OptLayer::load(config, &loader).map(Layer::Opt),
            ModelConfig::Llama(config) => {
                let rope = self.rope.get_or_init(|| Arc::new(Rope::new(config.rope.clone())));
                LlamaLayer::load(config, layer, rope, &loader).map(Layer::Llama)
            }
        }
    }

    /// Loads the norm before the head and the head.
    ///
    /// # Errors
    /// [`ModelError::NoHead`], and [`ModelError::Source`] when a tensor cannot be had.
    pub fn head<B: Backend>(
        &self,
        source: &dyn TensorSource,
        device: &B::Device,
    ) -> Result<Head<B>, ModelError> {
        let (rows, columns) = self.table_shape();
        let whole = Loader::<B> {
            source,
            device,
            prefix: String::new(),
        };
        let weight = whole.runs_of_rows(self.head_weight()?, [rows, columns])?;
        let loader = Loader {
            prefix: self.prefix.clone(),
            ..whole
        };
        Head::load(&self.config, weight, &loader)
    }
}

/// What stands before `first`, a tensor of the first layer, where that is the same wherever the name ends so.
fn wrapped_prefix(first: &str, source: &dyn TensorSource) -> Option<String> {
    let names = source.names();
    let mut prefixes = names
        .iter()
        .filter_map(|name| name.strip_suffix(first))
        .filter(|prefix| prefix.ends_with('.'));
    match (prefixes.next(), prefixes.next()) {
        (Some(only), None) => Some(only.to_owned()),
        _ => None,
    }
}

/// The head beside the decoder or around it: for `_orig_mod.model.` that may be `_orig_mod.lm_head.weight`.
fn head_name(prefix: &str, source: &dyn TensorSource) -> Option<String> {
    let ends = prefix.match_indices('.').map(|(at, _)| at + 1).rev();
    ends.chain([0])
        .map(|end| format!("{}{HEAD}", &prefix[..end]))
        .find(|name| source.contains(name))
}

fn with_prefix(prefix: &str, tensors: Vec<NamedShape>) -> Vec<NamedShape> {
    tensors
        .into_iter()
        .map(|(name, shape)| (format!("{prefix}{name}"), shape))
        .collect()
}
