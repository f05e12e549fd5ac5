//! Looks for secrets in bytes of any kind, as they pass.

use navvy_output::mask::{MaskStream, MaskedIn, Masks};

/// Looks for every form, and once more without the NUL bytes between them.
pub struct Scan {
    stream: MaskStream,
    wide: Wide,
}

impl Scan {
    pub fn new(masks: &Masks, place: &MaskedIn) -> Self {
        Self { stream: masks.stream(place.clone()), wide: Wide::new(masks.stream(place.clone())) }
    }

    /// `write` gets what is certain by now, with `****` in place of what was found.
    pub fn push(&mut self, bytes: &[u8], write: &mut impl FnMut(&[u8])) {
        self.stream.push(bytes, write);
        // What was found is not counted twice.
        if !self.stream.has_found() {
            self.wide.push(bytes);
        }
    }

    /// Nothing more comes. `write` gets what is left.
    pub fn finish(&mut self, write: &mut impl FnMut(&[u8])) {
        self.stream.finish(write);
    }

    pub fn has_found(&self) -> bool {
        self.stream.has_found() || self.wide.has_found()
    }
}

/// Looks at a file without its NUL bytes: what UTF-16 has beside each character of ASCII, in either order. Characters beyond
/// ASCII the masks know in UTF-16 themselves.
struct Wide {
    stream: MaskStream,
    /// The first NUL has come.
    begun: bool,
    /// What may stand right before it.
    before: Option<u8>,
}

impl Wide {
    fn new(stream: MaskStream) -> Self {
        Self { stream, begun: false, before: None }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.has_found() || (!self.begun && !bytes.contains(&0)) {
            self.before = bytes.last().copied().or(self.before);
            return;
        }
        let mut narrow = Vec::with_capacity(bytes.len() / 2 + 1);
        if !std::mem::replace(&mut self.begun, true) {
            narrow.extend(self.before);
        }
        narrow.extend(bytes.iter().copied().filter(|byte| *byte != 0));
        self.stream.push(&narrow, &mut |_| {});
    }

    fn has_found(&self) -> bool {
        self.stream.has_found()
    }
}
