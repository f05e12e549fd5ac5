//! A client of QEMU's monitor: the few commands that a machine needs.
//!
//! The process at the other end runs a stranger's guest: its lines are bounded, every answer has a deadline, and what does not fit
//! ends the conversation.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_protocol::guest;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::lines::Lines;
use super::socket;
use crate::error::Fault;

/// QEMU answers its monitor within milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Events that come before an answer.
const EVENTS: usize = 256;
/// Between two looks at a migration.
const LOOK: Duration = Duration::from_millis(2);

/// An open monitor.
pub struct Qmp {
    lines: Lines,
    /// What has happened, the newest last; only so many are kept.
    events: VecDeque<String>,
    /// The guest has ended the machine.
    is_shut_down: bool,
}

impl Qmp {
    /// Opens the monitor of the process that has made this socket.
    pub async fn open(directory: &Path, name: &str) -> Result<Self, Fault> {
        let stream = socket::connect(directory, name).await.map_err(|e| failed("open its monitor", &e))?;
        let mut qmp = Self { lines: Lines::new(stream, guest::LINE_CAP), events: VecDeque::new(), is_shut_down: false };
        let greeting = qmp.line("open its monitor").await?;
        if greeting.get("QMP").is_none() {
            return Err(failed("open its monitor", &"it does not greet as a monitor does"));
        }
        qmp.ask("begin", "qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Asks for one thing. `doing`: what for, as in "failed to …".
    pub async fn ask(&mut self, doing: &'static str, command: &str, arguments: Value) -> Result<Value, Fault> {
        self.ask_with(doing, command, arguments, None).await
    }

    /// Gives the process a file under a name, for what comes next.
    pub async fn give(&mut self, doing: &'static str, name: &str, file: &std::fs::File) -> Result<(), Fault> {
        self.ask_with(doing, "getfd", json!({ "fdname": name }), Some(file.as_fd())).await.map(drop)
    }

    /// Gives the process an open file for good. Returns the path by which it opens it.
    pub async fn lend(&mut self, doing: &'static str, file: &std::fs::File) -> Result<PathBuf, Fault> {
        let lent = self.ask_with(doing, "add-fd", json!({}), Some(file.as_fd())).await?;
        let set = lent.get("fdset-id").and_then(Value::as_u64);
        let set = set.ok_or_else(|| failed(doing, &"it does not say where the file is"))?;
        Ok(format!("/dev/fdset/{set}").into())
    }

    async fn ask_with(
        &mut self,
        doing: &'static str,
        command: &str,
        arguments: Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, Fault> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        let sent = tokio::time::timeout(ANSWER_LIMIT, self.send(text.as_bytes(), file)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| failed(doing, &e))?;
        // An endless row of events is no answer.
        for _ in 0..EVENTS {
            let mut line = self.line(doing).await?;
            if let Some(event) = line.get("event").and_then(Value::as_str) {
                self.keep(event.chars().take(64).collect());
                self.is_shut_down |= is_shut_down(&line);
            } else if let Some(error) = line.get("error") {
                let words = error.get("desc").and_then(Value::as_str).unwrap_or("it does not say why");
                return Err(failed(doing, &words.chars().take(300).collect::<String>()));
            } else if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
        Err(failed(doing, &"it does not answer"))
    }

    async fn send(&mut self, mut text: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(file) = file else { return self.lines.send(text).await };
        let stream: &UnixStream = self.lines.stream();
        let files = [file];
        while !text.is_empty() {
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&files));
                Ok(sendmsg(stream, &[io::IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(count) => text = &text[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if !text.is_empty() {
                // The file went with the first bytes.
                return self.lines.send(text).await;
            }
        }
        Ok(())
    }

    async fn line(&mut self, doing: &'static str) -> Result<Value, Fault> {
        let line = self.lines.next(Instant::now() + ANSWER_LIMIT).await.map_err(|e| failed(doing, &e))?;
        serde_json::from_slice(&line).map_err(|_| failed(doing, &"what it says is no JSON"))
    }

    fn keep(&mut self, event: String) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Waits until the guest has been stopped since no space was left for its disk. Never ends otherwise.
    pub async fn disk_is_full(&mut self) -> String {
        loop {
            // Hours may pass between two events.
            let Ok(line) = self.lines.next(Instant::now() + Duration::from_secs(1 << 30)).await else { break };
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { break };
            self.is_shut_down |= is_shut_down(&event);
            if event.get("event").and_then(Value::as_str) == Some("BLOCK_IO_ERROR")
                && event.pointer("/data/nospace").and_then(Value::as_bool) == Some(true)
            {
                let words = event.pointer("/data/reason").and_then(Value::as_str).unwrap_or_default();
                return words.chars().take(100).collect();
            }
        }
        std::future::pending().await
    }

    /// Of a process that has ended: has its guest ended it? Reads what the monitor has said last.
    pub async fn was_shut_down(&mut self) -> bool {
        let deadline = Instant::now() + ANSWER_LIMIT;
        // A process that has ended has closed its monitor: this ends at once.
        for _ in 0..EVENTS {
            if self.is_shut_down {
                break;
            }
            let Ok(line) = self.lines.next(deadline).await else { break };
            self.is_shut_down |= serde_json::from_slice(&line).is_ok_and(|event| is_shut_down(&event));
        }
        self.is_shut_down
    }

    /// Lets the guest run.
    pub async fn go_on(&mut self) -> Result<(), Fault> {
        self.ask("let the machine run", "cont", json!({})).await.map(drop)
    }

    /// Waits until a migration, of whichever direction, is through.
    pub async fn migrated(&mut self, doing: &'static str, limit: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + limit;
        loop {
            let state = self.ask(doing, "query-migrate", json!({})).await?;
            match state.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let words = state.get("error-desc").and_then(Value::as_str).unwrap_or("it failed");
                    return Err(failed(doing, &words.chars().take(300).collect::<String>()));
                }
                _ if Instant::now() >= deadline => return Err(failed(doing, &"it takes too long")),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// Does the monitor say that the guest has ended the machine: by a shutdown, a reset or a panic of its kernel?
fn is_shut_down(event: &Value) -> bool {
    event.get("event").and_then(Value::as_str) == Some("SHUTDOWN")
        && event.pointer("/data/guest").and_then(Value::as_bool) == Some(true)
}

fn failed(doing: &'static str, message: &dyn std::fmt::Display) -> Fault {
    Fault::Monitor { doing, message: message.to_string() }
}
