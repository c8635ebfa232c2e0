//! A run done: what is asked for is checked and fitted into memory, the layers are pruned on the devices, and the output takes its
//! place. Whatever is wrong is found before the long work, what is finished survives a kill, and nothing appears under the output's
//! name before it is complete and read back.

use super::journal::Journal;
use super::output::{Output, Target};
use super::plan::{self, Budgets, Plan, Probe, Room, StatePlace};
use super::record::{Ran, identity, record};
use super::run::PruneRun;
use super::saved_folder::StatisticsFolder;
use super::selection::{dense_input_only, selected};
use super::shard::{Part, PartWriter};
use super::work::Work;
use super::workspace::Workspace;
use super::{Rates, StateFolder, StateStore, read_table};
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::config::PruneConfig;
use crate::error::{ConfigError, Error, PatternError, Result};
use crate::progress::Observer;
use crate::report::{self, OperatorReport, Report, StageSeconds, html};
use crate::structured::{self, Decided};
use crate::system::{Destination, free_memory};
use crate::text::TokenWindows;
use fista_pruner_backends::dispatch_opened;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

impl<'a> PruneRun<'a> {
    /// What the run would touch, hold and take; its seconds are measured on a small part of the work.
    ///
    /// # Errors
    /// When the run cannot be done as it is asked for, or not within the budget.
    pub fn plan(&self) -> Result<Plan> {
        let Planned {
            config,
            room,
            mut plan,
            ..
        } = self.planned()?;
        let probe = Probe {
            model: self.model,
            windows: &self.calibration.ids,
            config: &config,
            room: &room,
            devices: self.devices.len(),
        };
        plan.seconds = Some(dispatch_opened(&self.devices[0], probe)??);
        if let Some(asked) = &self.structure {
            plan.structure = Some(structured::planned(asked, &self.model.decoder)?);
        }
        Ok(plan)
    }

