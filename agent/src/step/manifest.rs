//! An archive's manifest out of the end of a body, by two small reads.

use std::ops::Range;

use futures_util::StreamExt as _;
use navvy_archive::format::{FOOTER, Footer};
use navvy_storage::{Body, StorageError, Store};

/// Why a body has no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is too short to be an archive")]
    Short,
    #[error("{0}")]
    Footer(&'static str),
    #[error("its manifest is too large, or reaches beyond its end")]
    Outside,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// `longest`: bytes of a manifest, which a job has written.
///
/// # Errors
/// It is no archive, or the store did not answer.
pub async fn read(store: &Store, body: &Body, longest: u64) -> Result<(Footer, Vec<u8>), ManifestError> {
    let start = body.size.checked_sub(FOOTER as u64).ok_or(ManifestError::Short)?;
    let footer = Footer::decode(&part(store, body, start..body.size).await?).map_err(ManifestError::Footer)?;
    let end = footer.manifest_offset.checked_add(footer.manifest_length).filter(|end| *end <= start);
    let end = end.filter(|_| footer.manifest_length <= longest).ok_or(ManifestError::Outside)?;
    Ok((footer, part(store, body, footer.manifest_offset..end).await?))
}

async fn part(store: &Store, body: &Body, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
    let (mut pieces, mut bytes) = (store.get_part(body, range), Vec::new());
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}
