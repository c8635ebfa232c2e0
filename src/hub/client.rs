//! The hub's HTTP interface. In: a repository, a revision, a name. Out: the list of files, what a file is (commit, etag,
//! size), and its bytes at the end of a local file. Failures that may pass are tried again; `fetch` decides what to ask.

use super::id::{is_commit, is_file_name};
use super::response::{FileInfo, Seen, range_start, reason, resolved, same_host, text};
use super::{HubConfig, HubError, Repo};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Failures in a row, without a byte in between, after which a file is given up.
const TRIES: u32 = 5;

/// The pause after the first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(400);

/// Redirections of one request.
const REDIRECTIONS: u32 = 8;

/// The hub, over a pool of connections.
#[derive(Debug)]
pub(crate) struct Client {
    /// Gives redirections back.
    staying: Agent,
    /// Follows them, with the token on the same host only.
    following: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What is asked for, in the words of an error.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) repo: &'a Repo,
    /// "`config.json`", "the list of files".
    pub(crate) what: &'a str,
    pub(crate) url: &'a str,
}

/// A failure, and whether it may pass.
struct Failure {
    error: Error,
    may_pass: bool,
}

impl Failure {
    fn lasting(error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            may_pass: false,
        }
    }

    fn is_absence_of_network(&self) -> bool {
        matches!(&self.error, Error::Hub(error) if error.no_network().is_some())
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self> {
        let roots = match &config.certificates {
            None => RootCerts::WebPki,
            Some(file) => root_certificates(file)?,
        };
        let agent = |redirections| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(redirections)
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .timeout_resolve(Some(config.timeout))
                .timeout_connect(Some(config.timeout))
                .timeout_recv_response(Some(config.timeout))
                .timeout_per_read(Some(config.timeout))
                .timeout_per_write(Some(config.timeout))
                .user_agent(concat!("fista-pruner/", env!("CARGO_PKG_VERSION")))
                .tls_config(TlsConfig::builder().root_certs(roots.clone()).build())
                .build()
                .new_agent()
        };
        Ok(Self {
            staying: agent(0),
            following: agent(REDIRECTIONS),
            endpoint: config.endpoint.clone(),
            token: config.token.clone(),
        })
    }

    /// The commit of a revision and the names of its files, sorted.
    pub(crate) fn list(&self, repo: &Repo) -> Result<(String, Vec<String>)> {
        let url = repo.info_url(&self.endpoint, &repo.revision);
        let wanted = Wanted {
            repo,
            what: "the list of files",
            url: &url,
        };
        let bytes = self.patiently(|| {
            let mut response = self.send(&self.following, "GET", wanted, &url, None)?;
            let body = response.body_mut().with_config().limit(256 << 20).read_to_vec();
            body.map_err(|e| unreachable(wanted, &e))
        })?;
        let answer = |reason: String| HubError::Answer {
            url: url.clone(),
            reason,
        };
        let info: Info = serde_json::from_slice(&bytes).map_err(|e| answer(e.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!("`{}` is no commit", info.sha)).into());
        }
        let mut files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        if let Some(name) = files.iter().find(|name| !is_file_name(name)) {
            return Err(answer(format!("`{name}` is not the name of a file")).into());
        }
        files.sort();
        Ok((info.sha, files))
    }

    /// What a file is. The answer may be a redirection to where the contents are, which is not followed.
    pub(crate) fn info(&self, repo: &Repo, file: &str) -> Result<FileInfo> {
        let url = repo.file_url(&self.endpoint, &repo.revision, file);
        let what = format!("`{file}`");
        let wanted = Wanted {
            repo,
            what: &what,
            url: &url,
        };
        self.patiently(|| {
            let mut at = url.clone();
            let mut seen = Seen::default();
            for _ in 0..REDIRECTIONS {
                let response = self.send(&self.staying, "HEAD", wanted, &at, None)?;
                let headers = response.headers();
                seen.note(headers, response.status());
                match text(headers, "location") {
                    // A renamed repository, or another place on the same host.
                    Some(location)
                        if response.status().is_redirection() && text(headers, "x-linked-etag").is_none() =>
                    {
                        at =
                            resolved(&at, location).ok_or_else(|| no_hub(&at, "a redirection to nowhere"))?;
                    }
                    _ => return seen.file_info().map_err(|reason| no_hub(&at, reason)),
                }
            }
            Err(no_hub(&url, "too many redirections"))
        })
    }

    /// Appends to `to` what it still lacks of a file of `size` bytes. `told` hears how many bytes there are.
    pub(crate) fn download(
        &self,
        wanted: Wanted<'_>,
        size: Option<u64>,
        to: &Path,
        told: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut failures = 0;
        let mut has_worked = false;
        loop {
            let before = length(to);
            match self.download_once(wanted, size, to, told) {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    let went_on = length(to) > before;
                    has_worked |= went_on;
                    failures = if went_on { 1 } else { failures + 1 };
                    // A network that was there a moment ago may come back.
                    let may_pass = failure.may_pass || (has_worked && failure.is_absence_of_network());
                    if !may_pass || failures >= TRIES {
                        return Err(failure.error);
                    }
                    tracing::info!("{}; trying again", failure.error);
                    std::thread::sleep(PAUSE * 2u32.pow(failures - 1));
                }
            }
        }
    }

    fn download_once(
        &self,
        wanted: Wanted<'_>,
        size: Option<u64>,
        to: &Path,
        told: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let mut have = length(to);
        if size.is_some_and(|size| have > size) {
            remove(to)?;
            have = 0;
        }
        if have > 0 && Some(have) == size {
            return Ok(());
        }
        let response = self.send(&self.following, "GET", wanted, wanted.url, Some(have))?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE
            || (resumed && range_start(response.headers()) != Some(have))
        {
            remove(to)?;
            return Err(status_failure(wanted, &response, true));
        }
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(to)
            .map_err(|e| Failure::lasting(Error::io("open", to)(e)))?;
        if !resumed {
            // The server sends all of it again.
            file.set_len(0)
                .map_err(|e| Failure::lasting(Error::io("shorten", to)(e)))?;
            have = 0;
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            told(have);
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unreachable(wanted, &e)),
            };
            file.write_all(&buffer[..n])
                .map_err(|e| Failure::lasting(Error::io("write", to)(e)))?;
            have += n as u64;
        }
        match size {
            Some(size) if have != size => Err(unreachable(
                wanted,
                &format!("the connection ended after {have} of {size} bytes"),
            )),
            _ => Ok(()),
        }
    }

    /// Sends one request; only a success or a redirection comes back, or, of a range, that there is no such range.
    fn send(
        &self,
        agent: &Agent,
        method: &str,
        wanted: Wanted<'_>,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = match method {
            "HEAD" => agent.head(url),
            _ => agent.get(url),
        }
        .header("accept-encoding", "identity");
        if let Some(token) = &self.token
            && same_host(url, &self.endpoint)
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let from = from.filter(|from| *from > 0);
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| {
            let lasting = match &e {
                ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::ConnectionRefused,
                // Where no connection was made in that time, the network is missing rather than slow.
                ureq::Error::Timeout(which) => {
                    matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect)
                }
                _ => true,
            };
            Failure {
                may_pass: !lasting,
                ..unreachable(wanted, &e)
            }
        })?;
        let status = response.status();
        if status.is_success()
            || status.is_redirection()
            || (from.is_some() && status == StatusCode::RANGE_NOT_SATISFIABLE)
        {
            return Ok(response);
        }
        Err(self.refusal(wanted, &response))
    }

    /// The error that a status and the hub's own error code stand for.
    fn refusal(&self, wanted: Wanted<'_>, response: &Response<Body>) -> Failure {
        let status = response.status();
        let (repo, url) = (wanted.repo.clone(), wanted.url.to_owned());
        let reason = reason(response);
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let what = match code {
            "RepoNotFound" => repo.to_string(),
            "RevisionNotFound" => format!("revision `{}` of `{}`", repo.revision, repo.name),
            _ => format!("{} of {repo}", wanted.what),
        };
        // To who is not logged in, the hub answers 401 for a repository that does not exist.
        if status == StatusCode::NOT_FOUND || (code == "RepoNotFound" && status.is_client_error()) {
            return Failure::lasting(HubError::NotFound {
                what,
                repo,
                url,
                reason,
            });
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Failure::lasting(HubError::Denied {
                what: wanted.what.to_owned(),
                page: repo.page(&self.endpoint),
                repo,
                url,
                reason,
                with_token: self.token.is_some(),
            });
        }
        let may_pass = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
            );
        status_failure(wanted, response, may_pass)
    }

    /// Tries again after failures that may pass.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    failures += 1;
                    if !failure.may_pass || failures >= TRIES {
                        return Err(failure.error);
                    }
                    std::thread::sleep(PAUSE * 2u32.pow(failures - 1));
                }
            }
        }
    }
}

