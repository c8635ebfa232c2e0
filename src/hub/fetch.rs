//! Files of repositories, from the cache where they are complete and from the hub where they are not. In: a repository and
//! names. Out: paths inside a snapshot, for the data readers and the command line.

use super::cache::{RepoCache, is_commit, make_parent};
use super::client::{self, Client, FileInfo, length};
use super::error::Result;
use super::id::is_file_name;
use super::select::{self, NoChoice, WeightFiles};
use super::{DatasetId, Fetched, HubConfig, HubError, ModelSnapshot, Repo, Split, Transfer, Wanted};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the hub keeps what it made of script-only data sets.
const CONVERTED: &str = "refs/convert/parquet";

/// A hub and its cache.
pub struct Hub<'a> {
    config: HubConfig,
    client: Option<Client>,
    told: Box<dyn FnMut(Transfer<'_>) + 'a>,
    /// What the system said when no connection could be made; no other is tried in this run.
    no_network: Option<String>,
}

impl std::fmt::Debug for Hub<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<'a> Hub<'a> {
    /// A hub; `told` hears of downloads. Nothing is sent before a file is asked for.
    pub fn new(config: HubConfig, told: impl FnMut(Transfer<'_>) + 'a) -> Self {
        Self {
            config,
            client: None,
            told: Box::new(told),
            no_network: None,
        }
    }

    /// One file. A pinned commit's file in the cache is used without asking the hub; where the hub cannot be reached, so is
    /// what a branch or tag stood at last.
    ///
    /// # Errors
    /// When the file is neither in the cache nor to be had from the hub.
    pub fn file(&mut self, repo: &Repo, file: &str) -> Result<Fetched> {
        let cache = RepoCache::new(&self.config.cache, repo);
        if is_commit(&repo.revision)
            && let Some(path) = cache.file(&repo.revision, file)
        {
            return Ok(fetched(repo, &repo.revision, file, path));
        }
        if self.is_offline() {
            let found = cached(&cache, repo, file);
            return found.ok_or_else(|| self.absent(repo, &format!("`{file}`"), file));
        }
        let wanted = self.wanted(repo, file);
        let info = match self.client()?.info(&wanted) {
            Ok(info) => info,
            Err(error) => {
                self.note_no_network(&error);
                return match cached(&cache, repo, file) {
                    Some(found) if self.no_network.is_some() => {
                        tracing::warn!("{error}; using `{}` from the cache", found.name);
                        Ok(found)
                    }
                    _ => Err(error),
                };
            }
        };
        cache.remember(&repo.revision, &info.commit)?;
        let path = match cache.file(&info.commit, file) {
            Some(path) => path,
            None => {
                self.complete_blob(&cache, repo, file, &info)?;
                cache.link(&info.etag, &info.commit, file)?
            }
        };
        Ok(fetched(repo, &info.commit, file, path))
    }

    /// A model's configuration, tokenizer and weights (torch's files only where there are no others). The weights come
    /// last, so that a folder with weights is whole.
    ///
    /// # Errors
    /// When a file cannot be had, or the repository lacks a configuration or weights.
    pub fn model(&mut self, repo: &Repo) -> Result<ModelSnapshot> {
        let config = self.file(repo, "config.json")?;
        let cache = RepoCache::new(&self.config.cache, repo);
        let pinned = at_commit(repo, &config.commit);
        let (_, files) = self.list(&cache, &pinned)?;
        let Some(weights) = select::weights(&files) else {
            if self.is_offline() {
                return Err(self.absent(repo, "the weights", "model.safetensors"));
            }
            let what = "weights that are read (safetensors, or pytorch_model.bin)".into();
            return Err(HubError::Incomplete(repo.clone(), what, some_of(&files)));
        };
        for name in select::SIDE_FILES {
            if files.iter().any(|file| file == name) {
                self.file(&pinned, name)?;
            }
        }
        match weights {
            WeightFiles::Single(name) => {
                self.file(&pinned, &name)?;
            }
            WeightFiles::Indexed(name) => {
                let index = self.file(&pinned, &name)?.path;
                for shard in shards(&index)? {
                    self.file(&pinned, &shard)?;
                }
            }
        }
        Ok(ModelSnapshot {
            dir: cache.snapshot(&config.commit),
            name: format!("{}@{}", repo.name, config.commit),
            commit: config.commit,
        })
    }

    /// The files of a data set that are meant: the one named; else the first of the train split, or all of the test (else
    /// validation) split; of data sets that are scripts, those of the hub's own conversion to parquet.
    ///
    /// # Errors
    /// When a file cannot be had, or which is meant is not clear.
    pub fn data(&mut self, id: &DatasetId, split: Split) -> Result<Vec<Fetched>> {
        if let Some(file) = &id.file {
            return Ok(vec![self.file(&id.repo, file)?]);
        }
        let first = self.data_at(&id.repo, split);
        let no_files = matches!(first, Err(HubError::Incomplete(..) | HubError::Offline(..)));
        match id.repo.at(CONVERTED) {
            Some(converted) if no_files && id.repo.revision == "main" => {
                // What was asked for is told of where the conversion does not help either.
                self.data_at(&converted, split).or(first)
            }
            _ => first,
        }
    }

    fn data_at(&mut self, repo: &Repo, split: Split) -> Result<Vec<Fetched>> {
        let cache = RepoCache::new(&self.config.cache, repo);
        let (commit, files) = self.list(&cache, repo)?;
        cache.remember(&repo.revision, &commit)?;
        let chosen = match select::data_files(&files, split) {
            Ok(chosen) => chosen,
            Err(NoChoice::Several { candidates }) => {
                let found = some_of(&candidates);
                return Err(HubError::Ambiguous(repo.clone(), found, candidates[0].clone()));
            }
            Err(NoChoice::None { candidates }) => {
                let split = match split {
                    Split::Train => "train",
                    Split::Test => "test or validation",
                };
                let what = format!("data file of a {split} split (parquet, jsonl, json or txt)");
                if self.is_offline() {
                    return Err(self.absent(repo, &format!("a {what}"), "README.md"));
                }
                let found = some_of(if candidates.is_empty() {
                    &files
                } else {
                    &candidates
                });
                return Err(HubError::Incomplete(repo.clone(), what, found));
            }
        };
        if split == Split::Test
            && self.is_offline()
            && let Some(parts) = select::parts(&chosen[0])
            && chosen.len() < parts
        {
            let what = format!("{} of {parts} parts", parts - chosen.len());
            return Err(self.absent(repo, &what, &chosen[0]));
        }
        let pinned = at_commit(repo, &commit);
        chosen.iter().map(|file| self.file(&pinned, file)).collect()
    }

    /// The commit and the files of a revision; without a network, of what is in the cache.
    fn list(&mut self, cache: &RepoCache, repo: &Repo) -> Result<(String, Vec<String>)> {
        if !self.is_offline() {
            match self.client()?.list(repo) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    self.note_no_network(&error);
                    if self.no_network.is_none() || cache.commit_of(&repo.revision).is_none() {
                        return Err(error);
                    }
                    tracing::warn!("{error}; using the files in the cache");
                }
            }
        }
        match cache.commit_of(&repo.revision) {
            Some(commit) => {
                let files = cache.files(&commit);
                Ok((commit, files))
            }
            None => Err(self.absent(repo, "the list of files", "README.md")),
        }
    }

    /// Makes the contents complete under their etag's name.
    fn complete_blob(&mut self, cache: &RepoCache, repo: &Repo, file: &str, info: &FileInfo) -> Result<()> {
        let blob = cache.blob(&info.etag);
        let partial = cache.blob(&format!("{}.incomplete", info.etag));
        make_parent(&blob)?;
        let _lock = cache.lock(&info.etag)?;
        if blob.is_file() {
            return Ok(());
        }
        let wanted = self.wanted(&at_commit(repo, &info.commit), file);
        self.client()?;
        let Self {
            client: Some(client),
            told,
            ..
        } = self
        else {
            return Err(HubError::Answer(wanted.url, "there is no client".into()));
        };
        let total = info.size;
        loop {
            let resumed = length(&partial) > 0;
            client.download(&wanted, total, &partial, &mut |done| {
                told(Transfer { file, done, total })
            })?;
            let Some(reason) = difference(&partial, &info.etag)? else {
                break;
            };
            std::fs::remove_file(&partial).map_err(HubError::io("remove", &partial))?;
            // What an earlier run had left may be at fault; the whole of it is not tried twice.
            if !resumed {
                return Err(HubError::Damaged(Box::new(wanted), reason));
            }
        }
        std::fs::rename(&partial, &blob).map_err(HubError::io("rename to", &blob))
    }

    fn is_offline(&self) -> bool {
        self.config.offline || self.no_network.is_some()
    }

    fn note_no_network(&mut self, error: &HubError) {
        if let HubError::Unreachable(_, reason) = error {
            self.no_network = Some(reason.clone());
        }
    }

    fn wanted(&self, repo: &Repo, file: &str) -> Wanted {
        client::wanted(repo, &self.config.endpoint, format!("`{file}`"), file)
    }

    /// The error for something that would have to be fetched and cannot.
    fn absent(&self, repo: &Repo, what: &str, file: &str) -> HubError {
        let wanted = Box::new(client::wanted(repo, &self.config.endpoint, what.to_owned(), file));
        match &self.no_network {
            Some(reason) => HubError::Unreachable(wanted, reason.clone()),
            None => HubError::Offline(wanted, self.config.cache.clone()),
        }
    }

    fn client(&mut self) -> Result<&Client> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.config)?,
        };
        Ok(self.client.insert(client))
    }
}

