//! The socket for steps: they can ask and halt, and nothing else.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use navvy_protocol::in_job::{Answer, MAX_LINE, Question};

use super::presence::Presence;
use crate::init::Init;
use crate::lock;
use crate::sys::THREAD_STACK;

/// A question is one short write; a slower caller is not a command of ours.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers on a thread of its own; without room for one the caller sees a closed connection.
pub fn start(init: &Arc<Init>, stream: UnixStream, presence: Option<Presence>) {
    let Some(presence) = presence else { return };
    let init = Arc::clone(init);
    let answer = move || {
        let _presence = presence;
        // The caller went away or was too slow; it knows.
        let _ = converse(&init, &stream);
    };
    // Dropping the stream is all the answer that is left.
    let _ = std::thread::Builder::new().stack_size(THREAD_STACK).spawn(answer);
}

fn converse(init: &Init, mut stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::with_capacity(512, stream.take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
    let mut answer = serde_json::to_vec(&answer(init, &line))?;
    answer.push(b'\n');
    stream.write_all(&answer)
}

fn answer(init: &Init, line: &[u8]) -> Answer {
    match serde_json::from_slice(line) {
        Ok(Question::Halt) => {
            init.halted.store(true, Ordering::Release);
            Answer::Halted
        }
        Ok(Question::Lacks { what }) => Answer::Noted { first: lock(&init.lacks).insert(what) },
        Ok(Question::Ping) => Answer::Pong { version: env!("CARGO_PKG_VERSION").to_owned() },
        Err(error) => Answer::Refused { why: format!("the question is not understood: {error}") },
    }
}
