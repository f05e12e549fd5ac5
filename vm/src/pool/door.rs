//! A pool's door for agents of the same host: a unix socket, a line of JSON for each question and each answer.
//!
//! ```text
//! {"ask":"take","class":"medium","image":"debian-12-docker","ticket":"…","task":"…"}  ─▶ {"answer":"given","id":"…","machine":{…}}
//! {"ask":"give_back","ticket":"…"}                                                     ─▶ {"answer":"done"}
//! {"ask":"report"}                                                                     ─▶ {"answer":"report",…}
//! {"ask":"empty"}                                                                      ─▶ {"answer":"done"}
//! ```
//!
//! The kernel says who asks: the pool's own user or uid 0, and the process that a machine becomes. Who hangs up while waiting waits
//! no more. A ticket that is asked for again gets the same machine.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use navvy_journal::owner::Owner;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::core::Wish;
use super::figures::Report;
use super::keeper::{Handed, Pool};
use super::record::Holder;
use super::rules::Kind;
use super::source::{Asked, Given, NotGiven, Source};
use crate::machine_id::MachineId;

/// Bytes of the longest line.
const LINE_CAP: usize = 64 << 10;
/// Agents that ask at once.
const CONNECTIONS: usize = 256;
/// Who has connected asks within this.
const QUESTION: Duration = Duration::from_secs(10);
/// A pool that lives answers within this, but for a machine.
const ANSWER: Duration = Duration::from_secs(30);
/// A pool that was killed is started again within ten minutes, or for other reasons.
const GIVE_BACK_TRIES: u32 = 60;
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(10);
/// Characters of a name.
const NAME: usize = 200;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// A machine.
    Take {
        /// Resource class.
        class: String,
        /// Image.
        image: String,
        /// What the taker calls this wish.
        ticket: String,
        /// For which task.
        task: String,
    },
    /// The ticket's machine goes.
    GiveBack {
        /// The ticket.
        ticket: String,
    },
    /// The pool's figures.
    Report,
    /// Nothing is kept ready any more, and the pool ends.
    Empty,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A machine, which is the taker's now.
    Given {
        /// Which.
        id: MachineId,
        /// How it is found.
        machine: Value,
    },
    /// It is done.
    Done,
    /// The figures.
    Report {
        /// In JSON.
        report: Value,
    },
    /// It is not done.
    No {
        /// Why.
        why: String,
    },
}

/// A pool could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens there.
    #[error("no pool answers at {path}; `navvy vm-pool` starts one", path = path.display())]
    NoPool {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What listens there is another user's.
    #[error("what listens at {path} belongs to uid {uid}, and is not asked", path = path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It hung up, or its answer makes no sense.
    #[error("the pool at {path} did not answer: {why}", path = path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It said no.
    #[error("the pool has no machine: {why}")]
    No {
        /// Its words.
        why: String,
    },
}

/// A listening door.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
}

impl Door {
    /// Listens. A socket that nobody serves any more is replaced: whoever has the pool's lock is the only one who may.
    ///
    /// # Errors
    /// Something else lies there, or it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else than a socket lies there"));
            }
            Err(_) => {}
        }
        let (_directory, short) = short(path)?;
        let listener = UnixListener::bind(short)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        Ok(Self { listener })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, pool: Pool) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let pool = pool.clone();
                    tokio::spawn(async move {
                        converse(stream, &pool).await;
                        drop(place);
                    });
                }
                // Out of descriptors, say.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// The same socket by a path that the kernel takes: it takes 107 bytes, and a state directory may be anywhere. Good as long as the
/// descriptor lives.
fn short(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no path of a socket"));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let opened = openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name);
    Ok((opened, short))
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = short(path)?;
    UnixStream::connect(short).await
}

async fn converse(stream: UnixStream, pool: &Pool) {
    let Some(owner) = caller(&stream) else { return };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Ok(Some(line)) = tokio::time::timeout(QUESTION, line(&mut read)).await.unwrap_or(Ok(None)) {
        let answer = match serde_json::from_slice(&line) {
            Ok(ask) => {
                let answering = answer(pool, ask, &owner);
                tokio::select! {
                    answer = answering => answer,
                    // Nobody speaks while waiting: this is a caller that has gone.
                    _gone = read.fill_buf() => return,
                }
            }
            Err(error) => Answer::No { why: format!("this is no question to a pool: {error}") },
        };
        if say(&mut write, &answer).await.is_err() {
            return;
        }
    }
}

/// The process at the other end, if it may ask.
fn caller(stream: &UnixStream) -> Option<Owner> {
    let peer = stream.peer_cred().ok()?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        tracing::warn!(uid = peer.uid(), "Another user has asked the pool, and was not answered.");
        return None;
    }
    // A process of another pid namespace has no number here: it could not be seen to die.
    let pid = u32::try_from(peer.pid()?).ok().filter(|pid| *pid > 0)?;
    Owner::of_process(pid).ok()
}

