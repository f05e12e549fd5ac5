//! A cache's key as a path, so that a store without a database finds it by any prefix.
//!
//! ```text
//! key     gems-v1-a/b=        every byte is one token: itself, or an escape of two or three characters
//! escaped gems-v1-a.b/=d      order kept: escape(a) < escape(b) exactly when a < b, byte by byte
//! text    aaaa…/bbbb…/cc      tokens in segments of at most 200 bytes, cut where the store's paths end
//! path    TEXT/,DIGEST        the whole key stands in TEXT
//!         TEXT/,,DIGEST       TEXT is cut; the index object has the whole key
//! ```
//!
//! The text of a prefix is a prefix of the text: that is all that prefix lookup needs.

use sha2::{Digest as _, Sha256};

/// Stores on file systems take 255 bytes for a name.
const SEGMENT: usize = 200;
/// What stands before the digest of a key that is whole in its path. No escape contains this character.
const WHOLE: &str = ",";
/// What stands before the digest of a key that is longer than its path.
const CUT: &str = ",,";

/// What a key's path says of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Key(Vec<u8>),
    /// It begins with this.
    Beginning(Vec<u8>),
}

impl Said {
    /// The key, or as much as is known.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Key(bytes) | Self::Beginning(bytes) => bytes,
        }
    }

    /// Whether the key can begin with `prefix`; `None`: only the index object knows.
    pub fn begins_with(&self, prefix: &[u8]) -> Option<bool> {
        match self {
            Self::Key(key) => Some(key.starts_with(prefix)),
            Self::Beginning(part) if part.len() >= prefix.len() => Some(part.starts_with(prefix)),
            Self::Beginning(part) if prefix.starts_with(part) => None,
            Self::Beginning(_) => Some(false),
        }
    }
}

/// The path of `key`'s index object; its text has at most `limit` bytes.
pub fn path(key: &str, limit: usize) -> String {
    let (mut path, whole) = text(key.as_bytes(), limit);
    path.push('/');
    path.push_str(if whole { WHOLE } else { CUT });
    path.push_str(&digest(key.as_bytes()));
    path
}

/// What the paths of all keys with this prefix begin with, and possibly those of others.
pub fn prefix(key: &str, limit: usize) -> String {
    text(key.as_bytes(), limit).0
}

/// Reads a path back. `None`: not one of ours.
pub fn read(path: &str) -> Option<Said> {
    let (text, leaf) = path.rsplit_once('/')?;
    let bytes = unescape(&text.replace('/', ""))?;
    let (digest_text, whole) = match leaf.strip_prefix(CUT) {
        Some(digest) => (digest, false),
        None => (leaf.strip_prefix(WHOLE)?, true),
    };
    match whole {
        true if digest_text == digest(&bytes) => Some(Said::Key(bytes)),
        true => None,
        false => Some(Said::Beginning(bytes)),
    }
}

/// Is `path` one of `key`'s, however much room the store has left for its text?
pub fn is_path_of(path: &str, key: &str) -> bool {
    match read(path) {
        Some(Said::Key(said)) => said == key.as_bytes(),
        // Many keys begin alike.
        Some(Said::Beginning(said)) => {
            let is_its = |said: &str| said == digest(key.as_bytes());
            key.as_bytes().starts_with(&said) && path.rsplit_once(CUT).is_some_and(|(_, said)| is_its(said))
        }
        None => false,
    }
}

/// 32 hexadecimal characters: half a SHA-256, for which a second key cannot be found.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The escaped key in segments, and whether it is whole.
fn text(key: &[u8], limit: usize) -> (String, bool) {
    let mut text = String::new();
    let mut segment = 0;
    for byte in key {
        let token = token(*byte);
        let breaks = segment + token.len() > SEGMENT;
        if text.len() + usize::from(breaks) + token.len() > limit {
            return (text, false);
        }
        if breaks {
            text.push('/');
            segment = 0;
        }
        text.push_str(&token);
        segment += token.len();
    }
    (text, true)
}

/// One byte, escaped. The leading characters stand where the escaped bytes would: `!` before `-`, `.` before the digits,
/// `=` between digits and capitals, `_` between capitals and small letters, `z` after all of them.
fn token(byte: u8) -> String {
    let nth = |lead: char, first: u8| format!("{lead}{}", char::from(b'a' + (byte - first)));
    match byte {
        b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'y' => char::from(byte).to_string(),
        0..=b',' => format!("!{byte:02x}"),
        b'.' | b'/' => nth('.', b'.'),
        b':'..=b'@' => nth('=', b':'),
        b'['..=b'`' => nth('_', b'['),
        b'z' => "z0".to_owned(),
        b'{'.. => format!("z{byte:02x}"),
    }
}

