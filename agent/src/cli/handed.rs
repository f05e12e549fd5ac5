//! Which of the user's own contexts and files of variables the jobs of a project get.
//!
//! ```text
//! asked for ─▶ named on the command line ──▶ given
//!          └─▶ scope fork:… ───────────────▶ not given
//!          └─▶ settings say which projects ▶ given, or not
//!          └─▶ remembered ─────────────────▶ given
//!          └─▶ a terminal: the user is asked, a yes is remembered; none: not given
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use navvy_checkout::GitFacts;
use navvy_job::claim::TrustScope;
use navvy_job::event::ContextGiven;
use navvy_ui::sanitize::clean;

use super::CliError;
use super::source::{ConfigFile, tell};
use crate::consent::{Asking, Consents, Own};
use crate::pipeline::Contexts;
use crate::settings::Settings;
use crate::settings::file::SettingsFiles;
use crate::settings::projects::Projects;

/// Jobs by the context that they ask for.
pub type Users = BTreeMap<String, Vec<String>>;

/// Notes that a job asks for contexts.
pub fn add_user(users: &mut Users, job: &str, contexts: &[String]) {
    for context in contexts {
        let jobs = users.entry(context.clone()).or_default();
        if !jobs.iter().any(|known| known == job) {
            jobs.push(job.to_owned());
        }
    }
}

/// `--context`: `NAME=FILE`, or `NAME` for the user's own of that name.
pub fn named_contexts(words: &[String], directory: Option<&Path>) -> Result<BTreeMap<String, PathBuf>, CliError> {
    let named = |text: &String| match context_name(text)? {
        (name, Some(file)) => Ok((name.to_owned(), PathBuf::from(file))),
        (name, None) => match Contexts::file(directory, name) {
            Some(file) => Ok((name.to_owned(), file)),
            None => Err(CliError::usage(format!(
                "--context {name}: you have no context of this name{}",
                in_place(directory)
            ))
            .hint(format!("Name its file: --context {name}=FILE"))),
        },
    };
    words.iter().map(named).collect()
}

fn in_place(directory: Option<&Path>) -> String {
    directory.map(|directory| format!(" in {}", directory.display())).unwrap_or_default()
}

/// The name in a word of `--context`, and the file if it names one.
pub fn context_name(text: &str) -> Result<(&str, Option<&str>), CliError> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(file)),
        None => (text, None),
    };
    match name.is_empty() || file == Some("") {
        true => Err(CliError::usage(format!("--context {text}: expected NAME or NAME=FILE"))),
        false => Ok((name, file)),
    }
}

/// Decides who gets what.
pub struct Desk<'a> {
    settings: &'a Settings,
    files: &'a SettingsFiles,
    consents: Consents,
    scope: TrustScope,
    /// Is there a person who can be asked?
    asks: bool,
}

/// Why something is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Fork,
    OfOthers,
    NeverGiven,
    Declined,
}

impl<'a> Desk<'a> {
    pub fn new(
        settings: &'a Settings,
        files: &'a SettingsFiles,
        file: &ConfigFile,
        facts: &GitFacts,
        scope: &TrustScope,
    ) -> Result<Self, CliError> {
        let directory = fs::canonicalize(file.project()).map_err(|error| CliError::infra(&error))?;
        // Standard input has no path, and stays as it is.
        let config = fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
        let origin = facts.origin.as_ref().map(|origin| origin.url.clone());
        let consents = Consents::new(&settings.paths.state, Asking { directory, config, origin });
        Ok(Self { settings, files, consents, scope: scope.clone(), asks: false })
    }

    /// It may ask, if there is a terminal for question and answer.
    #[must_use]
    pub fn asking(self, may_ask: bool) -> Self {
        Self { asks: may_ask && self.settings.stdin_is_terminal && self.settings.stderr_is_terminal, ..self }
    }

