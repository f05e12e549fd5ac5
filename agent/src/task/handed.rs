//! What of the caller's machine a job is handed, since somebody asked for it by name: sockets inside the environment
//! behind which this agent answers.
//!
//! ```text
//! a job's program ─▶ socket, its user's alone ─▶ supervisor ─▶ this agent ─┬─▶ the engine that runs the job: every byte
//!                                                                          └─▶ the user's ssh-agent: what the filter lets through
//! ```
//!
//! They come with the step that asks for them and end with the task. While a task is held nobody answers; whoever goes on
//! with it hands out the same again.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_job::compiled::StepKind;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::Task;
use super::attempt::{Attempted, Place};
use super::builtin::of_client;
use super::own::Trouble;
use super::prepare::Ready;
use crate::environment::endpoint::{Address, Endpoint};
use crate::ssh_agent::{self, Filter};
use crate::step::Frame;
use crate::supervisor::{Caller, Client, ClientError, Listening};

/// Where every client of Docker looks, and where else if something is there already.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/opt/navvy/handed/docker.sock"];
/// An engine that does not take a connection within this is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Connections to the ssh-agent at once.
const SSH_CALLERS_CAP: usize = 16;
/// A thread that waits for callers needs little.
const STACK: usize = 128 << 10;

/// What `navvy run` was told to hand to jobs that ask.
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

/// All that a task has been handed; dropped, nobody answers there any more.
#[derive(Default)]
pub struct HandedOut(Vec<(Handed, Listening)>);

impl HandedOut {
    /// For whoever goes on.
    pub fn notes(&self) -> Vec<Handed> {
        self.0.iter().map(|(handed, _)| handed.clone()).collect()
    }

    /// Keys of the agent that a further step asks for, with those of the steps before it: steps see one agent, and what they
    /// could use they still can.
    pub(super) fn with_keys_before(&self, fingerprints: &[String]) -> Vec<String> {
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

    fn has(&self, handed: &Handed) -> bool {
        self.0.iter().any(|(known, _)| known == handed)
    }

    /// From here on steps are told of it.
    pub(super) fn add(&mut self, frame: &mut Frame, handed: Handed, opened: Opened) {
        frame.layers.builtin.push((opened.variable.to_owned(), opened.value));
        self.0.push((handed, opened.listening));
    }
}

/// A socket that was just made.
pub(super) struct Opened {
    pub path: String,
    listening: Listening,
    /// What steps are told of it.
    variable: &'static str,
    value: String,
}

/// Why the engine of an endpoint can be handed to no job.
///
/// # Errors
/// It is reached over TLS: what a job sent would have to be encrypted for it with the user's own key.
pub fn check_engine(endpoint: &Endpoint) -> Result<(), String> {
    match &endpoint.address {
        Address::Tcp { tls: Some(_), .. } => Err(format!(
            "the engine at {endpoint} (from {}) is reached over TLS, and jobs are handed no keys; name one with a unix:// \
             or plain tcp:// address",
            endpoint.source
        )),
        _ => Ok(()),
    }
}

/// What somebody who hands over an engine should know.
pub fn risk_of(endpoint: &Endpoint) -> String {
    let host = match &endpoint.address {
        Address::Unix(_) => "this machine".to_owned(),
        Address::Tcp { authority, .. } => authority.clone(),
    };
    format!(
        "--remote-docker host: a job with setup_remote_docker can do whatever root can do on {host}: read and change every \
         file, every container, every secret there"
    )
}

impl Task {
    /// Hands over the engine that runs the job.
    pub(super) async fn hand_over_docker(&mut self, ready: &mut Ready, place: Place<'_>) -> Attempted {
        let mut told = match self.begin_own(place) {
            Ok(told) => told,
            Err(attempted) => return *attempted,
        };
        let endpoint = self.context.engine.endpoint().clone();
        if ready.handed.has(&Handed::Docker) {
            told.line("The engine was handed over before; it stays.");
            return self.own_ended(place, &told, Ok(Ok(())));
        }
        told.line(&format!("{}.", risk_of(&endpoint)));
        told.line(
            "Containers that it starts there stay until they are removed; paths that they mount are that machine's.",
        );
        if let StepKind::SetupRemoteDocker { version, docker_layer_caching } = &place.step.kind
            && (version.is_some() || *docker_layer_caching)
        {
            told.line("`version` and `docker_layer_caching` say nothing here: the engine is what it is.");
        }
        let (client, user) = (ready.client.clone(), ready.frame.user.clone());
        let opening = self.bounded(&ready.environment, move || open_docker(&client, user, &endpoint));
        let end = opening.await.map(|opened| {
            opened.map(|opened| {
                told.line(&format!("The engine answers at {}.", opened.path));
                ready.handed.add(&mut ready.frame, Handed::Docker, opened);
            })
        });
        self.own_ended(place, &told, end)
    }

