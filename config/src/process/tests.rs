use navvy_job::compiled::Origin;
use navvy_job::pipeline::{Pipeline, Selection, WorkflowJobKind};

use proptest::prelude::*;

use super::process;
use crate::input::{Inputs, Source};
use crate::testing::{fixtures, mutated};

/// What may differ: places, what a job was made from, and why something is left out.
fn bare(mut pipeline: Pipeline) -> Pipeline {
    pipeline.workflows.retain(|workflow| match &workflow.selected {
        Selection::Selected => true,
        Selection::Left { reason } => !reason.contains("condition"),
    });
    for workflow in &mut pipeline.workflows {
        workflow.origin = Origin::default();
        forget_reason(&mut workflow.selected);
        for job in &mut workflow.jobs {
            job.origin = Origin::default();
            job.definition.clear();
            job.matrix.clear();
            job.alias = None;
            forget_reason(&mut job.selected);
            if let WorkflowJobKind::Build { job } = &mut job.kind {
                job.steps.iter_mut().for_each(|step| step.origin = Origin::default());
            }
        }
    }
    pipeline
}

fn forget_reason(selection: &mut Selection) {
    if let Selection::Left { reason } = selection {
        reason.clear();
    }
}

fn inputs() -> [Inputs; 3] {
    let main = Inputs { allow_missing_orbs: true, ..Inputs::default() };
    let release = Inputs { branch: Some("release/1".to_owned()), ..main.clone() };
    let tag = Inputs { branch: None, tag: Some("v1".to_owned()), ..main.clone() };
    [main, release, tag]
}

/// Checks that what is written out is read to the same. `false`: the text does not compile.
fn comes_back(text: &str, inputs: &Inputs, explain: bool) -> bool {
    let first = process(&Source { name: "c.yml", text }, inputs, explain);
    let (Some(pipeline), Some(written)) = (first.outcome.pipeline, first.text) else { return false };
    let second = process(&Source { name: "c.yml", text: &written }, inputs, false);
    let again = second.outcome.pipeline.unwrap_or_else(|| panic!("{:?}\n{written}", second.outcome.diagnostics));
    assert_eq!(bare(pipeline), bare(again), "{written}");
    assert!(explain || second.text.as_ref() == Some(&written), "written out again it is another text: {written}");
    true
}

proptest! {
    #[test]
    fn whatever_compiles_comes_back(text in mutated(), at in 0..3_usize, explain in any::<bool>()) {
        comes_back(&text, &inputs()[at], explain);
    }
}

#[test]
fn what_is_written_out_compiles_to_the_same() {
    for (name, text) in fixtures() {
        for inputs in inputs() {
            for explain in [false, true] {
                assert!(comes_back(&text, &inputs, explain), "{name} does not compile");
            }
        }
    }
}

/// Read again, the text is of a job's own keys, of which one with nothing in it is none.
#[test]
fn a_key_of_an_executor_with_nothing_in_it_is_not_written() {
    let text = "version: 2.1\nexecutors: {e: {machine: true, resource_class: , shell: , working_directory: , environment: }}\n\
                jobs: {build: {executor: e, steps: [checkout]}}\n";
    assert!(comes_back(text, &Inputs::default(), false));
}

/// Neither its schedule nor a push starts it.
#[test]
fn a_workflow_with_triggers_whose_condition_does_not_hold_is_not_written() {
    let text = "version: 2.1\njobs: {build: {machine: true, steps: [checkout]}}\nworkflows:\n  main: {jobs: [build]}\n  \
                nightly:\n    when: false\n    triggers: [{schedule: {cron: '0 3 * * *', filters: {branches: {only: main}}}}]\n    \
                jobs: [build]\n";
    assert!(comes_back(text, &Inputs::default(), false));
}

fn written(name: &str, explain: bool) -> String {
    let (_, text) = fixtures().into_iter().find(|(fixture, _)| fixture == name).unwrap();
    process(&Source { name: "config.yml", text: &text }, &inputs()[0], explain).text.unwrap()
}

#[test]
fn the_whole_language() {
    insta::assert_snapshot!(written("everything.yml", false));
}

#[test]
fn the_whole_language_explained() {
    insta::assert_snapshot!(written("everything.yml", true));
}

#[test]
fn orbs_that_are_not_here_keep_the_text_at_2_1() {
    insta::assert_snapshot!(written("missing-orbs.yml", false));
}

#[test]
fn odd_names_and_texts() {
    insta::assert_snapshot!(written("odd-names.yml", false));
}

#[test]
fn version_2_stays_as_it_is() {
    insta::assert_snapshot!(written("version-2.yml", false));
}

#[test]
fn nothing_is_written_of_a_config_that_is_wrong() {
    let processed = process(&Source { name: "config.yml", text: "version: 2.1\n" }, &Inputs::default(), false);
    assert!(processed.text.is_none() && processed.outcome.pipeline.is_none());
}
