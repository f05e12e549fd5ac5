//! Results of tests: as their steps stored them, page by page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use navvy_protocol::api::{Page, Test};
use navvy_results::keep::{self, Document, Keeper};
use navvy_storage::{Entry, Store};

use super::left::{Key, Left, Of, Wanted, failed, token};
use super::people::Viewer;
use super::sent::Asked;
use super::{Refusal, Web};

/// Tests of one page, and documents that are read for it.
const PAGE: usize = 1000;
const DOCUMENTS: usize = 50;
/// Bytes of messages of one page.
const MOST_MESSAGES: usize = 2 << 20;
/// A larger document is not read here: it would have to be held.
const MOST_DOCUMENT: u64 = 32 << 20;

/// `GET /api/v2/pipeline/{id}/tests`
pub async fn of_pipeline(
    _: Viewer,
    State(web): State<Web>,
    Path(id): Path<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Test>>, Refusal> {
    page(&web, Left::of_pipeline(&web, &id).await?, &wanted).await
}

/// `GET /api/v2/project/{slug}/{number}/tests`
pub async fn of_job(
    _: Viewer,
    State(web): State<Web>,
    Path((slug, number)): Path<(String, String)>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Test>>, Refusal> {
    page(&web, Left::of_job(&web, &slug, &number).await?, &wanted).await
}

async fn page(web: &Web, left: Left, wanted: &Wanted) -> Result<Json<Page<Test>>, Refusal> {
    let (start, from) = wanted.from()?;
    let left = left.narrowed(wanted)?;
    let Some(any) = left.any() else { return Ok(Json(Page { items: Vec::new(), next_page_token: None })) };
    let keeper = Keeper::new(any.store(web)?);
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for job in left.jobs() {
        let run = keeper.run(job, &any.pipeline).await.map_err(|error| failed("the list of results", &error))?;
        let of_run = run.iter().flat_map(|run| run.entries());
        entries.extend(of_run.map(|entry| (entry.body().id.to_string(), entry.clone())));
    }
    let store = any.store(web)?;
    let mut items = Vec::new();
    let (mut bytes, mut read) = (0, 0);
    for (key, of, entry) in left.sorted(entries.into_values().collect()).iter().filter(|(key, ..)| *key >= start) {
        let at = if *key == start { usize::try_from(from).unwrap_or(usize::MAX) } else { 0 };
        read += 1;
        if read > DOCUMENTS && !items.is_empty() {
            return Ok(Json(Page { items, next_page_token: Some(token((*key, at as u64))) }));
        }
        for (nth, test) in document(web, &store, of, *key, entry).await?.tests.into_iter().enumerate().skip(at) {
            if items.len() >= PAGE || bytes > MOST_MESSAGES {
                return Ok(Json(Page { items, next_page_token: Some(token((*key, nth as u64))) }));
            }
            bytes += test.message.as_ref().map_or(0, String::len) + test.name.len();
            items.push(shown(of, *key, test));
        }
    }
    Ok(Json(Page { items, next_page_token: None }))
}

async fn document(web: &Web, store: &Store, of: &Of, key: Key, entry: &Entry) -> Result<Document, Refusal> {
    let (_, node, step) = key;
    let what = format!("results of job {:?}, node {node}, step {step}", of.job);
    if entry.body().size > MOST_DOCUMENT {
        let message =
            format!("{what}: they are too large to be shown: {} bytes of at most {MOST_DOCUMENT}", entry.body().size);
        return Err(
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message).hint("The queries `job` and `node` choose others.")
        );
    }
    // One at a time is held.
    let turn = web.documents.acquire().await;
    let mut bytes = Vec::new();
    let mut stream = store.get(entry.body());
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| failed(&what, &error))?);
    }
    let read = Document::read(&bytes);
    drop(turn);
    read.map_err(|why| Refusal::new(StatusCode::CONFLICT, format!("{what}: they cannot be read: {why}")))
}

fn shown(of: &Of, (job_number, node_index, _): Key, test: keep::Test) -> Test {
    Test {
        name: test.name,
        classname: test.classname.unwrap_or_default(),
        file: test.file.unwrap_or_default(),
        result: test.result,
        message: test.message.unwrap_or_default(),
        run_time: test.run_time,
        source: "junit".to_owned(),
        place: test.place,
        workflow: of.workflow.clone(),
        job: of.job.clone(),
        job_number,
        node_index,
    }
}
