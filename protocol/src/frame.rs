//! The envelope of every message.
//!
//! ```text
//! length  u32 LE   bytes that follow, kind included: 1 ..= MAX_LENGTH
//! kind    u8       FrameKind
//! payload          JSON for the control kinds, raw bytes for Output and Data
//! ```
//!
//! `Output` payloads start with a fixed header ([`OutputHeader`]). Everything is checked before anything is
//! allocated: a length above the cap ends the conversation.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Cap on the length field. Large enough for the largest output chunk with its header.
pub const MAX_LENGTH: usize = (1 << 20) + 64;
/// Length field and kind.
pub const HEADER_LENGTH: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// First frame in each direction, JSON.
    Hello = 1,
    /// Agent to supervisor, JSON; one a connection.
    Request = 2,
    /// Supervisor to agent, JSON.
    Reply = 3,
    /// Supervisor to agent: [`OutputHeader`] and a step's bytes.
    Output = 4,
    /// A stream's bytes, either way; an empty one ends the stream.
    Data = 5,
    /// Agent to supervisor while an activity runs, JSON.
    Control = 6,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Request,
            3 => Self::Reply,
            4 => Self::Output,
            5 => Self::Data,
            6 => Self::Control,
            _ => return None,
        })
    }
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is out of bounds.
    #[error("frame of {length} bytes; between 1 and {MAX_LENGTH} are allowed")]
    Length {
        /// Length in bytes, as announced.
        length: usize,
    },
    /// The kind field has no meaning in this version.
    #[error("frame of unknown kind {kind}")]
    Kind {
        /// The kind as a number.
        kind: u8,
    },
    /// The frame is whole, but another kind had to come here.
    #[error("frame {kind:?} where {wanted} was due")]
    Unexpected {
        /// Kind of the frame that came.
        kind: FrameKind,
        /// What had to come, in words.
        wanted: &'static str,
    },
    /// The payload is not the JSON of a message.
    #[error("frame {kind:?} does not hold a valid message")]
    Payload {
        /// Kind of the frame.
        kind: FrameKind,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// An output frame must hold at least an [`OutputHeader`].
    #[error("output frame of {length} bytes is shorter than its header")]
    ShortOutput {
        /// Length of the payload, in bytes.
        length: usize,
    },
    /// Reading from or writing to the other side failed.
    #[error("connection to the supervisor failed")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// The other side is gone (as opposed to: it speaks nonsense).
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Self::Io(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }
}

/// Reads the first five bytes of a frame: the payload's length and the kind.
pub fn parse_header(bytes: [u8; HEADER_LENGTH]) -> Result<(FrameKind, usize), FrameError> {
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if length == 0 || length > MAX_LENGTH {
        return Err(FrameError::Length { length });
    }
    let kind = FrameKind::from_byte(bytes[4]).ok_or(FrameError::Kind { kind: bytes[4] })?;
    Ok((kind, length - 1))
}

/// The first five bytes of a frame.
///
/// # Panics
/// When the payload is longer than the cap: writers cut their chunks.
pub fn header(kind: FrameKind, payload_length: usize) -> [u8; HEADER_LENGTH] {
    let length = payload_length + 1;
    assert!(length <= MAX_LENGTH, "frame of {length} bytes");
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[4] = kind as u8;
    bytes
}

/// Writes one frame.
pub fn write(writer: &mut impl Write, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(HEADER_LENGTH + payload.len());
    frame.extend_from_slice(&header(kind, payload.len()));
    frame.extend_from_slice(payload);
    writer.write_all(&frame)
}

/// Writes a message as one JSON frame.
pub fn write_message(writer: &mut impl Write, kind: FrameKind, message: &impl Serialize) -> io::Result<()> {
    write(writer, kind, &to_payload(message)?)
}

/// Several messages in one write, so that a conversation costs no extra wake-up.
pub fn encode_message(frames: &mut Vec<u8>, kind: FrameKind, message: &impl Serialize) -> io::Result<()> {
    let payload = to_payload(message)?;
    frames.extend_from_slice(&header(kind, payload.len()));
    frames.extend_from_slice(&payload);
    Ok(())
}

fn to_payload(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(message)?;
    if payload.len() >= MAX_LENGTH {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {} bytes; at most {MAX_LENGTH} fit into a frame", payload.len()),
        ));
    }
    Ok(payload)
}

