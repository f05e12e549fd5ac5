//! What of the caller's machine a job may be handed, and what it has been.

use std::path::PathBuf;

use navvy_environment::supervisor::Listening;
use navvy_job::resource::Size;
use serde::{Deserialize, Serialize};

use super::Frame;

/// What `navvy run` was asked to hand to jobs that want it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handing {
    /// `--remote-docker host`: the engine that runs the jobs.
    #[serde(default)]
    pub docker: bool,
    /// `--ssh-key agent`: the socket of the user's ssh-agent.
    #[serde(default)]
    pub ssh_agent: Option<PathBuf>,
}

/// Something that a job has been handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Handed {
    /// By `setup_remote_docker`: the engine that runs the jobs.
    Docker,
    /// By the same: the engine of a machine of the job's own.
    RemoteDocker,
    /// By `add_ssh_keys`: these keys of the agent, or all when none is named.
    SshAgent { fingerprints: Vec<String> },
}

/// All that a task has been handed; once it is dropped, nothing answers there any more.
#[derive(Default)]
pub struct HandedOut(Vec<(Handed, Vec<Listening>)>);

impl HandedOut {
    /// For the process that continues the task.
    pub fn notes(&self) -> Vec<Handed> {
        self.0.iter().map(|(handed, _)| handed.clone()).collect()
    }

    /// Keys of the agent that a further step asks for, with those of the steps before it: steps see one agent, and what they
    /// could use they still can.
    pub fn with_keys_before(&self, fingerprints: &[String]) -> Vec<String> {
        let mut all = fingerprints.to_vec();
        for (handed, _) in &self.0 {
            match handed {
                Handed::SshAgent { fingerprints: before } if before.is_empty() => return Vec::new(),
                Handed::SshAgent { fingerprints: before } if !all.is_empty() => all.extend_from_slice(before),
                _ => {}
            }
        }
        all
    }

    pub fn has(&self, handed: &Handed) -> bool {
        self.0.iter().any(|(known, _)| known == handed)
    }

    /// From here on steps get its variables.
    pub fn add(&mut self, frame: &mut Frame, handed: Handed, opened: Opened) {
        frame.layers.builtin.extend(opened.variables);
        self.0.push((handed, opened.listening));
    }
}

/// What was just opened.
pub struct Opened {
    pub path: String,
    pub listening: Vec<Listening>,
    /// The variables by which steps find it.
    pub variables: Vec<(String, String)>,
}

/// What `setup_remote_docker` gives a job here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDocker {
    /// What its machine has.
    pub size: Size,
    /// What of that it takes from this host.
    pub takes: Size,
    /// The image of it.
    pub image: String,
    /// The version of that image's engine.
    pub docker: String,
    /// As whom `ssh remote-docker` logs in.
    pub user: String,
}

impl RemoteDocker {
    /// Is the engine one of the version that a config asks for?
    ///
    /// # Errors
    /// It is not: what there is.
    pub fn check(&self, wanted: &str) -> Result<(), String> {
        let plain = wanted.trim().to_lowercase();
        if ["default", "edge", "previous", "docker", ""].contains(&plain.as_str()) {
            return Ok(());
        }
        let plain = plain.strip_prefix("docker").unwrap_or(&plain);
        let (asked, has): (Vec<&str>, Vec<&str>) = (plain.split('.').collect(), self.docker.split('.').collect());
        if has.starts_with(&asked) {
            return Ok(());
        }
        Err(format!(
            "version {wanted} of Docker is not here: the image {} has {}. Leave `version` out or name that one, or have an image with \
             another version stand for `default` in the table of images (docs/vm.md)",
            self.image, self.docker
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_honoured_or_refused_with_what_there_is() {
        let (image, user) = ("debian-12-docker".to_owned(), "circleci".to_owned());
        let size = Size::new(1, 1);
        let here = RemoteDocker { size, takes: size, image, docker: "20.10.24".to_owned(), user };
        for good in ["default", "edge", "20", "20.10", "20.10.24", "docker20", "Default"] {
            assert_eq!(here.check(good), Ok(()), "{good}");
        }
        for bad in ["24.0.9", "docker24", "2", "20.1", "20.10.2", "20.10.24.1", "latest"] {
            let told = here.check(bad).unwrap_err();
            assert!(told.contains(bad) && told.contains("debian-12-docker has 20.10.24"), "{told}");
        }
    }
}