    /// What jobs get. `named` stands on the command line; `may_come`: a config that is not known yet may ask for more.
    pub fn hand_out(&self, mut named: BTreeMap<String, PathBuf>, users: &Users, may_come: bool) -> Handed {
        named.retain(|name, _| may_come || users.contains_key(name));
        let mut handed = Handed { contexts: named, ..Handed::default() };
        let directory = self.settings.contexts.as_deref();
        for (name, jobs) in users {
            if let Some(file) = Contexts::file(directory, name).filter(|_| !handed.contexts.contains_key(name)) {
                let own = Own::Context(name.clone());
                let decided = self.decide(&own).or_else(|refusal| self.ask(&own, refusal, &file, jobs));
                handed.decided(name, file, decided.map_err(|refusal| self.why(&own, refusal)));
            }
        }
        if may_come {
            let files = Contexts::files(directory).unwrap_or_else(|error| {
                let directory = directory.unwrap_or(Path::new("")).display();
                handed
                    .warnings
                    .push(format!("your contexts in {directory} are not given: they cannot be listed ({error})"));
                BTreeMap::new()
            });
            for (name, file) in files {
                if !handed.contexts.contains_key(&name) && !handed.refused.contains_key(&name) {
                    let own = Own::Context(name.clone());
                    let decided = self.decide(&own).map_err(|refusal| self.why(&own, refusal));
                    handed.decided(&name, file, decided);
                }
            }
        }
        for file in self.files.user.env_file_places(self.settings.home.as_deref()) {
            let own = Own::EnvFile(file.clone());
            match self.decide(&own).or_else(|refusal| self.ask(&own, refusal, &file, &[])) {
                Ok(()) => drop(handed.env_files.insert(file)),
                Err(refusal) => {
                    let why = self.why(&own, refusal);
                    handed.warnings.push(format!("your env-file {} is not given: {why}", file.display()));
                }
            }
        }
        handed
    }

    fn decide(&self, own: &Own) -> Result<(), Refusal> {
        if matches!(self.scope, TrustScope::Fork(_)) {
            return Err(Refusal::Fork);
        }
        let (home, directory) = (self.settings.home.as_deref(), &self.consents.asking().directory);
        match self.said(own) {
            Some(projects) if projects.hold(directory, home) => Ok(()),
            Some(_) => Err(Refusal::OfOthers),
            None if self.consents.has(own) => Ok(()),
            None => Err(Refusal::NeverGiven),
        }
    }

    fn said(&self, own: &Own) -> Option<&Projects> {
        match own {
            Own::Context(name) => self.files.context_projects(name),
            Own::EnvFile(_) => self.files.env_file_projects(),
        }
    }

    /// Asks the user, where that is possible and they have not decided yet.
    fn ask(&self, own: &Own, refusal: Refusal, file: &Path, jobs: &[String]) -> Result<(), Refusal> {
        if refusal != Refusal::NeverGiven || !self.asks {
            return Err(refusal);
        }
        let mut terminal = std::io::stderr().lock();
        let asked = write!(terminal, "{} [y/N] ", self.question(own, file, jobs)).and_then(|()| terminal.flush());
        let mut answer = String::new();
        if asked.is_err() || std::io::stdin().lock().read_line(&mut answer).is_err() {
            return Err(refusal);
        }
        if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Err(Refusal::Declined);
        }
        if let Err(error) = self.consents.remember(own) {
            let told = writeln!(terminal, "It is given to this run alone: the answer could not be kept: {error}");
            told.ok();
        }
        Ok(())
    }

    /// Names in it are a stranger's.
    fn question(&self, own: &Own, file: &Path, jobs: &[String]) -> String {
        let Asking { directory, config, origin } = self.consents.asking();
        let config = config.strip_prefix(directory).unwrap_or(config).display();
        let origin = origin.as_ref().map(|origin| format!(", which says it is {origin}")).unwrap_or_default();
        let project = format!("{config} of {}{origin}", directory.display());
        let what = match own {
            Own::Context(name) => format!("{project} asks for your context {name}, for {}.", jobs.join(", ")),
            Own::EnvFile(_) => format!("Your settings give jobs an env-file. The config that runs: {project}."),
        };
        let question = format!("Its jobs can read all of {}. Give it to this project, now and later?", file.display());
        format!("{}\n{}", clean(&what), clean(&question))
    }

    /// Why it is not given, and how it is.
    fn why(&self, own: &Own, refusal: Refusal) -> String {
        let why = match refusal {
            Refusal::Fork => format!("scope {} gets only what the command line names", self.scope),
            Refusal::OfOthers => "your settings give it to other projects alone".to_owned(),
            Refusal::NeverGiven => {
                format!("you have not given it to {} yet", self.consents.asking().directory.display())
            }
            Refusal::Declined => "you said no".to_owned(),
        };
        let (flag, key) = match own {
            Own::Context(name) => (format!("--context {name}"), format!("[contexts.{name}]")),
            Own::EnvFile(path) => (format!("--env-file {}", path.display()), "env-file-projects".to_owned()),
        };
        match refusal {
            Refusal::Fork => format!("{why}. {flag} gives it to this run"),
            _ => format!("{why}. {flag} gives it to one run, {key} in your settings.toml to projects for good"),
        }
    }
}

