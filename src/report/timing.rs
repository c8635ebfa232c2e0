//! Where the seconds of a run go. A [`Timer`] watches the loop from outside: what a layer took in all, what of that its
//! operators' solvers took, what was written meanwhile; the rest is statistics and forward passes.
//!
//! On a device that computes while the host goes on, work is counted where its result is first waited for.

use super::OperatorReport;
use crate::error::Result;
use crate::prune::{SavedStatistics, WeightSink};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Seconds of a run by stage. What is left to [`super::Report::seconds`] is everything else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// Opening the model, reading and tokenising data, opening the device.
    pub preparation: f64,
    /// Measuring which operators should get more zeros, where an allocation asks for that.
    pub allocation: f64,
    /// Reading layers, running them, and summing up their operators' statistics.
    pub statistics: f64,
    /// Choosing weights, and measuring their errors.
    pub solver: f64,
    /// Perplexities before and after.
    pub evaluation: f64,
    /// Copying the checkpoint, writing weights and statistics, and reading the output back.
    pub writing: f64,
}

impl StageSeconds {
    /// Adds what the layers took.
    pub fn add_layers(&mut self, layers: &[LayerSeconds]) {
        for layer in layers {
            self.statistics += layer.statistics;
            self.solver += layer.solver;
            self.evaluation += layer.evaluation;
            self.writing += layer.writing;
        }
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.preparation += other.preparation;
        self.allocation += other.allocation;
        self.statistics += other.statistics;
        self.solver += other.solver;
        self.evaluation += other.evaluation;
        self.writing += other.writing;
    }

    /// The stages in the order of a run, with their names in JSON.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("preparation", self.preparation),
            ("allocation", self.allocation),
            ("statistics", self.statistics),
            ("solver", self.solver),
            ("evaluation", self.evaluation),
            ("writing", self.writing),
        ]
    }
}

/// Seconds of one decoder layer by stage; as in [`StageSeconds`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSeconds {
    /// The layer.
    pub layer: usize,
    /// Reading and running it, and summing up its operators' statistics; in the first layer the embedding too.
    pub statistics: f64,
    /// Choosing its operators' weights.
    pub solver: f64,
    /// Running the evaluation windows through it, dense and pruned.
    pub evaluation: f64,
    /// Writing its weights and statistics.
    pub writing: f64,
}

impl LayerSeconds {
    /// All stages together.
    pub fn total(&self) -> f64 {
        self.statistics + self.solver + self.evaluation + self.writing
    }
}

/// Measures a pruning loop, layer by layer. Interior mutability, because the loop's sink and its hook both report to it.
#[derive(Debug)]
pub struct Timer {
    state: std::cell::RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// When the layer at hand began.
    began: Instant,
    /// Written since then, in seconds.
    writing: f64,
    layers: Vec<LayerSeconds>,
}

impl Timer {
    /// Begins now.
    #[expect(
        clippy::new_without_default,
        reason = "a clock that starts is no default value"
    )]
    pub fn new() -> Self {
        let state = State {
            began: Instant::now(),
            writing: 0.0,
            layers: Vec::new(),
        };
        Self { state: state.into() }
    }

    /// A layer's operators are pruned; `after` is what else is done with it, the evaluation.
    ///
    /// # Errors
    /// Those of `after`.
    pub fn layer(&self, layer: usize, after: impl FnOnce() -> Result<()>) -> Result<()> {
        let pruned = Instant::now();
        after()?;
        let mut state = self.state.borrow_mut();
        let writing = std::mem::take(&mut state.writing);
        let layer = LayerSeconds {
            layer,
            // `finish` moves the operators' seconds, which include the writing of their weights, from one to the other.
            statistics: (pruned - state.began).as_secs_f64(),
            solver: -writing,
            evaluation: pruned.elapsed().as_secs_f64(),
            writing,
        };
        state.layers.push(layer);
        state.began = Instant::now();
        Ok(())
    }

    /// A sink that passes everything on to `sink`, and whose time counts as writing.
    pub fn sink<'a>(&'a self, sink: &'a mut dyn WeightSink) -> TimedSink<'a> {
        TimedSink { timer: self, sink }
    }

    /// The layers' seconds, once the operators' own are known.
    pub fn finish(self, operators: &[OperatorReport]) -> Vec<LayerSeconds> {
        let mut layers = self.state.into_inner().layers;
        for seconds in &mut layers {
            let own = operators
                .iter()
                .filter(|operator| operator.layer == seconds.layer);
            let own: f64 = own.map(|operator| operator.seconds).sum();
            seconds.statistics = (seconds.statistics - own).max(0.0);
            seconds.solver = (seconds.solver + own).max(0.0);
        }
        layers
    }

    fn written(&self, since: Instant) {
        self.state.borrow_mut().writing += since.elapsed().as_secs_f64();
    }
}

/// See [`Timer::sink`].
pub struct TimedSink<'a> {
    timer: &'a Timer,
    sink: &'a mut dyn WeightSink,
}

impl WeightSink for TimedSink<'_> {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        let started = Instant::now();
        self.sink.weight(name, values, keep)?;
        self.timer.written(started);
        Ok(())
    }

    fn wants_statistics(&self) -> bool {
        self.sink.wants_statistics()
    }

    fn statistics(&mut self, operator: SavedStatistics) -> Result<()> {
        let started = Instant::now();
        self.sink.statistics(operator)?;
        self.timer.written(started);
        Ok(())
    }

    /// After the layer's entry was made: goes to that, and is not the next layer's time.
    fn layer_done(&mut self, layer: usize, operators: &[OperatorReport]) -> Result<()> {
        let started = Instant::now();
        self.sink.layer_done(layer, operators)?;
        let mut state = self.timer.state.borrow_mut();
        if let Some(last) = state.layers.last_mut() {
            last.writing += started.elapsed().as_secs_f64();
        }
        state.began = Instant::now();
        Ok(())
    }
}
