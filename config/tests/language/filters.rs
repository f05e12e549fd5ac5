//! Branch and tag filters, conditions of workflows, triggers.

use navvy_config::Inputs;

use crate::{pipeline, pipeline_of, reason, selected};

const FILTERS: &str = r#"
version: 2.1
jobs:
  j: {docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - j: {name: none}
      - j: {name: branches, filters: {branches: {only: [main, /rel-.*/]}}}
      - j: {name: tags, filters: {tags: {only: '/v[0-9]+/'}}}
      - j: {name: both, filters: {branches: {ignore: /.*/}, tags: {ignore: v1}}}
      - j: {name: neither, filters: {branches: {}, tags: {}}}
      - j: {name: expression, filters: pipeline.git.branch starts-with "ma" or pipeline.git.tag}
"#;

fn on(branch: Option<&str>, tag: Option<&str>) -> Inputs {
    Inputs { branch: branch.map(Into::into), tag: tag.map(Into::into), ..Inputs::default() }
}

#[test]
fn the_table_of_pushes_holds() {
    let jobs = |inputs: &Inputs| selected(&pipeline_of(FILTERS, inputs).workflows[0]).join(" ");
    assert_eq!(jobs(&on(Some("main"), None)), "none branches tags neither expression");
    assert_eq!(jobs(&on(Some("rel-1"), None)), "none branches tags neither");
    assert_eq!(jobs(&on(Some("x-rel-1"), None)), "none tags neither");
    assert_eq!(jobs(&on(None, Some("v1"))), "tags expression");
    assert_eq!(jobs(&on(None, Some("v2x"))), "both expression");
}

/// No branch is none of those that a filter names; a filter that is for all or for no branches is so without one, too.
#[test]
fn where_there_is_no_branch_only_lets_nothing_through() {
    let text = r#"
version: 2.1
jobs:
  j: {docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - j: {name: none}
      - j: {name: only-main, filters: {branches: {only: main}}}
      - j: {name: only-some, filters: {branches: {only: [main, /release.*/]}}}
      - j: {name: only-all, filters: {branches: {only: /.*/}}}
      - j: {name: but-main, filters: {branches: {ignore: main}}}
      - j: {name: but-some, filters: {branches: {ignore: [/release.*/, wip]}}}
      - j: {name: tags-alone, filters: {tags: {only: /v.*/}, branches: {ignore: /.*/}}}
      - j: {name: no-named, filters: {tags: {only: /v.*/}, branches: {ignore: /.+/}}}
      - j: {name: tags-too, filters: {tags: {only: /v.*/}}}
      - j: {name: on-main, filters: pipeline.git.branch == "main"}
      - j: {name: empty, filters: pipeline.git.branch == ""}
      - j: {name: after, requires: [only-main]}
  on-main: {when: {equal: [main, << pipeline.git.branch >>]}, jobs: [j]}
"#;
    let pipeline = pipeline_of(text, &on(None, None));
    assert_eq!(selected(&pipeline.workflows[0]), ["none", "only-all", "but-main", "but-some", "tags-too", "empty"]);
    assert!(!pipeline.workflows[1].selected.is_selected());
    let reasons = ["only-main", "only-some", "tags-alone", "no-named"].map(|name| {
        let job = pipeline.workflows[0].jobs.iter().find(|job| job.name == name).unwrap();
        reason(&job.selected)
    });
    let (some, none) = (
        "its branch filter lets only some branches through, and there is no branch",
        "its branch filter lets no branch through",
    );
    assert_eq!(reasons, [some, some, none, none]);
    assert!(some.ends_with(navvy_config::NO_BRANCH));
}

#[test]
fn reasons_are_in_plain_words() {
    let workflow = pipeline_of(FILTERS, &on(None, Some("x"))).workflows.remove(0);
    let reasons: Vec<&str> = workflow.jobs.iter().map(|job| reason(&job.selected)).collect();
    assert_eq!(
        reasons,
        [
            "it has no tag filter, and without one a job does not run on tags",
            "it has no tag filter, and without one a job does not run on tags",
            "its tag filter does not match tag `x`",
            "",
            "its tag filter names no tags",
            "",
        ]
    );
}

#[test]
fn who_requires_only_what_is_left_out_is_left_out() {
    let text = r#"
version: 2.1
jobs:
  j: {docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - j: {name: last, requires: [second, kept]}
      - j: {name: second, requires: [first]}
      - j: {name: first, filters: {branches: {only: release}}}
      - j: {name: kept}
"#;
    let workflow = pipeline(text).workflows.remove(0);
    assert_eq!(selected(&workflow), ["last", "kept"]);
    let required: Vec<&str> = workflow.jobs[0].requires.iter().map(|requirement| requirement.job.as_str()).collect();
    assert_eq!(required, ["kept"]);
    assert_eq!(reason(&workflow.jobs[1].selected), "every job that it requires is left out");
}

#[test]
fn workflows_have_conditions_and_triggers() {
    let text = r#"
version: 2.1
parameters: {go: {type: boolean, default: false}}
jobs:
  j: {docker: [{image: i}], steps: [checkout]}
workflows:
  plain: {jobs: [j]}
  off: {when: << pipeline.parameters.go >>, jobs: [j]}
  on: {unless: {or: [<< pipeline.parameters.go >>]}, jobs: [j]}
  bare: {when: pipeline.parameters.go == false and not pipeline.git.tag, jobs: [j]}
  nightly: {triggers: [{schedule: {cron: "0 0 * * *", filters: {branches: {only: main}}}}], jobs: [j]}
  empty: {jobs: [{j: {filters: {branches: {ignore: main}}}}]}
"#;
    let workflows = pipeline(text).workflows;
    let reasons: Vec<&str> = workflows.iter().map(|workflow| reason(&workflow.selected)).collect();
    let nightly = "it runs only on schedule";
    assert_eq!(reasons, ["", "its `when` condition does not hold", "", "", nightly, "all of its jobs are left out"]);
}

#[test]
fn a_filter_of_a_value_that_nobody_gave_lets_nothing_through() {
    let text = r#"
version: 2.1
jobs:
  j: {docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - j: {name: all}
      - j: {name: unknown, filters: {branches: {only: << pipeline.schedule.name >>}}}
      - j: {name: nothing, filters: {branches: {only: []}}}
"#;
    assert_eq!(selected(&pipeline(text).workflows[0]), ["all"]);
}
