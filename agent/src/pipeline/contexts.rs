//! Contexts: files of variables for the jobs that ask for them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use navvy_job::compiled::Variables;

use super::env_file::{EnvFileError, read};

/// The contexts a run can offer.
#[derive(Debug, Clone, Default)]
pub struct Contexts {
    known: BTreeMap<String, Variables>,
}

impl Contexts {
    /// The variables of all of them.
    pub fn all(&self) -> impl Iterator<Item = &(String, String)> {
        self.known.values().flatten()
    }

    /// Reads what the jobs ask for: from `given` files, else from `directory/NAME.env`. Returns the missing ones.
    pub fn load(
        asked: impl IntoIterator<Item = String>,
        given: &BTreeMap<String, PathBuf>,
        directory: Option<&Path>,
    ) -> Result<(Self, Vec<String>), EnvFileError> {
        let mut contexts = Self::default();
        let mut missing = Vec::new();
        for name in asked {
            if contexts.known.contains_key(&name) || missing.contains(&name) {
                continue;
            }
            match given.get(&name).cloned().or_else(|| default_file(directory, &name)) {
                Some(path) => {
                    contexts.known.insert(name, read(&path)?);
                }
                None => missing.push(name),
            }
        }
        Ok((contexts, missing))
    }

    /// The names of those that can be read: the `given` ones and `directory/NAME.env`.
    pub fn names(given: &BTreeMap<String, PathBuf>, directory: Option<&Path>) -> BTreeSet<String> {
        let files = directory.and_then(|directory| std::fs::read_dir(directory).ok()).into_iter().flatten().flatten();
        let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".env")?.to_owned()));
        given.keys().cloned().chain(names.filter(|name| default_file(directory, name).is_some())).collect()
    }

    /// Variables of these contexts, later ones winning.
    pub fn variables(&self, names: &[String]) -> Variables {
        names.iter().filter_map(|name| self.known.get(name)).flatten().cloned().collect()
    }
}

/// `DIRECTORY/NAME.env`, for names that are safe as a file name alone.
fn default_file(directory: Option<&Path>, name: &str) -> Option<PathBuf> {
    let safe = !name.is_empty() && !name.starts_with('.') && !name.contains('/') && !name.contains('\0');
    let path = safe.then(|| directory.map(|directory| directory.join(format!("{name}.env")))).flatten()?;
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_name_never_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ok.env"), "A=1").unwrap();
        assert!(default_file(Some(directory.path()), "ok").is_some());
        assert!(default_file(Some(directory.path()), "../x").is_none());
    }
}
