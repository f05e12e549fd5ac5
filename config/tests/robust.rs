//! No text makes the compiler panic, hang or forget to say what is wrong.

use std::sync::Arc;

use navvy_config::{
    Diagnostic, File, Inputs, NoOrb, OrbReference, OrbSource, OrbText, Outcome, Severity, Source, compile, compile_orb,
    compile_whole, process, render,
};
use proptest::prelude::*;

const SAMPLE: &str = r#"version: 2.1
parameters:
  deploy: {type: boolean, default: false}
  tag: {type: string, default: "v << pipeline.number >>"}
base: &base
  docker:
    - image: cimg/base:<< parameters.tag >>
      environment: [A=b, {C: 1}]
  environment: {X: "<< pipeline.id >>"}
executors:
  box: {<<: *base, parameters: {tag: {type: enum, enum: [a, b], default: a}}}
orbs:
  inner:
    commands:
      say: {parameters: {what: {type: string}}, steps: [{run: "echo << parameters.what >>"}]}
commands:
  wrap:
    parameters:
      then: {type: steps, default: []}
      loud: {type: boolean, default: no}
    steps:
      - when:
          condition: {and: [<< parameters.loud >>, {not: {equal: [main, << pipeline.git.branch >>]}}]}
          steps: << parameters.then >>
      - steps: << parameters.then >>
jobs:
  build: &build
    parameters: {e: {type: executor, default: box}}
    executor: << parameters.e >>
    parallelism: 2
    steps:
      - checkout
      - inner/say: {what: "<<# pipeline.number >>x<</ pipeline.number >>"}
      - wrap: {then: [{run: {command: "cat \\<<EOF", no_output_timeout: 10m}}], loud: on}
      - save_cache: {key: k, paths: [a]}
  test: {<<: *build, resource_class: large}
workflows:
  main:
    when: pipeline.git.branch starts-with "m" or pipeline.parameters.deploy
    jobs:
      - build: {matrix: {parameters: {e: [box]}, alias: all}}
      - test: {requires: [all: [success, failed]], filters: {branches: {only: /m.*/}}}
      - hold: {type: approval, requires: [test]}
"#;

/// Words that mean something in one place or another.
const WORDS: [&str; 24] = [
    "<<",
    ">>",
    "\\<<",
    "<< parameters.x >>",
    "*base",
    "&base ",
    "<<: *base",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "  ",
    "when",
    "matrix",
    "requires",
    "|",
    "ä",
    "\t",
    "'",
    "\"",
    "null",
];

fn survives(text: &str) -> bool {
    let source = Source { name: "config.yml", text };
    let outcome = compile(&source, &Inputs::default());
    let rendered = render(&source, &outcome.diagnostics);
    // Nothing is refused without a word, and every place lies in the text.
    let placed = outcome.diagnostics.iter().all(|told| text.get(told.span.start..told.span.end).is_some());
    placed && (outcome.pipeline.is_some() || !rendered.is_empty()) && tolerance_hides_nothing(&source, &outcome)
}

/// Where mistakes of what nothing uses are warnings, no pipeline is another one, and none comes with an error.
fn tolerance_hides_nothing(source: &Source<'_>, strict: &Outcome) -> bool {
    let inputs = Inputs { tolerate_unreached: true, ..Inputs::default() };
    let tolerant = compile(source, &inputs);
    let is_refused = tolerant.diagnostics.iter().any(|told| told.severity == Severity::Error);
    let whole = compile_whole(source, &inputs);
    let written = process(source, &inputs, true);
    let agree = [whole.pipeline.is_none(), written.text.is_none(), tolerant.pipeline.is_none()];
    let same = [&whole, &written.outcome].iter().all(|other| other.diagnostics == tolerant.diagnostics);
    agree == [is_refused; 3] && same && (strict.pipeline.is_none() || strict.pipeline == tolerant.pipeline)
}

#[test]
fn the_sample_compiles() {
    let source = Source { name: "config.yml", text: SAMPLE };
    let outcome = compile(&source, &Inputs::default());
    assert!(outcome.pipeline.is_some(), "{}", render(&source, &outcome.diagnostics));
}

#[test]
fn commands_that_double_each_other_are_bounded() {
    let mut text = String::from("version: 2.1\ncommands:\n  c0: {steps: [{run: x}]}\n");
    for level in 1..40 {
        text += &format!("  c{level}: {{steps: [c{0}, c{0}]}}\n", level - 1);
    }
    text += "jobs:\n  build: {docker: [{image: i}], steps: [c39]}\n";
    assert!(survives(&text));
}

#[test]
fn texts_that_double_each_other_are_bounded() {
    let mut text = String::from(
        "version: 2.1\ncommands:\n  c0: {parameters: {p: {type: string}}, steps: [{run: << parameters.p >>}]}\n",
    );
    for level in 1..60 {
        text += &format!(
            "  c{level}: {{parameters: {{p: {{type: string}}}}, steps: [{{c{}: {{p: << parameters.p >>+<< parameters.p >>}}}}]}}\n",
            level - 1
        );
    }
    text += "jobs:\n  build: {docker: [{image: i}], steps: [{c59: {p: x}}]}\n";
    assert!(survives(&text));
}

#[test]
fn a_matrix_of_millions_is_refused() {
    let axes: Vec<String> = (0..12).map(|axis| format!("p{axis}: [a, b, c, d, e]")).collect();
    let text = format!(
        "version: 2.1\njobs:\n  b: {{docker: [{{image: i}}], steps: [checkout]}}\nworkflows:\n  w:\n    jobs:\n      - b: {{matrix: {{parameters: {{{}}}}}}}\n",
        axes.join(", ")
    );
    assert!(survives(&text));
}

