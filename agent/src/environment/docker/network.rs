//! The one bridge network that all tasks share. A network for each job would cost a quarter of a second; instead,
//! containers on this one cannot reach each other.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{NetworkCreateRequest, NetworkInspect};

use super::engine::Engine;
use super::fault;
use crate::environment::command::{self, CommandError};
use crate::environment::docker::run_dir;

pub const NAME: &str = "navvy";
/// Fixed, so that two processes cannot make two networks at once, and a firewall rule can name it.
pub const BRIDGE: &str = "navvy0";
/// The same for an engine that is reached over the network: it may still be on this machine, beside another.
const BRIDGE_ELSEWHERE: &str = "navvy1";
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
/// Where clouds answer who a machine is and with which rights: nothing for a job.
const METADATA: &str = "169.254.169.254/32";
const METADATA_V6: &str = "fd00:ec2::254/128";
/// Docker passes what containers send through this chain before its own rules.
const CHAIN: &str = "DOCKER-USER";
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// Another process that makes the network needs about a quarter of a second.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    #[error("failed to make the docker network {NAME}: {message}")]
    Create { message: String },
    #[error("failed to look at the docker network {NAME}: {message}")]
    Inspect { message: String, disconnected: bool },
    #[error(
        "the docker network {NAME} exists and is not Navvy's (it lets containers reach each other): remove it with \
         `docker network rm {NAME}`"
    )]
    Foreign,
}

/// The network as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkState {
    pub metadata: Metadata,
}

/// Whether jobs reach the cloud's metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    Blocked,
    Open { why: String },
}

impl Engine {
    /// Makes the network unless it is there, and closes it. Asked once for this engine's life.
    pub async fn network(&self, search_path: &str) -> Result<&NetworkState, NetworkError> {
        self.shared.network.get_or_try_init(|| self.ensure_network(search_path)).await
    }

    async fn ensure_network(&self, search_path: &str) -> Result<NetworkState, NetworkError> {
        let (network, rule) = tokio::join!(self.find_or_make(), self.block_metadata(search_path, "iptables", METADATA));
        let network = network?;
        // The chain's rule names the bridge, which need not be there for it.
        let mut metadata = rule;
        if metadata == Metadata::Blocked && network.enable_ipv6 == Some(true) {
            metadata = self.block_metadata(search_path, "ip6tables", METADATA_V6).await;
        }
        Ok(NetworkState { metadata })
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

    /// Adds the rule unless it is there. Where that takes rights that we lack, says so.
    async fn block_metadata(&self, search_path: &str, program: &str, address: &str) -> Metadata {
        let open = |why: &str| Metadata::Open { why: why.to_owned() };
        if !self.endpoint().looks_local() {
            return open("the engine is on another machine");
        }
        if run_dir::uid() != 0 {
            return open("closing it takes root");
        }
        match add_rule(search_path, program, address).await {
            Ok(()) => Metadata::Blocked,
            Err(CommandError::NotFound { .. }) => open(&format!("{program} is not installed")),
            Err(error) => open(&error.to_string()),
        }
    }
}

async fn add_rule(search_path: &str, program: &str, address: &str) -> Result<(), CommandError> {
    let rule = ["-i", BRIDGE, "-d", address, "-j", "REJECT"];
    let with = |verb: &[&'static str]| [&["-w", "5"], verb, &[CHAIN], &rule].concat();
    let check = with(&["-C"]);
    match command::run(program, &check, b"", search_path, COMMAND_LIMIT).await {
        Err(CommandError::Failed { .. }) => {}
        other => return other.map(drop),
    }
    command::run(program, &with(&["-I"]), b"", search_path, COMMAND_LIMIT).await.map(drop)
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
