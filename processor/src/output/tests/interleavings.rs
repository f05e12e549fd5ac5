//! Whatever comes in whatever order: what a reader gets is what was written, once each and in order.

use std::time::Duration;

use futures_util::StreamExt as _;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::*;

const LOG: &str = "003-1";

/// What happens to a log, an agent, a processor and those who look on.
#[derive(Debug, Clone)]
enum Happening {
    /// The agent sends its next live bytes.
    Chunk(u64),
    /// The agent's next live bytes are lost on the way.
    Lost(u64),
    /// The agent sends live bytes again, from this far back.
    Again(u64),
    /// Somebody sends a chunk that no honest agent sends, of another log or of another form.
    Hostile(u64),
    /// The next bytes become a segment, and after them this many more before they are committed.
    Commit { length: u64, elsewhere: bool },
    /// Two segments are committed, the later one first.
    OutOfOrder(u64, u64),
    /// The last commit is made again.
    Repeat,
    /// The processor is killed and starts again.
    Restart,
    /// Somebody begins to read at this part of what there is.
    Reader(prop::sample::Index),
    /// Everybody else goes on.
    Breath(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (1..3000_u64).prop_map(Happening::Chunk),
        1 => (1..3000_u64).prop_map(Happening::Lost),
        1 => (1..9000_u64).prop_map(Happening::Again),
        1 => any::<u64>().prop_map(Happening::Hostile),
        4 => (1..6000_u64, prop::bool::weighted(0.1))
            .prop_map(|(length, elsewhere)| Happening::Commit { length, elsewhere }),
        1 => (1..3000_u64, 1..3000_u64).prop_map(|(first, second)| Happening::OutOfOrder(first, second)),
        1 => Just(Happening::Repeat),
        1 => Just(Happening::Restart),
        3 => any::<prop::sample::Index>().prop_map(Happening::Reader),
        6 => (0..20_u8).prop_map(Happening::Breath),
    ]
}

/// A client that goes on at its cursor, wherever the processor is now.
async fn client(mut processor: watch::Receiver<Output>, start: u64) -> (u64, Vec<u8>) {
    let mut all = Vec::new();
    loop {
        let output = processor.borrow_and_update().clone();
        let mut stream = output.read(TASK, LOG, start + all.len() as u64, true).await.unwrap();
        loop {
            tokio::select! {
                piece = stream.next() => match piece {
                    Some(piece) => all.extend_from_slice(&piece.unwrap()),
                    None => return (start, all),
                },
                Ok(()) = processor.changed() => break,
            }
        }
    }
}

struct Story {
    bench: Bench,
    current: watch::Sender<Output>,
    clients: JoinSet<(u64, Vec<u8>)>,
    /// What the step has written.
    written: u64,
    /// What went live, and what is durable.
    live: u64,
    durable: u64,
    last: Vec<v1::Segment>,
}

impl Story {
    /// The agent commits only what the step has written.
    fn write(&mut self, length: u64) -> std::ops::Range<u64> {
        let range = self.durable..self.durable + length;
        self.durable = range.end;
        self.written = self.written.max(range.end);
        range
    }

    async fn commit(&mut self, segments: Vec<v1::Segment>) {
        assert_eq!(self.bench.commit(&segments).await.unwrap(), self.durable);
        self.last = segments;
    }

    async fn put(&self, range: std::ops::Range<u64>) -> v1::Segment {
        self.bench.put(LOG, range.start, &honest(range)).await
    }

    fn chunk(&self, range: std::ops::Range<u64>) {
        self.bench.live(LOG, range.start, &honest(range)).unwrap();
    }

    fn hostile(&self, seed: u64) {
        let refused = |result: Result<(), OutputError>| assert!(result.is_err());
        match seed % 6 {
            0 => refused(self.bench.live("../x", 0, b"x")),
            1 => refused(self.bench.live(LOG, self.live, b"")),
            2 => refused(self.bench.live(LOG, self.live, &vec![0; hub::MAX_CHUNK + 1])),
            3 => refused(self.bench.live(LOG, u64::MAX - seed % 10, b"x")),
            4 => self.bench.live("004-1", seed % MOST_OFFSET, b"x").unwrap(),
            // Far behind everything that the log will ever have.
            _ => self.bench.live(LOG, MOST_OFFSET - seed % 10, b"x").unwrap(),
        }
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Chunk(length) => {
                let range = self.live..self.live + length;
                self.live = range.end;
                self.written = self.written.max(range.end);
                self.chunk(range);
            }
            Happening::Lost(length) => self.live += length,
            Happening::Again(back) => {
                let from = self.live.saturating_sub(back);
                if from < self.live {
                    self.chunk(from..self.live);
                }
            }
            Happening::Hostile(seed) => self.hostile(seed),
            Happening::Commit { length, elsewhere } => {
                let range = self.write(length);
                let segment = self.put(range).await;
                if elsewhere {
                    let other = output(&self.bench.database, &self.bench.store);
                    other.commit(&access(TASK), std::slice::from_ref(&segment)).await.unwrap();
                }
                self.commit(vec![segment]).await;
            }
            Happening::OutOfOrder(first, second) => {
                let before = self.durable;
                let (first, second) = (self.write(first), self.write(second));
                let second = self.put(second).await;
                assert_eq!(self.bench.commit(&[second]).await.unwrap(), before);
                let first = self.put(first).await;
                self.commit(vec![first]).await;
            }
            Happening::Repeat => {
                if !self.last.is_empty() {
                    self.commit(self.last.clone()).await;
                }
            }
            Happening::Restart => {
                self.bench.restart();
                self.current.send_replace(self.bench.output.clone());
            }
            Happening::Reader(index) => {
                let start = index.index(self.written as usize + 1) as u64;
                self.clients.spawn(client(self.current.subscribe(), start));
            }
            Happening::Breath(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// The agent's end: everything is durable, and everybody has read it.
    async fn end(mut self) {
        let length = self.written.max(self.live) + 1 - self.durable;
        let range = self.write(length);
        let segment = self.put(range).await;
        self.commit(vec![segment]).await;
        let whole = honest(0..self.written);
        let ends = [v1::LogEnd { log: LOG.into(), bytes: self.written, sha256: Sha256::digest(&whole).to_vec() }];
        let finished = self.bench.output.finish(&access(TASK), &ends, Duration::from_secs(60)).await.unwrap();
        assert_eq!(finished, Finished::Complete);
        self.clients.spawn(client(self.current.subscribe(), 0));
        while !self.clients.is_empty() {
            let read = tokio::time::timeout(Duration::from_secs(60), self.clients.join_next()).await;
            let Some(read) = read.expect("readers that are told") else { break };
            let (start, all) = read.unwrap();
            assert!(all == whole[start as usize..], "a reader from {start} got {} bytes of {}", all.len(), whole.len());
        }
    }
}

async fn tell(happenings: &[Happening]) {
    for bench in benches().await {
        let current = watch::Sender::new(bench.output.clone());
        let clients = JoinSet::new();
        let mut story = Story { bench, current, clients, written: 0, live: 0, durable: 0, last: Vec::new() };
        for happening in happenings {
            story.happen(happening.clone()).await;
        }
        story.end().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn bytes_read_are_bytes_written(happenings in prop::collection::vec(happening(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tell(&happenings));
    }
}
