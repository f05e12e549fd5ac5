//! Output as it comes from an agent, as it lies in the store, and as bytes. Pure.
//!
//! ```text
//! agent's words ─▶ check_chunk ─▶ the log
//!               └▶ read ─▶ Sealed, its object at   v1/log/PIPELINE/TASK/LOG/OFFSET-UNIQUE
//! object ─▶ unpack ─▶ bytes, whose length and digest are those of the index
//! ```
//!
//! Of an object's path, an agent says UNIQUE alone: 32 hexadecimal digits that the processor gave it. All else comes from its
//! task's record and from a log's name that was read.

use sha2::{Digest as _, Sha256};

use super::{FormError, LogName, MAX_CHUNK, MAX_SEGMENT, MOST_OFFSET, v1};

/// Where all segments lie.
pub const ROOT: &str = "v1/log/";
/// An object is at most this long: what zstd makes of a segment that it cannot compress, and some.
pub const MAX_STORED: usize = MAX_SEGMENT + (MAX_SEGMENT >> 8) + 1024;

/// A segment whose form is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its log.
    pub log: LogName,
    /// Offset of its first byte.
    pub start: u64,
    /// Length before compression.
    pub length: u64,
    /// Length of its object.
    pub stored: u64,
    /// SHA-256 of the bytes before compression, hexadecimal.
    pub sha256: String,
    /// The object's path.
    pub object: String,
}

/// Whose output it is. Nothing in it comes from the agent.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// The pipeline's id.
    pub pipeline: &'a str,
    /// The task's id.
    pub task: &'a str,
}

/// Checks a live chunk. The log that it belongs to.
///
/// # Errors
/// It is not of the form that `agents.proto` says.
pub fn check_chunk(chunk: &v1::Chunk) -> Result<LogName, FormError> {
    let log = LogName::read(&chunk.log)?;
    let length = chunk.bytes.len();
    if length == 0 || length > MAX_CHUNK {
        return Err(FormError(format!("a chunk has 1 to {MAX_CHUNK} bytes, and not {length}")));
    }
    if chunk.offset > MOST_OFFSET {
        return Err(FormError(format!("no log has a byte {}", chunk.offset)));
    }
    Ok(log)
}

/// Reads a segment that an agent wants to put somewhere, or has put there.
///
/// # Errors
/// It is not of the form that `agents.proto` says.
pub fn read(of: Of<'_>, segment: &v1::Segment, unique: &str) -> Result<Sealed, FormError> {
    let log = LogName::read(&segment.log)?;
    let form = |text: String| FormError(format!("segment at byte {} of log {log}: {text}", segment.offset));
    let (length, stored) = (u64::from(segment.length), u64::from(segment.stored));
    if segment.offset > MOST_OFFSET {
        return Err(form("no log is that long".into()));
    }
    if length == 0 || length > MAX_SEGMENT as u64 {
        return Err(form(format!("a segment has 1 to {MAX_SEGMENT} bytes, and not {length}")));
    }
    if stored == 0 || stored > MAX_STORED as u64 {
        return Err(form(format!("a segment's object has 1 to {MAX_STORED} bytes, and not {stored}")));
    }
    let Ok(sha256) = <[u8; 32]>::try_from(&segment.sha256[..]) else {
        return Err(form(format!("a SHA-256 has 32 bytes, and not {}", segment.sha256.len())));
    };
    if unique.len() != 32 || !unique.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(form("its object's name is none that was granted".into()));
    }
    let object = format!("{}{log}/{}-{unique}", beneath(of)?, segment.offset);
    Ok(Sealed { log, start: segment.offset, length, stored, sha256: hex(&sha256), object })
}

/// Where all segments of a task lie.
fn beneath(of: Of<'_>) -> Result<String, FormError> {
    let Of { pipeline, task } = of;
    if !is_plain(pipeline) || !is_plain(task) {
        return Err(FormError(format!("{pipeline:?} and {task:?} are no ids that a path may be made of")));
    }
    Ok(format!("{ROOT}{pipeline}/{task}/"))
}

fn is_plain(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// An object's path, taken apart again: task, log, offset. `None`: it is none that this version makes.
pub fn parse_path(path: &str) -> Option<(&str, LogName, u64)> {
    let mut parts = path.strip_prefix(ROOT)?.split('/');
    let (pipeline, task, log, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (offset, unique) = name.split_once('-')?;
    let log = LogName::read(log).ok()?;
    let start: u64 = offset.parse().ok().filter(|start| *start <= MOST_OFFSET)?;
    let ours = is_plain(pipeline) && is_plain(task) && unique.len() == 32 && start.to_string() == offset;
    (ours && parts.next().is_none()).then_some((task, log, start))
}

/// The bytes of a segment, from its object: exactly those that the index names.
///
/// # Errors
/// What differs.
pub fn unpack(object: &[u8], length: u64, sha256: &str) -> Result<Vec<u8>, &'static str> {
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_SEGMENT).ok_or("it is too long")?;
    let mut bytes = Vec::with_capacity(length);
    // Never more than the capacity, whatever the frame says of itself.
    zstd_safe::decompress(&mut bytes, object).map_err(|_| "the object is no zstd frame of their length")?;
    if bytes.len() != length {
        return Err("their length differs");
    }
    if hex(&Sha256::digest(&bytes)) != sha256 {
        return Err("their SHA-256 differs");
    }
    Ok(bytes)
}

