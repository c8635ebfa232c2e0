//! A checkpoint made smaller: without the layers, heads and channels that structured pruning has left unused. In: a checkpoint whose
//! unused columns are zero, and its shape. Out: a folder with smaller tensors and the configuration that goes with them; and, for
//! whoever compares, what each of its tensors is made of.

use super::build::FileBuilder;
use super::plain::index_json;
use super::{Checkpoint, CheckpointError, CheckpointWriter, StoredDtype};
use crate::config::Shape;
use crate::error::{Error, Result};
use crate::json;
use crate::report::StructureReport;
use crate::system::Destination;
use fista_pruner_models::{Decoder, ModelConfig, Unit};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// What stays of a model, layer by layer.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    decoder: Decoder,
    config: ModelConfig,
    layers: Vec<KeptLayer>,
}

/// What stays of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptLayer {
    /// Its number in the model that is cut.
    pub(crate) from: usize,
    /// The channels of its MLP, in order.
    pub(crate) channels: Vec<usize>,
    /// The heads of its keys and values, in order.
    pub(crate) heads: Vec<usize>,
}

impl KeptLayer {
    fn units(&self, unit: Unit) -> &[usize] {
        match unit {
            Unit::Channel => &self.channels,
            Unit::Head => &self.heads,
        }
    }
}

/// Where a tensor of the smaller model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its name there.
    pub(crate) name: String,
    /// The axis and the entries along it that stay; none: it stays whole.
    kept: Option<(usize, Vec<usize>)>,
}

impl Piece {
    /// The shape that one of `shape` gets.
    pub(crate) fn shape(&self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if let Some((axis, entries)) = &self.kept {
            shape[*axis] = entries.len();
        }
        shape
    }

    /// The bytes of a tensor of `shape` with elements of `size` bytes that stay.
    pub(crate) fn select(&self, bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
        let Some((axis, entries)) = &self.kept else {
            return bytes.to_vec();
        };
        let inner: usize = shape[axis + 1..].iter().product::<usize>() * size;
        let outer = inner * shape[*axis];
        let mut selected = Vec::with_capacity(bytes.len() / shape[*axis].max(1) * entries.len());
        for block in bytes.chunks(outer.max(1)) {
            for entry in entries {
                selected.extend_from_slice(&block[entry * inner..(entry + 1) * inner]);
            }
        }
        selected
    }
}

impl Cut {
    /// Finds out which columns of `masked` are in use. Of columns that are zero though they were kept, the first count as used.
    ///
    /// # Errors
    /// When a weight cannot be read, or more columns are in use than the shape has.
    pub(crate) fn read(decoder: &Decoder, masked: &Checkpoint, shape: &Shape) -> Result<Self> {
        let config = decoder.config();
        let mut layers = Vec::new();
        for from in shape.layers(config) {
            let used = |unit: Unit| -> Result<Vec<usize>> {
                let (kept, of) = (shape.kept(unit), config.units(unit));
                if kept == of {
                    return Ok((0..of).collect());
                }
                let operators = config.operator_groups().into_iter().flatten();
                let spec = operators.into_iter().find(|o| o.name == config.operator_of(unit));
                let spec = spec.ok_or_else(|| Error::internal("units of no operator"))?;
                let name = decoder.operator_name(from, spec.name);
                let columns = spec.in_features;
                let values = masked.read(&format!("{name}.weight"), &[spec.out_features, columns])?;
                let mut used = vec![false; of];
                for row in values.chunks(columns) {
                    for (block, used) in row.chunks(columns / of).zip(&mut used) {
                        *used |= block.iter().any(|value| *value != 0.0);
                    }
                }
                let found = used.iter().filter(|used| **used).count();
                if found > kept {
                    return Err(Error::internal(format!("`{name}` uses {found} units of {kept}")));
                }
                let spare = used.iter_mut().filter(|used| !**used);
                spare.take(kept - found).for_each(|used| *used = true);
                Ok((0..of).filter(|unit| used[*unit]).collect())
            };
            layers.push(KeptLayer {
                from,
                channels: used(Unit::Channel)?,
                heads: used(Unit::Head)?,
            });
        }
        Self::new(decoder, shape, layers)
    }

    /// Of what a report says.
    ///
    /// # Errors
    /// When the model has not got what it says.
    pub(crate) fn of_report(decoder: &Decoder, report: &StructureReport) -> Result<Self> {
        let config = decoder.config();
        let numbers = |ranges: &[[usize; 2]]| {
            ranges
                .iter()
                .flat_map(|range| range[0]..range[1])
                .collect::<Vec<_>>()
        };
        let layers: Vec<KeptLayer> = report
            .kept
            .iter()
            .map(|kept| KeptLayer {
                from: kept.layer,
                channels: numbers(&kept.mlp),
                heads: numbers(&kept.kv_heads),
            })
            .collect();
        let shape = &report.decision.shape;
        let fits = |layer: &KeptLayer| {
            let unit = |unit| {
                let units = layer.units(unit);
                let most = units.iter().max().is_none_or(|most| *most < config.units(unit));
                units.len() == shape.kept(unit) && most
            };
            layer.from < config.num_layers() && Unit::ALL.into_iter().all(unit)
        };
        let expected: Vec<usize> = shape.layers(config);
        if !layers.iter().all(fits) || !layers.iter().map(|layer| layer.from).eq(expected) {
            return Err(Error::internal(
                "its lists of what stays are not those of its shape",
            ));
        }
        Self::new(decoder, shape, layers)
    }

