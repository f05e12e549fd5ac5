//! An archive read from its beginning, section by section, each checked before it is given on.

use std::io::Read;

use crate::error::ReadError;
use crate::format::{self, ANNOUNCEMENT, Announcement, FOOTER, Footer, HEAD, START, Section};
use crate::manifest::{Frame, PART_COMPRESSED_CAP};

use sha2::{Digest as _, Sha256};

/// Reads an archive from its first byte on, one section at a time, and checks that each may stand where it does.
pub struct FrameReader<R> {
    source: R,
    /// Bytes read so far.
    offset: u64,
    frames: u32,
    plain: u64,
    /// Read, but what it heads not yet asked for.
    next: Option<([u8; HEAD], Section, usize)>,
    manifest: Option<(u64, Sha256)>,
}

impl<R: Read> FrameReader<R> {
    /// Reads the first bytes.
    pub fn new(source: R) -> Result<Self, ReadError> {
        let mut reader = Self { source, offset: 0, frames: 0, plain: 0, next: None, manifest: None };
        if reader.array()? != START {
            return Err(reader.broken("it does not begin as an archive does"));
        }
        Ok(reader)
    }

    /// Plain bytes of the frames so far.
    pub fn plain(&self) -> u64 {
        self.plain
    }

    /// The next data frame, its bytes into `to`, not yet verified. `None`: there are no more.
    pub fn frame(&mut self, to: &mut Vec<u8>) -> Result<Option<(Announcement, Frame)>, ReadError> {
        let Some((_, Section::Announcement, length)) = self.peek()? else { return Ok(None) };
        if length != ANNOUNCEMENT - HEAD {
            return Err(self.broken("an announcement has a wrong length"));
        }
        self.next = None;
        let bytes: [u8; ANNOUNCEMENT - HEAD] = self.array()?;
        let announcement = Announcement::decode(&bytes).filter(|announcement| announcement.frame == self.frames);
        let announcement = announcement.ok_or_else(|| self.broken("invalid announcement"))?;
        let frame = Frame::announced(&announcement, self.offset);
        self.take(announcement.compressed as usize, to)?;
        self.frames += 1;
        self.plain += u64::from(announcement.plain);
        Ok(Some((announcement, frame)))
    }

    /// The next part of the manifest: its zstd frame, not yet verified. `None`: there are no more.
    pub fn part(&mut self, to: &mut Vec<u8>) -> Result<Option<()>, ReadError> {
        let Some((head, Section::Manifest, length)) = self.peek()? else { return Ok(None) };
        if length > PART_COMPRESSED_CAP {
            return Err(self.broken("a part of the manifest is too long"));
        }
        self.next = None;
        let start = self.offset - HEAD as u64;
        self.take(length, to)?;
        let (_, digest) = self.manifest.get_or_insert_with(|| (start, Sha256::new()));
        digest.update(head);
        digest.update(&to[..]);
        Ok(Some(()))
    }

    /// The footer, held against everything read before, and that nothing follows.
    pub fn footer(&mut self) -> Result<Footer, ReadError> {
        let Some((head, Section::Footer, length)) = self.peek()? else {
            return Err(self.broken("a section is out of place"));
        };
        let start = self.offset - HEAD as u64;
        if length != FOOTER - HEAD {
            return Err(self.broken("its footer has a wrong length"));
        }
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(&self.array::<{ FOOTER - HEAD }>()?);
        let footer = Footer::decode(&bytes).map_err(|what| self.broken(what))?;
        let (offset, digest) = self.manifest.take().unwrap_or_else(|| (start, Sha256::new()));
        let fits = footer.manifest_offset == offset
            && footer.manifest_length == start - offset
            && footer.frames == u64::from(self.frames)
            && footer.plain == self.plain;
        if !fits {
            return Err(self.broken("its footer belongs to another archive"));
        }
        if footer.manifest_digest != format::Digest::from(digest.finalize()) {
            return Err(ReadError::Damaged { what: "its manifest".into() });
        }
        self.end()?;
        Ok(footer)
    }

    fn end(&mut self) -> Result<(), ReadError> {
        let mut more = Vec::new();
        self.source.by_ref().take(1).read_to_end(&mut more).map_err(ReadError::Source)?;
        if more.is_empty() { Ok(()) } else { Err(self.broken("something follows its footer")) }
    }

    fn peek(&mut self) -> Result<Option<([u8; HEAD], Section, usize)>, ReadError> {
        if self.next.is_none() {
            let head = self.array()?;
            let (section, length) = format::section(head).ok_or_else(|| self.broken("no section begins here"))?;
            self.next = Some((head, section, length));
        }
        Ok(self.next)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        match self.source.read_exact(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.broken("it is cut off")),
            Err(error) => Err(ReadError::Source(error)),
            Ok(()) => {
                self.offset += N as u64;
                Ok(bytes)
            }
        }
    }

    /// Takes no more memory than came: a promise of bytes costs nothing.
    fn take(&mut self, length: usize, to: &mut Vec<u8>) -> Result<(), ReadError> {
        to.clear();
        self.source.by_ref().take(length as u64).read_to_end(to).map_err(ReadError::Source)?;
        self.offset += to.len() as u64;
        if to.len() == length { Ok(()) } else { Err(self.broken("it is cut off")) }
    }

    fn broken(&self, what: &str) -> ReadError {
        ReadError::Broken { what: what.to_owned(), offset: self.offset }
    }
}
