//! Wrong shapes that would loosen a rule, so that more runs than was meant: each is refused, with what to write.

use crate::{headlines, told};

/// What is said of a config whose job `a` a workflow uses with these keys, after job `b`.
fn of_use(keys: &str) -> String {
    of(&format!("jobs: [b, {{a: {keys}}}]"), "")
}

/// What is said of a config with these keys in its workflow, and these in its job `a`.
fn of(workflow: &str, job: &str) -> String {
    let a = format!("a: {{docker: [{{image: i}}], steps: [checkout]{job}}}");
    let b = "b: {docker: [{image: i}], steps: [checkout]}";
    headlines(&format!("version: 2.1\njobs:\n  {a}\n  {b}\nworkflows:\n  w: {{{workflow}}}\n"))
}

/// Each case with what is said of it, the first line that differs told with its case.
fn check(cases: &[(&str, &str)], said: impl Fn(&str) -> String) {
    for (case, expected) in cases {
        assert_eq!(&said(case), expected, "{case}");
    }
}

#[test]
fn filters_of_the_wrong_shape_are_refused() {
    let only = "\nhelp: write `branches: {only: main}`\nrefused";
    let branches = "error[wrong-shape]: `branches` must be a map with `only` or `ignore`, but this is";
    let names = "must be a name or a pattern between slashes, or a list of them, but this is";
    check(
        &[
            ("{branches: main}", &format!("{branches} a string{only}")),
            (
                "{branches: [main]}",
                &format!(
                    "{branches} a list\nhelp: write `branches: {{only: …}}` or `branches: {{ignore: …}}`\nrefused"
                ),
            ),
            (
                "{tags: v1}",
                "error[wrong-shape]: `tags` must be a map with `only` or `ignore`, but this is a string\n\
                 help: write `tags: {only: v1}`\nrefused",
            ),
            (
                "{branches: {onyl: main}}",
                "error[unknown-key]: key `onyl` means nothing in `branches` of a filter\n\
                 help: did you mean `only`?\nrefused",
            ),
            (
                "{branches: {except: main}}",
                "error[unknown-key]: key `except` means nothing in `branches` of a filter\n\
                 help: it takes `only` and `ignore`\nrefused",
            ),
            (
                "{only: main}",
                "error[unknown-key]: key `only` means nothing in `filters`\n\
                 help: it stands below `branches` or `tags`: `branches: {only: …}`\nrefused",
            ),
            (
                "{branchs: {only: main}}",
                "error[unknown-key]: key `branchs` means nothing in `filters`\nhelp: did you mean `branches`?\nrefused",
            ),
            (
                "{and: [true]}",
                "error[unknown-key]: key `and` means nothing in `filters`\n\
                 help: a condition is an expression: `filters: pipeline.git.branch == \"main\"`\nrefused",
            ),
            ("{branches: {only: {main: true}}}", &format!("error[wrong-shape]: `only` {names} a map\nrefused")),
            ("{branches: {ignore: [a, {b: c}]}}", &format!("error[wrong-shape]: `ignore` {names} a map\nrefused")),
            ("{tags: {only: [~]}}", &format!("error[wrong-shape]: `only` {names} nothing\nrefused")),
            (
                "{branches: {only: }}",
                "error[wrong-shape]: `only` of `branches` has nothing in it\n\
                 help: name what may run, or leave `only` out to let everything through\nrefused",
            ),
            (
                "[main]",
                "error[wrong-shape]: `filters` must be a map with `branches` and `tags`, or an expression, but this is \
                 a list\nrefused",
            ),
        ],
        |filters| of_use(&format!("{{filters: {filters}}}")),
    );
}

#[test]
fn filters_of_the_right_shape_stay() {
    let right = [
        "{branches: {only: main}}",
        "{branches: {only: [main, [/x/]], ignore: y}, tags: {ignore: 1.0}}",
        "{branches: {only: []}}",
        "{branches: {}, tags: {}}",
        "{}",
        "pipeline.git.branch == \"main\"",
        "{tags: {only: << pipeline.git.tag >>}}",
    ];
    check(&right.map(|filters| (filters, "compiled")), |filters| of_use(&format!("{{filters: {filters}}}")));
}

