//! The first bytes of what is packed (pure).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// No real file has a longer name: what looks like a head with one is not a head.
const LONGEST_NAME: usize = 4096;

/// What the magic bytes promise, in the order of [`MAGIC`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zstd,
    Zip,
    Xz,
    Bzip2,
}

const KINDS: usize = 5;

/// A frame begins with it.
pub const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const MAGIC: [(Kind, &[u8]); KINDS] = [
    (Kind::Gzip, b"\x1f\x8b\x08"),
    (Kind::Zstd, ZSTD),
    (Kind::Zip, b"PK\x03\x04"),
    (Kind::Xz, b"\xfd7zXZ\0"),
    (Kind::Bzip2, b"BZh"),
];
const LONGEST_MAGIC: usize = 6;

static FINDERS: LazyLock<[Finder<'static>; KINDS]> = LazyLock::new(|| MAGIC.map(|(_, magic)| Finder::new(magic)));

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packer {
    Deflate,
    Zstd,
}

/// What stands before packed bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// One of a gzip file's members, or of a zstd file's frames. The decoder of zstd wants [`ZSTD`] first.
    Whole(Packer),
    /// A member of a zip.
    Member { name: Vec<u8>, content: Content },
    /// By a packer that is not ours.
    Foreign(&'static str),
}

/// How a zip has the bytes of a member.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// As they are.
    Plain,
    Packed(Packer),
    Encrypted,
    /// By a method of this number.
    Foreign(u16),
}

/// Where the next head is.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It begins at `at`; what it is the head of begins at `end`.
    Head {
        head: Head,
        at: usize,
        end: usize,
    },
    /// There is no head, but from here on one may begin.
    MayBegin(usize),
    None,
}

/// Finds heads in a piece, in order.
pub struct Heads<'a> {
    bytes: &'a [u8],
    /// Of each kind, where its magic bytes stand next; looked for no further than needed.
    spots: [Option<usize>; KINDS],
    from: usize,
}

impl<'a> Heads<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, spots: [Some(0); KINDS], from: 0 }
    }

    /// The first that begins at `from` or behind it. `from` only grows.
    pub fn next(&mut self, from: usize) -> Next {
        self.from = from;
        loop {
            let Some((kind, at)) = self.spot() else { return self.rest() };
            match read(kind, &self.bytes[at..]) {
                Found::Head(head, length) => return Next::Head { head, at, end: at + length },
                Found::Open => return Next::MayBegin(at),
                Found::Nothing => self.from = at + 1,
            }
        }
    }

    fn spot(&mut self) -> Option<(Kind, usize)> {
        let mut first = None;
        for ((spot, finder), (kind, magic)) in self.spots.iter_mut().zip(FINDERS.iter()).zip(MAGIC) {
            if let Some(at) = *spot
                && (at < self.from || !self.bytes[at..].starts_with(magic))
            {
                let from = at.max(self.from);
                *spot = finder.find(&self.bytes[from..]).map(|found| from + found);
            }
            if let Some(at) = *spot
                && first.is_none_or(|(_, before)| at < before)
            {
                first = Some((kind, at));
            }
        }
        first
    }

    /// The end of a piece may break magic bytes off.
    fn rest(&self) -> Next {
        let from = self.from.max((self.bytes.len() + 1).saturating_sub(LONGEST_MAGIC));
        let begins = |at: &usize| MAGIC.iter().any(|(_, magic)| magic.starts_with(&self.bytes[*at..]));
        (from..self.bytes.len()).find(begins).map_or(Next::None, Next::MayBegin)
    }
}

enum Found {
    /// And its length.
    Head(Head, usize),
    /// Its end has not come.
    Open,
    Nothing,
}

fn read(kind: Kind, bytes: &[u8]) -> Found {
    match kind {
        Kind::Gzip => gzip(bytes),
        // The rest of it is the decoder's affair.
        Kind::Zstd => Found::Head(Head::Whole(Packer::Zstd), ZSTD.len()),
        Kind::Zip => zip(bytes),
        Kind::Xz => xz(bytes),
        Kind::Bzip2 => bzip2(bytes),
    }
}

