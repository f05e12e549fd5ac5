//! What of the caller's machine a job is handed, since the user asked for it by name: sockets inside the environment
//! behind which this agent answers.
//!
//! ```text
//! a job's program ─▶ socket, its user's alone ─▶ supervisor ─▶ this agent ─┬─▶ the engine that runs the job: every byte
//!                                                                          └─▶ the user's ssh-agent: what the filter lets through
//! ```
//!
//! They come with the step that asks for them and end with the task. While a task is held nothing answers; the process that continues it
//! with it hands out the same again.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_docker::endpoint::{Address, Endpoint};
use navvy_environment::supervisor::{Caller, Client, ClientError};
use socket2::Socket;

use super::{Done, remote_docker};
use crate::ssh_agent::{self, Filter};
use crate::step::bounded::GivenUp;
use crate::step::cx::StepCx;
use crate::step::handing::{Handed, Opened};
use crate::step::own::{StepError, StepFault, StepOutput};

/// Where every client of Docker looks, and where else if something is there already.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/opt/navvy/handed/docker.sock"];
/// An engine that does not take a connection within this is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Connections to the ssh-agent at once.
const SSH_CALLERS_CAP: usize = 16;
/// A thread that waits for callers needs little.
const STACK: usize = 128 << 10;

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

/// What a user who hands over an engine should know.
pub fn risk_of(endpoint: &Endpoint) -> String {
    let host = match &endpoint.address {
        Address::Unix(_) => "this machine".to_owned(),
        Address::Tcp { authority, .. } => authority.clone(),
    };
    format!(
        "--remote-docker host: a job with setup_remote_docker can do everything root can do on {host}: read and change every \
         file, every container, every secret there"
    )
}

/// Hands over the engine that runs the job. `names_another`: the step says which engine it would like.
pub async fn hand_over_docker(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    names_another: bool,
) -> Result<Done, StepError> {
    if cx.handed.has(&Handed::Docker) {
        output.line("The engine was handed over before; it stays.");
        return Ok(Done::default());
    }
    let engine = cx.engine.ok_or_else(no_engine)?;
    output.line(&format!("{}.", risk_of(engine)));
    output
        .line("Containers that it starts there stay until they are removed; paths that they mount are that machine's.");
    if names_another {
        output.line("`version` and `docker_layer_caching` say nothing here: the engine is what it is.");
    }
    let (client, user, endpoint) = (cx.client.clone(), cx.frame.user.clone(), engine.clone());
    let opened = cx.bounds.bounded(move || open_docker(&client, user, &endpoint)).await??;
    output.line(&format!("The engine answers at {}.", opened.path));
    Ok(Done { handed: Some((Handed::Docker, opened)), ..Done::default() })
}

/// Opens what a held task had been handed before. `None`: it cannot be, which is reported.
pub async fn open_again(cx: &StepCx<'_>, handed: Handed) -> Result<Option<Opened>, GivenUp> {
    if handed == Handed::RemoteDocker {
        return remote_docker_again(cx).await;
    }
    let (client, user, endpoint) = (cx.client.clone(), cx.frame.user.clone(), cx.engine.cloned());
    let (asked, number) = (cx.handing.clone(), cx.handed.notes().len());
    let opening = cx.bounds.bounded(move || match (handed, asked.ssh_agent) {
        (Handed::Docker, _) if asked.docker => open_docker(&client, user, &endpoint.ok_or_else(no_engine)?),
        (Handed::SshAgent { fingerprints }, Some(agent)) => open_ssh_agent(&client, user, number, agent, fingerprints),
        _ => Err(StepFault::from("it was not asked for by name".to_owned())),
    });
    let opened = opening.await?;
    if let Err(fault) = &opened {
        cx.voice.warn(format!("what the job had was not handed out again: {}", fault.reason));
    }
    Ok(opened.ok())
}

async fn remote_docker_again(cx: &StepCx<'_>) -> Result<Option<Opened>, GivenUp> {
    let Some(machines) = &cx.ground.providers.machines else { return Ok(None) };
    let link = machines.remote_of_left(&cx.claim.task, cx.ground.paths).await;
    let opened = match link {
        Ok(link) => remote_docker::open_again(cx, Client::new(link)).await,
        Err(error) => Err(StepFault::from(format!("its machine does not answer: {error}")).into()),
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(StepError::GivenUp(why)) => Err(why),
        Err(StepError::Fault(fault)) => {
            cx.voice.warn(format!("what the job had was not handed out again: {}", fault.reason));
            Ok(None)
        }
    }
}

fn no_engine() -> StepFault {
    StepFault::from("setup_remote_docker: no Docker engine runs this job, so none can be handed to it".to_owned())
}

fn open_docker(client: &Client, user: Option<String>, endpoint: &Endpoint) -> Result<Opened, StepFault> {
    let failed = |error: ClientError| StepFault::of_client("setup_remote_docker: ", &error);
    // Whether it is there is said here, and not by the first command that needs it.
    connect(&endpoint.address)
        .map_err(|error| StepFault::from(format!("setup_remote_docker: no engine at {endpoint}: {error}")))?;
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
    let variables = vec![("DOCKER_HOST".to_owned(), format!("unix://{path}"))];
    Ok(Opened { path: path.to_owned(), listening: vec![listening], variables })
}

/// `number`: of the socket among those of the task.
pub fn open_ssh_agent(
    client: &Client,
    user: Option<String>,
    number: usize,
    agent: PathBuf,
    fingerprints: Vec<String>,
) -> Result<Opened, StepFault> {
    let path = format!("/opt/navvy/handed/ssh-agent-{number}.sock");
    let (relay, listening) =
        client.relay(&path, user).map_err(|error| StepFault::of_client("add_ssh_keys: ", &error))?;
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
    let variables = vec![("SSH_AUTH_SOCK".to_owned(), path.clone())];
    Ok(Opened { listening: vec![listening], variables, path })
}

fn serve(
    relay: navvy_environment::supervisor::Relay,
    meet: impl Fn(Caller) + Send + Clone + 'static,
) -> Result<(), StepFault> {
    let builder = std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK);
    let started = builder.spawn(move || relay.serve(meet));
    started.map(drop).map_err(|error| StepFault::from(format!("could not start a thread: {error}")))
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