    fn new(decoder: &Decoder, shape: &Shape, layers: Vec<KeptLayer>) -> Result<Self> {
        Ok(Self {
            decoder: decoder.clone(),
            config: shape.config(decoder.config())?,
            layers,
        })
    }

    /// What stays, layer by layer.
    pub(crate) fn layers(&self) -> &[KeptLayer] {
        &self.layers
    }

    /// The name that the tensor `name` gets, and what stays of it; `None` where it goes.
    pub(crate) fn piece(&self, name: &str) -> Option<(String, Piece)> {
        let whole = |name: &str| Piece {
            name: name.to_owned(),
            kept: None,
        };
        let first = self.decoder.layer_prefix(0);
        let before = first.strip_suffix("0.").unwrap_or(&first);
        let inside = name.strip_prefix(before).and_then(|rest| rest.split_once('.'));
        let Some((number, tensor)) =
            inside.and_then(|(number, tensor)| Some((number.parse::<usize>().ok()?, tensor)))
        else {
            return Some((name.to_owned(), whole(name)));
        };
        let at = self.layers.iter().position(|layer| layer.from == number)?;
        let axis = self.decoder.config().unit_axis(tensor);
        let kept = axis.and_then(|axis| {
            let units = self.layers[at].units(axis.unit);
            let all = self.decoder.config().units(axis.unit) == units.len();
            let entries = || {
                units
                    .iter()
                    .flat_map(|unit| unit * axis.width..(unit + 1) * axis.width)
            };
            (!all).then(|| (axis.axis, entries().collect()))
        });
        let piece = Piece { kept, ..whole(name) };
        Some((format!("{}{tensor}", self.decoder.layer_prefix(at)), piece))
    }

    /// The configuration with the new sizes.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(crate) fn config_json(&self, source: &Checkpoint) -> Result<Vec<u8>> {
        let wrong = |reason: &str| CheckpointError::Config {
            file: source.dir().join("config.json"),
            reason: reason.to_owned(),
        };
        let mut value: Value = json::parse(source.config_json()).map_err(|e| wrong(&e.to_string()))?;
        let fields = value
            .as_object_mut()
            .ok_or_else(|| wrong("it is no JSON object"))?;
        let from: Vec<usize> = self.layers.iter().map(|layer| layer.from).collect();
        for (name, size) in self.config.size_fields() {
            fields.insert(name.to_owned(), size.into());
        }
        if let Some(Value::Array(types)) = fields.get_mut("layer_types") {
            *types = from
                .iter()
                .filter_map(|layer| types.get(*layer).cloned())
                .collect();
        }
        if let Some(most) = fields.get("max_window_layers").and_then(Value::as_u64) {
            let before = from.iter().filter(|layer| (**layer as u64) < most).count();
            fields.insert("max_window_layers".to_owned(), before.into());
        }
        Ok(format!("{value:#}\n").into_bytes())
    }
}

impl CheckpointWriter {
    /// A copy of `source` without what `cut` leaves out; see the module's description.
    ///
    /// # Errors
    /// As [`create_at`](Self::create_at).
    pub(crate) fn create_cut(source: &Checkpoint, destination: &Destination, cut: &Cut) -> Result<Self> {
        let writer = Self::without_weights(source, destination)?;
        let config = writer.partial().join("config.json");
        std::fs::write(&config, cut.config_json(source)?).map_err(Error::io("write", &config))?;
        let mut weight_map = BTreeMap::new();
        let mut total = 0;
        let mut names = BTreeSet::new();
        for shard in source.plain_shards()? {
            let mut builder = FileBuilder::default();
            for (key, value) in shard.header.metadata.iter().flatten() {
                builder.note(key, value.clone());
            }
            for entry in shard.header.in_file_order() {
                let Some((name, piece)) = cut.piece(&entry.name) else {
                    continue;
                };
                if !names.insert(name.clone()) {
                    return Err(Error::internal(format!("two tensors became `{name}`")));
                }
                weight_map.insert(name.clone(), shard.name.clone());
                let (dtype, shape) = (entry.dtype.clone(), entry.shape.clone());
                let size = element_bytes(&dtype, &entry.name)?;
                let cut_shape = piece.shape(&shape);
                let bytes = move || Ok(piece.select(&source.raw(&piece.name)?, &shape, size));
                builder.add(name, dtype, cut_shape, Box::new(bytes));
            }
            let (tensors, bytes) = builder.contents();
            total += bytes;
            if tensors.is_empty() {
                continue;
            }
            let path = writer.partial().join(&shard.name);
            let mut file = writer.new_file(&shard.name)?;
            builder.write(&mut |bytes| file.write_all(bytes).map_err(Error::io("write", &path)))?;
        }
        if let Some((name, _)) = source.plain_index()? {
            let path = writer.partial().join(&name);
            let mut file = writer.new_file(&name)?;
            file.write_all(&index_json(weight_map, total))
                .map_err(Error::io("write", &path))?;
        }
        Ok(writer)
    }
}

fn element_bytes(dtype: &StoredDtype, name: &str) -> Result<usize> {
    match dtype.bits() {
        Some(bits) if bits % 8 == 0 => Ok((bits / 8) as usize),
        _ => Err(Error::internal(format!(
            "`{name}` is stored as {dtype}, which cannot be cut"
        ))),
    }
}