fn at_commit(repo: &Repo, commit: &str) -> Repo {
    Repo {
        revision: commit.to_owned(),
        ..repo.clone()
    }
}

fn fetched(repo: &Repo, commit: &str, file: &str, path: PathBuf) -> Fetched {
    Fetched {
        path,
        name: format!("{}@{commit}:{file}", repo.name),
        commit: commit.to_owned(),
    }
}

/// A file at the commit that its revision stood at when it was last asked for.
fn cached(cache: &RepoCache, repo: &Repo, file: &str) -> Option<Fetched> {
    let commit = cache.commit_of(&repo.revision)?;
    let path = cache.file(&commit, file)?;
    Some(fetched(repo, &commit, file, path))
}

/// The shards that an index names. Of an index that is none, there are none: whoever reads the folder says what is wrong.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(Default, Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(index).map_err(HubError::io("read", index))?;
    let index: Index = crate::json::parse_bytes(&text).unwrap_or_default();
    let shards = index.weight_map.into_values();
    Ok(shards.filter(|shard| is_file_name(shard)).collect())
}

/// How the contents differ from the SHA-256 that an etag of a large file is.
fn difference(file: &Path, etag: &str) -> Result<Option<String>> {
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut reader = std::fs::File::open(file).map_err(HubError::io("open", file))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut buffer).map_err(HubError::io("read", file))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found = format!("{:x}", hasher.finalize());
    let reason = format!("its SHA-256 is {found}, and the hub promised {etag}");
    Ok((!found.eq_ignore_ascii_case(etag)).then_some(reason))
}

/// The first names of a list, for a message.
fn some_of(files: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = files.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match files.len() {
        0 => "no files".into(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}
