//! The pruned checkpoint. In: the source and, one by one, finished weights with their masks. Out: a folder with the
//! source's names, shapes, dtypes, shards and side files, in which only those weights differ. `pack` and `unpack` begin
//! from the same folder.
//!
//! The folder is complete from the start: it is a copy of the source whose weights are then overwritten in place. So the
//! disk is known to suffice before the long work, and what was written can be opened and checked before it is
//! published. See `output` for how it appears.
//!
//! What is not copied: folders that are large, hidden, of a training, or have weights; an adapter; and files of weights in formats other than the one that is pruned (`*.bin` beside
//! safetensors, `*.gguf`, `*.onnx`, …). They would still hold the dense weights, and some loaders would prefer them.

use super::header::Entry;
use super::index::is_plain_name;
use super::layout::{WeightFormat, file_names};
use super::output::OutputFolder;
use super::side_files::{holds_weights, side_files};
use super::{Checkpoint, CheckpointError, StoredDtype, encode};
use crate::error::{Error, Result};
use crate::system::{Destination, PartialFolder};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Where a tensor lies in the output.
#[derive(Debug)]
struct Target {
    file: usize,
    /// Position in the file.
    start: u64,
    dtype: StoredDtype,
    elements: usize,
}

/// Builds a pruned copy of a checkpoint; see the module's description. Dropped without [`finish`](Self::finish), it
/// removes everything that it made.
#[derive(Debug)]
pub struct CheckpointWriter {
    // Before the folder: some systems cannot remove a folder whose files are open.
    files: Vec<(String, File)>,
    targets: BTreeMap<String, Target>,
    left_out: Vec<String>,
    folder: OutputFolder,
}

impl CheckpointWriter {
    /// Copies `source` into a folder beside `output`. Nothing appears at `output` before [`finish`](Self::finish).
    ///
    /// # Errors
    /// When `output` exists and `overwrite` is not set, when it exists and is not a checkpoint, when it overlaps with the
    /// source, or when anything cannot be read or written.
    pub fn create(source: &Checkpoint, output: &Path, overwrite: bool) -> Result<Self> {
        Self::create_at(source, &Destination::new(output, overwrite))
    }

    /// As [`create`](Self::create), away from everything that `destination` names.
    ///
    /// # Errors
    /// As [`create`](Self::create); when the output would be written into what the same run reads.
    pub fn create_at(source: &Checkpoint, destination: &Destination) -> Result<Self> {
        let mut writer = Self::without_weights(source, destination)?;
        writer.copy_weights(source)?;
        Ok(writer)
    }

    fn copy_weights(&mut self, source: &Checkpoint) -> Result<()> {
        match source.format() {
            WeightFormat::Safetensors => self.copy_shards(source)?,
            WeightFormat::Pytorch | WeightFormat::Packed => self.convert_shards(source)?,
        }
        self.write_index(source)
    }

    /// As [`create`](Self::create), in the folder that `open` gives for the output's parent and name, with whether an earlier
    /// run has filled it already.
    ///
    /// # Errors
    /// As [`create`](Self::create), and those of `open`.
    pub(crate) fn create_in(
        source: &Checkpoint,
        destination: &Destination,
        open: impl FnOnce(&Path, &OsStr) -> Result<(PartialFolder, bool)>,
    ) -> Result<Self> {
        let mut begun = false;
        let folder = OutputFolder::create(source, destination, |parent, name| {
            let (partial, filled) = open(parent, name)?;
            begun = filled;
            Ok(partial)
        })?;
        let mut writer = Self::in_folder(folder);
        if begun {
            writer.left_out = side_files(source)?.1;
            writer.reopen()?;
        } else {
            writer.copy_side_files(source)?;
            writer.copy_weights(source)?;
        }
        Ok(writer)
    }

    /// From now on the folder stays where it is if the run fails or is interrupted.
    pub(crate) fn keep(&mut self) {
        self.folder.keep();
    }

    /// Finds its weight files again in a folder that was complete once.
    fn reopen(&mut self) -> Result<()> {
        let written = Checkpoint::open(self.partial())?;
        for shard in written.shards() {
            let Some(header) = &shard.header else {
                continue;
            };
            let path = &shard.file.path;
            let file = File::options().read(true).write(true).open(path);
            let file = file.map_err(Error::io("open", path))?;
            self.add_targets(&shard.file.name, file, &header.entries, header.data_start);
        }
        Ok(())
    }

