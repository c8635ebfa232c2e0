//! Values that users see under another name than files and reports have. In: a name. Out: the same value's other name. The
//! command line and the list of `compare --methods` show the new name and accept both; files keep the old one.

/// Every such value, as files have it and as users see it.
const RENAMED: [(&str, &str); 6] = [
    ("l0", "admm"),
    ("refreshed", "true-sequential"),
    ("matrix", "layer"),
    ("row", "output"),
    ("device", "none"),
    ("host", "cpu"),
];

/// The name that users see.
pub(crate) fn shown(stored: &'static str) -> &'static str {
    let renamed = RENAMED.iter().find(|(old, _)| *old == stored);
    renamed.map_or(stored, |(_, new)| new)
}

/// Whether a user means the value that files call `stored`.
pub(crate) fn means(typed: &str, stored: &'static str) -> bool {
    typed == stored || typed == shown(stored)
}
