//! Logs and their indexes: of any bytes; of any records under right checksums; of what a writer wrote and something then
//! befell. The reader says *whole* where a naive reader of docs/spool.md does, and of nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, Trickle, mishap};
use navvy_output::reader::{Prefix, Report, Trust, Verdict, read};
use navvy_output::segments::{Header, MAX_SEGMENT, SLOT, Seal, Segment};
use navvy_protocol::frame::Stream;
use sha2::{Digest as _, Sha256};

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let mode = feed.byte();
    let step = usize::from(feed.byte());
    match mode % 3 {
        0 => {
            let index = feed.piece(400).to_vec();
            drop(Files { log: feed.rest().to_vec(), index }.seen(step));
        }
        1 => drop(any_records(&mut feed).seen(step)),
        _ => written(&mut feed, step),
    }
});

/// A log and its index as they are on disk.
#[derive(Clone, PartialEq)]
struct Files {
    log: Vec<u8>,
    index: Vec<u8>,
}

/// What a reader made of them.
struct Seen {
    report: Report,
    /// Where verified bytes begin and end.
    verified: Vec<(usize, usize)>,
}

impl Files {
    /// Reads them, `step` bytes at a time, and checks what holds of any two files.
    fn seen(&self, step: usize) -> Seen {
        let seen = self.read(step, None);
        let report = &seen.report;
        let sha256 = hex(&self.log);
        assert_eq!((report.length, &report.sha256), (self.log.len() as u64, &sha256));
        assert_eq!(report.verified, seen.verified.iter().map(|(start, end)| (end - start) as u64).sum::<u64>());
        assert_eq!(report.faults.len() as u64, report.fault_count.min(64));
        assert_eq!(report.verdict() == Verdict::Whole, self.whole_by_the_book(), "{report:?}");
        if let Verdict::Unsealed { from } = report.verdict() {
            assert_eq!((from, report.seal), (report.verified, None));
        }

        // What the step's end said is told besides, and hides nothing.
        let right = Prefix { bytes: report.length, sha256 };
        assert_eq!(self.read(step, Some(&right)).report, *report);
        let longer = Prefix { bytes: report.length + 1, ..right };
        assert_eq!(self.read(step, Some(&longer)).report.verdict(), Verdict::Damaged);
        seen
    }

    fn read(&self, step: usize, prefix: Option<&Prefix>) -> Seen {
        let (mut at, mut verified) = (0, Vec::new());
        let index = Trickle { bytes: &self.index, step };
        let log = Trickle { bytes: &self.log, step: 1 + step * step + self.log.len() / 64 };
        let report = read(index, log, prefix, |piece| {
            let end = at + piece.bytes.len();
            assert!(piece.start == at as u64 && !piece.bytes.is_empty() && piece.bytes.len() <= MAX_SEGMENT);
            assert!(piece.bytes == &self.log[at..end], "a piece is not the log's");
            if piece.trust == Trust::Verified {
                verified.push((at, end));
            }
            at = end;
            Ok(())
        });
        assert_eq!(at, self.log.len(), "the pieces are not the log");
        Seen { report: report.expect("memory can be read"), verified }
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.index.as_chunks().0.iter().filter_map(Segment::decode)
    }

