//! An environment that is held for a person: it outlives its agent until a time, and keeps in memory (never on a disk)
//! what the next agent needs to continue.
//!
//! ```text
//! no call for the idle limit ──────▶ end        Keep{for} ─▶ held ── time is up and no person is here ─▶ end
//!                                                            │ ▲
//!                                                     Recall ▼ └ Keep again; Keep{0} ends the hold
//! Remember ─▶ a note without a hold; Recall gives it where none is held
//! ```

use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use navvy_protocol::supervisor::{Failure, FailureKind, NOTE_CAP, Reply};

use crate::control::connection::Connection;
use crate::files::data::{END, Receiver, Sender};
use crate::sys::Event;
use crate::{failure, lock};

/// What is held, until when; and the wake-up of the thread that waits for that time.
pub struct Hold {
    held: Mutex<Option<Held>>,
    /// Of a task that runs, for whoever goes on with it should its agent die.
    remembered: Mutex<Option<Arc<Vec<u8>>>>,
    pub changed: Event,
}

struct Held {
    note: Arc<Vec<u8>>,
    until: Instant,
}

impl Hold {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { held: Mutex::new(None), remembered: Mutex::new(None), changed: Event::new()? })
    }

    /// When the environment must not be ended for being left alone.
    pub fn until(&self) -> Option<Instant> {
        lock(&self.held).as_ref().map(|held| held.until)
    }

    fn set(&self, held: Option<Held>) {
        *lock(&self.held) = held;
        self.changed.raise();
    }
}

/// Takes the note and the time. A note that does not come whole changes nothing.
pub fn keep(hold: &Hold, mut connection: Connection, for_ms: u64) {
    let reply = receive(&mut connection).map(|note| {
        // A time that no clock reaches is as good as none: the usual limits count then.
        let until = Instant::now().checked_add(Duration::from_millis(for_ms)).filter(|_| for_ms > 0);
        hold.set(until.map(|until| Held { note: Arc::new(note), until }));
        Reply::Done
    });
    match reply {
        Ok(reply) => connection.answer(&reply),
        Err(failure) => connection.answer_and_listen(&Reply::Failed(failure)),
    }
}

/// Takes a note and holds nothing. One that does not come whole changes nothing.
pub fn remember(hold: &Hold, mut connection: Connection) {
    match receive(&mut connection) {
        Ok(note) => {
            *lock(&hold.remembered) = Some(Arc::new(note));
            connection.answer(&Reply::Done);
        }
        Err(failure) => connection.answer_and_listen(&Reply::Failed(failure)),
    }
}

fn receive(connection: &mut Connection) -> Result<Vec<u8>, Failure> {
    connection.flush().map_err(|error| failure::of(&error, format_args!("greet")))?;
    let early = connection.take_received();
    let mut note = Vec::new();
    let mut stream = Receiver::new(&early, connection.stream()).take(NOTE_CAP as u64 + 1);
    stream.read_to_end(&mut note).map_err(|error| failure::of(&error, format_args!("receive the note")))?;
    if note.len() > NOTE_CAP {
        return Err(failure::invalid(format!("the note is longer than {NOTE_CAP} bytes")));
    }
    Ok(note)
}

/// Gives the note to the agent that continues the task.
pub fn recall(hold: &Hold, mut connection: Connection) {
    let held = lock(&hold.held).as_ref().map(|held| Arc::clone(&held.note));
    let Some(note) = held.or_else(|| lock(&hold.remembered).clone()) else {
        let why = Failure::new(FailureKind::Other, "this environment is not held");
        return connection.answer(&Reply::Failed(why));
    };
    // A caller that has gone needs no answer.
    if connection.flush().is_err() {
        return;
    }
    let mut sender = Sender::new(&connection);
    let sent = std::io::Write::write_all(&mut sender, &note).and_then(|()| sender.finish());
    if sent.is_ok() {
        connection.push_bytes(&END);
        connection.answer(&Reply::Done);
    }
}
