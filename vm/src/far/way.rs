//! How a machine is entered: written down before the first secret goes there, so that the next process goes the same way.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::mux_link::MuxLink;
use navvy_environment::supervisor::Connect;
use navvy_plain_file as plain_file;
use navvy_protocol::place;
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};

use super::dial::OverSsh;
use crate::ssh::{SshLink, Target};
use crate::ssh_key::SshKey;

/// Bytes of the longest file with a key.
const LONGEST: u64 = 64 << 10;

/// How a machine is entered. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Address or name.
    pub address: String,
    /// Port of its ssh server.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The host key that it must show, as a line of `known_hosts` has it behind the host's name.
    pub host_key: String,
    /// File with the key by which it is entered.
    pub key_file: PathBuf,
    /// How its supervisor is reached from there.
    pub forwarding: Forwarding,
}

/// How a supervisor is reached over ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// The server connects us to its socket: a channel for each activity.
    Sockets,
    /// It refuses that: a program there carries all activities over its stdin and stdout.
    Dial {
        /// The program, there.
        program: String,
    },
}

/// The supervisor's socket, there.
pub(crate) fn control_socket() -> String {
    format!("{}/{}", place::RUN_DIR, place::CONTROL_SOCKET)
}

impl Way {
    /// Whom to enter, and by which key.
    ///
    /// # Errors
    /// The key's file cannot be read, or one of the keys is none.
    pub(crate) fn target(&self) -> io::Result<Target> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let (file, host_key) = (self.key_file.display(), &self.host_key);
        let text = plain_file::text(&self.key_file, LONGEST)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read the key {file}: {error}")))?;
        let key = SshKey::from_openssh(&text).map_err(|error| wrong(format!("{file}: {error}")))?;
        let host_key = PublicKey::from_openssh(host_key).map_err(|error| {
            wrong(format!("{host_key:?} is no host key as in /etc/ssh/ssh_host_ed25519_key.pub ({error})"))
        })?;
        Ok(Target { address: self.address.clone(), port: self.port, user: self.user.clone(), key, host_key })
    }

    /// The way to its supervisor, which answers already. Within a Tokio runtime only.
    ///
    /// # Errors
    /// It cannot be entered, or no supervisor is there.
    pub(crate) async fn open(&self, secret: String, limit: Duration) -> io::Result<Arc<dyn Connect>> {
        let target = self.target()?;
        match &self.forwarding {
            Forwarding::Sockets => {
                let link = SshLink::open(target, &control_socket(), secret, limit).await;
                let gone = |error: crate::ssh::SshFault| io::Error::new(io::ErrorKind::NotConnected, error.to_string());
                Ok(Arc::new(link.map_err(gone)?))
            }
            Forwarding::Dial { program } => {
                Ok(Arc::new(MuxLink::open(OverSsh::to_control(target, program), Some(secret)).await?))
            }
        }
    }
}
