//! What the fuzz targets share. scripts/fuzz builds and runs them; docs/development.md tells what each is held against.
//!
//! A target reads its input as a short program ([`Feed`]), so that a changed byte makes a slightly other case and not a
//! checksum that fits no more.

use std::io::{self, Read};

/// An input being taken from its front. At its end every number is 0 and every piece empty.
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn number(&mut self) -> u64 {
        self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// From 0 to `end`, which is included.
    pub fn up_to(&mut self, end: usize) -> usize {
        let taken = self.bytes(if end < 256 { 1 } else { 3 });
        taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) % (end + 1)
    }

    /// Fewer than `length` only at the end.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many as a number in front of them says, `most` at most.
    pub fn piece(&mut self, most: usize) -> &'a [u8] {
        let length = self.up_to(most);
        self.bytes(length)
    }

    pub fn text(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.piece(most)).into_owned()
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// A reader that gives few bytes at a time, as a socket may.
pub struct Trickle<'a> {
    pub bytes: &'a [u8],
    /// At each call; at least one.
    pub step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (now, later) = self.bytes.split_at(self.step.max(1).min(buffer.len()).min(self.bytes.len()));
        buffer[..now.len()].copy_from_slice(now);
        self.bytes = later;
        Ok(now.len())
    }
}

/// Something that befalls a file: anywhere, or to whole records, which begin and end at `joints`.
pub fn mishap(feed: &mut Feed<'_>, file: &mut Vec<u8>, joints: &[usize]) {
    let kind = feed.byte();
    let place = |feed: &mut Feed<'_>, from: usize, most: usize| match joints {
        [_, ..] if kind >= 128 => joints[feed.up_to(joints.len() - 1)].clamp(from, from + most),
        _ => from + feed.up_to(most),
    };
    let at = place(feed, 0, file.len());
    let end = place(feed, at, file.len() - at);
    match kind % 5 {
        0 => file.truncate(at),
        1 => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= feed.byte();
            }
        }
        2 => drop(file.splice(at..at, feed.piece(80).iter().copied())),
        3 => drop(file.drain(at..end)),
        _ => {
            let copied = file[at..end].to_vec();
            let to = place(feed, 0, file.len());
            file.splice(to..to, copied);
        }
    }
}
