//! Which weights of a module's `Linear` layers are kept: collected from zeros, stored, and put on another module.

use super::error::ModuleError;
use super::layers::{Survey, each_weight, map_weights, transposed};
use super::paths::PathFilter;
use crate::artifact::mask::{Masks, OperatorMask, bits, read, write};
use crate::error::{Error, Result};
use crate::solver::download;
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use std::path::Path;

/// The masks of a module's layers, by path, on the host. The same for a module on any backend, with gradients or without.
///
/// ```
/// use burn::backend::Flex;
/// use burn::nn::{Linear, LinearConfig};
/// use fista_pruner::module::{PathFilter, SparsityMask};
///
/// let device = Default::default();
/// let mut layer: Linear<Flex> = LinearConfig::new(4, 2).init(&device);
/// layer.weight = layer.weight.map(|w| w.slice_fill([0..1, 0..2], 0.0)); // neither output uses input 0
///
/// let mask = SparsityMask::of(&layer, &PathFilter::all())?;
/// assert_eq!(mask.sparsity(), 0.25);
///
/// let file = std::env::temp_dir().join(format!("mask-{}.safetensors", std::process::id()));
/// mask.save(&file)?;
/// assert_eq!(SparsityMask::load(&file)?, mask);
///
/// let retrained: Linear<Flex> = LinearConfig::new(4, 2).init(&device);
/// assert_eq!(SparsityMask::of(&mask.apply(retrained)?, &PathFilter::all())?, mask);
/// # std::fs::remove_file(&file).unwrap();
/// # Ok::<(), fista_pruner::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparsityMask {
    /// By the full name of the weight.
    masks: Masks,
}

/// `encoder.fc1` to `encoder.fc1.weight`.
fn weight_name(path: &str) -> String {
    match path {
        "" => "weight".into(),
        _ => format!("{path}.weight"),
    }
}

impl SparsityMask {
    /// The zeros that the chosen layers have. A layer without any has no mask.
    ///
    /// # Errors
    /// When the choice matches nothing, or the device fails.
    pub fn of<B: Backend, M: Module<B>>(module: &M, layers: &PathFilter) -> Result<Self> {
        let chosen = Survey::of(module).chosen(layers)?;
        let mut mask = Self::default();
        let mut result = Ok(());
        each_weight(module, |path, _, weight| {
            if result.is_ok() && chosen.iter().any(|layer| layer.path == path) {
                result = mask.collect(path, weight);
            }
        });
        result.map(|()| mask)
    }

    /// Takes the zeros of a weight `[in, out]`.
    fn collect<B: Backend>(&mut self, path: &str, weight: Tensor<B, 2>) -> Result<()> {
        let [inputs, outputs] = weight.dims();
        // Comparing on the device keeps values apart that f32 cannot hold.
        let kept = weight.not_equal_elem(0.0).float();
        let keep: Vec<bool> = transposed(&download(kept)?, inputs, outputs)
            .into_iter()
            .map(|kept| kept != 0.0)
            .collect();
        if keep.contains(&false) {
            self.insert(path, [outputs, inputs], &keep);
        }
        Ok(())
    }

    /// Sets a layer's mask: `true` where a weight stays, `[out, in]` row-major.
    pub(crate) fn insert(&mut self, path: &str, shape: [usize; 2], keep: &[bool]) {
        let bits = bits(keep, shape[1]);
        self.masks.insert(weight_name(path), OperatorMask { shape, bits });
    }

    fn get(&self, path: &str) -> Option<&OperatorMask> {
        self.masks.get(&weight_name(path))
    }

    /// Whether there is a mask for the layer of that path.
    pub fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// Whether no layer has a mask.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// `true` where the mask keeps the weight of a layer from input to output, `[out, in]` row-major; `None` where the
    /// layer has no mask.
    pub fn keeps(&self, path: &str) -> Option<Vec<bool>> {
        let mask = self.get(path)?;
        let [rows, columns] = mask.shape;
        let row = |row: usize| (0..columns).map(move |column| mask.keeps(row, column));
        Some((0..rows).flat_map(row).collect())
    }

    /// Weights that the masks remove, as a share of those of layers with a mask.
    pub fn sparsity(&self) -> f64 {
        let weights: usize = self
            .masks
            .values()
            .map(|mask| mask.shape[0] * mask.shape[1])
            .sum();
        let zeros: usize = self.masks.values().map(OperatorMask::zeros).sum();
        zeros as f64 / weights.max(1) as f64
    }

    /// Writes the masks as the file that `fista-pruner mask export` writes: safetensors, a bit a weight, with a hash. The
    /// file appears whole; an older one is replaced. Gives its size in bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<u64> {
        write(&self.masks, file.as_ref())
    }

    /// Reads a file that [`SparsityMask::save`] wrote.
    ///
    /// # Errors
    /// When it cannot be read, is none of these files or is damaged.
    pub fn load(file: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {
            masks: read(file.as_ref())?,
        })
    }

    /// Checks that every mask has its layer in the module.
    ///
    /// # Errors
    /// [`ModuleError::NoSuchLayer`] and [`ModuleError::MaskShape`].
    pub fn check<B: Backend, M: Module<B>>(&self, module: &M) -> Result<()> {
        let linears = Survey::of(module).linears;
        for (name, mask) in &self.masks {
            let layer = linears.iter().find(|layer| weight_name(&layer.path) == *name);
            let path = || {
                name.strip_suffix("weight")
                    .unwrap_or(name)
                    .trim_end_matches('.')
                    .to_owned()
            };
            let layer = layer.ok_or_else(|| ModuleError::NoSuchLayer {
                what: "mask",
                path: path(),
            })?;
            if layer.shape != mask.shape {
                return Err(Error::Module(ModuleError::MaskShape {
                    path: path(),
                    mask: mask.shape,
                    layer: layer.shape,
                }));
            }
        }
        Ok(())
    }

    /// The module with zeros where the masks remove weights; everything else stays bit for bit.
    ///
    /// # Errors
    /// As [`SparsityMask::check`].
    pub fn apply<B: Backend, M: Module<B>>(&self, module: M) -> Result<M> {
        self.check(&module)?;
        Ok(map_weights(module, |path, _, weight| {
            let removed = self.removed(path, &weight.device())?;
            Some(weight.mask_fill(removed, 0.0))
        }))
    }

    /// `true` where a layer's weight `[in, out]` is removed.
    pub(crate) fn removed<B: Backend>(&self, path: &str, device: &B::Device) -> Option<Tensor<B, 2, Bool>> {
        let [outputs, inputs] = self.get(path)?.shape;
        let removed: Vec<bool> = self.keeps(path)?.into_iter().map(|keep| !keep).collect();
        let data = TensorData::new(transposed(&removed, outputs, inputs), [inputs, outputs]);
        Some(Tensor::from_data(data, device))
    }

    /// Weight names, shapes and bits, for a record.
    pub(crate) fn to_parts(&self) -> Vec<(String, (usize, usize), Vec<u8>)> {
        let part = |(name, mask): (&String, &OperatorMask)| {
            let [outputs, inputs] = mask.shape;
            (name.clone(), (outputs, inputs), mask.bits.clone())
        };
        self.masks.iter().map(part).collect()
    }

    /// The inverse of [`SparsityMask::to_parts`].
    pub(crate) fn from_parts(parts: Vec<(String, (usize, usize), Vec<u8>)>) -> Self {
        let masks = parts.into_iter().map(|(name, (outputs, inputs), bits)| {
            let shape = [outputs, inputs];
            (name, OperatorMask { shape, bits })
        });
        Self {
            masks: masks.collect(),
        }
    }
}
