//! Several devices at once. One passes the calibration windows through the dense model and puts what enters each layer into
//! a queue; every device takes layers from it and prunes them. Weights come out as one device would give them: what a layer
//! is pruned with does not depend on who prunes it.

use super::gather::through;
use super::layer::{BranchState, LayerRun};
use super::selection::{check_selection, dense_input_only, operators_by_layer};
use super::weights::DenseLayer;
use super::{Branch, SavedStatistics, Source, StateStore, States, WeightSink, embed, selected};
use crate::config::PruneConfig;
use crate::error::{ConfigError, Error, Result, SolverError};
use crate::progress::{Event, Observer, silent};
use crate::prune::Limits;
use crate::report::{LayerSeconds, OperatorReport};
use crate::system::{Panicked, guarded};
use burn::tensor::{Tensor, TensorData};
use fista_pruner_backends::{DeviceJob, DeviceSpec, SolverOps, dispatch_opened};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A layer to prune.
struct Work {
    layer: usize,
    /// What enters the dense layer, in batches `[windows, tokens, hidden]`.
    hidden: Vec<TensorData>,
}

/// A pruned layer.
struct Finished {
    layer: usize,
    operators: Vec<OperatorReport>,
    /// From taking the work to having it done.
    seconds: f64,
    made: Collected,
}

/// A sink on a worker's side.
#[derive(Default)]
struct Collected {
    weights: Vec<(String, Vec<f32>, Vec<bool>)>,
    statistics: Vec<SavedStatistics>,
    wants_statistics: bool,
}

impl WeightSink for Collected {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.weights
            .push((name.to_owned(), values.to_vec(), keep.to_vec()));
        Ok(())
    }

    fn wants_statistics(&self) -> bool {
        self.wants_statistics
    }

    fn statistics(&mut self, operator: SavedStatistics) -> Result<()> {
        self.statistics.push(operator);
        Ok(())
    }
}

/// What all threads share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    source: Source<'a>,
    config: &'a PruneConfig,
    wants_statistics: bool,
    /// Something failed: what is left in the queue is thrown away.
    stop: &'a AtomicBool,
}

/// Prunes the layers of `span` on several opened devices of one kind; the layers reach `sink` in the order in which they
/// are finished. Gives the operators in the order of pruning, and each layer's seconds on its device.
///
/// # Errors
/// As [`super::prune_branches`]; when the layers cannot be pruned apart from each other.
pub fn prune_on_devices(
    source: Source<'_>,
    config: &PruneConfig,
    sink: &mut dyn WeightSink,
    span: Range<usize>,
    devices: &[DeviceSpec],
    observer: &mut dyn Observer,
) -> Result<(Vec<OperatorReport>, Vec<LayerSeconds>)> {
    config.solver.validate()?;
    check_selection(source.decoder, config)?;
    dense_input_only(config, "‹device›")?;
    let first = devices.first().ok_or_else(|| {
        Error::from(ConfigError::Setting {
            setting: "‹device›",
            reason: "no device".into(),
        })
    })?;
    let stop = AtomicBool::new(false);
    let shared = Shared {
        source,
        config,
        wants_statistics: sink.wants_statistics(),
        stop: &stop,
    };
    observer.event(Event::Stage {
        name: "layers",
        steps: span.len(),
    });
    let (to_workers, work) = sync_channel::<Work>(devices.len());
    let work = Mutex::new(work);
    let (done, finished) = channel::<Result<Finished>>();
    let outcome = std::thread::scope(|scope| {
        let range = span.clone();
        let errors = done.clone();
        scope.spawn(move || {
            let pass = DensePass {
                shared,
                span: range,
                queue: to_workers,
            };
            tell(dispatched(first, pass), &errors);
        });
        for device in devices {
            let worker = Worker {
                shared,
                queue: &work,
                done: done.clone(),
            };
            let errors = done.clone();
            scope.spawn(move || tell(dispatched(device, worker), &errors));
        }
        // The receiver ends when the last thread has.
        drop(done);
        let outcome = store(&finished, shared, &span, sink, observer);
        stop.store(true, Ordering::Relaxed);
        // Makes room for whoever waits for it, so that all threads end, even where no worker is left to do that.
        let ended = |next: Result<_, RecvTimeoutError>| matches!(next, Err(RecvTimeoutError::Disconnected));
        while !ended(finished.recv_timeout(Duration::from_millis(50))) {
            if let Ok(queue) = work.try_lock() {
                while queue.try_recv().is_ok() {}
            }
        }
        outcome
    });
    observer.event(Event::Done);
    let (mut operators, mut seconds) = outcome?;
    operators.sort_by_key(|operator| operator.layer);
    seconds.sort_by_key(|seconds| seconds.layer);
    Ok((operators, seconds))
}

