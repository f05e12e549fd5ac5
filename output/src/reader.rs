//! Reads a log with its index and tells which bytes are what was written. Pure but for the two readers that it is given;
//! bounded memory; no bytes make it panic.
//!
//! ```text
//! index: header segment segment ✗ segment │ (torn)        seal?
//! log:         [verified][verified][ ? ][verified][ unsealed … ]
//! ```
//!
//! | trust | what it says of a piece of the log |
//! |---|---|
//! | verified | its segment's crc fits |
//! | damaged | its segment's crc does not fit, or a seal says that these bytes were never written |
//! | unverified | no segment covers it: its writer lives or died, or the index is damaged there |
//!
//! Bytes that records promise and the log lacks are *missing*. A sealed log is also held against the seal's sha256.

use std::io::{self, Read};

use navvy_protocol::frame::Stream;
use sha2::{Digest as _, Sha256};

use super::segments::{Header, MAX_SEGMENT, SLOT, Seal, Segment, hex};

/// Faults that are kept one by one; of more only the number is known.
const FAULTS_LIMIT: usize = 64;

/// What is known of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Their segment's CRC fits.
    Verified,
    /// They are not what was written.
    Damaged,
    /// No readable record covers them, so nothing can be said of them.
    Unverified,
}

/// Bytes of the log, in order; all pieces together are the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Offset of the first byte, in the log.
    pub start: u64,
    /// The bytes themselves.
    pub bytes: &'a [u8],
    /// What is known of them.
    pub trust: Trust,
    /// Where they came from; `None` where no record says so.
    pub origin: Option<Origin>,
}

/// Where a segment's bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Number of the segment in its log, from 1.
    pub segment: u64,
    /// Stream that they came from.
    pub stream: Stream,
    /// Nanoseconds since 1970 (UTC) of its first byte, if the index's header can be read.
    pub unix_ns: Option<u64>,
}

/// Something that is not as it was written. Offsets are of the log, unless they are said to be the index's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A segment's CRC does not fit its bytes.
    #[error("bytes {start} to {end} (segment {segment}) are not what was written: their crc differs")]
    Segment {
        /// Number of the segment, from 1.
        segment: u64,
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// The log is shorter than its index says.
    #[error("bytes {start} to {end} are missing: the log ends at {start}")]
    Missing {
        /// Length of the log.
        start: u64,
        /// Length that the index gives it.
        end: u64,
    },
    /// The log is longer than its seal says.
    #[error("bytes {start} to {end} were added after the log was sealed")]
    Added {
        /// Length that it was sealed with.
        start: u64,
        /// Length of the log.
        end: u64,
    },
    /// The digest of all bytes is another than the seal's.
    #[error("the log's sha256 is not the one that it was sealed with")]
    Digest,
    /// The digest of the first bytes is another than [`Prefix::sha256`].
    #[error("the first {bytes} bytes are not those that the step had written when it ended: their sha256 differs")]
    Prefix {
        /// How many bytes were compared.
        bytes: u64,
    },
    /// Records of the index are damaged, and with them what they say of the log.
    #[error("the index is damaged at its byte {at}: bytes {start} to {end} of the log cannot be verified")]
    Index {
        /// Where the damage begins, in the index.
        at: u64,
        /// First byte of the log that cannot be verified.
        start: u64,
        /// Where verified bytes begin again.
        end: u64,
    },
    /// A record of the index is damaged that says nothing of the log's bytes.
    #[error("the index is damaged at its byte {at}")]
    IndexRecord {
        /// Where it begins, in the index.
        at: u64,
    },
}

/// How much of a log is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is sealed, and every byte is what was written; or it is empty.
    Whole,
    /// It is whole up to `from`; the bytes behind have no record yet.
    Unsealed {
        /// Length of what is recorded, in bytes.
        from: u64,
    },
    /// See the faults.
    Damaged,
}