/// What the jobs of a run get of the user's own.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// Contexts, and where they are.
    pub contexts: BTreeMap<String, PathBuf>,
    /// Files of the user's `env-file`.
    pub env_files: BTreeSet<PathBuf>,
    /// What is to be said of files that are not given.
    pub warnings: Vec<String>,
    /// Contexts that are there and are not given, with the reason.
    refused: BTreeMap<String, String>,
}

impl Handed {
    fn decided(&mut self, name: &str, file: PathBuf, decided: Result<(), String>) {
        match decided {
            Ok(()) => drop(self.contexts.insert(name.to_owned(), file)),
            Err(why) => drop(self.refused.insert(name.to_owned(), why)),
        }
    }

    /// The jobs that got each context.
    pub fn given(&self, users: &Users) -> Vec<ContextGiven> {
        let given = users.iter().filter(|(name, _)| self.contexts.contains_key(*name));
        given.map(|(name, jobs)| ContextGiven { context: name.clone(), jobs: jobs.clone() }).collect()
    }

    /// A sentence for each context that jobs ask for and do not get.
    pub fn not_given(&self, users: &Users, directory: Option<&Path>) -> Vec<String> {
        let missing = users.iter().filter(|(name, _)| !self.contexts.contains_key(*name));
        let told = missing.map(|(name, jobs)| match (self.refused.get(name), jobs.join(", ")) {
            (Some(why), jobs) => format!("context {name} is not given to {jobs}: {why}"),
            (None, jobs) => {
                let place = directory.map(|place| format!(" or as {}/{name}.env", place.display())).unwrap_or_default();
                format!("context {name} is not here; used by {jobs}. Give it with --context {name}=FILE{place}")
            }
        });
        told.collect()
    }

    /// Says on standard error what is not given, for commands that have no report.
    pub fn tell(&self, users: &Users, directory: Option<&Path>) {
        for warning in self.warnings.iter().cloned().chain(self.not_given(users, directory)) {
            tell(&format!("warning: {warning}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_with_a_file_or_as_the_user_s_own() {
        let mine = tempfile::tempdir().unwrap();
        fs::write(mine.path().join("prod.env"), "A=1").unwrap();
        let named = |word: &str| {
            let named = named_contexts(&[word.to_owned()], Some(mine.path())).map_err(|error| error.render())?;
            Ok::<_, String>(
                named.into_iter().map(|(name, file)| (name, file.display().to_string())).collect::<Vec<_>>(),
            )
        };
        let own = mine.path().join("prod.env").display().to_string();
        assert_eq!(named("prod").unwrap(), [("prod".to_owned(), own)]);
        assert_eq!(named("prod=x=y.env").unwrap(), [("prod".to_owned(), "x=y.env".to_owned())]);
        for wrong in ["", "=x.env", "prod="] {
            assert!(named(wrong).unwrap_err().contains("expected NAME or NAME=FILE"), "{wrong}");
        }
        for missing in ["staging", "../prod", "."] {
            let told = named(missing).unwrap_err();
            assert!(told.contains("you have no context of this name in") && told.contains("=FILE"), "{told}");
        }
    }
}
