//! Most bytes at one time, by phase: embedding, the statistics and the solving of each operator group, the head.

use super::room::{Room, StatePlace};
use crate::checkpoint::Checkpoint;
use crate::config::{LayerInput, Method, PruneConfig};
use crate::prune::sums_on_outputs;
use fista_pruner_models::{Decoder, HOST_QUERY_ROWS, OperatorSpec};

/// The program itself, its threads and its tokenizer.
const PROCESS: u64 = 60_000_000;
/// Hundredths of what is alive that the allocator holds besides, free, for the next tensor.
const SLACK: u64 = 30;
/// What it keeps on a host in pieces that fit nothing, whatever the model's size: measured, 20 to 190 MB.
const PIECES: u64 = 60_000_000;
/// Of an element on a device.
const F32: u64 = size_of::<f32>() as u64;

/// Most bytes at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bytes {
    pub(super) device: u64,
    pub(super) host: u64,
    pub(super) disk: u64,
}

/// What a phase holds, in elements.
#[derive(Debug, Clone, Copy, Default)]
struct Phase {
    device: u64,
    host: u64,
}

impl Bytes {
    pub(super) fn of(checkpoint: &Checkpoint, decoder: &Decoder, config: &PruneConfig, room: &Room) -> Self {
        let shapes = Shapes {
            decoder,
            config,
            room,
        };
        let groups = decoder.config().operator_groups();
        let mut phases = vec![shapes.table(false)];
        if room.evaluation_tokens > 0 {
            phases.push(shapes.table(true));
        }
        for (group, operators) in groups.iter().enumerate() {
            phases.push(shapes.statistics(group, operators));
            phases.push(shapes.stating(group, operators));
            phases.push(shapes.solving(group, operators));
            phases.push(shapes.advancing(group));
        }
        let most = |of: fn(&Phase) -> u64| F32 * phases.iter().map(of).max().unwrap_or(0);
        // A tensor as it is stored and as it is handed over.
        let largest = checkpoint
            .tensors()
            .map(|(_, info)| info.shape.iter().product::<usize>() as u64);
        let reading = if room.device_is_host {
            0
        } else {
            2 * largest.max().unwrap_or(0)
        };
        let beside = shapes.dense_pass();
        let host = most(|phase| phase.host).max(F32 * reading) + F32 * beside.host + PROCESS;
        let device = most(|phase| phase.device) + F32 * beside.device;
        let states = F32
            * groups
                .iter()
                .enumerate()
                .map(|(g, _)| shapes.states(g))
                .max()
                .unwrap_or(0);
        let disk = if room.states == StatePlace::Disk {
            states
        } else {
            0
        };
        if room.device_is_host {
            let live = most(|phase| phase.device + phase.host) + F32 * (beside.device + beside.host);
            let all = live + live * SLACK / 100 + PIECES + PROCESS;
            return Self {
                device: all,
                host: all,
                disk,
            };
        }
        Self { device, host, disk }
    }
}

/// Elements of operators' weights.
fn weights(operators: &[OperatorSpec]) -> u64 {
    let elements = operators.iter().map(|o| (o.in_features * o.out_features) as u64);
    elements.sum()
}

struct Shapes<'a> {
    decoder: &'a Decoder,
    config: &'a PruneConfig,
    room: &'a Room,
}

