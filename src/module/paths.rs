//! A choice of layers by their path in a module: `encoder.layers.0.linear_inner`, field names and indices joined by dots.

use super::error::ModuleError;
use std::fmt;
use std::sync::Arc;

/// Which `Linear` layers: those that any of the globs matches, less the exceptions, less what a predicate refuses.
///
/// In a glob `*` stands for any characters within one part of a path, `?` for one of them, and a part `**` for any number
/// of parts. A glob that matches no layer is an error wherever a choice is used: it is a misspelling.
///
/// ```
/// use fista_pruner::module::Paths;
///
/// let paths = Paths::matching(["encoder.**"]).except(["**.output"]).filter(|path| !path.contains("0"));
/// assert!(paths.chooses("encoder.layers.1.query"));
/// assert!(!paths.chooses("encoder.layers.0.query"));
/// assert!(!paths.chooses("encoder.layers.1.output"));
/// assert!(!paths.chooses("decoder.layers.1.query"));
/// ```
#[derive(Clone, Default)]
pub struct Paths {
    /// Empty for every layer.
    include: Vec<String>,
    exclude: Vec<String>,
    predicates: Vec<Predicate>,
}

/// Whether the layer of a path is chosen.
type Predicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paths")
            .field("include", &self.include)
            .field("exclude", &self.exclude)
            .field("predicates", &self.predicates.len())
            .finish()
    }
}

fn strings<S: Into<String>>(globs: impl IntoIterator<Item = S>) -> impl Iterator<Item = String> {
    globs.into_iter().map(Into::into)
}

impl Paths {
    /// Every `Linear`.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that at least one of the globs matches; of no glob at all, every one.
    pub fn matching<S: Into<String>>(globs: impl IntoIterator<Item = S>) -> Self {
        Self {
            include: strings(globs).collect(),
            ..Self::default()
        }
    }

    /// Without those that any of the globs matches.
    pub fn except<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.exclude.extend(strings(globs));
        self
    }

    /// Only those for whose path `predicate` is true.
    pub fn filter(mut self, predicate: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push(Arc::new(predicate));
        self
    }

    /// Whether the layer of that path is chosen.
    pub fn chooses(&self, path: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|glob| matches(glob, path));
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
            if !linears.iter().any(|path| matches(glob, path)) {
                return Err(nothing(format!("`{glob}`")));
            }
        }
        if !linears.iter().any(|path| self.chooses(path)) {
            return Err(nothing("the choice of layers".into()));
        }
        Ok(())
    }
}

fn matches(glob: &str, path: &str) -> bool {
    let parts = |text: &str| -> Vec<Vec<char>> {
        let parts = text.split('.').filter(|part| !part.is_empty());
        parts.map(|part| part.chars().collect()).collect()
    };
    parts_match(&parts(glob), &parts(path))
}

fn parts_match(glob: &[Vec<char>], path: &[Vec<char>]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((part, rest)) if part.as_slice() == ['*', '*'] => {
            (0..=path.len()).any(|skipped| parts_match(rest, &path[skipped..]))
        }
        Some((part, rest)) => match path.split_first() {
            Some((name, further)) => part_matches(part, name) && parts_match(rest, further),
            None => false,
        },
    }
}

fn part_matches(glob: &[char], name: &[char]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|skipped| part_matches(rest, &name[skipped..])),
        Some((wanted, rest)) => match name.split_first() {
            Some((found, further)) => (*wanted == '?' || wanted == found) && part_matches(rest, further),
            None => false,
        },
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
            assert_eq!(matches(glob, path), expected, "{glob} on {path}");
        }
    }

    #[test]
    fn misspelt_globs_are_errors() {
        let linears = ["a.fc1", "a.fc2"];
        assert!(Paths::all().check(&linears).is_ok());
        assert!(
            Paths::matching(["a.*"])
                .except(["**.fc2"])
                .check(&linears)
                .is_ok()
        );
        for wrong in [
            Paths::matching(["a.*", "b.*"]),
            Paths::all().except(["b.*"]),
            Paths::all().except(["**"]),
            Paths::all().filter(|_| false),
        ] {
            let error = wrong.check(&linears).unwrap_err();
            assert!(
                matches!(error, ModuleError::NothingMatches { .. }),
                "{wrong:?}: {error}"
            );
        }
        assert!(matches!(Paths::all().check(&[]), Err(ModuleError::NoLinear)));
    }
}
