//! Jobs: types, executors, registries, times.

use insta::assert_snapshot;

use crate::told;

#[test]
fn a_release_has_a_plan() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  r: {type: release}
  l: {type: lock}
  u: {type: unlock, key: ""}
  k: {type: release, plan_name: p, validation: {enabled: true}}
workflows:
  w:
    jobs: [r, l, u, k]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: a job of type `release` needs `plan_name`, a text
     --> config.yml:6:3
      |
    6 |   r: {type: release}
      |   ^
      = in job `r` (line 6)

    error[missing-key]: a job of type `lock` needs `key`, a text
     --> config.yml:7:3
      |
    7 |   l: {type: lock}
      |   ^
      = in job `l` (line 7)

    error[missing-key]: a job of type `unlock` needs `key`, a text
     --> config.yml:8:3
      |
    8 |   u: {type: unlock, key: ""}
      |   ^
      = in job `u` (line 8)
    refused
    "##);
}

#[test]
fn a_job_has_steps() {
    let text = r##"
version: 2.1
commands: {none: {steps: []}, nothing: {description: d}}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: []
  other:
    docker: [{image: i}]
    steps: [none, nothing]
workflows: {w: {jobs: [build, other]}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: command `none` has no `steps`
     --> config.yml:2:12
      |
    2 | commands: {none: {steps: []}, nothing: {description: d}}
      |            ^^^^

    error[missing-key]: command `nothing` has no `steps`
     --> config.yml:2:31
      |
    2 | commands: {none: {steps: []}, nothing: {description: d}}
      |                               ^^^^^^^

    error[missing-key]: job `build` has no `steps`
     --> config.yml:4:3
      |
    4 |   build:
      |   ^^^^^
    refused
    "##);
}

#[test]
fn names_of_jobs_differ_by_more_than_case() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
  Build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[duplicate-name]: jobs `build` and `Build` differ by their case alone
     --> config.yml:6:3
      |
    6 |   Build:
      |   ^^^^^
    refused
    "##);
}

#[test]
fn caches_are_kept_for_days() {
    let text = r##"
version: 2.1
jobs:
  a: {docker: [{image: i}], steps: [checkout], retention: 15d}
  b: {docker: [{image: i}], steps: [checkout], retention: {caches: 16d}}
  c: {docker: [{image: i}], steps: [checkout], retention: {caches: 31d}}
  d: {docker: [{image: i}], steps: [checkout], retention: {caches: 2w}}
  e: {docker: [{image: i}], steps: [checkout], retention: {}}
  f: {docker: [{image: i}], steps: [checkout], retention: {caches: 0d}}
  g: {docker: [{image: i}], steps: [checkout], retention: {caches: 15d}}
workflows: {w: {jobs: [a, b, c, d, e, f, g]}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[wrong-shape]: `retention` must be a map with `caches`, but this is a string
     --> config.yml:3:59
      |
    3 |   a: {docker: [{image: i}], steps: [checkout], retention: 15d}
      |                                                           ^^^
      = in job `a` (line 3)

    warning[long-retention]: `16d` is longer than caches are kept: 15 days
     --> config.yml:4:68
      |
    4 |   b: {docker: [{image: i}], steps: [checkout], retention: {caches: 16d}}
      |                                                                    ^^^
      = in job `b` (line 4)

    error[out-of-range]: `31d` is not a time that caches can be kept
     --> config.yml:5:68
      |
    5 |   c: {docker: [{image: i}], steps: [checkout], retention: {caches: 31d}}
      |                                                                    ^^^
      = in job `c` (line 5)
      = help: whole days, from `1d` to `15d`

    error[out-of-range]: `2w` is not a time that caches can be kept
     --> config.yml:6:68
      |
    6 |   d: {docker: [{image: i}], steps: [checkout], retention: {caches: 2w}}
      |                                                                    ^^
      = in job `d` (line 6)
      = help: whole days, from `1d` to `15d`

    error[missing-key]: `retention` has no `caches`
     --> config.yml:7:48
      |
    7 |   e: {docker: [{image: i}], steps: [checkout], retention: {}}
      |                                                ^^^^^^^^^
      = in job `e` (line 7)

    error[out-of-range]: `0d` is not a time that caches can be kept
     --> config.yml:8:68
      |
    8 |   f: {docker: [{image: i}], steps: [checkout], retention: {caches: 0d}}
      |                                                                    ^^
      = in job `f` (line 8)
      = help: whole days, from `1d` to `15d`
    refused
    "##);
}

#[test]
fn ip_ranges_are_on_or_off() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    circleci_ip_ranges: always
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[wrong-shape]: `circleci_ip_ranges` must be a boolean, but this is a string
     --> config.yml:5:25
      |
    5 |     circleci_ip_ranges: always
      |                         ^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn reruns_of_a_job_belong_elsewhere() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    max_auto_reruns: 2
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[misplaced-key]: `max_auto_reruns` belongs to a step or a workflow, not to a job
     --> config.yml:5:5
      |
    5 |     max_auto_reruns: 2
      |     ^^^^^^^^^^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn parallelism_is_at_least_one() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    parallelism: 0
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[out-of-range]: `parallelism` must be at least 1, not 0
     --> config.yml:5:18
      |
    5 |     parallelism: 0
      |                  ^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn an_executor_is_of_one_kind() {
    let text = r##"
version: 2.1
executors:
  two: {docker: [{image: i}], machine: true}
  none: {resource_class: large}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[several-executors]: `docker` and `machine` exclude each other: a job runs in one executor
     --> config.yml:3:31
      |
    3 |   two: {docker: [{image: i}], machine: true}
      |                               ^^^^^^^
      = in executor `two` (line 3)

    error[missing-executor]: executor `none` has none of `docker`, `machine`, `macos`
     --> config.yml:4:3
      |
    4 |   none: {resource_class: large}
      |   ^^^^
      = in executor `none` (line 4)
    refused
    "##);
}

#[test]
fn a_job_is_of_one_kind() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    machine: true
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[several-executors]: `docker` and `machine` exclude each other: a job runs in one executor
     --> config.yml:5:5
      |
    5 |     machine: true
      |     ^^^^^^^
      = in job `build` (line 3)
      = the other one stands here (line 4)
    refused
    "##);
}

