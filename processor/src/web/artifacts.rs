//! Artifacts: listed page by page, and read as a stream. Their names and contents are a job's: no browser is to make anything
//! of them, and no path is made of them.
//!
//! ```text
//! tasks' rows ─▶ entries of the pipeline, by job, node, step ─▶ lines of each manifest, about 1 MiB at a time ─▶ a page
//! task, STEP-AT ─▶ entry ─▶ one line of its manifest ─▶ a range of its body ─▶ pieces; the last one once the digest fits
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use navvy_protocol::api::{Artifact, Page};
use navvy_storage::artifacts::{Name, StoredFile, producer};
use navvy_storage::{Entry, Piece, PieceKind, Slot, StorageError, Store};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::left::{Key, Left, Of, Wanted, failed, token};
use super::people::Viewer;
use super::sent::Asked;
use super::{Refusal, Web};
use crate::claims::is_task;

/// A page ends behind so many files, and behind so many sets of files.
const PAGE: usize = 1000;
const SETS: usize = 100;
/// Names that are remembered, of files that a later step replaced.
const MOST_NAMES: usize = 500_000;
/// Artifacts that are read at one time; each holds about 2 MiB.
pub(super) const AT_ONCE: usize = 32;

/// `GET /api/v2/pipeline/{id}/artifacts`
pub async fn of_pipeline(
    _: Viewer,
    State(web): State<Web>,
    Path(id): Path<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Artifact>>, Refusal> {
    page(&web, Left::of_pipeline(&web, &id).await?, &wanted).await
}

/// `GET /api/v2/project/{slug}/{number}/artifacts`
pub async fn of_job(
    _: Viewer,
    State(web): State<Web>,
    Path((slug, number)): Path<(String, String)>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Artifact>>, Refusal> {
    page(&web, Left::of_job(&web, &slug, &number).await?, &wanted).await
}

async fn page(web: &Web, left: Left, wanted: &Wanted) -> Result<Json<Page<Artifact>>, Refusal> {
    let (start, mut from) = wanted.from()?;
    let left = left.narrowed(wanted)?;
    let Some(any) = left.any() else { return Ok(Json(Page { items: Vec::new(), next_page_token: None })) };
    let store = any.store(web)?;
    let entries = store.pieces(PieceKind::Artifacts, &any.pipeline, None).await;
    let sets = left.sorted(entries.map_err(|error| failed("the list of artifacts", &error))?);
    let mut items = Vec::new();
    let mut begun = 0;
    for (nth, (key, of, entry)) in sets.iter().enumerate().filter(|(_, (key, ..))| *key >= start) {
        let mut at = if *key == start { std::mem::take(&mut from) } else { 0 };
        begun += 1;
        let replaced = replaced(&store, &sets[nth..]).await?;
        loop {
            if items.len() >= PAGE || (begun > SETS && !items.is_empty()) {
                return Ok(Json(Page { items, next_page_token: Some(token((*key, at))) }));
            }
            let some = store.some_files(entry, at).await.map_err(|error| failed(&words(of, *key), &error))?;
            let kept = some.files.into_iter().filter(|(_, file)| !replaced.contains(&digest(&file.name)));
            items.extend(kept.map(|(at, file)| shown(web, of, *key, at, file)));
            match some.next {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Ok(Json(Page { items, next_page_token: None }))
}

/// Names in the sets that later steps of the same task's node left: of two with one name, the later step's counts.
async fn replaced(store: &Store, sets: &[(Key, &Of, Entry)]) -> Result<HashSet<[u8; 32]>, Refusal> {
    let mut names = HashSet::new();
    let [((job, node, _), ..), later @ ..] = sets else { return Ok(names) };
    for (key, of, entry) in later.iter().take_while(|((other, its_node, _), ..)| (other, its_node) == (job, node)) {
        let mut at = 0;
        while names.len() < MOST_NAMES {
            let some = store.some_files(entry, at).await.map_err(|error| failed(&words(of, *key), &error))?;
            names.extend(some.files.iter().map(|(_, file)| digest(&file.name)));
            match some.next {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Ok(names)
}

fn digest(name: &Name) -> [u8; 32] {
    Sha256::digest(&name.0).into()
}

fn words(of: &Of, (_, node, step): Key) -> String {
    format!("artifacts of job {:?}, node {node}, step {step}", of.job)
}

fn shown(web: &Web, of: &Of, (job_number, node_index, step): Key, at: u64, file: StoredFile) -> Artifact {
    let artifact = format!("{step}-{at}");
    Artifact {
        path: String::from_utf8_lossy(&file.name.0).into_owned(),
        path_bytes: std::str::from_utf8(&file.name.0).is_err().then(|| file.name.0.clone()),
        node_index,
        url: format!("{}/api/v2/task/{}/artifact/{artifact}", web.claims.conductor().public_url(), of.id),
        workflow: of.workflow.clone(),
        job: of.job.clone(),
        job_number,
        task: of.id.clone(),
        step,
        artifact,
        size: file.size,
        sha256: file.sha256,
        content_type: file.content_type,
    }
}

/// Where to begin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    #[serde(default)]
    offset: u64,
}

/// `GET /api/v2/task/{id}/artifact/{artifact}`
pub async fn read(
    _: Viewer,
    State(web): State<Web>,
    Path((task, artifact)): Path<(String, String)>,
    Asked(from): Asked<From>,
) -> Result<Response, Refusal> {
    let none = || Refusal::new(StatusCode::NOT_FOUND, format!("task {task:?} has no artifact {artifact:?}"));
    let named =
        artifact.split_once('-').and_then(|(step, at)| Some((step.parse::<u32>().ok()?, at.parse::<u64>().ok()?)));
    let (step, at) = named.filter(|_| is_task(&task)).ok_or_else(none)?;
    let of = Of::task(&web, &task).await?;
    let store = of.store(&web)?;
    let place = Slot::Piece(Piece {
        of: PieceKind::Artifacts,
        group: of.pipeline.clone(),
        producer: producer(&of.workflow, &of.job),
        node: of.node,
        step,
    });
    let broken = |error: StorageError| failed(&words(&of, (of.number, of.node, step)), &error);
    let entry = store.find(&place).await.map_err(broken)?;
    let entry = entry.filter(|entry| entry.record.producer.task == of.id).ok_or_else(none)?;
    let file = store.file_at(&entry, at).await.map_err(broken)?.ok_or_else(none)?;
    if from.offset > file.size {
        let message = format!("the artifact has {} bytes, and what is asked for begins behind them", file.size);
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, message));
    }
    let permit = Arc::clone(&web.reads).try_acquire_owned().map_err(|_| {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, format!("{AT_ONCE} artifacts are being read at this time"))
            .hint("Try again in a moment.")
    })?;
    // It is there: an error that comes later can only cut the answer off.
    let range = file.range().start + from.offset..file.range().end;
    let expected = (from.offset == 0).then(|| file.sha256.clone());
    let bytes = Whole {
        inner: store.get_part(entry.body(), range),
        held: None,
        digest: Sha256::new(),
        expected,
        _permit: permit,
    };
    Ok((headers(&file, from.offset), Body::from_stream(bytes.into_stream())).into_response())
}

fn headers(file: &StoredFile, offset: u64) -> [(header::HeaderName, String); 5] {
    [
        (header::CONTENT_TYPE, media(&file.content_type).to_owned()),
        (header::CONTENT_LENGTH, (file.size - offset).to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{}", escaped(&file.name.0))),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
}

/// Types that a browser shows and does not interpret. All others are bytes.
fn media(content_type: &str) -> &'static str {
    const SAFE: [&str; 9] = [
        "text/plain",
        "application/json",
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/bmp",
        "video/webm",
        "video/mp4",
        "audio/mpeg",
    ];
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    SAFE.into_iter().find(|safe| *safe == bare).unwrap_or("application/octet-stream")
}

/// The last part of a name, as RFC 5987 has it.
fn escaped(name: &[u8]) -> String {
    let last = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let escape = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    last.iter().map(escape).collect()
}

/// A file's bytes. The last piece is held back until all of it is known to be what was stored: what is not ends too early.
struct Whole {
    inner: BoxStream<'static, Result<Bytes, StorageError>>,
    held: Option<Bytes>,
    digest: Sha256,
    /// `None`: only a part is read.
    expected: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Whole {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes, StorageError>> {
        stream::try_unfold(self, |mut whole| async move {
            loop {
                match whole.inner.next().await.transpose()? {
                    Some(bytes) => {
                        whole.digest.update(&bytes);
                        if let Some(before) = whole.held.replace(bytes) {
                            return Ok(Some((before, whole)));
                        }
                    }
                    None => {
                        let found: String =
                            whole.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                        if let Some(expected) = whole.expected.take().filter(|expected| *expected != found) {
                            tracing::error!(
                                "An artifact is not what was stored: SHA-256 {found} in place of {expected}."
                            );
                            return Err(StorageError::Source(std::io::ErrorKind::InvalidData.into()));
                        }
                        return Ok(whole.held.take().map(|last| (last, whole)));
                    }
                }
            }
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_s_words_are_no_header_and_no_page() {
        assert_eq!(escaped(b"../a\"\r\nset-cookie: x/\xff caf\xc3\xa9.html"), "%FF%20caf%C3%A9%2Ehtml");
        assert_eq!(escaped(b"/"), "");
        for page in ["text/html", "image/svg+xml", "text/javascript", "application/xml", "", "text/plainx", "\r\n"] {
            assert_eq!(media(page), "application/octet-stream", "{page}");
        }
        assert_eq!(media("text/plain; charset=utf-8"), "text/plain");
    }
}
