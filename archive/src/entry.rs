//! What an archive holds: names with what belongs to them.

use std::fmt;

/// Bytes of a path, and of a link's target.
pub const PATH_CAP: usize = 4095;
/// Bytes of one name in a path.
pub const NAME_CAP: usize = 255;
/// The bits of a mode that an archive keeps.
pub const MODE_BITS: u32 = 0o7777;

/// SHA-256.
pub type Digest = [u8; 32];

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/` between names, neither `.` nor `..` nor empty names in it; empty for the root itself. Bytes: a name
    /// need not be UTF-8.
    pub path: Vec<u8>,
    /// The lower twelve bits.
    pub mode: u32,
    /// When the content was last modified.
    pub mtime: Time,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// What the entry is, with its content.
    pub kind: Kind,
}

/// What kinds of files an archive holds: devices, sockets and FIFOs are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; what is in it has entries of its own.
    Directory,
    /// A plain file.
    File(Content),
    /// A symbolic link.
    Symlink {
        /// Text of the link, which need not lead anywhere.
        target: Vec<u8>,
    },
    /// Another name of the file that stands before it under this path.
    HardLink {
        /// Path of an earlier [`Kind::File`] entry.
        target: Vec<u8>,
    },
}

/// A file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Bytes that a reader of the file sees.
    pub size: u64,
    /// Bytes in the tar: `size`, or of a sparse file its map and what it holds between its holes.
    pub stored: u64,
    /// The tar holds a map of the file in front of its data.
    pub sparse: bool,
    /// Digest of the stored bytes: the file's own, unless the file is sparse.
    pub digest: Digest,
    /// Where the stored bytes are.
    pub place: Place,
}

/// Where a file's stored bytes begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Number of the frame, from 0.
    pub frame: u32,
    /// In the frame's plain bytes.
    pub offset: u32,
}

/// Since 1970, rounded down to a second, and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds since 1970; negative before it.
    pub seconds: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    pub nanos: u32,
}

impl Entry {
    /// The path for people.
    pub fn shown(&self) -> Shown<'_> {
        Shown(&self.path)
    }
}

/// A path for a person: quoted, with escapes.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name so long was not typed: its beginning is enough.
        const SHOWN: usize = 200;
        let (shown, more) = if self.0.len() > SHOWN { (&self.0[..SHOWN], "…") } else { (self.0, "") };
        write!(f, "{:?}{more}", String::from_utf8_lossy(shown))
    }
}

/// Why a path may not stand in an archive.
pub fn fault_of_path(path: &[u8]) -> Option<&'static str> {
    if path.len() > PATH_CAP {
        return Some("its path is longer than 4095 bytes");
    }
    if path.first() == Some(&b'/') {
        return Some("its path is absolute");
    }
    if path.is_empty() { None } else { path.split(|byte| *byte == b'/').find_map(fault_of_name) }
}

fn fault_of_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("a name in its path is empty"),
        b"." => Some("its path holds `.`"),
        b".." => Some("its path holds `..`"),
        _ if name.len() > NAME_CAP => Some("a name in its path is longer than 255 bytes"),
        _ if name.contains(&0) => Some("its path holds a NUL byte"),
        _ => None,
    }
}

/// Why a symbolic link may not have this target. It may lead anywhere: nothing here ever follows it.
pub fn fault_of_target(target: &[u8]) -> Option<&'static str> {
    match target {
        b"" => Some("its target is empty"),
        _ if target.len() > PATH_CAP => Some("its target is longer than 4095 bytes"),
        _ if target.contains(&0) => Some("its target holds a NUL byte"),
        _ => None,
    }
}

/// The path of the directory that holds it, and its name there.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_or_mean_two_things_are_refused() {
        for path in ["/etc", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", &"a/".repeat(3000), &"n".repeat(256)]
        {
            assert!(fault_of_path(path.as_bytes()).is_some(), "{path:?}");
        }
        for path in ["", "a", "a/b", "...", "a/..b", ".hidden", &"n".repeat(255)] {
            assert_eq!(fault_of_path(path.as_bytes()), None, "{path:?}");
        }
    }

    #[test]
    fn targets_lead_anywhere_but_are_not_empty_too_long_or_cut_by_a_nul() {
        for target in ["", "a\0b", &"a/".repeat(PATH_CAP)] {
            assert!(fault_of_target(target.as_bytes()).is_some(), "{target:?}");
        }
        for target in ["/etc", "../..", "a//b/", &"n".repeat(PATH_CAP)] {
            assert_eq!(fault_of_target(target.as_bytes()), None, "{target:?}");
        }
    }

    #[test]
    fn splits_at_the_last_slash() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
