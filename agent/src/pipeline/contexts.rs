//! Contexts: files of variables for the jobs that ask for them.

use std::collections::BTreeMap;
use std::io;
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

    /// Reads them from their files.
    ///
    /// # Errors
    /// One cannot be read, or is no file of variables.
    pub fn load<'a>(files: impl IntoIterator<Item = (&'a String, &'a PathBuf)>) -> Result<Self, EnvFileError> {
        let read = |(name, path): (&String, &PathBuf)| Ok((name.clone(), read(path)?));
        Ok(Self { known: files.into_iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The file of each that is in the user's `directory`, as `NAME.env`. Without a directory there are none.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn files(directory: Option<&Path>) -> io::Result<BTreeMap<String, PathBuf>> {
        let Some(place) = directory else { return Ok(BTreeMap::new()) };
        let mut files = BTreeMap::new();
        for entry in navvy_plain_file::directory::entries(place)? {
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".env")) else { continue };
            files.extend(Self::file(directory, name).map(|file| (name.to_owned(), file)));
        }
        Ok(files)
    }

    /// `DIRECTORY/NAME.env`, if it is there, for names that are safe as a file name alone.
    pub fn file(directory: Option<&Path>, name: &str) -> Option<PathBuf> {
        let safe = !name.is_empty() && !name.starts_with('.') && !name.contains('/') && !name.contains('\0');
        let path = safe.then(|| directory.map(|directory| directory.join(format!("{name}.env")))).flatten()?;
        path.is_file().then_some(path)
    }

    /// Variables of these contexts, later ones winning.
    pub fn variables(&self, names: &[String]) -> Variables {
        names.iter().filter_map(|name| self.known.get(name)).flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_name_never_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ok.env"), "A=1").unwrap();
        assert!(Contexts::file(Some(directory.path()), "ok").is_some());
        assert!(Contexts::file(Some(directory.path()), "../x").is_none());
    }
}
