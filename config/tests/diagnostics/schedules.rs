//! Triggers by the clock.

use insta::assert_snapshot;

use crate::told;

#[test]
fn a_time_has_five_fields() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers: [{schedule: {cron: "0 0 * *", filters: {branches: {only: main}}}}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-cron]: `0 0 * *` is not a time: it has 4 fields, not 5
     --> config.yml:9:34
      |
    9 |     triggers: [{schedule: {cron: "0 0 * *", filters: {branches: {only: main}}}}]
      |                                  ^^^^^^^^^
      = in workflow `w` (line 7)
      = help: minute, hour, day of the month, month, day of the week, as in `0 4 * * 1`
    refused
    "##);
}

#[test]
fn a_field_has_its_numbers() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers:
      - schedule: {cron: "60 0 * * *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 24 * * *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 0 0 * *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 0 1 13 *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 0 1 * 5-2", filters: {branches: {only: main}}}
      - schedule: {cron: "x 0 1 JAN SUN", filters: {branches: {only: main}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-cron]: `60` is not a valid minute: use 0 to 59
      --> config.yml:10:26
       |
    10 |       - schedule: {cron: "60 0 * * *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^
       = in workflow `w` (line 7)

    error[invalid-cron]: `24` is not a valid hour: use 0 to 23
      --> config.yml:11:26
       |
    11 |       - schedule: {cron: "0 24 * * *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^
       = in workflow `w` (line 7)

    error[invalid-cron]: `0` is not a valid day of the month: use 1 to 31
      --> config.yml:12:26
       |
    12 |       - schedule: {cron: "0 0 0 * *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^
       = in workflow `w` (line 7)

    error[invalid-cron]: `13` is not a valid month: use 1 to 12
      --> config.yml:13:26
       |
    13 |       - schedule: {cron: "0 0 1 13 *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^
       = in workflow `w` (line 7)

    error[invalid-cron]: `5-2` is not a valid day of the week: use 0 to 7
      --> config.yml:14:26
       |
    14 |       - schedule: {cron: "0 0 1 * 5-2", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^^
       = in workflow `w` (line 7)

    error[invalid-cron]: `x` is not a valid minute: use 0 to 59
      --> config.yml:15:26
       |
    15 |       - schedule: {cron: "x 0 1 JAN SUN", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn what_the_original_does_not_know_is_told() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers:
      - schedule: {cron: "*/5 0 * * *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 1-3,5 * * *", filters: {branches: {only: main}}}
      - schedule: {cron: "0 1 * * MON-FRI", filters: {branches: {only: main}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[unsupported-cron]: `*/5` is a step, which CircleCI's schedules do not support
      --> config.yml:10:26
       |
    10 |       - schedule: {cron: "*/5 0 * * *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: write the values out, as in `0,15,30,45`

    warning[unsupported-cron]: `1-3,5` is a range in a list, which CircleCI's schedules do not support
      --> config.yml:11:26
       |
    11 |       - schedule: {cron: "0 1-3,5 * * *", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: write the values out, as in `0,15,30,45`

    warning[unsupported-cron]: `MON-FRI` is a range of names, which CircleCI's schedules do not support
      --> config.yml:12:26
       |
    12 |       - schedule: {cron: "0 1 * * MON-FRI", filters: {branches: {only: main}}}
       |                          ^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: write the values out, as in `0,15,30,45`
    compiled
    "##);
}

#[test]
fn a_schedule_names_branches_and_a_time() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers:
      - schedule: {cron: "0 0 * * *"}
      - schedule: {filters: {branches: {only: main}}}
      - schedule: {cron: "0 0 * * *", filters: {tags: {only: v1}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: a schedule has no `filters` with `branches`
      --> config.yml:10:19
       |
    10 |       - schedule: {cron: "0 0 * * *"}
       |                   ^^^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: it needs `cron`, and `filters: {branches: {only: …}}`

    error[missing-key]: a schedule has no `cron`
      --> config.yml:11:19
       |
    11 |       - schedule: {filters: {branches: {only: main}}}
       |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: it needs `cron`, and `filters: {branches: {only: …}}`

    error[missing-key]: a schedule has no `filters` with `branches`
      --> config.yml:12:19
       |
    12 |       - schedule: {cron: "0 0 * * *", filters: {tags: {only: v1}}}
       |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 7)
       = help: it needs `cron`, and `filters: {branches: {only: …}}`
    refused
    "##);
}

#[test]
fn triggers_are_a_list_of_schedules() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers: {schedule: {cron: "0 0 * * *"}}
  v:
    jobs: [a]
    triggers: [{cron: "0 0 * * *"}, nightly]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[wrong-shape]: `triggers` must be a list of maps with `schedule`
     --> config.yml:9:15
      |
    9 |     triggers: {schedule: {cron: "0 0 * * *"}}
      |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)

    error[wrong-shape]: a trigger is a map with `schedule`
      --> config.yml:12:16
       |
    12 |     triggers: [{cron: "0 0 * * *"}, nightly]
       |                ^^^^^^^^^^^^^^^^^^^
       = in workflow `v` (line 10)

    error[wrong-shape]: a trigger is a map with `schedule`
      --> config.yml:12:37
       |
    12 |     triggers: [{cron: "0 0 * * *"}, nightly]
       |                                     ^^^^^^^
       = in workflow `v` (line 10)
    refused
    "##);
}
