//! The hub's HTTP interface. In: a repository, a revision, a name. Out: the list of files, what a file is (commit, etag,
//! size), and its bytes at the end of a local file. Failures that may pass are tried again; `fetch` decides what to ask.

use super::cache::is_commit;
use super::error::Result;
use super::id::is_file_name;
use super::{HubConfig, HubError, Repo, RepoKind, Wanted};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
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
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What the hub says of a file without sending it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// The commit that the revision stands at.
    pub(crate) commit: String,
    /// A name for the contents; of large files, their SHA-256 in hex.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

/// A failure, and whether it may pass.
struct Failure {
    error: HubError,
    may_pass: bool,
}

/// Unless it is said otherwise, a failure lasts.
impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let may_pass = false;
        Self { error, may_pass }
    }
}

impl Client {
    pub(crate) fn new(config: &HubConfig) -> Result<Self> {
        let roots = match &config.certificates {
            None => RootCerts::WebPki,
            Some(file) => root_certificates(file).map_err(|reason| {
                let reason = format!(
                    "the certificates in `{}` cannot be used: {reason}",
                    file.display()
                );
                HubError::Setting("SSL_CERT_FILE", reason)
            })?,
        };
        let timeout = Some(config.timeout);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The token stays with the hub.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .max_redirects(REDIRECTIONS)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .user_agent(concat!("fista-pruner/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        Ok(Self {
            agent: agent.build().new_agent(),
            endpoint: config.endpoint.clone(),
            token: config.token.clone(),
        })
    }

    /// The commit of a revision and the names of its files, sorted.
    pub(crate) fn list(&self, repo: &Repo) -> Result<(String, Vec<String>)> {
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
        let kind = match repo.kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let revision = encoded(&repo.revision, false);
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.endpoint, repo.name);
        let what = "the list of files".to_owned();
        let wanted = Wanted {
            what,
            repo: repo.clone(),
            url,
        };
        let bytes = self.patiently(|| {
            let mut response = self.send("GET", &wanted, &wanted.url, None)?;
            let body = response.body_mut().with_config().limit(256 << 20).read_to_vec();
            body.map_err(|e| unreachable(&wanted, &e))
        })?;
        let answer = |reason: String| HubError::Answer(wanted.url.clone(), reason);
        let info: Info = serde_json::from_slice(&bytes).map_err(|e| answer(e.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(answer(format!("`{}` is no commit", info.sha)));
        }
        let mut files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        if let Some(name) = files.iter().find(|name| !is_file_name(name)) {
            return Err(answer(format!("`{name}` is not the name of a file")));
        }
        files.sort();
        Ok((info.sha, files))
    }

    /// What a file is. The answer may be a redirection to where the contents are, which is not followed.
    pub(crate) fn info(&self, wanted: &Wanted) -> Result<FileInfo> {
        self.patiently(|| {
            let no_hub = |url: &str, reason: &str| HubError::Answer(url.to_owned(), reason.to_owned());
            let mut url = wanted.url.clone();
            let mut seen = Seen::default();
            for _ in 0..REDIRECTIONS {
                let response = self.send("HEAD", wanted, &url, None)?;
                let headers = response.headers();
                seen.note(headers, response.status());
                let location = text(headers, "location").filter(|_| response.status().is_redirection());
                match location {
                    // A renamed repository, or another place on the same host.
                    Some(to) if text(headers, "x-linked-etag").is_none() => {
                        let next = resolved(&url, to);
                        url = next.ok_or_else(|| no_hub(&url, "a redirection to nowhere"))?;
                    }
                    _ => return seen.file_info().map_err(|reason| no_hub(&url, reason).into()),
                }
            }
            Err(no_hub(&wanted.url, "too many redirections").into())
        })
    }

    /// Appends to `to` what it still lacks of a file of `size` bytes. `told` hears how many bytes there are.
    pub(crate) fn download(
        &self,
        wanted: &Wanted,
        size: Option<u64>,
        to: &Path,
        told: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut failures = 0;
        let mut has_worked = false;
        loop {
            let before = length(to);
            let Err(failure) = self.download_once(wanted, size, to, told) else {
                return Ok(());
            };
            let went_on = length(to) > before;
            has_worked |= went_on;
            failures = if went_on { 1 } else { failures + 1 };
            // A network that was there a moment ago may come back.
            let is_away = matches!(failure.error, HubError::Unreachable(..));
            let may_pass = failure.may_pass || (has_worked && is_away);
            if !may_pass || failures >= TRIES {
                return Err(failure.error);
            }
            tracing::info!("{}; trying again", failure.error);
            std::thread::sleep(PAUSE * 2u32.pow(failures - 1));
        }
    }

