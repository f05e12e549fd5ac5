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

/// First bytes of the supervisor's side.
pub const MAGIC: &[u8; 8] = b"navvymx1";
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
}
