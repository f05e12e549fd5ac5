//! The newest bytes of logs, for those who look on while a step runs.
//!
//! Nothing here is durable, and nothing is repeated: where the way is slow, bytes are left out, and a reader gets them from the
//! segments. Within a log the order never breaks.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use navvy_protocol::processor::v1::{Chunk, Stream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Logs;
use crate::fleet::connection::Session;
use crate::fleet::persist::Pauses;

/// Bytes of a chunk.
const CHUNK: u64 = 64 << 10;
/// Chunks that wait for the connection.
const QUEUE: usize = 16;
/// A log that is further ahead than this is gone on with near its end.
const BEHIND: u64 = 1 << 20;
/// Between two looks, while somebody looks on: faster than a person sees.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks while nobody does, and how much is shown of each log then.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
const IDLE_BYTES: u64 = 4 << 10;

/// What is shown, and to whom.
pub struct Live {
    pub session: Session,
    pub logs: Logs,
    pub bell: watch::Receiver<u64>,
    /// How many look on: the processor says so, here and where the lease is kept.
    pub readers: watch::Sender<u32>,
}

/// Which bytes of a log go next: none behind its end, none before those that were sent. Pure.
fn next(sent: u64, length: u64, is_watched: bool) -> std::ops::Range<u64> {
    let most = if is_watched { BEHIND } else { IDLE_BYTES };
    let start =
        if length.saturating_sub(sent) > most { length - if is_watched { CHUNK } else { IDLE_BYTES } } else { sent };
    start.min(length)..length
}

impl Live {
    /// Never ends by itself.
    pub async fn deliver(mut self) {
        let mut pauses = Pauses::default();
        // By log: how far it was shown.
        let mut sent = BTreeMap::new();
        loop {
            let (chunks, stream) = mpsc::channel(QUEUE);
            let mut agents = self.session.agents();
            let words = tokio::select! {
                opened = agents.live(ReceiverStream::new(stream)) => opened,
                // A processor may answer with its first word, which comes behind the first chunk.
                never = self.show(&chunks, &mut sent) => match never {},
            };
            match words {
                Ok(words) => {
                    let mut words = words.into_inner();
                    let readers = self.readers.clone();
                    let listening = async {
                        while let Ok(Some(word)) = words.message().await {
                            readers.send_if_modified(|known| std::mem::replace(known, word.readers) != word.readers);
                        }
                    };
                    tokio::select! {
                        () = listening => {}
                        never = self.show(&chunks, &mut sent) => match never {},
                    }
                }
                Err(status) => {
                    tracing::debug!("Live output stops for a while: {}.", self.session.processor.explain(&status))
                }
            }
            tokio::time::sleep(pauses.another()).await;
        }
    }

    async fn show(
        &mut self,
        chunks: &mpsc::Sender<Chunk>,
        sent: &mut BTreeMap<String, u64>,
    ) -> std::convert::Infallible {
        let mut readers = self.readers.subscribe();
        loop {
            let is_watched = *readers.borrow_and_update() > 0;
            for name in self.logs.to_show() {
                let at = sent.entry(name.clone()).or_default();
                self.show_log(&name, at, is_watched, chunks);
            }
            let pause = if is_watched { PAUSE } else { IDLE_PAUSE };
            let looked = tokio::time::Instant::now();
            tokio::select! {
                Ok(()) = self.bell.changed() => {}
                Ok(()) = readers.changed() => continue,
                else => std::future::pending().await,
            }
            tokio::select! {
                () = tokio::time::sleep_until(looked + pause) => {}
                Ok(()) = readers.changed() => {}
            }
        }
    }

    /// As much as the connection takes now.
    fn show_log(&self, name: &str, sent: &mut u64, is_watched: bool, chunks: &mpsc::Sender<Chunk>) {
        let mut range = next(*sent, self.logs.length(name), is_watched);
        if range.is_empty() {
            return;
        }
        let Ok(log) = navvy_plain_file::open(&self.logs.path(name)) else { return };
        while !range.is_empty() {
            let Ok(permit) = chunks.try_reserve() else { return };
            let mut bytes = vec![0; usize::try_from((range.end - range.start).min(CHUNK)).unwrap_or(0)];
            if log.read_exact_at(&mut bytes, range.start).is_err() {
                return;
            }
            let offset = range.start;
            range.start += bytes.len() as u64;
            *sent = range.start;
            // The log has both streams in one.
            permit.send(Chunk { log: name.to_owned(), offset, bytes: bytes.into(), stream: Stream::Stdout.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_runs_away_is_gone_on_with_near_its_end() {
        assert_eq!(next(10, 10, true), 10..10);
        assert_eq!(next(10, 20, true), 10..20);
        assert_eq!(next(0, BEHIND, true), 0..BEHIND);
        assert_eq!(next(0, BEHIND + 1, true), BEHIND + 1 - CHUNK..BEHIND + 1);
        assert_eq!(next(0, BEHIND, false), BEHIND - IDLE_BYTES..BEHIND);
        // A log never gets shorter; one that seems to is left alone.
        assert!(next(20, 10, true).is_empty());
    }
}
