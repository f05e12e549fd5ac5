//! The tar inside: one way to write each entry, and a reader that takes only that one.
//!
//! ```text
//! entry  [pax header, records padded to 512]? ustar header, [data padded to 512]?
//! tape   entry* 1024 zero bytes
//! pax    what the ustar header cannot say, in this order: path, linkpath, size, uid, gid, mtime, GNU.sparse.major,
//!        GNU.sparse.minor, GNU.sparse.name, GNU.sparse.realsize, SCHILY.xattr.NAME (sorted)
//! ```
//!
//! The reader writes again what it understood, and compares. So no field can mean something else to another reader: two
//! sizes, two names, a number with a sign, bytes behind a NUL.

use crate::entry::{MODE_BITS, Time, fault_of_path, fault_of_target};
use crate::format::BLOCK;

/// Bytes of an entry's pax records at most.
pub const PAX_CAP: usize = 256 << 10;
/// Two empty blocks.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const SPARSE_NAME: &[u8] = b"GNUSparseFile";
const XATTR: &str = "SCHILY.xattr.";
const NAME_FIELD: usize = 100;
const CUT: &str = "its tar header does not stand in one frame";

/// An entry's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Path of the entry, as in [`crate::entry::Entry`].
    pub path: Vec<u8>,
    /// The lower twelve bits.
    pub mode: u32,
    /// When the content was last modified.
    pub mtime: Time,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the entry is.
    pub body: Body,
}

/// What an entry is, and how many bytes follow its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A directory; no bytes follow.
    Directory,
    /// A plain file without a map.
    File {
        /// Bytes that follow.
        size: u64,
    },
    /// `stored`: its map and the bytes between its holes.
    Sparse {
        /// Bytes that a reader of the file sees.
        size: u64,
        /// Bytes that follow.
        stored: u64,
    },
    /// A symbolic link; no bytes follow.
    Symlink {
        /// Text of the link.
        target: Vec<u8>,
    },
    /// Another name of an earlier file; no bytes follow.
    HardLink {
        /// Path of that file.
        target: Vec<u8>,
    },
}

impl Head {
    /// Bytes that follow the headers, without padding.
    pub fn stored(&self) -> u64 {
        match self.body {
            Body::File { size } => size,
            Body::Sparse { stored, .. } => stored,
            _ => 0,
        }
    }

    fn flag(&self) -> u8 {
        match self.body {
            Body::File { .. } | Body::Sparse { .. } => b'0',
            Body::HardLink { .. } => b'1',
            Body::Symlink { .. } => b'2',
            Body::Directory => b'5',
        }
    }

    fn target(&self) -> &[u8] {
        match &self.body {
            Body::Symlink { target } | Body::HardLink { target } => target,
            _ => b"",
        }
    }

    /// As it stands in a tar: a directory's ends in `/`.
    fn tar_path(&self) -> Vec<u8> {
        let name = if self.path.is_empty() { b".".to_vec() } else { self.path.clone() };
        if self.body == Body::Directory { [&name[..], b"/"].concat() } else { name }
    }
}

/// What is left of a block behind so many bytes.
pub fn padding(bytes: u64) -> usize {
    (bytes.next_multiple_of(BLOCK as u64) - bytes) as usize
}

/// The headers, as whole blocks, at the end of `to`.
pub fn write(head: &Head, to: &mut Vec<u8>) {
    let path = head.tar_path();
    let pax = pax_records(head, &path);
    if !pax.is_empty() {
        let length = pax.len() as u64;
        to.extend_from_slice(&block(b"PaxHeader", 0o644, [0, 0, length, 0], b'x', b""));
        to.extend_from_slice(&pax);
        to.resize(to.len() + padding(length), 0);
    }
    let sparse = matches!(head.body, Body::Sparse { .. });
    let name = if sparse { SPARSE_NAME } else { &path[..] };
    let seconds = u64::try_from(head.mtime.seconds).unwrap_or(0);
    let numbers = [head.uid.into(), head.gid.into(), head.stored(), seconds];
    to.extend_from_slice(&block(name, head.mode, numbers, head.flag(), head.target()));
}

/// Highest numbers of the fields uid, gid, size, mtime.
const FIELD_CAPS: [u64; 4] = [0o7_777_777, 0o7_777_777, 0o77_777_777_777, 0o77_777_777_777];

