//! Spans of pipelines that have ended, from the events that are kept of them: the agents need no exporter.
//!
//! ```text
//! events ─▶ Trace: pipeline ─▶ workflow ─▶ job ─▶ task ─▶ step ─▶ OTLP/HTTP, JSON: POST ENDPOINT/v1/traces
//! ```
//!
//! Ids are those that steps were given as TRACEPARENT: what a step's own programs tell stands below its span.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use navvy_job::chain::chain;
use navvy_protocol::api::Submit;
use navvy_protocol::processor::trace::TraceParent;
use navvy_storage::Proxies;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::sync::broadcast;

use crate::figures;
use crate::state::State;

/// Pipelines that wait for their spans to be told.
pub const QUEUE: usize = 256;
/// Spans of one request.
const AT_ONCE: usize = 500;
/// Spans of one pipeline.
const MOST: usize = 20_000;
/// Events that are read at once.
const PAGE: i64 = 500;
/// A collector that does not answer within this has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is tried, and after which pause again.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

/// A span, as far as it is known by now.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    id: String,
    parent: String,
    name: String,
    start: u128,
    end: u128,
    attributes: Vec<(&'static str, Value)>,
    /// What went wrong.
    failed: Option<String>,
}

/// A pipeline's spans.
struct Trace {
    of: TraceParent,
    pipeline: TraceParent,
    spans: BTreeMap<String, Span>,
    dropped: usize,
}