/// The result of reading a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that the log has.
    pub length: u64,
    /// Bytes among them whose segment's CRC fits.
    pub verified: u64,
    /// Hexadecimal, of all that the log has.
    pub sha256: String,
    /// Number of segments in the index.
    pub segments: u64,
    /// `None` while the log is being written, or if its writer died.
    pub seal: Option<Seal>,
    /// Where the unrecorded end begins, in a log without a seal.
    pub unsealed_from: Option<u64>,
    /// The first of them.
    pub faults: Vec<Fault>,
    /// How many faults there are in all.
    pub fault_count: u64,
}

impl Report {
    /// What the report comes down to.
    pub fn verdict(&self) -> Verdict {
        match self.unsealed_from {
            _ if self.fault_count > 0 => Verdict::Damaged,
            Some(from) => Verdict::Unsealed { from },
            None => Verdict::Whole,
        }
    }

    /// The index has faults, and yet the log is whole by the digest that it was sealed with.
    pub fn log_is_whole(&self) -> bool {
        self.seal.is_some_and(|seal| seal.total == self.length && seal.hex() == self.sha256)
    }

    fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_LIMIT {
            self.faults.push(fault);
        }
    }
}

/// What kept a log from being read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file with the bytes.
    #[error("could not read the log")]
    Log(#[source] io::Error),
    /// The file with the segments.
    #[error("could not read the log's index")]
    Index(#[source] io::Error),
    /// The caller's own `each` failed.
    #[error("could not pass the log on")]
    Passed(#[source] io::Error),
}

/// What is known from elsewhere: the first `bytes` of the log have this digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// How many bytes.
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// Reads a whole log, handing `each` piece of it on. An index that does not exist is an empty one.
///
/// The index may be that of a log that still grows, if it was opened first.
pub fn read(
    index: impl Read,
    log: impl Read,
    prefix: Option<&Prefix>,
    each: impl FnMut(Piece<'_>) -> io::Result<()>,
) -> Result<Report, ReadError> {
    let records = Records { index, at: 0, held: None };
    let log = Log { log, each, at: 0, digest: Sha256::new(), prefix, prefix_differs: false, ended: false };
    let reading = Reading { records, log, report: Report::default(), clock: None, last_bad: None, claimed: 0 };
    reading.carry_out()
}

struct Reading<'a, I, L, F> {
    records: Records<I>,
    log: Log<'a, L, F>,
    report: Report,
    /// The header, and the first segment's monotonic moment.
    clock: Option<Clock>,
    /// Index offset of the bad record before the one that is read now.
    last_bad: Option<u64>,
    /// The log's length as the good records have it.
    claimed: u64,
}

struct Clock {
    unix_ns: u64,
    first_ns: Option<u64>,
}

impl<I: Read, L: Read, F: FnMut(Piece<'_>) -> io::Result<()>> Reading<'_, I, L, F> {
    fn carry_out(mut self) -> Result<Report, ReadError> {
        let has_index = self.header()?;
        while let Some(record) = self.records.next()? {
            match record {
                Record::Segment(segment) => self.segment(segment)?,
                Record::Bad { at } => self.bad_record(at),
                Record::Seal(seal) => {
                    self.seal(seal)?;
                    break;
                }
            }
        }
        self.end(has_index)
    }

    /// Returns whether there is an index at all.
    fn header(&mut self) -> Result<bool, ReadError> {
        match self.records.slot()? {
            Slot::Whole(slot) => {
                match Header::decode(&slot) {
                    Some(header) => self.clock = Some(Clock { unix_ns: header.unix_ns, first_ns: None }),
                    None => self.bad_record(0),
                }
                Ok(true)
            }
            Slot::Torn => Ok(true),
            Slot::End => Ok(false),
        }
    }

    /// Remembers a bad record. The first of several in a row is reported, when it is known which bytes they covered.
    fn bad_record(&mut self, at: u64) {
        self.last_bad.get_or_insert(at);
    }

    fn segment(&mut self, segment: Segment) -> Result<(), ReadError> {
        let start = segment.start();
        if start < self.claimed {
            // No writer goes back.
            self.bad_record(self.records.at.saturating_sub(SLOT as u64));
            return Ok(());
        }
        self.gap(start)?;
        self.report.segments += 1;
        self.claimed = segment.end;
        if self.log.ended {
            return Ok(());
        }
        let origin = Origin {
            segment: self.report.segments,
            stream: segment.stream,
            unix_ns: self.clock.as_mut().map(|clock| clock.time(segment.ns)),
        };
        let length = usize::try_from(segment.length).unwrap_or(MAX_SEGMENT);
        let bytes = self.log.take(length)?;
        let trust = match () {
            // The log ends within it.
            () if bytes.len() < length => Trust::Unverified,
            () if crc32fast::hash(&bytes) == segment.crc => Trust::Verified,
            () => Trust::Damaged,
        };
        match trust {
            Trust::Verified => self.report.verified += u64::from(segment.length),
            Trust::Damaged => {
                self.report.fault(Fault::Segment { segment: origin.segment, start, end: segment.end });
            }
            Trust::Unverified => {}
        }
        self.log.pass(start, &bytes, trust, Some(origin))
    }

    /// Bytes up to `start` are covered by no good record.
    fn gap(&mut self, start: u64) -> Result<(), ReadError> {
        let (from, bad) = (self.claimed, self.last_bad.take());
        if start > from {
            // Without a bad record some are lost: what is amiss begins where this one stands.
            let at = bad.unwrap_or(self.records.at.saturating_sub(SLOT as u64));
            self.report.fault(Fault::Index { at, start: from, end: start });
            self.log.pass_up_to(start, Trust::Unverified)?;
        } else if let Some(at) = bad {
            self.report.fault(Fault::IndexRecord { at });
        }
        Ok(())
    }

    fn seal(&mut self, seal: Seal) -> Result<(), ReadError> {
        if seal.total < self.claimed || (seal.total == 0 && self.claimed == 0) {
            self.report.fault(Fault::IndexRecord { at: self.records.at.saturating_sub(2 * SLOT as u64) });
        } else {
            self.gap(seal.total)?;
            self.claimed = seal.total;
        }
        self.report.seal = Some(seal);
        let at = self.records.at;
        if !matches!(self.records.slot()?, Slot::End) {
            self.report.fault(Fault::IndexRecord { at });
        }
        Ok(())
    }

    fn end(mut self, has_index: bool) -> Result<Report, ReadError> {
        if let Some(at) = self.last_bad.take() {
            self.report.fault(Fault::IndexRecord { at });
        }
        let behind = self.log.at;
        let trust = if self.report.seal.is_some() { Trust::Damaged } else { Trust::Unverified };
        self.log.pass_up_to(u64::MAX, trust)?;
        let Self { log, mut report, claimed, .. } = self;
        report.length = log.at;
        if report.length < claimed {
            report.fault(Fault::Missing { start: report.length, end: claimed });
        }
        match report.seal {
            Some(_) if report.length > claimed => report.fault(Fault::Added { start: behind, end: report.length }),
            None if has_index || report.length > 0 => report.unsealed_from = Some(claimed.min(report.length)),
            _ => {}
        }
        let (digest, prefix_fault) = log.finish();
        report.sha256 = digest;
        if let Some(seal) = report.seal
            && seal.total == report.length
            && seal.hex() != report.sha256
        {
            report.fault(Fault::Digest);
        }
        if let Some(fault) = prefix_fault
            && !report.faults.contains(&fault)
        {
            report.fault(fault);
        }
        Ok(report)
    }
}

impl Clock {
    fn time(&mut self, ns: u64) -> u64 {
        let first = *self.first_ns.get_or_insert(ns);
        self.unix_ns.saturating_add(ns.saturating_sub(first))
    }
}

/// The index, record by record.
struct Records<I> {
    index: I,
    /// Bytes of the index that were read.
    at: u64,
    /// A slot that was looked at too early.
    held: Option<[u8; SLOT]>,
}

enum Record {
    Segment(Segment),
    Seal(Seal),
    Bad { at: u64 },
}

enum Slot {
    Whole([u8; SLOT]),
    /// The index ends within it: its writer died there, or is writing.
    Torn,
    End,
}

impl<I: Read> Records<I> {
    /// `None` at the end, a torn one included.
    fn next(&mut self) -> Result<Option<Record>, ReadError> {
        let at = self.at;
        let Slot::Whole(first) = self.slot()? else { return Ok(None) };
        if !Seal::begins(&first) {
            return Ok(Some(Segment::decode(&first).map_or(Record::Bad { at }, Record::Segment)));
        }
        let second = match self.slot()? {
            Slot::Whole(second) => second,
            Slot::Torn | Slot::End => return Ok(None),
        };
        if let Some(seal) = Seal::decode(&first, &second) {
            return Ok(Some(Record::Seal(seal)));
        }
        // It may be a segment whose kind is damaged: then the next one is as good as ever.
        self.held = Some(second);
        self.at = self.at.saturating_sub(SLOT as u64);
        Ok(Some(Record::Bad { at }))
    }

    fn slot(&mut self) -> Result<Slot, ReadError> {
        let mut slot = [0; SLOT];
        let length = match self.held.take() {
            Some(held) => {
                slot = held;
                SLOT
            }
            None => fill(&mut self.index, &mut slot).map_err(ReadError::Index)?,
        };
        self.at = self.at.saturating_add(length as u64);
        Ok(match length {
            SLOT => Slot::Whole(slot),
            0 => Slot::End,
            _ => Slot::Torn,
        })
    }
}

/// The log's bytes on their way to the caller.
struct Log<'a, L, F> {
    log: L,
    each: F,
    /// Bytes of the log that were read.
    at: u64,
    digest: Sha256,
    prefix: Option<&'a Prefix>,
    prefix_differs: bool,
    ended: bool,
}

impl<L: Read, F: FnMut(Piece<'_>) -> io::Result<()>> Log<'_, L, F> {
    /// Less than `length` bytes only at the end.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; length.min(MAX_SEGMENT)];
        let found = fill(&mut self.log, &mut bytes).map_err(ReadError::Log)?;
        bytes.truncate(found);
        self.ended = found < length;
        self.take_in(&bytes);
        Ok(bytes)
    }

    fn take_in(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len() as u64);
        let rest = match self.prefix {
            Some(prefix) if (self.at..end).contains(&prefix.bytes) => {
                let first = usize::try_from(prefix.bytes - self.at).unwrap_or(0);
                let (before, after) = bytes.split_at(first.min(bytes.len()));
                self.digest.update(before);
                self.compare(prefix);
                after
            }
            _ => bytes,
        };
        self.digest.update(rest);
        self.at = end;
    }

    fn compare(&mut self, prefix: &Prefix) {
        self.prefix_differs = hex(&self.digest.clone().finalize()) != prefix.sha256;
    }

    fn pass(&mut self, start: u64, bytes: &[u8], trust: Trust, origin: Option<Origin>) -> Result<(), ReadError> {
        if bytes.is_empty() {
            return Ok(());
        }
        (self.each)(Piece { start, bytes, trust, origin }).map_err(ReadError::Passed)
    }

    fn pass_up_to(&mut self, end: u64, trust: Trust) -> Result<(), ReadError> {
        while self.at < end && !self.ended {
            let start = self.at;
            let length = usize::try_from(end - start).unwrap_or(MAX_SEGMENT).min(MAX_SEGMENT);
            let bytes = self.take(length)?;
            self.pass(start, &bytes, trust, None)?;
        }
        Ok(())
    }

    /// The digest of everything, and whether the beginning is another one than it was.
    fn finish(mut self) -> (String, Option<Fault>) {
        let fault = self.prefix.and_then(|prefix| {
            if prefix.bytes > self.at {
                return Some(Fault::Missing { start: self.at, end: prefix.bytes });
            }
            if prefix.bytes == self.at {
                self.compare(prefix);
            }
            self.prefix_differs.then_some(Fault::Prefix { bytes: prefix.bytes })
        });
        (hex(&self.digest.finalize()), fault)
    }
}

/// As much as there is, up to the whole buffer.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match from.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
