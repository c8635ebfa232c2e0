//! `prune`: a dense checkpoint in, a pruned one out, with its report; or a part of one.

mod job;
mod record;
mod text;

pub(super) use text::report_text;

use super::args::{Global, PruneArgs};
use super::model::Chosen;
use super::statistics::StatisticsFolder;
use super::{data, device, model, show, solve};
use crate::allocation::{Allocation, read_table};
use crate::calibration::TokenWindows;
use crate::checkpoint::{CheckpointWriter, Workspace};
use crate::config::PruneConfig;
use crate::error::{Error, Result};
use crate::plan::{self, Plan, Room, StatePlace};
use crate::prune::{self, StateFolder, StateStore, dense_input_only};
use crate::report::{self, OperatorReport, Report, StageSeconds, html};
use crate::shard::{Part, PartWriter};
use fista_pruner_backends::{DeviceSpec, dispatch_opened};
use job::{Job, Output, Target};
use record::{Ran, identity, record};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use text::plan_text;

pub(crate) fn run(args: &PruneArgs, global: &Global) -> Result<()> {
    let started = Instant::now();
    let mut seconds = StageSeconds::default();
    let chosen = model::open(&args.model, global)?;
    let mut config = prune_config(args, &chosen)?;
    let allocation = spread(&args.allocation, &chosen, &mut config)?;
    let layers = layers(args, &chosen, &config)?;
    let windows = data::calibration_of(&chosen, &args.calibrate)?;
    let evaluation = match args.shard {
        None => data::evaluation_of(&chosen, &args.evaluate, &args.calibrate.text)?,
        Some(_) => None,
    };
    let tokens = |windows: &TokenWindows| windows.ids.len() * windows.seq_len;
    let mut room = Room {
        tokens: tokens(&windows),
        evaluation_tokens: evaluation.as_ref().map_or(0, tokens),
        window: windows.seq_len,
        layers: layers.clone(),
        device_is_host: true,
        states: StatePlace::Device,
        offload: args.offload,
    };
    let devices = device::choose_all(global)?;
    room.device_is_host = devices[0].kind.is_host();
    let plan = fit(args, &chosen, &mut config, &mut room)?;
    if args.dry_run {
        return dry_run(global, plan, &chosen, &config, (&windows, &room), &devices);
    }
    if devices.len() > 1 {
        dense_input_only(&config, "--device")?;
    }
    seconds.preparation = started.elapsed().as_secs_f64();
    let copying = Instant::now();
    let identity = identity(
        args,
        &chosen,
        &config,
        (&windows, evaluation.as_ref()),
        &devices[0],
    )?;
    let (target, mut space, path) = target(args, &chosen, &identity)?;
    let statistics = statistics(args, &path, &mut space, &layers)?;
    if space.earlier.is_none() {
        let unfinished = statistics.as_ref().map(StatisticsFolder::partial);
        space.journal.begin(&identity, unfinished)?;
    }
    let states = match room.states {
        StatePlace::Device => StateStore::Device,
        StatePlace::Host => StateStore::Host,
        StatePlace::Disk => StateStore::Disk(StateFolder::create(space.path.join(".activations"))?),
    };
    seconds.writing = copying.elapsed().as_secs_f64();
    let mut output = Output {
        target,
        statistics,
        journal: space.journal,
        since: Instant::now(),
    };
    let job = Job {
        model: &chosen.model,
        windows: &windows,
        evaluation: evaluation.as_ref().map_or(&[], |windows| &windows.ids),
        config: &mut config,
        allocation,
        layers: layers.clone(),
        earlier: space.earlier,
        devices: &devices,
        states: &states,
        offload: room.offload,
        output: &mut output,
        seconds: &mut seconds,
        quiet: global.quiet,
    };
    let pruned = dispatch_opened(&devices[0], job)??;
    drop(states);
    let checking = Instant::now();
    let left_out = match &output.target {
        Target::Whole(writer) => {
            check_written(writer.partial(), &pruned.operators)?;
            writer.left_out().to_vec()
        }
        Target::Part(_) => Vec::new(),
    };
    seconds.writing += checking.elapsed().as_secs_f64();
    let ran = Ran {
        device: device::names(&devices),
        started,
        stages: seconds,
        left_out,
        // As it was given, not as it was resolved.
        output: match path.file_name() {
            Some(part) if args.shard.is_some() => args.output.join(part).display().to_string(),
            _ => args.output.display().to_string(),
        },
    };
    let both = (&windows, evaluation.as_ref());
    let report = record(args, &chosen, &config, both, pruned, ran);
    let Output {
        target,
        statistics,
        journal,
        ..
    } = output;
    let last = || {
        if let Some(statistics) = statistics {
            statistics.finish()?;
        }
        journal.remove()
    };
    match target {
        Target::Whole(mut writer) => {
            add_report(&mut writer, &report)?;
            writer.finish_after(last)?;
        }
        Target::Part(part) => {
            let shard = args.shard.ok_or_else(|| Error::Internal {
                what: "a part of no shard".into(),
            })?;
            let dir = chosen.model.checkpoint.dir();
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
            let description = Part::new(shard, &layers, &dir, identity, report.clone());
            part.finish(&description, last)?;
        }
    }
    show::result(global.format, &report, report_text)
}

