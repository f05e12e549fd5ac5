//! The one bridge network that all tasks share. A network for each job would cost a quarter of a second; instead,
//! containers on this one cannot reach each other, nor what [`walls`] keeps from them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bollard::models::{NetworkCreateRequest, NetworkInspect};
use navvy_environment::run_dir;

use super::engine::Engine;
use super::fault;
use super::walls::{self, Walls};
use crate::endpoint::Address;

/// The network's name, the same for every user of an engine.
pub const NAME: &str = "navvy";
/// Fixed, so that two processes cannot make two networks at once, and a firewall rule can name it.
pub const BRIDGE: &str = "navvy0";
/// The same for an engine that is reached over the network: it may still be on this machine, beside another.
const BRIDGE_ELSEWHERE: &str = "navvy1";
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
/// Another process that makes the network needs about a quarter of a second.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// Why jobs have no network.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// The engine did not make it.
    #[error("failed to make the docker network {NAME}: {message}")]
    Create {
        /// The engine's words.
        message: String,
    },
    /// The engine did not describe it, so it is not known whether it is ours.
    #[error("failed to look at the docker network {NAME}: {message}")]
    Inspect {
        /// The engine's words.
        message: String,
        /// The engine is gone, as opposed to: it answered with an error.
        disconnected: bool,
    },
    /// A network of this name was made by somebody else, or by hand.
    #[error(
        "the docker network {NAME} exists and is not Navvy's (it lets containers reach each other): remove it with \
         `docker network rm {NAME}`"
    )]
    Foreign,
}

impl Engine {
    /// Makes the network unless it is there, and closes it. Asked once for this engine's life.
    pub async fn network(&self, search_path: &str) -> Result<&Walls, NetworkError> {
        self.shared.network.get_or_try_init(|| self.ensure_network(search_path)).await
    }

    async fn ensure_network(&self, search_path: &str) -> Result<Walls, NetworkError> {
        // Rules name the bridge, which need not be there for them.
        let walls = async {
            match self.why_rules_are_not_ours() {
                Some(why) => Walls::open(why),
                None => Walls::make(search_path).await,
            }
        };
        let (network, walls) = tokio::join!(self.find_or_make(), walls);
        network.map(|_| walls)
    }

    /// Closes the way of frames from the containers that run now to each other, and says what is closed around them.
    pub(super) fn walls_around(&self, made: &Walls) -> Walls {
        match self.why_rules_are_not_ours() {
            Some(_) => made.clone(),
            None => Walls { frames: walls::isolate_ports(), ..made.clone() },
        }
    }

    /// Why this process cannot make rules for what the engine's containers send.
    pub fn why_rules_are_not_ours(&self) -> Option<&'static str> {
        if !self.endpoint().looks_local() {
            return Some("the engine is on another machine");
        }
        if run_dir::uid() != 0 {
            return Some("closing takes root");
        }
        match &self.endpoint().address {
            Address::Unix(socket) if !shares_network(socket) => Some("the engine has a network of its own"),
            _ => None,
        }
    }

    async fn find_or_make(&self) -> Result<NetworkInspect, NetworkError> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            match self.docker().inspect_network(NAME, None).await {
                Ok(network) => return check(network),
                Err(e) if fault::is_missing(&e) => {}
                Err(e) => {
                    let disconnected = fault::is_disconnect(&e);
                    return Err(NetworkError::Inspect { message: fault::describe(&e), disconnected });
                }
            }
            // A failure is most often another process that was first: look again.
            if let Err(e) = self.docker().create_network(wanted(self.endpoint().looks_local())).await {
                last = fault::describe(&e);
            }
        }
        Err(NetworkError::Create { message: last })
    }
}

/// Is the process that listens there in this process's network? One that cannot be seen is taken to be: only root asks.
fn shares_network(socket: &Path) -> bool {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let Ok(stream) = UnixStream::connect(socket) else { return true };
    let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { return true };
    match (network(&peer.pid.as_raw_nonzero().to_string()), network("self")) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    }
}

fn wanted(local: bool) -> NetworkCreateRequest {
    let bridge = if local { BRIDGE } else { BRIDGE_ELSEWHERE };
    let options = [(OPTION_BRIDGE, bridge), (OPTION_ICC, "false")];
    NetworkCreateRequest {
        name: NAME.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some(options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        labels: Some(HashMap::from([("dev.navvy.role".to_owned(), "network".to_owned())])),
        ..NetworkCreateRequest::default()
    }
}

fn check(network: NetworkInspect) -> Result<NetworkInspect, NetworkError> {
    let closed = network.options.as_ref().and_then(|options| options.get(OPTION_ICC)).is_some_and(|icc| icc == "false");
    if closed { Ok(network) } else { Err(NetworkError::Foreign) }
}
