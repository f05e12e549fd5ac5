//! Secrets that overlap, repeat and contain each other, in a text made of their forms, in any pieces: the masker does what
//! the naive oracle does, holds no byte back for nothing, and counts every occurrence once.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::Feed;
use navvy_output::mask::{MaskStream, MaskedIn, Masks, oracle};

/// A text that is as long gets no more: the oracle compares each byte of it with every pattern.
const LONGEST: usize = 600;
const LETTERS: [&str; 4] = ["a", "b", "a", "\n"];
/// What some encoder escapes.
const SPECIAL: [&str; 16] =
    ["'", "\"", "\\", "$", " ", "\n", "\r\n", "/", "é", "<", "%", "\t", "~", "#", "日", "\u{1}"];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let secrets = secrets(&mut feed);
    let masks = Masks::new(&secrets);
    let patterns = masks.patterns();
    plain_values_are_looked_for(&secrets, &masks, &patterns);
    let sizes = feed.piece(12).to_vec();
    let text = text(&mut feed, &patterns);
    let expected = oracle::replace(&text, &patterns);

    let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
    let waiting = open_tail(&text, &patterns);
    let mut stream = masks.stream(MaskedIn::of_run("fuzz"));
    for _ in 0..2 {
        // The second time: nothing is left of the text before.
        let masked = in_pieces(&mut stream, &text, &sizes, longest, waiting);
        assert!(masked == expected, "a stream's {} instead of {}", masked.escape_ascii(), expected.escape_ascii());
    }
    let counted: u64 = masks.report().iter().map(|line| line.count).sum();
    assert_eq!(counted, 2 * occurrences(&text, &patterns), "occurrences in the report");

    assert!(masks.whole(|| MaskedIn::of_run("whole"), &text) == expected, "whole bytes");
    let characters = String::from_utf8_lossy(&text);
    let expected = match &characters {
        Cow::Borrowed(_) => expected,
        Cow::Owned(other) => oracle::replace(other.as_bytes(), &patterns),
    };
    let masked = masks.text(|| MaskedIn::of_run("text"), &characters);
    assert!(masked.as_bytes() == expected, "a whole text");
    let is_untouched = counted == 0 && matches!(characters, Cow::Borrowed(_));
    assert!(!is_untouched || matches!(masked, Cow::Borrowed(_)), "made anew for nothing");
});

fn secrets(feed: &mut Feed<'_>) -> Vec<(String, String)> {
    let mut secrets: Vec<(String, String)> = Vec::new();
    for number in 0..feed.up_to(7) {
        let shape = feed.byte();
        let bytes = feed.piece(40);
        let spelled = |letters: &[&str]| bytes.iter().map(|byte| letters[usize::from(*byte) % letters.len()]).collect();
        let mut value: String = match shape & 3 {
            0 => spelled(&LETTERS),
            1 => spelled(&SPECIAL),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        // Long ones, whose base64 is broken into lines, and such as begin within another.
        value = value.repeat(1 + usize::from(shape >> 6));
        if shape & 4 != 0
            && let Some((_, other)) = secrets.last()
        {
            let tail: String = other.chars().skip(usize::from(shape >> 3 & 7)).collect();
            value = tail + &value;
        }
        value.truncate(value.floor_char_boundary(400));
        secrets.push((format!("S{number}"), value));
    }
    secrets
}

fn plain_values_are_looked_for(secrets: &[(String, String)], masks: &Masks, patterns: &[Vec<u8>]) {
    for (name, value) in secrets {
        let value = value.trim_end_matches(['\n', '\r']);
        let is_masked = patterns.iter().any(|pattern| pattern == value.as_bytes());
        assert!(
            is_masked || value.is_empty() || masks.unmasked().contains(name),
            "{value:?} is masked in secret or not"
        );
    }
}

fn text(feed: &mut Feed<'_>, patterns: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::new();
    while !feed.is_empty() && text.len() < LONGEST {
        let how = feed.byte();
        if how & 3 == 0 || patterns.is_empty() {
            text.extend_from_slice(feed.piece(24));
        } else if how & 3 == 1 {
            text.extend(feed.piece(24).iter().flat_map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()].bytes()));
        } else {
            let pattern = &patterns[feed.up_to(patterns.len() - 1)];
            let from = if how & 4 == 0 { 0 } else { feed.up_to(pattern.len()) };
            let to = if how & 8 == 0 { pattern.len() } else { from + feed.up_to(pattern.len() - from) };
            if how & 16 != 0 {
                text.truncate(text.len().saturating_sub(usize::from(how >> 5) + 1));
            }
            text.extend_from_slice(&pattern[from..to]);
        }
    }
    text
}

fn in_pieces(stream: &mut MaskStream, text: &[u8], sizes: &[u8], longest: usize, waiting: usize) -> Vec<u8> {
    let mut masked = Vec::new();
    let mut take = |bytes: &[u8]| masked.extend_from_slice(bytes);
    let mut sizes = sizes.iter().cycle().map(|size| match *size {
        0..224 => usize::from(size % 32),
        _ => 400,
    });
    let mut rest = text;
    let mut was_empty = false;
    while !rest.is_empty() {
        // An empty piece is one, too, but not for ever.
        let size = sizes.next().unwrap_or(1).max(usize::from(was_empty));
        let (piece, after) = rest.split_at(size.min(rest.len()));
        stream.push(piece, &mut take);
        assert!(stream.held() < longest.max(1), "{} bytes wait for a pattern of {longest}", stream.held());
        rest = after;
        was_empty = size == 0;
    }
    assert_eq!(stream.held(), waiting, "bytes that wait");
    stream.finish(&mut take);
    assert_eq!(stream.held(), 0);
    masked
}

/// Bytes at the text's end with which some pattern begins that may still come.
fn open_tail(text: &[u8], patterns: &[Vec<u8>]) -> usize {
    let open = |pattern: &Vec<u8>| {
        let longest = text.len().min(pattern.len() - 1);
        (1..=longest).rev().find(|length| text[text.len() - length..] == pattern[..*length])
    };
    patterns.iter().filter_map(open).max().unwrap_or(0)
}

fn occurrences(text: &[u8], patterns: &[Vec<u8>]) -> u64 {
    let of = |pattern: &Vec<u8>| text.windows(pattern.len()).filter(|window| window == pattern).count() as u64;
    patterns.iter().map(of).sum()
}
