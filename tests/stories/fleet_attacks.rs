//! Strangers at a processor's ports, and hostile names and output: people and agents are served all the same.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use navvy_tests::{Answer, Bench, Crowd, End, Ending, Fleet, Program, eventually};

const LIMIT: Duration = Duration::from_secs(120);
/// A connection that says too little is closed within ten seconds; some more for a machine that is busy.
const CLOSED: Duration = Duration::from_secs(40);
/// Of a processor that thousands of strangers hold on to.
const MOST_MEBIBYTES: u64 = 300;

const SMALL: &str = r#"
version: 2.1
jobs:
  small:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: {name: says, command: echo here}}]
workflows:
  ci: {jobs: [small]}
"#;

fn people(fleet: &Fleet<'_>) -> String {
    fleet.url.trim_start_matches("http://").to_owned()
}

/// A pipeline is submitted and carried out.
#[track_caller]
fn works(fleet: &Fleet<'_>) -> (String, String) {
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    let task = fleet.task(&pipeline, "small");
    (pipeline, task)
}

#[track_caller]
fn ends(fleet: &mut Fleet<'_>, (pipeline, task): &(String, String)) {
    fleet.has_ended(End::Passed, &Ending { pipeline, task, job: "small", log: "001-1", printed: b"here\n" });
    assert!(!fleet.said_before().contains("panicked"), "{}", fleet.said_before());
}

/// So many at each port, one crowd after the other.
#[track_caller]
fn strangers_who_say_nothing(each: usize, crowds: usize) {
    let bench = Bench::on_this_machine();
    bench.config(SMALL).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let mut done = None;
    for _ in 0..crowds {
        let _there = [Crowd::of(each, &people(&fleet), b""), Crowd::of(each, &fleet.agents, b"")];
        done = Some(works(&fleet));
        let memory = fleet.processor().peak_mebibytes();
        assert!(memory < MOST_MEBIBYTES, "{memory} MiB for {each} silent connections at each port");
    }
    ends(&mut fleet, &done.expect("a crowd"));
}

#[test]
fn thousands_of_connections_that_say_nothing_keep_nobody_out() {
    strangers_who_say_nothing(9_500, 1);
}

/// As many at a time as a process may have; each port has places for fewer.
#[test]
#[ignore = "takes minutes: scripts/soak fleet"]
fn a_hundred_thousand_connections_that_say_nothing_keep_nobody_out() {
    strangers_who_say_nothing(9_500, 6);
}

/// Half a head, half a preface, half a body: each is closed in time, also where HTTP itself knows no deadline.
#[test]
fn connections_that_say_too_little_are_closed() {
    let bench = Bench::on_this_machine();
    let mut fleet = Fleet::start(&bench);
    let (people, agents) = (people(&fleet), fleet.agents.clone());
    let mut crowds = [
        ("half a head", Crowd::of(20, &people, b"GET /healthz HTTP/1.1\r\nhost: here\r\nx-slow: lo")),
        ("a request, and then nothing", Crowd::of(20, &people, b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n")),
        (
            "half a body without a token",
            Crowd::of(20, &people, b"POST /api/v2/tree HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n\r\nab"),
        ),
        ("half a preface", Crowd::of(20, &agents, b"PRI * HTTP/2.0\r\n\r\nSM")),
        ("HTTP/1 to agents", Crowd::of(20, &agents, b"GET / HTTP/1.1\r\n")),
    ];
    for (what, crowd) in &mut crowds {
        assert_eq!(crowd.closed_within(CLOSED), 20, "{what}");
    }
    assert_eq!(fleet.get("/healthz").as_deref(), Ok(&b"alive\n"[..]));
    assert!(fleet.processor().peak_mebibytes() < MOST_MEBIBYTES);
}

#[test]
fn noise_at_both_ports_harms_nobody() {
    let bench = Bench::on_this_machine();
    bench.config(SMALL).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let mut noise = vec![0; 64 << 10];
    let mut random = fs::File::open("/dev/urandom").expect("noise");
    for _ in 0..50 {
        for port in [people(&fleet), fleet.agents.clone()] {
            random.read_exact(&mut noise).expect("noise");
            let length = usize::from(u16::from_le_bytes([noise[0], noise[1]])) + 1;
            drop(Crowd::of(1, &port, &noise[..length]));
            // A good beginning, and noise behind it.
            drop(Crowd::of(1, &port, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &noise[..length]].concat()));
            drop(Crowd::of(1, &port, &[b"POST /api/v2/tree HTTP/1.1\r\n", &noise[..length]].concat()));
        }
    }
    let done = works(&fleet);
    ends(&mut fleet, &done);
}

/// Of the answer to these bytes, of which the other side may not take all.
#[track_caller]
fn first_line(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(CLOSED)).expect("a limit");
    stream.write_all(request).ok();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while answer.last() != Some(&b'\n') && stream.read(&mut byte).is_ok_and(|length| length > 0) {
        answer.extend(byte);
    }
    String::from_utf8_lossy(&answer).trim_end().to_owned()
}

