//! Jobs and executors.

use insta::assert_snapshot;

use crate::told;

#[test]
fn missing_executor() {
    let text = r##"
version: 2.1
jobs:
  build:
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-executor]: this job says nothing of where it runs
     --> config.yml:3:3
      |
    3 |   build:
      |   ^^^^^
      = in job `build` (line 3)
      = help: add `docker`, `machine`, `macos` or `executor`
    refused
    "##);
}

#[test]
fn several_executors() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: i}]
    machine: true
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[several-executors]: `docker` and `machine` exclude each other: a job runs in one executor
     --> config.yml:5:5
      |
    5 |     machine: true
      |     ^^^^^^^
      = in job `build` (line 3)
      = the other one stands here (line 4)
    refused
    ");
}

#[test]
fn docker_images() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker:
      - image: cimg/base@sha256:abc
      - name: db
      - image: i
        auth: {username: u}
      - image: j
        aws_auth: {oidc_role_arn: r, aws_access_key_id: k}
    steps: [checkout]
  other:
    docker: []
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-image]: `cimg/base@sha256:abc` is not an image: a digest is `sha256:` and 64 hexadecimal digits
     --> config.yml:5:16
      |
    5 |       - image: cimg/base@sha256:abc
      |                ^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a docker entry has no `image`
     --> config.yml:6:9
      |
    6 |       - name: db
      |         ^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: `auth` has no `password`
     --> config.yml:8:15
      |
    8 |         auth: {username: u}
      |               ^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[exclusive-keys]: `aws_auth` takes either both keys or `oidc_role_arn`
      --> config.yml:10:19
       |
    10 |         aws_auth: {oidc_role_arn: r, aws_access_key_id: k}
       |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in job `build` (line 3)
       = help: the keys are `aws_access_key_id` and `aws_secret_access_key`

    error[wrong-shape]: `docker` must be a list with at least one image, but this is an empty list
      --> config.yml:13:13
       |
    13 |     docker: []
       |             ^^
       = in job `other` (line 12)
    refused
    "##);
}

#[test]
fn unknown_resource_class() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: i}]
    resource_class: lrage
    steps: [checkout]
  vm:
    machine: {image: ubuntu-2404:current}
    resource_class: tiny.blue.whale
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-resource-class]: there is no resource class `lrage` for executor docker
     --> config.yml:5:21
      |
    5 |     resource_class: lrage
      |                     ^^^^^
      = in job `build` (line 3)
      = help: did you mean `large`?

    error[unknown-resource-class]: there is no resource class `tiny.blue.whale` for executor machine
     --> config.yml:9:21
      |
    9 |     resource_class: tiny.blue.whale
      |                     ^^^^^^^^^^^^^^^
      = in job `vm` (line 7)
      = help: known are medium, large, xlarge, 2xlarge, 2xlarge+, arm.medium, arm.large, arm.xlarge and more
    refused
    "##);
}

#[test]
fn retired_resource_class() {
    let text = r##"
version: 2.1
jobs:
  build:
    macos: {xcode: 15.1.0}
    resource_class: macos.m1.medium.gen1
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[retired-resource-class]: resource class `macos.m1.medium.gen1` is no longer offered for macos
     --> config.yml:5:21
      |
    5 |     resource_class: macos.m1.medium.gen1
      |                     ^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
    compiled
    "##);
}

#[test]
fn out_of_range() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: i}]
    parallelism: 0
    max_auto_reruns: 2
    retention: 3d
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[out-of-range]: `parallelism` must be at least 1, not 0
     --> config.yml:5:18
      |
    5 |     parallelism: 0
      |                  ^
      = in job `build` (line 3)

    error[misplaced-key]: `max_auto_reruns` belongs to a step or a workflow, not to a job
     --> config.yml:6:5
      |
    6 |     max_auto_reruns: 2
      |     ^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `retention` must be a map with `caches`, but this is a string
     --> config.yml:7:16
      |
    7 |     retention: 3d
      |                ^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn environment() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: i}]
    environment:
      PYTHON: 3.10
      ACCOUNT: 123456789
      my-name: x
      LIST: [a]
    steps: [{run: {command: x, environment: [JUST_A_NAME]}}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[number-rewritten]: `PYTHON` becomes `3.1`, because YAML reads `3.10` as a number
     --> config.yml:6:15
      |
    6 |       PYTHON: 3.10
      |               ^^^^
      = in job `build` (line 3)
      = help: quote it to keep it: `"3.10"`

    warning[long-integer]: CircleCI would write `ACCOUNT` with an exponent; here it stays `123456789`
     --> config.yml:7:16
      |
    7 |       ACCOUNT: 123456789
      |                ^^^^^^^^^
      = in job `build` (line 3)
      = help: quote it to have the same everywhere: `"123456789"`

    warning[variable-name]: `my-name` is not a name that a shell can read as a variable
     --> config.yml:8:7
      |
    8 |       my-name: x
      |       ^^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `LIST` must be a single value, but this is a list
     --> config.yml:9:13
      |
    9 |       LIST: [a]
      |             ^^^
      = in job `build` (line 3)

    error[wrong-shape]: `JUST_A_NAME` does not set a variable
      --> config.yml:10:46
       |
    10 |     steps: [{run: {command: x, environment: [JUST_A_NAME]}}]
       |                                              ^^^^^^^^^^^
       = in job `build` (line 3)
       = help: write `NAME: value`, or `NAME=value` in a list
    refused
    "##);
}
