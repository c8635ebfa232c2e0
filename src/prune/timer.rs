//! A clock for a pass: how long each layer's stages took.

use super::sink::{SavedStatistics, WeightSink};
use crate::error::Result;
use crate::report::{LayerSeconds, OperatorReport};
use std::time::Instant;

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
