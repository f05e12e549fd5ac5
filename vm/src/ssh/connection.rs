//! One ssh connection to a machine whose host key is known beforehand.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_job::outcome::Blame;
use russh::client::{self, Handle, Handler};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Disconnect, Preferred};
use tokio::time::Instant;

use crate::ssh_key::SshKey;

/// One try to connect and to come in.
const TRY: Duration = Duration::from_secs(20);
/// Between two tries while a machine boots.
const BETWEEN: Duration = Duration::from_secs(1);
/// To open a channel: the far side only has to connect to a socket of its own.
const CHANNEL: Duration = Duration::from_secs(15);
/// A machine that says nothing for so long is asked whether it lives; after four unanswered questions it counts as gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const UNANSWERED: usize = 4;
/// Bytes of a program's words that are kept.
const WORDS: usize = 2000;

/// A machine, and how it is entered.
#[derive(Debug, Clone)]
pub struct Target {
    /// Address or name.
    pub address: String,
    /// Port of its ssh server.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// By which key.
    pub key: SshKey,
    /// What it must show.
    pub host_key: PublicKey,
}

/// How a machine could not be entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshFault {
    /// Something answers with another host key: it is not the machine.
    #[error(
        "what answers at {at} showed the host key {shown}, and the machine has {pinned}; nothing was sent to it. Another machine \
         may have got its address, or somebody stands in between"
    )]
    HostKey {
        /// Address and port.
        at: String,
        /// Fingerprint of what was shown.
        shown: String,
        /// Fingerprint of what was expected.
        pinned: String,
    },
    /// It does not let us in.
    #[error("the machine at {at} lets nobody in as {user} by the key {key}; was the key given to it?")]
    Refused {
        /// Address and port.
        at: String,
        /// As whom it was tried.
        user: String,
        /// Fingerprint of the key.
        key: String,
    },
    /// Nothing answers.
    #[error("no ssh server answered at {at} within {} s: {why}", limit.as_secs())]
    Unreachable {
        /// Address and port.
        at: String,
        /// What the last try met.
        why: String,
        /// The time that it had.
        limit: Duration,
    },
    /// It is entered, and what is wanted there is not to be had.
    #[error("the machine at {at} did not open {what}: {why}")]
    Channel {
        /// Address and port.
        at: String,
        /// Which socket or command.
        what: String,
        /// What it says.
        why: String,
    },
    /// It did not take its seed.
    #[error("the machine at {at} did not take its seed: {why}")]
    Seed {
        /// Address and port.
        at: String,
        /// What it says.
        why: String,
    },
}

impl SshFault {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        Blame::Infra
    }

    /// Does trying again, with nothing changed, not help?
    pub fn is_final(&self) -> bool {
        matches!(self, Self::HostKey { .. })
    }
}

/// What became of a program of the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// As it exited.
    pub status: Option<u32>,
    /// The beginning of what it wrote, on one line.
    pub words: String,
}

/// A connection that has been entered.
pub struct Connection {
    handle: Handle<Pinned>,
    at: String,
}

/// Accepts one host key, and remembers what it was shown instead.
struct Pinned {
    host_key: PublicKey,
    shown: Arc<Mutex<Option<String>>>,
}

impl Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let (is_it, text) = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                (key.key_data() == self.host_key.key_data(), key.fingerprint(HashAlg::Sha256).to_string())
            }
            PublicKeyOrCertificate::Certificate(_) => (false, "a certificate".to_owned()),
        };
        if !is_it {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        Ok(is_it)
    }
}