fn unescape(escaped: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((byte, length)) = first_token(rest) {
        bytes.push(byte);
        rest = rest.get(length..)?;
    }
    rest.is_empty().then_some(bytes)
}

/// The byte that `rest` begins with, and how many characters it took.
fn first_token(rest: &[u8]) -> Option<(u8, usize)> {
    let hex = || u8::from_str_radix(std::str::from_utf8(rest.get(1..3)?).ok()?, 16).ok();
    let nth = |first: u8| first.checked_add(rest.get(1)?.checked_sub(b'a')?);
    let byte = match rest.first()? {
        b'!' => hex()?,
        b'z' if rest.get(1) == Some(&b'0') => b'z',
        b'z' => hex()?,
        b'.' => nth(b'.')?,
        b'=' => nth(b':')?,
        b'_' => nth(b'[')?,
        plain => *plain,
    };
    let token = token(byte);
    rest.starts_with(token.as_bytes()).then_some((byte, token.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escape(key: &[u8]) -> String {
        text(key, usize::MAX).0.replace('/', "")
    }

    #[test]
    fn ordinary_keys_stay_readable() {
        assert_eq!(prefix("gems-v1-linux-amd64", 900), "gems-v1-linux-amd64");
        assert_eq!(prefix("v1.2/a_b=z :", 900), "v1.a2.ba_eb=dz0!20=a");
    }

    #[test]
    fn a_key_of_plain_characters_takes_one_byte_each() {
        let (text, whole) = text(&[b'k'; 900], 1000);
        assert!(whole);
        assert_eq!(text.len(), 904, "five segments");
    }

    #[test]
    fn a_foreign_path_is_not_read() {
        for path in
            ["", "a", "a/b", "a/,00", "a/,", "A~/,,0", "../,,0", "zz/,,0", "a/,0cc175b9c0f1b6a831c399e269772661"]
        {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_known_of_a_key_says_what_it_can_begin_with() {
        let all = Said::Key(b"deps-v1".to_vec());
        let part = Said::Beginning(b"deps".to_vec());
        let asked = |said: &Said, prefix: &str| said.begins_with(prefix.as_bytes());
        assert_eq!(
            ["deps", "deps-v1", "deps-v12", "x"].map(|it| asked(&all, it)),
            [true, true, false, false].map(Some)
        );
        assert_eq!(["", "dep", "deps", "x"].map(|it| asked(&part, it)), [true, true, true, false].map(Some));
        // Longer than what is known: only the index object can say.
        assert_eq!(["deps-", "dexx-"].map(|it| asked(&part, it)), [None, Some(false)]);
    }

    fn keys() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a-zA-Z0-9._/ =-]{0,900}", "[az]{0,3}", "\\PC{100,300}"]
    }

    proptest! {
        #[test]
        fn order_is_kept(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
            prop_assert_eq!(a.cmp(&b), escape(&a).cmp(&escape(&b)));
        }

        #[test]
        fn what_was_escaped_is_read_back(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes));
        }

        #[test]
        fn paths_say_their_key_and_fit(key in keys(), limit in 300_usize..3000) {
            let path = path(&key, limit);
            prop_assert!(path.split('/').all(|segment| segment.len() <= SEGMENT));
            prop_assert!(path.len() <= limit + 1 + CUT.len() + 32);
            if !key.is_empty() {
                prop_assert!(path.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != ".."));
                match read(&path).unwrap() {
                    Said::Key(bytes) => prop_assert_eq!(bytes, key.into_bytes()),
                    Said::Beginning(bytes) => prop_assert!(key.as_bytes().starts_with(&bytes)),
                }
            }
        }

        #[test]
        fn a_prefix_of_the_key_is_a_prefix_of_the_path(key in keys(), at in any::<prop::sample::Index>(), limit in 300_usize..3000) {
            let ends: Vec<usize> = key.char_indices().map(|(at, _)| at).chain([key.len()]).collect();
            let part = &key[..*at.get(&ends)];
            prop_assert!(path(&key, limit).starts_with(&prefix(part, limit)));
            if !key.is_empty() {
                prop_assert_ne!(read(&path(&key, limit)).unwrap().begins_with(part.as_bytes()), Some(false));
            }
        }

        #[test]
        fn two_keys_have_two_paths(a in keys(), b in keys(), limit in 300_usize..600) {
            prop_assert_eq!(a == b, path(&a, limit) == path(&b, limit));
        }
    }
}
