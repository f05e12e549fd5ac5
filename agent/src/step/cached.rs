//! What a cache's entry says of it beside the store's own words.

use std::collections::BTreeMap;

use navvy_storage::Entry;

use navvy_storage::template::{Template, What};

/// In an entry's details: the absolute paths it holds, as JSON.
pub const PATHS: &str = "paths";
/// The template of its key.
pub const TEMPLATE: &str = "template";
/// How many bytes of the key each part of the template became, as JSON. The key has the bytes; so no value stands twice.
pub const PARTS: &str = "parts";
/// SHA-256 of each file that the template names, in hexadecimal, as JSON.
pub const CHECKSUMS: &str = "checksums";
pub const REVISION: &str = "revision";
pub const FILES: &str = "files";
/// Bytes of its files, before they were compressed.
pub const BYTES: &str = "bytes";
/// How long packing and uploading took, together.
pub const MILLIS: &str = "millis";

/// The absolute paths that a cache holds; `None` where its entry does not say.
pub fn paths(entry: &Entry) -> Option<Vec<String>> {
    serde_json::from_str(entry.record.details.get(PATHS)?).ok()
}

/// A number of its details; `None` if it has no such detail.
pub fn number(entry: &Entry, name: &str) -> Option<u64> {
    entry.record.details.get(name)?.parse().ok()
}

/// What each part of the template became in its key; `None` where its entry does not say, or says what cannot be.
pub fn pieces(entry: &Entry) -> Option<Vec<(What, String)>> {
    let template = Template::parse(entry.record.details.get(TEMPLATE)?).ok()?;
    let lengths: Vec<usize> = serde_json::from_str(entry.record.details.get(PARTS)?).ok()?;
    let (mut rest, mut pieces, mut lengths) = (entry.key()?, Vec::new(), lengths.into_iter());
    for what in template.asked() {
        let (piece, behind) = rest.split_at_checked(lengths.next()?)?;
        pieces.push((what.clone(), piece.to_owned()));
        rest = behind;
    }
    (rest.is_empty() && lengths.next().is_none()).then_some(pieces)
}

/// The recorded SHA-256 of a file that its template names.
pub fn checksum(entry: &Entry, file: &str) -> Option<[u8; 32]> {
    let sums: BTreeMap<String, String> = serde_json::from_str(entry.record.details.get(CHECKSUMS)?).ok()?;
    digest(sums.get(file)?)
}

/// 64 hexadecimal characters as bytes.
pub fn digest(hex: &str) -> Option<[u8; 32]> {
    let byte = |nth: usize| u8::from_str_radix(hex.get(2 * nth..2 * nth + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..32).map_while(byte).collect();
    bytes.try_into().ok().filter(|_| hex.len() == 64)
}
