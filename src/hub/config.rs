//! How the hub is reached and where files are kept. In: the variables that huggingface_hub reads. Out: a [`HubConfig`].

use super::HubError;
use super::error::Result;
use std::path::PathBuf;
use std::time::Duration;

/// Where the hub is, who asks, and where files are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub's address without a slash at its end.
    pub endpoint: String,
    /// The folder with a folder for each repository.
    pub cache: PathBuf,
    /// An access token, for gated and private repositories.
    pub token: Option<String>,
    /// Use only what is in the cache.
    pub offline: bool,
    /// The longest silence of a server before a connection is given up.
    pub timeout: Duration,
    /// Certificates in PEM to trust instead of Mozilla's, for networks that have their own.
    pub certificates: Option<PathBuf>,
}

/// The token stays out of logs.
impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .field("timeout", &self.timeout)
            .field("certificates", &self.certificates)
            .finish()
    }
}

impl HubConfig {
    /// The hub where `HF_ENDPOINT` names none.
    pub const ENDPOINT: &'static str = "https://huggingface.co";

    /// Seconds of silence where `HF_HUB_DOWNLOAD_TIMEOUT` says nothing.
    pub const TIMEOUT_SECONDS: u64 = 30;

    /// Reads the variables of huggingface_hub through `variable`: `HF_ENDPOINT`, `HF_HUB_CACHE` or else `HF_HOME`, `HF_TOKEN`
    /// or else the file that `huggingface-cli login` writes, `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`; also
    /// `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE`. An empty variable counts as none.
    ///
    /// # Errors
    /// When no variable tells where the cache is, or one has a value that makes no sense.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |names: &[&str]| {
            let found = names.iter().find_map(|name| variable(name));
            found.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
        };
        let user = first(&["HOME", "USERPROFILE"]).map(PathBuf::from);
        let path = |text: String| match (text.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => user.join(rest),
            _ => PathBuf::from(text),
        };
        let home = first(&["HF_HOME"]).map(path).or_else(|| {
            let caches = first(&["XDG_CACHE_HOME"]).map(path);
            let caches = caches.or_else(|| user.as_ref().map(|user| user.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(path);
        let Some(cache) = cache.or_else(|| home.as_ref().map(|home| home.join("hub"))) else {
            return Err(HubError::Setting(
                "HF_HOME",
                "it is not set and neither is HOME, so there is no folder for downloads".into(),
            ));
        };
        let token_file = first(&["HF_TOKEN_PATH"])
            .map(path)
            .or_else(|| home.map(|home| home.join("token")));
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
            let text = std::fs::read_to_string(token_file?).ok()?;
            Some(text.trim().to_owned()).filter(|token| !token.is_empty())
        });
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(HubError::Setting(
                "HF_TOKEN",
                "it has a blank or another character that no token has".into(),
            ));
        }
        let endpoint = first(&["HF_ENDPOINT"]).unwrap_or_else(|| Self::ENDPOINT.to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(HubError::Setting(
                "HF_ENDPOINT",
                format!("`{endpoint}` does not begin with https:// or http://"),
            ));
        }
        let is_on = |name: &str| {
            first(&[name])
                .is_some_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let seconds = match first(&["HF_HUB_DOWNLOAD_TIMEOUT"]) {
            None => Self::TIMEOUT_SECONDS,
            Some(text) => text.parse().ok().filter(|s| *s > 0).ok_or_else(|| {
                HubError::Setting(
                    "HF_HUB_DOWNLOAD_TIMEOUT",
                    format!("`{text}` is not a number of seconds"),
                )
            })?,
        };
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token,
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            timeout: Duration::from_secs(seconds),
            certificates: first(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]).map(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<HubConfig> {
        HubConfig::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_in_their_order() {
        let cache = |variables: &[(&str, &str)]| config(variables).unwrap().cache;
        let home = ("HOME", "/h");
        assert_eq!(cache(&[home]), PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/x")]),
            PathBuf::from("/x/huggingface/hub")
        );
        assert_eq!(cache(&[home, ("HF_HOME", "~/hf")]), PathBuf::from("/h/hf/hub"));
        assert_eq!(
            cache(&[home, ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]),
            PathBuf::from("/c")
        );
        assert!(config(&[]).is_err());
        let read = config(&[
            home,
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " t\n"),
            ("HF_HUB_OFFLINE", "true"),
        ])
        .unwrap();
        assert_eq!(
            (read.endpoint.as_str(), read.token.as_deref(), read.offline),
            ("http://mirror", Some("t"), true)
        );
        assert!(!format!("{read:?}").contains("\"t\""));
        assert!(!config(&[home, ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        for wrong in [
            ("HF_ENDPOINT", "mirror"),
            ("HF_TOKEN", "a b"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ] {
            assert!(
                matches!(config(&[home, wrong]), Err(HubError::Setting(setting, _)) if setting == wrong.0)
            );
        }
    }

    #[test]
    fn a_token_of_an_earlier_login() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "secret\n").unwrap();
        assert_eq!(
            config(&[("HF_HOME", home)]).unwrap().token.as_deref(),
            Some("secret")
        );
        let set = config(&[("HF_HOME", home), ("HF_TOKEN", "other")]).unwrap();
        assert_eq!(set.token.as_deref(), Some("other"));
    }
}
