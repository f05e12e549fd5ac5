//! Events on their way: lines of `events.jsonl`, numbered, handed over in batches.
//!
//! Numbers go on where an earlier agent of the task has ended, if there was one. An event that the processor does not take is told
//! of in its place: one that nobody understands must not keep back those behind it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use navvy_protocol::processor::v1::{GetMarksRequest, RecordRequest};
use tokio::sync::watch;
use tonic::Code;

use super::Progress;
use crate::fleet::connection::{Session, unary};
use crate::fleet::persist::{Halt, Loss, Pauses, lost, persist};
use crate::fleet::record::Recorded;

/// Bytes and lines of one call.
const BATCH: usize = 1 << 20;
const LINES: usize = 500;
/// A processor takes no longer event.
const LONGEST: usize = 1 << 20;

/// What is delivered, and to whom.
pub struct EventDelivery {
    pub session: Session,
    pub loss: Loss,
    pub path: PathBuf,
    pub recorded: watch::Receiver<Recorded>,
    /// Lines that another agent of the task has left.
    pub left: u64,
    pub progress: Progress,
}

/// Lines whose places are known. Lines follow each other: `starts[n]` is where line n begins.
#[derive(Debug, Default)]
struct Lines {
    starts: Vec<u64>,
    /// Where the first line begins that was not read yet.
    end: u64,
}

impl EventDelivery {
    /// Until all events are handed over. Returns how many the task has.
    ///
    /// # Errors
    /// The task is lost, the processor refuses them, or the file cannot be read.
    pub async fn deliver(mut self) -> Result<u64, Halt> {
        let file = open(&self.path)?;
        let wanted = self.wanted().await?;
        // Another agent's file holds all events of the task, and some of them were handed over.
        let base = wanted.saturating_sub(self.left);
        let (mut lines, mut next, mut pauses) = (Lines::default(), 0, Pauses::default());
        while next < wanted - base {
            next += lines.read(&file, next, wanted - base).await?.len() as u64;
        }
        loop {
            let Recorded { lines: there, closed, .. } = self.recorded.borrow_and_update().clone();
            if next >= there {
                if closed {
                    return Ok(base + there);
                }
                tokio::select! {
                    changed = self.recorded.changed() => changed.map_err(|_| spool("its writer is gone"))?,
                    () = lost(&mut self.loss) => return Err(Halt::Lost),
                }
                continue;
            }
            let batch = lines.read(&file, next, there).await?;
            let sent_to = next + batch.len() as u64;
            let answered = self.hand_over_each(base + next, batch).await?;
            // A processor that wants what there is not yet, or was before this agent, is not believed.
            let wanted = answered.saturating_sub(base).min(sent_to);
            if wanted > next {
                self.progress.made();
                pauses = Pauses::default();
            } else {
                tokio::time::sleep(pauses.another()).await;
            }
            next = wanted;
        }
    }

    /// The number of the event that the processor wants next.
    async fn wanted(&self) -> Result<u64, Halt> {
        let call = || {
            let mut agents = self.session.agents();
            async move { unary(agents.get_marks(GetMarksRequest {})).await }
        };
        Ok(persist(&self.session, &self.loss, call).await?.next_event)
    }

    /// All at once; if one of them is refused, one after the other, with a word in the place of that one.
    async fn hand_over_each(&self, first: u64, events: Vec<Vec<u8>>) -> Result<u64, Halt> {
        let mut next = match self.hand_over(first, events.clone()).await {
            Err(Halt::Refused(error)) if error.code == Code::InvalidArgument => first,
            handed => return handed,
        };
        for (number, event) in (first..).zip(events) {
            next = match self.hand_over(number, vec![event]).await {
                Err(Halt::Refused(error)) if error.code == Code::InvalidArgument => {
                    tracing::warn!("An event is not taken: {error}.");
                    self.hand_over(number, vec![in_place_of(number, "was not taken by the processor")]).await?
                }
                handed => handed?,
            };
            if next <= number {
                break;
            }
        }
        Ok(next)
    }