    /// Does it, and gives the report that lies beside the weights.
    ///
    /// # Errors
    /// When the run cannot be done as it is asked for; as [`super::prune`]; when anything cannot be written. A failed run leaves
    /// an earlier output as it was.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Report> {
        let planned = self.planned()?;
        if self.calibration.undrawn > 0 {
            return Err(wrong(
                "‹samples›",
                "windows that are counted only make a plan, not a run".into(),
            ));
        }
        if self.devices.len() > 1 {
            dense_input_only(&self.config, "‹device›")?;
        }
        let mut seconds = StageSeconds {
            preparation: self.started.elapsed().as_secs_f64(),
            ..StageSeconds::default()
        };
        let copying = Instant::now();
        let identity = identity(self, &planned.config)?;
        let mut begun = self.begin(&planned, &identity)?;
        seconds.writing = copying.elapsed().as_secs_f64();
        let mut config = planned.config;
        let work = Work {
            model: self.model,
            windows: self.calibration,
            evaluation: self.evaluation.map_or(&[], |windows| &windows.ids),
            config: &mut config,
            allocation: self.rates.allocation(),
            structure: self.structure.as_ref(),
            layers: planned.layers.clone(),
            earlier: begun.earlier.take(),
            devices: &self.devices,
            states: &begun.states,
            offload: planned.room.offload,
            output: &mut begun.output,
            seconds: &mut seconds,
            observer,
        };
        let mut pruned = dispatch_opened(&self.devices[0], work)??;
        drop(begun.states);
        let checking = Instant::now();
        let left_out = match &begun.output.target {
            Target::Whole(writer) => {
                check_written(writer.partial(), &pruned.operators)?;
                writer.left_out().to_vec()
            }
            Target::Part(_) => Vec::new(),
        };
        let (smaller, structure) = match (&pruned.decision, &begun.output.target) {
            (Some(decision), Target::Whole(writer)) => {
                let (smaller, structure) = structured::cut(
                    self.model,
                    writer,
                    &self.destination(&self.output),
                    decision,
                    &mut pruned.operators,
                )?;
                (Some(smaller), Some(structure))
            }
            _ => (None, None),
        };
        seconds.writing += checking.elapsed().as_secs_f64();
        let ran = Ran {
            stages: seconds,
            left_out,
            structure,
            output: begun.name,
        };
        let report = record(self, &config, pruned, ran);
        self.finish(begun.output, smaller, &report, &planned.layers, identity)?;
        Ok(report)
    }

    /// What is to be done, checked and fitted into memory.
    fn planned(&self) -> Result<Planned> {
        if let [first, rest @ ..] = self.devices.as_slice()
            && let Some(other) = rest.iter().find(|device| device.kind != first.kind)
        {
            let reason = format!("`{first}` and `{other}` are of two kinds, whose results differ a little");
            return Err(wrong("‹device›", reason));
        }
        let device = self
            .devices
            .first()
            .ok_or_else(|| wrong("‹device›", "there is none".into()))?;
        self.rates.allocation().check(self.config.pattern)?;
        let needed = self.config.needs_text() || self.rates.needs_text() || self.save_statistics.is_some();
        if needed && self.calibration.ids.is_empty() {
            return Err(wrong("‹calibration›", "there is no window of text".into()));
        }
        let mut config = self.config.clone();
        if let Some(asked) = &self.structure {
            if self.devices.len() > 1 {
                return Err(wrong("‹device›", "structured pruning works on one device".into()));
            }
            Decided::provisional(asked, &self.model.decoder)?.apply(asked, &self.model.decoder, &mut config);
        }
        if let Rates::Table(path) = &self.rates {
            let operators = selected(&self.model.decoder, &config);
            let names: Vec<String> = operators.into_iter().map(|operator| operator.name).collect();
            config.patterns = read_table(path, &names)?;
        }
        let layers = self.layers()?;
        let mut room = Room {
            tokens: self.calibration.tokens(),
            evaluation_tokens: self.evaluation.map_or(0, TokenWindows::tokens),
            window: self.calibration.seq_len,
            layers: layers.clone(),
            devices: self.devices.len(),
            device_is_host: device.kind.is_host(),
            states: StatePlace::Device,
            offload: self.offload,
        };
        let budgets = Budgets {
            device: self.memory_budget,
            host: self.host_memory,
            free: free_memory(),
            device_is_host: room.device_is_host,
        };
        let plan = budgets.fit(&self.plans(&config, &room)?)?;
        if let Some(sentence) = plan.about_free_memory() {
            tracing::warn!("{sentence}");
        }
        config.batch_tokens = plan.batch_tokens;
        (room.states, room.offload) = (plan.activations, plan.offload);
        Ok(Planned {
            config,
            layers,
            room,
            plan,
        })
    }

    /// The layers of the run: all, or a shard's.
    fn layers(&self) -> Result<Range<usize>> {
        let layers = self.model.decoder.config().num_layers();
        let Some(shard) = self.shard else {
            return Ok(0..layers);
        };
        dense_input_only(&self.config, "‹shard›")?;
        if self.evaluation.is_some() {
            let reason = "a part is no model whose perplexity could be measured; use `eval` after `merge`";
            return Err(wrong("‹eval-data›", reason.into()));
        }
        shard.layers(layers)
    }

    /// The plans there are, the fastest first: where hidden states wait, whether weights and Gram matrices do too, and how many
    /// tokens are computed at once.
    fn plans(&self, config: &PruneConfig, room: &Room) -> Result<Vec<Plan>> {
        let places = match self.activations {
            Some(place) => vec![place],
            None if room.device_is_host => vec![StatePlace::Device, StatePlace::Disk],
            None => vec![StatePlace::Device, StatePlace::Host, StatePlace::Disk],
        };
        let mut ways: Vec<_> = places.iter().map(|place| (*place, self.offload)).collect();
        if !self.offload {
            // Hidden states leave the device before weights do.
            let away = &places[usize::from(places.len() > 1)..];
            ways.extend(away.iter().map(|place| (*place, true)));
        }
        let (mut config, mut room) = (config.clone(), room.clone());
        let mut plans = Vec::new();
        for (place, offload) in ways {
            (room.states, room.offload) = (place, offload);
            config.batch_tokens = PruneConfig::BATCH_TOKENS;
            loop {
                plans.push(plan::plan(
                    &self.model.checkpoint,
                    &self.model.decoder,
                    &config,
                    &room,
                )?);
                if config.batch_tokens <= room.window {
                    break;
                }
                config.batch_tokens = (config.batch_tokens / 2).max(room.window);
            }
        }
        Ok(plans)
    }

    /// The folder under construction, a new one or the one that an earlier run has left, and what is kept in it.
    fn begin(&self, planned: &Planned, identity: &serde_json::Value) -> Result<Begun<'a>> {
        let checkpoint = &self.model.checkpoint;
        let (target, mut space, path) = match self.shard {
            None => {
                let (writer, space) = self.writer(identity)?;
                let path = writer.output().to_path_buf();
                (Target::Whole(writer), space, path)
            }
            Some(shard) => {
                let (part, space) = PartWriter::create(
                    checkpoint,
                    &self.destination(&self.output),
                    shard,
                    identity,
                    self.resume,
                )?;
                let path = part.target().to_path_buf();
                (Target::Part(part), space, path)
            }
        };
        let statistics = self.statistics(&path, &space, &planned.layers)?;
        if space.earlier.is_none() {
            let unfinished = statistics.as_ref().map(StatisticsFolder::partial);
            space.journal.begin(identity, unfinished)?;
        }
        let states = match planned.room.states {
            StatePlace::Device => StateStore::Device,
            StatePlace::Host => StateStore::Host,
            StatePlace::Disk => StateStore::Disk(StateFolder::create(space.path.join(".activations"))?),
        };
        // As it was given, not as it was resolved.
        let name = match path.file_name() {
            Some(part) if self.shard.is_some() => self.output.join(part).display().to_string(),
            _ => self.output.display().to_string(),
        };
        Ok(Begun {
            output: Output {
                target,
                statistics,
                journal: space.journal,
                since: Instant::now(),
            },
            earlier: space.earlier,
            states,
            name,
        })
    }

    /// A path to write to, apart from everything that the run reads.
    fn destination(&self, path: &Path) -> Destination {
        let data = std::iter::once(self.calibration).chain(self.evaluation);
        let table = match &self.rates {
            Rates::Table(table) => Some(table),
            Rates::By(_) => None,
        };
        Destination::new(path, self.overwrite)
            .apart_from(self.model.dir())
            .apart_from_all(data.flat_map(|windows| &windows.source.paths))
            .apart_from_all(table)
    }

    /// A copy of the model under construction, with a journal in it.
    fn writer(&self, identity: &serde_json::Value) -> Result<(CheckpointWriter, Workspace)> {
        let mut space = None;
        let checkpoint = &self.model.checkpoint;
        let destination = self.destination(&self.output);
        let mut writer = CheckpointWriter::create_in(checkpoint, &destination, |parent, name| {
            let (partial, workspace) = Workspace::open(parent, name, identity, self.resume)?;
            let begun = workspace.earlier.is_some();
            space = Some(workspace);
            Ok((partial, begun))
        })?;
        if self.resume {
            writer.keep();
        }
        let space = space.ok_or_else(|| Error::internal("an output without a folder"))?;
        Ok((writer, space))
    }

    /// The folder of statistics: a new one, or the one that the run to be resumed has begun.
    fn statistics(
        &self,
        output: &Path,
        space: &Workspace,
        layers: &Range<usize>,
    ) -> Result<Option<StatisticsFolder>> {
        let Some(folder) = &self.save_statistics else {
            return Ok(None);
        };
        let destination = self.destination(folder);
        if self.shard.is_some() {
            // All shards put their files there.
            let folder = destination.shared_folder([])?;
            std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        }
        let begun = space
            .earlier
            .as_ref()
            .and_then(|earlier| earlier.statistics.clone());
        if let Some(begun) = begun {
            return StatisticsFolder::resume(&destination, output, begun, layers).map(Some);
        }
        let mut statistics = StatisticsFolder::create(&destination, output, layers)?;
        if self.resume {
            statistics.keep();
        }
        Ok(Some(statistics))
    }

    /// Puts the output in its place.
    fn finish(
        &self,
        output: Output<'_>,
        smaller: Option<CheckpointWriter>,
        report: &Report,
        layers: &Range<usize>,
        identity: serde_json::Value,
    ) -> Result<()> {
        let Output {
            target,
            statistics,
            journal,
            ..
        } = output;
        let last = || finish_beside(statistics, journal);
        match target {
            Target::Whole(writer) if let Some(mut smaller) = smaller => {
                add_report(&mut smaller, report)?;
                smaller.finish_after(last)?;
                writer.discard()
            }
            Target::Whole(mut writer) => {
                add_report(&mut writer, report)?;
                writer.finish_after(last)
            }
            Target::Part(part) => {
                let shard = self.shard.ok_or_else(|| Error::internal("a part of no shard"))?;
                let dir = self.model.dir();
                let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
                part.finish(&Part::new(shard, layers, &dir, identity, report.clone()), last)
            }
        }
    }
}

