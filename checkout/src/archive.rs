//! Writes a tar stream that stays valid even if the files change while they are read.
//!
//! Entries are GNU tar: names and link targets are bytes of any length, owner and group are 0 without names, since the
//! unpacker gives everything to the job's user. Times are whole seconds; git compares no finer (see `config`).

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;

use tar::{EntryType, Header};

/// Files up to this size are read whole before their header is written, so header and content always agree.
const BUFFER: usize = 256 * 1024;
const BLOCK: usize = 512;
/// Bytes of a name that fit into the header itself.
const SHORT_NAME: usize = 100;

/// How a file's content went into the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Whole,
    /// It became shorter while it was read; zeros follow what was there.
    Shrunk,
    /// It became longer while it was read; what came later is missing.
    Grown,
}

pub(super) struct Archive<W: Write> {
    out: BufWriter<W>,
    buffer: Box<[u8]>,
    written: u64,
}

/// What went wrong, since a reader's trouble is the tree's and a writer's trouble is the stream's.
#[derive(Debug)]
pub(super) enum ArchiveError {
    Read(io::Error),
    Write(io::Error),
}

impl<W: Write> Archive<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, sink), buffer: vec![0; BUFFER].into(), written: 0 }
    }

    /// Bytes of content so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// As a clone makes it: git knows no modes of directories, and this machine's umask is nothing to the job.
    pub(super) fn directory(&mut self, name: &[u8], mtime: i64) -> io::Result<()> {
        let mut name = name.to_vec();
        name.push(b'/');
        self.entry(EntryType::Directory, &name, b"", 0o755, mtime, 0)
    }

    pub(super) fn symlink(&mut self, name: &[u8], target: &[u8], mtime: i64) -> io::Result<()> {
        self.entry(EntryType::Symlink, name, target, 0o777, mtime, 0)
    }

    /// A file whose content is in memory.
    pub(super) fn bytes(&mut self, name: &[u8], mode: u32, mtime: i64, content: &[u8]) -> io::Result<()> {
        self.entry(EntryType::Regular, name, b"", mode, mtime, content.len() as u64)?;
        self.content(content)?;
        self.pad(content.len() as u64)
    }

    /// An open file, with the metadata read from it.
    pub(super) fn file(&mut self, name: &[u8], mut file: File, meta: &Metadata) -> Result<Content, ArchiveError> {
        let mode = meta.mode() & 0o777;
        if meta.len() < BUFFER as u64 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = fill(&mut file, &mut buffer, meta.len());
            let result = match read {
                Ok(length) => self.bytes(name, mode, meta.mtime(), &buffer[..length]).map_err(ArchiveError::Write),
                Err(error) => Err(ArchiveError::Read(error)),
            };
            self.buffer = buffer;
            return result.map(|()| Content::Whole);
        }
        self.entry(EntryType::Regular, name, b"", mode, meta.mtime(), meta.len()).map_err(ArchiveError::Write)?;
        let content = self.long_content(&mut file, meta.len()).map_err(ArchiveError::Write)?;
        self.pad(meta.len()).map_err(ArchiveError::Write)?;
        Ok(content)
    }

    /// Exactly `length` bytes, even if the file grows or shrinks meanwhile. A read error counts as its end.
    fn long_content(&mut self, file: &mut File, length: u64) -> io::Result<Content> {
        let mut left = length;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Ok(got @ 1..) = retry(file, &mut buffer[..want]) else { break };
            self.content(&buffer[..got])?;
            left -= got as u64;
        }
        let grown = left == 0 && matches!(retry(file, &mut buffer[..1]), Ok(1..));
        self.buffer = buffer;
        if left > 0 {
            self.zeros(left)?;
            return Ok(Content::Shrunk);
        }
        Ok(if grown { Content::Grown } else { Content::Whole })
    }

    /// Ends the stream; the sink has everything.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.zeros(2 * BLOCK as u64)?;
        self.out.flush()
    }

    fn entry(
        &mut self,
        kind: EntryType,
        name: &[u8],
        target: &[u8],
        mode: u32,
        mtime: i64,
        size: u64,
    ) -> io::Result<()> {
        if target.len() > SHORT_NAME {
            self.long_name(EntryType::GNULongLink, target)?;
        }
        if name.len() > SHORT_NAME {
            self.long_name(EntryType::GNULongName, name)?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(mtime).unwrap_or(0));
        self.header(header, name, target, size)
    }

    fn long_name(&mut self, kind: EntryType, name: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(0);
        let size = name.len() as u64 + 1;
        self.header(header, b"././@LongLink", b"", size)?;
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.pad(size)
    }

    fn header(&mut self, mut header: Header, name: &[u8], target: &[u8], size: u64) -> io::Result<()> {
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        let fields = header.as_old_mut();
        copy_into(&mut fields.name, name);
        copy_into(&mut fields.linkname, target);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = size % BLOCK as u64;
        if over == 0 { Ok(()) } else { self.zeros(BLOCK as u64 - over) }
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(count), &mut self.out).map(|_| ())
    }
}

fn copy_into(field: &mut [u8; SHORT_NAME], bytes: &[u8]) {
    let length = bytes.len().min(SHORT_NAME);
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Reads until the end or until the buffer is full. A regular file that gives less than asked is at its end.
fn fill(file: &mut File, buffer: &mut [u8], expected: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        let got = retry(file, &mut buffer[length..])?;
        length += got;
        if got == 0 || length as u64 == expected {
            break;
        }
    }
    Ok(length)
}

fn retry(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