    async fn hand_over(&self, first: u64, events: Vec<Vec<u8>>) -> Result<u64, Halt> {
        let call = || {
            let (mut agents, request) = (self.session.agents(), RecordRequest { first, events: events.clone() });
            async move { unary(agents.record(request)).await }
        };
        Ok(persist(&self.session, &self.loss, call).await?.next)
    }
}

impl Lines {
    /// Lines from the `first` on, of those that are there.
    async fn read(&mut self, file: &Arc<File>, first: u64, there: u64) -> Result<Vec<Vec<u8>>, Halt> {
        let first = usize::try_from(first).map_err(|_| spool("it has too many lines"))?;
        let from = self.starts.get(first).copied().unwrap_or(self.end);
        let most = usize::try_from(there).unwrap_or(usize::MAX).saturating_sub(first).min(LINES);
        let file = Arc::clone(file);
        let read = tokio::task::spawn_blocking(move || read_lines(&file, from, most)).await;
        let found = read.map_err(|_| spool("a thread of the agent ended unexpectedly"))?;
        let found = found.map_err(|error| spool(&error.to_string()))?;
        let mut at = from;
        for (index, line) in found.iter().enumerate() {
            if self.starts.len() == first + index {
                self.starts.push(at);
            }
            at += line.len() as u64 + 1;
        }
        self.end = self.end.max(at);
        let sendable = |(index, line): (usize, Vec<u8>)| match line.len() {
            ..=LONGEST => line,
            length => in_place_of((first + index) as u64, &format!("is {length} bytes long, and was not handed over")),
        };
        Ok(found.into_iter().enumerate().map(sendable).collect())
    }
}

/// Whole lines from a place on: `most` of them, and no more than a batch, but at least one.
fn read_lines(file: &File, from: u64, most: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut room = BATCH;
    loop {
        let mut bytes = vec![0; room];
        let length = read_up_to(file, &mut bytes, from)?;
        bytes.truncate(length);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole > 0 {
            return Ok(bytes[..whole - 1].split(|byte| *byte == b'\n').take(most).map(<[u8]>::to_vec).collect());
        }
        if length < room {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        room *= 2;
    }
}

fn read_up_to(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], from + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What stands for an event that is not handed over.
fn in_place_of(number: u64, what: &str) -> Vec<u8> {
    let message = format!("event {number} of the task {what}");
    let time = jiff::Timestamp::now().to_string();
    serde_json::json!({ "at_ms": 0, "time": time, "event": "warning", "message": message }).to_string().into_bytes()
}

fn open(path: &std::path::Path) -> Result<Arc<File>, Halt> {
    navvy_plain_file::open(path).map(Arc::new).map_err(|error| spool(&error.to_string()))
}

fn spool(why: &str) -> Halt {
    Halt::Spool(format!("the task's events cannot be read back from disk: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(text: &[u8]) -> Arc<File> {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Arc::new(file)
    }

    #[tokio::test]
    async fn lines_are_read_from_any_number_on_and_never_half() {
        let file = file_of(b"zero\none\ntwo\nha");
        let mut lines = Lines::default();
        assert_eq!(lines.read(&file, 0, 2).await.unwrap(), [b"zero".to_vec(), b"one".to_vec()]);
        assert_eq!(lines.read(&file, 2, 3).await.unwrap(), [b"two".to_vec()]);
        assert_eq!(lines.read(&file, 1, 3).await.unwrap(), [b"one".to_vec(), b"two".to_vec()]);
        assert!(matches!(lines.read(&file, 3, 4).await, Err(Halt::Spool(_))));
    }

    #[tokio::test]
    async fn a_line_that_fits_into_no_message_is_told_of_in_its_place() {
        let mut text = vec![b'x'; LONGEST + 1];
        text.extend(b"\nnext\n");
        let read = Lines::default().read(&file_of(&text), 0, 2).await.unwrap();
        assert!(String::from_utf8_lossy(&read[0]).contains("was not handed over"));
        assert!(read.len() == 1 || read[1] == b"next");
    }
}
