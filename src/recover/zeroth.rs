//! Zeroth-order recovery (MeZO, arXiv 2305.17333; SubZero, arXiv 2410.08989): two forward passes tell the slope of the loss
//! along a random direction, and the weights move along it. In: a pruned model, windows. Out: new weights.
//!
//! The model is streamed as in evaluation: a layer at a time is in memory. What changes, the operators' weights, lies in a
//! folder, in f32; a layer's file holds the weights of an earlier step, and what came after it is made up for when the file
//! is read, from the seed and one number a step. So a layer is written every few steps only, and the folder is a
//! checkpoint at any time.

use super::checkpoints::{Exact, Folder};
use super::config::MezoConfig;
use super::directions::{Space, direction, dithered};
use super::gradient::each;
use super::job::{Hidden, RecoverJob, window_states};
use super::operators::{Operator, layer_operators};
use super::report::Curve;
use super::schedule::batches;
use crate::checkpoint::{Overlay, StoredDtype};
use crate::error::{Error, Result};
use crate::eval::{finite, mean_nll};
use crate::progress::{Event, Observer};
use crate::prune::WeightSink;
use fista_pruner_backends::SolverOps;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What the curves show.
pub(super) const LOSS: &str =
    "mean negative log-likelihood per token, in nats; of a step: the mean of its two";

/// Steps between two writings of a layer. Reading it draws one direction for each step since then, which for a layer costs
/// about as much as a forward pass of twenty tokens.
const RENEWAL: usize = 8;

/// First steps that only measure, where no rate is given.
const PROBES: usize = 4;

/// The share of `1 / zᵀ H z` that the rate gets. Without noise in the loss 1 is best; with that of single windows the
/// squared slopes are several times those of the mean.
const CAUTION: f64 = 0.25;

/// The rate where the loss bends downwards along the probes: MeZO's for whole models.
const FALLBACK_RATE: f64 = 1e-6;

/// A step that was taken.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Step {
    loss: Exact,
    /// The weights moved by this much of the step's direction.
    moved: Exact,
}

/// All that is known besides the weights.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    before: Exact,
    /// Curvatures along the probes.
    curvatures: Vec<Exact>,
    steps: Vec<Step>,
    seconds: f64,
}

/// Recovers the model.
pub(super) fn run<B: SolverOps>(
    job: &RecoverJob<'_>,
    config: &MezoConfig,
    space: Space,
    device: &B::Device,
    sink: &mut dyn WeightSink,
    observer: &mut dyn Observer,
) -> Result<(Vec<Curve>, usize)> {
    // Where nobody wants checkpoints, the folder is gone at the end.
    let temporary;
    let path = match job.checkpoints {
        Some(path) => path,
        None => {
            let parent = std::env::temp_dir();
            temporary = tempfile::tempdir().map_err(Error::io("create a folder in", parent))?;
            temporary.path()
        }
    };
    let (folder, done) = Folder::open::<Done>(path, job)?;
    let resumed = done.as_ref().map_or(0, |done| done.steps.len());
    let mut run = Run::<B> {
        job,
        config,
        space,
        device,
        folder,
        done: done.unwrap_or_default(),
    };
    observer.event(Event::Stage {
        name: "steps",
        steps: config.steps + 2,
    });
    let earlier = run.done.seconds;
    let started = Instant::now();
    if resumed == 0 {
        observer.event(Event::Working { on: "loss before" });
        let before = run.losses(job.windows, &[0.0], Weights::Current)?[0];
        run.done.before = Exact(finite(before, "the pruned model")?);
    }
    observer.event(Event::Step);
    for step in 0..config.steps {
        if step >= resumed {
            observer.event(Event::Working { on: "two passes" });
            run.step(step)?;
            run.done.seconds = earlier + started.elapsed().as_secs_f64();
            run.folder.save(&run.done)?;
        }
        observer.event(Event::Step);
    }
    observer.event(Event::Working { on: "loss after" });
    let after = run.losses(job.windows, &[0.0], Weights::Stored)?[0];
    let kept_old = after.is_nan() || after >= run.done.before.0;
    run.write(kept_old, sink)?;
    observer.event(Event::Step);
    observer.event(Event::Done);
    let curve = Curve {
        name: "model".into(),
        before: run.done.before.0,
        steps: run.done.steps.iter().map(|step| step.loss.0).collect(),
        after: if kept_old { run.done.before.0 } else { after },
        kept_old,
        seconds: earlier + started.elapsed().as_secs_f64(),
    };
    Ok((vec![curve], resumed))
}

/// Which weights a loss is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weights {
    /// Those of the steps so far, in f32.
    Current,
    /// The same, as they will be stored.
    Stored,
}

struct Run<'a, B: SolverOps> {
    job: &'a RecoverJob<'a>,
    config: &'a MezoConfig,
    space: Space,
    device: &'a B::Device,
    folder: Folder,
    done: Done,
}

