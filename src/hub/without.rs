//! The hub of a build without the feature `hub`. In: whatever is asked for. Out: an error that names the feature.

use super::error::Result;
use super::{DatasetId, Fetched, HubConfig, HubError, ModelSnapshot, Repo, Split, Transfer};
use std::marker::PhantomData;

/// A hub that has nothing.
#[derive(Debug)]
pub struct Hub<'a>(PhantomData<&'a ()>);

impl<'a> Hub<'a> {
    /// A hub; nothing is ever sent.
    pub fn new(_config: HubConfig, _told: impl FnMut(Transfer<'_>) + 'a) -> Self {
        Self(PhantomData)
    }

    /// One file.
    ///
    /// # Errors
    /// Always.
    pub fn file(&mut self, repo: &Repo, _file: &str) -> Result<Fetched> {
        Err(HubError::NotBuilt(repo.clone()))
    }

    /// A model.
    ///
    /// # Errors
    /// Always.
    pub fn model(&mut self, repo: &Repo) -> Result<ModelSnapshot> {
        Err(HubError::NotBuilt(repo.clone()))
    }

    /// The files of a data set.
    ///
    /// # Errors
    /// Always.
    pub fn data(&mut self, id: &DatasetId, _split: Split) -> Result<Vec<Fetched>> {
        Err(HubError::NotBuilt(id.repo.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_is_named() {
        let config = HubConfig::from_variables(|name| (name == "HOME").then(|| "/home".to_owned()));
        let mut hub = Hub::new(config.unwrap(), |_| ());
        let error = hub.model(&Repo::model("a/b").unwrap()).unwrap_err();
        assert!(error.to_string().contains("`a/b`"), "{error}");
        assert!(error.hint().unwrap().contains("--features hub"));
        let id = DatasetId::parse("a/b:x.txt").unwrap();
        assert!(matches!(hub.file(&id.repo, "x.txt"), Err(HubError::NotBuilt(_))));
        assert!(matches!(hub.data(&id, Split::Test), Err(HubError::NotBuilt(_))));
    }
}
