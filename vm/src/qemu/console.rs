//! A machine's console: the last of what it said, in memory alone, and a stream of it for whoever listens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use navvy_environment::request::{ServiceEnd, ServiceOutput};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// What is kept of it.
const KEPT: usize = 64 << 10;
/// What errors show of it.
const SHOWN_LINES: usize = 20;
const SHOWN: usize = 4 << 10;
/// A guest that floods its console is read this slowly, and waits: 6 MB/s.
const PIECE: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(10);
/// Pieces that wait for who listens.
const QUEUE: usize = 16;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Console(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    listener: Option<mpsc::Sender<Bytes>>,
    end: Option<oneshot::Sender<ServiceEnd>>,
    lost: u64,
    readers: usize,
}

impl Console {
    /// Reads one of the guest's consoles until it ends. What is heard ends with the last of them.
    pub fn read(&self, stream: UnixStream) -> impl Future<Output = ()> + Send + use<> {
        self.lock().readers += 1;
        self.clone().read_all(stream)
    }

    async fn read_all(self, mut stream: UnixStream) {
        let mut piece = vec![0; PIECE];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    self.take(&piece[..count]);
                    // Short lines of a kernel that boots are not held up.
                    if count > PIECE / 4 {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        let mut kept = self.lock();
        kept.readers -= 1;
        if kept.readers > 0 {
            return;
        }
        kept.listener = None;
        let lost = kept.lost;
        if let Some(end) = kept.end.take() {
            let _nobody_listens = end.send(ServiceEnd { exit_code: None, lost, trouble: None });
        }
    }

    /// Waits until all of it was read: its sockets end with the machine's process.
    pub async fn over(&self, limit: Duration) {
        let deadline = tokio::time::Instant::now() + limit;
        while self.lock().readers > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.bytes.extend(bytes);
        let surplus = kept.bytes.len().saturating_sub(KEPT);
        kept.bytes.drain(..surplus);
        if let Some(listener) = &kept.listener
            && listener.try_send(Bytes::copy_from_slice(bytes)).is_err()
        {
            kept.lost += bytes.len() as u64;
        }
    }

    /// From here on, as a service's output; whoever listens too slowly loses some of it.
    pub fn listen(&self, name: &str, image: &str, machine: String) -> ServiceOutput {
        let (sender, rx) = mpsc::channel(QUEUE);
        let (end_sender, end) = oneshot::channel();
        let mut kept = self.lock();
        kept.listener = Some(sender);
        kept.end = Some(end_sender);
        ServiceOutput { name: name.to_owned(), image: image.to_owned(), container: machine, rx, end }
    }

    /// Everything that is kept, as text.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.lock().bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its last lines, as an error may show them.
    pub fn last_lines(&self) -> String {
        last_lines(&self.text())
    }
}

/// The last lines of a stranger's text: no control character of it reaches a terminal.
pub fn last_lines(text: &str) -> String {
    let clean: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<&str> = clean.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    let from = shown.len().saturating_sub(SHOWN);
    let from = (from..shown.len()).find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
    shown[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_flood_leaves_its_end_and_no_more() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let console = Console::default();
        let mut output = console.listen("console", "i", "m".to_owned());
        let reading = tokio::spawn(console.read(ours));
        for number in 0..20_000 {
            theirs.write_all(format!("line {number} \u{1b}[31mred\n").as_bytes()).await.unwrap();
        }
        drop(theirs);
        reading.await.unwrap();
        assert!(console.text().len() <= KEPT);
        let shown = console.last_lines();
        assert!(shown.ends_with("line 19999 [31mred") && shown.lines().count() == SHOWN_LINES, "{shown}");
        let mut heard = 0;
        while let Some(piece) = output.rx.recv().await {
            heard += piece.len() as u64;
        }
        let end = output.end.await.unwrap();
        let said: u64 = (0..20_000u32).map(|number| format!("line {number} \u{1b}[31mred\n").len() as u64).sum();
        assert_eq!(heard + end.lost, said);
    }

    #[test]
    fn few_or_endless_lines_are_shown_within_bounds() {
        assert_eq!(last_lines(""), "");
        assert_eq!(last_lines("a\r\n\r\nb"), "a\nb");
        assert_eq!(last_lines(&"é".repeat(10_000)).len(), SHOWN);
    }
}
