//! Lists of projects in the user's settings: which of them get something of the user's own.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `*`: every project. `DIR/*`: those below this directory. `DIR`: the one that begins there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Projects(Vec<String>);

const EVERY: &str = "*";
const BELOW: &str = "/*";

impl TryFrom<Vec<String>> for Projects {
    type Error = String;

    fn try_from(named: Vec<String>) -> Result<Self, String> {
        let is_place = |text: &str| text.starts_with('/') || text == "~" || text.starts_with("~/");
        let is_plain = |text: &str| !text.strip_suffix(BELOW).unwrap_or(text).contains('*');
        match named.iter().find(|text| *text != EVERY && !(is_place(text) && is_plain(text))) {
            Some(wrong) => Err(format!(
                "{wrong:?} names no projects; write /DIR or ~/DIR for the one there, ~/DIR/* for those below, * for all"
            )),
            None => Ok(Self(named)),
        }
    }
}

impl Projects {
    /// Is the project that begins in this directory, by its real path, among them?
    pub fn hold(&self, project: &Path, home: Option<&Path>) -> bool {
        self.0.iter().any(|named| match named.strip_suffix(BELOW) {
            _ if named == EVERY => true,
            Some(above) => real(above, home).is_some_and(|above| project != above && project.starts_with(above)),
            None => real(named, home).is_some_and(|place| project == place),
        })
    }
}

/// The directory that is meant, if it is there.
fn real(named: &str, home: Option<&Path>) -> Option<PathBuf> {
    let path = match named.strip_prefix('~') {
        Some(rest) => home?.join(rest.trim_start_matches('/')),
        None => Path::new("/").join(named),
    };
    fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(named: &[&str]) -> Result<Projects, String> {
        Projects::try_from(named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_directory_is_itself_and_a_star_what_is_below_it() {
        let home = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        fs::create_dir_all(home.join("work/shop/vendor")).unwrap();
        fs::create_dir_all(home.join("workshop")).unwrap();
        std::os::unix::fs::symlink(home.join("work"), home.join("link")).unwrap();
        let hold = |named: &str, project: &str| list(&[named]).unwrap().hold(&home.join(project), Some(&home));
        assert!(hold("~/work/shop", "work/shop") && hold("~/link/shop", "work/shop"));
        assert!(!hold("~/work/shop", "work/shop/vendor"), "what lies in a project is another one");
        assert!(hold("~/work/*", "work/shop") && hold("~/work/*", "work/shop/vendor"));
        assert!(!hold("~/work/*", "work") && !hold("~/work/*", "workshop") && !hold("~/none/*", "none/a"));
        assert!(hold("*", "anything") && !list(&[]).unwrap().hold(&home, Some(&home)));
        assert!(!list(&["~/work"]).unwrap().hold(&home.join("work"), None));
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for wrong in ["", "shop", "./shop", "~ann/shop", "/work/*/shop", "**", "/work*"] {
            assert!(list(&[wrong]).unwrap_err().contains("names no projects"), "{wrong}");
        }
    }
}
