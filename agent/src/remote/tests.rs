//! A client and a processor that does not behave.

use std::sync::Arc;
use std::time::Duration;

use navvy_checkout::{Elsewhere, WorkingTree};
use navvy_job::event::examples::{job, node};
use navvy_job::event::{Event, JobEnd, JobSummary, LogEnd, LogOf, Received, Stamped, Summary, TaskRef};
use navvy_job::outcome::{Blame, JobStatus, StepOutcome};
use navvy_output::mask::Masks;
use navvy_protocol::api;

use super::cursor::{Events, Heard, LogStream, Whole};
use super::error::RemoteError;
use super::fake::{Answer, Fake};
use super::relay::{Commands, Relay};
use super::tree;
use crate::bus;
use crate::task::Feed;

fn named(name: &str) -> api::Named {
    api::Named { name: name.to_owned(), created_at: "2026-01-02T03:04:05Z".to_owned() }
}

async fn get(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Result<api::Named, RemoteError> {
    let fake = Fake::start(move |_, _| answer()).await;
    fake.client().get(&["context", "a/b"], &[]).await
}

#[tokio::test]
async fn a_call_carries_the_token_and_its_answer_is_a_value() {
    let fake = Fake::start(|_, _| Answer::json(&named("x"))).await;
    let value: api::Value = api::Value { value: "s".to_owned() };
    let client = fake.client();
    let got: api::Named = client.send(reqwest::Method::PUT, &["context", "a/b"], &value).await.unwrap();
    assert_eq!(got.name, "x");
    let asked = &fake.asked()[0];
    assert_eq!(asked.line, "PUT /api/v2/context/a%2Fb");
    assert!(asked.head.contains("authorization: bearer hunter2\r\n"), "{}", asked.head);
    assert_eq!(asked.body, br#"{"value":"s"}"#);
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_processors_words_or_in_ours() {
    let problem = |hint: Option<&str>, diagnostics: Option<&str>| api::Problem {
        message: "there is no such thing".to_owned(),
        hint: hint.map(str::to_owned),
        diagnostics: diagnostics.map(str::to_owned),
    };
    for status in [400, 401, 403, 404, 409, 500, 503] {
        let said = problem(Some("do this"), None);
        let error = get(move || Answer::Whole(status, serde_json::to_vec(&said).unwrap())).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("there is no such thing", Some("do this")));
        assert_eq!(error.blame(), if status < 500 { Blame::Usage } else { Blame::Infra }, "{status}");
        assert_eq!((error.is_transient(), error.is_absent()), (status >= 500, status == 404));
        for body in ["", "<html><script>alert(1)</script>", r#"{"message":""}"#, "[1]"] {
            let error = get(move || Answer::Whole(status, body.into())).await.unwrap_err();
            let told = error.to_string();
            assert!(told.contains(&format!("answered {status}")) && !told.contains("script"), "{told}");
        }
    }
    let hint = get(|| Answer::Whole(401, Vec::new())).await.unwrap_err().hint().unwrap();
    assert!(hint.contains("navvy login"), "{hint}");
    let said = problem(None, Some("error: config.yml:1"));
    let error = get(move || Answer::Whole(422, serde_json::to_vec(&said).unwrap())).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_and_never_an_empty_one() {
    for body in ["", "null", "{}", "<html>", r#"{"name":1}"#] {
        let error = get(move || Answer::Whole(200, body.into())).await.unwrap_err();
        assert!(matches!(error, RemoteError::Answer { .. }), "{body}: {error:?}");
    }
    let half = br#"{"name":"x","created_at":"t"}"#.to_vec();
    let error = get(move || Answer::Cut(vec![half.clone()])).await.unwrap_err();
    assert!(matches!(error, RemoteError::Cut { .. }), "{error:?}");
    let error = get(|| Answer::Nothing).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    let error = get(|| Answer::Endless(vec![b' '; 1 << 20])).await.unwrap_err();
    assert!(error.to_string().contains("longer than 16 MiB"), "{error}");
    let error = get(|| Answer::Whole(302, Vec::new())).await.unwrap_err();
    assert!(error.to_string().contains("answered 302"), "{error}");
}

/// Line `number` of a stream of events.
fn line(number: u64, event: Event) -> String {
    let stamped = Stamped { at_ms: number, time: format!("2026-01-02T03:04:{:02}Z", number % 60), event };
    let event = serde_json::to_value(&stamped).unwrap();
    serde_json::to_string(&api::NumberedEvent { number, event }).unwrap()
}

fn warning(number: u64) -> String {
    line(number, Event::Warning { task: None, message: number.to_string() })
}

async fn heard(events: &mut Events) -> String {
    match events.next().await.unwrap() {
        Heard::Event { number, event } => match *event {
            Received::Known(stamped) => match stamped.event {
                Event::Warning { message, .. } => format!("{number}:{message}"),
                other => format!("{other:?}"),
            },
            Received::Unknown { event } => format!("{number}?{event}"),
        },
        Heard::Lost(why) => format!("lost: {why}"),
        Heard::Missing { from, to } => format!("missing {from}-{to}"),
    }
}

#[tokio::test]
async fn events_go_on_where_they_were_without_loss_or_repeat() {
    let fake = Fake::start(|asked, nth| {
        assert!(asked.line.ends_with("&follow=true"), "{}", asked.line);
        match nth {
            // Cut in the middle of a line; what is whole counts.
            0 => Answer::Cut(vec![format!("{}\n\n{}\n{}", warning(1), warning(2), &warning(3)[..9]).into()]),
            1 => Answer::Whole(503, Vec::new()),
            // Something was given before, and a line comes in two pieces.
            2 => Answer::Cut(vec![
                format!("{}\n{}", warning(2), &warning(3)[..5]).into(),
                format!("{}\n", &warning(3)[5..]).into(),
            ]),
            // An end, although the pipeline goes on.
            3 => Answer::lines(&[warning(4)]),
            4 => Answer::lines(&[]),
            _ => Answer::lines(&[
                warning(5),
                line(6, Event::StopAsked { at_once: true, jobs_over: false }).replace("stop_asked", "newer"),
            ]),
        }
    })
    .await;
    let mut events = Events::new(fake.client(), "p", false);
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != "6?newer") {
        all.push(heard(&mut events).await);
    }
    let lost: Vec<&String> = all.iter().filter(|it| it.starts_with("lost")).collect();
    assert_eq!(lost.len(), 2, "each time once: {all:?}");
    all.retain(|it| !it.starts_with("lost"));
    assert_eq!(all, ["1:1", "2:2", "3:3", "4:4", "5:5", "6?newer"]);
    let after: Vec<String> =
        fake.lines().iter().map(|line| line.split("after=").nth(1).unwrap().replace("&follow=true", "")).collect();
    assert_eq!(after, ["0", "2", "2", "3", "4", "4"]);
}

#[tokio::test]
async fn a_connection_that_says_nothing_any_more_is_given_up() {
    let fake = Fake::start(|_, nth| match nth {
        0 => Answer::Silent(vec![format!("{}\n", warning(1)).into()]),
        _ => Answer::lines(&[warning(2)]),
    })
    .await;
    let mut events = Events::new(fake.client(), "p", false);
    assert_eq!(heard(&mut events).await, "1:1");
    tokio::time::pause();
    let lost = heard(&mut events).await;
    tokio::time::resume();
    assert!(lost.starts_with("lost: ") && lost.contains("60 seconds"), "{lost}");
    assert_eq!(heard(&mut events).await, "2:2");
}

#[tokio::test]
async fn events_that_a_processor_has_lost_are_told_and_not_passed_over() {
    let fake = Fake::start(|asked, nth| match nth {
        0 => Answer::lines(&[warning(1), warning(3)]),
        // Asked again: it was only slow.
        1 => {
            assert!(asked.line.contains("after=1&"), "{}", asked.line);
            Answer::lines(&[warning(2), warning(3), warning(6)])
        }
        _ if asked.line.contains("after=3&") => Answer::lines(&[warning(6)]),
        _ => Answer::lines(&[warning(6)]),
    })
    .await;
    let mut events = Events::new(fake.client(), "p", false);
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(heard(&mut events).await);
    }
    assert_eq!(all, ["1:1", "2:2", "3:3", "missing 4-5", "6:6"]);
}

#[tokio::test]
async fn what_cannot_be_reached_at_first_or_is_refused_is_not_tried_again() {
    let fake = Fake::start(|_, _| Answer::Whole(503, Vec::new())).await;
    let error = Events::new(fake.client(), "p", false).next().await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    let fake = Fake::start(|_, nth| match nth {
        0 => Answer::lines(&[warning(1)]),
        _ => Answer::Whole(404, Vec::new()),
    })
    .await;
    let mut events = Events::new(fake.client(), "p", true);
    assert_eq!(heard(&mut events).await, "1:1");
    assert!(events.next().await.unwrap_err().is_absent());
    assert_eq!(fake.lines().len(), 2);
}

#[tokio::test]
async fn a_line_without_end_and_a_line_that_is_none_are_refused() {
    let fake = Fake::start(|_, _| Answer::Endless(vec![b'x'; 1 << 20])).await;
    let error = Events::new(fake.client(), "p", true).next().await.unwrap_err();
    assert!(error.to_string().contains("longer than 8 MiB"), "{error}");
    for text in ["<html>", r#"{"number":1}"#, r#"{"number":1,"event":{"at_ms":1}}"#, r#"{"number":-1,"event":{}}"#] {
        let fake = Fake::start(move |_, _| Answer::lines(&[text.to_owned()])).await;
        let error = Events::new(fake.client(), "p", true).next().await.unwrap_err();
        assert!(matches!(error, RemoteError::Answer { .. }), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn a_log_goes_on_where_it_was() {
    let fake = Fake::start(|asked, nth| match nth {
        // Nothing of it has come yet.
        0 => Answer::Whole(404, Vec::new()),
        1 => Answer::Cut(vec![b"abc".to_vec(), b"de".to_vec()]),
        2 => Answer::Nothing,
        _ => {
            let offset: usize = asked.line.split("offset=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
            Answer::Pieces(vec![b"abcdefgh"[offset..].to_vec()])
        }
    })
    .await;
    let mut stream = LogStream::new(fake.client(), "task", "001-1", 0);
    let mut all = Vec::new();
    while stream.offset() < 8 {
        all.extend_from_slice(&stream.next().await.unwrap());
    }
    assert_eq!(all, b"abcdefgh");
    assert_eq!(fake.lines()[3], "GET /api/v2/task/task/log/001-1?offset=5&follow=true");
}

#[tokio::test]
async fn a_whole_log_ends_at_its_end_and_is_gone_on_with_after_a_cut() {
    let fake = Fake::start(|_, nth| match nth {
        0 => Answer::Cut(vec![b"abc".to_vec()]),
        _ => Answer::Pieces(vec![b"de".to_vec()]),
    })
    .await;
    let mut whole = Whole::new(fake.client(), "task", "001-1");
    let mut all = Vec::new();
    while let Some(bytes) = whole.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!((all.as_slice(), whole.offset()), (b"abcde".as_slice(), 5));
    assert_eq!(fake.lines()[1], "GET /api/v2/task/task/log/001-1?offset=3&follow=false");
}

/// A pipeline of one job with one step that writes `output`, as a processor tells of it.
fn story(task: &TaskRef, output: &[u8], late: usize, outcome: StepOutcome) -> Vec<String> {
    let bytes = output.len() as u64;
    let path = "/spool/unit/002-1.log";
    let ran = JobEnd::Ran { status: JobStatus::Failed, duration_ms: 1, failed_step: None, infra: None };
    let unit = JobSummary {
        job: job("unit"),
        end: ran,
        skipped_steps: 0,
        skipped: Default::default(),
        warnings: 0,
        log: Some(path.into()),
        other_logs: vec!["/elsewhere".into()],
        held: Vec::new(),
    };
    let summary = Summary {
        exit_code: 1,
        duration_ms: 1,
        jobs: vec![unit],
        logs: "https://ci/api/v2/pipeline/p".into(),
        fidelity: Vec::new(),
        warnings: Vec::new(),
        leftovers: Vec::new(),
        contexts_given: Vec::new(),
        env_files_given: Vec::new(),
        secrets: None,
    };
    let events = vec![
        Event::RunStarted { logs: "https://ci".into(), config: "config.yml".into(), jobs: vec![job("unit")] },
        Event::StepStarted {
            task: task.clone(),
            step: 2,
            attempt: 1,
            name: "Test".to_owned(),
            kind: "run".to_owned(),
            background: false,
            header: None,
            log: path.into(),
        },
        Event::StepEnded {
            task: task.clone(),
            step: 2,
            attempt: 1,
            name: "Test".to_owned(),
            outcome,
            duration_ms: 1,
            trailers: Vec::new(),
            bytes: bytes - late as u64,
            sha256: String::new(),
            origin: None,
            will_rerun: false,
        },
        Event::TaskLogs {
            task: task.clone(),
            logs: vec![LogEnd { of: LogOf::Step { step: 2, attempt: 1 }, log: path.into(), bytes, sha256: None }],
        },
        Event::RunEnded(Box::new(summary)),
    ];
    (1..).zip(events).map(|(number, event)| line(number, event)).collect()
}

/// What a view gets: events by their names, output as it is.
async fn relayed(fake: &Fake, feed: Feed, commands: bool) -> (u8, Vec<Event>) {
    let (bus, events) = bus::channel(Masks::new(&[]));
    let mut relay = Relay::new(&fake.client(), "p", false, bus, feed);
    if commands {
        relay = relay.with_commands(Commands { logs: "navvy logs --remote".to_owned(), pipeline: "p".to_owned() });
    }
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        loop {
            match events.next(Duration::from_secs(60)) {
                Ok(Some(stamped)) => all.push(stamped.event),
                Ok(None) => panic!("nothing comes: {all:?}"),
                Err(_) => return all,
            }
        }
    });
    let code = relay.run().await.unwrap();
    (code, tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap())
}

fn outline(events: &[Event]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for event in events {
        match event {
            Event::Output { step, stream, bytes, .. } => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                match all.last_mut().filter(|last| last.starts_with('>')) {
                    Some(last) => last.push_str(&text),
                    None => all.push(format!(">{step} {stream} {text}")),
                }
            }
            Event::Warning { message, .. } => all.push(format!("warning: {message}")),
            other => all.push(serde_json::to_value(other).unwrap()["event"].as_str().unwrap().to_owned()),
        }
    }
    all
}

fn processor(story: Vec<String>, output: &'static [u8]) -> impl Fn(&super::fake::Asked, usize) -> Answer {
    move |asked, nth| {
        if asked.line.contains("/events?") {
            return Answer::lines(&story);
        }
        let offset: usize = asked.line.split("offset=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        let rest = &output[offset..];
        // Every other time it breaks after a few bytes.
        match nth % 2 {
            0 => Answer::Cut(vec![rest[..rest.len().min(3)].to_vec()]),
            _ => Answer::Pieces(rest.chunks(4).map(<[u8]>::to_vec).collect()),
        }
    }
}

#[tokio::test]
async fn output_comes_before_the_end_of_its_step_and_what_came_later_before_the_tasks_end() {
    let task = node("unit", 0, 1);
    let story = story(&task, b"one\ntwo\nlate\n", 5, StepOutcome::Success);
    let fake = Fake::start(processor(story, b"one\ntwo\nlate\n")).await;
    let (code, events) = relayed(&fake, Feed::All, false).await;
    assert_eq!(code, 1);
    let expected = [
        "run_started",
        "step_started",
        ">2 stdout one\ntwo\n",
        "step_ended",
        ">2 stdout late\n",
        "task_logs",
        "run_ended",
    ];
    assert_eq!(outline(&events), expected);
    assert!(
        fake.lines()
            .iter()
            .all(|line| !line.contains("/log/") || line.contains(&format!("/task/{}/log/002-1?", task.task)))
    );
}

#[tokio::test]
async fn a_view_of_tails_gets_that_of_a_step_that_failed_and_one_of_nothing_nothing() {
    let task = node("unit", 0, 1);
    let failed = || story(&task, b"one\ntwo\n", 0, StepOutcome::ExitCode { code: 1 });
    let fake = Fake::start(processor(failed(), b"one\ntwo\n")).await;
    let (_, events) = relayed(&fake, Feed::Tail, false).await;
    assert_eq!(outline(&events)[1..4], ["step_started", ">2 stdout one\ntwo\n", "step_ended"]);
    let fake = Fake::start(processor(failed(), b"one\ntwo\n")).await;
    let (_, events) = relayed(&fake, Feed::Nothing, false).await;
    assert_eq!(outline(&events)[1..3], ["step_started", "step_ended"]);
    assert_eq!(fake.lines().len(), 1);
    let passed = story(&task, b"one\ntwo\n", 0, StepOutcome::Success);
    let fake = Fake::start(processor(passed, b"one\ntwo\n")).await;
    let (_, events) = relayed(&fake, Feed::Tail, false).await;
    assert_eq!(outline(&events)[1..3], ["step_started", "step_ended"]);
}

#[tokio::test]
async fn output_that_a_processor_sends_among_the_events_does_not_come_twice() {
    let task = node("unit", 0, 1);
    let mut story = story(&task, b"one\n", 0, StepOutcome::Success);
    let extra = Event::Output { task, step: 2, stream: "stdout".to_owned(), bytes: b"one\n".to_vec() };
    story.insert(2, line(3, extra));
    for (at, text) in story.iter_mut().enumerate().skip(3) {
        *text = text.replacen(&format!("\"number\":{at}"), &format!("\"number\":{}", at + 1), 1);
    }
    let fake = Fake::start(processor(story, b"one\n")).await;
    let (_, events) = relayed(&fake, Feed::All, false).await;
    assert_eq!(outline(&events)[1..4], ["step_started", ">2 stdout one\n", "step_ended"]);
}

#[tokio::test]
async fn people_are_told_commands_in_place_of_paths_of_other_machines() {
    let task = node("unit", 0, 1);
    let fake = Fake::start(processor(story(&task, b"one\n", 0, StepOutcome::Success), b"one\n")).await;
    let (_, events) = relayed(&fake, Feed::Nothing, true).await;
    let log = format!("navvy logs --remote {} 2-1", task.task);
    for event in events {
        match event {
            Event::RunStarted { logs, .. } => assert_eq!(logs.to_str(), Some("navvy logs --remote --run p")),
            Event::StepStarted { log: shown, .. } => assert_eq!(shown.to_str(), Some(log.as_str())),
            Event::RunEnded(summary) => {
                assert_eq!(summary.logs.to_str(), Some("navvy logs --remote --run p"));
                assert_eq!(summary.jobs[0].log.as_ref().and_then(|log| log.to_str()), Some(log.as_str()));
                assert!(summary.jobs[0].other_logs.is_empty(), "a path that nobody knows is not shown");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn that_what_runs_is_to_stop_is_told_once_whoever_hears_it() {
    let stop = |number, at_once| line(number, Event::StopAsked { at_once, jobs_over: false });
    let end = story(&node("unit", 0, 1), b"", 0, StepOutcome::Success).pop().unwrap();
    let end = end.replacen("\"number\":5", "\"number\":6", 1);
    let story = vec![stop(1, false), stop(2, false), stop(3, true), stop(4, false), stop(5, true), end];
    let fake = Fake::start(processor(story, b"")).await;
    let (_, events) = relayed(&fake, Feed::All, false).await;
    assert_eq!(outline(&events), ["stop_asked", "stop_asked", "run_ended"]);
}

#[tokio::test]
async fn an_end_that_this_version_does_not_know_is_an_error() {
    let end = story(&node("unit", 0, 1), b"one\n", 0, StepOutcome::Success).pop().unwrap();
    let newer = end.replace("\"exit_code\":1", "\"exit_code\":\"fine\"").replacen("\"number\":5", "\"number\":1", 1);
    let fake = Fake::start(move |_, _| Answer::lines(std::slice::from_ref(&newer))).await;
    let (bus, _events) = bus::channel(Masks::new(&[]));
    let error = Relay::new(&fake.client(), "p", false, bus, Feed::All).run().await.unwrap_err();
    assert!(error.to_string().contains("this program is older"), "{error}");
}

fn project() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.txt"), "hello").unwrap();
    let noise: Vec<u8> = (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(directory.path().join("large"), noise).unwrap();
    directory
}

#[tokio::test]
async fn a_tree_is_sent_as_a_compressed_tar() {
    let directory = project();
    let tree = Arc::new(WorkingTree::open(directory.path(), Elsewhere::Refused).unwrap());
    let fake = Fake::start(|_, _| Answer::json(&api::Tree { tree: "t1".to_owned() })).await;
    let (sent, report) = tree::send(&fake.client(), tree).await.unwrap();
    assert_eq!((sent.tree.as_str(), report.files), ("t1", 2));
    let asked = &fake.asked()[0];
    assert_eq!(asked.line, "POST /api/v2/tree");
    assert!(asked.head.contains("content-type: application/zstd"), "{}", asked.head);
    let mut unpacked = Vec::new();
    let mut rest = asked.body.as_slice();
    while !rest.is_empty() {
        let length = zstd_safe::find_frame_compressed_size(rest).unwrap();
        let (frame, after) = rest.split_at(length);
        let mut plain = Vec::with_capacity(1 << 20);
        zstd_safe::decompress(&mut plain, frame).unwrap();
        unpacked.extend_from_slice(&plain);
        rest = after;
    }
    let mut archive = tar::Archive::new(unpacked.as_slice());
    let sizes: Vec<(String, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path().unwrap().display().to_string(), entry.size()))
        .collect();
    assert!(sizes.contains(&("a.txt".to_owned(), 5)) && sizes.contains(&("large".to_owned(), 3 << 20)), "{sizes:?}");
}

#[tokio::test]
async fn a_tree_that_is_refused_in_the_middle_is_told_in_the_processors_words() {
    let directory = project();
    let tree = Arc::new(WorkingTree::open(directory.path(), Elsewhere::Refused).unwrap());
    let fake = Fake::start(|_, _| {
        let problem = api::Problem { message: "no room".to_owned(), hint: None, diagnostics: None };
        Answer::Whole(507, serde_json::to_vec(&problem).unwrap())
    })
    .await;
    let error = tree::send(&fake.client(), tree).await.unwrap_err();
    assert_eq!(error.to_string(), "no room");
}
