//! The index of a log that another process has left: as far as it fits the log, which may have been cut.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use navvy_protocol::frame::Stream;

use super::segments::{Header, MAX_SEGMENT, SLOT, Segment};
use super::step_log::Index;

/// An index is never longer: a record for every byte of a small log, or every 256 KiB of a huge one.
const LONGEST: u64 = 1 << 30;

/// The index of a log that ends after `bytes`. Records behind that go; bytes without a record get one, to be written with the
/// next.
pub(super) fn resume_index(log: &Path, bytes: u64) -> io::Result<Index> {
    let path = log.with_extension("seg");
    let mut index = Index::new(path.clone());
    let found = match navvy_plain_file::read(&path, LONGEST) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // One that was made and not written to is there all the same.
    let (is_there, found) = (found.is_some(), found.unwrap_or_default());
    let slots = found.as_chunks::<SLOT>().0;
    let has_header = bytes > 0 && slots.first().is_some_and(|slot| Header::decode(slot).is_some());
    let (mut whole, mut cut) = (Vec::new(), None);
    for slot in slots.iter().skip(1).take_while(|_| has_header) {
        let before = whole.last().map_or(0, |segment: &Segment| segment.end);
        match Segment::decode(slot) {
            Some(segment) if segment.start() == before && segment.end <= bytes => whole.push(segment),
            other => {
                cut = other.filter(|segment| segment.start() == before);
                break;
            }
        }
    }
    let length = if has_header { (SLOT * (1 + whole.len())) as u64 } else { 0 };
    if is_there {
        let file = File::options().append(true).open(&path)?;
        file.set_len(length)?;
        (index.file, index.length) = (Some(file), length);
    }
    // The stream of what has no record is not known any more; most steps write to one alone.
    let (stream, ns) = match (cut, whole.last()) {
        (Some(cut), _) => (cut.stream, cut.ns),
        (None, Some(last)) => (last.stream, last.ns),
        (None, None) => (Stream::Stdout, 0),
    };
    let recorded = whole.last().map_or(0, |segment| segment.end);
    for segment in recorded_anew(log, recorded, bytes, stream, ns)? {
        index.add(segment);
    }
    Ok(index)
}

fn recorded_anew(log: &Path, mut at: u64, bytes: u64, stream: Stream, ns: u64) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    if at == bytes {
        return Ok(segments);
    }
    let (file, mut buffer) = (navvy_plain_file::open(log)?, vec![0; MAX_SEGMENT]);
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(MAX_SEGMENT);
        file.read_exact_at(&mut buffer[..length], at)?;
        at += length as u64;
        let (length, crc) = (u32::try_from(length).unwrap_or(u32::MAX), crc32fast::hash(&buffer[..length]));
        segments.push(Segment { stream, end: at, length, ns, crc });
    }
    Ok(segments)
}
