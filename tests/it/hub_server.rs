//! A hub on this machine: HTTP over `std::net`, the hub's addresses and headers, small repositories, and faults on demand.
//! Large files (weights, parquet, compressed) are redirected to another host name, as the real hub does with its storage.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct State {
    /// By `models/ORG/NAME` or `datasets/ORG/NAME`, then by revision: the commit and its files.
    repos: BTreeMap<String, BTreeMap<String, (String, Files)>>,
    /// Token that a repository wants.
    gated: BTreeMap<String, String>,
    /// Old name to new name.
    moved: BTreeMap<String, String>,
    /// Bytes after which the next answers with a file of this name end.
    cuts: BTreeMap<String, Vec<usize>>,
    /// Files whose contents are not what the headers promise.
    damaged: Vec<String>,
    /// Next requests that are answered with 503.
    busy: usize,
    log: Vec<Request>,
}

/// What a client asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Decoded.
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

pub(crate) struct HubServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A commit for a number.
pub(crate) fn commit(number: u8) -> String {
    format!("{number:02x}").repeat(20)
}

impl HubServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, stop) = (
            Arc::new(Mutex::new(State::default())),
            Arc::new(AtomicBool::new(false)),
        );
        let (shared, stopping) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    break;
                }
                // A client that goes away in the middle is no failure of a test.
                let _ = stream.and_then(|stream| serve(stream, &shared, address.port()));
            }
        });
        Self {
            address,
            state,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Serves files at a revision and at its commit. `repo` is `models/ORG/NAME` or `datasets/ORG/NAME`.
    pub(crate) fn add(&self, repo: &str, revision: &str, commit: &str, files: Files) {
        self.with(|state| {
            let repo = state.repos.entry(repo.to_owned()).or_default();
            for name in [revision, commit] {
                repo.insert(name.to_owned(), (commit.to_owned(), files.clone()));
            }
        });
    }

    pub(crate) fn gate(&self, repo: &str, token: &str) {
        self.with(|state| state.gated.insert(repo.to_owned(), token.to_owned()));
    }

    pub(crate) fn rename(&self, old: &str, new: &str) {
        self.with(|state| state.moved.insert(old.to_owned(), new.to_owned()));
    }

    /// The next answer with `file` ends after `bytes` bytes; the last one given is the next.
    pub(crate) fn cut(&self, file: &str, bytes: usize) {
        self.with(|state| state.cuts.entry(file.to_owned()).or_default().push(bytes));
    }

    pub(crate) fn damage(&self, file: &str) {
        self.with(|state| state.damaged.push(file.to_owned()));
    }

    pub(crate) fn be_busy(&self, requests: usize) {
        self.with(|state| state.busy = requests);
    }

    /// What was asked since the last call.
    pub(crate) fn take_log(&self) -> Vec<Request> {
        self.with(|state| std::mem::take(&mut state.log))
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_large(file: &str) -> bool {
    [".safetensors", ".bin", ".parquet", ".gz"]
        .iter()
        .any(|e| file.ends_with(e))
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut request = Request::default();
    for (number, line) in BufReader::new(stream).lines().enumerate() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if number == 0 {
            let mut words = line.split(' ');
            request.method = words.next().unwrap_or_default().to_owned();
            request.path = decoded(words.next().unwrap_or_default());
        } else if let Some((name, value)) = line.split_once(':') {
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value,
                "range" => request.range = Some(value),
                "authorization" => request.authorization = Some(value),
                _ => {}
            }
        }
    }
    Ok(request)
}

fn decoded(path: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), path.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: String = rest.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, port: u16) -> std::io::Result<()> {
    let request = read_request(&stream)?;
    if request.method.is_empty() {
        return Ok(());
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.log.push(request.clone());
        answer(&mut state, &request, port)
    };
    stream.write_all(answer.head.as_bytes())?;
    if request.method != "HEAD" {
        let end = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
        stream.write_all(&answer.body[..end])?;
    }
    stream.flush()?;
    // Whoever sent more than was read would be reset instead of told the answer.
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = stream.take(1 << 16).read_to_end(&mut Vec::new());
    Ok(())
}

struct Answer {
    head: String,
    body: Vec<u8>,
    cut: Option<usize>,
}

