//! Files out of an archive, in its order, as it comes: no more of it is in memory than one frame.
//!
//! ```text
//! source ─▶ frame: digest, then plain bytes ─▶ tape ─▶ begin, bytes…, end ─▶ sink
//!                                                └─▶ links, for when all files are known
//! ```

use std::io::{self, Read, Write};

use navvy_archive::codec::Decompressor;
use navvy_archive::contents::Spread;
use navvy_archive::error::ReadError;
use navvy_archive::format::{self, BLOCK};
use navvy_archive::frames::FrameReader;
use navvy_archive::sparse::Map;
use navvy_archive::tape::{self, Body, Head, Item};

use super::links::Links;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of files, holes included.
    pub bytes: u64,
    pub entries: u64,
}

/// Who takes the files.
pub trait Sink {
    /// A file comes; its path in the archive.
    fn begin(&mut self, path: &[u8]) -> io::Result<()>;
    /// Its next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// It was all there.
    fn end(&mut self) -> io::Result<()>;
}

/// Reads an archive to its end.
///
/// # Errors
/// The archive's, the source's, and the sink's as [`ReadError::Source`]. Then the last file may have come in part.
pub fn read(source: impl Read, limits: Limits, sink: &mut dyn Sink) -> Result<Links, ReadError> {
    let mut frames = FrameReader::new(source)?;
    let mut tape = Tape { sink, limits, current: None, ended: false, entries: 0, bytes: 0, links: Links::default() };
    let (mut compressed, mut plain, mut decompressor) = (Vec::new(), Vec::new(), Decompressor::new());
    while let Some((announced, frame)) = frames.frame(&mut compressed)? {
        if format::digest(&compressed) != announced.digest {
            return Err(ReadError::Damaged { what: format!("frame {}", announced.frame) });
        }
        let broken = |what: &'static str| ReadError::Broken { what: what.to_owned(), offset: frame.offset };
        decompressor.unpack(&compressed, announced.plain as usize, &mut plain).map_err(broken)?;
        tape.frame(&plain, &broken)?;
    }
    while frames.part(&mut compressed)?.is_some() {}
    frames.footer()?;
    if tape.current.is_some() || !tape.ended {
        return Err(ReadError::Broken { what: "its tar has no end".to_owned(), offset: 0 });
    }
    Ok(tape.links)
}

/// A file whose bytes are coming.
struct Current {
    left: u64,
    spread: Option<Spread>,
}

struct Tape<'a> {
    sink: &'a mut dyn Sink,
    limits: Limits,
    current: Option<Current>,
    ended: bool,
    entries: u64,
    bytes: u64,
    links: Links,
}

impl Tape<'_> {
    fn frame(&mut self, plain: &[u8], broken: &dyn Fn(&'static str) -> ReadError) -> Result<(), ReadError> {
        let mut at = 0;
        while at < plain.len() {
            at = match self.current.take() {
                Some(current) => self.content(current, plain, at)?,
                None if self.ended => return Err(broken("something follows the end of its tar")),
                None => match tape::read(&plain[at..]).map_err(broken)? {
                    Item::Entry(head, length) => self.entry(head, plain, at + length)?,
                    Item::End => {
                        self.ended = true;
                        plain.len()
                    }
                },
            };
        }
        Ok(())
    }

    /// Returns where the next block to look at begins.
    fn entry(&mut self, head: Head, plain: &[u8], at: usize) -> Result<usize, ReadError> {
        self.entries += 1;
        let size = match head.body {
            Body::File { size } | Body::Sparse { size, .. } => size,
            _ => 0,
        };
        self.bytes = self.bytes.saturating_add(size);
        let Limits { bytes, entries } = self.limits;
        for (found, limit, of) in [(self.entries, entries, "entries"), (self.bytes, bytes, "bytes")] {
            if found > limit {
                return Err(ReadError::Quota { limit, of });
            }
        }
        let stored = head.stored();
        match head.body {
            Body::Directory => Ok(at),
            Body::Symlink { target } => {
                self.links.symbolic(head.path, target);
                Ok(at)
            }
            Body::HardLink { target } => {
                self.links.hard(head.path, target);
                Ok(at)
            }
            Body::File { .. } => self.begin(&head.path, Current { left: stored, spread: None }, plain, at),
            Body::Sparse { size, .. } => {
                let entry = |why: &str| ReadError::Entry { path: head.path.clone(), why: why.to_owned() };
                let within = plain[at..].len().min(usize::try_from(stored).unwrap_or(usize::MAX));
                let (map, length) = Map::decode(size, &plain[at..at + within]).map_err(entry)?;
                if length as u64 + map.data() != stored {
                    return Err(entry("its map and its size differ"));
                }
                let current = Current { left: stored - length as u64, spread: Some(Spread::new(map)) };
                self.begin(&head.path, current, plain, at + length)
            }
        }
    }

    fn begin(&mut self, path: &[u8], current: Current, plain: &[u8], at: usize) -> Result<usize, ReadError> {
        self.sink.begin(path).map_err(ReadError::Source)?;
        self.content(current, plain, at)
    }

    fn content(&mut self, mut current: Current, plain: &[u8], at: usize) -> Result<usize, ReadError> {
        let length = current.left.min((plain.len() - at) as u64) as usize;
        let bytes = &plain[at..at + length];
        let mut writer = Writer(&mut *self.sink);
        match &mut current.spread {
            Some(spread) => spread.write(bytes, &mut writer),
            None => writer.write_all(bytes),
        }
        .map_err(ReadError::Source)?;
        current.left -= length as u64;
        if current.left > 0 {
            self.current = Some(current);
            return Ok(plain.len());
        }
        if let Some(spread) = current.spread {
            spread.end(&mut writer).map_err(ReadError::Source)?;
        }
        self.sink.end().map_err(ReadError::Source)?;
        Ok((at + length).next_multiple_of(BLOCK))
    }
}

