//! Many activities over one byte stream: `navvy-supervisor dial` on its stdin and stdout.
//!
//! ```text
//! channel u32 LE    chosen by the agent, never used twice
//! op      u8        Open | Data | Close | Reset
//! length  u32 LE    of the payload: 0 unless Data, at most MAX_DATA
//! payload
//! ```
//!
//! `Close` ends one direction, `Reset` both at once. Each channel is joined to one connection of the control
//! socket; what flows in it is [`crate::frame`]. The supervisor side sends [`MAGIC`] first, so that the agent can
//! tell its stream from an error text of a shell or a daemon.
//!
//! An agent that has heard nothing for a while opens a channel, closes it at once, and expects any message: the `Close` of
//! that channel, if there is nothing else to say.
//!
//! ## On a machine's port
//!
//! A virtual machine's port ([`crate::guest::MUX_PORT`]) outlives whoever speaks there: an agent can die in the midst of
//! a message, and the next one goes on in the same stream of bytes.
//!
//! ```text
//! host  ─▶ GREETING, nonce       whenever it has opened the port, before anything else
//! guest ─▶ MAGIC, nonce          all channels of before are gone, and what of them was still under way
//! ```
//!
//! The nonce is [`NONCE_LENGTH`] random bytes. The host skips all that comes before exactly this answer. So that a
//! greeting is one wherever it comes, even in the midst of a payload that was never finished, no payload of the host's
//! holds the first four bytes of [`GREETING`]: the host cuts its payloads with [`whole`].

/// First bytes of the supervisor's side.
pub const MAGIC: &[u8; 8] = b"navvymx1";
/// What the host says whenever it opens a machine's port; [`NONCE_LENGTH`] random bytes follow.
pub const GREETING: &[u8; 8] = b"navvygr1";
/// Bytes of the nonce that follows [`GREETING`], and [`MAGIC`] in its answer.
pub const NONCE_LENGTH: usize = 16;
/// Cap on one payload.
pub const MAX_DATA: usize = 64 << 10;
/// Bytes in front of every payload.
pub const HEADER_LENGTH: usize = 9;

/// What a payload means for its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The channel begins.
    Open = 1,
    /// Bytes that flow in it.
    Data = 2,
    /// No more bytes come in this direction.
    Close = 3,
    /// The channel ends in both directions; what is still under way is dropped.
    Reset = 4,
}

/// What stands in front of every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Channel that the payload belongs to.
    pub channel: u32,
    /// What the payload means.
    pub op: Op,
    /// Length of the payload, in bytes.
    pub length: usize,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// The operation has no meaning in this version.
    #[error("multiplexed stream has unknown operation {op}")]
    Op {
        /// The operation as a number.
        op: u8,
    },
    /// The payload is longer than allowed; only [`Op::Data`] has one at all.
    #[error("multiplexed payload of {length} bytes; at most {MAX_DATA} are allowed")]
    Length {
        /// Length in bytes, as announced.
        length: usize,
    },
}

impl Header {
    /// The header as it stands on the wire.
    pub fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..4].copy_from_slice(&self.channel.to_le_bytes());
        bytes[4] = self.op as u8;
        bytes[5..].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes
    }

    /// Reads a header, and holds its length to the limits.
    pub fn parse(bytes: [u8; HEADER_LENGTH]) -> Result<Self, MuxError> {
        let number = |from: usize| u32::from_le_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]]);
        let op = match bytes[4] {
            1 => Op::Open,
            2 => Op::Data,
            3 => Op::Close,
            4 => Op::Reset,
            op => return Err(MuxError::Op { op }),
        };
        let length = number(5) as usize;
        if length > MAX_DATA || (op != Op::Data && length != 0) {
            return Err(MuxError::Length { length });
        }
        Ok(Self { channel: number(0), op, length })
    }
}

/// How many of these bytes fit into one [`Op::Data`] message of the host's on a machine's port: at most [`MAX_DATA`], and
/// never so many that the payload could be taken for a greeting. 0 of no bytes, else at least 1.
///
/// Neither can a payload and the header behind it be taken for one: a greeting goes on where an operation stands.
pub fn whole(bytes: &[u8]) -> usize {
    const START: &[u8] = GREETING.split_at(4).0;
    let bytes = &bytes[..bytes.len().min(MAX_DATA)];
    let found = bytes.windows(START.len()).position(|window| window == START);
    found.map_or(bytes.len(), |at| at + START.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_round_trip(channel: u32, length in 0..=MAX_DATA) {
            let header = Header { channel, op: Op::Data, length };
            prop_assert_eq!(Header::parse(header.to_bytes()), Ok(header));
        }

        #[test]
        fn garbage_is_refused_or_bounded(bytes: [u8; HEADER_LENGTH]) {
            if let Ok(header) = Header::parse(bytes) {
                prop_assert!(header.length <= MAX_DATA);
            }
        }
    }

    fn host_stream(channel: u32, mut bytes: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(whole(bytes));
            stream.extend(Header { channel, op: Op::Data, length: payload.len() }.to_bytes());
            stream.extend(payload);
            bytes = rest;
        }
        stream
    }

    fn payloads(mut stream: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((header, rest)) = stream.split_first_chunk() {
            let (payload, rest) = rest.split_at(Header::parse(*header).unwrap().length);
            bytes.extend(payload);
            stream = rest;
        }
        bytes
    }

    proptest! {
        /// Also with channels whose number looks like the end of a greeting.
        #[test]
        fn no_bytes_of_the_hosts_look_like_a_greeting(
            bytes in prop::collection::vec(prop::sample::select(&b"navygr1\0"[..]), 0..400),
            greetings in 0..4usize,
            at in 0..400usize,
            channel in prop::sample::select(vec![1, 0x31, 0x3172, 0x0031_7267, 0x3172_6779, u32::from_le_bytes(*b"navv")]),
        ) {
            let mut bytes = bytes;
            let at = at.min(bytes.len());
            bytes.splice(at..at, GREETING.repeat(greetings));
            let stream = host_stream(channel, &bytes);
            prop_assert!(!stream.windows(GREETING.len()).any(|window| window == GREETING));
            prop_assert_eq!(payloads(&stream), bytes);
        }
    }

    #[test]
    fn bytes_without_a_greeting_are_cut_at_the_cap_alone() {
        assert_eq!(whole(b""), 0);
        assert_eq!(whole(b"nav"), 3);
        assert_eq!(whole(b"navvy"), 3);
        assert_eq!(whole(&vec![b'n'; MAX_DATA + 1]), MAX_DATA);
    }
}
