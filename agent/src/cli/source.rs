//! From the words of the command line to a compiled pipeline.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_config::{Diagnostic, Inputs, Severity, Source, Value};
use navvy_job::pipeline::Pipeline;

use super::CliError;
use super::args::SourceArgs;
use crate::chain::chain;
use crate::checkout::GitFacts;
use crate::orbs::lock::Lock;
use crate::orbs::place::Place;
use crate::orbs::{OrbPath, home_of};
use crate::settings::Settings;
use crate::settings::file::SettingsFiles;
use crate::ui::sanitize::tame;

pub const DEFAULT_FILE: &str = ".circleci/config.yml";
/// In the directory of the config's orbs.
pub const LOCK: &str = "orbs.lock";

/// A config's text and where it is.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    pub path: PathBuf,
    /// As shown in diagnostics.
    pub name: String,
    pub text: String,
    /// Where its project is, when not where the file lies.
    project: Option<PathBuf>,
}

impl ConfigFile {
    /// The named file, or the one of this directory or the nearest above.
    pub fn find(file: Option<&Path>, directory: &Path) -> Result<Self, CliError> {
        let path = match file {
            Some(file) => directory.join(file),
            None => search(directory)?,
        };
        let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
        if path.is_dir() {
            return Err(is_directory(&name, &path));
        }
        let bytes = std::fs::File::open(&path).and_then(read).map_err(|error| unreadable(&name, &error))?;
        let text = text(&name, bytes)?;
        Ok(Self { path, name, text, project: None })
    }

    /// The same, but `-` is standard input; its project is the directory.
    pub fn find_or_stdin(file: Option<&Path>, directory: &Path) -> Result<Self, CliError> {
        if file != Some(Path::new("-")) {
            return Self::find(file, directory);
        }
        let name = "<stdin>".to_owned();
        let bytes = read(std::io::stdin().lock()).map_err(|error| unreadable(&name, &error))?;
        let text = text(&name, bytes)?;
        Ok(Self { path: directory.join("-"), name, text, project: None })
    }

    pub fn source(&self) -> Source<'_> {
        Source { name: &self.name, text: &self.text }
    }

    /// A file that lies elsewhere, but belongs to this project.
    #[must_use]
    pub fn of_project(self, project: &Path) -> Self {
        Self { project: Some(project.to_owned()), ..self }
    }

    /// What messages call a file: relative to where the user is, if it lies there, as the config's own name is.
    fn shown(&self, path: &Path) -> String {
        let below = self.path.to_str().and_then(|path| path.strip_suffix(&*self.name));
        below.and_then(|below| path.strip_prefix(below).ok()).unwrap_or(path).display().to_string()
    }

    /// The directory of its orbs and their lock.
    pub fn home(&self) -> PathBuf {
        self.project.as_ref().map_or_else(|| home_of(&self.path), |project| project.join(".circleci"))
    }

    /// Where the project of this config is: the directory that holds `.circleci`, else that of the file.
    pub fn project(&self) -> PathBuf {
        if let Some(project) = &self.project {
            return project.clone();
        }
        let parent = self.path.parent().unwrap_or(Path::new("."));
        match parent.file_name() {
            Some(name) if name == ".circleci" => parent.parent().unwrap_or(Path::new(".")).to_owned(),
            _ => parent.to_owned(),
        }
    }
}

fn search(directory: &Path) -> Result<PathBuf, CliError> {
    let mut candidates = directory.ancestors().map(|above| above.join(DEFAULT_FILE));
    candidates.find(|path| path.exists()).ok_or_else(|| {
        CliError::config(format!("there is no {DEFAULT_FILE} in {} or above it", directory.display()))
            .hint("Name a config with `-f FILE`, or start in a project that has one.")
    })
}

fn unreadable(name: &str, error: &std::io::Error) -> CliError {
    CliError::config(format!("could not read {name}: {error}"))
}

