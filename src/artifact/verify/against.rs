//! An output against the checkpoint that it was made from: nothing but the pruned operators may differ.

use super::findings::{Kind, Verification};
use crate::checkpoint::plain::PlainShard;
use crate::checkpoint::{Checkpoint, Cut, file_names, holds_weights, side_files};
use crate::error::{Error, Result};
use crate::report::{self, StructureReport};
use fista_pruner_models::RopePrecision;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Compares tensors, their places, the index and the side files. Tensors in `may_differ` are compared in shape and format
/// only.
///
/// # Errors
/// When the source cannot be read.
pub(super) fn compare(
    output: &Checkpoint,
    source: &Checkpoint,
    may_differ: &BTreeSet<String>,
    found: &mut Verification,
) -> Result<()> {
    compare_tensors(output, source, may_differ, found)?;
    compare_files(output, source, found)?;
    compare_side_files(output, source, None, found)
}

/// As [`compare`], for an output that structured pruning has made smaller: what is compared is what stays of the source.
///
/// # Errors
/// When the source cannot be read.
pub(super) fn compare_cut(
    output: &Checkpoint,
    source: &Checkpoint,
    structure: &StructureReport,
    may_differ: &BTreeSet<String>,
    found: &mut Verification,
) -> Result<()> {
    let cut = match Cut::of_report(&source.decoder(RopePrecision::F32)?, structure) {
        Ok(cut) => cut,
        Err(error) => {
            found.problem(
                Kind::Report,
                report::FILE_NAME,
                format!("it does not fit the source: {error}"),
            );
            return Ok(());
        }
    };
    let mut expected = BTreeSet::new();
    for (name, before) in source.tensors() {
        let Some((name, piece)) = cut.piece(name) else {
            continue;
        };
        expected.insert(name.clone());
        let shape = piece.shape(&before.shape);
        match output.info(&name) {
            None => found.problem(Kind::Tensors, &name, "the source has it, and it is missing"),
            Some(after) if after.shape != shape => {
                let message = format!(
                    "its shape is {:?}, and {shape:?} is what stays of the source's",
                    after.shape
                );
                found.problem(Kind::Shape, &name, message);
            }
            Some(after) if after.dtype != before.dtype => {
                let message = format!(
                    "it is stored as {}, in the source as {}",
                    after.dtype, before.dtype
                );
                found.problem(Kind::Dtype, &name, message);
            }
            Some(_) => {
                let Ok(bytes) = output.raw(&name) else {
                    continue;
                };
                let size = (before.dtype.bits().unwrap_or(0) / 8) as usize;
                let same = bytes == piece.select(&source.raw(&piece.name)?, &before.shape, size);
                found.tensors_compared += 1;
                if !same && !may_differ.contains(&name) {
                    found.problem(
                        Kind::Content,
                        &name,
                        "it was not to be fitted, and differs from what stays of the source's",
                    );
                }
            }
        }
    }
    for (name, _) in output.tensors().filter(|(name, _)| !expected.contains(*name)) {
        found.problem(Kind::Tensors, name, "the source has no such tensor");
    }
    compare_side_files(output, source, Some(&cut.config_json(source)?), found)
}

fn compare_tensors(
    output: &Checkpoint,
    source: &Checkpoint,
    may_differ: &BTreeSet<String>,
    found: &mut Verification,
) -> Result<()> {
    let mut pruned_as_before = 0;
    for (name, before) in source.tensors() {
        let Some(after) = output.info(name) else {
            found.problem(Kind::Tensors, name, "the source has it, and it is missing");
            continue;
        };
        if after.shape != before.shape {
            let message = format!("its shape is {:?}, the source's {:?}", after.shape, before.shape);
            found.problem(Kind::Shape, name, message);
        } else if after.dtype != before.dtype {
            let message = format!(
                "it is stored as {}, in the source as {}",
                after.dtype, before.dtype
            );
            found.problem(Kind::Dtype, name, message);
        } else {
            // What cannot be read was noted when every tensor was.
            let Ok(bytes) = output.raw(name) else {
                continue;
            };
            let same = bytes == source.raw(name)?;
            found.tensors_compared += 1;
            if may_differ.contains(name) {
                pruned_as_before += usize::from(same);
            } else if !same {
                found.problem(
                    Kind::Content,
                    name,
                    "it was not to be pruned, and differs from the source's",
                );
            }
        }
    }
    for (name, _) in output.tensors().filter(|(name, _)| source.info(name).is_none()) {
        found.problem(Kind::Tensors, name, "the source has no such tensor");
    }
    if pruned_as_before > 0 {
        found.note(format!(
            "{pruned_as_before} operators are the same as in the source"
        ));
    }
    Ok(())
}

