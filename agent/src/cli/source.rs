//! From the words of the command line to a compiled pipeline.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use navvy_checkout::{GitFacts, foreign_owner, top_of_repository};
use navvy_config::{Diagnostic, Inputs, Severity, Source, Value};
use navvy_job::chain::chain;
use navvy_job::pipeline::Pipeline;
use navvy_orbs::OrbPath;
use navvy_orbs::lock::Lock;
use navvy_orbs::place::Place;
use navvy_plain_file as plain_file;
use navvy_ui::sanitize::tame;

use super::CliError;
use super::args::SourceArgs;
use crate::settings::Settings;
use crate::settings::file::SettingsFiles;

pub const DEFAULT_FILE: &str = ".circleci/config.yml";
/// In the directory of the config's orbs.
pub const LOCK: &str = "orbs.lock";

/// Longer ones are refused by the config crate.
const LONGEST: u64 = (8 << 20) + 1;

/// A config's text, where it is, and whose it is.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// `-` for standard input.
    pub path: PathBuf,
    /// As shown in diagnostics.
    pub name: String,
    pub text: String,
    /// Where its project begins.
    project: PathBuf,
    /// Where the user stands.
    directory: PathBuf,
}

impl ConfigFile {
    /// The named file, `-` for standard input, or the one of this directory or the nearest above.
    ///
    /// A named file is a text and nothing else: wherever it lies, the project is the one that the user stands in.
    pub fn find(file: Option<&Path>, directory: &Path) -> Result<Self, CliError> {
        let Some(file) = file else {
            let project = search(directory)?;
            return Self::read(&project.join(DEFAULT_FILE), directory, &project);
        };
        let project = project_around(directory)?;
        if file != Path::new(STDIN) {
            return Self::read(&directory.join(file), directory, &project);
        }
        let name = "<stdin>".to_owned();
        let bytes = read(std::io::stdin().lock()).map_err(|error| unreadable(&name, &error))?;
        let text = text(&name, bytes)?;
        Ok(Self { path: file.to_owned(), name, text, project, directory: directory.to_owned() })
    }

    /// A file that belongs to this project.
    pub fn of_project(settings: &Settings, path: &Path, project: &Path) -> Result<Self, CliError> {
        Self::read(path, settings.here()?, project)
    }

    fn read(path: &Path, directory: &Path, project: &Path) -> Result<Self, CliError> {
        let name = path.strip_prefix(directory).unwrap_or(path).display().to_string();
        if path.is_dir() {
            return Err(is_directory(&name, path));
        }
        let bytes = open(path).and_then(read).map_err(|error| unreadable(&name, &error))?;
        let (text, path) = (text(&name, bytes)?, path.to_owned());
        Ok(Self { path, name, text, project: project.to_owned(), directory: directory.to_owned() })
    }

    pub fn source(&self) -> Source<'_> {
        Source { name: &self.name, text: &self.text }
    }

    /// What messages call a file: relative to where the user is, if it lies there.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.directory).unwrap_or(path).display().to_string()
    }

    /// Where the repository or project begins that it came with.
    pub fn top(&self) -> PathBuf {
        tree_of(&self.project.join(DEFAULT_FILE)).unwrap_or_else(|| self.project.clone())
    }

    /// The directory of its orbs and their lock.
    pub fn home(&self) -> PathBuf {
        self.project.join(CONFIGS)
    }

    /// Where the project of this config begins.
    pub fn project(&self) -> &Path {
        &self.project
    }
}

/// In place of a file: standard input.
pub const STDIN: &str = "-";
/// Where a project keeps its config and its orbs.
const CONFIGS: &str = ".circleci";
/// Whose files are believed beside the user's own.
const ROOT: u32 = 0;

/// The nearest directory with a config, from this one up. A repository ends at its top: what lies above is not its own, and
/// another user who may write there must not decide what runs.
pub fn nearest_config(directory: &Path) -> Result<Option<PathBuf>, CliError> {
    nearest_within(repository(directory)?.as_deref(), directory)
}

