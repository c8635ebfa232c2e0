//! `shrink`: a dense checkpoint in, a smaller dense one out, with its report; or a part of one.

use super::args::{CalibrationArgs, EvaluationArgs, Global, ModelArgs, RunArgs};
use super::help::{EXPERT, LONG_RUNS, METHOD, MODEL, number};
use super::progress::Bar;
use super::text::{errors_text, evaluation_text, plan_memory_text};
use super::values::parse_propagation;
use super::{advice, inputs, show};
use crate::config::{
    Baseline, GreedyConfig, Pattern, PolicyConfig, PolicyLoss, Propagation, PruneConfig, Removable, Ridge,
    ShapeRule, SolverConfig, StructureConfig, StructuredMethod,
};
use crate::error::Result;
use crate::prune::plan::Plan;
use crate::prune::{PruneRun, Shard};
use crate::report::{Report, StructureReport};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder for the smaller model.
    #[arg(long, value_name = "DIR", help_heading = MODEL)]
    output: PathBuf,
    /// Replace the output folder if it exists.
    #[arg(long, help_heading = MODEL)]
    overwrite: bool,
    /// How much is removed: a share of the weights in the linear layers of the decoder, such as 0.2. The share of all parameters is
    /// smaller, because the embeddings stay. Widths are rounded to --multiple, so that a little more or less is removed.
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", help_heading = METHOD)]
    remove: f64,
    /// What is removed. `mlp`: channels of the MLPs. `heads`: attention heads, a head of keys and values with its queries, where the
    /// model's family allows it. `layers`: whole decoder layers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mlp", value_name = "UNIT,...", help_heading = METHOD)]
    units: Vec<Removable>,
    /// How the share is divided. `uniform`: each kind of unit loses the same share. `auto`: several numbers of layers, heads and
    /// channels are tried on a part of the text, and the one closest to the original model on other text is taken. Every layer of
    /// the result has the same width, because runtimes load nothing else.
    #[arg(long, value_enum, default_value = "uniform", value_name = "RULE", help_heading = METHOD)]
    shape: ShapeRule,
    /// The width of the MLPs is rounded to a multiple of this. Default: 256, or less for narrow models: at most a 32nd of the width.
    #[arg(long, value_name = "N", help_heading = METHOD)]
    multiple: Option<usize>,
    /// How units are chosen. `obs`: the ones whose removal changes the output least, given that the others are fitted again (optimal
    /// brain surgeon). `greedy`: Greedy Output Approximation (arXiv 2407.19126). `policy-gradient`: a search with forward passes
    /// (arXiv 2406.10576). `flap`: FLAP (arXiv 2312.11983). `wanda-sp`: Wanda by structures. `magnitude`: the smallest weights.
    /// `leverage`: leverage scores (MoDeGPT, arXiv 2408.09632).
    #[arg(long, value_enum, default_value = "obs", value_name = "NAME", help_heading = METHOD)]
    method: StructuredMethod,
    /// Whether the weights that stay are fitted again by least squares. Default: yes with `obs`, `leverage` and `policy-gradient`,
    /// no with the others, as published.
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no, num_args = 0..=1, default_missing_value = "yes", help_heading = METHOD)]
    refit: Option<bool>,
    /// `paper`: the settings that greedy and policy-gradient were published with, without the fit at the end.
    #[arg(long, value_enum, value_name = "NAME", help_heading = METHOD)]
    preset: Option<Preset>,
    /// Error propagation, as in `prune`: which input the weights are fitted on, and to which output. Default: `true-sequential`, which
    /// fits every linear layer to what it would have given on the input that it really gets; with `--method greedy` `full`, as
    /// published. Use `intra` for --shard.
    #[arg(long, value_name = "WHAT", value_parser = parse_propagation, help_heading = METHOD)]
    propagate: Option<Propagation>,
    /// L2 regularisation of the fit: it holds the weights near their old values. A number relative to the diagonal of the Gram
    /// matrix, or `auto`: less text, stronger.
    #[arg(long, default_value = "auto", value_name = "R", help_heading = EXPERT)]
    ridge: Ridge,
    #[command(flatten)]
    expert: ExpertArgs,
    #[command(flatten)]
    calibrate: CalibrationArgs,
    #[command(flatten)]
    evaluate: EvaluationArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Work on part K of N only, a range of decoder layers, for example on one of several machines. All parts use the same --output;
    /// `merge` then makes one model of them. Needs --propagate intra.
    #[arg(long, value_name = "K/N", value_parser = str::parse::<Shard>, help_heading = LONG_RUNS)]
    shard: Option<Shard>,
}

/// Settings of single methods.
#[derive(Debug, Args)]
#[command(next_help_heading = EXPERT)]
struct ExpertArgs {
    /// greedy: measure channels by their exact second moment, not by the paper's estimate.
    #[arg(long)]
    exact_moment: bool,
    /// greedy: heads are alike if their Jensen-Shannon divergence is below this. The count follows from it, the same in all layers.
    /// Default: the most similar heads, as many as --remove asks for.
    #[arg(long, value_name = "D")]
    similarity: Option<f64>,
    #[arg(long, value_name = "N", help = format!("policy-gradient: steps. Default: {}; the paper: {}.",
        PolicyConfig::default().steps, PolicyConfig::paper().steps))]
    steps: Option<usize>,
    #[arg(long, value_name = "N", help = format!("policy-gradient: masks in each step. Default: {}, as in the paper.", PolicyConfig::paper().masks))]
    masks: Option<usize>,
    #[arg(long, value_name = "X", help = format!("policy-gradient: first learning rate. Default: {}; the paper: {}.",
        number(PolicyConfig::default().learning_rate), number(PolicyConfig::paper().learning_rate)))]
    learning_rate: Option<f64>,
    /// policy-gradient: what the loss of a mask is compared with. `moving`: the mean of the last five steps, as in the paper.
    /// `leave-one-out`: the other masks of the step. Default: leave-one-out.
    #[arg(long, value_enum, value_name = "WHAT")]
    baseline: Option<Baseline>,
    /// policy-gradient: the loss. `cross-entropy`, as in the paper; `kl`: the divergence from the original model. Default: kl.
    #[arg(long, value_enum, value_name = "WHAT")]
    loss: Option<PolicyLoss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    Paper,
}

