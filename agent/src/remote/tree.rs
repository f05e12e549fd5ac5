//! The working tree as one compressed stream, made while it is sent.
//!
//! ```text
//! WorkingTree ─▶ tar ─▶ 1 MiB a frame of zstd ─▶ a few frames ─▶ body of the request
//!  (a thread that blocks)                         waits if full
//! ```

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use navvy_checkout::{CheckoutError, TreeReport, WorkingTree};
use navvy_job::chain::chain;
use navvy_protocol::api;
use tokio::sync::mpsc;

use super::client::Client;
use super::error::RemoteError;

/// Bytes of a frame before compression.
const FRAME: usize = 1 << 20;
/// Frames that may wait for the network.
const WAITING: usize = 4;
/// As `zstd` itself packs.
const LEVEL: i32 = 3;
/// A processor that has taken nothing for so long does not take it.
const STALLED: Duration = Duration::from_secs(60);

/// Sends the working tree as it is now. Returns what the processor calls it, and what was packed.
///
/// # Errors
/// It cannot be read here, or is not taken there.
pub async fn send(client: &Client, tree: Arc<WorkingTree>) -> Result<(api::Tree, TreeReport), RemoteError> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let progress = Arc::new(Progress::default());
    let packing = {
        let progress = Arc::clone(&progress);
        tokio::task::spawn_blocking(move || pack(&tree, Frames { sender, progress, plain: Vec::new() }))
    };
    let taken = Arc::clone(&progress);
    let frames = stream::unfold((receiver, taken), async |(mut receiver, taken)| {
        let next = receiver.recv().await?;
        taken.taken.fetch_add(1, Ordering::Relaxed);
        Some((next, (receiver, taken)))
    });
    let sent = tokio::select! {
        sent = client.upload(&["tree"], reqwest::Body::wrap_stream(frames)) => sent,
        () = progress.stalled() => Err(RemoteError::Late { at: client.at(), limit: STALLED }),
    };
    // Whoever is not read from any more cannot write on: then the answer says why.
    match (packing.await, sent) {
        (Ok(Ok(report)), Ok(tree)) => Ok((tree, report)),
        (Ok(Err(CheckoutError::Write(_)) | Ok(_)), Err(error)) => Err(error),
        (Ok(Err(error)), _) => Err(RemoteError::Source(chain(&error))),
        (Err(error), _) => Err(RemoteError::Source(error.to_string())),
    }
}

/// How far it is.
#[derive(Debug, Default)]
struct Progress {
    /// Frames that were made, and that the network has taken.
    made: AtomicU64,
    taken: AtomicU64,
    /// All were made.
    done: AtomicBool,
}

impl Progress {
    /// Ends when the processor takes nothing any more, or does not answer.
    async fn stalled(&self) {
        let mut before = None;
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let waits = self.done.load(Ordering::Relaxed) || self.made.load(Ordering::Relaxed) > taken;
            if waits && before == Some(taken) {
                return;
            }
            before = waits.then_some(taken);
            tokio::time::sleep(STALLED).await;
        }
    }
}

/// Blocks. What could not be read ends the stream with an error, so that nobody takes it for whole.
fn pack(tree: &WorkingTree, mut frames: Frames) -> Result<TreeReport, CheckoutError> {
    let packed = tree.stream(&mut frames).and_then(|report| {
        frames.frame().map_err(CheckoutError::Write)?;
        Ok(report)
    });
    if let Err(error) = &packed {
        // If nobody listens any more, nobody takes it for whole.
        frames.sender.blocking_send(Err(io::Error::other(chain(error)))).ok();
    }
    frames.progress.done.store(true, Ordering::Relaxed);
    packed
}

/// Cuts a stream into frames.
struct Frames {
    sender: mpsc::Sender<io::Result<Bytes>>,
    progress: Arc<Progress>,
    plain: Vec<u8>,
}

impl Frames {
    /// Sends what there is.
    fn frame(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(self.plain.len()));
        zstd_safe::compress(&mut packed, &self.plain, LEVEL)
            .map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))?;
        self.plain.clear();
        self.progress.made.fetch_add(1, Ordering::Relaxed);
        self.sender.blocking_send(Ok(packed.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = FRAME - self.plain.len();
        let taken = bytes.len().min(room);
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == FRAME {
            self.frame()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