    /// What a held task had been handed before.
    pub(super) async fn hand_out_again(&mut self, ready: &mut Ready, handed: Vec<Handed>) {
        for handed in handed {
            let (client, user) = (ready.client.clone(), ready.frame.user.clone());
            let endpoint = self.context.engine.endpoint().clone();
            let (what, asked, number) = (handed.clone(), self.context.handing.clone(), ready.handed.0.len());
            let opening = self.bounded(&ready.environment, move || match (what, asked.ssh_agent) {
                (Handed::Docker, _) if asked.docker => open_docker(&client, user, &endpoint),
                (Handed::SshAgent { fingerprints }, Some(agent)) => {
                    open_ssh_agent(&client, user, number, agent, fingerprints)
                }
                _ => Err(Trouble::from("it was not asked for by name".to_owned())),
            });
            match opening.await {
                Ok(Ok(opened)) => ready.handed.add(&mut ready.frame, handed, opened),
                Ok(Err(trouble)) => self.warn(format!("what the job had was not handed out again: {}", trouble.reason)),
                // The next step finds out, too, and says why.
                Err(_) => return,
            }
        }
    }
}

fn open_docker(client: &Client, user: Option<String>, endpoint: &Endpoint) -> Result<Opened, Trouble> {
    let failed = |error: ClientError| of_client("setup_remote_docker: ", &error);
    // Whether it is there is told here, and not by the first command that needs it.
    connect(&endpoint.address)
        .map_err(|error| Trouble::from(format!("setup_remote_docker: no engine at {endpoint}: {error}")))?;
    let [usual, other] = DOCKER_SOCKETS;
    let (path, relay, listening) = match client.relay(usual, user.clone()) {
        Ok((relay, listening)) => (usual, relay, listening),
        // Something is there already, or that place is not to be written to.
        Err(ClientError::Failed(_)) => {
            let (relay, listening) = client.relay(other, user).map_err(failed)?;
            (other, relay, listening)
        }
        Err(error) => return Err(failed(error)),
    };
    let address = endpoint.address.clone();
    serve(relay, move |caller: Caller| {
        let joined = connect(&address).and_then(|engine| caller.join(&engine));
        if let Err(error) = joined {
            tracing::debug!(%error, "A job's connection to the engine ended badly.");
        }
    })?;
    Ok(Opened { path: path.to_owned(), listening, variable: "DOCKER_HOST", value: format!("unix://{path}") })
}

/// `number`: of the socket among those of the task.
pub(super) fn open_ssh_agent(
    client: &Client,
    user: Option<String>,
    number: usize,
    agent: PathBuf,
    fingerprints: Vec<String>,
) -> Result<Opened, Trouble> {
    let path = format!("/opt/navvy/handed/ssh-agent-{number}.sock");
    let (relay, listening) = client.relay(&path, user).map_err(|error| of_client("add_ssh_keys: ", &error))?;
    let (filter, callers) = (Filter::new(fingerprints), Arc::new(()));
    serve(relay, move |caller: Caller| {
        // One for the relay, and one for each caller.
        if Arc::strong_count(&callers) > SSH_CALLERS_CAP + 1 {
            return;
        }
        if let Err(error) = ssh_agent::serve(caller, &agent, &filter) {
            tracing::debug!(%error, "A job's connection to the ssh-agent ended badly.");
        }
    })?;
    Ok(Opened { listening, variable: "SSH_AUTH_SOCK", value: path.clone(), path })
}

fn serve(relay: crate::supervisor::Relay, meet: impl Fn(Caller) + Send + Clone + 'static) -> Result<(), Trouble> {
    let builder = std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK);
    let started = builder.spawn(move || relay.serve(meet));
    started.map(drop).map_err(|error| Trouble::from(format!("could not start a thread: {error}")))
}

fn connect(address: &Address) -> std::io::Result<Socket> {
    match address {
        Address::Unix(path) => UnixStream::connect(path).map(Socket::from),
        Address::Tcp { authority, .. } => {
            let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
            for address in std::net::ToSocketAddrs::to_socket_addrs(authority.as_str())? {
                match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(stream.into());
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}
