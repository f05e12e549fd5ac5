//! What processors of each version have answered, byte by byte: `protocol/recorded/agents-VERSION.jsonl`, written by the
//! processor's test of the same name. Today's agent reads all of it.

use std::path::Path;

use navvy_protocol::processor::v1;
use prost::Message;
use tokio::time::Instant;

use super::claiming::Claimed;

fn unhex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Reads an answer as the agent does.
fn read(method: &str, answer: &[u8]) {
    fn message<M: Message + Default>(answer: &[u8]) -> M {
        M::decode(answer).unwrap()
    }
    match method {
        "Agents/Claim" => {
            let task = message::<v1::ClaimAnswer>(answer).task.unwrap();
            let claimed = Claimed { task, asked: Instant::now() };
            assert!(claimed.lease().as_secs() > 0 && !claimed.name().is_empty());
            let work = claimed.read().unwrap_or_else(|why| panic!("{why}"));
            assert_eq!((work.workflow.as_str(), work.claim.job_name.as_str()), ("main", "unit"));
            assert!(work.checkout.is_some() && work.masked.iter().any(|(name, _)| name == "the task's token"));
        }
        "Agents/Attend" => assert_eq!(message::<v1::Word>(answer).state, "running"),
        "Agents/Record" => assert_eq!(message::<v1::RecordAnswer>(answer).next, 2),
        "Agents/CommitSegments" => assert_eq!(message::<v1::DurableMarks>(answer).marks[0].durable, 14),
        "Agents/Finish" => assert!(message::<v1::FinishAnswer>(answer).complete),
        _ => {}
    }
}

#[test]
fn recorded_answers_of_processors_are_understood() {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/recorded");
    let mut calls = 0;
    for entry in std::fs::read_dir(recordings).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("agents-") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(method) = line["method"].as_str() else { continue };
            let answer = unhex(&line["answered"]);
            read(method, &answer);
            // And with a field of a newer processor.
            read(method, &[&answer[..], &[0xfa, 0x7f, 3], b"new"].concat());
            calls += 1;
        }
    }
    assert!(calls > 10, "{calls}");
}