/// The HTTP status, by curl with these words.
#[track_caller]
fn status(words: &[&str], input: Vec<u8>) -> String {
    let base = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "60"];
    Program::new("curl").args(base).args(words).input(input).run().stdout()
}

#[test]
fn heads_bodies_and_frames_over_their_caps_are_refused_and_those_at_them_are_not() {
    let bench = Bench::on_this_machine();
    let mut fleet = Fleet::start(&bench);
    let url = |path: &str| format!("{}{path}", fleet.url);
    let asks = |path: &str, header: usize| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nx-long: {}\r\n\r\n", "a".repeat(header));
        first_line(&people(&fleet), request.as_bytes())
    };
    assert_eq!(asks("/healthz", 32 << 10), "HTTP/1.1 200 OK");
    assert!(asks("/healthz", 512 << 10).starts_with("HTTP/1.1 431 "));
    let long = asks(&format!("/{}", "a".repeat(512 << 10)), 1);
    assert!(long.starts_with("HTTP/1.1 414 ") || long.starts_with("HTTP/1.1 431 "), "{long}");
    let token = fleet.admin_header();
    let submit = url("/api/v2/project/gh%2Facme%2Fshop/pipeline");
    let json = ["--header", "content-type: application/json", "--data-binary", "@-", &submit];
    // A config that is one long comment: understood as far as its size goes, and full of mistakes then.
    let body = |bytes: usize| format!(r#"{{"config":"{}"}}"#, "#".repeat(bytes)).into_bytes();
    let with_token = [&["--header", &token], &json[..]].concat();
    assert_eq!(status(&with_token, body(33 << 20)), "413");
    assert_eq!(status(&with_token, body(1 << 20)), "422");
    assert_eq!(status(&json, body(33 << 20)), "401", "nothing is read for a stranger");
    // A frame of gRPC: its length in front of it.
    let claim = format!("http://{}/navvy.processor.v1.Agents/Claim", fleet.agents);
    let grpc =
        ["--http2-prior-knowledge", "--header", "content-type: application/grpc", "--data-binary", "@-", "--include"];
    let code = |length: u32, bytes: usize| {
        let frame = [&[0][..], &length.to_be_bytes(), &vec![0; bytes]].concat();
        let ask =
            || Program::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(grpc).args([&claim]);
        // The answer may come, and the stream be closed, before curl has sent its frame: then it can be an error to curl.
        let mut told = String::new();
        for _ in 0..5 {
            let said = ask().input(frame.clone()).run();
            told = format!("{}{}", said.stdout().to_lowercase(), said.stderr);
            if let Some(code) = told.lines().find_map(|line| line.strip_prefix("grpc-status:")) {
                return code.trim().to_owned();
            }
        }
        told
    };
    assert_eq!(code(0, 0), "16", "an empty message, and no token: UNAUTHENTICATED");
    for length in [u32::MAX, 64 << 20, 8 << 20] {
        assert_eq!(
            code(length, 1000),
            "16",
            "a message that is too long, or not whole: nothing of it is read for a stranger"
        );
    }
    assert!(fleet.processor().peak_mebibytes() < MOST_MEBIBYTES);
    assert_eq!(fleet.get("/healthz").as_deref(), Ok(&b"alive\n"[..]));
}

/// What a terminal would obey, and what a browser would.
const EVIL: &str = "\u{1b}]0;taken\u{7}\u{1b}[2J\u{9b}31m<script>alert(1)</script>\u{202e}";

#[track_caller]
fn is_harmless(what: &str, answer: &Answer) {
    // Programs that read JSON get texts as they are, but for what a terminal obeys.
    let deceives = |c: char| c == '\u{202e}' && !what.contains("--json");
    for (stream, text) in [("stdout", answer.stdout()), ("stderr", answer.stderr.clone())] {
        // Colours are let through to a terminal.
        let text = text.replace("\u{1b}[31m", "");
        let obeyed = text.chars().find(|c| (c.is_control() && !matches!(c, '\n' | '\t' | '\r')) || deceives(*c));
        assert_eq!(obeyed, None, "{what}, {stream}: {text:?}");
    }
}

