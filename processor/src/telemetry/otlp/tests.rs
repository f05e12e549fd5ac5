use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::claims::Room;
use crate::claims::tests::{claims, ending, submit};
use crate::conduct::RerunOf;
use crate::state::tests::sqlite;
use navvy_job::outcome::Verdict;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CONFIG: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  main: {jobs: [unit]}
";

/// A pipeline that failed. The task's id.
async fn pipeline(state: &State, traceparent: &str) -> (String, String) {
    let claims = claims(state);
    let sent = Submit { traceparent: Some(traceparent.to_owned()), ..submit(CONFIG) };
    let submitted = claims.conductor().submit("gh/acme/shop", sent, RerunOf::default(), "me").await.unwrap();
    let taken = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
    let task = taken.claim.task.to_string();
    assert_eq!(
        taken.traceparent,
        TraceParent::read(traceparent).map(|it| it.pipeline(&submitted.id).task(&task).to_string()).unwrap()
    );
    let event = |word: &str, at: u32, more: Value| {
        let mut event = json!({"at_ms": 0, "time": format!("2026-01-02T03:04:0{at}Z"), "event": word, "task": task,
                               "workflow": "main", "job": "unit", "node_index": 0, "node_total": 1});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string().into_bytes()
    };
    let failed = json!({"step": 1, "attempt": 1, "name": "make", "outcome": {"outcome": "exit_code", "code": 2}});
    let events = [
        event("task_started", 1, json!({})),
        event("step_started", 2, json!({"step": 1, "attempt": 1, "name": "make", "kind": "run"})),
        event("step_ended", 3, failed),
        event("task_ended", 4, json!({"verdict": "failed"})),
    ];
    assert_eq!(claims.record(&task, 1, 0, &events).await.unwrap(), 4);
    let verdict = Verdict::Failed { step: 1, name: "make".into() };
    claims.finish(&task, 1, ending(verdict)).await.unwrap();
    (submitted.id, task)
}

fn spans_of(requests: &[Value]) -> Vec<Value> {
    let spans = |request: &Value| request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    requests.iter().flat_map(spans).collect()
}

#[tokio::test]
async fn a_pipeline_has_a_span_for_each_of_its_parts_below_whoever_submitted_it() {
    let (_directory, state) = sqlite().await;
    let (pipeline, task) = pipeline(&state, TRACE).await;
    let spans = spans_of(&spans(&state, &pipeline).await.unwrap());
    let named =
        |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name}: {spans:?}"));
    let (root, workflow, job) = (named("pipeline gh/acme/shop 1"), named("workflow main"), named("job unit"));
    let (of_task, step) = (named("task of unit"), named("make"));
    assert_eq!(spans.len(), 5);
    assert_eq!(root["parentSpanId"], "00f067aa0ba902b7");
    for (child, parent) in [(workflow, root), (job, workflow), (of_task, job), (step, of_task)] {
        assert_eq!(child["parentSpanId"], parent["spanId"]);
        assert_eq!(child["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }
    // What the step was given in its environment.
    let given = TraceParent::read(TRACE).unwrap().pipeline(&pipeline).task(&task).step(1, 1);
    assert_eq!(step["spanId"], given.span_id());
    assert_eq!(step["status"], json!({"code": 2, "message": "exit_code 2"}));
    let length = |span: &Value| {
        let time = |key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
        time("endTimeUnixNano") - time("startTimeUnixNano")
    };
    assert_eq!((length(step), length(of_task)), (1_000_000_000, 3_000_000_000));
}

#[tokio::test]
async fn a_trace_that_nobody_records_is_not_exported() {
    let (_directory, state) = sqlite().await;
    let unsampled = TRACE.replace("-01", "-00");
    let (pipeline, _) = pipeline(&state, &unsampled).await;
    assert_eq!(spans(&state, &pipeline).await.unwrap(), [Value::Null; 0]);
}

#[tokio::test]
async fn a_collector_gets_a_pipeline_s_spans_as_json() {
    let (_directory, state) = sqlite().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, ended) = broadcast::channel(4);
    let exporting = tokio::spawn(export(endpoint, Proxies::default(), state.clone(), ended));
    let (pipeline, _) = pipeline(&state, TRACE).await;
    sender.send(pipeline).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut request, mut some) = (Vec::new(), [0; 4096]);
    let body = loop {
        let length = stream.read(&mut some).await.unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&some[..length]);
        let Some(at) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        if let Ok(body) = serde_json::from_slice::<Value>(&request[at + 4..]) {
            break body;
        }
    };
    assert!(request.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
    assert_eq!(spans_of(&[body]).len(), 5);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    exporting.abort();
}