/// What is to be done.
struct Planned {
    /// The run's own, with the tokens computed at once and the table's patterns.
    config: PruneConfig,
    layers: Range<usize>,
    room: Room,
    plan: Plan,
}

/// What has been made for the work.
struct Begun<'a> {
    output: Output<'a>,
    earlier: Option<super::Earlier>,
    states: StateStore,
    /// The output as the report calls it.
    name: String,
}

fn wrong(setting: &'static str, reason: String) -> Error {
    Error::from(ConfigError::Setting { setting, reason })
}

/// What is done right before the output takes its place.
fn finish_beside(statistics: Option<StatisticsFolder>, journal: Journal) -> Result<()> {
    if let Some(statistics) = statistics {
        statistics.finish()?;
    }
    journal.remove()
}

/// The report and its page, beside the weights.
pub(crate) fn add_report(writer: &mut CheckpointWriter, report: &Report) -> Result<()> {
    let json = report.to_json()?;
    writer.add_file(report::FILE_NAME, &json)?;
    // Of what readers of the file will find: parsed numbers can differ in their last bit.
    let stored: Report = serde_json::from_slice(&json)
        .map_err(|e| Error::internal(format!("the report cannot be read back: {e}")))?;
    writer.add_file(report::HTML_NAME, html::page(&stored).as_bytes())
}

/// Reads every pruned operator back and checks its pattern and its zeros, before the output gets its name.
pub(crate) fn check_written(partial: &Path, operators: &[OperatorReport]) -> Result<()> {
    let written = Checkpoint::open(partial)?;
    for operator in operators {
        let values = written.read(&format!("{}.weight", operator.name), &operator.shape)?;
        let [rows, columns] = operator.shape;
        operator.pattern.check(&operator.name, &values, rows, columns)?;
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        if zeros != operator.zeros {
            return Err(Error::from(PatternError::Broken {
                pattern: operator.pattern,
                operator: operator.name.clone(),
                reason: format!("{zeros} zeros were written, {} were meant", operator.zeros),
            }));
        }
    }
    Ok(())
}