/// The report and its page, beside the weights.
pub(super) fn add_report(writer: &mut CheckpointWriter, report: &Report) -> Result<()> {
    let json = report.to_json()?;
    writer.add_file(report::FILE_NAME, &json)?;
    // Of what readers of the file will find: parsed numbers can differ in their last bit.
    let stored: Report = serde_json::from_slice(&json).map_err(|e| Error::Internal {
        what: format!("the report cannot be read back: {e}"),
    })?;
    writer.add_file(report::HTML_NAME, html::page(&stored).as_bytes())
}

/// The layers of the run: all, or a shard's.
fn layers(args: &PruneArgs, chosen: &Chosen, config: &PruneConfig) -> Result<Range<usize>> {
    let layers = chosen.model.decoder.config().num_layers();
    let Some(shard) = args.shard else {
        return Ok(0..layers);
    };
    dense_input_only(config, "--shard")?;
    if args.evaluate.data.is_some() {
        return Err(Error::Setting {
            setting: "--data",
            reason: "a part is no model whose perplexity could be measured; use `eval` after `merge`".into(),
        });
    }
    shard.layers(layers)
}

/// Where hidden states wait, whether weights and Gram matrices do too, and how many tokens are computed at once: as asked
/// for, or as the budget allows.
fn fit(args: &PruneArgs, chosen: &Chosen, config: &mut PruneConfig, room: &mut Room) -> Result<Plan> {
    let places = match args.activations {
        Some(place) => vec![place],
        None if room.device_is_host => vec![StatePlace::Device, StatePlace::Disk],
        None => vec![StatePlace::Device, StatePlace::Host],
    };
    let mut ways: Vec<_> = places.iter().map(|place| (*place, args.offload)).collect();
    if let (Some(last), false) = (places.last(), args.offload) {
        ways.push((*last, true));
    }
    let mut least = None;
    for (place, offload) in ways {
        (room.states, room.offload) = (place, offload);
        let mut tokens = PruneConfig::BATCH_TOKENS;
        loop {
            config.batch_tokens = tokens;
            let plan = plan::plan(&chosen.model.checkpoint, &chosen.model.decoder, config, room)?;
            if args
                .memory_budget
                .is_none_or(|budget| plan.device_bytes <= budget)
            {
                return Ok(plan);
            }
            let bytes = plan.device_bytes;
            least = Some(least.map_or(bytes, |least: u64| least.min(bytes)));
            if tokens <= room.window {
                break;
            }
            tokens = (tokens / 2).max(room.window);
        }
    }
    Err(Error::Setting {
        setting: "--memory-budget",
        reason: format!(
            "the run needs {} on the device at least",
            show::bytes(least.unwrap_or_default())
        ),
    })
}

