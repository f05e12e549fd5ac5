//! A text of tags, sections, escapes and plain pieces in a `run` step: what it becomes is what a naive reader makes of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_config::{Inputs, Source, compile};
use navvy_fuzz::Feed;
use navvy_job::compiled::StepKind;
use navvy_job::pipeline::WorkflowJobKind;

/// Names of parameters with their values as text; truthy but for the empty text, `false` and `0`.
const PARAMETERS: [(&str, &str, &str); 6] = [
    ("text", "string", "some"),
    ("empty", "string", ""),
    ("on", "boolean", "true"),
    ("off", "boolean", "false"),
    ("many", "integer", "12"),
    ("none", "integer", "0"),
];
const PLAIN: [&str; 12] = ["a", " ", ">", "<", "\\", "\n", ">>", "ä", "$(x)", "#", "{{ y }}", "/"];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let mut text = String::from("x");
    while !feed.is_empty() && text.len() < 400 {
        piece(&mut feed, &mut text);
    }
    text.push('x');
    match (naive(&text), compiled(&text)) {
        (Some(expected), Some(found)) => assert_eq!(found, expected, "of {text:?}"),
        (None, None) => {}
        (expected, found) => panic!("{text:?} should be {expected:?} and is {found:?}"),
    }
});

fn piece(feed: &mut Feed<'_>, text: &mut String) {
    let name = |feed: &mut Feed<'_>| PARAMETERS[feed.up_to(PARAMETERS.len() - 1)].0;
    let mark = match feed.byte() % 8 {
        0 => "",
        1 => "#",
        2 => "^",
        3 => "/",
        4 => return text.push_str("\\<<"),
        5 => return text.push_str("<<"),
        _ => return text.push_str(PLAIN[feed.up_to(PLAIN.len() - 1)]),
    };
    let blank = if feed.byte() & 1 == 0 { " " } else { "" };
    *text += &format!("<<{mark}{blank}parameters.{}{blank}>>", name(feed));
}

/// The step's command, if the config compiles.
fn compiled(text: &str) -> Option<String> {
    let declared: String = PARAMETERS
        .iter()
        .map(|(name, kind, value)| {
            let default = if *kind == "string" { format!("{value:?}") } else { (*value).to_owned() };
            format!("{name}: {{type: {kind}, default: {default}}}, ")
        })
        .collect();
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let config = format!(
        "version: 2.1\njobs:\n  build:\n    parameters: {{{declared}}}\n    docker: [{{image: i}}]\n    steps:\n      - run: \"{quoted}\"\n"
    );
    let pipeline = compile(&Source { name: "config.yml", text: &config }, &Inputs::default()).pipeline?;
    let WorkflowJobKind::Build { job } = &pipeline.workflows[0].jobs[0].kind else { panic!("no job") };
    let StepKind::Run(run) = &job.steps[0].kind else { panic!("no run step") };
    Some(run.command.clone())
}

/// From left to right, one tag at a time, sections by looking for their end; `None` where that does not come out.
fn naive(text: &str) -> Option<String> {
    let mut out = String::new();
    let end = read(text, None, &mut out)?;
    (end == text.len()).then_some(out)
}

/// Reads up to the end of `section`; returns how far that was.
fn read(text: &str, section: Option<&str>, out: &mut String) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("\\<<") {
            out.push_str("<<");
            at += 3;
        } else if rest.starts_with("<<") {
            let length = rest[2..].find(">>")?;
            let content = rest[2..2 + length].trim();
            at += length + 4;
            match content.chars().next() {
                Some('/') => return (section == Some(content[1..].trim())).then_some(at),
                Some(mark @ ('#' | '^')) => {
                    let name = content[1..].trim();
                    let mut inner = String::new();
                    at += read(&text[at..], Some(name), &mut inner)?;
                    if is_truthy(name)? == (mark == '#') {
                        out.push_str(&inner);
                    }
                }
                _ => out.push_str(value(content)?),
            }
        } else {
            let c = rest.chars().next()?;
            out.push(c);
            at += c.len_utf8();
        }
    }
    // Text that ends within a section does not come out.
    section.is_none().then_some(at)
}

fn value(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("parameters.")?;
    PARAMETERS.iter().find(|(known, ..)| *known == name).map(|(_, _, value)| *value)
}

fn is_truthy(name: &str) -> Option<bool> {
    value(name).map(|value| !matches!(value, "" | "false" | "0"))
}