impl<B: SolverOps> Run<'_, B> {
    /// One step of SPSA (MeZO, Algorithm 1): `w ← w − η z (L(w + ε z) − L(w − ε z)) / 2ε`.
    fn step(&mut self, step: usize) -> Result<()> {
        let windows = self.batch(step);
        let epsilon = self.config.epsilon;
        let both = self.losses(&windows, &[epsilon, -epsilon], Weights::Current)?;
        let (up, down) = (both[0], both[1]);
        let probing = self.config.learning_rate.is_none() && step < PROBES.min(self.config.steps / 2);
        let slope = (up - down) / (2.0 * epsilon);
        let mut moved = 0.0;
        if probing {
            let here = self.losses(&windows, &[0.0], Weights::Current)?[0];
            let curvature = (up - 2.0 * here + down) / (epsilon * epsilon);
            self.done.curvatures.push(Exact(curvature));
        } else {
            moved = -self.rate(step) * slope;
        }
        self.done.steps.push(Step {
            loss: Exact(finite(0.5 * (up + down), &format!("step {step}"))?),
            moved: Exact(moved),
        });
        Ok(())
    }

    /// The rate of a step: falls linearly to zero. Along a direction `z` the loss is lowest after `−slope / zᵀ H z`, where
    /// `zᵀ H z` is nearly the same for all directions: the trace of the Hessian, which the probes have measured.
    fn rate(&self, step: usize) -> f64 {
        let highest = self.config.learning_rate.unwrap_or_else(|| {
            let curvatures = &self.done.curvatures;
            let mean = curvatures.iter().map(|c| c.0).sum::<f64>() / curvatures.len().max(1) as f64;
            if mean > 0.0 { CAUTION / mean } else { FALLBACK_RATE }
        });
        highest * (1.0 - step as f64 / self.config.steps.max(1) as f64)
    }

    /// The windows of a step: every epoch takes them in another order.
    fn batch(&self, step: usize) -> Vec<Vec<u32>> {
        let all = self.job.windows;
        let (batch, seed) = (self.config.batch, self.config.seed);
        let epochs = (self.config.steps * batch).div_ceil(all.len());
        let order = batches(all.len(), batch, epochs, seed, 0);
        order[step].iter().map(|i| all[*i].clone()).collect()
    }

    /// The mean loss over windows of the weights plus `c` times the next step's direction, for each `c` of `shifts`.
    fn losses(&self, windows: &[Vec<u32>], shifts: &[f64], weights: Weights) -> Result<Vec<f64>> {
        let model = self.job.pruned;
        let start: Hidden<B> = window_states(model, windows, self.device)?;
        let mut paths = vec![start; shifts.len()];
        for layer in 0..model.decoder.config().num_layers() {
            let (operators, values) = self.layer(layer, weights)?;
            let shifted = shifts.iter().any(|shift| *shift != 0.0);
            let directions = shifted.then(|| self.directions(self.done.steps.len(), &operators, &values));
            for (path, shift) in paths.iter_mut().zip(shifts) {
                let values = match &directions {
                    Some(directions) => values
                        .iter()
                        .zip(directions)
                        .map(|(w, z)| moved(w, z, *shift))
                        .collect(),
                    None => values.clone(),
                };
                let mut source = Overlay::new(&model.checkpoint);
                for (operator, values) in operators.iter().zip(values) {
                    source.set(&operator.tensor, operator.shape, values);
                }
                let layer = model.decoder.layer::<B>(layer, &source, self.device)?;
                *path = each::<B, _, _>(self.device, std::mem::take(path), |h| Ok(layer.forward(h)))?;
            }
        }
        let parts = (&model.checkpoint, &model.decoder);
        paths
            .into_iter()
            .map(|path| mean_nll::<B>(parts, path.into_iter().map(Ok), windows, self.device))
            .collect()
    }

    fn directions(&self, step: usize, operators: &[Operator], values: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let of = |(operator, values): (&Operator, &Vec<f32>)| {
            direction(self.space, self.config.seed, step, operator, values)
        };
        operators.iter().zip(values).map(of).collect()
    }

    /// A layer's operators and their weights after all steps.
    fn layer(&self, layer: usize, weights: Weights) -> Result<(Vec<Operator>, Vec<Vec<f32>>)> {
        let mut operators = layer_operators(self.job, layer)?;
        let (mut values, from) = match self.folder.read_layer(layer, &operators)? {
            Some(stored) => stored,
            None => (
                operators
                    .iter_mut()
                    .map(|o| std::mem::take(&mut o.values))
                    .collect(),
                0,
            ),
        };
        operators
            .iter_mut()
            .for_each(|operator| operator.values = Vec::new());
        let now = self.done.steps.len();
        for (step, taken) in self.done.steps.iter().enumerate().skip(from) {
            if taken.moved.0 != 0.0 {
                let directions = self.directions(step, &operators, &values);
                for (values, direction) in values.iter_mut().zip(&directions) {
                    *values = moved(values, direction, taken.moved.0);
                }
            }
        }
        if now >= from + RENEWAL {
            let all = operators.iter().zip(values.iter().map(Vec::as_slice));
            self.folder
                .write_layer(layer, all, Some(&StoredDtype::F32), now)?;
        }
        if weights == Weights::Stored {
            let round = |(operator, values)| dithered(self.config.seed, operator, values);
            values = operators.iter().zip(values).map(round).collect();
        }
        Ok((operators, values))
    }

    /// Hands the weights to the sink: as they were, or as they are now.
    fn write(&self, old: bool, sink: &mut dyn WeightSink) -> Result<()> {
        for layer in 0..self.job.pruned.decoder.config().num_layers() {
            if old {
                for operator in layer_operators(self.job, layer)? {
                    sink.weight(&operator.tensor, &operator.values, &operator.keep)?;
                }
            } else {
                let (operators, values) = self.layer(layer, Weights::Stored)?;
                for (operator, values) in operators.iter().zip(&values) {
                    sink.weight(&operator.tensor, values, &operator.keep)?;
                }
            }
            sink.layer_done(layer, &[])?;
        }
        Ok(())
    }
}

/// `w + c z`; where `z` is zero, `w` to the last bit.
fn moved(w: &[f32], z: &[f32], c: f64) -> Vec<f32> {
    let c = c as f32;
    w.par_iter()
        .zip(z)
        .map(|(w, z)| if *z == 0.0 { *w } else { w + c * z })
        .collect()
}
