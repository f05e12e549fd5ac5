//! The bytes between the data: start, announcements, footer, and the heads of skippable frames.

use sha2::{Digest as _, Sha256};

pub use crate::entry::Digest;

/// An empty zstd frame. With it an archive begins as every zstd file does, so that `tar` and `file` know it.
pub const START: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

/// Plain bytes of a data frame.
pub const PLAIN_CAP: usize = 16 << 20;
/// What zstd makes at most of that: blocks that it cannot shrink, each with its head.
pub const COMPRESSED_CAP: usize = PLAIN_CAP + (PLAIN_CAP >> 8) + 64;
/// A tar counts in these; every frame holds a whole number of them.
pub const BLOCK: usize = 512;
/// Frames of an archive.
pub const FRAMES_CAP: u32 = 1 << 24;

/// Magic number and length of a skippable frame.
pub const HEAD: usize = 8;
const ANNOUNCEMENT_MAGIC: u32 = 0x184D_2A51;
const MANIFEST_MAGIC: u32 = 0x184D_2A52;
const FOOTER_MAGIC: u32 = 0x184D_2A53;

/// Bytes of an announcement, its head included.
pub const ANNOUNCEMENT: usize = HEAD + 48;
/// Bytes of the footer, its head included: an archive's last ones.
pub const FOOTER: usize = HEAD + 128;
const FOOTER_NAME: [u8; 8] = *b"navvyarc";
const VERSION: u32 = 1;

/// SHA-256 of all of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// What comes next in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// A data frame comes right behind it.
    Announcement,
    /// A part of the manifest.
    Manifest,
    /// The archive's last bytes.
    Footer,
}

/// What kind of skippable frame begins here, and how many bytes follow.
pub fn section(head: [u8; HEAD]) -> Option<(Section, usize)> {
    let [a, b, c, d, rest @ ..] = head;
    let section = match u32::from_le_bytes([a, b, c, d]) {
        ANNOUNCEMENT_MAGIC => Section::Announcement,
        MANIFEST_MAGIC => Section::Manifest,
        FOOTER_MAGIC => Section::Footer,
        _ => return None,
    };
    Some((section, u32::from_le_bytes(rest) as usize))
}

fn head(magic: u32, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&magic.to_le_bytes());
    head[4..].copy_from_slice(&(length as u32).to_le_bytes());
    head
}

/// The head of a part of the manifest with so many bytes.
pub fn manifest_head(length: usize) -> [u8; HEAD] {
    head(MANIFEST_MAGIC, length)
}

/// What stands before a data frame, so that it is known before a byte of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Number of the frame, from 0.
    pub frame: u32,
    /// Length of the zstd frame, in bytes.
    pub compressed: u32,
    /// Length of what it unpacks to, in bytes.
    pub plain: u32,
    /// Digest of the compressed bytes.
    pub digest: Digest,
}

impl Announcement {
    /// The announcement as it stands in an archive.
    pub fn encode(&self) -> [u8; ANNOUNCEMENT] {
        let mut bytes = [0; ANNOUNCEMENT];
        bytes[..8].copy_from_slice(&head(ANNOUNCEMENT_MAGIC, ANNOUNCEMENT - HEAD));
        bytes[8..12].copy_from_slice(b"nvfr");
        bytes[12..16].copy_from_slice(&self.frame.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.compressed.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.plain.to_le_bytes());
        bytes[24..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads what follows the head. `None`: it is not an announcement, or announces more than a frame may have.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ANNOUNCEMENT - HEAD] = bytes.try_into().ok()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[16..]);
        let found = Self { frame: number(4), compressed: number(8), plain: number(12), digest };
        (bytes.starts_with(b"nvfr") && found.is_possible()).then_some(found)
    }

    pub(crate) fn is_possible(&self) -> bool {
        let plain = self.plain as usize;
        self.frame < FRAMES_CAP
            && self.compressed as usize <= COMPRESSED_CAP
            && (1..=PLAIN_CAP).contains(&plain)
            && plain.is_multiple_of(BLOCK)
    }
}

/// The end of an archive, which leads to everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the manifest's first skippable frame begins, in the archive's bytes.
    pub manifest_offset: u64,
    /// Up to the footer.
    pub manifest_length: u64,
    /// Number of data frames.
    pub frames: u64,
    /// Number of entries.
    pub entries: u64,
    /// Length of the whole tar, in bytes.
    pub plain: u64,
    /// Digest of the manifest's bytes as they stand in the archive.
    pub manifest_digest: Digest,
}

impl Footer {
    /// The footer as it stands in an archive.
    pub fn encode(&self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..8].copy_from_slice(&head(FOOTER_MAGIC, FOOTER - HEAD));
        bytes[8..16].copy_from_slice(&FOOTER_NAME);
        bytes[16..20].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.manifest_offset, self.manifest_length, self.frames, self.entries, self.plain];
        for (place, number) in bytes[24..64].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[72..104].copy_from_slice(&self.manifest_digest);
        let own = digest(&bytes[..104]);
        bytes[104..].copy_from_slice(&own);
        bytes
    }

    /// Reads an archive's last [`FOOTER`] bytes (or more).
    pub fn decode(tail: &[u8]) -> Result<Self, &'static str> {
        let Some(bytes) = tail.last_chunk::<FOOTER>() else { return Err("it is too short for an archive") };
        if bytes[..8] != head(FOOTER_MAGIC, FOOTER - HEAD) || bytes[8..16] != FOOTER_NAME {
            return Err("it does not end as an archive does");
        }
        if bytes[16..20] != VERSION.to_le_bytes() {
            return Err("this program cannot read its version");
        }
        if bytes[104..] != digest(&bytes[..104]) {
            return Err("its footer is damaged");
        }
        let number = |index: usize| {
            let at = 24 + index * 8;
            bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let mut manifest_digest = [0; 32];
        manifest_digest.copy_from_slice(&bytes[72..104]);
        let [manifest_offset, manifest_length, frames, entries, plain] = std::array::from_fn(number);
        let footer = Self { manifest_offset, manifest_length, frames, entries, plain, manifest_digest };
        // Bytes without a meaning would be a place to put something.
        if footer.encode() == *bytes { Ok(footer) } else { Err("its footer is damaged") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        Footer {
            manifest_offset: 1 << 40,
            manifest_length: 2,
            frames: 3,
            entries: 4,
            plain: 5,
            manifest_digest: [7; 32],
        }
    }

    #[test]
    fn a_footer_is_found_behind_anything_and_no_bit_of_it_may_change() {
        let bytes = footer().encode();
        assert_eq!(Footer::decode(&[&b"before"[..], &bytes].concat()), Ok(footer()));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&changed).is_err(), "bit {bit}");
        }
        assert!(Footer::decode(&bytes[1..]).is_err());
    }

    #[test]
    fn an_announcement_promises_no_more_than_a_frame_may_have() {
        let right = Announcement { frame: 1, compressed: 10, plain: 512, digest: [9; 32] };
        assert_eq!(Announcement::decode(&right.encode()[HEAD..]), Some(right));
        for wrong in [
            Announcement { compressed: u32::MAX, ..right },
            Announcement { plain: (PLAIN_CAP + BLOCK) as u32, ..right },
            Announcement { plain: 511, ..right },
            Announcement { plain: 0, ..right },
            Announcement { frame: FRAMES_CAP, ..right },
        ] {
            assert_eq!(Announcement::decode(&wrong.encode()[HEAD..]), None, "{wrong:?}");
        }
    }
}
