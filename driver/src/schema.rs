//! The shapes of both configurations, as Nomad checks them before the plugin sees a value.
//!
//! The plugin's own values are all declared `any`: a value of a wrong type would keep the whole Nomad agent from starting, and what is
//! wrong with it is said by [`crate::config`] instead. A task's values are typed: Nomad refuses that task alone, by name.

use crate::config::{DEFAULT_ENVIRONMENT, DEFAULT_TOKEN_FILE};
use crate::proto::hashicorp::nomad::plugins::shared::hclspec::{
    Attr, Default as WithDefault, Literal, Object, Spec, spec,
};

/// Keys of `plugin "navvy-driver" { config { … } }`.
pub const PLUGIN_KEYS: [&str; 9] = [
    "agent_path",
    "cgroup_parent",
    "docker",
    "environments",
    "log_level",
    "processor",
    "processor_ca",
    "reserve",
    "state_dir",
];

/// Of the plugin.
pub fn plugin() -> Spec {
    object(PLUGIN_KEYS.map(|name| (name, attribute(name, "any", false))))
}

/// Of a task.
pub fn task() -> Spec {
    let text = |value: &str| format!("{value:?}");
    object([
        ("task", attribute("task", "string", true)),
        ("processor", attribute("processor", "string", false)),
        ("token_file", with_default("token_file", "string", text(DEFAULT_TOKEN_FILE))),
        ("environment", with_default("environment", "string", text(DEFAULT_ENVIRONMENT))),
        ("pids", attribute("pids", "number", false)),
        ("output", with_default("output", "bool", "false".to_owned())),
    ])
}

fn object<const N: usize>(attributes: [(&str, Spec); N]) -> Spec {
    let attributes = attributes.into_iter().map(|(name, spec)| (name.to_owned(), spec)).collect();
    of(spec::Block::Object(Object { attributes }))
}

fn attribute(name: &str, kind: &str, required: bool) -> Spec {
    of(spec::Block::Attr(Attr { name: name.to_owned(), r#type: kind.to_owned(), required }))
}

/// `default` is an expression of HCL: a text has quotes of its own.
fn with_default(name: &str, kind: &str, default: String) -> Spec {
    let primary = Some(Box::new(attribute(name, kind, false)));
    let default = Some(Box::new(of(spec::Block::Literal(Literal { value: default }))));
    of(spec::Block::Default(Box::new(WithDefault { primary, default })))
}

fn of(block: spec::Block) -> Spec {
    Spec { block: Some(block) }
}