fn block(name: &[u8], mode: u32, numbers: [u64; 4], flag: u8, target: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_text(&mut block[..NAME_FIELD], name);
    put_octal(&mut block[100..108], mode.into());
    // What does not fit stands in the pax records; its field is 0.
    let [uid, gid, size, mtime] = std::array::from_fn(|at| if numbers[at] <= FIELD_CAPS[at] { numbers[at] } else { 0 });
    put_octal(&mut block[108..116], uid);
    put_octal(&mut block[116..124], gid);
    put_octal(&mut block[124..136], size);
    put_octal(&mut block[136..148], mtime);
    block[156] = flag;
    put_text(&mut block[157..257], target);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits that fill the field but for a NUL at its end.
fn put_octal(field: &mut [u8], mut number: u64) {
    let Some((end, digits)) = field.split_last_mut() else { return };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

fn pax_records(head: &Head, path: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let sparse = matches!(head.body, Body::Sparse { .. });
    if path.len() > NAME_FIELD && !sparse {
        put_record(&mut records, "path", b"", path);
    }
    if head.target().len() > NAME_FIELD {
        put_record(&mut records, "linkpath", b"", head.target());
    }
    let numbers = [("size", head.stored(), FIELD_CAPS[2]), ("uid", head.uid.into(), FIELD_CAPS[0])];
    for (key, number, cap) in numbers.into_iter().chain([("gid", head.gid.into(), FIELD_CAPS[1])]) {
        if number > cap {
            put_record(&mut records, key, b"", number.to_string().as_bytes());
        }
    }
    let Time { seconds, nanos } = head.mtime;
    if nanos != 0 || seconds < 0 || seconds as u64 > FIELD_CAPS[3] {
        put_record(&mut records, "mtime", b"", shown_time(head.mtime).as_bytes());
    }
    if let Body::Sparse { size, .. } = head.body {
        put_record(&mut records, "GNU.sparse.major", b"", b"1");
        put_record(&mut records, "GNU.sparse.minor", b"", b"0");
        put_record(&mut records, "GNU.sparse.name", b"", path);
        put_record(&mut records, "GNU.sparse.realsize", b"", size.to_string().as_bytes());
    }
    for (name, value) in &head.xattrs {
        put_record(&mut records, XATTR, name, value);
    }
    records
}

/// Bytes that an attribute takes in the pax records, about: never less than it does.
pub fn xattr_room(name: &[u8], value: &[u8]) -> usize {
    XATTR.len() + name.len() + value.len() + 24
}

/// `LENGTH KEY=VALUE\n`; the length counts itself.
fn put_record(to: &mut Vec<u8>, key: &str, more_key: &[u8], value: &[u8]) {
    let rest = key.len() + more_key.len() + value.len() + 3;
    let digits = |number: usize| number.to_string().len();
    let length = rest + digits(rest + digits(rest));
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key.as_bytes());
    to.extend_from_slice(more_key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn shown_time(Time { seconds, nanos }: Time) -> String {
    // Decimal counts from zero outwards, a file system's time always upwards.
    let (sign, whole, part) = match seconds {
        0.. => ("", seconds as u64, nanos),
        _ if nanos == 0 => ("-", seconds.unsigned_abs(), 0),
        _ => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if part == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:09}") }
}

fn parsed_time(text: &str) -> Option<Time> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let (whole, part): (i64, u32) = (whole.parse().ok()?, part.parse().ok()?);
    if sign > 0 || part == 0 {
        return Some(Time { seconds: sign * whole, nanos: part });
    }
    Some(Time { seconds: whole.checked_neg()?.checked_sub(1)?, nanos: 1_000_000_000_u32.checked_sub(part)? })
}

/// What stands at a block's beginning.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// And so many bytes of headers.
    Entry(Head, usize),
    /// The end of the tape, which is all that is left.
    End,
}

/// Reads the headers at the beginning of `bytes`, which must hold all of them.
pub fn read(bytes: &[u8]) -> Result<Item, &'static str> {
    if bytes == END {
        return Ok(Item::End);
    }
    let first = Block::at(bytes, 0)?;
    let (records, at) = match first.flag() {
        b'x' => {
            let length = first.octal(124, 12)? as usize;
            let end = BLOCK + length;
            if length > PAX_CAP {
                return Err("its pax records are too long");
            }
            (bytes.get(BLOCK..end).ok_or(CUT)?, end + padding(length as u64))
        }
        _ => (&[][..], 0),
    };
    let head = understand(Block::at(bytes, at)?, Records::parse(records)?)?;
    if let Some(fault) = fault_of_path(&head.path) {
        return Err(fault);
    }
    let mut again = Vec::new();
    write(&head, &mut again);
    // Only what the writer would have written is accepted: so another reader cannot understand it otherwise.
    if !bytes.starts_with(&again) {
        return Err("its tar header is not in the form that an archive must have");
    }
    Ok(Item::Entry(head, again.len()))
}

