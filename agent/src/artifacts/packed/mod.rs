//! What lies packed in a file, looked at as it passes by: gzip, zstd, and the members of zips (jar, whl and the like).
//!
//! ```text
//! file ─▶ Layer: heads ─▶ Unpacking ─32 KiB─▶ Scan: secrets
//!                                   └───────▶ Layer: heads ─▶ …
//! ```
//!
//! What is packed is known by its own first bytes, wherever in a file they stand: in a tar, in a `.deb`, behind a script; never by
//! a name. A zip's table of contents comes too late for what passes once, and is not needed: each member has a head of its
//! own, and packed bytes say themselves where they end. What a zip holds without packing it is seen by whoever looks at the file.
//!
//! All of it has [`Bounds`]. What is not looked into is [`Unseen`], and reported.

use navvy_output::mask::{MaskedIn, Masks};

mod heads;
mod look;
#[cfg(test)]
mod tests;
mod unpack;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use self::heads::{Content, Head, Heads, Next, Packer, START};
use self::look::Look;
pub use self::look::{BOUNDS, Bounds, Unseen};
use self::unpack::Unpacker;
use super::scan::Scan;

/// Plain bytes that are made at a time.
const PIECE: usize = 32 << 10;
/// So much of what did not begin its file must be unpacked before its end is called damage: until then the first bytes were
/// nothing but a number in a program.
const NO_CHANCE: u64 = 4096;
/// Bytes in which that must have come. They are kept until then.
const MOST_FIRST: usize = 128 << 10;

/// Looks into one file.
pub struct Inside {
    top: Layer,
    look: Look,
}

impl Inside {
    /// `step`: bytes that may still be unpacked in this step.
    pub fn new(masks: Masks, place: MaskedIn, bounds: Bounds, step: Arc<AtomicU64>) -> Self {
        Self { top: Layer::new(0), look: Look::new(masks, place, bounds, step) }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.top.push(bytes, &mut self.look);
    }

    /// The file is over.
    pub fn end(&mut self) {
        self.top.end(&mut self.look);
    }

    /// Where in the file a secret was found, in words.
    pub fn found(&self) -> Option<&str> {
        self.look.found.as_deref()
    }

    pub fn unseen(&self) -> Option<&Unseen> {
        self.look.unseen.as_ref()
    }
}

/// Bytes in which something may be packed: a file, or what was unpacked.
struct Layer {
    /// How often it was packed.
    depth: usize,
    /// Bytes before those that come.
    seen: u64,
    /// The first bytes of all, until they tell of a packer that is not ours.
    start: Vec<u8>,
    /// What may begin a head whose end has not come.
    open: Vec<u8>,
    unpacking: Option<Box<Unpacking>>,
}

impl Layer {
    fn new(depth: usize) -> Self {
        Self { depth, seen: 0, start: Vec::new(), open: Vec::new(), unpacking: None }
    }

    fn push(&mut self, bytes: &[u8], look: &mut Look) {
        if look.is_over() {
            return;
        }
        self.see_start(bytes, look);
        for piece in bytes.chunks(PIECE) {
            if self.open.is_empty() {
                self.take_all(piece, look);
            } else {
                let mut joined = std::mem::take(&mut self.open);
                joined.extend_from_slice(piece);
                self.take_all(&joined, look);
            }
        }
    }

    /// Nothing more comes.
    fn end(&mut self, look: &mut Look) {
        // What was no head may have one in it.
        while !self.open.is_empty() && !look.is_over() {
            let open = std::mem::take(&mut self.open);
            self.seen += 1;
            self.take_all(&open[1..], look);
        }
        if let Some(mut unpacking) = self.unpacking.take() {
            unpacking.below.end(look);
        }
    }

    fn see_start(&mut self, bytes: &[u8], look: &mut Look) {
        let missing = START - self.start.len();
        if missing == 0 {
            return;
        }
        self.start.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        if self.start.len() == START
            && let Some(packer) = heads::of_start(&self.start)
        {
            self.foreign(packer, 0, look);
        }
    }

    fn foreign(&self, packer: &str, at: u64, look: &mut Look) {
        let what = if self.depth == 0 && at == 0 { "is" } else { "holds what is" };
        look.pass_over(format!("{what} packed by {packer}, which Navvy does not unpack"));
    }

    fn take_all(&mut self, bytes: &[u8], look: &mut Look) {
        let mut again = self.take(bytes, look);
        while let Some(bytes) = again {
            again = self.take(&bytes, look);
        }
    }

    /// Returns what is to be taken once more: what seemed to be a head may have one in it.
    fn take(&mut self, bytes: &[u8], look: &mut Look) -> Option<Vec<u8>> {
        let mut heads = Heads::new(bytes);
        let mut at = 0;
        while at < bytes.len() && !look.is_over() {
            if let Some(unpacking) = &mut self.unpacking {
                let (used, goes_on) = unpacking.push(&bytes[at..], look);
                at += used;
                let over = self.unpacking.take_if(|_| !goes_on);
                if let Some(unpacking) = over.filter(|unpacking| unpacking.was_none) {
                    // Some of them are counted twice, which makes none the first of all.
                    self.seen += at as u64;
                    return Some([&unpacking.first, &bytes[at..]].concat());
                }
                continue;
            }
            match heads.next(at) {
                Next::Head { head, at: begin, end } => {
                    self.unpacking = self.begin(head, self.seen + begin as u64, look);
                    if let Some(unpacking) = &mut self.unpacking {
                        unpacking.first = bytes[begin + 1..end].to_vec();
                    }
                    at = end;
                }
                Next::MayBegin(open) => {
                    self.open = bytes[open..].to_vec();
                    self.seen += open as u64;
                    return None;
                }
                Next::None => break,
            }
        }
        self.seen += bytes.len() as u64;
        None
    }