/// Reads one frame into `buffer` (which then holds the payload alone). `None` at the end of the stream.
pub fn read(reader: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Option<FrameKind>, FrameError> {
    let mut header = [0; HEADER_LENGTH];
    let first = loop {
        match reader.read(&mut header) {
            Ok(count) => break count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    };
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[first..])?;
    let (kind, length) = parse_header(header)?;
    buffer.resize(length, 0);
    reader.read_exact(buffer)?;
    Ok(Some(kind))
}

/// Reads the JSON of a frame.
pub fn parse_message<T: DeserializeOwned>(kind: FrameKind, payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|source| FrameError::Payload { kind, source })
}

/// Which of a step's streams bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output, or all that a terminal shows.
    Stdout = 1,
    /// Its standard error; a terminal has none of its own.
    Stderr = 2,
}

/// What stands in front of every chunk of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputHeader {
    /// Stream that the chunk is part of.
    pub stream: Stream,
    /// Bytes of this exec, both streams together, before this chunk.
    pub offset: u64,
    /// `CLOCK_MONOTONIC` of the environment, nanoseconds, when the chunk was read.
    pub nanoseconds: u64,
}

impl OutputHeader {
    /// Bytes of a header on the wire.
    pub const LENGTH: usize = 17;

    /// The header as it stands on the wire.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.stream as u8;
        bytes[1..9].copy_from_slice(&self.offset.to_le_bytes());
        bytes[9..].copy_from_slice(&self.nanoseconds.to_le_bytes());
        bytes
    }

    /// Splits an `Output` payload into its header and the step's bytes.
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let Some((header, bytes)) = payload.split_first_chunk::<{ Self::LENGTH }>() else {
            return Err(FrameError::ShortOutput { length: payload.len() });
        };
        let stream = match header[0] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(FrameError::Kind { kind: other }),
        };
        let number = |from: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&header[from..from + 8]);
            u64::from_le_bytes(eight)
        };
        Ok((Self { stream, offset: number(1), nanoseconds: number(9) }, bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [FrameKind; 6] = [
        FrameKind::Hello,
        FrameKind::Request,
        FrameKind::Reply,
        FrameKind::Output,
        FrameKind::Data,
        FrameKind::Control,
    ];

    proptest! {
        #[test]
        fn frames_survive_the_wire(
            frames in prop::collection::vec((prop::sample::select(&KINDS[..]), prop::collection::vec(any::<u8>(), 0..300)), 0..10),
        ) {
            let mut wire = Vec::new();
            for (kind, payload) in &frames {
                write(&mut wire, *kind, payload).unwrap();
            }
            let mut reader = wire.as_slice();
            let mut buffer = Vec::new();
            for (kind, payload) in &frames {
                prop_assert_eq!(read(&mut reader, &mut buffer).unwrap(), Some(*kind));
                prop_assert_eq!(&buffer, payload);
            }
            prop_assert!(read(&mut reader, &mut buffer).unwrap().is_none());
        }

        #[test]
        fn garbage_never_panics_nor_allocates_past_the_cap(wire in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = wire.as_slice();
            let mut buffer = Vec::new();
            while let Ok(Some(_)) = read(&mut reader, &mut buffer) {}
            prop_assert!(buffer.capacity() <= 2 * MAX_LENGTH);
        }

        #[test]
        fn output_headers_round_trip(offset: u64, nanoseconds: u64, bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let header = OutputHeader { stream: Stream::Stderr, offset, nanoseconds };
            let payload = [&header.to_bytes()[..], &bytes].concat();
            let (parsed, rest) = OutputHeader::split(&payload).unwrap();
            prop_assert_eq!(parsed, header);
            prop_assert_eq!(rest, &bytes[..]);
        }
    }

    #[test]
    fn endless_frames_are_refused_before_a_byte_of_them_is_read() {
        let mut bytes = [0xff; HEADER_LENGTH];
        bytes[4] = FrameKind::Data as u8;
        assert!(matches!(parse_header(bytes), Err(FrameError::Length { .. })));
        assert!(matches!(parse_header([0, 0, 0, 0, 1]), Err(FrameError::Length { length: 0 })));
    }
}
