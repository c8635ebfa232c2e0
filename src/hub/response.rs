//! What a hub's answers say. In: headers and addresses. Out: a file's commit, etag and size, where a redirection leads, and a
//! refusal in words; `client` asks.

use super::id::is_commit;
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, Uri};

/// What the hub says of a file without sending it.
#[derive(Debug)]
pub(crate) struct FileInfo {
    /// The commit that the revision stands at.
    pub(crate) commit: String,
    /// A name for the contents; of large files, their SHA-256 in hex.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

/// What the answers on the way to a file said of it.
#[derive(Default)]
pub(crate) struct Seen {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Seen {
    /// Takes what an answer says that none before it did.
    pub(crate) fn note(&mut self, headers: &HeaderMap, status: StatusCode) {
        let own = |value: Option<&str>| value.map(str::to_owned);
        self.commit = self.commit.take().or_else(|| own(text(headers, "x-repo-commit")));
        // Of a redirection, these are about the redirection itself.
        let of_file = |name| text(headers, name).filter(|_| status.is_success());
        let etag = text(headers, "x-linked-etag").or_else(|| of_file("etag"));
        let size = text(headers, "x-linked-size").or_else(|| of_file("content-length"));
        self.etag = self.etag.take().or_else(|| own(etag));
        self.size = self.size.or_else(|| size?.parse().ok());
    }

    /// All of it, or what no hub leaves out.
    pub(crate) fn file_info(self) -> Result<FileInfo, &'static str> {
        let etag = self.etag.unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
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
            etag: etag.to_owned(),
            size: self.size,
        })
    }
}

/// A header's value, where it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The first byte of a range that is sent.
pub(crate) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, "content-range")?.strip_prefix("bytes ")?;
    range.split('-').next()?.parse().ok()
}

/// The address that a redirection means.
pub(crate) fn resolved(from: &str, location: &str) -> Option<String> {
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
pub(crate) fn same_host(a: &str, b: &str) -> bool {
    let parse = |url: &str| url.parse::<Uri>().ok();
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a.scheme() == b.scheme() && a.authority() == b.authority(),
        _ => false,
    }
}

/// The status, and what the hub says about it.
pub(crate) fn reason(response: &Response<Body>) -> String {
    let message = text(response.headers(), "x-error-message").filter(|message| !message.is_empty());
    match message {
        Some(message) => format!("{}: {message}", response.status()),
        None => response.status().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answers: &[(u16, &[(&'static str, &'static str)])]) -> Result<FileInfo, &'static str> {
        let mut seen = Seen::default();
        for (status, headers) in answers {
            let headers = headers.iter().map(|(name, value)| {
                let name = ureq::http::HeaderName::from_static(name);
                (name, ureq::http::HeaderValue::from_static(value))
            });
            seen.note(&headers.collect(), StatusCode::from_u16(*status).unwrap());
        }
        seen.file_info()
    }

    #[test]
    fn what_answers_say_of_a_file() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        let large = [
            ("x-repo-commit", COMMIT),
            ("x-linked-etag", "\"abc\""),
            ("x-linked-size", "7"),
            ("etag", "\"other\""),
        ];
        let found = seen(&[(302, &large)]).unwrap();
        assert_eq!(
            (found.commit.as_str(), found.etag.as_str(), found.size),
            (COMMIT, "abc", Some(7))
        );
        // A small file behind a redirection on the same host, which alone names the commit.
        let moved = [
            ("x-repo-commit", COMMIT),
            ("etag", "\"moved\""),
            ("content-length", "0"),
        ];
        let there = [("etag", "W/\"small\""), ("content-length", "9")];
        let found = seen(&[(307, &moved), (200, &there)]).unwrap();
        assert_eq!(
            (found.commit.as_str(), found.etag.as_str(), found.size),
            (COMMIT, "small", Some(9))
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
