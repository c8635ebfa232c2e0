//! Names of repositories. In: `ORG/NAME`, `ORG/NAME@REVISION`, for data sets also `…:FILE`. Out: a [`Repo`] for
//! `fetch` and the command line.

use std::fmt;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A checkpoint with its tokenizer.
    Model,
    /// Data files.
    Dataset,
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// What it holds.
    pub kind: RepoKind,
    /// `ORG/NAME`.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// A data set, or one file of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetId {
    /// The repository.
    pub repo: Repo,
    /// The file's path inside the repository, where one was named.
    pub file: Option<String>,
}

/// The branch that is meant where none is named.
const MAIN: &str = "main";

impl Repo {
    /// A model by `ORG/NAME` or `ORG/NAME@REVISION`; nothing where `text` cannot be such an id.
    pub fn model(text: &str) -> Option<Self> {
        Self::parse(RepoKind::Model, text)
    }

    fn parse(kind: RepoKind, text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        (is_repo_name(name) && is_revision(revision)).then(|| Self {
            kind,
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// The same repository at another revision; nothing where `revision` cannot be one.
    pub fn at(&self, revision: &str) -> Option<Self> {
        is_revision(revision).then(|| Self {
            revision: revision.to_owned(),
            ..self.clone()
        })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RepoKind::Model => "the model",
            RepoKind::Dataset => "the data set",
        };
        write!(f, "{kind} `{}` at revision `{}`", self.name, self.revision)
    }
}

impl DatasetId {
    /// A data set by `ORG/NAME`, `ORG/NAME@REVISION`, and either with `:FILE`; nothing where `text` cannot be such an id.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, file) = match text.split_once(':') {
            Some((id, file)) if is_file_name(file) => (id, Some(file.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        let repo = Repo::parse(RepoKind::Dataset, id)?;
        Some(Self { repo, file })
    }
}

/// `ORG/NAME` of letters, digits, `.`, `_` and `-`, as the hub allows them.
fn is_repo_name(name: &str) -> bool {
    let part = |part: &str| {
        part.len() <= 96
            && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    matches!(name.split_once('/'), Some((org, name)) if part(org) && part(name))
}

/// Becomes a path below `refs`, so it has no component that leaves it.
fn is_revision(revision: &str) -> bool {
    is_file_name(revision)
        && revision
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+'))
}

/// Whether a name, which may come from a server, is a path inside a folder on every platform.
pub(crate) fn is_file_name(name: &str) -> bool {
    name.len() <= 1024
        && !name.contains(['\\', ':', '\0'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_what_is_none() {
        let opt = Repo::model("facebook/opt-125m").unwrap();
        assert_eq!(
            (opt.name.as_str(), opt.revision.as_str()),
            ("facebook/opt-125m", "main")
        );
        assert_eq!(Repo::model("a/b@refs/pr/1").unwrap().revision, "refs/pr/1");
        assert_eq!(opt.at("v1").unwrap().revision, "v1");
        for none in [
            "opt-125m", "a/b/c", "./a", "../a", "/a/b", "a/", "a/b@", "a/b@../x", "a\\b/c", "a/b c", "a/..",
            "a/b--c", "",
        ] {
            assert_eq!(Repo::model(none), None, "{none}");
        }
        assert!(opt.at("a/../../b").is_none());
    }

    #[test]
    fn files_of_data_sets() {
        let id = DatasetId::parse("allenai/c4@v1:en/x.json.gz").unwrap();
        assert_eq!(id.file.as_deref(), Some("en/x.json.gz"));
        assert_eq!(id.repo.revision, "v1");
        assert_eq!(DatasetId::parse("a/b").unwrap().file, None);
        for none in ["c4", "a/b:", "a/b:../x", "a/b:/x", "a/b:x//y"] {
            assert_eq!(DatasetId::parse(none), None, "{none}");
        }
    }
}