proptest! {
    #[test]
    fn mutations_never_panic(edits in prop::collection::vec((0..SAMPLE.len(), 0_usize..12, 0..WORDS.len()), 1..6)) {
        let mut text = SAMPLE.to_owned();
        for (at, cut, word) in edits {
            let at = text.floor_char_boundary(at.min(text.len()));
            let end = text.ceil_char_boundary((at + cut).min(text.len()));
            text.replace_range(at..end, WORDS[word]);
        }
        prop_assert!(survives(&text), "{text}");
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        prop_assert!(survives(&text), "{text}");
    }

    #[test]
    fn arbitrary_commands_never_panic(command in "[a-z<>#^/\\\\ .\"]{0,60}") {
        let text = format!("version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n    steps:\n      - run: |\n          x{command}\n");
        prop_assert!(survives(&text), "{text}");
    }

    #[test]
    fn unclosed_tags_are_always_refused(before in "[a-z ]{0,10}", after in "[a-z ]{0,20}") {
        let text = format!("version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n    steps:\n      - run: |\n          x{before}<<{after}\n");
        let outcome = compile(&Source { name: "config.yml", text: &text }, &Inputs::default());
        prop_assert!(outcome.diagnostics.iter().any(|told| told.code == "unclosed-template"));
    }
}

#[test]
fn ten_thousand_mistakes_are_bounded() {
    let tags: String = (0..10_000).map(|n| format!("          << p{n}.x >>\n")).collect();
    let head = "version: 2.1\njobs:\n  build:\n    docker: [{image: i}]\n    steps:\n      - run: |\n";
    assert!(survives(&format!("{head}{tags}")));
    let jobs: String = (0..10_000).map(|n| format!("      - b: {{name: b{n}, requires: [c{n}]}}\n")).collect();
    let head = "version: 2.1\njobs:\n  b: {docker: [{image: i}], steps: [checkout]}\nworkflows:\n  w:\n    jobs:\n";
    assert!(survives(&format!("{head}{jobs}")));
}

/// Answers every reference with one text.
#[derive(Debug)]
struct Everything(Arc<str>);

impl OrbSource for Everything {
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
        let file = File { name: reference.to_string(), text: self.0.clone() };
        Ok(OrbText { resolved: reference.clone(), file })
    }
}

const ORB: &str = r#"version: 2.1
orbs: {again: "a/again@<< pipeline.number >>", other: a/other@2}
executors: {box: {parameters: {tag: {type: string, default: x}}, docker: [{image: "i:<< parameters.tag >>"}]}}
commands:
  say: {parameters: {what: {type: steps, default: []}}, steps: [{run: "ü << pipeline.git.branch >>"}, other/say, {steps: << parameters.what >>}]}
jobs:
  test: {executor: box, steps: [checkout, {say: {what: [again/say]}}]}
"#;

const USES: &str = r#"version: 2.1
orbs: {o: a/o@1}
jobs: {build: {executor: o/box, steps: [{o/say: {what: [o/say]}}]}}
workflows: {w: {jobs: [build, {o/test: {pre-steps: [o/say]}}]}}
"#;

proptest! {
    #[test]
    fn mutated_orbs_never_panic(edits in prop::collection::vec((0..ORB.len(), 0_usize..12, 0..WORDS.len()), 0..6)) {
        let mut text = ORB.to_owned();
        for (at, cut, word) in edits {
            let at = text.floor_char_boundary(at.min(text.len()));
            let end = text.ceil_char_boundary((at + cut).min(text.len()));
            text.replace_range(at..end, WORDS[word]);
        }
        let source = Source { name: "config.yml", text: USES };
        let inputs = Inputs { orbs: Some(Arc::new(Everything(text.as_str().into()))), ..Inputs::default() };
        let outcome = compile(&source, &inputs);
        let text_of = |file: u32| if file == 0 { Some(USES) } else { outcome.files.get(file as usize - 1).map(|f| &*f.text) };
        let placed = |told: &Diagnostic| text_of(told.span.file).is_some_and(|text| text.get(told.span.start..told.span.end).is_some());
        prop_assert!(outcome.diagnostics.iter().all(placed), "{}", outcome.render(&source));
        prop_assert!(outcome.pipeline.is_some() || !outcome.diagnostics.is_empty());
        let alone = Source { name: "orb.yml", text: &text };
        let checked = compile_orb(&alone, &inputs);
        prop_assert!(checked.pipeline.is_some() || !checked.render(&alone).is_empty());
    }
}

/// Every text of up to five of these.
fn short_texts() -> impl Iterator<Item = String> {
    const PARTS: [&str; 8] = ["\"", "'", "\n", "\u{1}", " ", "a", ": ", "["];
    (1..=5u32).flat_map(|length| {
        (0..PARTS.len().pow(length))
            .map(move |number| (0..length).map(|place| PARTS[number / PARTS.len().pow(place) % PARTS.len()]).collect())
    })
}

#[test]
fn every_fault_names_the_line_on_which_it_stands() {
    // The one that fuzzing found, as short as it gets.
    for text in short_texts().chain(["%\u{fffd}\n\u{fffd}\np".to_owned()]) {
        let outcome = compile(&Source { name: "generated.yml", text: &text }, &Inputs::default());
        assert!(!outcome.diagnostics.is_empty(), "{text:?}");
        for span in outcome.diagnostics.iter().map(|told| &told.span).filter(|span| span.line > 0) {
            let line = 1 + text[..span.start].matches('\n').count();
            assert_eq!(span.line, line, "{text:?}: {span:?}");
        }
    }
}
