//! The arguments of `navvy-supervisor init`.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use navvy_protocol::place;

use crate::sys;

/// Any secret the agent makes is far shorter.
const SECRET_CAP: u64 = 4096;

#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    pub run_dir: PathBuf,
    /// The supervisor ends when no agent has called for this long; `None`: it never does.
    pub idle_limit: Option<Duration>,
    /// Whom the entrypoint runs as.
    pub user: Option<String>,
    pub entrypoint: Vec<String>,
}

impl Settings {
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut settings =
            Self { run_dir: place::RUN_DIR.into(), idle_limit: None, user: None, entrypoint: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (name, glued) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || glued.clone().or_else(|| rest.next().cloned()).ok_or(format!("{name} needs a value"));
            match name {
                "--run-dir" => settings.run_dir = value()?.into(),
                "--idle-limit" => settings.idle_limit = seconds(&value()?)?,
                "--user" => settings.user = Some(value()?).filter(|user| !user.is_empty()),
                "--" => {
                    settings.entrypoint = rest.cloned().collect();
                    break;
                }
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(settings)
    }

    /// Reads the task's secret, if the agent left one, and removes it.
    pub fn take_secret(&self) -> io::Result<Option<String>> {
        let path = self.run_dir.join(place::SECRET_FILE);
        let file = match sys::open_regular(sys::c_string(&path)?.as_c_str()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut secret = String::new();
        file.take(SECRET_CAP).read_to_string(&mut secret)?;
        // On a read-only mount it stays; the agent then removes it.
        let _ = std::fs::remove_file(&path);
        Ok(Some(secret.trim_end().to_owned()).filter(|secret| !secret.is_empty()))
    }

    /// Takes the sockets away; in an environment of our own (`all`) also what the job has put beside them, since an agent
    /// that is not uid 0 could not. No link is followed.
    pub fn clear_run_dir(&self, all: bool) {
        for name in [place::CONTROL_SOCKET, place::JOB_SOCKET] {
            let _ = std::fs::remove_file(self.run_dir.join(name));
        }
        for entry in std::fs::read_dir(&self.run_dir).into_iter().flatten().flatten().filter(|_| all) {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // What cannot be removed is the agent's to name.
            let _ = match is_directory {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
        }
    }
}

fn seconds(text: &str) -> Result<Option<Duration>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(format!("--idle-limit {text:?} is not a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        Settings::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments() {
        let settings = parse(&["--run-dir", "/r", "--idle-limit=7", "--user", "me", "--", "run", "--user"]).unwrap();
        assert_eq!(settings.run_dir, PathBuf::from("/r"));
        assert_eq!(settings.idle_limit, Some(Duration::from_secs(7)));
        assert_eq!(settings.user.as_deref(), Some("me"));
        assert_eq!(settings.entrypoint, ["run", "--user"]);
        assert_eq!(parse(&[]).unwrap().run_dir, PathBuf::from(place::RUN_DIR));
        assert!(parse(&["--idle-limit", "soon"]).is_err());
        assert!(parse(&["--user"]).is_err());
        assert!(parse(&["--what"]).is_err());
    }
}
