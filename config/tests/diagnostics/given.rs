//! What a trigger may bring along.

use insta::assert_snapshot;
use navvy_config::Inputs;

use crate::told_of;

const CONFIG: &str = "version: 2.1
parameters:
  up: {type: boolean, default: false}
  many: {type: integer, default: 1}
  to: {type: enum, enum: [test, live], default: test}
  name: {type: string, default: a}
jobs:
  build: {docker: [{image: i}], steps: [checkout]}
";

fn given(parameters: &[(&str, &str)]) -> String {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    told_of(CONFIG, &Inputs { parameters, ..Inputs::default() })
}

#[test]
fn what_is_given_is_declared() {
    assert_snapshot!(given(&[("upp", "true"), ("name", "b")]), @r##"
    error[unexpected-argument]: unexpected argument: the config declares no pipeline parameter `upp`
     --> config.yml
      = help: did you mean `up`?
    refused
    "##);
}

#[test]
fn what_is_given_fits_its_type() {
    assert_snapshot!(given(&[("up", "maybe"), ("many", "1.5"), ("to", "prod"), ("name", "12")]), @r##"
    error[type-mismatch]: parameter `up` must be a boolean, but this is a string
     --> config.yml:3:3
      |
    3 |   up: {type: boolean, default: false}
      |   ^^

    error[type-mismatch]: parameter `many` must be an integer, but this is a number
     --> config.yml:4:3
      |
    4 |   many: {type: integer, default: 1}
      |   ^^^^

    error[type-mismatch]: `prod` is not a value of enum `to`: `test`, `live`
     --> config.yml:5:3
      |
    5 |   to: {type: enum, enum: [test, live], default: test}
      |   ^^
    refused
    "##);
}

#[test]
fn what_is_given_has_limits() {
    let (name, value) = ("n".repeat(129), "ä".repeat(513));
    assert_snapshot!(given(&[(&name, "x"), ("name", &value)]), @r##"
    error[parameter-limit]: a pipeline parameter's name has more than 128 characters: `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…`
     --> config.yml

    error[parameter-limit]: the value given for pipeline parameter `name` has more than 512 characters
     --> config.yml

    error[unexpected-argument]: unexpected argument: the config declares no pipeline parameter `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn`
     --> config.yml
    refused
    "##);
    let fits = "ä".repeat(512);
    assert_snapshot!(given(&[("name", &fits)]), @"compiled");
    let many = vec![("name", "x"); 101];
    assert_snapshot!(given(&many), @r##"
    error[parameter-limit]: 101 pipeline parameters are given; at most 100 may be
     --> config.yml
    refused
    "##);
}
