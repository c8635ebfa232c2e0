//! Hidden states between two uses, a batch at a time: on the device, in the host's memory, or in files.
//!
//! A layer's evaluation touches one batch after the other. What a batch is not touched for can wait where there is room; the
//! values are the same bits wherever they wait.

use crate::error::{Error, Result};
use crate::solver;
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::SolverOps;
use fista_pruner_models::{LayerState, on_host};
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where hidden states wait between two uses.
#[derive(Debug, Default)]
pub enum StateStore {
    /// On the device that computes them.
    #[default]
    Device,
    /// In the host's memory.
    Host,
    /// In files.
    Disk(StateFolder),
}

/// A folder of hidden states' files; it goes when it is dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    next: AtomicU64,
}

impl StateFolder {
    /// Makes the folder; its parent is there. What an earlier run has left in it is removed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: PathBuf) -> Result<Self> {
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(source));
            }
            _ => {}
        }
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(Self {
            path,
            next: AtomicU64::new(0),
        })
    }

    fn next_file(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{number}.f32"))
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl StateStore {
    /// A store on the device, for whoever wants no other.
    pub const ON_DEVICE: &'static Self = &Self::Device;

    fn put<B: SolverOps>(&self, state: LayerState<B>) -> Result<Waiting<B>> {
        if matches!(self, Self::Device) {
            return Ok(Waiting::Device(state));
        }
        let (input, residual) = state.into_parts();
        let shapes = Shapes {
            input: input.dims(),
            residual: residual.as_ref().map(Tensor::dims),
        };
        let mut values = solver::download(input)?;
        if let Some(residual) = residual {
            values.extend(solver::download(residual)?);
        }
        match self {
            Self::Disk(folder) => {
                let file = StateFile(folder.next_file());
                let mut to = File::create(&file.0).map_err(Error::io("create", &file.0))?;
                to.write_all(bytemuck::cast_slice(&values))
                    .map_err(Error::io("write", &file.0))?;
                Ok(Waiting::File(shapes, file.into()))
            }
            _ => Ok(Waiting::Host(shapes, values.into())),
        }
    }
}

/// Shapes of a state's input and of its residual, where it has one.
#[derive(Debug, Clone, Copy)]
struct Shapes {
    input: [usize; 3],
    residual: Option<[usize; 3]>,
}

impl Shapes {
    fn elements(&self) -> usize {
        let elements = |shape: [usize; 3]| shape.iter().product::<usize>();
        elements(self.input) + self.residual.map_or(0, elements)
    }
}

/// A batch that waits. Clones share it.
#[derive(Debug, Clone)]
enum Waiting<B: SolverOps> {
    Device(LayerState<B>),
    Host(Shapes, Arc<[f32]>),
    File(Shapes, Arc<StateFile>),
}

/// A file that goes with the last who needs it.
#[derive(Debug)]
struct StateFile(PathBuf);

impl Drop for StateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl<B: SolverOps> Waiting<B> {
    fn get(&self, device: &B::Device) -> Result<LayerState<B>> {
        match self {
            Self::Device(state) => Ok(state.clone()),
            Self::Host(shapes, values) => Ok(upload(shapes, values, device)),
            Self::File(shapes, file) => Ok(upload(shapes, &read(shapes, &file.0)?, device)),
        }
    }
}

fn read(shapes: &Shapes, path: &Path) -> Result<Vec<f32>> {
    let mut values = vec![0f32; shapes.elements()];
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.read_exact(bytemuck::cast_slice_mut(&mut values))
        .map_err(Error::io("read", path))?;
    Ok(values)
}

fn upload<B: SolverOps>(shapes: &Shapes, values: &[f32], device: &B::Device) -> LayerState<B> {
    let tensor = |values: &[f32], shape: [usize; 3]| {
        Tensor::<B, 3>::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    let (input, residual) = values.split_at(shapes.input.iter().product());
    LayerState::from_parts(
        tensor(input, shapes.input),
        shapes.residual.map(|shape| tensor(residual, shape)),
    )
}

/// The batches of one path, in order. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct States<'a, B: SolverOps> {
    batches: Vec<Waiting<B>>,
    store: &'a StateStore,
    device: B::Device,
}

impl<'a, B: SolverOps> States<'a, B> {
    /// Hidden states, `[windows, tokens, hidden]` each.
    pub(crate) fn of_hidden(
        batches: impl Iterator<Item = Tensor<B, 3>>,
        store: &'a StateStore,
        device: &B::Device,
    ) -> Result<Self> {
        let batches = batches.map(|hidden| store.put(LayerState::from_parts(hidden, None)));
        Ok(Self {
            batches: batches.collect::<Result<_>>()?,
            store,
            device: device.clone(),
        })
    }

    /// No batches.
    pub(crate) fn none(store: &'a StateStore, device: &B::Device) -> Self {
        Self {
            batches: Vec::new(),
            store,
            device: device.clone(),
        }
    }

    /// Where they are computed.
    pub(crate) fn device(&self) -> &B::Device {
        &self.device
    }

    /// The batches, one at a time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<LayerState<B>>> {
        self.batches.iter().map(|batch| batch.get(&self.device))
    }

    /// What `f` makes of each batch; a batch that nobody else holds goes as soon as it is read. On a host several are under
    /// way at once, so that a core has work while another one puts a batch's sequences together.
    pub(crate) fn map(self, f: impl Fn(LayerState<B>) -> LayerState<B> + Sync) -> Result<Self> {
        let (store, device) = (self.store, self.device);
        let next = |batch: Waiting<B>| {
            let state = batch.get(&device)?;
            drop(batch);
            store.put(f(state))
        };
        let batches = if on_host::<B>(&device) {
            self.batches.into_par_iter().map(next).collect::<Result<_>>()?
        } else {
            self.batches.into_iter().map(next).collect::<Result<_>>()?
        };
        Ok(Self {
            batches,
            store,
            device,
        })
    }

    /// The same with the inputs alone: hidden states in, hidden states out.
    pub(crate) fn map_hidden(self, f: impl Fn(Tensor<B, 3>) -> Tensor<B, 3> + Sync) -> Result<Self> {
        self.map(|state| LayerState::from_parts(f(state.input), None))
    }

    /// The batches on the host, with their shapes, for another device.
    pub(crate) fn to_host(&self) -> Result<Vec<TensorData>> {
        let one = |state: Result<LayerState<B>>| {
            let input = state?.input;
            let shape = input.dims();
            Ok(TensorData::new(solver::download(input)?, shape))
        };
        self.iter().map(one).collect()
    }
}