    fn download_once(
        &self,
        wanted: &Wanted,
        size: Option<u64>,
        to: &Path,
        told: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let remove = || std::fs::remove_file(to).map_err(HubError::io("remove", to));
        let mut have = length(to);
        if size.is_some_and(|size| have > size) {
            remove()?;
            have = 0;
        }
        if have > 0 && Some(have) == size {
            return Ok(());
        }
        let response = self.send("GET", wanted, &wanted.url, Some(have).filter(|have| *have > 0))?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE
            || (resumed && range_start(response.headers()) != Some(have))
        {
            remove()?;
            let error = HubError::Status(Box::new(wanted.clone()), reason(&response));
            return Err(Failure {
                error,
                may_pass: true,
            });
        }
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(to)
            .map_err(HubError::io("open", to))?;
        if !resumed {
            // The server sends all of it again.
            file.set_len(0).map_err(HubError::io("shorten", to))?;
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
            file.write_all(&buffer[..n]).map_err(HubError::io("write", to))?;
            have += n as u64;
        }
        match size {
            Some(size) if have != size => {
                let reason = format!("the connection ended after {have} of {size} bytes");
                Err(unreachable(wanted, &reason))
            }
            _ => Ok(()),
        }
    }

    /// Sends one request; only a success or a redirection comes back, or, of a range, that there is no such range.
    fn send(
        &self,
        method: &str,
        wanted: &Wanted,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = match method {
            "HEAD" => self.agent.head(url).config().max_redirects(0).build(),
            _ => self.agent.get(url),
        }
        .header("accept-encoding", "identity");
        if let Some(token) = self.token.as_ref().filter(|_| same_host(url, &self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| {
            let may_pass = match &e {
                ureq::Error::Io(e) => e.kind() != std::io::ErrorKind::ConnectionRefused,
                // Where no connection was made in that time, the network is missing rather than slow.
                ureq::Error::Timeout(which) => {
                    !matches!(which, ureq::Timeout::Resolve | ureq::Timeout::Connect)
                }
                _ => false,
            };
            Failure {
                may_pass,
                ..unreachable(wanted, &e)
            }
        })?;
        let status = response.status();
        let no_such_range = from.is_some() && status == StatusCode::RANGE_NOT_SATISFIABLE;
        if status.is_success() || status.is_redirection() || no_such_range {
            return Ok(response);
        }
        Err(self.refusal(wanted, &response))
    }

    /// The error that a status and the hub's own error code stand for.
    fn refusal(&self, wanted: &Wanted, response: &Response<Body>) -> Failure {
        let (status, repo, reason) = (response.status(), &wanted.repo, reason(response));
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let boxed = Box::new(wanted.clone());
        // To who is not logged in, the hub answers 401 for a repository that does not exist.
        if status == StatusCode::NOT_FOUND || (code == "RepoNotFound" && status.is_client_error()) {
            let what = match code {
                "RepoNotFound" => repo.to_string(),
                "RevisionNotFound" => format!("revision `{}` of `{}`", repo.revision, repo.name),
                _ => wanted.to_string(),
            };
            return HubError::NotFound(what, boxed, reason).into();
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let page = format!("{}/{}{}", self.endpoint, folder(repo), repo.name);
            let with_token = self.token.is_some();
            return HubError::Denied {
                wanted: boxed,
                page,
                with_token,
                reason,
            }
            .into();
        }
        let is_busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
        ];
        let may_pass = status.is_server_error() || is_busy.contains(&status);
        Failure {
            error: HubError::Status(boxed, reason),
            may_pass,
        }
    }

    /// Tries again after failures that may pass.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        for failures in 0..TRIES - 1 {
            match attempt() {
                Err(failure) if failure.may_pass => std::thread::sleep(PAUSE * 2u32.pow(failures)),
                done => return done.map_err(|failure| failure.error),
            }
        }
        attempt().map_err(|failure| failure.error)
    }
}

fn unreachable(wanted: &Wanted, reason: &impl ToString) -> Failure {
    let error = HubError::Unreachable(Box::new(wanted.clone()), reason.to_string());
    Failure {
        error,
        may_pass: true,
    }
}

/// Bytes of a file, none where there is no file.
pub(crate) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn root_certificates(file: &Path) -> Result<RootCerts, String> {
    let pem = std::fs::read(file).map_err(|e| e.to_string())?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| e.to_string())? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err("there are none".into()),
        false => Ok(certificates.into()),
    }
}

/// What the answers on the way to a file said of it.
#[derive(Default)]
struct Seen {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Seen {
    /// Takes what an answer says that none before it did.
    fn note(&mut self, headers: &HeaderMap, status: StatusCode) {
        // Of a redirection, these are about the redirection itself.
        let of_file = |name| text(headers, name).filter(|_| status.is_success());
        let take = |had: &mut Option<String>, new: Option<&str>| {
            *had = had.take().or_else(|| new.map(str::to_owned));
        };
        take(&mut self.commit, text(headers, "x-repo-commit"));
        take(
            &mut self.etag,
            text(headers, "x-linked-etag").or_else(|| of_file("etag")),
        );
        let size = text(headers, "x-linked-size").or_else(|| of_file("content-length"));
        self.size = self.size.or_else(|| size?.parse().ok());
    }

