use std::path::Path;

use proptest::prelude::*;

use super::super::step_log::StepLog;
use super::*;

/// What a step writes: stream, moment in milliseconds, bytes.
type Write = (bool, u64, Vec<u8>);

/// A log and its index as they are on disk.
#[derive(Debug, Clone)]
struct Files {
    log: Vec<u8>,
    index: Vec<u8>,
}

/// What a reader made of them.
struct Seen {
    report: Report,
    pieces: Vec<(u64, Vec<u8>, Trust, Option<Origin>)>,
}

fn written(writes: &[Write], sealed: bool) -> Files {
    let directory = tempfile::tempdir().unwrap();
    let mut log = StepLog::create(directory.path(), 1, 1).unwrap();
    let mut now = 0;
    for (stderr, pause, bytes) in writes {
        now += pause * 1_000_000;
        let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
        log.append(stream, now, bytes).unwrap();
    }
    let done = if sealed { log.seal() } else { log.flush() };
    done.unwrap();
    files(log.path())
}

fn files(log: &Path) -> Files {
    let read = |path: &Path| std::fs::read(path).unwrap_or_default();
    Files { log: read(log), index: read(&log.with_extension("seg")) }
}

fn seen(files: &Files, prefix: Option<&Prefix>) -> Seen {
    let mut pieces = Vec::new();
    let report = read(files.index.as_slice(), files.log.as_slice(), prefix, |piece| {
        pieces.push((piece.start, piece.bytes.to_vec(), piece.trust, piece.origin));
        Ok(())
    });
    let seen = Seen { report: report.unwrap(), pieces };
    let whole: Vec<u8> = seen.pieces.iter().flat_map(|(_, bytes, ..)| bytes.clone()).collect();
    assert!(whole == files.log, "the pieces are not the log");
    let mut at = 0;
    for (start, bytes, ..) in &seen.pieces {
        assert_eq!(*start, at);
        at += bytes.len() as u64;
    }
    assert_eq!(seen.report.length, at);
    seen
}

impl Seen {
    /// Nothing counts as verified that is not what was written there.
    fn verifies_only(&self, original: &[u8]) {
        let mut verified = 0;
        for (start, bytes, trust, _) in &self.pieces {
            if *trust == Trust::Verified {
                verified += bytes.len() as u64;
                let start = *start as usize;
                assert_eq!(original.get(start..start + bytes.len()), Some(bytes.as_slice()), "verified wrongly");
            }
        }
        assert_eq!(self.report.verified, verified);
    }

    fn faults(&self) -> String {
        self.report.faults.iter().map(|fault| format!("{fault}\n")).collect()
    }
}

fn three_segments() -> Files {
    let files =
        written(&[(false, 1, b"one ".to_vec()), (true, 1, b"two ".to_vec()), (false, 1, b"three".to_vec())], true);
    assert_eq!(files.index.len(), SLOT * 6);
    files
}

#[test]
fn a_sealed_log_is_whole_and_its_segments_have_streams_and_times() {
    let seen = seen(&three_segments(), None);
    assert_eq!((seen.report.verdict(), seen.report.verified), (Verdict::Whole, 13));
    let origins: Vec<Origin> = seen.pieces.iter().map(|piece| piece.3.unwrap()).collect();
    let streams: Vec<Stream> = origins.iter().map(|origin| origin.stream).collect();
    assert_eq!(streams, [Stream::Stdout, Stream::Stderr, Stream::Stdout]);
    let times: Vec<u64> = origins.iter().map(|origin| origin.unix_ns.unwrap()).collect();
    assert_eq!((times[1] - times[0], times[2] - times[0]), (1_000_000, 2_000_000));
}

#[test]
fn a_log_without_a_byte_is_whole_without_an_index() {
    let seen = seen(&Files { log: vec![], index: vec![] }, None);
    assert_eq!(seen.report.verdict(), Verdict::Whole);
}

#[test]
fn bytes_without_an_index_are_unsealed() {
    let seen = seen(&Files { log: b"killed before its first record".to_vec(), index: vec![] }, None);
    assert_eq!(seen.report.verdict(), Verdict::Unsealed { from: 0 });
}