/// Hexadecimal, as `sha256sum` prints it.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _written = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIQUE: &str = "0123456789abcdef0123456789abcdef";

    fn access(task: &str) -> Of<'_> {
        Of { pipeline: "a-pipeline", task }
    }

    /// A segment's object, and the digest of its bytes.
    fn packed(bytes: &[u8]) -> (Vec<u8>, String) {
        let mut object = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
        zstd_safe::compress(&mut object, bytes, 3).unwrap();
        (object, hex(&Sha256::digest(bytes)))
    }

    fn said(log: &str, offset: u64) -> v1::Segment {
        v1::Segment { log: log.into(), offset, length: 5, stored: 14, sha256: vec![7; 32], object: String::new() }
    }

    #[test]
    fn a_path_is_made_of_the_tasks_record_and_read_again() {
        let segment = read(access("0123456789abcdef"), &said("003-1", 77), UNIQUE).unwrap();
        assert_eq!(segment.object, format!("v1/log/a-pipeline/0123456789abcdef/003-1/77-{UNIQUE}"));
        let log = LogName::read("003-1").unwrap();
        assert_eq!(parse_path(&segment.object), Some(("0123456789abcdef", log, 77)));
        for odd in [
            "v1/log/p/t/003-1/077-",
            "v1/log/p/t/3-1/77-",
            "v1/log/p/../003-1/77-",
            "v1/body/p/t/003-1/77-",
            "v1/log/p/t/003-1/x/77-",
        ] {
            assert_eq!(parse_path(&format!("{odd}{UNIQUE}")), None, "{odd}");
        }
        assert_eq!(parse_path(&format!("{}/x", segment.object)), None);
    }

    #[test]
    fn what_an_agent_may_not_say_is_refused_with_its_place() {
        let task = access("0123456789abcdef");
        let good = said("003-1", 77);
        let cases = [
            (v1::Segment { log: "../../x".into(), ..good.clone() }, "\"../../x\" is no log"),
            (v1::Segment { offset: u64::MAX, ..good.clone() }, "no log is that long"),
            (v1::Segment { length: 0, ..good.clone() }, "1 to 16777216 bytes, and not 0"),
            (v1::Segment { length: (16 << 20) + 1, ..good.clone() }, "and not 16777217"),
            (v1::Segment { stored: 0, ..good.clone() }, "object has 1 to"),
            (v1::Segment { stored: u32::MAX, ..good.clone() }, "object has 1 to"),
            (v1::Segment { sha256: vec![7; 31], ..good.clone() }, "32 bytes, and not 31"),
        ];
        for (segment, text) in cases {
            let error = read(task, &segment, UNIQUE).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        for unique in ["", "../../../../../../../../../../../x", &UNIQUE.to_uppercase(), &format!("{UNIQUE}0")] {
            let error = read(task, &good, unique).unwrap_err().to_string();
            assert!(
                error.contains("segment at byte 77 of log 003-1") && error.contains("none that was granted"),
                "{error}"
            );
        }
        assert!(read(access("../../etc"), &good, UNIQUE).is_err());
    }

    #[test]
    fn only_the_very_bytes_are_unpacked() {
        let (object, sha256) = packed(b"hello");
        assert_eq!(unpack(&object, 5, &sha256).unwrap(), b"hello");
        assert_eq!(unpack(&object, 4, &sha256), Err("the object is no zstd frame of their length"));
        assert_eq!(unpack(&object, 6, &sha256), Err("their length differs"));
        assert_eq!(unpack(&packed(b"hellO").0, 5, &sha256), Err("their SHA-256 differs"));
        // A frame of 64 MiB in some kB, as a segment of 5 bytes.
        let (bomb, _) = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 10_000);
        assert_eq!(unpack(&bomb, 5, &sha256), Err("the object is no zstd frame of their length"));
    }

    proptest! {
        #[test]
        fn any_object_is_the_bytes_or_refused(object in prop::collection::vec(any::<u8>(), 0..200), length in 0..300_u64) {
            prop_assert!(unpack(&object, length, &"0".repeat(64)).is_err());
        }

        #[test]
        fn a_damaged_object_is_refused(bytes in prop::collection::vec(any::<u8>(), 1..400), at: prop::sample::Index, bit in 0..8, cut: prop::sample::Index) {
            let (object, sha256) = packed(&bytes);
            let mut flipped = object.clone();
            flipped[at.index(object.len())] ^= 1_u8 << bit;
            // Some bits of a frame's header say nothing about its bytes.
            if let Ok(unpacked) = unpack(&flipped, bytes.len() as u64, &sha256) {
                prop_assert_eq!(unpacked, bytes.clone());
            }
            prop_assert!(unpack(&object[..cut.index(object.len())], bytes.len() as u64, &sha256).is_err());
        }

        #[test]
        fn any_words_are_read_or_refused(log in "[-0-9a-z./]{0,12}", offset: u64, length: u32, stored: u32, sha256 in prop::collection::vec(any::<u8>(), 0..40), unique in "[0-9a-f/.]{0,33}") {
            let said = v1::Segment { log, offset, length, stored, sha256, object: String::new() };
            if let Ok(segment) = read(access("0123456789abcdef"), &said, &unique) {
                prop_assert!(segment.start + segment.length <= MOST_OFFSET + (16 << 20));
                prop_assert_eq!(parse_path(&segment.object), Some(("0123456789abcdef", segment.log, offset)));
            }
        }
    }
}