async fn answer(pool: &Pool, ask: Ask, owner: &Owner) -> Answer {
    match ask {
        Ask::Take { class, image, ticket, task } => {
            let names = [&class, &image, &ticket, &task];
            if names.iter().any(|name| name.is_empty() || name.len() > NAME || name.contains(char::is_control)) {
                return Answer::No { why: format!("names are of 1 to {NAME} characters that can be printed") };
            }
            let holder = Holder { ticket, task, owner: Some(owner.clone()) };
            match pool.take(Wish { kind: Kind { class, image }, holder }).await {
                Ok(Handed { id, machine }) => Answer::Given { id, machine },
                Err(why) => Answer::No { why },
            }
        }
        Ask::GiveBack { ticket } => {
            pool.give_back(&ticket).await;
            Answer::Done
        }
        Ask::Empty => {
            pool.empty().await;
            Answer::Done
        }
        Ask::Report => match pool.report().await.and_then(|report: Report| serde_json::to_value(report).ok()) {
            Some(report) => Answer::Report { report },
            None => Answer::No { why: "the pool ends".to_owned() },
        },
    }
}

async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    read.take(LINE_CAP as u64).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        None => Ok(None),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")),
    }
}

async fn say(write: &mut (impl AsyncWrite + Unpin), said: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the pool of this host. A machine is waited for as long as the pool lets one wait, and `limit` at most.
///
/// # Errors
/// There is no pool, or it says no.
pub async fn ask(path: &Path, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
    let no_answer = |why: String| AskError::NoAnswer { path: path.to_owned(), why };
    let stream = tokio::time::timeout(ANSWER, connect(path)).await;
    let stream = stream
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| AskError::NoPool { path: path.to_owned(), source })?;
    let uid = stream.peer_cred().map_err(|error| no_answer(error.to_string()))?.uid();
    if uid != rustix::process::geteuid().as_raw() && uid != 0 {
        return Err(AskError::Stranger { path: path.to_owned(), uid });
    }
    let (read, mut write) = stream.into_split();
    say(&mut write, ask).await.map_err(|error| no_answer(error.to_string()))?;
    let limit = if matches!(ask, Ask::Take { .. }) { limit } else { ANSWER };
    let mut read = BufReader::new(read);
    let heard = tokio::time::timeout(limit, line(&mut read)).await;
    let heard = heard.map_err(|_| no_answer(format!("not within {} s", limit.as_secs())))?;
    let heard =
        heard.map_err(|error| no_answer(error.to_string()))?.ok_or_else(|| no_answer("it hung up".to_owned()))?;
    match serde_json::from_slice(&heard).map_err(|error| no_answer(error.to_string()))? {
        Answer::No { why } => Err(AskError::No { why }),
        answer => Ok(answer),
    }
}

/// The pool of this host, for takers.
#[derive(Debug, Clone)]
pub struct DoorSource {
    /// Its socket.
    path: PathBuf,
    /// Somebody has named it: that it is not there is told.
    is_named: bool,
    /// A machine is waited for so long at most.
    limit: Duration,
}

impl DoorSource {
    /// The pool that an operator has named by its socket.
    pub fn named(path: PathBuf, limit: Duration) -> Self {
        Self { path, is_named: true, limit }
    }

    /// The pool that may be at this socket: where nothing lies there, there is none.
    pub fn usual(path: PathBuf, limit: Duration) -> Self {
        Self { path, is_named: false, limit }
    }
}

#[async_trait]
impl Source for DoorSource {
    fn is_there(&self) -> bool {
        self.is_named || std::fs::symlink_metadata(&self.path).is_ok()
    }

    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        if asked.is_lent {
            return Err(NotGiven::NoPool);
        }
        if !self.is_there() {
            return Err(NotGiven::NoPool);
        }
        let Asked { kind, ticket, task, .. } = asked.clone();
        let take = Ask::Take { class: kind.class, image: kind.image, ticket, task: task.to_string() };
        let no = |why: String| NotGiven::No { why };
        match ask(&self.path, &take, self.limit).await.map_err(|error| no(error.to_string()))? {
            Answer::Given { id, machine } => {
                let way = serde_json::from_value(machine);
                let way = way.map_err(|error| no(format!("the pool's answer makes no sense: {error}")))?;
                Ok(Given { id, way })
            }
            _ => Err(no("the pool's answer is to another question".to_owned())),
        }
    }

    async fn give_back(&self, ticket: &str) {
        let ask = Ask::GiveBack { ticket: ticket.to_owned() };
        if self::ask(&self.path, &ask, ANSWER).await.is_ok() {
            return;
        }
        // It was killed, and may have given a machine of which this process was not told. Whoever ends first, it or this process, is
        // found out by the other's successor.
        let path = self.path.clone();
        tokio::spawn(async move {
            for _ in 0..GIVE_BACK_TRIES {
                tokio::time::sleep(GIVE_BACK_PAUSE).await;
                if self::ask(&path, &ask, ANSWER).await.is_ok() {
                    return;
                }
            }
        });
    }
}