/// Each tensor is in the weight file that it was in, with the same text in its header; the index is the same.
fn compare_files(output: &Checkpoint, source: &Checkpoint, found: &mut Verification) -> Result<()> {
    let (before, after) = (by_name(source.plain_shards()?), by_name(output.plain_shards()?));
    for (name, shard) in &before {
        let Some(other) = after.get(name) else {
            found.problem(
                Kind::Tensors,
                name,
                "the source has this weight file, and it is missing",
            );
            continue;
        };
        let names = |shard: &PlainShard| -> BTreeSet<String> {
            shard.header.entries.iter().map(|e| e.name.clone()).collect()
        };
        if names(shard) != names(other) {
            found.problem(
                Kind::Tensors,
                name,
                "it holds other tensors than the source's file of that name",
            );
        }
        if notes(shard) != notes(other) {
            found.problem(
                Kind::Metadata,
                name,
                "its header's metadata differs from the source's",
            );
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        found.problem(Kind::Tensors, name, "the source has no such weight file");
    }
    if source.plain_index()? != output.plain_index()? {
        found.problem(
            Kind::SideFile,
            "model.safetensors.index.json",
            "it differs from the source's",
        );
    }
    Ok(())
}

fn by_name(shards: Vec<PlainShard>) -> BTreeMap<String, PlainShard> {
    shards.into_iter().map(|s| (s.name.clone(), s)).collect()
}

/// The metadata without `format`, which is added where Python's loader needs it.
fn notes(shard: &PlainShard) -> BTreeMap<&String, &String> {
    let metadata = shard.header.metadata.iter().flatten();
    metadata.filter(|(key, _)| *key != "format").collect()
}

/// `config` is what config.json should hold, where that is not the source's.
fn compare_side_files(
    output: &Checkpoint,
    source: &Checkpoint,
    config: Option<&[u8]>,
    found: &mut Verification,
) -> Result<()> {
    let (before, left_out) = side_files(source)?;
    let before: BTreeSet<String> = before.into_iter().collect();
    let after: BTreeSet<String> = side_files(output)?.0.into_iter().collect();
    for name in &before {
        let read = |dir: &Path| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(Error::io("read", &path))
        };
        if is_report(name) {
            continue;
        }
        if !after.contains(name) {
            found.problem(Kind::SideFile, name, "the source has it, and it is missing");
            continue;
        }
        found.files_compared += 1;
        match read(output.dir()) {
            Ok(content) if name == "config.json" && config.is_some_and(|config| config == content) => {}
            Ok(content) if content == read(source.dir())? => {}
            Ok(_) => found.problem(Kind::SideFile, name, "it differs from the source's"),
            Err(error) => found.problem(Kind::SideFile, name, error.to_string()),
        }
    }
    for name in after.difference(&before).filter(|name| !is_report(name)) {
        found.note(format!("`{name}` is not in the source"));
    }
    let missing = left_out.iter().filter(|name| !output.dir().join(name).exists());
    for name in missing {
        found.note(format!("`{name}` of the source is not here"));
    }
    for name in other_weights(output)? {
        let message = "it holds weights in another format, which some loaders prefer to the pruned ones";
        found.problem(Kind::SideFile, name, message);
    }
    Ok(())
}

/// A run's own report, which differs from that of an earlier run in the source.
fn is_report(name: &str) -> bool {
    report::FILE_NAMES.contains(&name)
}

/// Weight files and indices that are not the ones in use.
fn other_weights(checkpoint: &Checkpoint) -> Result<Vec<String>> {
    let mut used: BTreeSet<String> = checkpoint.shards().iter().map(|s| s.file.name.clone()).collect();
    used.extend(checkpoint.index_name().map(str::to_owned));
    let names = file_names(checkpoint.dir())?;
    Ok(names
        .into_iter()
        .filter(|name| holds_weights(name) && !used.contains(name))
        .collect())
}
