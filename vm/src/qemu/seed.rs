//! The conversation on the seed's port: what the host says, and how little of the guest it believes.
//!
//! ```text
//! Ready ─▶ [Warm ─▶ Warmed] ─▶ Seed ─▶ Seeded        each answer one line, bounded, within its limit
//! an empty line ─▶ Ready                             of a guest that has said it before
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use navvy_environment::authorities;
use navvy_environment::egress::{CA_DIR, Egress};
use navvy_protocol::guest::{LINE_CAP, Network, Said, Seed, SeedFile, Told, VERSION, Volume};
use serde::Serialize as _;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::lines::Lines;
use super::random::random;
use crate::error::Fault;
use crate::provider::Order;
use crate::ssh_key::SshKey;

/// From a seed to a guest that is what it says: an empty disk may have to be given a file system.
pub const SEEDED_LIMIT: Duration = Duration::from_secs(60);
/// Using once what steps will need: a Docker engine starts in it.
const WARM_LIMIT: Duration = Duration::from_secs(120);
/// What is shown of a guest's own words.
const SHOWN: usize = 300;

/// The open port.
pub struct Seeding(Lines);

impl Seeding {
    /// Over the port's socket.
    pub fn over(stream: UnixStream) -> Self {
        Self(Lines::new(stream, LINE_CAP))
    }

    /// Waits for the guest's first word.
    pub async fn ready(&mut self, deadline: Instant) -> Result<(), Fault> {
        let doing = "waiting for its first word";
        match self.said(doing, deadline).await? {
            Said::Ready { version } if version == VERSION => Ok(()),
            Said::Ready { version } => Err(Fault::Seed(format!(
                "the image's supervisor speaks version {version} of the seed's protocol, and this program {VERSION}: build the image \
                 again"
            ))),
            other => Err(wrong(doing, &other)),
        }
    }

    /// Asks a guest that has said its first word already, to whoever, whether it is there.
    pub async fn ask(&mut self, limit: Duration) -> Result<(), Fault> {
        let sent = tokio::time::timeout(limit, self.0.send(b"\n")).await;
        let doing = "asking whether it is there";
        sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|e| lost(doing, limit, &e))?;
        self.ready(Instant::now() + limit).await
    }

    /// Has the guest use once what steps will need.
    pub async fn warm(&mut self) -> Result<(), Fault> {
        let doing = "being warmed for a snapshot";
        self.tell(doing, &Told::Warm).await?;
        match self.said(doing, Instant::now() + WARM_LIMIT).await? {
            Said::Warmed => Ok(()),
            other => Err(wrong(doing, &other)),
        }
    }

    /// Makes the guest what the seed says; its clock is set to this moment. Returns by how much the guest's clock differed right after.
    pub async fn seed(&mut self, mut seed: Seed, limit: Duration) -> Result<Duration, Fault> {
        let doing = "taking its seed";
        seed.time_ns = now_ns();
        self.tell(doing, &Told::Seed(Box::new(seed))).await?;
        let deadline = Instant::now() + limit;
        match self.said(doing, deadline).await? {
            Said::Seeded { time_ns } => Ok(Duration::from_nanos(time_ns.abs_diff(now_ns()))),
            other => Err(wrong(doing, &other)),
        }
    }

    async fn tell(&mut self, doing: &'static str, told: &Told) -> Result<(), Fault> {
        let mut line = Vec::new();
        told.serialize(&mut serde_json::Serializer::new(&mut line)).map_err(|e| Fault::Seed(e.to_string()))?;
        line.push(b'\n');
        if line.len() > LINE_CAP {
            return Err(Fault::Seed(format!("it would be {} bytes, and may be {LINE_CAP}", line.len())));
        }
        let sent = tokio::time::timeout(SEEDED_LIMIT, self.0.send(&line)).await;
        sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|e| lost(doing, SEEDED_LIMIT, &e))
    }

    async fn said(&mut self, doing: &'static str, deadline: Instant) -> Result<Said, Fault> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let line = self.0.next(deadline).await.map_err(|e| lost(doing, limit, &e))?;
        serde_json::from_slice(&line)
            .map_err(|_| Fault::Hostile { doing, message: shown(&String::from_utf8_lossy(&line)) })
    }
}

fn lost(doing: &'static str, limit: Duration, error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::TimedOut => Fault::NoAnswer { limit, doing },
        std::io::ErrorKind::InvalidData => Fault::Hostile { doing, message: error.to_string() },
        _ => Fault::Ended { doing, message: "its seed's port was closed".to_owned() },
    }
}

fn wrong(doing: &'static str, said: &Said) -> Fault {
    match said {
        Said::Failed { message } => Fault::Seed(shown(message)),
        other => Fault::Hostile { doing, message: format!("it said {}", shown(&format!("{other:?}"))) },
    }
}

/// A stranger's words on one line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// This moment, in nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Everything that makes this machine itself. The host key is made by the caller, who has written down its fingerprint; a machine that is
/// entered by ssh has one already.
pub fn of<'a, I>(
    order: &Order<I>,
    network: Option<Network>,
    key: impl Into<Option<&'a SshKey>>,
    has_docker: bool,
) -> Result<Seed, Fault> {
    let key = key.into().filter(|_| !order.extras.authorized_keys.is_empty());
    let secret = |_| random::<32>().map(|bytes| hex(&bytes)).map_err(Fault::host("make a machine's secrets"));
    let mut files = order.extras.files.clone();
    let mut variables = order.extras.variables.clone();
    files.extend(authorities_of(&order.egress)?);
    if has_docker {
        variables.extend(order.egress.variables().all().cloned());
    }
    let volumes = order.extras.disks.iter();
    Ok(Seed {
        time_ns: 0,
        entropy: secret(())?,
        secret: secret(())?,
        machine_id: order.machine.as_str().to_owned(),
        host_name: order.machine.host_name(),
        idle_limit_s: order.idle_limit.as_secs(),
        network,
        host_key: key.map(|key| key.to_openssh().reveal().to_owned()),
        authorized_keys: order.extras.authorized_keys.clone(),
        docker: has_docker,
        volumes: volumes.map(|disk| Volume { serial: disk.serial.clone(), path: disk.mount.clone() }).collect(),
        files,
        variables,
    })
}

/// The host's bundle of certificates, where jobs are given it: at the place that their variables name.
fn authorities_of(egress: &Egress) -> Result<Option<SeedFile>, Fault> {
    let Some(bundle) = egress.bundle() else { return Ok(None) };
    let path = bundle.directory.join(authorities::FILE);
    let text = std::fs::read_to_string(&path).map_err(Fault::host(format!("read the CA bundle {}", path.display())))?;
    Ok(Some(SeedFile { path: format!("{CA_DIR}/{}", authorities::FILE), mode: 0o644, text }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
