//! Orbs that come with Navvy: those of dynamic config, whose originals call a service that is not here.

use navvy_config::{File, OrbReference, OrbText};

const NAMESPACE: &str = "circleci";
const CONTINUATION: &str = include_str!("builtin/continuation.yml");
const PATH_FILTERING: &str = include_str!("builtin/path-filtering.yml");

/// What stands for an orb whatever is in the orb path: the original's source calls the vendor's service.
pub fn instead_of(reference: &OrbReference) -> Option<OrbText> {
    text(reference, "continuation", CONTINUATION)
}

/// What stands for an orb that is not in the orb path.
pub fn in_place_of(reference: &OrbReference) -> Option<OrbText> {
    text(reference, "path-filtering", PATH_FILTERING)
}

fn text(reference: &OrbReference, name: &str, text: &str) -> Option<OrbText> {
    let OrbReference::Registry { namespace, name: wanted, .. } = reference else { return None };
    let file = || File { name: format!("{NAMESPACE}/{name} (built in)"), text: text.into() };
    (namespace == NAMESPACE && wanted == name).then(|| OrbText { resolved: reference.clone(), file: file() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navvy_config::{Inputs, NoOrb, OrbSource, Source, compile};

    use super::*;

    #[derive(Debug)]
    struct BuiltIn;

    impl OrbSource for BuiltIn {
        fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
            let found = instead_of(reference).or_else(|| in_place_of(reference));
            found.ok_or(NoOrb::Missing { help: String::new() })
        }
    }

    #[test]
    fn they_compile_with_all_their_jobs_and_commands() {
        let text = "
version: 2.1
setup: true
orbs: {continuation: circleci/continuation@2.0.1, path-filtering: circleci/path-filtering@1}
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
      - path-filtering/filter: {mapping: a b 1, before_set_params_script: echo, workspace_path: /tmp/w}
";
        let inputs = Inputs { orbs: Some(Arc::new(BuiltIn)), ..Inputs::default() };
        let outcome = compile(&Source { name: "config.yml", text }, &inputs);
        let told: Vec<&str> = outcome.diagnostics.iter().map(|told| told.message.as_str()).collect();
        assert!(outcome.pipeline.is_some() && told.is_empty(), "{told:?}");
    }
}