    /// All of it, or what no hub leaves out.
    fn file_info(self) -> Result<FileInfo, &'static str> {
        let etag = self.etag.unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        // It becomes a file's name.
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=128).contains(&etag.len()) || !etag.bytes().all(is_plain) {
            return Err("the header ETag is missing or is not what a hub sends");
        }
        let Some(commit) = self.commit.filter(|commit| is_commit(commit)) else {
            return Err("the header X-Repo-Commit is missing or holds no commit");
        };
        Ok(FileInfo {
            commit,
            etag,
            size: self.size,
        })
    }
}

/// A header's value, where it is text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The first byte of a range that is sent.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, "content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.parse().ok()
}

/// The status, and what the hub says about it.
fn reason(response: &Response<Body>) -> String {
    let message = text(response.headers(), "x-error-message").filter(|message| !message.is_empty());
    match message {
        Some(message) => format!("{}: {message}", response.status()),
        None => response.status().to_string(),
    }
}

/// The address that a redirection means.
fn resolved(from: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let from: Uri = from.parse().ok()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    location
        .starts_with('/')
        .then(|| format!("{scheme}://{authority}{location}"))
}

/// Scheme, host and port.
fn same_host(a: &str, b: &str) -> bool {
    let parse = |url: &str| url.parse::<Uri>().ok();
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.scheme() == b.scheme() && a.authority() == b.authority(),
        _ => false,
    }
}

/// A file of a repository, for a request and for an error.
pub(crate) fn wanted(repo: &Repo, endpoint: &str, what: String, file: &str) -> Wanted {
    let (revision, file) = (encoded(&repo.revision, false), encoded(file, true));
    let url = format!(
        "{endpoint}/{}{}/resolve/{revision}/{file}",
        folder(repo),
        repo.name
    );
    Wanted {
        what,
        repo: repo.clone(),
        url,
    }
}

/// Where repositories of this kind have their pages.
fn folder(repo: &Repo) -> &'static str {
    match repo.kind {
        RepoKind::Model => "",
        RepoKind::Dataset => "datasets/",
    }
}

/// Percent-encodes what is not plain in an address; slashes are kept in paths.
fn encoded(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b'/' if is_path => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::DatasetId;
    use ureq::http::{HeaderName, HeaderValue};

    fn seen(answers: &[(u16, &[(&'static str, &'static str)])]) -> Result<FileInfo, &'static str> {
        let mut seen = Seen::default();
        for (status, headers) in answers {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            seen.note(&headers.collect(), StatusCode::from_u16(*status).unwrap());
        }
        seen.file_info()
    }

    #[test]
    fn what_answers_say_of_a_file() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        let info = |etag: &str, size| FileInfo {
            commit: COMMIT.into(),
            etag: etag.into(),
            size,
        };
        let large = [
            ("x-repo-commit", COMMIT),
            ("x-linked-etag", "\"abc\""),
            ("x-linked-size", "7"),
            ("etag", "\"other\""),
        ];
        assert_eq!(seen(&[(302, &large)]).unwrap(), info("abc", Some(7)));
        // A small file behind a redirection on the same host, which alone names the commit.
        let moved = [
            ("x-repo-commit", COMMIT),
            ("etag", "\"moved\""),
            ("content-length", "0"),
        ];
        let there = [("etag", "W/\"small\""), ("content-length", "9")];
        assert_eq!(
            seen(&[(307, &moved), (200, &there)]).unwrap(),
            info("small", Some(9))
        );
        for (headers, word) in [
            (&[("etag", "\"a\"")][..], "X-Repo-Commit"),
            (&[("etag", "\"a\""), ("x-repo-commit", "main")], "X-Repo-Commit"),
            (&[("x-repo-commit", COMMIT)], "ETag"),
            (&[("x-repo-commit", COMMIT), ("etag", "\"../x\"")], "ETag"),
        ] {
            assert!(seen(&[(200, headers)]).unwrap_err().contains(word));
        }
    }

    #[test]
    fn addresses() {
        let id = DatasetId::parse("a/b@refs/convert/parquet:x y/0.parquet").unwrap();
        assert_eq!(
            wanted(&id.repo, "http://h", String::new(), &id.file.unwrap()).url,
            "http://h/datasets/a/b/resolve/refs%2Fconvert%2Fparquet/x%20y/0.parquet"
        );
        let model = Repo::model("a/b").unwrap();
        let url = wanted(&model, "http://h", String::new(), "config.json").url;
        assert_eq!(url, "http://h/a/b/resolve/main/config.json");
    }

    #[test]
    fn redirections_and_hosts() {
        let moved = |to| resolved("https://h:1/a?b", to);
        assert_eq!(moved("/c/d").as_deref(), Some("https://h:1/c/d"));
        assert_eq!(moved("http://x/c").as_deref(), Some("http://x/c"));
        assert_eq!(moved("c"), None);
        assert!(same_host("https://h/a", "https://h/b/c"));
        for other in ["http://h/a", "https://h:8/a", "https://x.h/a", "nonsense"] {
            assert!(!same_host(other, "https://h"), "{other}");
        }
    }
}
