//! An archive's manifest out of the end of a body, by two small reads.

use std::ops::Range;

use futures_util::StreamExt as _;
use navvy_archive::format::{FOOTER, Footer};
use navvy_job::chain::chain;
use navvy_storage::{Body, Store};

/// `longest`: bytes of a manifest, which a job has written.
///
/// # Errors
/// Why there is none, for a person.
pub async fn read(store: &Store, body: &Body, longest: u64) -> Result<(Footer, Vec<u8>), String> {
    let start = body.size.checked_sub(FOOTER as u64).ok_or("it is too short to be an archive")?;
    let footer = Footer::decode(&part(store, body, start..body.size).await?)?;
    let end = footer.manifest_offset.checked_add(footer.manifest_length).filter(|end| *end <= start);
    let end = end.filter(|_| footer.manifest_length <= longest).ok_or("its manifest lies outside of it")?;
    Ok((footer, part(store, body, footer.manifest_offset..end).await?))
}

async fn part(store: &Store, body: &Body, range: Range<u64>) -> Result<Vec<u8>, String> {
    let (mut pieces, mut bytes) = (store.get_part(body, range), Vec::new());
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| chain(&error))?);
    }
    Ok(bytes)
}