    /// `at`: where in the layer its head begins.
    fn begin(&self, head: Head, at: u64, look: &mut Look) -> Option<Box<Unpacking>> {
        let (packer, member) = match head {
            Head::Whole(packer) => (packer, None),
            Head::Member { content: Content::Plain, .. } => return None,
            Head::Member { name, content } => {
                let member = look.shown(&name);
                (packed(&member, content, look)?, Some(member))
            }
            Head::Foreign(packer) => {
                self.foreign(packer, at, look);
                return None;
            }
        };
        let is_certain = member.is_some() || at == 0;
        if self.depth == look.bounds.depth {
            if is_certain {
                look.pass_over(format!("holds what is packed more than {} times over", look.bounds.depth));
            }
            return None;
        }
        if !look.take_member() {
            return None;
        }
        Unpacking::new(packer, member, is_certain, self.depth + 1, look)
    }
}

/// How a zip's member is to be unpacked. `None`: it is not.
fn packed(member: &str, content: Content, look: &mut Look) -> Option<Packer> {
    match content {
        Content::Plain => {}
        Content::Packed(packer) => return Some(packer),
        Content::Encrypted => look.pass_over(format!("holds {member}, which is encrypted")),
        Content::Foreign(method) => {
            look.pass_over(format!(
                "holds {member}, which is packed by method {method} of zip; Navvy does not unpack it"
            ));
        }
    }
    None
}

/// One packed stream that comes.
struct Unpacking {
    unpacker: Unpacker,
    /// Its name in a zip.
    member: Option<String>,
    /// It is packed beyond doubt.
    is_certain: bool,
    /// It may be nothing of the kind.
    is_doubtful: bool,
    /// What came of it but for its first byte, as long as that is so.
    first: Vec<u8>,
    /// It was nothing of the kind.
    was_none: bool,
    unpacked: u64,
    buffer: Vec<u8>,
    scan: Scan,
    below: Layer,
}

impl Unpacking {
    fn new(
        packer: Packer,
        member: Option<String>,
        is_certain: bool,
        depth: usize,
        look: &mut Look,
    ) -> Option<Box<Self>> {
        // Of a zstd file's frame the head was taken as such.
        let unpacker = match Unpacker::new(packer, member.is_some()) {
            Ok(unpacker) => unpacker,
            Err(why) => {
                look.pass_over(about(member.as_deref(), &why));
                return None;
            }
        };
        let scan = Scan::new(&look.masks, &look.place);
        let (buffer, below) = (vec![0; PIECE], Layer::new(depth));
        let (is_doubtful, first, was_none, unpacked) = (true, Vec::new(), false, 0);
        Some(Box::new(Self {
            unpacker,
            member,
            is_certain,
            is_doubtful,
            first,
            was_none,
            unpacked,
            buffer,
            scan,
            below,
        }))
    }

    /// How much of it was taken, and does it go on behind that?
    fn push(&mut self, bytes: &[u8], look: &mut Look) -> (usize, bool) {
        let (used, goes_on) = self.unpack(bytes, look);
        self.is_doubtful &= self.unpacked < NO_CHANCE && self.first.len() < MOST_FIRST;
        if self.is_doubtful {
            self.first.extend_from_slice(&bytes[..used]);
        } else {
            self.first = Vec::new();
        }
        (used, goes_on)
    }

    fn unpack(&mut self, bytes: &[u8], look: &mut Look) -> (usize, bool) {
        let mut used = 0;
        loop {
            let step = match self.unpacker.step(&bytes[used..], &mut self.buffer) {
                Ok(step) => step,
                Err(why) => {
                    self.broken(&why, look);
                    return (used, false);
                }
            };
            used += step.used;
            self.unpacked += step.made as u64;
            if !look.charge(step.made) {
                return (used, false);
            }
            let plain = &self.buffer[..step.made];
            self.scan.push(plain, &mut |_| {});
            if self.scan.has_found() {
                look.found = Some(
                    self.member.as_ref().map_or("packed in it".to_owned(), |name| format!("in its member {name}")),
                );
                return (used, false);
            }
            self.below.push(plain, look);
            if step.is_over {
                self.below.end(look);
            }
            let has_more = used < bytes.len() || step.made == self.buffer.len();
            let is_stuck = step.used == 0 && step.made == 0;
            if step.is_over || look.is_over() || is_stuck || !has_more {
                let is_at_end = step.is_over || (is_stuck && has_more);
                return (used, !is_at_end);
            }
        }
    }

    fn broken(&mut self, why: &str, look: &mut Look) {
        self.was_none = self.is_doubtful && self.unpacked < NO_CHANCE;
        if self.is_certain || !self.was_none {
            look.pass_over(about(self.member.as_deref(), why));
        }
        // So that many of these are bounded, too.
        look.charge(PIECE);
    }
}

fn about(member: Option<&str>, why: &str) -> String {
    match member {
        Some(name) => format!("holds {name}, which {why}"),
        None => why.to_owned(),
    }
}
