//! Prunes a checkpoint from a program of one's own: open, draw windows, prune, write, evaluate.
//!
//! `cargo run --release --example prune_checkpoint [MODEL_DIR TEXT_FILE]`; without arguments the built-in demo model and
//! text.

use fista_pruner::checkpoint::{CheckpointWriter, Model};
use fista_pruner::config::{Pattern, Propagation, PruneConfig, SolverConfig};
use fista_pruner::demo;
use fista_pruner::error::{Error, Result};
use fista_pruner::eval::perplexity;
use fista_pruner::progress::silent;
use fista_pruner::prune::{Job, WeightSink, prune};
use fista_pruner::report::overall_sparsity;
use fista_pruner::text::{TextOptions, Tokenizer, draw_windows, evaluation_windows, read_documents};
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch, open_default};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Weights go straight into the new checkpoint.
struct Sink(CheckpointWriter);

impl WeightSink for Sink {
    fn weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        self.0.write_weight(name, values, keep)
    }
}

/// What runs on the device, whichever that is.
struct Run {
    model: PathBuf,
    text: Option<PathBuf>,
    output: PathBuf,
}

impl DeviceJob for Run {
    type Output = Result<()>;

    #[allow(clippy::print_stdout, reason = "an example shows what it did")]
    fn run<B: SolverOps>(self, device: &B::Device) -> Result<()> {
        let model = Model::open(&self.model)?;
        let tokenizer = Tokenizer::open(&self.model)?;
        let documents = match &self.text {
            Some(file) => read_documents(std::slice::from_ref(file), &TextOptions::default())?,
            None => demo::calibration_documents()?,
        };
        let seq_len = 256;
        let calibration = draw_windows(&tokenizer, &documents, 16, seq_len, 0)?;
        let evaluation = evaluation_windows(&tokenizer, &demo::evaluation_text(), seq_len, Some(16))?;
        let nll = |model: &Model| -> Result<f64> {
            let parts = (&model.checkpoint, &model.decoder);
            Ok(perplexity::<B>(
                parts,
                &evaluation.ids,
                PruneConfig::BATCH_TOKENS,
                device,
                &mut silent(),
            )?
            .perplexity)
        };
        println!("dense   perplexity {:8.3}", nll(&model)?);

        for pattern in [Pattern::unstructured(0.5)?, Pattern::n_of_m(2, 4)?] {
            let config = PruneConfig {
                pattern,
                patterns: BTreeMap::new(),
                solver: SolverConfig::fast(Some(model.decoder.config().family())),
                propagation: Propagation::INTRA,
                targets: None,
                ignore: None,
                batch_tokens: PruneConfig::BATCH_TOKENS,
            };
            let output = self.output.join(pattern.to_string().replace(':', "of"));
            let mut sink = Sink(CheckpointWriter::create(&model.checkpoint, &output, true)?);
            let job = Job {
                checkpoint: &model.checkpoint,
                decoder: &model.decoder,
                windows: &calibration.ids,
                config: &config,
            };
            let operators = prune::<B>(job, device, &mut sink, &mut silent())?;
            sink.0.finish()?;
            println!(
                "{pattern:7} perplexity {:8.3}, sparsity {:.4}, in {}",
                nll(&Model::open(&output)?)?,
                overall_sparsity(&operators),
                output.display()
            );
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (model, text) = (arguments.next(), arguments.next());
    let output = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let run = Run {
        model: match model {
            Some(model) => model,
            None => demo::model()?,
        },
        text: text.filter(|text| text != Path::new("demo")),
        output: output.path().to_path_buf(),
    };
    let (device, _) = open_default()?;
    dispatch(&device, run)?
}