#[test]
fn a_changed_byte_is_named_with_its_segment() {
    let mut files = three_segments();
    files.log[5] ^= 1;
    let seen = seen(&files, None);
    assert_eq!(
        seen.faults(),
        "bytes 4 to 8 (segment 2) are not what was written: their crc differs\nthe log's sha256 is not the one that it was sealed with\n"
    );
    let trust: Vec<Trust> = seen.pieces.iter().map(|piece| piece.2).collect();
    assert_eq!(trust, [Trust::Verified, Trust::Damaged, Trust::Verified]);
}

#[test]
fn a_damaged_record_costs_its_own_segment_alone() {
    let mut files = three_segments();
    // Also when it then looks like the beginning of a seal.
    for value in [0, 2, 9] {
        files.index[SLOT * 2] = value;
        let seen = seen(&files, None);
        assert_eq!(seen.faults(), "the index is damaged at its byte 64: bytes 4 to 8 of the log cannot be verified\n");
        assert!(seen.report.log_is_whole() && seen.report.verified == 9);
    }
}

#[test]
fn missing_and_added_bytes_are_counted() {
    let files = three_segments();
    let short = Files { log: files.log[..6].to_vec(), ..files.clone() };
    assert_eq!(seen(&short, None).faults(), "bytes 6 to 13 are missing: the log ends at 6\n");
    let long = Files { log: [&files.log[..], b"more"].concat(), ..files };
    assert_eq!(seen(&long, None).faults(), "bytes 13 to 17 were added after the log was sealed\n");
}

#[test]
fn a_log_is_held_against_what_the_step_s_end_said() {
    let files = three_segments();
    let prefix = |bytes: usize| Prefix { bytes: bytes as u64, sha256: hex(&Sha256::digest(&files.log[..bytes])) };
    for bytes in [0, 3, 4, 13] {
        assert_eq!(seen(&files, Some(&prefix(bytes))).report.verdict(), Verdict::Whole, "{bytes}");
    }
    let none = Files { log: vec![], index: vec![] };
    assert_eq!(seen(&none, Some(&prefix(13))).faults(), "bytes 0 to 13 are missing: the log ends at 0\n");
    let other = Prefix { sha256: prefix(3).sha256, bytes: 8 };
    assert_eq!(seen(&files, Some(&other)).report.faults, [Fault::Prefix { bytes: 8 }]);
}

#[test]
fn what_cannot_be_passed_on_or_read_is_an_error() {
    let files = three_segments();
    let refused = read(files.index.as_slice(), files.log.as_slice(), None, |_| Err(io::ErrorKind::BrokenPipe.into()));
    assert!(matches!(refused, Err(ReadError::Passed(_))));
    let nothing = |_: Piece<'_>| Ok(());
    assert!(matches!(read(Broken, files.log.as_slice(), None, nothing), Err(ReadError::Index(_))));
    assert!(matches!(read(files.index.as_slice(), Broken, None, nothing), Err(ReadError::Log(_))));
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let bytes = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 1..40),
        1 => (any::<u8>(), 1_usize..MAX_SEGMENT * 2).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::vec((any::<bool>(), 0_u64..60, bytes), 1..24)
}

/// Something that befalls a file.
#[derive(Debug, Clone)]
enum Mishap {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

impl Mishap {
    fn befall(&self, file: &mut Vec<u8>) {
        match self {
            Self::Cut(at) => file.truncate(at.index(file.len() + 1)),
            Self::Flip(at, bit) if !file.is_empty() => {
                let at = at.index(file.len());
                file[at] ^= 1 << (bit % 8);
            }
            Self::Flip(..) => {}
            Self::Insert(at, bytes) => {
                let at = at.index(file.len() + 1);
                file.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, length) => {
                let at = at.index(file.len() + 1);
                let end = (at + length).min(file.len());
                file.drain(at..end);
            }
        }
    }
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        at().prop_map(Mishap::Cut),
        (at(), any::<u8>()).prop_map(|(at, bit)| Mishap::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..80)).prop_map(|(at, bytes)| Mishap::Insert(at, bytes)),
        (at(), prop_oneof![Just(SLOT), 1_usize..100]).prop_map(|(at, length)| Mishap::Remove(at, length)),
    ]
}

