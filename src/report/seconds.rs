//! Where the seconds of a run go. On a device that computes while the host goes on, work is counted where its result is first
//! waited for.

use serde::{Deserialize, Serialize};

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