fn status_failure(wanted: Wanted<'_>, response: &Response<Body>, may_pass: bool) -> Failure {
    let error = HubError::Status {
        what: wanted.what.to_owned(),
        repo: wanted.repo.clone(),
        url: wanted.url.to_owned(),
        reason: reason(response),
    };
    Failure {
        error: error.into(),
        may_pass,
    }
}

fn unreachable(wanted: Wanted<'_>, reason: &impl ToString) -> Failure {
    let error = HubError::Unreachable {
        what: wanted.what.to_owned(),
        repo: wanted.repo.clone(),
        url: wanted.url.to_owned(),
        reason: reason.to_string(),
    };
    Failure {
        error: error.into(),
        may_pass: true,
    }
}

fn no_hub(url: &str, reason: &str) -> Failure {
    Failure::lasting(HubError::Answer {
        url: url.to_owned(),
        reason: reason.to_owned(),
    })
}

/// Bytes of a file, none where there is no file.
pub(crate) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn remove(path: &Path) -> Result<(), Failure> {
    std::fs::remove_file(path).map_err(|e| Failure::lasting(Error::io("remove", path)(e)))
}

fn root_certificates(file: &Path) -> Result<RootCerts> {
    let wrong = |reason: String| HubError::Certificates {
        file: file.to_path_buf(),
        reason,
    };
    let pem = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("it holds none".into()).into());
    }
    Ok(certificates.into())
}