#[test]
fn a_rule_with_nothing_in_it_is_told() {
    let said = |key: &str, so: &str| format!("warning[empty-rule]: `{key}` has nothing in it: {so}\ncompiled");
    let everywhere = "the job runs on every branch";
    check(
        &[
            ("{filters: }", &said("filters", everywhere)),
            ("{filters: {branches: }}", &said("branches", everywhere)),
            ("{filters: {branches: {ignore: }}}", &said("ignore", "it keeps nothing out")),
            ("{requires: }", &said("requires", "the job waits for no other")),
            ("{serial-group: }", &said("serial-group", "the job runs beside any other")),
        ],
        of_use,
    );
    let triggers = said("triggers", "every push starts the workflow");
    assert_eq!(of("triggers: , jobs: [a, b]", ""), triggers);
}

#[test]
fn rules_do_not_stand_in_a_job() {
    let place = "write it where a workflow uses the job, below the job's name";
    let condition = "a condition stands in the workflow, around steps, or as `filters` where a workflow uses the job";
    let said = |key: &str, help: &str| {
        format!("error[misplaced-key]: key `{key}` means nothing in a job\nhelp: {help}\nrefused")
    };
    check(
        &[
            (", filters: {branches: {only: main}}", &said("filters", place)),
            (", requires: [b]", &said("requires", place)),
            (", context: c", &said("context", place)),
            (", serial-group: g", &said("serial-group", place)),
            (", when: false", &said("when", condition)),
            (", unless: true", &said("unless", condition)),
            (", filter: {}", &said("filter", &format!("did you mean `filters`? {place}"))),
        ],
        |job| of("jobs: [a, b]", job),
    );
}

#[test]
fn rules_do_not_stand_in_a_workflow() {
    let said = |key: &str, help: &str| {
        format!("error[misplaced-key]: key `{key}` means nothing in a workflow\nhelp: {help}\nrefused")
    };
    let slip = |key: &str, meant: &str| {
        format!("error[unknown-key]: key `{key}` means nothing in a workflow\nhelp: did you mean `{meant}`?\nrefused")
    };
    let place = "write it at each job of the workflow, below the job's name";
    let schedule = "write it in `triggers`: `triggers: [{schedule: {cron: …, filters: …}}]`";
    check(
        &[
            ("filters: {}", &said("filters", place)),
            ("requires: [v]", &said("requires", place)),
            ("context: c", &said("context", place)),
            ("branches: {only: main}", &said("branches", "`filters` at each job of the workflow takes it")),
            ("condition: false", &said("condition", "the condition of a workflow is its `when` or `unless`")),
            ("schedule: {cron: \"0 0 * * *\"}", &said("schedule", schedule)),
            ("wehn: false", &slip("wehn", "when")),
            ("unles: true", &slip("unles", "unless")),
            ("trigger: []", &slip("trigger", "triggers")),
        ],
        |keys| of(&format!("{keys}, jobs: [a, b]"), ""),
    );
}

#[test]
fn a_schedule_keeps_its_branches() {
    let names = "must be a name or a pattern between slashes, or a list of them, but this is";
    check(
        &[
            (
                "{branches: {onyl: main}}",
                "error[unknown-key]: key `onyl` means nothing in `branches` of a filter\n\
                 help: did you mean `only`?\nrefused",
            ),
            ("{branches: {only: {main: 1}}}", &format!("error[wrong-shape]: `only` {names} a map\nrefused")),
            (
                "{branches: main}",
                "error[wrong-shape]: `branches` must be a map with `only` or `ignore`, but this is a string\n\
                 help: write `branches: {only: main}`\nrefused",
            ),
            (
                "{branches: {only: main}, tag: {}}",
                "error[unknown-key]: key `tag` means nothing in `filters`\nhelp: did you mean `tags`?\nrefused",
            ),
            ("{branches: {only: [main]}}", "compiled"),
        ],
        |filters| {
            of(&format!("triggers: [{{schedule: {{cron: \"0 0 * * *\", filters: {filters}}}}}], jobs: [a, b]"), "")
        },
    );
}

