//! Did a step's output say that no Docker daemon was found?
//!
//! Only where one was asked for and is not there; and of masked output, so that no secret is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use navvy_protocol::frame::Stream;

/// How clients of Docker say it: the command and its library, and what is built on `docker-py`.
const WORDS: [&[u8]; 2] =
    [b"Cannot connect to the Docker daemon", b"Error while fetching server API version: ('Connection aborted.'"];

/// The answer, for the code that started the step. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DaemonHint(Arc<AtomicBool>);

impl DaemonHint {
    pub fn is_found(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Looks at both streams as they come.
pub struct DaemonScan {
    hint: DaemonHint,
    /// The end of what came of stdout and of stderr: the words may come in pieces.
    ends: [Vec<u8>; 2],
}

impl DaemonScan {
    pub fn new(hint: DaemonHint) -> Self {
        Self { hint, ends: [Vec::new(), Vec::new()] }
    }

    pub fn look_at(&mut self, stream: Stream, bytes: &[u8]) {
        let longest = WORDS.iter().map(|words| words.len()).max().unwrap_or(0);
        let end = &mut self.ends[usize::from(stream == Stream::Stderr)];
        // What stands across the border is found in the border alone.
        let before = end.len();
        end.extend_from_slice(&bytes[..bytes.len().min(longest - 1)]);
        if has_words(end) || has_words(bytes) {
            self.hint.0.store(true, Ordering::Release);
        }
        match bytes.len() >= longest {
            true => *end = bytes[bytes.len() - (longest - 1)..].to_vec(),
            false => drop(end.drain(..(before + bytes.len()).saturating_sub(longest - 1))),
        }
    }
}

fn has_words(bytes: &[u8]) -> bool {
    WORDS.iter().any(|words| memchr::memmem::find(bytes, words).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(chunks: &[(Stream, &[u8])]) -> bool {
        let hint = DaemonHint::default();
        let mut scan = DaemonScan::new(hint.clone());
        chunks.iter().for_each(|(stream, bytes)| scan.look_at(*stream, bytes));
        hint.is_found()
    }

    #[test]
    fn the_words_are_found_wherever_they_are_cut() {
        for words in WORDS {
            let text = [&[b'x'; 200][..], words, b" at unix:///x\n"].concat();
            for size in 1..text.len() {
                let chunks: Vec<(Stream, &[u8])> = text.chunks(size).map(|chunk| (Stream::Stderr, chunk)).collect();
                assert!(found(&chunks), "cut to {size}");
            }
        }
    }

    #[test]
    fn nothing_else_is() {
        let words = WORDS[0];
        let (first, second) = words.split_at(12);
        assert!(!found(&[(Stream::Stdout, first), (Stream::Stderr, second)]));
        assert!(!found(&[(Stream::Stdout, first), (Stream::Stdout, b"-"), (Stream::Stdout, second)]));
        assert!(!found(&[(Stream::Stdout, b"docker: command not found\n")]));
        assert!(found(&[(Stream::Stdout, first), (Stream::Stderr, b"-"), (Stream::Stdout, second)]));
    }
}
