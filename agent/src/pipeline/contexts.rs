//! Secrets from files: contexts and `--env-file`.
//!
//! One `NAME=VALUE` a line; empty lines and lines that begin with `#` are skipped, `export ` in front is allowed, and
//! a value in single or double quotes loses them (`\n`, `\"` and `\\` work in double quotes).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use navvy_job::compiled::Variables;

#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: expected NAME=VALUE", path.display())]
    Syntax { path: PathBuf, line: usize },
    /// It is not shown: it may be a piece of a value, such as a line of a key.
    #[error("{}:{line}: what stands before `=` is no variable name; use letters, digits and _", path.display())]
    Name { path: PathBuf, line: usize },
}

/// Reads a file of variables.
pub fn read(path: &Path) -> Result<Variables, EnvFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| EnvFileError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Variables, EnvFileError> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(EnvFileError::Syntax { path: path.to_owned(), line: line_number });
        };
        let name = name.trim();
        if !is_name(name) {
            return Err(EnvFileError::Name { path: path.to_owned(), line: line_number });
        }
        variables.push((name.to_owned(), unquote(value.trim())));
    }
    Ok(variables)
}

/// `[A-Za-z_][A-Za-z0-9_]*`
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unquote(value: &str) -> String {
    let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    if let Some(literal) = inner('\'') {
        return literal.to_owned();
    }
    let Some(escaped) = inner('"') else { return value.to_owned() };
    let mut text = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => text.push('\n'),
                Some(other @ ('"' | '\\')) => text.push(other),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            (other, false) => text.push(other),
        }
    }
    text
}

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

    fn parsed(text: &str) -> Result<Variables, String> {
        parse(Path::new("x.env"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_variables_are_read_as_people_write_them() {
        let text =
            "# comment\n\nA=1\nexport B='two words'\n  C=\"line\\nbreak \\\"q\\\"\"\nD=a=b # not a comment\nE=\n";
        let variables = parsed(text).unwrap();
        let values: Vec<_> = variables.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1", "two words", "line\nbreak \"q\"", "a=b # not a comment", ""]);
    }

    #[test]
    fn a_bad_line_is_named_and_its_value_is_not_shown() {
        assert_eq!(parsed("A=1\nhunter2\n").unwrap_err(), "x.env:2: expected NAME=VALUE");
        let error = parsed("1A=x").unwrap_err();
        assert!(error.contains("no variable name") && !error.contains("1A"), "{error}");
    }

    #[test]
    fn a_context_name_never_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ok.env"), "A=1").unwrap();
        assert!(default_file(Some(directory.path()), "ok").is_some());
        assert!(default_file(Some(directory.path()), "../x").is_none());
    }
}
