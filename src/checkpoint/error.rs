//! What can be wrong with a checkpoint folder or with the folder that is to be written, one variant each.

use super::StoredDtype;
use std::path::PathBuf;

/// Why a checkpoint cannot be read or written. Paths are those of the file at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no such folder.
    #[error("there is no model folder `{}`", path.display())]
    NoFolder {
        /// The path given.
        path: PathBuf,
    },

    /// The folder has no `config.json`.
    #[error("`{}` has no config.json", dir.display())]
    NoConfig {
        /// The folder.
        dir: PathBuf,
    },

    /// The folder of a LoRA adapter, which is no model of its own.
    #[error("`{}` holds a LoRA adapter{}, not a model: merge it into its base model first", dir.display(), of_base(base.as_deref()))]
    Adapter {
        /// The folder.
        dir: PathBuf,
        /// The base model that its configuration names.
        base: Option<String>,
    },

    /// A folder of sentence-transformers whose model lies in a folder of its own.
    #[error("`{}` has no config.json: its modules.json says that the model lies in `{}`; give that folder", dir.display(), model.display())]
    Modules {
        /// The folder.
        dir: PathBuf,
        /// Where the model lies.
        model: PathBuf,
    },

    /// A `config.json` that cannot be read, or describes no model that is supported.
    #[error("`{}`: {reason}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Weights whose names are not those of the family.
    #[error(
        "the weights in `{}` are not named as those of the family `{family}`: there is none of {}, but for example `{example}`",
        file.display(), tried.join(", ")
    )]
    Names {
        /// A weight file.
        file: PathBuf,
        /// The family that the configuration names.
        family: &'static str,
        /// One tensor of each known layout.
        tried: Vec<String>,
        /// A tensor that is there.
        example: String,
    },

    /// The folder has no weights in a format that is read.
    #[error("`{}` has no weights: {found}", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// What lies there instead.
        found: String,
    },

    /// A file that stands for one kept elsewhere by Git LFS.
    #[error("`{}` is a Git LFS pointer, not the file itself", file.display())]
    LfsPointer {
        /// The pointer.
        file: PathBuf,
    },

    /// A weight file shorter than it says itself.
    #[error("`{}` is truncated: it has {found} bytes and needs {expected}", file.display())]
    Truncated {
        /// The weight file.
        file: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size in bytes that its header asks for.
        expected: u64,
    },

    /// A safetensors header that cannot be.
    #[error("`{}` is not a valid safetensors file: {reason}", file.display())]
    Header {
        /// The weight file.
        file: PathBuf,
        /// What is wrong with its header.
        reason: String,
    },

    /// An index that cannot be read as one.
    #[error("the index `{}` is not valid: {reason}", file.display())]
    Index {
        /// The index file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// An index that points outside its folder.
    #[error("the index `{}` names the shard `{shard}`, which is not a file of its own folder", file.display())]
    IndexPath {
        /// The index file.
        file: PathBuf,
        /// The shard's name as the index has it.
        shard: String,
    },

    /// A shard named by the index that is not there.
    #[error("the shard `{}` is missing; `{tensor}` should be in it", file.display())]
    MissingShard {
        /// The shard.
        file: PathBuf,
        /// The first tensor that the index puts there.
        tensor: String,
    },

    /// A shard without a tensor that the index puts there.
    #[error("the shard `{}` does not hold `{tensor}`, which the index puts there", file.display())]
    NotInShard {
        /// The shard.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A tensor that two shards hold.
    #[error("`{tensor}` is stored twice, in `{first}` and in `{second}`")]
    StoredTwice {
        /// The tensor.
        tensor: String,
        /// One shard.
        first: String,
        /// The other.
        second: String,
    },

    /// A tensor that the checkpoint does not have.
    #[error("`{}` has no tensor `{tensor}`", dir.display())]
    MissingTensor {
        /// The checkpoint.
        dir: PathBuf,
        /// The tensor asked for.
        tensor: String,
    },

    /// A tensor of another shape than the model needs.
    #[error("`{tensor}` in `{file}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The stored shape.
        found: Vec<usize>,
    },

    /// A weight in a number format that is not read.
    #[error("`{tensor}` in `{file}` is stored as {dtype}, which is not a floating-point format for weights")]
    Dtype {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        dtype: StoredDtype,
    },

    /// A weight that is not a number, or is infinite.
    #[error("`{tensor}` in `{file}` holds a value that is not finite, at position {position}")]
    NotFinite {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Row-major position of the first such value.
        position: usize,
    },

    /// A PyTorch file that is damaged or of an unknown kind.
    #[error("`{}` cannot be read as a PyTorch state dict: {reason}", file.display())]
    Pytorch {
        /// The weight file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A PyTorch file with Python objects other than tensors in it.
    #[error("`{}` wants to run the Python object `{object}`; only tensors are read", file.display())]
    PythonObject {
        /// The weight file.
        file: PathBuf,
        /// The object's full Python name.
        object: String,
    },

    /// A packed file that cannot be one.
    #[error("`{}` is not a valid packed file: {reason}", file.display())]
    Packed {
        /// The packed file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A packed file of another version of the layout.
    #[error("`{}` has version {version} of the packed layout; version 1 is read", file.display())]
    PackedVersion {
        /// The packed file.
        file: PathBuf,
        /// Its version.
        version: String,
    },

    /// A tensor of a packed file that is not what was packed.
    #[error("`{tensor}` in `{}` is damaged: its checksum is wrong", file.display())]
    Checksum {
        /// The packed file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },

    /// A file to unpack that is not packed.
    #[error("`{}` is not packed", file.display())]
    NotPacked {
        /// The weight file.
        file: PathBuf,
    },

    /// A tensor whose name a packed file needs for itself.
    #[error("`{file}` cannot be packed: it has a tensor named `{tensor}`")]
    ReservedName {
        /// The weight file.
        file: String,
        /// The tensor.
        tensor: String,
    },

    /// A value that the stored dtype cannot hold.
    #[error("{what}: the value {value} at position {position} does not fit {dtype}")]
    DoesNotFit {
        /// The tensor, or "the weight" where no name is known.
        what: String,
        /// The value.
        value: f32,
        /// Its row-major position.
        position: usize,
        /// The dtype of the checkpoint.
        dtype: StoredDtype,
    },

    /// A dtype that values cannot be encoded in.
    #[error("{what}: weights cannot be written as {dtype}")]
    NotWritable {
        /// The tensor, or "the weight" where no name is known.
        what: String,
        /// The dtype of the checkpoint.
        dtype: StoredDtype,
    },

    /// Values or a mask of another length than the tensor: a fault of the caller.
    #[error("`{tensor}` has {expected} elements, but {found} {what} were given")]
    Length {
        /// The tensor.
        tensor: String,
        /// "values", "mask entries" or "bytes".
        what: &'static str,
        /// The tensor's number of elements.
        expected: usize,
        /// The number given.
        found: usize,
    },

    /// A side file whose name is no plain name, or that of a weight file.
    #[error("`{name}` cannot be added to the output: {reason}")]
    SideFile {
        /// The name given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// The end of a sentence about an adapter.
fn of_base(base: Option<&str>) -> String {
    base.map_or_else(String::new, |base| format!(" for `{base}`"))
}

impl CheckpointError {
    /// Puts the tensor's name where [`super::encode`], which does not know it, left a general word.
    pub(crate) fn of_tensor(mut self, name: &str) -> Self {
        match &mut self {
            Self::DoesNotFit { what, .. } | Self::NotWritable { what, .. } => name.clone_into(what),
            Self::Length { tensor, .. } => name.clone_into(tensor),
            _ => {}
        }
        self
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoFolder { .. } => {
                "give the path of a folder in Hugging Face layout (config.json and weights), or a model of the hub as ORG/NAME"
            }
            Self::NoConfig { .. } => {
                "a model folder in Hugging Face layout has a config.json beside its weights; was the download complete?"
            }
            Self::Adapter { .. } => {
                "in Python: AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload().save_pretrained(FOLDER)"
            }
            Self::Names { .. } => {
                "save the weights with `save_pretrained` of transformers, whose names are read; one prefix before all names, \
                 such as `_orig_mod.` or `module.`, is understood"
            }
            Self::Modules { .. } | Self::Config { .. } => return None,
            Self::NoWeights { .. } => {
                "weights are read from model.safetensors, model.safetensors.index.json with its shards, \
                 pytorch_model.bin, pytorch_model.bin.index.json with its shards, or what `pack` wrote"
            }
            Self::LfsPointer { .. } => "fetch the real file with `git lfs pull` in that folder",
            Self::Truncated { .. } | Self::MissingShard { .. } => {
                "the download or copy is incomplete; fetch the file again"
            }
            Self::Pytorch { reason, .. } if reason.contains("dictionar") => {
                "save the tensors alone: torch.save(model.state_dict(), \"pytorch_model.bin\")"
            }
            Self::Header { .. }
            | Self::Pytorch { .. }
            | Self::NotInShard { .. }
            | Self::StoredTwice { .. } => {
                "the file is damaged or does not belong to this checkpoint; fetch it again"
            }
            Self::Packed { .. } | Self::Checksum { .. } => {
                "the file is damaged; fetch it again, or pack the checkpoint again"
            }
            Self::PackedVersion { .. } => "unpack it with the version of fista-pruner that packed it",
            Self::NotPacked { .. } => "only folders that `pack` wrote can be unpacked",
            Self::Index { .. } | Self::IndexPath { .. } => {
                "an index maps each tensor to the plain name of a file beside it: \
                 {\"weight_map\": {\"tensor\": \"model-00001-of-00002.safetensors\", …}}"
            }
            Self::MissingTensor { .. } | Self::Shape { .. } => {
                "config.json and the weights do not belong together; fetch both from the same place"
            }
            Self::Dtype { .. } => {
                "quantised checkpoints cannot be pruned; take the one in float32, float16 or bfloat16"
            }
            Self::NotFinite { .. } => {
                "the checkpoint is damaged or was saved in the middle of a diverged training"
            }
            Self::PythonObject { .. } => {
                "nothing was executed; take the model's safetensors version, or save only \
                 `model.state_dict()` with torch"
            }
            Self::DoesNotFit { .. }
            | Self::NotWritable { .. }
            | Self::Length { .. }
            | Self::ReservedName { .. }
            | Self::SideFile { .. } => {
                return None;
            }
        };
        Some(hint.into())
    }
}