struct Block<'a>(&'a [u8; BLOCK]);

impl<'a> Block<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Result<Self, &'static str> {
        let block = bytes.get(at..).and_then(|rest| rest.first_chunk());
        block.map(Self).ok_or(CUT)
    }

    fn flag(&self) -> u8 {
        self.0[156]
    }

    fn octal(&self, at: usize, length: usize) -> Result<u64, &'static str> {
        let digits = std::str::from_utf8(&self.0[at..at + length - 1]).ok();
        digits.and_then(|digits| u64::from_str_radix(digits, 8).ok()).ok_or("invalid number in its tar header")
    }

    fn small(&self, at: usize) -> Result<u32, &'static str> {
        self.octal(at, 8).map(|number| number as u32)
    }

    fn text(&self, at: usize) -> Vec<u8> {
        let field = &self.0[at..at + NAME_FIELD];
        field[..field.iter().position(|byte| *byte == 0).unwrap_or(NAME_FIELD)].to_vec()
    }
}

#[derive(Default)]
struct Records<'a> {
    path: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Time>,
    sparse_name: Option<&'a [u8]>,
    sparse_size: Option<u64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Records<'a> {
    fn parse(mut bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = one_record(bytes).ok_or("invalid pax record")?;
            records.take(key, value).ok_or("it has a pax record that an archive does not hold")?;
            bytes = rest;
        }
        Ok(records)
    }

    /// Twice the same, or in another order: the comparison finds it.
    fn take(&mut self, key: &'a [u8], value: &'a [u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(XATTR.as_bytes()) {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Some(());
        }
        let text = || std::str::from_utf8(value).ok();
        match key {
            b"path" => self.path = Some(value),
            b"linkpath" => self.target = Some(value),
            b"size" => self.size = Some(text()?.parse().ok()?),
            b"uid" => self.uid = Some(text()?.parse().ok()?),
            b"gid" => self.gid = Some(text()?.parse().ok()?),
            b"mtime" => self.mtime = Some(parsed_time(text()?)?),
            b"GNU.sparse.major" | b"GNU.sparse.minor" => {}
            b"GNU.sparse.name" => self.sparse_name = Some(value),
            b"GNU.sparse.realsize" => self.sparse_size = Some(text()?.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn one_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn understand(block: Block<'_>, records: Records<'_>) -> Result<Head, &'static str> {
    let name = records.sparse_name.or(records.path).map_or_else(|| block.text(0), <[u8]>::to_vec);
    let stored = records.size.map_or_else(|| block.octal(124, 12), Ok)?;
    let target = || records.target.map_or_else(|| block.text(157), <[u8]>::to_vec);
    let body = match (block.flag(), records.sparse_size) {
        (b'0', None) => Body::File { size: stored },
        (b'0', Some(size)) => Body::Sparse { size, stored },
        (b'1', _) => Body::HardLink { target: target() },
        (b'2', _) => Body::Symlink { target: target() },
        (b'5', _) => Body::Directory,
        _ => return Err("it is neither a file nor a directory nor a link"),
    };
    let fault = match &body {
        Body::Symlink { target } => fault_of_target(target),
        Body::HardLink { target } => fault_of_path(target),
        _ => None,
    };
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mtime = records
        .mtime
        .map_or_else(|| block.octal(136, 12).map(|seconds| Time { seconds: seconds as i64, nanos: 0 }), Ok)?;
    Ok(Head {
        path: entry_path(name, &body),
        mode: block.small(100)? & MODE_BITS,
        mtime,
        uid: records.uid.map_or_else(|| block.small(108), Ok)?,
        gid: records.gid.map_or_else(|| block.small(116), Ok)?,
        xattrs: records.xattrs,
        body,
    })
}

fn entry_path(mut name: Vec<u8>, body: &Body) -> Vec<u8> {
    if *body == Body::Directory && name.last() == Some(&b'/') {
        name.pop();
        if name == b"." {
            name.clear();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(path: &[u8], body: Body) -> Head {
        let mtime = Time { seconds: 1_700_000_000, nanos: 0 };
        Head { path: path.to_vec(), mode: 0o644, mtime, uid: 1000, gid: 1000, xattrs: Vec::new(), body }
    }

    fn round_trip(head: &Head) -> Result<(), &'static str> {
        let mut bytes = Vec::new();
        write(head, &mut bytes);
        assert!(bytes.len().is_multiple_of(BLOCK));
        let expected = Item::Entry(head.clone(), bytes.len());
        bytes.extend_from_slice(&[0; 3 * BLOCK]);
        read(&bytes).map(|read| assert_eq!(read, expected))
    }

    #[test]
    fn every_field_has_room_for_what_it_may_hold() {
        round_trip(&head(b"", Body::Directory)).unwrap();
        round_trip(&head(b"a", Body::File { size: 1 << 40 })).unwrap();
        round_trip(&head(&[b'x'; 255], Body::Symlink { target: vec![b'y'; 4095] })).unwrap();
        round_trip(&head(&[b'x'; 100], Body::Directory)).unwrap();
        round_trip(&head(&[b'x'; 99], Body::Directory)).unwrap();
        round_trip(&head(b"holes", Body::Sparse { size: 1 << 60, stored: 512 })).unwrap();
        let xattrs = vec![(b"user.a".to_vec(), vec![0, b'\n', 255, b'=']), (b"user.b".to_vec(), Vec::new())];
        round_trip(&Head { xattrs, uid: u32::MAX, gid: u32::MAX, ..head(b"\xff\xfe", Body::File { size: 0 }) })
            .unwrap();
    }

    #[test]
    fn a_changed_bit_is_refused_or_means_another_entry() {
        let mut bytes = Vec::new();
        let mtime = Time { seconds: 5, nanos: 7 };
        let body = Body::Symlink { target: b"target".to_vec() };
        write(&Head { mtime, ..head(&[b'n'; 120], body) }, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Item::Entry(head, length)) = read(&changed) {
                let mut again = Vec::new();
                write(&head, &mut again);
                assert!(again == changed[..length], "bit {bit} has no meaning");
            }
        }
    }

    #[test]
    fn sizes_told_twice_are_refused() {
        let tricks: [&[u8]; 4] = [b"10 size=0\n", b"10 size=1\n", b"12 size=512\n", b"11 size=-1\n"];
        for trick in tricks {
            let mut bytes = block(b"PaxHeader", 0o644, [0, 0, trick.len() as u64, 0], b'x', b"").to_vec();
            bytes.extend_from_slice(trick);
            bytes.resize(2 * BLOCK, 0);
            bytes.extend_from_slice(&block(b"f", 0o644, [0, 0, 512, 0], b'0', b""));
            bytes.resize(bytes.len() + BLOCK, b'x');
            assert!(read(&bytes).is_err(), "{}", String::from_utf8_lossy(trick));
        }
    }

    #[test]
    fn devices_global_headers_and_long_names_of_gnu_are_refused() {
        for flag in [b'3', b'4', b'6', b'7', b'g', b'L', b'K', b'S', 0, b'V'] {
            let mut bytes = block(b"dev", 0o644, [0, 0, 0, 0], flag, b"").to_vec();
            bytes.resize(4 * BLOCK, 0);
            assert!(read(&bytes).is_err(), "{:?}", flag as char);
        }
    }

    prop_compose! {
        fn any_time()(seconds in prop_oneof![-5_i64..5, any::<i32>().prop_map(i64::from), 0..i64::MAX / 2], nanos in 0_u32..1_000_000_000)
            -> Time { Time { seconds, nanos } }
    }

    proptest! {
        #[test]
        fn times_round_trip(time in any_time()) {
            prop_assert_eq!(parsed_time(&shown_time(time)), Some(time));
        }

        #[test]
        fn heads_round_trip(name in "[a-zé/]{0,300}", mtime in any_time(), mode in 0_u32..0o10000, uid: u32, size: u64) {
            let path: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
            let path = path.join("/").into_bytes();
            prop_assume!(fault_of_path(&path).is_none() && !path.is_empty());
            let file = Head { mtime, mode, uid, ..head(&path, Body::File { size }) };
            let sparse = Head { body: Body::Sparse { size, stored: 512 }, ..file.clone() };
            let link = Head { body: Body::HardLink { target: path.clone() }, ..file.clone() };
            prop_assert!([file, sparse, link].iter().all(|head| round_trip(head).is_ok()));
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            drop(read(&bytes));
        }
    }
}
