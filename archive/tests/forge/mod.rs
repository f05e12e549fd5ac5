//! Archives that no packer writes: every digest fits, and what they say is the forger's.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use navvy_archive::codec::store;
use navvy_archive::entry::{Content, Entry, Kind, Place, Time};
use navvy_archive::error::ReadError;
use navvy_archive::format::{Announcement, Footer, START, digest};
use navvy_archive::manifest::{self, Frame};
use navvy_archive::tape::{self, Body, Head};
use tempfile::TempDir;

use crate::trees::{look, options, unpack_with};

pub const TIME: Time = Time { seconds: 1_700_000_000, nanos: 5 };

pub fn head(path: &[u8], body: Body) -> Head {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Head { path: path.to_vec(), mode: 0o755, mtime: TIME, uid, gid, xattrs: Vec::new(), body }
}

pub fn directory(path: &[u8]) -> Head {
    head(path, Body::Directory)
}

pub fn symlink(path: &[u8], target: &[u8]) -> Head {
    head(path, Body::Symlink { target: target.to_vec() })
}

pub fn hard_link(path: &[u8], target: &[u8]) -> Head {
    head(path, Body::HardLink { target: target.to_vec() })
}

/// Put together frame by frame.
#[derive(Default, Clone)]
pub struct Forgery {
    pub frames: Vec<Vec<u8>>,
    pub entries: Vec<Entry>,
}

impl Forgery {
    pub fn new() -> Self {
        Self { frames: vec![Vec::new()], entries: Vec::new() }
    }

    fn frame(&mut self) -> &mut Vec<u8> {
        self.frames.last_mut().expect("one at least")
    }

    /// With the bytes that follow its headers.
    pub fn entry(mut self, head: &Head, data: &[u8]) -> Self {
        tape::write(head, self.frame());
        let place = Place { frame: self.frames.len() as u32 - 1, offset: self.frame().len() as u32 };
        let content = |size, stored, sparse| Kind::File(Content { size, stored, sparse, digest: digest(data), place });
        let kind = match &head.body {
            Body::Directory => Kind::Directory,
            Body::File { size } => content(*size, *size, false),
            Body::Sparse { size, stored } => content(*size, *stored, true),
            Body::Symlink { target } => Kind::Symlink { target: target.clone() },
            Body::HardLink { target } => Kind::HardLink { target: target.clone() },
        };
        let Head { path, mode, mtime, uid, gid, .. } = head.clone();
        self.entries.push(Entry { path, mode, mtime, uid, gid, kind });
        self.raw(data)
    }

    pub fn file(self, path: &[u8], data: &[u8]) -> Self {
        self.entry(&head(path, Body::File { size: data.len() as u64 }), data)
    }

    /// Any bytes, filled up to a block.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        let frame = self.frame();
        frame.extend_from_slice(bytes);
        frame.resize(frame.len().next_multiple_of(512), 0);
        self
    }

    pub fn next_frame(mut self) -> Self {
        self.frames.push(Vec::new());
        self
    }

    pub fn end(self) -> Self {
        self.raw(&tape::END)
    }

    /// As it is, without an end.
    pub fn build(&self) -> Vec<u8> {
        let frames = self.frames.iter().map(|plain| {
            let mut stored = Vec::new();
            store(plain, &mut stored);
            (stored, plain.len() as u32)
        });
        build(&frames.collect::<Vec<_>>(), &self.entries)
    }
}

/// Of frames that may be none, with the plain lengths that are announced.
pub fn build(frames: &[(Vec<u8>, u32)], entries: &[Entry]) -> Vec<u8> {
    let (mut archive, mut manifest) = (START.to_vec(), manifest::Writer::new());
    for (number, (compressed, plain)) in frames.iter().enumerate() {
        let (frame, length) = (number as u32, compressed.len() as u32);
        let announcement = Announcement { frame, compressed: length, plain: *plain, digest: digest(compressed) };
        archive.extend_from_slice(&announcement.encode());
        let offset = archive.len() as u64;
        manifest.frame(&Frame { offset, compressed: length, plain: *plain, digest: announcement.digest });
        archive.extend_from_slice(compressed);
    }
    entries.iter().for_each(|entry| manifest.entry(entry));
    manifest.end_part();
    let footer = Footer {
        manifest_offset: archive.len() as u64,
        manifest_length: manifest.bytes.len() as u64,
        frames: frames.len() as u64,
        entries: entries.len() as u64,
        plain: frames.iter().map(|(_, plain)| u64::from(*plain)).sum(),
        manifest_digest: digest(&manifest.bytes),
    };
    archive.extend_from_slice(&manifest.bytes);
    archive.extend_from_slice(&footer.encode());
    archive
}

/// A header with another type or field, its checksum made right.
pub fn changed_header(head: &Head, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = Vec::new();
    tape::write(head, &mut bytes);
    let at = bytes.len() - 512;
    change(&mut bytes[at..]);
    checksum(&mut bytes[at..]);
    bytes
}

pub fn checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A root to unpack in, and what must not change beside it.
pub struct Yard {
    home: TempDir,
    outside: String,
}

impl Yard {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("root")).unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/file"), "untouched").unwrap();
        let mut yard = Self { home, outside: String::new() };
        yard.outside = yard.look_outside();
        yard
    }

    pub fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    pub fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    fn look_outside(&self) -> String {
        let names: Vec<_> = fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let mode = fs::metadata(self.outside()).unwrap().mode();
        let links = fs::metadata(self.outside().join("file")).unwrap().nlink();
        format!("{} {mode:o} {links} {:?}", names.len(), look(&self.outside()))
    }

    /// Whatever came of it: nothing outside has changed, nothing half-written is left.
    pub fn unpack(&self, archive: &[u8]) -> Result<(), ReadError> {
        let result = unpack_with(archive, &self.root(), &options());
        self.check();
        result.map(drop)
    }

    pub fn check(&self) {
        assert_eq!(self.look_outside(), self.outside);
        for path in look(&self.root()).keys() {
            assert!(!path.to_string_lossy().contains(".navvy-"), "{path:?} is left");
        }
    }
}

/// It must be refused, with words that say why.
pub fn refused(archive: &[u8], why: &str) {
    let error = Yard::new().unpack(archive).expect_err(why).to_string();
    assert!(error.contains(why), "{error:?} does not say {why:?}");
}
