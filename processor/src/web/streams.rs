//! What is read while it grows: events and logs. Each has a cursor, so a reader that was cut off goes on.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use navvy_protocol::api::{Log, NumberedEvent, Page};
use serde::Deserialize;
use sqlx::Row as _;

use super::people::Viewer;
use super::sent::Asked;
use super::{Refusal, Web};
use crate::claims::is_task;
use crate::state::{int, uint};

/// Events that are read at once.
const AT_ONCE: i64 = 500;
/// Another processor may have written an event of which nobody here was told.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where to begin, and whether to wait for more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    follow: bool,
}

/// `GET /api/v2/pipeline/{id}/events`
pub async fn events(
    _: Viewer,
    State(web): State<Web>,
    Path(id): Path<String>,
    Asked(cursor): Asked<Cursor>,
) -> Result<Response, Refusal> {
    let exists = sqlx::query("SELECT 1 FROM pipelines WHERE id = $1").bind(&id);
    if exists.fetch_optional(web.claims.conductor().state().pool()).await?.is_none() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no pipeline {id}")));
    }
    let reading = Reading { web, id, after: cursor.after, follow: cursor.follow, is_over: false };
    let lines = stream::unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Some((next, reading))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Reading {
    web: Web,
    id: String,
    after: u64,
    follow: bool,
    is_over: bool,
}

impl Reading {
    /// Some lines; `None`: there will be no more. A reader that does not wait gets those that there are.
    async fn next(&mut self) -> Option<Result<Bytes, sqlx::Error>> {
        if self.is_over {
            return None;
        }
        loop {
            let signal = self.web.claims.conductor().signals.events.clone();
            let told = signal.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let lines = match self.some().await {
                Ok(lines) => lines,
                Err(error) => {
                    // The connection is cut: the reader sees that this is no end, and comes again.
                    self.is_over = true;
                    return Some(Err(error));
                }
            };
            if !lines.is_empty() {
                return Some(Ok(lines.into()));
            }
            if !self.follow || self.is_over {
                return None;
            }
            tokio::time::timeout(LOOK_AGAIN, told).await.ok();
        }
    }

    async fn some(&mut self) -> Result<Vec<u8>, sqlx::Error> {
        let pool = self.web.claims.conductor().state().pool();
        let select = "SELECT number, body FROM events WHERE pipeline = $1 AND number > $2 ORDER BY number LIMIT $3";
        let query = sqlx::query(select).bind(&self.id).bind(int(self.after)).bind(AT_ONCE);
        let mut lines = Vec::new();
        for row in query.fetch_all(pool).await? {
            let (number, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            self.after = uint(number);
            let event: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            self.is_over = event.get("event").is_some_and(|kind| kind == "run_ended");
            let numbered = NumberedEvent { number: self.after, event };
            lines.extend(serde_json::to_vec(&numbered).unwrap_or_default());
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// `GET /api/v2/task/{id}/logs`
pub async fn logs(_: Viewer, State(web): State<Web>, Path(task): Path<String>) -> Result<Json<Page<Log>>, Refusal> {
    exists(&web, &task).await?;
    let logs = web.output.marks(&task).await?.into_iter().map(|it| {
        let (bytes, sha256) = it.end.unzip();
        Log { log: it.log, durable: it.durable, bytes, sha256 }
    });
    Ok(Json(Page { items: logs.collect(), next_page_token: None }))
}

/// `GET /api/v2/task/{id}/log/{log}`
pub async fn log(
    _: Viewer,
    State(web): State<Web>,
    Path((task, log)): Path<(String, String)>,
    Asked(cursor): Asked<Cursor>,
) -> Result<Response, Refusal> {
    exists(&web, &task).await?;
    let bytes = web.output.read(&task, &log, cursor.offset, cursor.follow).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // It is a job's output: no browser is to make anything of it.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    Ok((headers, Body::from_stream(bytes.boxed())).into_response())
}

async fn exists(web: &Web, task: &str) -> Result<(), Refusal> {
    let none = || Refusal::new(StatusCode::NOT_FOUND, format!("there is no task {task}"));
    if !is_task(task) {
        return Err(none());
    }
    let exists = sqlx::query("SELECT 1 FROM tasks WHERE id = $1").bind(task);
    exists.fetch_optional(web.claims.conductor().state().pool()).await?.map(drop).ok_or_else(none)
}