/// Shows what a run would do, hold and take.
fn dry_run(
    global: &Global,
    mut plan: Plan,
    chosen: &Chosen,
    config: &PruneConfig,
    (windows, room): (&TokenWindows, &Room),
    devices: &[DeviceSpec],
) -> Result<()> {
    let probe = plan::Probe {
        model: &chosen.model,
        windows: &windows.ids,
        config,
        room,
        devices: devices.len(),
    };
    plan.seconds = Some(dispatch_opened(&devices[0], probe)??);
    show::result(global.format, &plan, plan_text)
}

/// What is written, with its journal, and where it will be.
fn target<'a>(
    args: &PruneArgs,
    chosen: &'a Chosen,
    identity: &serde_json::Value,
) -> Result<(Target<'a>, Workspace, std::path::PathBuf)> {
    let checkpoint = &chosen.model.checkpoint;
    let (overwrite, resume) = (args.overwrite, args.resume);
    Ok(match args.shard {
        None => {
            let (writer, space) =
                CheckpointWriter::create_journaled(checkpoint, &args.output, overwrite, identity, resume)?;
            let path = writer.output().to_path_buf();
            (Target::Whole(writer), space, path)
        }
        Some(shard) => {
            let (part, space) =
                PartWriter::create(checkpoint, &args.output, shard, overwrite, identity, resume)?;
            let path = part.target().to_path_buf();
            (Target::Part(part), space, path)
        }
    })
}

/// The folder of statistics: a new one, or the one that the run to be resumed has begun.
fn statistics(
    args: &PruneArgs,
    output: &Path,
    space: &mut Workspace,
    layers: &Range<usize>,
) -> Result<Option<StatisticsFolder>> {
    let Some(folder) = &args.save_statistics else {
        return Ok(None);
    };
    if args.shard.is_some() {
        // All shards put their files there.
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let begun = space
        .earlier
        .as_ref()
        .and_then(|earlier| earlier.statistics.clone());
    Ok(Some(match begun {
        Some(begun) => StatisticsFolder::resume(folder, output, begun, layers)?,
        None => {
            let mut statistics = StatisticsFolder::create(folder, output)?;
            if args.resume {
                statistics.keep();
            }
            statistics
        }
    }))
}

fn prune_config(args: &PruneArgs, chosen: &Chosen) -> Result<PruneConfig> {
    let family = chosen.model.decoder.config().family();
    Ok(PruneConfig {
        pattern: args.solver.sparsity,
        solver: solve::solver_config(&args.solver, Some(family))?,
        propagation: args.propagate,
        patterns: BTreeMap::new(),
        targets: args.calibrate.targets.clone(),
        ignore: args.calibrate.ignore.clone(),
        batch_tokens: PruneConfig::BATCH_TOKENS,
    })
}

/// What `--allocation` says: one of the rules, or a file, whose table goes into `config` at once.
fn spread(text: &str, chosen: &Chosen, config: &mut PruneConfig) -> Result<Allocation> {
    if let Some((_, allocation)) = Allocation::ALL.iter().find(|(name, _)| *name == text) {
        return Ok(*allocation);
    }
    let path = Path::new(text);
    if !path.exists() {
        return Err(Error::Setting {
            setting: "--allocation",
            reason: format!("`{text}` is neither uniform, owl, error nor a file"),
        });
    }
    let names: Vec<String> = prune::selected(&chosen.model.decoder, config)
        .into_iter()
        .map(|operator| operator.name)
        .collect();
    config.patterns = read_table(path, &names)?;
    Ok(Allocation::Uniform)
}

/// Reads every pruned operator back and checks its pattern and its zeros, before the output gets its name.
pub(super) fn check_written(partial: &Path, operators: &[OperatorReport]) -> Result<()> {
    let written = crate::checkpoint::Checkpoint::open(partial)?;
    for operator in operators {
        let values = written.read(&format!("{}.weight", operator.name), &operator.shape)?;
        let [rows, columns] = operator.shape;
        operator.pattern.check(&operator.name, &values, rows, columns)?;
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        if zeros != operator.zeros {
            return Err(Error::PatternBroken {
                pattern: operator.pattern,
                operator: operator.name.clone(),
                reason: format!("{zeros} zeros were written, {} were meant", operator.zeros),
            });
        }
    }
    Ok(())
}
