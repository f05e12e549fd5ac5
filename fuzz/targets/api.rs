//! Bodies of the JSON API: any bytes, and a body that is right with something that befell it. What is understood is said again
//! with the same meaning, fields that there are not are refused, and none costs more memory than its length allows.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, mishap};
use navvy_protocol::api::{
    Approve, CancelPipeline, DeployKey, Message, NumberedEvent, Page, Pipeline, PipelineDetail, Problem, Rerun, Submit,
    Submitted, Value,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const BODIES: [&str; 6] = [
    r#"{"config":"version: 2.1","config_name":"c.yml","parameters":{"a":"b"},"workflow":"w","vcs":{"branch":"main"},"contexts":["x"],"tree":"t","orbs":{"a/b@1":"x"},"allow_missing_orbs":true,"traceparent":"00-0-0-01"}"#,
    r#"{"at_once":true}"#,
    r#"{"from_failed":true}"#,
    r#"{"approved":false}"#,
    r#"{"value":"x"}"#,
    r#"{"host":"h","text":"t","md5":"m","sha256":"s"}"#,
];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    match feed.byte() % 2 {
        0 => all(feed.rest()),
        _ => {
            let mut body = BODIES[feed.up_to(BODIES.len() - 1)].as_bytes().to_vec();
            while !feed.is_empty() {
                let joints: Vec<usize> = body
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| matches!(**byte, b'{' | b'}' | b',' | b':' | b'"'))
                    .map(|(at, _)| at)
                    .collect();
                mishap(&mut feed, &mut body, &joints);
            }
            all(&body);
        }
    }
});

fn all(bytes: &[u8]) {
    // What the processor is sent.
    strict::<Submit>(
        bytes,
        &[
            "config",
            "config_name",
            "parameters",
            "workflow",
            "vcs",
            "contexts",
            "tree",
            "orbs",
            "allow_missing_orbs",
            "traceparent",
        ],
    );
    strict::<CancelPipeline>(bytes, &["at_once"]);
    strict::<Rerun>(bytes, &["from_failed"]);
    strict::<Approve>(bytes, &["approved"]);
    same::<Value>(bytes);
    same::<DeployKey>(bytes);
    // What it answers, which may be another's answer.
    same::<Submitted>(bytes);
    same::<PipelineDetail>(bytes);
    same::<Page<Pipeline>>(bytes);
    // A number with a point is read as the nearest one, so that it is not written as it stood.
    drop(serde_json::from_slice::<NumberedEvent>(bytes));
    same::<Message>(bytes);
    same::<Problem>(bytes);
}

/// What is understood is said again with the same meaning. How it is said.
fn same<T: DeserializeOwned + Serialize + PartialEq>(bytes: &[u8]) -> Option<Vec<u8>> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let said = serde_json::to_vec(&read).expect("a body that JSON cannot hold");
    let again: T = serde_json::from_slice(&said).expect("what was written cannot be read");
    assert!(again == read, "a body is written otherwise than it was read");
    Some(said)
}

/// The same for what has these fields and no others.
fn strict<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8], fields: &[&str]) {
    let Some(_said) = same::<T>(bytes) else { return };
    // An array stands for the fields in their order.
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(bytes) else { return };
    for key in object.keys() {
        assert!(fields.contains(&key.as_str()), "{key:?} is passed over: what was meant by it is not done");
    }
}
