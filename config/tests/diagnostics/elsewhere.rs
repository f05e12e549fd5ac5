//! What CircleCI refuses although it could be understood, and so do we: a config that passes here passes there.

use crate::headlines;

fn checkout(keys: &str) -> String {
    headlines(&format!(
        "version: 2.1\njobs: {{build: {{docker: [{{image: i}}], steps: [{{checkout: {keys}}}]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n"
    ))
}

#[test]
fn a_depth_and_a_shallow_checkout_belong_together() {
    assert_eq!(
        checkout("{method: shallow}"),
        "error[missing-key]: a `shallow` checkout needs `depth`\nhelp: `depth: 1` fetches the one commit\nrefused"
    );
    let depth = |method: &str| {
        format!("error[exclusive-keys]: `depth` needs `method: shallow`, but this checkout is {method}\nrefused")
    };
    assert_eq!(checkout("{depth: 1}"), depth("`blobless`"));
    assert_eq!(checkout("{method: full, depth: 1}"), depth("`full`"));
    assert_eq!(checkout("{method: shallow, depth: 1}"), "compiled");
}

#[test]
fn all_uses_of_a_job_group_have_names_where_one_has() {
    let said = |uses: &str| {
        headlines(&format!(
            "version: 2.1\njobs: {{a: {{docker: [{{image: i}}], steps: [checkout]}}}}\njob-groups: {{g: {{jobs: [a]}}, h: {{jobs: [a]}}}}\nworkflows: {{w: {{jobs: [{uses}]}}}}\n"
        ))
    };
    let nameless = "error[missing-name]: this use of job group `g` has no name, but another one in the workflow has\n\
                    help: give it one with `name:`\nrefused";
    assert_eq!(said("g, {g: {name: second}}"), nameless);
    assert_eq!(said("{g: {name: first}}, {g: {name: second}}, g"), nameless);
    assert_eq!(said("{g: {name: first}}, {g: {name: second}}, h"), "compiled");
    assert_eq!(said("{g: {name: g}}, {g: {name: second}}"), "compiled");
    assert_eq!(said("g, h"), "compiled");
}

/// A job that has this for steps.
fn job(steps: &str) -> String {
    headlines(&format!(
        "version: 2.1\nparameters: {{go: {{type: boolean, default: false}}}}\njobs: {{build: {{docker: [{{image: i}}], steps: {steps}}}, other: {{docker: [{{image: i}}], steps: [checkout]}}}}\nworkflows: {{w: {{jobs: [build]}}}}\n"
    ))
}

#[test]
fn a_job_whose_steps_vanish_is_refused() {
    let none = "error[no-steps]: no step of job `build` is left when its conditions are decided\n\
                help: put a step beside the conditions, or a condition on the workflow\nrefused";
    assert_eq!(job("[{when: {condition: << pipeline.parameters.go >>, steps: [checkout]}}]"), none);
    assert_eq!(
        job("[{when: {condition: false, steps: [checkout]}}, {unless: {condition: true, steps: [checkout]}}]"),
        none
    );
    assert_eq!(job("[[], {steps: []}]"), none);
    assert_eq!(job("[{unless: {condition: << pipeline.parameters.go >>, steps: [checkout]}}]"), "compiled");
    assert_eq!(job("[{when: {condition: false, steps: [checkout]}}, checkout]"), "compiled");
}

#[test]
fn a_job_that_nothing_uses_may_be_left_without_steps() {
    let text = "version: 2.1\njobs:\n  build: {docker: [{image: i}], steps: [checkout]}\n  other: {docker: [{image: i}], steps: [{when: {condition: false, steps: [checkout]}}]}\nworkflows: {w: {jobs: [build]}}\n";
    assert_eq!(headlines(text), "compiled");
}

#[test]
fn an_argument_beside_a_matrix_is_told() {
    let text = "version: 2.1\njobs:\n  j: {parameters: {p: {type: string}}, docker: [{image: i}], steps: [run: echo << parameters.p >>]}\nworkflows:\n  w: {jobs: [{j: {p: z, matrix: {parameters: {p: [x, y]}}}}]}\n";
    assert_eq!(
        headlines(text),
        "warning[shadowed-argument]: this argument counts for nothing: the values of `p` in the matrix win\ncompiled"
    );
}