impl Connection {
    /// Tries until the machine lets us in: it may be booting.
    ///
    /// # Errors
    /// It did not within the limit; another host key ends the tries at once.
    pub async fn open(target: &Target, limit: Duration) -> Result<Self, SshFault> {
        let end = Instant::now() + limit;
        let mut refused: Option<(Instant, SshFault)> = None;
        loop {
            let fault = match Self::try_once(target, TRY.min(limit)).await {
                Ok(connection) => return Ok(connection),
                Err(fault) => fault,
            };
            // A key that is not accepted yet may be: a machine writes it after its ssh server has started.
            if fault.is_final() || Instant::now() + BETWEEN >= end {
                return Err(match (fault, refused) {
                    // It has just said what is wrong: that one more try was not answered in time says less.
                    (SshFault::Unreachable { .. }, Some((when, refused))) if when.elapsed() <= TRY + 2 * BETWEEN => {
                        refused
                    }
                    (SshFault::Unreachable { at, why, .. }, _) => SshFault::Unreachable { at, why, limit },
                    (fault, _) => fault,
                });
            }
            if matches!(fault, SshFault::Refused { .. }) {
                refused = Some((Instant::now(), fault));
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    async fn try_once(target: &Target, limit: Duration) -> Result<Self, SshFault> {
        let at = format!("{}:{}", target.address, target.port);
        let shown = Arc::new(Mutex::new(None));
        let handler = Pinned { host_key: target.host_key.clone(), shown: Arc::clone(&shown) };
        let entered = tokio::time::timeout(limit, enter(target, handler)).await;
        let unreachable = |why: String| SshFault::Unreachable { at: at.clone(), why, limit };
        if let Some(shown) = shown.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let pinned = target.host_key.fingerprint(HashAlg::Sha256).to_string();
            return Err(SshFault::HostKey { at, shown, pinned });
        }
        match entered {
            Ok(Ok(Some(handle))) => Ok(Self { handle, at }),
            Ok(Ok(None)) => Err(SshFault::Refused { at, user: target.user.clone(), key: target.key.fingerprint() }),
            Ok(Err(error)) => Err(unreachable(words(&error))),
            Err(_) => Err(unreachable("it did not get through its greeting".to_owned())),
        }
    }

    /// Has it been lost?
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Where it leads.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// A channel to a unix socket of the machine.
    ///
    /// # Errors
    /// The machine does not open it.
    pub async fn to_socket(&self, path: &str) -> Result<Channel<client::Msg>, SshFault> {
        let opening = self.handle.channel_open_direct_streamlocal(path);
        let failed = |why: String| SshFault::Channel { at: self.at.clone(), what: path.to_owned(), why };
        let opened = tokio::time::timeout(CHANNEL, opening).await;
        opened.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(words(&error)))
    }

    /// A program of the machine, by its stdin and stdout.
    ///
    /// # Errors
    /// The machine starts none.
    pub async fn start(&self, command: &str) -> Result<Channel<client::Msg>, SshFault> {
        let failed = |why: String| SshFault::Channel { at: self.at.clone(), what: format!("`{command}`"), why };
        let starting = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok(channel)
        };
        let started: Result<Result<_, russh::Error>, _> = tokio::time::timeout(CHANNEL, starting).await;
        started.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(words(&error)))
    }

    /// Runs a program of the machine to its end, with this on its stdin. Returns its status: `None` where a signal ended it.
    ///
    /// # Errors
    /// The machine starts none, or it has not ended within the limit.
    pub async fn run(&self, command: &str, input: &[u8], limit: Duration) -> Result<Ran, SshFault> {
        let failed = |why: String| SshFault::Channel { at: self.at.clone(), what: format!("`{command}`"), why };
        let running = async {
            let mut channel = self.start(command).await?;
            let fed = async {
                channel.data(input).await?;
                channel.eof().await
            };
            // A program that does not read its input tells why by its status.
            let _unread: Result<(), russh::Error> = fed.await;
            let mut ran = Ran { status: None, words: String::new() };
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::ExitStatus { exit_status } => ran.status = Some(exit_status),
                    ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } if ran.words.len() < WORDS => {
                        ran.words.push_str(&String::from_utf8_lossy(&data));
                    }
                    _ => {}
                }
            }
            ran.words = crate::cloud::call::words(&ran.words);
            Ok(ran)
        };
        let ran = tokio::time::timeout(limit, running).await;
        ran.unwrap_or_else(|_| Err(failed(format!("it has not ended within {} s", limit.as_secs()))))
    }

    /// Hangs up, as far as the other side listens.
    pub async fn close(self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _who_is_gone_needs_none = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

async fn enter(target: &Target, handler: Pinned) -> Result<Option<Handle<Pinned>>, russh::Error> {
    let config = client::Config {
        keepalive_interval: Some(KEEP_ALIVE),
        keepalive_max: UNANSWERED,
        nodelay: true,
        preferred: Preferred {
            // The kind of key that is pinned: a server with several shows this one.
            key: Cow::Owned(vec![target.host_key.algorithm()]),
            ..Preferred::default()
        },
        ..client::Config::default()
    };
    let mut handle = client::connect(Arc::new(config), (target.address.as_str(), target.port), handler).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(target.key.private().clone()), None);
    let entered = handle.authenticate_publickey(target.user.as_str(), key).await?;
    Ok(entered.success().then_some(handle))
}

fn words(error: &russh::Error) -> String {
    crate::cloud::call::words(&navvy_job::chain::chain(error))
}