/// The same, once it is known where the repository begins.
fn nearest_within(top: Option<&Path>, directory: &Path) -> Result<Option<PathBuf>, CliError> {
    for above in directory.ancestors().take_while(|above| top.is_none_or(|top| above.starts_with(top))) {
        if has_config(above)? {
            // A repository's owner has been looked at already, and who stands in a directory has chosen it.
            if top.is_none() && above != directory {
                refuse_foreign(above)?;
            }
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}

/// One that cannot be looked at is not passed over: another one further up is not what is meant.
fn has_config(directory: &Path) -> Result<bool, CliError> {
    let config = directory.join(DEFAULT_FILE);
    match config.try_exists() {
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(false),
        looked => looked.map_err(|error| unreadable(&config.display().to_string(), &error)),
    }
}

/// Refuses the config of a directory above the user's that another user could have put there: anybody may write to `/tmp`,
/// and what runs may read all that this user may. Root could do that anyway.
fn refuse_foreign(directory: &Path) -> Result<(), CliError> {
    let (home, config) = (directory.join(CONFIGS), directory.join(DEFAULT_FILE));
    for path in [directory, home.as_path(), config.as_path()] {
        let owner = foreign_owner(path, &[ROOT]);
        let owner = owner.map_err(|error| unreadable(&path.display().to_string(), &error))?;
        if let Some(owner) = owner {
            let (config, path) = (config.display(), path.display());
            let why = format!("{path} belongs to another user ({owner}), who could have prepared it");
            return Err(CliError::config(format!("{config} is not taken: {why}")));
        }
    }
    Ok(())
}

fn search(directory: &Path) -> Result<PathBuf, CliError> {
    let top = repository(directory)?;
    let found = nearest_within(top.as_deref(), directory);
    let found =
        found.map_err(|error| error.hint("Name a config with `-f FILE`, or start in a project of your own."))?;
    if let Some(found) = found {
        return Ok(found);
    }
    let around = match top {
        Some(top) if top != directory => format!(" or above it, up to {}, where its repository begins", top.display()),
        Some(_) => ", where its repository begins".to_owned(),
        None => " or above it".to_owned(),
    };
    Err(CliError::config(format!("there is no {DEFAULT_FILE} in {}{around}", directory.display()))
        .hint("Name a config with `-f FILE`, or start in a project that has one."))
}

/// Where the project begins that the user stands in: the part of the repository that has a `.circleci` of its own, else all
/// of it; without a repository the directory itself.
fn project_around(directory: &Path) -> Result<PathBuf, CliError> {
    let Some(top) = repository(directory)? else { return Ok(directory.to_owned()) };
    let mut inside = directory.ancestors().take_while(|above| above.starts_with(&top));
    Ok(inside.find(|above| above.join(CONFIGS).is_dir()).map_or_else(|| top.clone(), Path::to_owned))
}

fn repository(directory: &Path) -> Result<Option<PathBuf>, CliError> {
    Ok(top_of_repository(directory)?)
}

/// A config, wherever it was named: if it lies in a repository or project, no link leads out of that.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    match tree_of(path) {
        Some(top) => plain_file::open(&plain_file::within(&top, path)?),
        None => plain_file::given(path),
    }
}

/// The text of a file that came with a project. None is longer.
fn of_project(top: &Path, path: &Path) -> std::io::Result<String> {
    plain_file::text(&plain_file::within(top, path)?, LONGEST)
}

/// Where the repository or project begins that a file came with, by its name alone: links are what this is asked for.
/// `None`: it lies in none.
fn tree_of(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    let directory = plain.parent()?;
    let repository = directory.ancestors().find(|above| above.join(".git").symlink_metadata().is_ok());
    let project = || directory.ancestors().find(|above| above.file_name().is_some_and(|name| name == ".circleci"));
    repository.or_else(|| project()?.parent()).map(Path::to_owned)
}

fn unreadable(name: &str, error: &std::io::Error) -> CliError {
    CliError::config(format!("could not read {name}: {error}"))
}

