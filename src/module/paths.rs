//! A choice of layers by their path in a module: `encoder.layers.0.linear_inner`, field names and indices joined by dots.

use super::error::ModuleError;
use regex::Regex;
use std::fmt;
use std::sync::Arc;

/// Which `Linear` layers: those that any of the globs matches, less the exceptions, less what a predicate refuses.
///
/// In a glob `*` stands for any characters within one part of a path, `?` for one of them, and a part `**` for any number
/// of parts. A glob that matches no layer is an error wherever a choice is used: it is a misspelling.
///
/// ```
/// use fista_pruner::module::PathFilter;
///
/// let paths = PathFilter::matching(["encoder.**"]).except(["**.output"]).filter(|path| !path.contains("0"));
/// assert!(paths.chooses("encoder.layers.1.query"));
/// assert!(!paths.chooses("encoder.layers.0.query"));
/// assert!(!paths.chooses("encoder.layers.1.output"));
/// assert!(!paths.chooses("decoder.layers.1.query"));
/// ```
#[derive(Clone, Default)]
pub struct PathFilter {
    /// Empty for every layer.
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    predicates: Vec<Predicate>,
}

/// A glob as it was written, and as an expression over the parts of a path, each ended by a dot.
#[derive(Clone)]
struct Glob {
    text: String,
    pattern: Option<Regex>,
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// Whether the layer of a path is chosen.
type Predicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl fmt::Debug for PathFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathFilter")
            .field("include", &self.include)
            .field("exclude", &self.exclude)
            .field("predicates", &self.predicates.len())
            .finish()
    }
}

fn globs<S: Into<String>>(globs: impl IntoIterator<Item = S>) -> impl Iterator<Item = Glob> {
    globs.into_iter().map(|glob| Glob::new(glob.into()))
}

impl PathFilter {
    /// Every `Linear`.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that at least one of the globs matches; of no glob at all, every one.
    pub fn matching<S: Into<String>>(globs: impl IntoIterator<Item = S>) -> Self {
        Self {
            include: self::globs(globs).collect(),
            ..Self::default()
        }
    }

    /// Without those that any of the globs matches.
    pub fn except<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.exclude.extend(self::globs(globs));
        self
    }

    /// Only those for whose path `predicate` is true.
    pub fn filter(mut self, predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push(Arc::new(predicate));
        self
    }

    /// Whether the layer of that path is chosen.
    pub fn chooses(&self, path: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path));
        (self.include.is_empty() || any(&self.include))
            && !any(&self.exclude)
            && self.predicates.iter().all(|predicate| predicate(path))
    }

    /// Checks that every glob matches one of the layers of these paths, and that something is chosen.
    pub(crate) fn check(&self, linears: &[&str]) -> Result<(), ModuleError> {
        if linears.is_empty() {
            return Err(ModuleError::NoLinear);
        }
        let nothing = |what: String| ModuleError::NothingMatches {
            what,
            linears: linears.iter().map(|path| (*path).to_owned()).collect(),
        };
        for glob in self.include.iter().chain(&self.exclude) {
            if !linears.iter().any(|path| glob.matches(path)) {
                return Err(nothing(format!("`{}`", glob.text)));
            }
        }
        if !linears.iter().any(|path| self.chooses(path)) {
            return Err(nothing("the choice of layers".into()));
        }
        Ok(())
    }
}

impl Glob {
    fn new(text: String) -> Self {
        let part = |part: &str| match part {
            "**" => r"([^.]+\.)*".to_owned(),
            // Escaped first, so that everything but the two signs stands for itself.
            part => regex::escape(part).replace(r"\*", "[^.]*").replace(r"\?", "[^.]") + r"\.",
        };
        let parts: String = text
            .split('.')
            .filter(|part| !part.is_empty())
            .map(part)
            .collect();
        // Only a glob of megabytes is refused; it matches nothing.
        let pattern = Regex::new(&format!("^{parts}$")).ok();
        Self { text, pattern }
    }

    fn matches(&self, path: &str) -> bool {
        let parts = path.split('.').filter(|part| !part.is_empty());
        let path: String = parts.flat_map(|part| [part, "."]).collect();
        self.pattern
            .as_ref()
            .is_some_and(|pattern| pattern.is_match(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, path, expected) in [
            ("fc1", "fc1", true),
            ("fc1", "fc11", false),
            ("fc?", "fc1", true),
            ("fc?", "fc", false),
            ("fc*", "fc", true),
            ("*", "encoder.fc1", false),
            ("**", "encoder.fc1", true),
            ("**", "", true),
            ("**.fc1", "fc1", true),
            ("**.fc1", "a.b.fc1", true),
            ("**.fc1", "a.b.fc12", false),
            ("a.**.b.**.c", "a.x.b.b.y.c", true),
            ("a.**.b.**.c", "a.x.y.c", false),
            ("layers.*.q*_proj", "layers.7.q_proj", true),
            ("layers.*.q*_proj", "layers.7.8.q_proj", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(Glob::new(glob.into()).matches(path), expected, "{glob} on {path}");
        }
    }

    #[test]
    fn misspelt_globs_are_errors() {
        let linears = ["a.fc1", "a.fc2"];
        assert!(PathFilter::all().check(&linears).is_ok());
        assert!(
            PathFilter::matching(["a.*"])
                .except(["**.fc2"])
                .check(&linears)
                .is_ok()
        );
        for wrong in [
            PathFilter::matching(["a.*", "b.*"]),
            PathFilter::all().except(["b.*"]),
            PathFilter::all().except(["**"]),
            PathFilter::all().filter(|_| false),
        ] {
            let error = wrong.check(&linears).unwrap_err();
            assert!(
                matches!(error, ModuleError::NothingMatches { .. }),
                "{wrong:?}: {error}"
            );
        }
        assert!(matches!(PathFilter::all().check(&[]), Err(ModuleError::NoLinear)));
    }
}