impl Answer {
    fn new(status: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Self {
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        Self {
            head,
            body,
            cut: None,
        }
    }

    fn error(status: &str, code: &str, message: &str) -> Self {
        Self::new(
            status,
            &[("X-Error-Code", code), ("X-Error-Message", message)],
            Vec::new(),
        )
    }
}

fn answer(state: &mut State, request: &Request, port: u16) -> Answer {
    if state.busy > 0 {
        state.busy -= 1;
        return Answer::new("503 Service Unavailable", &[], Vec::new());
    }
    let path = request.path.trim_start_matches('/').to_owned();
    if let Some(digest) = path.strip_prefix("storage/") {
        return stored(state, request, digest);
    }
    for (old, new) in &state.moved {
        if path.contains(old.as_str()) {
            let location = format!("/{}", path.replace(old.as_str(), new));
            return Answer::new(
                "307 Temporary Redirect",
                &[("Location", location.as_str())],
                Vec::new(),
            );
        }
    }
    let (repo, revision, file) = match parse(state, &path) {
        Some(parsed) => parsed,
        // What the hub says to who is not logged in.
        None if request.authorization.is_none() => {
            return Answer::error("401 Unauthorized", "RepoNotFound", "Repository not found");
        }
        None => return Answer::error("404 Not Found", "RepoNotFound", "Repository not found"),
    };
    if let Some(token) = state.gated.get(&repo) {
        match &request.authorization {
            None => return Answer::error("401 Unauthorized", "GatedRepo", "Access is restricted"),
            Some(given) if given != &format!("Bearer {token}") => {
                return Answer::error("403 Forbidden", "GatedRepo", "You are not in the authorized list");
            }
            Some(_) => {}
        }
    }
    let Some((commit, files)) = state.repos[&repo].get(&revision) else {
        return Answer::error("404 Not Found", "RevisionNotFound", "Invalid rev id");
    };
    let Some(file) = file else {
        let siblings: Vec<_> = files
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let body = serde_json::json!({"id": repo, "sha": commit, "siblings": siblings}).to_string();
        return Answer::new(
            "200 OK",
            &[("Content-Type", "application/json")],
            body.into_bytes(),
        );
    };
    let Some(bytes) = files.get(&file) else {
        return Answer::error("404 Not Found", "EntryNotFound", "Entry not found");
    };
    let digest = sha256(bytes);
    if is_large(&file) {
        let (location, etag, size) = (
            format!("http://localhost:{port}/storage/{digest}"),
            format!("\"{digest}\""),
            bytes.len().to_string(),
        );
        let headers = [
            ("X-Repo-Commit", commit.as_str()),
            ("X-Linked-Etag", etag.as_str()),
            ("X-Linked-Size", size.as_str()),
            ("ETag", "\"of the redirection\""),
            ("Location", location.as_str()),
        ];
        return Answer::new("302 Found", &headers, Vec::new());
    }
    let etag = format!("W/\"{}\"", &digest[..40]);
    let headers = [("X-Repo-Commit", commit.clone()), ("ETag", etag)];
    let bytes = bytes.clone();
    contents(state, request, &file, bytes, &headers)
}

/// Repository, revision and file that a path names, where there is such a repository.
fn parse(state: &State, path: &str) -> Option<(String, String, Option<String>)> {
    for repo in state.repos.keys() {
        if let Some(revision) = path
            .strip_prefix(&format!("api/{repo}/revision/"))
            .filter(|revision| !revision.is_empty())
        {
            return Some((repo.clone(), revision.to_owned(), None));
        }
        let page = repo.strip_prefix("models/").unwrap_or(repo);
        if let Some(rest) = path.strip_prefix(&format!("{page}/resolve/")) {
            // A revision may hold slashes: the longest known one, else the first word.
            let known = state.repos[repo]
                .keys()
                .filter(|revision| rest.starts_with(&format!("{revision}/")))
                .max_by_key(|revision| revision.len());
            let length = known
                .map(String::len)
                .unwrap_or_else(|| rest.find('/').unwrap_or(rest.len()));
            let file = rest.get(length + 1..).unwrap_or_default().to_owned();
            return Some((repo.clone(), rest[..length].to_owned(), Some(file)));
        }
    }
    None
}

fn stored(state: &mut State, request: &Request, digest: &str) -> Answer {
    let all = state
        .repos
        .values()
        .flat_map(|revisions| revisions.values())
        .flat_map(|(_, files)| files);
    let found = all
        .filter(|(_, bytes)| sha256(bytes) == digest)
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .next();
    match found {
        Some((file, bytes)) => contents(state, request, &file, bytes, &[]),
        None => Answer::new("404 Not Found", &[], Vec::new()),
    }
}

/// The file, or the range of it that is asked for, with the faults that are ordered.
fn contents(
    state: &mut State,
    request: &Request,
    file: &str,
    mut bytes: Vec<u8>,
    headers: &[(&str, String)],
) -> Answer {
    if state.damaged.iter().any(|name| name == file)
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 1;
    }
    let total = bytes.len();
    let start = request.range.as_deref().and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .trim_end_matches('-')
            .parse::<usize>()
            .ok()
    });
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let range;
    let mut answer = match start {
        Some(start) if start >= total => Answer::new("416 Range Not Satisfiable", &[], Vec::new()),
        Some(start) => {
            range = format!("bytes {start}-{}/{total}", total - 1);
            headers.push(("Content-Range", range.as_str()));
            Answer::new("206 Partial Content", &headers, bytes[start..].to_vec())
        }
        None => Answer::new("200 OK", &headers, bytes),
    };
    if request.method == "GET" {
        answer.cut = state.cuts.get_mut(file).and_then(Vec::pop);
    }
    answer
}