#[test]
fn other_rules_of_the_wrong_shape_are_refused() {
    check(
        &[
            ("{requires: {}}", "error[wrong-shape]: `requires` must be names of jobs, but this is a map\nrefused"),
            ("{requires: [{}]}", "error[wrong-shape]: `requires` must be names of jobs, but this is a map\nrefused"),
            ("{name: [x]}", "error[wrong-shape]: `name` must be a text, but this is a list\nrefused"),
            (
                "{override-with: [o/x]}",
                "error[wrong-shape]: `override-with` must be a text, but this is a list\nrefused",
            ),
            ("{context: {c: 1}}", "error[wrong-shape]: `context` must be a text, but this is a map\nrefused"),
            ("{serial-group: [g]}", "error[wrong-shape]: `serial-group` must be a text, but this is a list\nrefused"),
            (
                "{type: [approval]}",
                "error[unknown-job-type]: the only `type` that an invocation can have is `approval`\nrefused",
            ),
        ],
        of_use,
    );
    let kind = "error[wrong-shape]: the `type` of a job must be a word, but this is";
    assert_eq!(of("jobs: [a, b]", ", type: [approval]"), format!("{kind} a list\nrefused"));
    assert_eq!(of("jobs: [a, b]", ", type: "), format!("{kind} nothing\nrefused"));
    assert_eq!(
        of("max_auto_reruns: [1], jobs: [a, b]", ""),
        "error[wrong-shape]: `max_auto_reruns` must be an integer, but this is a list\nrefused"
    );
}

#[test]
fn branches_of_a_job_count_without_workflows_alone() {
    assert_eq!(
        of("jobs: [a, b]", ", branches: {only: main}"),
        "warning[ignored-branches]: `branches` of a job counts for nothing in a config with workflows\n\
         help: write `filters` where a workflow uses the job, below the job's name\ncompiled"
    );
    let alone = |branches: &str| {
        headlines(&format!(
            "version: 2\njobs: {{build: {{docker: [{{image: i}}], steps: [checkout], branches: {branches}}}}}\n"
        ))
    };
    assert_eq!(alone("{only: main}"), "compiled");
    assert_eq!(
        alone("[main]"),
        "error[wrong-shape]: `branches` must be a map with `only` or `ignore`, but this is a list\n\
         help: write `branches: {only: …}` or `branches: {ignore: …}`\nrefused"
    );
}

#[test]
fn a_job_group_has_no_rules_of_its_own() {
    let text = "version: 2.1\njobs: {a: {docker: [{image: i}], steps: [checkout]}}\njob-groups: {g: {jobs: [a], filters: {}}}\nworkflows: {w: {jobs: [g]}}\n";
    assert_eq!(
        headlines(text),
        "error[misplaced-key]: key `filters` means nothing in a job group\n\
         help: write it where a workflow uses the group, below the group's name\nrefused"
    );
}

#[test]
fn an_exclude_excludes() {
    let of = |matrix: &str| {
        headlines(&format!(
            "version: 2.1\njobs:\n  j: {{parameters: {{x: {{type: string}}, y: {{type: string, default: d}}}}, docker: [{{image: i}}], steps: [checkout]}}\nworkflows: {{w: {{jobs: [{{j: {{matrix: {matrix}}}}}]}}}}\n"
        ))
    };
    assert_eq!(
        of("{parameters: {x: [a, b]}, exlude: [{x: a}]}"),
        "error[unknown-key]: key `exlude` means nothing in a matrix\nhelp: did you mean `exclude`?\nrefused"
    );
    assert_eq!(
        of("{parameters: {x: [a, b]}, exclude: [{x: c}]}"),
        "warning[incomplete-exclude]: this excludes nothing: no combination of the matrix has these values\ncompiled"
    );
    assert_eq!(
        of("{parameters: {x: [a, b]}, exclude: }"),
        "warning[empty-rule]: `exclude` has nothing in it: every combination runs\ncompiled"
    );
    assert_eq!(
        of("{parameters: {x: [a, b]}, alias: [m]}"),
        "error[wrong-shape]: `alias` must be a text, but this is a list\nrefused"
    );
    assert_eq!(of("{parameters: {x: [a, b]}, exclude: [{x: b}]}"), "compiled");
}

