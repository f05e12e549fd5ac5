//! The call that continues a setup pipeline, taken on the environment's own loopback: it never touches the host's network,
//! whether a job calls with the original's orb or a script with `curl`.
//!
//! ```text
//!                     a job's POST, with the key
//! Offer{key} ─▶ open ────────────────────────────▶ taken ── Continuation ─▶ the agent has it
//!                 │ ▲                                │ ▲
//!                 └─┘ anything else: an error        └─┘ again: an error, there is one continuation
//! ```

mod http;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use navvy_protocol::supervisor::{Continuation, Failure, MAX_CONFIGURATION, Reply};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::control::connection::Connection;
use crate::files::data::{END, Sender};
use crate::secret::is_same;
use crate::sys::THREAD_STACK;
use crate::{failure, lock};

use http::{Answer, Refusal, Request};

/// Callers at once; a job has one.
const MAX_CALLERS: usize = 8;
const PATH: &str = "/api/v2/pipeline/continue";

/// Nothing until the agent offers one.
#[derive(Default)]
pub struct Desk(Mutex<Option<Offer>>);

struct Offer {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    key: String,
    taken: Mutex<Option<Arc<Continuation>>>,
}

/// The body of the call, as the original's API documents it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Call {
    continuation_key: String,
    configuration: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// Listens; again, with the same key: says where.
pub fn offer(desk: &Desk, key: &str) -> Result<Reply, Failure> {
    let mut offer = lock(&desk.0);
    if let Some(offer) = &*offer {
        return match offer.shared.key == key {
            true => Ok(Reply::Listening { port: offer.port }),
            false => Err(failure::invalid("another continuation was offered before")),
        };
    }
    let shared = Arc::new(Shared { key: key.to_owned(), taken: Mutex::default() });
    let port = listen(&shared).map_err(|error| failure::of(&error, "listen for the pipeline's continuation"))?;
    *offer = Some(Offer { port, shared });
    Ok(Reply::Listening { port })
}

/// Tells the agent what came; an empty stream if nothing did.
pub fn tell(desk: &Desk, mut connection: Connection) {
    let taken = lock(&desk.0).as_ref().and_then(|offer| lock(&offer.shared.taken).clone());
    // A caller that has gone needs no answer.
    if connection.flush().is_err() {
        return;
    }
    let mut sender = Sender::new(&connection);
    let sent = match &taken {
        Some(taken) => serde_json::to_writer(&mut sender, &**taken).map_err(io::Error::from),
        None => Ok(()),
    };
    if sent.and_then(|()| sender.finish()).is_ok() {
        connection.push_bytes(&END);
        connection.answer(&Reply::Done);
    }
}

fn listen(shared: &Arc<Shared>) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let shared = Arc::clone(shared);
    spawn(move || {
        let callers = Arc::new(());
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let caller = Arc::clone(&callers);
            // Beyond them, and without room for a thread, the caller sees a closed connection.
            if Arc::strong_count(&callers) <= MAX_CALLERS + 1 {
                let shared = Arc::clone(&shared);
                let _ = spawn(move || {
                    serve(&shared, stream);
                    drop(caller);
                });
            }
        }
    })?;
    Ok(port)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body).map(drop)
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    let answer = match http::receive(&mut stream) {
        Ok(request) => shared.answer(&request),
        Err(Refusal::Gone) => return,
        Err(Refusal::Answer(answer)) => answer,
    };
    // The caller may be gone; what was taken is taken.
    let _ = stream.write_all(&answer.to_bytes());
    http::linger(&stream);
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        if request.path != PATH {
            return Answer::new(404, format!("Inside a job only POST {PATH} is answered here."));
        }
        if request.method != "POST" {
            return Answer::new(405, "A pipeline is continued with POST.");
        }
        match serde_json::from_slice(&request.body) {
            Ok(call) => self.take(call),
            Err(error) => Answer::new(400, format!("The body is not a valid call: {error}.")),
        }
    }

    fn take(&self, call: Call) -> Answer {
        let Call { continuation_key, configuration, parameters } = call;
        if !is_same(&self.key, &continuation_key) {
            return Answer::new(401, "This is not the pipeline's continuation key (CIRCLE_CONTINUATION_KEY).");
        }
        if configuration.len() > MAX_CONFIGURATION {
            return Answer::new(413, format!("A configuration has at most {MAX_CONFIGURATION} bytes."));
        }
        let mut taken = lock(&self.taken);
        if taken.is_some() {
            return Answer::new(400, "This pipeline was continued already.");
        }
        *taken = Some(Arc::new(Continuation { configuration, parameters: parameters.unwrap_or_default() }));
        Answer::new(200, "Continued successfully.")
    }
}

#[cfg(test)]
mod tests;