struct Writer<'a>(&'a mut dyn Sink);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.bytes(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, symlink};

    use navvy_archive::pack::{self, Options, Source};

    use super::*;

    #[derive(Default)]
    struct Kept(Vec<(String, Vec<u8>, bool)>);

    impl Sink for Kept {
        fn begin(&mut self, path: &[u8]) -> io::Result<()> {
            self.0.push((String::from_utf8(path.to_vec()).unwrap(), Vec::new(), false));
            Ok(())
        }

        fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }

        fn end(&mut self) -> io::Result<()> {
            self.0.last_mut().unwrap().2 = true;
            Ok(())
        }
    }

    const LIMITS: Limits = Limits { bytes: 8 << 20, entries: 10 };

    fn archive() -> Vec<u8> {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/empty"), "").unwrap();
        std::fs::write(at("long"), large()).unwrap();
        std::fs::hard_link(at("long"), at("twin")).unwrap();
        symlink("d/empty", at("z")).unwrap();
        let sparse = std::fs::File::create(at("sparse")).unwrap();
        sparse.write_at(b"middle", 1 << 20).unwrap();
        sparse.set_len(3 << 20).unwrap();
        let (mut bytes, source) = (Vec::new(), Source::named(tree.path(), "w/out"));
        let options = Options { frame: 64 << 10, ..Options::new(2) };
        pack::pack(&[source], &options, &mut bytes, &mut |warning| panic!("{warning}")).unwrap();
        bytes
    }

    fn large() -> Vec<u8> {
        (0..300_001_u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect()
    }

    #[test]
    fn files_come_whole_with_their_holes_and_links_are_told() {
        let mut kept = Kept::default();
        let links = read(&archive()[..], LIMITS, &mut kept).unwrap();
        let mut sparse = vec![0; 3 << 20];
        sparse[1 << 20..][..6].copy_from_slice(b"middle");
        let wanted = [("w/out/d/empty", Vec::new()), ("w/out/long", large()), ("w/out/sparse", sparse)];
        assert_eq!(kept.0.len(), wanted.len());
        for ((path, bytes, ended), (wanted, content)) in kept.0.iter().zip(&wanted) {
            assert_eq!(path, wanted);
            assert!(*ended && bytes == content, "{path}");
        }
        let all: Vec<_> = links.all();
        assert_eq!(all[0], (&b"w/out/twin"[..], Some(b"w/out/long".to_vec())));
        assert_eq!(all[1], (&b"w/out/z"[..], Some(b"w/out/d/empty".to_vec())));
    }

    #[test]
    fn an_archive_that_is_cut_changed_or_too_large_is_refused() {
        let archive = archive();
        for length in (0..archive.len()).step_by(1009) {
            assert!(read(&archive[..length], LIMITS, &mut Kept::default()).is_err(), "{length}");
        }
        for at in (0..archive.len()).step_by(1009) {
            let mut changed = archive.clone();
            changed[at] ^= 1;
            assert!(read(&changed[..], LIMITS, &mut Kept::default()).is_err(), "{at}");
        }
        for limits in [Limits { bytes: 3 << 20, ..LIMITS }, Limits { entries: 6, ..LIMITS }] {
            let refused = read(&archive[..], limits, &mut Kept::default());
            assert!(matches!(refused, Err(ReadError::Quota { .. })), "{refused:?}");
        }
    }
}