    /// The invariants of docs/spool.md one by one.
    fn whole_by_the_book(&self) -> bool {
        if self.index.is_empty() {
            return self.log.is_empty();
        }
        let (slots, torn) = self.index.as_chunks::<SLOT>();
        let [header, segments @ .., first, second] = slots else { return false };
        let Some(seal) = Seal::decode(first, second) else { return false };
        let mut at = 0;
        for slot in segments {
            let Some(segment) = Segment::decode(slot) else { return false };
            let end = at + u64::from(segment.length);
            let bytes = self.log.get(at as usize..end as usize);
            if segment.end != end || bytes.is_none_or(|bytes| crc32fast::hash(bytes) != segment.crc) {
                return false;
            }
            at = end;
        }
        let is_all = at > 0 && at == self.log.len() as u64 && at == seal.total;
        torn.is_empty() && Header::decode(header).is_some() && is_all && seal.hex() == hex(&self.log)
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Records that are right by themselves and need not fit to each other or to the log.
fn any_records(feed: &mut Feed<'_>) -> Files {
    let log = feed.piece(300).to_vec();
    let mut index = Vec::new();
    let mut at: usize = 0;
    while !feed.is_empty() && index.len() < 40 * SLOT {
        match feed.byte() % 8 {
            0 => index.extend(Header { unix_ns: feed.number() }.encode()),
            1 => index.extend_from_slice(feed.piece(SLOT)),
            2 => index.extend(Seal { total: feed.number(), sha256: [feed.byte(); 32] }.encode()),
            3 => index.extend(Seal { total: log.len() as u64, sha256: Sha256::digest(&log).into() }.encode()),
            4 => {
                let (length, end) = (feed.number() as u32, feed.number());
                let segment =
                    Segment { stream: Stream::Stderr, end, length, ns: feed.number(), crc: feed.byte().into() };
                index.extend(segment.encode());
            }
            _ => {
                let start = at.saturating_sub(feed.byte().saturating_sub(250).into());
                let end = (start + feed.up_to(80)).min(log.len() + 2).max(start);
                index.extend(segment(&log, start, end, feed.number(), Stream::Stdout).encode());
                at = end;
            }
        }
    }
    Files { log, index }
}

fn segment(log: &[u8], start: usize, end: usize, ns: u64, stream: Stream) -> Segment {
    let crc = crc32fast::hash(log.get(start..end).unwrap_or_default());
    Segment { stream, end: end as u64, length: (end - start) as u32, ns, crc }
}

fn written(feed: &mut Feed<'_>, step: usize) {
    let (original, is_sealed) = as_written(feed);
    let seen = original.seen(step);
    assert_eq!((seen.report.verified, seen.report.fault_count), (original.log.len() as u64, 0));
    assert_eq!(seen.report.verdict() == Verdict::Whole, is_sealed || original.log.is_empty());
    let said = Prefix { bytes: original.log.len() as u64, sha256: hex(&original.log) };

    let segments: Vec<usize> = original.segments().map(|segment| segment.end as usize).collect();
    let slots: Vec<usize> = (0..=original.index.len()).step_by(SLOT).collect();
    let mut damaged = original.clone();
    for _ in 0..=feed.up_to(3) {
        if feed.byte() & 1 == 0 {
            mishap(feed, &mut damaged.log, &segments);
        } else {
            mishap(feed, &mut damaged.index, &slots);
        }
    }
    let seen = damaged.seen(step);
    for (start, end) in &seen.verified {
        let was = original.log.get(*start..*end);
        assert!(was == Some(&damaged.log[*start..*end]), "bytes {start} to {end} are not what was written there");
    }
    let is_gone = damaged.log.is_empty() && damaged.index.is_empty();
    assert!(seen.report.verdict() != Verdict::Whole || damaged == original || is_gone, "another log counts as whole");
    if damaged.index == original.index && is_sealed {
        assert_eq!(seen.report.verdict() == Verdict::Whole, damaged.log == original.log);
    }
    // Whatever became of the index: the step's end tells a changed log.
    let is_told = damaged.read(step, Some(&said)).report.verdict() == Verdict::Damaged;
    assert!(is_told || damaged.log.starts_with(&original.log), "a changed log is not told");
}

/// As docs/spool.md says, by no writer of ours; sealed or not.
fn as_written(feed: &mut Feed<'_>) -> (Files, bool) {
    let mut files = Files { log: Vec::new(), index: Vec::new() };
    let mut ns = feed.number() >> 1;
    for _ in 0..feed.up_to(9) {
        let start = files.log.len();
        let stream = if feed.byte() & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
        match feed.piece(60) {
            [] => files.log.push(b'.'),
            // A long one now and then: two are more than a reader holds at once.
            [255, byte, ..] if start < MAX_SEGMENT => files.log.resize(start + MAX_SEGMENT / 2 + 1, *byte),
            bytes => files.log.extend_from_slice(bytes),
        }
        ns += u64::from(feed.byte());
        if start == 0 {
            files.index.extend(Header { unix_ns: feed.number() }.encode());
        }
        files.index.extend(segment(&files.log, start, files.log.len(), ns, stream).encode());
    }
    let is_sealed = feed.byte() & 3 != 0 && !files.log.is_empty();
    if is_sealed {
        let sha256 = Sha256::digest(&files.log).into();
        files.index.extend(Seal { total: files.log.len() as u64, sha256 }.encode());
    }
    (files, is_sealed)
}