/// Tells spans of pipelines as they end, as long as it is polled.
pub async fn export(endpoint: String, proxies: Proxies, state: State, mut ended: broadcast::Receiver<String>) {
    let client = match navvy_storage::client(None, &proxies) {
        Ok(client) => client,
        Err(error) => return tracing::error!("Spans cannot be exported: {}.", chain(&error)),
    };
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    loop {
        let pipeline = match ended.recv().await {
            Ok(pipeline) => pipeline,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                figures::SPANS_LOST.add(lost);
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let requests = match spans(&state, &pipeline).await {
            Ok(requests) => requests,
            Err(error) => {
                figures::SPANS_LOST.count();
                tracing::warn!(pipeline, "The spans of a pipeline cannot be read: {error}.");
                continue;
            }
        };
        for request in requests {
            let body = request.to_string();
            let mut tries = 0;
            let why = loop {
                tries += 1;
                let post = client.post(&url).header("content-type", "application/json").timeout(DEADLINE);
                match post.body(body.clone()).send().await {
                    Ok(answer) if answer.status().is_success() => break None,
                    // Only what may pass is tried again.
                    Ok(answer) if !answer.status().is_server_error() && answer.status().as_u16() != 429 => {
                        break Some(format!("it answers {}", answer.status()));
                    }
                    Ok(answer) if tries == TRIES => break Some(format!("it answers {}", answer.status())),
                    Err(error) if tries == TRIES => break Some(chain(&error.without_url())),
                    Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
                }
            };
            if let Some(why) = why {
                figures::SPANS_LOST.count();
                tracing::warn!(pipeline, "The spans of a pipeline were not taken by the collector: {why}.");
                break;
            }
        }
    }
}

/// The requests that tell a pipeline's spans. None: its trace is not to be recorded.
async fn spans(state: &State, pipeline: &str) -> Result<Vec<Value>, String> {
    let failed = |error: sqlx::Error| chain(&error);
    let select =
        "SELECT p.submit, p.number, j.slug FROM pipelines p JOIN projects j ON j.id = p.project WHERE p.id = $1";
    let row = sqlx::query(select).bind(pipeline).fetch_one(state.pool()).await.map_err(failed)?;
    let submit: String = row.try_get(0).map_err(failed)?;
    let submit: Submit = serde_json::from_str(&submit).map_err(|error| error.to_string())?;
    let Some(of) = submit.traceparent.as_deref().and_then(TraceParent::read).filter(TraceParent::is_sampled) else {
        return Ok(Vec::new());
    };
    let (number, slug): (i64, String) = (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
    let mut trace = Trace::new(of, pipeline, &slug, number);
    let mut after = 0_i64;
    loop {
        let select = "SELECT number, body FROM events WHERE pipeline = $1 AND number > $2 ORDER BY number LIMIT $3";
        let query = sqlx::query(select).bind(pipeline).bind(after).bind(PAGE);
        let rows = query.fetch_all(state.pool()).await.map_err(failed)?;
        for row in &rows {
            after = row.try_get(0).map_err(failed)?;
            let body: String = row.try_get(1).map_err(failed)?;
            // What a newer version wrote may have another form.
            if let Ok(event) = serde_json::from_str::<Value>(&body) {
                trace.take(&event);
            }
        }
        if (rows.len() as i64) < PAGE {
            return Ok(trace.requests());
        }
    }
}

impl Trace {
    fn new(of: TraceParent, pipeline: &str, slug: &str, number: i64) -> Self {
        let span = of.pipeline(pipeline);
        let attributes = vec![
            ("navvy.pipeline.id", json!(pipeline)),
            ("navvy.pipeline.number", json!(number)),
            ("navvy.project", json!(slug)),
        ];
        let name = format!("pipeline {slug} {number}");
        let root = Span { id: span.span_id(), parent: of.span_id(), name, start: 0, end: 0, attributes, failed: None };
        Self { of, pipeline: span, spans: BTreeMap::from([(String::new(), root)]), dropped: 0 }
    }

    fn take(&mut self, event: &Value) {
        let Some(at) = event["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok()) else { return };
        let at = u128::try_from(at.as_nanosecond()).unwrap_or(0);
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let (workflow, job, task) = (text("workflow"), text("job"), text("task"));
        let step = (event["step"].as_u64().unwrap_or(0), event["attempt"].as_u64().unwrap_or(1));
        match event["event"].as_str().unwrap_or_default() {
            "run_started" => self.at("", at),
            "task_started" => {
                let node = vec![("navvy.task.id", json!(task)), ("navvy.task.node", event["node_index"].clone())];
                self.begin_job(&workflow, &job, at);
                let (id, parent) = (self.pipeline.task(&task), self.job_id(&workflow, &job));
                self.begin(&format!("t {task}"), id, parent, format!("task of {job}"), at, node);
            }
            "step_started" => {
                let parent = self.pipeline.task(&task);
                let (number, attempt) = step;
                let about = vec![("navvy.step.number", json!(number)), ("navvy.step.kind", event["kind"].clone())];
                let key = format!("s {task} {number} {attempt}");
                self.begin(&key, parent.step(number, attempt), parent, text("name"), at, about);
            }
            "step_ended" => {
                let outcome = event["outcome"]["outcome"].as_str().unwrap_or_default();
                let code = event["outcome"]["code"].as_i64().unwrap_or(0);
                let failed = (outcome != "success" && !(outcome == "exit_code" && code == 0))
                    .then(|| format!("{outcome} {code}"));
                self.end(&format!("s {task} {} {}", step.0, step.1), at, failed);
            }
            "task_ended" => {
                let verdict = text("verdict");
                self.end(&format!("t {task}"), at, (verdict != "passed").then_some(verdict));
            }
            "job_ended" => {
                let status =
                    event["end"]["status"].as_str().or_else(|| event["end"]["end"].as_str()).unwrap_or_default();
                let failed = (status != "passed" && status != "success").then(|| status.to_owned());
                self.end(&format!("j {workflow} {job}"), at, failed);
                self.end(&format!("w {workflow}"), at, None);
            }
            "run_ended" => {
                let code = event["exit_code"].as_i64().unwrap_or(0);
                self.end("", at, (code != 0).then(|| format!("exit code {code}")));
            }
            _ => {}
        }
    }

    fn job_id(&self, workflow: &str, job: &str) -> TraceParent {
        self.pipeline.child(&format!("workflow {workflow}")).child(&format!("job {job}"))
    }

    fn begin_job(&mut self, workflow: &str, job: &str, at: u128) {
        let (root, id) = (self.pipeline, self.pipeline.child(&format!("workflow {workflow}")));
        self.begin(&format!("w {workflow}"), id, root, format!("workflow {workflow}"), at, Vec::new());
        let of_job = self.job_id(workflow, job);
        self.begin(&format!("j {workflow} {job}"), of_job, id, format!("job {job}"), at, Vec::new());
    }

    /// The first time counts: a job has many tasks.
    fn begin(
        &mut self,
        key: &str,
        id: TraceParent,
        parent: TraceParent,
        name: String,
        at: u128,
        attributes: Vec<(&'static str, Value)>,
    ) {
        if self.spans.len() >= MOST && !self.spans.contains_key(key) {
            self.dropped += 1;
            return;
        }
        let span =
            || Span { id: id.span_id(), parent: parent.span_id(), name, start: at, end: at, attributes, failed: None };
        self.spans.entry(key.to_owned()).or_insert_with(span);
    }

    fn at(&mut self, key: &str, at: u128) {
        if let Some(span) = self.spans.get_mut(key) {
            (span.start, span.end) = (at, at);
        }
    }

    fn end(&mut self, key: &str, at: u128, failed: Option<String>) {
        if let Some(span) = self.spans.get_mut(key) {
            span.end = at.max(span.start);
            span.failed = failed;
        }
    }

    fn requests(self) -> Vec<Value> {
        if self.dropped > 0 {
            tracing::warn!("{} spans of a pipeline are not exported: it has more than {MOST}.", self.dropped);
        }
        let trace = self.of.trace_id();
        let spans: Vec<Value> = self.spans.into_values().map(|span| span.spelled(&trace)).collect();
        spans.chunks(AT_ONCE).map(request).collect()
    }
}

impl Span {
    /// As OTLP's JSON has it: numbers of 64 bits are texts, an error is 2.
    fn spelled(self, trace: &str) -> Value {
        let attributes: Vec<Value> = self.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
        let status = match &self.failed {
            None => json!({}),
            Some(why) => json!({"code": 2, "message": why}),
        };
        json!({
            "traceId": trace, "spanId": self.id, "parentSpanId": self.parent, "name": self.name, "kind": 1,
            "startTimeUnixNano": self.start.to_string(), "endTimeUnixNano": self.end.to_string(),
            "attributes": attributes, "status": status,
        })
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn request(spans: &[Value]) -> Value {
    json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", &json!("navvy")), attribute("service.version", &json!(env!("CARGO_PKG_VERSION")))]},
        "scopeSpans": [{"scope": {"name": "navvy-processor"}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests;
