//! Orbs that come with Navvy: those of dynamic config, whose originals call a service that is not here.

use navvy_config::{File, OrbReference, OrbText, OrbVersion};

const NAMESPACE: &str = "circleci";
const CONTINUATION: &str = include_str!("builtin/continuation.yml");
const PATH_FILTERING_1: &str = include_str!("builtin/path-filtering-1.yml");
const PATH_FILTERING_2: &str = include_str!("builtin/path-filtering-2.yml");

/// What stands for an orb that is not in the orb path.
pub fn in_place_of(reference: &OrbReference) -> Option<OrbText> {
    let OrbReference::Registry { namespace, name, version } = reference else { return None };
    let text = match name.as_str() {
        _ if namespace != NAMESPACE => return None,
        "continuation" => CONTINUATION,
        "path-filtering" if matches!(version, OrbVersion::Numbers(0 | 1, ..)) => PATH_FILTERING_1,
        "path-filtering" => PATH_FILTERING_2,
        _ => return None,
    };
    let file = File { name: format!("{NAMESPACE}/{name} (built in)"), text: text.into() };
    Some(OrbText { resolved: reference.clone(), file })
}

/// What to know before an orb's own source is used in place of the one that is built in; `None` when none is.
pub fn warning(reference: &OrbReference) -> Option<String> {
    let OrbReference::Registry { namespace, name, .. } = reference else { return None };
    in_place_of(reference)?;
    let vendors = match name.as_str() {
        "continuation" => {
            "The vendor's source asks https://circleci.com to continue the pipeline, which knows nothing of pipelines that run here. "
        }
        _ => "",
    };
    Some(format!("It is used in place of the {namespace}/{name} that is built into Navvy. {vendors}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navvy_config::{Inputs, NoOrb, OrbSource, Source, compile, compile_orb};
    use navvy_job::pipeline::{Pipeline, WorkflowJobKind};

    use super::*;

    #[derive(Debug)]
    struct BuiltIn;

    impl OrbSource for BuiltIn {
        fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
            in_place_of(reference).ok_or(NoOrb::Missing { help: String::new() })
        }
    }

    /// The text of a setup config, and the diagnostics it gave.
    fn compiled(orbs: &str, jobs: &str) -> (Option<Pipeline>, Vec<String>) {
        let text = format!("version: 2.1\nsetup: true\norbs: {{{orbs}}}\n{jobs}");
        let inputs = Inputs { orbs: Some(Arc::new(BuiltIn)), ..Inputs::default() };
        let outcome = compile(&Source { name: "config.yml", text: &text }, &inputs);
        (outcome.pipeline, outcome.diagnostics.iter().map(|told| told.message.clone()).collect())
    }

    fn compiles(orbs: &str, jobs: &str) {
        let (pipeline, told) = compiled(orbs, jobs);
        assert!(pipeline.is_some() && told.is_empty(), "{told:?}");
    }

    const ORBS: &str = "continuation: circleci/continuation@2.0.1, path-filtering: circleci/path-filtering@";

    #[test]
    fn they_compile_with_all_their_jobs_and_commands() {
        let jobs = "
jobs:
  by-hand:
    executor: continuation/default
    steps:
      - path-filtering/set-parameters: {mapping: a b 1}
      - path-filtering/generate-config
      - continuation/continue: {configuration_path: x.yml}
      - continuation/finish
workflows:
  setup:
    jobs:
      - by-hand
      - continuation/continue: {configuration_path: x.yml, workspace_path: /tmp/w}
      - path-filtering/filter: {mapping: a b 1, before_set_params_script: echo, workspace_path: /tmp/w, tag: '3.9'}
";
        compiles(&format!("{ORBS}1"), jobs);
    }

    #[test]
    fn the_second_versions_compile_with_all_their_parameters() {
        let jobs = "
executors: {own: {docker: [{image: cimg/base:stable}]}}
jobs:
  by-hand:
    executor: {name: path-filtering/default, tag: '3.12'}
    steps:
      - path-filtering/set-parameters: {mapping: a b.yml, exclude: a/x, same-base-run: false, config-path: c.yml}
      - path-filtering/generate-config: {config-list-path: /tmp/l, generated-config-path: /tmp/g}
      - continuation/continue:
          {configuration_path: x.yml, when: on_fail, files_changed: /tmp/f, parameter_for_files_changed: changed}
      - continuation/finish: {circleci_domain: ci.example}
workflows:
  setup:
    jobs:
      - by-hand
      - continuation/continue:
          {configuration_path: x.yml, checkout: false, executor: own, circleci_ip_ranges: true, resource_class: large}
      - path-filtering/filter:
          mapping: a b 1
          exclude: a/x
          same-base-run: false
          checkout: true
          checkout_method: blobless
          executor: own
          debug: true
          circleci_ip_ranges: true
          parameter_for_files_changed: changed
          workspace_path: /tmp/w
          output-path: /tmp/p.json
          config-path: c.yml
          circleci_domain: ci.example
          resource_class: medium
";
        for version in ["2", "2.0.2", "3.0.0", "volatile", "dev:x"] {
            compiles(&format!("{ORBS}{version}"), jobs);
        }
    }

    #[test]
    fn each_version_refuses_what_only_the_other_one_knows() {
        for (version, argument) in [("1.3", "exclude: x"), ("0.1.7", "debug: true"), ("2.0.2", "tag: '3.8'")] {
            let jobs = format!("workflows: {{s: {{jobs: [path-filtering/filter: {{mapping: a b 1, {argument}}}]}}}}");
            let (pipeline, told) = compiled(&format!("{ORBS}{version}"), &jobs);
            assert!(pipeline.is_none() && told[0].contains("argument"), "{version} {argument}: {told:?}");
        }
    }

    /// What a source of the vendor's path-filtering 2.x asks of the orbs that it imports.
    #[test]
    fn an_orb_that_stands_on_the_second_continuation_compiles() {
        let text = "
version: 2.1
orbs: {continuation: circleci/continuation@2.0.2, path: circleci/path-filtering@3.0.0}
executors:
  default:
    parameters: {resource_class: {type: enum, enum: [small, medium], default: small}}
    docker: [{image: cimg/base:stable}]
    resource_class: << parameters.resource_class >>
jobs:
  filter:
    parameters:
      executor: {type: executor, default: default}
      debug: {type: boolean, default: false}
      parameter_for_files_changed: {type: string, default: ''}
    executor: << parameters.executor >>
    steps:
      - path/set-parameters: {mapping: a b c.yml, same-base-run: << parameters.debug >>}
      - when:
          condition: {equal: [false, << parameters.debug >>]}
          steps:
            - continuation/continue:
                configuration_path: /tmp/generated-config.yml
                parameters: /tmp/pipeline-parameters.json
                parameter_for_files_changed: << parameters.parameter_for_files_changed >>
                files_changed: /tmp/files-changed-list
                circleci_domain: circleci.com
";
        let inputs = Inputs { orbs: Some(Arc::new(BuiltIn)), ..Inputs::default() };
        let outcome = compile_orb(&Source { name: "orb.yml", text }, &inputs);
        let told: Vec<&str> = outcome.diagnostics.iter().map(|told| told.message.as_str()).collect();
        assert!(outcome.pipeline.is_some() && told.is_empty(), "{told:?}");
    }

    /// The names of a job's steps.
    fn steps(argument: &str) -> Vec<String> {
        let jobs = format!("workflows: {{s: {{jobs: [path-filtering/filter: {{mapping: a b 1{argument}}}]}}}}");
        let (pipeline, told) = compiled(&format!("{ORBS}2"), &jobs);
        let pipeline = pipeline.unwrap_or_else(|| panic!("{told:?}"));
        let WorkflowJobKind::Build { job } = &pipeline.workflows[0].jobs[0].kind else { panic!("no build job") };
        job.steps.iter().map(|step| step.name.clone()).collect()
    }

    #[test]
    fn what_is_switched_off_is_left_out() {
        let all = ["Checkout code", "Set parameters", "Generate config", "Continue Pipeline"];
        assert_eq!(steps(""), all);
        assert_eq!(steps(", checkout: false"), all[1..]);
        assert_eq!(steps(", debug: true"), all[..3]);
    }
}