/// Runs a thread's part; a panic inside it is an error like others.
fn dispatched<J: DeviceJob<Output = Result<()>>>(device: &DeviceSpec, job: J) -> Result<()> {
    match guarded(|| dispatch_opened(device, job)) {
        Ok(outcome) => outcome?,
        Err(Panicked(what)) => Err(Error::from(SolverError::DeviceFailed {
            reason: format!("the work on `{device}` broke off: {what}"),
        })),
    }
}

fn tell(outcome: Result<()>, errors: &Sender<Result<Finished>>) {
    if let Err(error) = outcome {
        // Nobody listens any more only where another error came first.
        let _ = errors.send(Err(error));
    }
}

/// Passes finished layers on until all are there.
fn store(
    finished: &Receiver<Result<Finished>>,
    shared: Shared<'_>,
    span: &Range<usize>,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<OperatorReport>, Vec<LayerSeconds>)> {
    let to_come = operators_by_layer(shared.source.decoder, &[shared.config]);
    let (mut operators, mut seconds) = (Vec::new(), Vec::new());
    for _ in span.clone() {
        let next = finished
            .recv()
            .map_err(|_| Error::internal("a device ended before its work did"))??;
        let layer = next.layer;
        observer.event(Event::Layer {
            layer,
            layers: span.end,
            operators: to_come[layer],
        });
        for report in &next.operators {
            let (name, branch) = (report.name.as_str(), 0);
            observer.event(Event::Solving { name, layer, branch });
            observer.event(report.event(branch));
        }
        let writing = Instant::now();
        for operator in next.made.statistics {
            sink.statistics(operator)?;
        }
        for (name, values, keep) in &next.made.weights {
            sink.weight(name, values, keep)?;
        }
        sink.layer_done(layer, &next.operators)?;
        let solver: f64 = next.operators.iter().map(|operator| operator.seconds).sum();
        seconds.push(LayerSeconds {
            layer,
            statistics: (next.seconds - solver).max(0.0),
            solver,
            evaluation: 0.0,
            writing: writing.elapsed().as_secs_f64(),
        });
        operators.extend(next.operators);
        observer.event(Event::Step);
    }
    Ok((operators, seconds))
}

/// Passes the windows through the dense model.
struct DensePass<'a> {
    shared: Shared<'a>,
    span: Range<usize>,
    queue: SyncSender<Work>,
}

impl DeviceJob for DensePass<'_> {
    type Output = Result<()>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let source = self.shared.source;
        let mut hidden = embed::<B>(&source, device)?;
        for layer in 0..self.span.end {
            if layer >= self.span.start {
                let work = Work {
                    layer,
                    hidden: hidden.to_host()?,
                };
                let unwanted = self.shared.stop.load(Ordering::Relaxed);
                if unwanted || self.queue.send(work).is_err() {
                    return Ok(());
                }
            }
            if layer + 1 < self.span.end {
                let dense = source.decoder.layer::<B>(layer, source.checkpoint, device)?;
                hidden = through(&dense, hidden)?;
            }
        }
        Ok(())
    }
}

/// Prunes layers until the queue ends.
struct Worker<'a> {
    shared: Shared<'a>,
    queue: &'a Mutex<Receiver<Work>>,
    done: Sender<Result<Finished>>,
}

impl DeviceJob for Worker<'_> {
    type Output = Result<()>;

    fn run<B: SolverOps>(self, device: &B::Device) -> Self::Output {
        let different_tokens = self.shared.source.different_tokens();
        let decoder = self.shared.source.decoder;
        Limits::of::<B>(decoder, device)?.grams(&selected(decoder, self.shared.config))?;
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(work) = next else {
                return Ok(());
            };
            if self.shared.stop.load(Ordering::Relaxed) {
                continue;
            }
            let finished = self.prune::<B>(work, different_tokens, device);
            if self.done.send(finished).is_err() {
                return Ok(());
            }
        }
    }
}

impl Worker<'_> {
    fn prune<B: SolverOps>(
        &self,
        work: Work,
        different_tokens: usize,
        device: &B::Device,
    ) -> Result<Finished> {
        let started = Instant::now();
        let source = self.shared.source;
        let Work { layer, hidden } = work;
        let batches = hidden
            .into_iter()
            .map(|batch| Tensor::<B, 3>::from_data(batch, device));
        let hidden = States::of_hidden(batches, source.states, device)?;
        let mut made = Collected {
            wants_statistics: self.shared.wants_statistics,
            ..Collected::default()
        };
        let branch = Branch {
            config: self.shared.config,
            sink: &mut made,
        };
        let run = LayerRun {
            source,
            layer,
            dense: DenseLayer::new(source, layer, device)?,
            device: device.clone(),
            different_tokens,
            last: true,
        };
        let mut branches = [BranchState::new(
            0,
            branch,
            &States::none(StateStore::ON_DEVICE, device),
        )];
        run.prune(hidden, true, &mut branches, &mut silent())?;
        let [state] = branches;
        let operators = state.outcome.operators;
        Ok(Finished {
            layer,
            operators,
            seconds: started.elapsed().as_secs_f64(),
            made,
        })
    }
}