/// RFC 1952.
fn gzip(bytes: &[u8]) -> Found {
    const HEAD_CRC: u8 = 0x02;
    const EXTRA: u8 = 0x04;
    const NAME: u8 = 0x08;
    const COMMENT: u8 = 0x10;
    const RESERVED: u8 = 0xe0;
    let Some(flags) = bytes.get(3) else { return Found::Open };
    if flags & RESERVED != 0 {
        return Found::Nothing;
    }
    let mut length = 10;
    if flags & EXTRA != 0 {
        let Some(extra) = number(bytes, length) else { return Found::Open };
        length += 2 + usize::from(extra);
    }
    for _ in [NAME, COMMENT].iter().filter(|text| flags & **text != 0) {
        let Some(text) = bytes.get(length..) else { return Found::Open };
        match memchr::memchr(0, text) {
            Some(end) if end <= LONGEST_NAME => length += end + 1,
            None if text.len() <= LONGEST_NAME => return Found::Open,
            _ => return Found::Nothing,
        }
    }
    length += if flags & HEAD_CRC != 0 { 2 } else { 0 };
    if bytes.len() < length { Found::Open } else { Found::Head(Head::Whole(Packer::Deflate), length) }
}

/// A local file header: APPNOTE.TXT 4.3.7. Neither sizes nor what comes behind the bytes are asked: both may be missing, or wrong.
fn zip(bytes: &[u8]) -> Found {
    const FIXED: usize = 30;
    const ENCRYPTED: u16 = 0x0001;
    const MASKED: u16 = 0x2000;
    const RESERVED: u16 = 0xd780;
    let at = |offset| number(bytes, offset);
    let (Some(version), Some(flags), Some(method)) = (at(4), at(6), at(8)) else { return Found::Open };
    let (Some(name), Some(extra)) = (at(26), at(28)) else { return Found::Open };
    let (name, extra) = (usize::from(name), usize::from(extra));
    let is_named = !bytes[FIXED.min(bytes.len())..].iter().take(name).any(|byte| *byte == 0);
    let is_one =
        is_named && version <= 63 && flags & RESERVED == 0 && method <= 99 && (1..=LONGEST_NAME).contains(&name);
    if !is_one {
        return Found::Nothing;
    }
    if bytes.len() < FIXED + name + extra {
        return Found::Open;
    }
    let content = match method {
        _ if flags & (ENCRYPTED | MASKED) != 0 => Content::Encrypted,
        0 => Content::Plain,
        8 => Content::Packed(Packer::Deflate),
        // Once it had another number.
        20 | 93 => Content::Packed(Packer::Zstd),
        other => Content::Foreign(other),
    };
    let name = bytes[FIXED..FIXED + name].to_vec();
    let length = FIXED + name.len() + extra;
    Found::Head(Head::Member { name, content }, length)
}

/// Every program that knows xz has its magic bytes; a stream has flags with their checksum behind them.
fn xz(bytes: &[u8]) -> Found {
    const LENGTH: usize = 12;
    let Some(head) = bytes.first_chunk::<LENGTH>() else { return Found::Open };
    match crc32fast::hash(&head[6..8]).to_le_bytes() == head[8..] {
        true => Found::Head(Head::Foreign("xz"), LENGTH),
        false => Found::Nothing,
    }
}

/// The first block's magic bytes are those of pi.
fn bzip2(bytes: &[u8]) -> Found {
    const LENGTH: usize = 10;
    let Some(head) = bytes.first_chunk::<LENGTH>() else { return Found::Open };
    match head[3].is_ascii_digit() && head.ends_with(b"1AY&SY") {
        true => Found::Head(Head::Foreign("bzip2"), LENGTH),
        false => Found::Nothing,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Bytes at the start of a file that tell of a further packer.
pub const START: usize = 10;

/// What a file that begins like this is packed by. They are too short, or too common in programs, to be looked for elsewhere.
pub fn of_start(start: &[u8]) -> Option<&'static str> {
    const STARTS: [(&[u8], &str); 6] = [
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07", "RAR"),
        (b"\x04\x22\x4d\x18", "LZ4"),
        (b"LZIP\x01", "lzip"),
        (b"MSCF\0\0\0\0", "Cabinet"),
        (b"\xff\x06\0\0sNaPpY", "Snappy"),
    ];
    STARTS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}