proptest! {
    #[test]
    fn what_was_sealed_is_whole(writes in writes()) {
        let files = written(&writes, true);
        let bytes: Vec<u8> = writes.iter().flat_map(|write| write.2.clone()).collect();
        prop_assert!(files.log == bytes);
        let seen = seen(&files, None);
        prop_assert_eq!(seen.report.verdict(), Verdict::Whole);
        prop_assert_eq!(seen.report.verified, bytes.len() as u64);
    }

    #[test]
    fn a_writer_killed_at_any_byte_leaves_what_is_verified_and_an_unsealed_end(
        writes in writes(), kill in any::<prop::sample::Index>(), late in 0_usize..3000,
    ) {
        let files = written(&writes, true);
        let index = files.index[..kill.index(files.index.len())].to_vec();
        // The log is ahead of its index, by any number of bytes.
        let slots = index.len() / SLOT;
        let covered = (1..slots).filter_map(|slot| files.index[slot * SLOT..].first_chunk()).filter_map(Segment::decode);
        let covered = covered.map(|segment| segment.end as usize).max().unwrap_or(0);
        let killed = Files { log: files.log[..(covered + late).min(files.log.len())].to_vec(), index };
        let seen = seen(&killed, None);
        seen.verifies_only(&files.log);
        prop_assert_eq!(seen.report.verdict(), match (killed.log.len(), killed.index.len()) {
            (0, 0) => Verdict::Whole,
            _ => Verdict::Unsealed { from: covered as u64 },
        });
        prop_assert_eq!(seen.report.verified, covered as u64);
    }

    #[test]
    fn any_mishap_of_the_log_is_told(writes in writes(), mishap in mishap()) {
        let files = written(&writes, true);
        let mut damaged = files.clone();
        mishap.befall(&mut damaged.log);
        let seen = seen(&damaged, None);
        seen.verifies_only(&files.log);
        prop_assert_eq!(seen.report.verdict() == Verdict::Damaged, damaged.log != files.log);
    }

    #[test]
    fn any_mishap_of_the_index_is_told(writes in writes(), sealed: bool, mishap in mishap()) {
        let files = written(&writes, sealed);
        let mut damaged = files.clone();
        mishap.befall(&mut damaged.index);
        let before = seen(&files, None).report.verdict();
        let seen = seen(&damaged, None);
        seen.verifies_only(&files.log);
        if damaged.index != files.index && sealed {
            prop_assert!(seen.report.verdict() != before, "{:?}", seen.report);
        }
    }

    #[test]
    fn many_mishaps_verify_nothing_wrongly(
        writes in writes(), log in prop::collection::vec(mishap(), 0..4), index in prop::collection::vec(mishap(), 0..4),
    ) {
        let files = written(&writes, true);
        let mut damaged = files.clone();
        log.iter().for_each(|mishap| mishap.befall(&mut damaged.log));
        index.iter().for_each(|mishap| mishap.befall(&mut damaged.index));
        let seen = seen(&damaged, None);
        seen.verifies_only(&files.log);
        let same = damaged.log == files.log && damaged.index == files.index;
        prop_assert_eq!(seen.report.verdict() == Verdict::Whole, same || damaged.log.is_empty() && damaged.index.is_empty());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        log in prop::collection::vec(any::<u8>(), 0..400), index in prop::collection::vec(any::<u8>(), 0..400),
        bytes: u64, sha256 in "[0-9a-f]{0,64}",
    ) {
        let files = Files { log, index };
        seen(&files, None);
        seen(&files, Some(&Prefix { bytes, sha256 }));
    }

    #[test]
    fn any_records_are_read_without_a_panic(
        log in prop::collection::vec(any::<u8>(), 0..400),
        records in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u64>(), any::<bool>()), 0..12),
    ) {
        let mut index = Header { unix_ns: u64::MAX }.encode().to_vec();
        for (end, length, ns, seal) in records {
            let end = if length % 3 == 0 { end % 500 } else { end };
            let length = if length % 2 == 0 { length % 100 } else { length };
            match seal {
                true => index.extend(Seal { total: end, sha256: [3; 32] }.encode()),
                false => index.extend(Segment { stream: Stream::Stdout, end, length, ns, crc: length }.encode()),
            }
        }
        seen(&Files { log, index }, None);
    }
}