    /// Sends what was written so far to the disk.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn sync(&self) -> Result<()> {
        for (name, file) in &self.files {
            file.sync_data()
                .map_err(Error::io("write", self.folder.path().join(name)))?;
        }
        Ok(())
    }

    /// As [`create`](Self::create), for the folder that `source` was packed from: every file byte for byte, checked.
    ///
    /// # Errors
    /// As [`create`](Self::create); when `source` is not packed, or what it holds is not what was packed.
    pub fn unpack(source: &Checkpoint, output: &Path, overwrite: bool) -> Result<Self> {
        let mut writer = Self::without_weights(source, &Destination::new(output, overwrite))?;
        for shard in source.shards() {
            let Some(packed) = &shard.packed else {
                let file = shard.file.path.clone();
                return Err(CheckpointError::NotPacked { file }.into());
            };
            let mut to = writer.new_file(&packed.name)?;
            let path = writer.partial().join(&packed.name);
            packed.unpack_checked(&shard.file, &mut |bytes| {
                to.write_all(bytes).map_err(Error::io("write", &path))
            })?;
            let data_start = packed.header.data_start;
            writer.add_targets(&packed.name, to, &packed.header.entries, data_start);
        }
        writer.write_index(source)?;
        Ok(writer)
    }

    /// The folder with the side files alone: the weight files, in whatever form, are for the caller to add with
    /// [`new_file`](Self::new_file).
    pub(crate) fn without_weights(source: &Checkpoint, destination: &Destination) -> Result<Self> {
        let folder = OutputFolder::create(source, destination, PartialFolder::create)?;
        let mut writer = Self::in_folder(folder);
        writer.copy_side_files(source)?;
        Ok(writer)
    }

    fn in_folder(folder: OutputFolder) -> Self {
        Self {
            files: Vec::new(),
            targets: BTreeMap::new(),
            left_out: Vec::new(),
            folder,
        }
    }

    /// Copies safetensors files byte for byte; a header is rewritten only where Python's loader would refuse it.
    fn copy_shards(&mut self, source: &Checkpoint) -> Result<()> {
        for shard in source.shards() {
            let Some(header) = &shard.header else {
                continue;
            };
            let mut from = File::open(&shard.file.path).map_err(Error::io("open", &shard.file.path))?;
            let mut to = self.new_file(&shard.file.name)?;
            let path = self.partial().join(&shard.file.name);
            let mut data_start = header.data_start;
            if !header.says_pt() {
                let bytes = header.to_bytes();
                to.write_all(&bytes).map_err(Error::io("write", &path))?;
                from.seek(SeekFrom::Start(data_start))
                    .map_err(Error::io("read", &shard.file.path))?;
                data_start = bytes.len() as u64;
            }
            // A failure of either side; naming the output is right for the likely one, a full disk.
            std::io::copy(&mut from, &mut to).map_err(Error::io("write", &path))?;
            self.add_targets(&shard.file.name, to, &header.entries, data_start);
        }
        Ok(())
    }

    /// Writes files of torch and packed ones as safetensors files without packing, a tensor at a time.
    fn convert_shards(&mut self, source: &Checkpoint) -> Result<()> {
        for shard in source.plain_shards()? {
            let mut to = self.new_file(&shard.name)?;
            let path = self.partial().join(&shard.name);
            let first = if shard.header.says_pt() {
                shard.header_bytes
            } else {
                shard.header.to_bytes()
            };
            to.write_all(&first).map_err(Error::io("write", &path))?;
            for entry in shard.header.in_file_order() {
                to.write_all(&source.raw(&entry.name)?)
                    .map_err(Error::io("write", &path))?;
            }
            self.add_targets(&shard.name, to, &shard.header.entries, first.len() as u64);
        }
        Ok(())
    }

    fn write_index(&mut self, source: &Checkpoint) -> Result<()> {
        let Some((name, content)) = source.plain_index()? else {
            return Ok(());
        };
        let path = self.partial().join(&name);
        let mut file = self.new_file(&name)?;
        file.write_all(&content).map_err(Error::io("write", &path))
    }

    fn add_targets(&mut self, name: &str, file: File, entries: &[Entry], data_start: u64) {
        for entry in entries {
            let target = Target {
                file: self.files.len(),
                start: data_start + entry.start,
                dtype: entry.dtype.clone(),
                elements: entry.shape.iter().product(),
            };
            self.targets.insert(entry.name.clone(), target);
        }
        self.files.push((name.to_owned(), file));
    }

    /// Copies what is not weights, and notes what is not copied.
    fn copy_side_files(&mut self, source: &Checkpoint) -> Result<()> {
        let (copied, left_out) = side_files(source)?;
        for name in copied {
            self.copy_file(source, &name)?;
        }
        let adapter: Vec<&str> = left_out
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with("adapter_"))
            .collect();
        if !adapter.is_empty() {
            tracing::warn!(
                "`{}` has a LoRA adapter beside the model, which is neither applied nor copied: {}",
                source.dir().display(),
                adapter.join(", ")
            );
        }
        self.left_out = left_out;
        Ok(())
    }

    /// Copies contents only: a read-only source gives a writable copy, and a link gives the file it points to.
    fn copy_file(&self, source: &Checkpoint, name: &str) -> Result<()> {
        let from_path = source.dir().join(name);
        let mut from = File::open(&from_path).map_err(Error::io("open", &from_path))?;
        if let Some((folder, _)) = name.rsplit_once('/') {
            let folder = self.partial().join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        }
        let mut to = self.new_file(name)?;
        std::io::copy(&mut from, &mut to).map_err(Error::io("write", self.partial().join(name)))?;
        Ok(())
    }

    /// A new, empty file in the folder; [`finish`](Self::finish) makes it durable.
    pub(crate) fn new_file(&self, name: &str) -> Result<File> {
        let path = self.partial().join(name);
        File::create_new(&path).map_err(Error::io("create", &path))
    }

    /// Overwrites the weight `name` with row-major `values` `[out, in]` of which only those in `keep` stay; see [`encode`].
    ///
    /// # Errors
    /// When the checkpoint has no such tensor, the lengths do not match, a value does not fit the tensor's dtype, or the
    /// file cannot be written.
    pub fn write_weight(&mut self, name: &str, values: &[f32], keep: &[bool]) -> Result<()> {
        let target = self.target(name)?;
        for (what, found) in [("values", values.len()), ("mask entries", keep.len())] {
            if found != target.elements {
                let (tensor, expected) = (name.to_owned(), target.elements);
                return Err(CheckpointError::Length {
                    tensor,
                    what,
                    expected,
                    found,
                }
                .into());
            }
        }
        let bytes = encode(values, Some(keep), &target.dtype).map_err(|error| error.of_tensor(name))?;
        self.write_stored(name, &bytes)
    }

    /// Overwrites the tensor `name` with `bytes` as they are to be stored.
    ///
    /// # Errors
    /// When the checkpoint has no such tensor, it has another size, or the file cannot be written.
    pub(crate) fn write_stored(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let target = self.target(name)?;
        let expected = target.elements * (target.dtype.bits().unwrap_or(0) / 8) as usize;
        if bytes.len() != expected {
            return Err(CheckpointError::Length {
                tensor: name.to_owned(),
                what: "bytes",
                expected,
                found: bytes.len(),
            }
            .into());
        }
        let (start, (file_name, file)) = (target.start, &self.files[target.file]);
        let mut file: &File = file;
        let written = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.write_all(bytes));
        written.map_err(Error::io("write", self.folder.path().join(file_name)))
    }

    fn target(&self, name: &str) -> Result<&Target> {
        self.targets.get(name).ok_or_else(|| {
            let dir = self.folder.path().to_path_buf();
            let tensor = name.to_owned();
            CheckpointError::MissingTensor { dir, tensor }.into()
        })
    }

    /// Adds a file beside the weights, such as a report; it replaces a copied side file of that name.
    ///
    /// # Errors
    /// When `name` is not a plain file name or is that of the configuration, a weight file or its index, or when the file
    /// cannot be written.
    pub fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let refuse = |reason| {
            Err(CheckpointError::SideFile {
                name: name.to_owned(),
                reason,
            }
            .into())
        };
        if !is_plain_name(name) {
            return refuse("it is not a plain file name");
        }
        if name == "config.json" || holds_weights(name) || name.ends_with(".index.json") {
            return refuse("that name belongs to the model");
        }
        let path = self.partial().join(name);
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))
    }

    /// The folder being built. [`Checkpoint::open`] works on it at any time, so that what was written can be checked.
    pub fn partial(&self) -> &Path {
        self.folder.path()
    }

    /// The output's resolved path, where the folder will be after [`finish`](Self::finish).
    pub fn output(&self) -> &Path {
        self.folder.output()
    }

    /// What of the source folder was not copied, sorted; folders end in `/`.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Removes the folder being built, also one that was to be kept for a later run.
    pub(crate) fn discard(self) -> Result<()> {
        let path = self.partial().to_path_buf();
        drop(self);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes everything durable and puts the folder in the output's place, in one step.
    ///
    /// # Errors
    /// When a file cannot be written out or the folder not renamed; then nothing has changed at the output.
    pub fn finish(self) -> Result<()> {
        self.finish_after(|| Ok(()))
    }

    /// As [`finish`](Self::finish); `last` is done between the two.
    pub(crate) fn finish_after(self, last: impl FnOnce() -> Result<()>) -> Result<()> {
        for (name, file) in &self.files {
            file.sync_all()
                .map_err(Error::io("write", self.folder.path().join(name)))?;
        }
        let weights: BTreeSet<String> = self.files.iter().map(|(name, _)| name.clone()).collect();
        drop(self.files);
        for name in file_names(self.folder.path())? {
            if !weights.contains(&name) {
                let path = self.folder.path().join(&name);
                // Opened for writing: some systems refuse to flush a file that is open for reading.
                let file = File::options().write(true).open(&path);
                file.and_then(|file| file.sync_all())
                    .map_err(Error::io("write", &path))?;
            }
        }
        last()?;
        self.folder.finish()
    }
}