/// What is longer than any config is not read to its end: the config crate refuses it.
fn read(source: impl std::io::Read) -> std::io::Result<Vec<u8>> {
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

/// What is pushed, as far as it can be known: the branch or tag of the command line, else the branch that is checked out. What
/// git does not know is not made up: without a branch there is none.
pub fn facts(settings: &Settings, file: &ConfigFile, arguments: &SourceArgs) -> Result<GitFacts, CliError> {
    let mut facts = project_facts(settings, file)?;
    if let Some(tag) = &arguments.tag {
        (facts.branch, facts.tag) = (None, Some(tag.clone()));
    } else if let Some(branch) = &arguments.branch {
        facts.branch = Some(branch.clone());
    }
    Ok(facts)
}

/// Why there is no branch.
pub fn why_no_branch(facts: &GitFacts) -> String {
    match (&facts.head, facts.is_repo) {
        (_, false) => format!("{} is in no git repository", facts.top.display()),
        (Some(head), true) => format!("HEAD is detached, at {}", head.get(..8).unwrap_or(head)),
        (None, true) => "HEAD names none".to_owned(),
    }
}

/// What git knows of the config's project; more of it only where the config asks.
pub fn project_facts(settings: &Settings, file: &ConfigFile) -> Result<GitFacts, CliError> {
    let mut facts = GitFacts::of(file.project(), settings.elsewhere)?;
    facts.load_mentioned(&file.text)?;
    Ok(facts)
}

/// The settings of the config's project and of its user.
pub fn settings_files(settings: &Settings, file: &ConfigFile) -> Result<SettingsFiles, CliError> {
    SettingsFiles::read(settings, file.project()).map_err(|error| CliError::usage(chain(&error)))
}

/// Where the orbs of a config are looked for, and how they are locked.
pub fn orb_path(settings: &Settings, file: &ConfigFile) -> Result<OrbPath, CliError> {
    let path = unlocked_path(settings, file);
    let text = match of_project(&file.top(), &file.home().join(LOCK)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
        Err(error) => return Err(unreadable(&path.lock.shown, &error)),
    };
    let lock = Lock::parse(&path.lock.shown, &text).map_err(|error| {
        CliError::config(error.to_string()).hint("Fix it, or write a new one with `navvy orb lock`.")
    })?;
    Ok(OrbPath { lock, ..path })
}

/// The same, as if there were no lock.
pub fn unlocked_path(settings: &Settings, file: &ConfigFile) -> OrbPath {
    let home = file.home();
    let directory = home.join("orbs");
    let project = Place { shown: file.shown(&directory), directory, within: Some(file.top()) };
    let lock = Lock::empty(&file.shown(&home.join(LOCK)));
    OrbPath { places: std::iter::once(project).chain(user_orbs(settings)).collect(), lock }
}

/// The user's own orbs, for all projects.
pub fn user_orbs(settings: &Settings) -> Option<Place> {
    let directory = settings.orbs.clone()?;
    Some(Place { shown: directory.display().to_string(), directory, within: None })
}

/// What the config is compiled with: as a pipeline has it, in which only what a workflow leads to counts.
pub fn inputs(
    arguments: &SourceArgs,
    orbs: OrbPath,
    facts: &GitFacts,
    values: BTreeMap<String, Value>,
) -> Result<Inputs, CliError> {
    let parameters = arguments.parameters.iter().map(|text| key_value("-p", text)).collect::<Result<_, _>>()?;
    Ok(Inputs {
        branch: facts.branch.clone(),
        tag: facts.tag.clone(),
        parameters,
        values,
        orbs: Some(Arc::new(orbs)),
        allow_missing_orbs: arguments.allows_missing_orbs(),
        tolerate_unreached: true,
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

    /// A directory that git takes for a repository's top.
    fn make_repository(top: &Path) {
        for directory in [".git/objects", ".git/refs"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        std::fs::write(top.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    }

    #[test]
    fn a_named_file_belongs_to_the_project_that_one_stands_in() {
        let top = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(top.path()).unwrap();
        std::fs::create_dir_all(top.join("elsewhere/.circleci")).unwrap();
        std::fs::write(top.join("elsewhere/ci.yml"), "version: 2.1\n").unwrap();
        let repository = top.join("repository");
        std::fs::create_dir_all(repository.join("part/.circleci/deep")).unwrap();
        std::fs::create_dir_all(repository.join("plain")).unwrap();
        make_repository(&repository);
        let project = |from: &str| {
            let file = ConfigFile::find(Some(&top.join("elsewhere/ci.yml")), &top.join(from)).unwrap();
            assert_eq!(file.home(), file.project().join(".circleci"));
            file.project().strip_prefix(&top).unwrap().display().to_string()
        };
        assert_eq!(project("repository/plain"), "repository");
        assert_eq!(project("repository/part/.circleci/deep"), "repository/part");
        assert_eq!(project("elsewhere/.circleci"), "elsewhere/.circleci", "without a repository: here alone");
    }

    #[test]
    fn a_config_above_the_repository_is_not_its_own() {
        let top = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(top.path()).unwrap();
        std::fs::create_dir_all(top.join(".circleci")).unwrap();
        std::fs::write(top.join(DEFAULT_FILE), "version: 2.1\n").unwrap();
        std::fs::create_dir_all(top.join("mine/deep")).unwrap();
        assert_eq!(ConfigFile::find(None, &top.join("mine/deep")).unwrap().project(), top);
        make_repository(&top.join("mine"));
        let told = ConfigFile::find(None, &top.join("mine/deep")).unwrap_err().render();
        assert!(told.contains("mine, where its repository begins") && told.contains("-f FILE"), "{told}");
    }

    /// A directory with a config, and `mine` in it.
    fn shared() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let shared = std::fs::canonicalize(top.path()).unwrap().join("shared");
        for directory in [CONFIGS, "mine"] {
            std::fs::create_dir_all(shared.join(directory)).unwrap();
        }
        std::fs::write(shared.join(DEFAULT_FILE), "version: 2.1\n").unwrap();
        (top, shared)
    }

    #[test]
    fn a_config_above_that_could_be_a_strangers_is_not_taken() {
        // Nobody else may give files away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let give = |path: &Path| std::os::unix::fs::lchown(path, Some(4711), None).unwrap();
        for part in [".", CONFIGS, DEFAULT_FILE] {
            let (_top, shared) = shared();
            let mine = shared.join("mine");
            assert_eq!(nearest_config(&mine).unwrap(), Some(shared.clone()));
            give(&shared.join(part));
            assert!(nearest_config(&mine).is_err(), "{part}");
            let told = ConfigFile::find(None, &mine).unwrap_err().render();
            assert!(told.contains("shared/.circleci/config.yml is not taken"), "{told}");
            assert!(told.contains("another user (4711)") && told.contains("-f FILE"), "{told}");
            // Who names it, or stands beside it, has chosen it.
            assert_eq!(ConfigFile::find(Some(&shared.join(DEFAULT_FILE)), &mine).unwrap().project(), mine);
            assert_eq!(ConfigFile::find(None, &shared).unwrap().project(), shared);
            // A repository whose top is the user's own is believed as a whole, as by git.
            std::os::unix::fs::lchown(&shared, Some(0), None).unwrap();
            make_repository(&shared);
            assert!(nearest_config(&mine).is_ok(), "{part}");
        }
    }

    #[test]
    fn a_strangers_link_to_a_config_of_the_users_own_is_not_taken() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_top, shared) = shared();
        std::fs::rename(shared.join(CONFIGS), shared.join("own")).unwrap();
        std::os::unix::fs::symlink("own", shared.join(CONFIGS)).unwrap();
        assert!(nearest_config(&shared.join("mine")).is_ok());
        std::os::unix::fs::lchown(shared.join(CONFIGS), Some(4711), None).unwrap();
        assert!(nearest_config(&shared.join("mine")).is_err());
    }

    #[test]
    fn a_config_that_cannot_be_looked_at_is_not_passed_over() {
        let (_top, shared) = shared();
        let mine = shared.join("mine");
        std::fs::write(mine.join(CONFIGS), "no directory").unwrap();
        assert_eq!(nearest_config(&mine).unwrap(), Some(shared.clone()));
        std::fs::remove_file(mine.join(CONFIGS)).unwrap();
        std::fs::create_dir(mine.join(CONFIGS)).unwrap();
        std::os::unix::fs::symlink("config.yml", mine.join(DEFAULT_FILE)).unwrap();
        let told = ConfigFile::find(None, &mine).unwrap_err().render();
        assert!(told.contains("could not read") && told.contains("mine/.circleci/config.yml"), "{told}");
    }

    #[test]
    fn what_git_does_not_know_of_the_branch_is_told() {
        let facts = |head: Option<&str>, is_repo| GitFacts {
            top: "/p".into(),
            head: head.map(str::to_owned),
            is_repo,
            ..GitFacts::default()
        };
        assert_eq!(why_no_branch(&facts(None, false)), "/p is in no git repository");
        assert_eq!(why_no_branch(&facts(Some("0123456789ab"), true)), "HEAD is detached, at 01234567");
        let inputs = inputs(&SourceArgs::default(), no_orbs(), &facts(Some("0123"), true), BTreeMap::new()).unwrap();
        assert_eq!((inputs.branch, inputs.tag), (None, None));
    }

    fn no_orbs() -> OrbPath {
        OrbPath { places: Vec::new(), lock: Lock::empty("orbs.lock") }
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