#[test]
fn a_text_inside_of_a_condition_is_told() {
    let warning = "warning[constant-condition]: this condition is a text, which always holds\n\
                   help: a condition is `<< a value >>`, or one of `and`, `or`, `not`, `equal`, `matches`\ncompiled";
    let cases =
        ["{and: ['pipeline.git.branch == \"release\"']}", "{or: [x, << pipeline.git.branch >>]}", "{not: {not: x}}"];
    check(&cases.map(|case| (case, warning)), |when| of(&format!("when: {when}, jobs: [a, b]"), ""));
    check(
        &[
            (
                "{equal: [main]}",
                "warning[constant-condition]: `equal` of one value always holds\n\
                 help: it compares two or more, as in `equal: [main, << pipeline.git.branch >>]`\ncompiled",
            ),
            (
                "{matches: {pattern: ^a$, value: a, negate: true}}",
                "error[invalid-condition]: key `negate` means nothing in `matches`\n\
                 help: it takes `pattern` and `value`\nrefused",
            ),
            ("{and: [true, << pipeline.git.branch >>, {equal: [a, a]}]}", "compiled"),
        ],
        |when| of(&format!("when: {when}, jobs: [a, b]"), ""),
    );
}

#[test]
fn patterns_that_are_none_get_their_help() {
    let text = "version: 2.1\njobs: {a: {docker: [{image: i}], steps: [checkout]}}\nworkflows:\n  w:\n    jobs:\n      - a: {filters: {branches: {only: [PATTERN]}}}\n";
    let regex = |pattern: &str, why: &str, help: &str| {
        format!(
            "warning[regex-in-filter]: `{pattern}` is plain text, not a regular expression: {why}\nhelp: {help}\ncompiled"
        )
    };
    let slashes = "those stand between slashes";
    let between = |with: &str| format!("a regular expression stands between slashes, as in `{with}`");
    let glob = |pattern: &str, with: &str| {
        format!(
            "warning[glob-in-filter]: `{pattern}` is plain text and matches nothing but itself\nhelp: {}\ncompiled",
            between(with)
        )
    };
    check(
        &[
            ("release/*", &glob("release/*", r"/release\/.*/")),
            ("v1.*", &regex("v1.*", slashes, &between("/v1.*/"))),
            (r"'^v\d+$'", &regex(r"^v\d+$", slashes, &between(r"/^v\d+$/"))),
            ("main|develop", &regex("main|develop", slashes, &between("/main|develop/"))),
            ("/x/i", &regex("/x/i", "nothing may follow the second slash", "a flag stands inside: `/(?i)x/`")),
            (
                "/x/g",
                &regex(
                    "/x/g",
                    "nothing may follow the second slash",
                    "write `/x/`: it must match the whole name, without any flag",
                ),
            ),
            ("/release-.*", &regex("/release-.*", "its second slash is missing", "write `/release-.*/`")),
            ("release-.*/", &regex("release-.*/", "its first slash is missing", "write `/release-.*/`")),
            ("/x/", "compiled"),
            ("feature/a.b-c_d", "compiled"),
        ],
        |pattern| headlines(&text.replace("PATTERN", pattern)),
    );
    // Also where this push does not ask.
    assert_eq!(headlines(&text.replace("branches", "tags").replace("PATTERN", "v*")), glob("v*", "/v.*/"));
}

#[test]
fn what_is_refused_is_shown_at_its_place() {
    let text = "version: 2.1\njobs: {a: {docker: [{image: i}], steps: [checkout]}}\nworkflows:\n  w:\n    jobs:\n      - a:\n          filters:\n            branches:\n            only: main\n";
    insta::assert_snapshot!(told(text), @r"
    warning[empty-rule]: `branches` has nothing in it: the job runs on every branch
     --> config.yml:8:13
      |
    8 |             branches:
      |             ^^^^^^^^
      = in workflow `w` (line 4)

    error[unknown-key]: key `only` means nothing in `filters`
     --> config.yml:9:13
      |
    9 |             only: main
      |             ^^^^
      = in workflow `w` (line 4)
      = help: it stands below `branches` or `tags`: `branches: {only: …}`
    refused
    ");
}