impl Shapes<'_> {
    fn hidden(&self) -> u64 {
        self.decoder.config().hidden_size() as u64
    }

    /// Whether an operator of the group may see something else than the dense model's.
    fn drifts(&self, group: usize) -> bool {
        let propagation = self.config.propagation;
        propagation.layer_input == LayerInput::Pruned || (propagation.corrected && group > 0)
    }

    /// The hidden states of all paths before group `group`, and what waits at the layer's entry.
    fn states(&self, group: usize) -> u64 {
        let groups = self.decoder.config().operator_groups();
        let inputs = groups[group].first().map_or(0, |operator| operator.in_features) as u64;
        let propagation = self.config.propagation;
        let dense = propagation.layer_input == LayerInput::Dense || propagation.dense_target();
        let paths = u64::from(dense) + u64::from(self.drifts(group));
        let waiting = u64::from(propagation.layer_input == LayerInput::Pruned && !propagation.corrected);
        let calibration =
            self.room.tokens as u64 * (paths * (inputs + self.hidden()) + waiting * self.hidden());
        calibration + self.evaluation()
    }

    /// The evaluation's hidden states, the dense model's and the pruned one's.
    fn evaluation(&self) -> u64 {
        2 * self.room.evaluation_tokens as u64 * self.hidden()
    }

    /// Hidden states where they wait: elements on the device and on the host.
    fn kept(&self, states: u64) -> Phase {
        match self.room.states {
            StatePlace::Device => Phase {
                device: states,
                host: 0,
            },
            StatePlace::Host => Phase {
                device: 0,
                host: states,
            },
            StatePlace::Disk => Phase::default(),
        }
    }

    /// What the first of several devices holds besides, to pass the windows through the dense model, and what waits on the host for
    /// the devices: a layer's entry for each, one more in the queue for each, and one on its way.
    fn dense_pass(&self) -> Phase {
        let devices = self.room.devices as u64;
        if devices < 2 {
            return Phase::default();
        }
        let entry = self.room.tokens as u64 * self.hidden();
        Phase {
            device: entry + self.layer() + self.batch(),
            host: (2 * devices + 1) * entry,
        }
    }

    /// What a batch takes on its way through a group: its own states of all paths, and what the widest step makes of them.
    fn batch(&self) -> u64 {
        let tokens = self.config.batch_tokens.max(self.room.window) as u64;
        let widest = self.decoder.config().operator_groups().into_iter().flatten();
        let widest = widest
            .map(|o| o.in_features.max(o.out_features))
            .max()
            .unwrap_or(0) as u64;
        // Gate, up and their product, or a copy of a group's input beside it and its drift; and what attention makes.
        tokens * (3 * widest + 4 * self.hidden()) + self.scores()
    }

    /// Attention's scores: a block of rows of one head on every core of a host; elsewhere blocks of whole sequences, bounded as
    /// in `fista_pruner_models`, and two temporaries of their size.
    fn scores(&self) -> u64 {
        let window = self.room.window as u64;
        if self.room.device_is_host {
            return rayon::current_num_threads() as u64 * HOST_QUERY_ROWS as u64 * window;
        }
        let heads = self.decoder.config().num_heads() as u64;
        let sequences = (self.config.batch_tokens / self.room.window.max(1)).max(1) as u64;
        3 * (heads * window.pow(2) * sequences).min(16 << 20)
    }

    /// The weights of a layer, and again those that are pruned.
    fn layer(&self) -> u64 {
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let dense: u64 = self
            .decoder
            .layer_tensors(0)
            .iter()
            .map(|(_, shape)| elements(shape))
            .sum();
        let operators = self.decoder.config().operator_groups().into_iter().flatten();
        let pruned: u64 = operators.map(|o| (o.in_features * o.out_features) as u64).sum();
        dense + pruned
    }

    /// Embedding or head: the table, as it is stored, read and used, and a head's logits, beside the hidden states.
    fn table(&self, head: bool) -> Phase {
        let tensors = if head {
            self.decoder.head_tensors()
        } else {
            self.decoder.embedding_tensors()
        };
        let table: u64 = tensors
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>() as u64)
            .sum();
        let states = if head {
            self.evaluation()
        } else {
            self.room.tokens as u64 * self.hidden() + self.evaluation() / 2
        };
        let mut phase = self.kept(states);
        phase.device += table;
        // As it is stored, and what becomes the device's, which a host keeps.
        phase.host += if self.room.device_is_host {
            table
        } else {
            2 * table + table / 2
        };
        if head {
            let vocabulary = self.decoder.config().vocab_size() as u64;
            // Logits and two temporaries.
            phase.device += 3 * (self.config.batch_tokens as u64 * vocabulary).min(32 << 20);
        }
        phase
    }

    /// Sums over the calibration tokens.
    fn statistics(&self, group: usize, operators: &[OperatorSpec]) -> Phase {
        let mut phase = self.kept(self.states(group));
        let needed = if self.room.offload && self.on_outputs(operators) {
            weights(operators)
        } else {
            self.resident()
        };
        phase.device += needed + self.batch() + self.sums(group, operators);
        phase
    }

    /// A group's running sums: halves of symmetric matrices with their compensations, whole others with theirs and one
    /// product in flight, and the whole Gram matrix that is made of them in the end.
    fn sums(&self, group: usize, operators: &[OperatorSpec]) -> u64 {
        let n = operators.first().map_or(0, |operator| operator.in_features) as u64;
        match (self.two_targets(group), self.on_outputs(operators)) {
            (false, _) => 2 * n * n,
            (true, true) => 2 * n * n + 3 * weights(operators),
            (true, false) => 6 * n * n,
        }
    }

    fn two_targets(&self, group: usize) -> bool {
        self.drifts(group) && self.config.propagation.dense_target()
    }

    /// As [`crate::prune::Accumulator::for_operators`] decides.
    fn on_outputs(&self, operators: &[OperatorSpec]) -> bool {
        let outputs: usize = operators.iter().map(|operator| operator.out_features).sum();
        let inputs = operators.first().map_or(0, |operator| operator.in_features);
        sums_on_outputs(outputs, inputs)
    }

    /// Stating the problems of a group's operators: the statistics are all there, and products of weights with them.
    fn stating(&self, group: usize, operators: &[OperatorSpec]) -> Phase {
        let n = operators.first().map_or(0, |operator| operator.in_features) as u64;
        let mut phase = self.kept(self.states(group));
        // The statistics: Gram matrix, and drift and its own where these are not summed on outputs.
        let statistics = match (self.two_targets(group), self.on_outputs(operators)) {
            (true, false) => 3,
            _ => 1,
        };
        phase.device += self.resident() + statistics * n * n + 4 * weights(operators);
        phase
    }

    /// Choosing the weights of a group's operators.
    fn solving(&self, group: usize, operators: &[OperatorSpec]) -> Phase {
        let n = operators.first().map_or(0, |operator| operator.in_features) as u64;
        let mut phase = self.kept(self.states(group));
        // The Gram matrix, and with the ridge, where that is kept for the polish.
        let statistics = match (self.room.offload, self.config.solver.method) {
            (true, Method::Admm) => 0,
            (false, Method::Admm) => 2,
            (_, _) => 1,
        };
        // Tenths of them on the device, and how many on the host beside it.
        let (tenths, host_matrices) = match (self.config.solver.method, self.room.device_is_host) {
            // In f64 on the host: the Gram matrix, what is factorised, its inverse, and what that is made of.
            _ if self.config.solver.columns.is_some() => (10, 9),
            // Scaled Gram matrix and inverse; the host's own, what it factorises, and the next inverse.
            (Method::Admm, true) => (20, 3),
            // Scaled Gram matrix, the inverse, and of a Newton-Schulz step the residual, a product and the half of another.
            (Method::Admm, false) => (46, 3),
            (Method::SparseGpt, _) => (10, 2),
            (Method::Fista, _) => (20, 2),
            (Method::Wanda | Method::Magnitude, _) => (0, 0),
        };
        // The weight as it was, scaled, its correction, and a handful of iterates and directions.
        const ITERATES: u64 = 8;
        phase.device += self.resident() + (10 * statistics + tenths) * n * n / 10;
        phase.device += ITERATES * weights(operators);
        phase.host += host_matrices * n * n + 2 * weights(operators);
        if self.room.offload {
            // Gram matrix and pruned weights, and the former on its way.
            phase.host += 2 * n * n + self.layer() / 2;
        }
        phase
    }

    /// Taking hidden states through a group: a layer is read where it is not there.
    fn advancing(&self, group: usize) -> Phase {
        let mut phase = self.kept(self.states(group));
        phase.device += self.layer() / if self.room.offload { 2 } else { 1 } + self.batch();
        phase
    }

    /// What of a layer is on the device all the time.
    fn resident(&self) -> u64 {
        if self.room.offload { 0 } else { self.layer() }
    }
}