/// What is longer than any config is not read to its end: the config crate refuses it.
fn read(source: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    const LONGEST: u64 = (8 << 20) + 1;
    let mut bytes = Vec::new();
    source.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Bytes as text. One that is cut off in the middle of a character is too long anyway.
fn text(name: &str, mut bytes: Vec<u8>) -> Result<String, CliError> {
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
        && bytes.len() > 8 << 20
    {
        bytes.resize(error.valid_up_to(), b' ');
        bytes.resize((8 << 20) + 1, b' ');
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        return Err(CliError::config(format!("{name}:{line}: the file is binary: it holds a byte 0"))
            .hint("A config is UTF-8 text; UTF-16 is converted by `iconv -f utf-16 -t utf-8`."));
    }
    String::from_utf8(bytes).map_err(|error| not_text(name, &error))
}

fn is_directory(name: &str, path: &Path) -> CliError {
    let inside = path.join(DEFAULT_FILE);
    let error = CliError::config(format!("{name} is a directory, not a config"));
    if inside.is_file() {
        error.hint(format!("It has one: {}", Path::new(name).join(DEFAULT_FILE).display()))
    } else {
        error.hint("Name the file itself.")
    }
}

fn not_text(name: &str, error: &std::string::FromUtf8Error) -> CliError {
    let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    CliError::config(format!("{name}:{line}: the file is not UTF-8 text"))
        .hint("Save it as UTF-8; `iconv -f latin1 -t utf-8` converts the commonest other encoding.")
}

/// What git knows of the config's project; more of it only where the config asks.
pub fn facts(file: &ConfigFile) -> Result<GitFacts, CliError> {
    let found = GitFacts::of(&file.project()).map_err(|error| CliError::infra(&error));
    let mut facts = found?;
    facts.load_mentioned(&file.text).map_err(|error| CliError::infra(&error))?;
    Ok(facts)
}

/// The settings of the config's project and of its user.
pub fn settings_files(settings: &Settings, file: &ConfigFile) -> Result<SettingsFiles, CliError> {
    SettingsFiles::read(settings, &file.project()).map_err(|error| CliError::usage(chain(&error)))
}

/// Where the orbs of a config are looked for, and how they are locked.
pub fn orb_path(settings: &Settings, file: &ConfigFile) -> Result<OrbPath, CliError> {
    let path = unlocked_path(settings, file);
    let text = match std::fs::read_to_string(file.home().join(LOCK)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
        Err(error) => return Err(unreadable(&path.lock.shown, &error)),
    };
    let lock = Lock::parse(&path.lock.shown, &text).map_err(|error| {
        CliError::config(error.to_string()).hint("Mend it, or have it written anew: `navvy orb lock`.")
    })?;
    Ok(OrbPath { lock, ..path })
}

/// The same, as if there were no lock.
pub fn unlocked_path(settings: &Settings, file: &ConfigFile) -> OrbPath {
    let home = file.home();
    let directory = home.join("orbs");
    let project = Place { shown: file.shown(&directory), directory };
    let lock = Lock::empty(&file.shown(&home.join(LOCK)));
    OrbPath { places: std::iter::once(project).chain(user_orbs(settings)).collect(), lock }
}

/// The user's own orbs, for all projects.
pub fn user_orbs(settings: &Settings) -> Option<Place> {
    let directory = settings.orbs.clone()?;
    Some(Place { shown: directory.display().to_string(), directory })
}

/// What the config is compiled with.
pub fn inputs(
    arguments: &SourceArgs,
    orbs: OrbPath,
    facts: &GitFacts,
    values: BTreeMap<String, Value>,
) -> Result<Inputs, CliError> {
    let parameters = arguments.parameters.iter().map(|text| key_value("-p", text)).collect::<Result<_, _>>()?;
    let branch = arguments.branch.clone().or_else(|| facts.branch.clone()).unwrap_or_else(|| "main".to_owned());
    Ok(Inputs {
        branch: arguments.tag.is_none().then_some(branch),
        tag: arguments.tag.clone(),
        parameters,
        values,
        orbs: Some(Arc::new(orbs)),
        allow_missing_orbs: arguments.allows_missing_orbs(),
    })
}

/// Splits `KEY=VALUE`.
pub fn key_value(flag: &str, text: &str) -> Result<(String, String), CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CliError::usage(format!("{flag} {text}: expected KEY=VALUE"))),
    }
}

/// Compiles; prints what there is to say. Errors end the command.
pub fn compile(file: &ConfigFile, inputs: &Inputs) -> Result<Pipeline, CliError> {
    let outcome = navvy_config::compile(&file.source(), inputs);
    tell(&outcome.render(&file.source()));
    match outcome.pipeline {
        Some(pipeline) => Ok(pipeline),
        None => Err(CliError::config(format!("{}: {}; nothing was run", file.name, count(&outcome.diagnostics)))),
    }
}

/// Prints diagnostics.
pub fn tell(rendered: &str) {
    std::io::stderr().lock().write_all(tame(rendered, true).as_bytes()).ok();
}

/// `2 errors, 1 warning`.
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let of = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    match warnings {
        0 => plural(errors, "error"),
        _ if errors == 0 => plural(warnings, "warning"),
        _ => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_config_above_is_found() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(top.path().join(".circleci")).unwrap();
        std::fs::write(top.path().join(DEFAULT_FILE), "version: 2.1\n").unwrap();
        let file = ConfigFile::find(None, &deep).unwrap();
        assert_eq!(file.text, "version: 2.1\n");
        assert_eq!(file.project(), top.path());
    }

    #[test]
    fn what_is_no_text_file_is_told_apart() {
        let top = tempfile::tempdir().unwrap();
        let told = |name: &str| ConfigFile::find(Some(Path::new(name)), top.path()).unwrap_err().render();
        std::fs::create_dir_all(top.path().join("project/.circleci")).unwrap();
        assert_eq!(told("project"), "Error: project is a directory, not a config\nHint: Name the file itself.\n");
        std::fs::write(top.path().join("project").join(DEFAULT_FILE), "version: 2.1\n").unwrap();
        assert!(told("project").contains("It has one: project/.circleci/config.yml"), "{}", told("project"));
        std::fs::write(top.path().join("zero"), b"a: 1\n\0").unwrap();
        assert!(told("zero").starts_with("Error: zero:2: the file is binary"), "{}", told("zero"));
    }

    #[test]
    fn a_file_without_end_is_read_as_far_as_a_config_may_go() {
        let endless = std::io::repeat(b'x');
        assert_eq!(read(endless).unwrap().len(), (8 << 20) + 1);
        let cut = [vec![b'x'; 8 << 20], vec!["ä".as_bytes()[0]]].concat();
        assert_eq!(text("cut", cut).unwrap().len(), (8 << 20) + 1);
    }

    #[test]
    fn a_missing_or_binary_config_is_named() {
        let top = tempfile::tempdir().unwrap();
        let missing = ConfigFile::find(Some(Path::new("no.yml")), top.path()).unwrap_err();
        assert!(missing.render().contains("could not read no.yml"), "{}", missing.render());
        std::fs::write(top.path().join("latin.yml"), b"a: 1\nb: \xe9\n").unwrap();
        let binary = ConfigFile::find(Some(Path::new("latin.yml")), top.path()).unwrap_err();
        assert!(binary.render().contains("latin.yml:2: the file is not UTF-8"), "{}", binary.render());
    }
}