#[test]
fn an_executor_has_a_name() {
    let text = r##"
version: 2.1
executors: {box: {docker: [{image: i}]}}
jobs:
  build: {executor: {tag: x}, steps: [checkout]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: missing executor name
     --> config.yml:4:21
      |
    4 |   build: {executor: {tag: x}, steps: [checkout]}
      |                     ^^^^^^^^
      = in job `build` (line 4)
      = help: add `name:`
    refused
    "##);
}

#[test]
fn registries_want_whole_credentials() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker:
      - {image: a, auth: {username: u}}
      - {image: b, aws_auth: {aws_access_key_id: k}}
      - {image: c, aws_auth: {aws_access_key_id: k, aws_secret_access_key: s, oidc_role_arn: r}}
      - {image: d, gcp_auth: {workload_identity_pool: p}}
      - {image: e, auth: token}
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: `auth` has no `password`
     --> config.yml:5:26
      |
    5 |       - {image: a, auth: {username: u}}
      |                          ^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[exclusive-keys]: `aws_auth` takes either both keys or `oidc_role_arn`
     --> config.yml:6:30
      |
    6 |       - {image: b, aws_auth: {aws_access_key_id: k}}
      |                              ^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: the keys are `aws_access_key_id` and `aws_secret_access_key`

    error[exclusive-keys]: `aws_auth` takes either both keys or `oidc_role_arn`
     --> config.yml:7:30
      |
    7 |       - {image: c, aws_auth: {aws_access_key_id: k, aws_secret_access_key: s, oidc_role_arn: r}}
      |                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: the keys are `aws_access_key_id` and `aws_secret_access_key`

    error[missing-key]: `gcp_auth` has no `oidc_service_account`
     --> config.yml:8:20
      |
    8 |       - {image: d, gcp_auth: {workload_identity_pool: p}}
      |                    ^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: `gcp_auth` has no `workload_identity_provider`
     --> config.yml:8:20
      |
    8 |       - {image: d, gcp_auth: {workload_identity_pool: p}}
      |                    ^^^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `auth` must be a map with `username` and `password`, but this is a string
     --> config.yml:9:26
      |
    9 |       - {image: e, auth: token}
      |                          ^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn a_digest_is_whole() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker:
      - image: a@sha256:abc
      - image: b@md5:0123
      - {name: c}
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-image]: `a@sha256:abc` is not an image: a digest is `sha256:` and 64 hexadecimal digits
     --> config.yml:5:16
      |
    5 |       - image: a@sha256:abc
      |                ^^^^^^^^^^^^
      = in job `build` (line 3)

    error[invalid-image]: `b@md5:0123` is not an image: a digest is `sha256:` and 64 hexadecimal digits
     --> config.yml:6:16
      |
    6 |       - image: b@md5:0123
      |                ^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a docker entry has no `image`
     --> config.yml:7:9
      |
    7 |       - {name: c}
      |         ^^^^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn classes_belong_to_their_executor() {
    let text = r##"
version: 2.1
jobs:
  a: {docker: [{image: i}], resource_class: windows.medium, steps: [checkout]}
  b: {machine: true, resource_class: small.gen2, steps: [checkout]}
  c: {macos: {xcode: 15}, resource_class: m4.pro.medium, steps: [checkout]}
  d: {docker: [{image: i}], resource_class: arm.mediun, steps: [checkout]}
  e: {machine: true, resource_class: gpu.nvidia.smal, steps: [checkout]}
workflows: {w: {jobs: [a, b, c, d, e]}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[unknown-resource-class]: there is no resource class `windows.medium` for executor docker
     --> config.yml:3:45
      |
    3 |   a: {docker: [{image: i}], resource_class: windows.medium, steps: [checkout]}
      |                                             ^^^^^^^^^^^^^^
      = in job `a` (line 3)
      = help: known are small, medium, medium+, large, xlarge, 2xlarge, 2xlarge+, arm.medium and more

    error[unknown-resource-class]: there is no resource class `small.gen2` for executor machine
     --> config.yml:4:38
      |
    4 |   b: {machine: true, resource_class: small.gen2, steps: [checkout]}
      |                                      ^^^^^^^^^^
      = in job `b` (line 4)
      = help: known are medium, large, xlarge, 2xlarge, 2xlarge+, arm.medium, arm.large, arm.xlarge and more

    error[unknown-resource-class]: there is no resource class `m4.pro.medium` for executor macos
     --> config.yml:5:43
      |
    5 |   c: {macos: {xcode: 15}, resource_class: m4.pro.medium, steps: [checkout]}
      |                                           ^^^^^^^^^^^^^
      = in job `c` (line 5)
      = help: did you mean `m4pro.medium`?

    error[unknown-resource-class]: there is no resource class `arm.mediun` for executor docker
     --> config.yml:6:45
      |
    6 |   d: {docker: [{image: i}], resource_class: arm.mediun, steps: [checkout]}
      |                                             ^^^^^^^^^^
      = in job `d` (line 6)
      = help: did you mean `arm.medium`?

    error[unknown-resource-class]: there is no resource class `gpu.nvidia.smal` for executor machine
     --> config.yml:7:38
      |
    7 |   e: {machine: true, resource_class: gpu.nvidia.smal, steps: [checkout]}
      |                                      ^^^^^^^^^^^^^^^
      = in job `e` (line 7)
      = help: did you mean `gpu.nvidia.small`?
    refused
    ");
}

#[test]
fn a_class_of_ones_own_names_no_image() {
    let text = r##"
version: 2.1
jobs:
  f: {machine: {image: ubuntu-2404:current}, resource_class: acme/box, steps: [checkout]}
  g: {machine: true, resource_class: acme/box/x, steps: [checkout]}
workflows: {w: {jobs: [f, g]}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    warning[unused-image]: `acme/box` is a class of your own machines, which do not boot image `ubuntu-2404:current`
     --> config.yml:3:3
      |
    3 |   f: {machine: {image: ubuntu-2404:current}, resource_class: acme/box, steps: [checkout]}
      |   ^
      = in job `f` (line 3)
      = help: write `machine: true`

    error[unknown-resource-class]: there is no resource class `acme/box/x` for executor machine
     --> config.yml:4:38
      |
    4 |   g: {machine: true, resource_class: acme/box/x, steps: [checkout]}
      |                                      ^^^^^^^^^^
      = in job `g` (line 4)
      = help: known are medium, large, xlarge, 2xlarge, 2xlarge+, arm.medium, arm.large, arm.xlarge and more
    refused
    ");
}

#[test]
fn a_mac_has_an_xcode() {
    let text = r##"
version: 2.1
jobs:
  build: {macos: {resource_class: m4pro.medium}, steps: [checkout]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: macos has no `xcode`
     --> config.yml:3:11
      |
    3 |   build: {macos: {resource_class: m4pro.medium}, steps: [checkout]}
      |           ^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn an_unknown_type_is_refused() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  r: {type: no_op}
workflows:
  w:
    jobs: [r]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job-type]: there is no job type `no_op`
     --> config.yml:6:13
      |
    6 |   r: {type: no_op}
      |             ^^^^^
      = in job `r` (line 6)
      = help: did you mean `no-op`?
    refused
    "##);
}
