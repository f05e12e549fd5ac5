//! What of the caller's machine a job may be handed, and what it has been.

use std::path::PathBuf;

use navvy_environment::supervisor::Listening;
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
    /// By `setup_remote_docker`.
    Docker,
    /// By `add_ssh_keys`: these keys of the agent, or all when none is named.
    SshAgent { fingerprints: Vec<String> },
}

/// All that a task has been handed; once it is dropped, nothing answers there any more.
#[derive(Default)]
pub struct HandedOut(Vec<(Handed, Listening)>);

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
        frame.layers.builtin.push((opened.variable.to_owned(), opened.value));
        self.0.push((handed, opened.listening));
    }
}

/// A socket that was just made.
pub struct Opened {
    pub path: String,
    pub listening: Listening,
    /// The variable by which steps find it.
    pub variable: &'static str,
    pub value: String,
}
