//! What the process was given from outside.
//!
//! | module | what it holds |
//! |---|---|
//! | [`Settings`] | the process's environment, read once, here, and touched nowhere else |
//! | [`mod@file`], [`env_table`] | the settings files that it names |
//! | [`mod@env`] | the variables that they give jobs |
//! | [`overcommit`] | how many times processors are given out |
//! | [`projects`] | which projects get what |
//! | [`mod@store`] | which store they name |
//! | [`vm`] | what they say about virtual machines |

pub mod env;
pub mod env_table;
pub mod file;
pub mod overcommit;
pub mod projects;
pub mod store;
pub mod vm;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_checkout::Elsewhere;
use navvy_environment::HostPaths;

/// Environment variables and what follows from them. Touches nothing.
#[derive(Debug, Clone)]
pub struct Settings {
    pub variables: BTreeMap<String, String>,
    pub home: Option<PathBuf>,
    pub paths: HostPaths,
    /// Where contexts are kept: `$XDG_CONFIG_HOME/navvy/contexts`.
    pub contexts: Option<PathBuf>,
    /// The user's orbs: `$XDG_DATA_HOME/navvy/orbs`.
    pub orbs: Option<PathBuf>,
    /// An operator's settings: `$XDG_CONFIG_HOME/navvy/settings.toml`.
    pub file: Option<PathBuf>,
    /// The processor that `navvy login` keeps: `$XDG_CONFIG_HOME/navvy/login.toml`.
    pub login: Option<PathBuf>,
    /// What Navvy keeps for its user: `$XDG_DATA_HOME/navvy`.
    pub data: Option<PathBuf>,
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    pub stdin_is_terminal: bool,
    /// Where the user stands.
    pub here: Result<PathBuf, NoDirectory>,
    /// May a repository lead out of itself? Said on the command line.
    pub elsewhere: Elsewhere,
}

/// That the directory is gone in which the program was started, or may not be looked at.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to find the current directory")]
pub struct NoDirectory(#[source] Arc<io::Error>);

impl Settings {
    /// Reads the process's environment.
    pub fn from_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let here = std::env::current_dir().map_err(|error| NoDirectory(Arc::new(error)));
        let given =
            Self::new(variables, io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { here, ..given }
    }

    fn new(variables: BTreeMap<String, String>, stdin: bool, stdout: bool, stderr: bool) -> Self {
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let config = set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let data = set("XDG_DATA_HOME")
            .or_else(|| home.as_ref().map(|home| home.join(".local/share")))
            .map(|data| data.join("navvy"));
        let mut paths = HostPaths::new(&variables, home.as_deref());
        paths.supervisor = set("NAVVY_SUPERVISOR");
        Self {
            paths,
            contexts: config.as_ref().map(|config| config.join("navvy/contexts")),
            login: config.as_ref().map(|config| config.join("navvy/login.toml")),
            file: config.map(|config| config.join("navvy/settings.toml")),
            orbs: data.as_ref().map(|data| data.join("orbs")),
            data,
            home,
            variables,
            stdin_is_terminal: stdin,
            stdout_is_terminal: stdout,
            stderr_is_terminal: stderr,
            here: Ok(PathBuf::from("/")),
            elsewhere: Elsewhere::default(),
        }
    }

    /// Settings of a process with these variables and no terminal.
    #[cfg(test)]
    pub fn for_tests(pairs: &[(&str, &str)]) -> Self {
        let variables = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self::new(variables, false, false, false)
    }

    /// The directory that the user stands in.
    ///
    /// # Errors
    /// It is gone, or may not be looked at.
    pub fn here(&self) -> Result<&Path, NoDirectory> {
        self.here.as_deref().map_err(Clone::clone)
    }

    /// A variable, if it is set and text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// `NO_COLOR` and dumb terminals are respected.
    pub fn wants_color(&self) -> bool {
        self.get("NO_COLOR").is_none_or(str::is_empty) && self.get("TERM") != Some("dumb")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_xdg_variables() {
        let plain = Settings::for_tests(&[("HOME", "/home/u")]);
        assert_eq!(plain.paths.state, PathBuf::from("/home/u/.local/state/navvy"));
        assert_eq!(plain.contexts, Some(PathBuf::from("/home/u/.config/navvy/contexts")));
        assert_eq!(plain.orbs, Some(PathBuf::from("/home/u/.local/share/navvy/orbs")));
        assert_eq!(plain.file, Some(PathBuf::from("/home/u/.config/navvy/settings.toml")));
        assert_eq!(plain.data, Some(PathBuf::from("/home/u/.local/share/navvy")));
        let moved = Settings::for_tests(&[
            ("HOME", "/home/u"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "/d"),
        ]);
        assert_eq!(moved.paths.state, PathBuf::from("/s/navvy"));
        assert_eq!(moved.file, Some(PathBuf::from("/c/navvy/settings.toml")));
        assert_eq!(moved.data, Some(PathBuf::from("/d/navvy")));
        assert_eq!(moved.orbs, Some(PathBuf::from("/d/navvy/orbs")));
        assert_eq!(moved.contexts, Some(PathBuf::from("/c/navvy/contexts")));
    }

    #[test]
    fn a_directory_that_is_gone_is_told_with_its_cause() {
        let gone = NoDirectory(Arc::new(io::ErrorKind::NotFound.into()));
        let settings = Settings { here: Err(gone), ..Settings::for_tests(&[]) };
        let told = navvy_job::chain::chain(&settings.here().unwrap_err());
        assert_eq!(told, "failed to find the current directory: entity not found");
        assert!(Settings::from_process().here().is_ok_and(Path::is_absolute));
    }

    #[test]
    fn no_color_is_respected() {
        assert!(Settings::for_tests(&[("NO_COLOR", "")]).wants_color());
        assert!(!Settings::for_tests(&[("NO_COLOR", "1")]).wants_color());
        assert!(!Settings::for_tests(&[("TERM", "dumb")]).wants_color());
    }
}