fn yes_or_no(text: &str) -> std::result::Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("write yes or no".to_owned()),
    }
}

pub(crate) fn run(args: &ShrinkArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let structure = args.structure();
    structure.validate()?;
    let model = inputs::model(&args.model, global)?;
    let family = model.decoder.config().family();
    let solver = SolverConfig {
        ridge: args.ridge,
        ..SolverConfig::best(Some(family))
    };
    let config = PruneConfig {
        propagation: args.propagate.unwrap_or(args.method.propagation()),
        ..PruneConfig::new(Pattern::unstructured(0.0)?, solver)
    };
    let calibration = args.calibrate.windows(&model, args.run.at_most(), global)?;
    let text_field = args.calibrate.draws.text_field.as_ref();
    let evaluation = args
        .evaluate
        .of_run(&model, text_field, args.shard.is_some(), global)?;
    fista_pruner_backends::exact_memory();
    let devices = inputs::devices(global)?;
    let run = PruneRun::on(&model, &calibration, config, &args.output, devices);
    let run = PruneRun {
        evaluation: evaluation.as_ref(),
        structure: Some(structure),
        overwrite: args.overwrite,
        shard: args.shard,
        started,
        ..args.run.of(run)
    };
    if args.run.dry_run {
        return show::result(global.format, &run.plan()?, plan_text);
    }
    let report = run.run(&mut Bar::new(global.quiet))?;
    show::with_advice(global, &report, report_text, |report| {
        advice::shrunk(report, args.shard.is_some())
    })
}

impl ShrinkArgs {
    fn structure(&self) -> StructureConfig {
        let paper = self.preset == Some(Preset::Paper);
        let policy = if paper {
            PolicyConfig::paper()
        } else {
            PolicyConfig::default()
        };
        let expert = &self.expert;
        StructureConfig {
            method: self.method,
            refit: self.refit.unwrap_or(self.method.refits() && !paper),
            units: self.units.clone(),
            remove: self.remove,
            rule: self.shape,
            multiple: self.multiple,
            greedy: GreedyConfig {
                exact_moment: expert.exact_moment,
                similarity: expert.similarity,
                ..GreedyConfig::default()
            },
            policy: PolicyConfig {
                steps: expert.steps.unwrap_or(policy.steps),
                masks: expert.masks.unwrap_or(policy.masks),
                learning_rate: expert.learning_rate.unwrap_or(policy.learning_rate),
                baseline: expert.baseline.unwrap_or(policy.baseline),
                loss: expert.loss.unwrap_or(policy.loss),
                seed: self.calibrate.draws.seed,
                ..policy
            },
        }
    }
}

fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(structure) = &plan.structure {
        text += &format!("{}\n", sizes(structure));
        if structure.shape_is_open {
            text += "the shape is decided in the run; this is one of those that are tried\n";
        }
    }
    text + &plan_memory_text(plan)
}

/// The sizes of a plan's result.
fn sizes(structure: &crate::prune::plan::PlannedStructure) -> String {
    format!(
        "{}\n{} parameters of {}: {:.1} % of the decoder's linear weights go, {:.1} % of all parameters",
        structure.shape,
        structure.parameters_after,
        structure.parameters_before,
        100.0 * structure.removed,
        100.0 * structure.removed_of_all,
    )
}

/// The sizes of the result, the errors by layer, and what the model is worth.
fn report_text(report: &Report) -> String {
    let mut text = errors_text(report);
    if let Some(structure) = &report.structure {
        text += &structure_text(structure);
    }
    text += &evaluation_text(report);
    text.trim_start().to_owned()
}

fn structure_text(structure: &StructureReport) -> String {
    let mut text = String::new();
    let decision = &structure.decision;
    if !decision.tried.is_empty() {
        let rows: Vec<Vec<String>> = decision
            .tried
            .iter()
            .map(|tried| {
                vec![
                    tried.shape.dropped.len().to_string(),
                    tried.shape.channels.to_string(),
                    tried.shape.heads.to_string(),
                    format!("{:.3}", tried.removed),
                    format!("{:.4}", tried.divergence),
                    if tried.shape == decision.shape {
                        "taken".into()
                    } else {
                        String::new()
                    },
                ]
            })
            .collect();
        text += "\n\n";
        text += &show::table(
            &["layers less", "MLP width", "KV heads", "removed", "KL", ""],
            &rows,
        );
    }
    let shape = &structure.shape;
    text += &format!(
        "\n\n{} layers, MLP width {}, {} attention heads with {} of keys and values\n{} parameters of {}: {:.1} % of the decoder's \
         linear weights are gone, {:.1} % of all parameters",
        shape.layers,
        shape.mlp,
        shape.heads,
        shape.kv_heads,
        structure.parameters_after,
        structure.parameters_before,
        100.0 * structure.removed,
        100.0 * structure.removed_of_all,
    );
    if !shape.dropped_layers.is_empty() {
        let layers: Vec<String> = shape.dropped_layers.iter().map(usize::to_string).collect();
        text += &format!("\nwithout the layers {}", layers.join(", "));
    }
    text
}