#[test]
fn escapes_and_html_in_names_and_logs_are_shown_and_not_obeyed() {
    let bench = Bench::on_this_machine();
    let evil = serde_json::to_string(EVIL).expect("JSON, which YAML takes");
    bench.config(&format!(
        r#"
version: 2.1
parameters: {{word: {{type: string, default: {evil}}}}}
jobs:
  small:
    docker: [{{image: navvy/base:bookworm}}]
    steps:
      - run: {{name: {evil}, command: "printf '\\033]0;taken\\007\\033[2J\\302\\233<script>%s\\n' '<< pipeline.parameters.word >>'"}}
      - run: "mkdir -p /tmp/a && touch \"/tmp/a/$(printf 'x\\033[2J<b>')\""
      - store_artifacts: {{path: /tmp/a, destination: {evil}}}
workflows:
  ci: {{jobs: [small]}}
"#
    ));
    bench.commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree", "--branch", EVIL, "-p", &format!("word={EVIL}")]);
    let end = fleet.end_of(&pipeline, LIMIT);
    let task = fleet.task(&pipeline, "small");
    let log = String::from_utf8_lossy(&fleet.log(&task, "001-1")).into_owned();
    assert!(log.contains("\u{1b}]0;taken\u{7}"), "a log is kept as it was written: {log:?}");
    let asked: [&[&str]; 8] = [
        &["follow", &pipeline, "--plain", "--verbose"],
        &["follow", &pipeline, "--json"],
        &["pipelines", "ls"],
        &["pipelines", "ls", "--json"],
        &["pipelines", "show", &pipeline],
        &["pipelines", "show", &pipeline, "--json"],
        &["logs", "--remote", &task],
        &["logs", "--remote", "--run", &pipeline],
    ];
    for words in asked {
        // A pipe gets a log as it was written; a terminal does not.
        let answer = if words[0] == "logs" { bench.on_terminal(words, "") } else { fleet.navvy(words) };
        is_harmless(&words.join(" "), &answer);
    }
    assert_eq!(end, "success");
    // No browser takes any of it for a page.
    for path in ["/api/v2/pipeline", &format!("/api/v2/pipeline/{pipeline}"), &format!("/api/v2/task/{task}/log/001-1")]
    {
        let head = fleet.head(path).to_lowercase();
        assert!(head.contains("x-content-type-options: nosniff") && !head.contains("text/html"), "{path}: {head}");
    }
}

const SLOW: &str = r#"
version: 2.1
jobs:
  small:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: {name: says, command: "echo here; until [ -e /tmp/go ]; do sleep 0.05; done"}}]
workflows:
  ci: {jobs: [small]}
"#;

/// Who is second is told so, and carries out nothing.
#[track_caller]
fn one_of_two_carries_out(same_token: bool) {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "small");
    let first = fleet.launch_token(&task);
    let second = if same_token { first.clone() } else { fleet.launch_token(&task) };
    let mut agents = [fleet.agent(&task, &first), fleet.agent(&task, &second)];
    // The winner's job lives until the other one has come.
    let refused = |said: &str| said.contains("is taken") || said.contains("another agent has");
    eventually("the word that one is second", LIMIT, || {
        agents.iter().any(|agent| refused(&agent.said())).then_some(())
    });
    fleet.has_shown(&task, "001-1", "here\n");
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]).succeeded();
    let mut codes = agents.each_mut().map(|agent| agent.end(LIMIT));
    codes.sort();
    let said: Vec<String> = agents.iter().map(|agent| agent.said()).collect();
    assert_eq!(codes, [Some(0), Some(3)], "{said:?}");
    assert!(said.iter().any(|said| refused(said)), "{said:?}");
    // Neither token is good for anything any more.
    for token in [first, second] {
        let mut late = fleet.agent(&task, &token);
        assert_eq!(late.end(LIMIT), Some(3), "{}", late.said());
        assert!(!late.said().contains(&token), "the token is shown");
    }
    ends(&mut fleet, &(pipeline, task));
}

#[test]
fn of_two_agents_that_use_one_launch_token_at_once_one_carries_out() {
    one_of_two_carries_out(true);
}

#[test]
fn of_two_agents_that_are_launched_for_one_task_at_once_one_carries_out() {
    one_of_two_carries_out(false);
}

/// A token that was used up is as unknown as any other, whoever brings it.
#[test]
fn a_task_that_ends_takes_its_token_with_it() {
    let bench = Bench::on_this_machine();
    bench.config(SMALL).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "small");
    let token = fleet.launch_token(&task);
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    let mut late = fleet.agent(&task, &token);
    assert_eq!(late.end(LIMIT), Some(3), "{}", late.said());
    eventually("nothing of it", LIMIT, || bench.docker().containers_of(&task).is_empty().then_some(()));
}
