//! Plain steps to the steps of a job.

use navvy_job::compiled::{Checkout, CheckoutMethod, Step, StepKind, When};

use super::caps;
use super::fields::{At, Fields};
use super::paths;
use super::run;
use crate::diagnostic::Diagnostic;
use crate::keys::tables::{self, CHECKOUT_METHODS, WHENS};
use crate::keys::{Keys, Shape};
use crate::neighbour::nearest;
use crate::resolve::{Action, BuiltIn, Context, PlainStep};
use crate::syntax::{Map, Node};

/// In the order of [`WHENS`].
const WHEN_VALUES: [When; 3] = [When::OnSuccess, When::OnFail, When::Always];

/// `None` when the step is wrong, which has been reported.
pub(super) fn step(context: &Context<'_>, plain: &PlainStep) -> Option<Step> {
    let place = At { context, trail: &plain.trail };
    let origin = place.origin(plain.span);
    match &plain.action {
        Action::Missing { orb, command } => {
            let kind = StepKind::OrbCommand { orb: orb.clone(), command: command.clone() };
            Some(Step { kind, name: format!("{orb}/{command}"), when: When::OnSuccess, origin })
        }
        Action::BuiltIn(built_in) => {
            let kind = kind(place, *built_in, plain)?;
            let name = name(place, &plain.body).unwrap_or_else(|| default_name(&kind));
            let when = when(place, &plain.body).unwrap_or_else(|| default_when(*built_in));
            Some(Step { kind, name, when, origin })
        }
    }
}

fn kind(place: At<'_>, built_in: BuiltIn, plain: &PlainStep) -> Option<StepKind> {
    match built_in {
        BuiltIn::Run => run::run(place, &plain.body, plain.span, false).map(StepKind::Run),
        BuiltIn::Deploy => run::run(place, &plain.body, plain.span, true).map(StepKind::Run),
        _ => with_keys(place, built_in, plain),
    }
}

/// The steps whose body is a closed map or nothing.
fn with_keys(place: At<'_>, built_in: BuiltIn, plain: &PlainStep) -> Option<StepKind> {
    if plain.body.is_broken() {
        return None;
    }
    let empty = Map::default();
    let map = if plain.body.is_null() { &empty } else { body_map(place, built_in, plain)? };
    let fields = Fields { place, map, span: plain.span, owner: owner(built_in) };
    if let Some(keys) = keys(built_in) {
        fields.only(keys);
    }
    match built_in {
        BuiltIn::Checkout => Some(StepKind::Checkout(checkout(&fields))),
        BuiltIn::SetupRemoteDocker => Some(setup_remote_docker(&fields)),
        BuiltIn::SaveCache => save_cache(&fields),
        BuiltIn::RestoreCache => restore_cache(&fields),
        BuiltIn::PersistToWorkspace => persist_to_workspace(&fields),
        BuiltIn::AttachWorkspace => Some(StepKind::AttachWorkspace { at: fields.required_text("at")? }),
        BuiltIn::StoreArtifacts => {
            let destination = fields.text("destination");
            Some(StepKind::StoreArtifacts { path: fields.required_text("path")?, destination })
        }
        BuiltIn::StoreTestResults => Some(StepKind::StoreTestResults { path: fields.required_text("path")? }),
        BuiltIn::AddSshKeys => Some(StepKind::AddSshKeys { fingerprints: fields.texts("fingerprints") }),
        BuiltIn::InstallSigningBundle => Some(StepKind::InstallSigningBundle),
        // Handled above.
        BuiltIn::Run | BuiltIn::Deploy => None,
    }
}

fn body_map<'p>(place: At<'_>, built_in: BuiltIn, plain: &'p PlainStep) -> Option<&'p Map> {
    let map = plain.body.as_map();
    if map.is_none() {
        place.wrong_shape(&plain.body, built_in.key(), "a map");
    }
    map
}

/// The table of a built-in step, whose body is a map.
fn keys(built_in: BuiltIn) -> Option<&'static Keys> {
    tables::STEP.keys.iter().find(|key| key.name == built_in.key()).and_then(|key| match key.shape {
        Shape::Map(keys) => Some(keys),
        _ => None,
    })
}

/// What a step is called in messages; nothing is formatted for steps without a mistake.
fn owner(built_in: BuiltIn) -> &'static str {
    match built_in {
        BuiltIn::Run => "a `run` step",
        BuiltIn::Deploy => "a `deploy` step",
        BuiltIn::Checkout => "a `checkout` step",
        BuiltIn::SetupRemoteDocker => "a `setup_remote_docker` step",
        BuiltIn::SaveCache => "a `save_cache` step",
        BuiltIn::RestoreCache => "a `restore_cache` step",
        BuiltIn::PersistToWorkspace => "a `persist_to_workspace` step",
        BuiltIn::AttachWorkspace => "an `attach_workspace` step",
        BuiltIn::StoreArtifacts => "a `store_artifacts` step",
        BuiltIn::StoreTestResults => "a `store_test_results` step",
        BuiltIn::AddSshKeys => "an `add_ssh_keys` step",
        BuiltIn::InstallSigningBundle => "an `install_signing_bundle` step",
    }
}

fn checkout(fields: &Fields<'_>) -> Checkout {
    let path = fields.text("path");
    let method = fields.text("method");
    if let (Some(node), None | Some("blobless" | "full")) = (fields.get("depth"), method.as_deref()) {
        let method = method.as_deref().unwrap_or("blobless");
        let message = format!("`depth` needs `method: shallow`, but this checkout is `{method}`");
        fields.place.error("exclusive-keys", node.span, message);
    }
    let method = match method.as_deref() {
        None | Some("blobless") => CheckoutMethod::Blobless,
        Some("full") => CheckoutMethod::Full,
        Some("shallow") => CheckoutMethod::Shallow { depth: depth(fields) },
        Some(other) => {
            let span = fields.get("method").map_or(fields.span, |node| node.span);
            let message = format!("there is no checkout method `{other}`");
            let neighbour = nearest(other, CHECKOUT_METHODS);
            fields.place.report(Diagnostic::error("unknown-method", span, message).meant(neighbour));
            CheckoutMethod::Blobless
        }
    };
    Checkout { path, method }
}

fn depth(fields: &Fields<'_>) -> u32 {
    let Some(node) = fields.get("depth") else {
        let told = Diagnostic::error("missing-key", fields.span, "a `shallow` checkout needs `depth`");
        fields.place.report(told.help("`depth: 1` fetches the one commit"));
        return 1;
    };
    let depth = fields.place.integer(node, "depth").unwrap_or(1);
    u32::try_from(depth).ok().filter(|depth| *depth >= 1).unwrap_or_else(|| {
        fields.place.error("out-of-range", node.span, "`depth` must be at least 1");
        1
    })
}

fn setup_remote_docker(fields: &Fields<'_>) -> StepKind {
    let caching = fields.truth("docker_layer_caching").or_else(|| fields.truth("reusable"));
    StepKind::SetupRemoteDocker { docker_layer_caching: caching.unwrap_or(false), version: fields.text("version") }
}

fn save_cache(fields: &Fields<'_>) -> Option<StepKind> {
    let (key, paths) = (fields.required_text("key"), fields.required_texts("paths"));
    paths::check_cache(fields);
    Some(StepKind::SaveCache { key: key?, paths })
}

/// `key` is tried before `keys`.
fn restore_cache(fields: &Fields<'_>) -> Option<StepKind> {
    let keys: Vec<String> = fields.text("key").into_iter().chain(fields.texts("keys")).collect();
    if keys.is_empty() {
        let broken = ["key", "keys"].iter().any(|key| fields.get(key).is_some_and(Node::is_broken));
        if !broken {
            fields.missing("keys");
        }
        return None;
    }
    Some(StepKind::RestoreCache { keys })
}

fn persist_to_workspace(fields: &Fields<'_>) -> Option<StepKind> {
    let (root, paths) = (fields.required_text("root"), fields.required_texts("paths"));
    let root = root?;
    paths::check_workspace(fields, &root);
    Some(StepKind::PersistToWorkspace { root, paths })
}

fn name(place: At<'_>, body: &Node) -> Option<String> {
    let node = body.as_map()?.get("name").filter(|node| !node.is_null())?;
    // An empty name, as a parameter's default may be, does not count.
    let name = place.text(node, "name").filter(|name| !name.is_empty())?;
    caps::check_name(place, "a step", &name, node.span);
    Some(name)
}

fn when(place: At<'_>, body: &Node) -> Option<When> {
    let node = body.as_map()?.get("when").filter(|node| !node.is_null())?;
    let text = place.text(node, "when")?;
    let found = WHENS.into_iter().zip(WHEN_VALUES).find(|(name, _)| *name == text).map(|(_, when)| when);
    if found.is_none() {
        let message = format!("`when` of a step must be `on_success`, `on_fail` or `always`, not `{text}`");
        let neighbour = nearest(&text, WHENS);
        place.report(Diagnostic::error("invalid-when", node.span, message).meant(neighbour));
    }
    found
}

fn default_when(built_in: BuiltIn) -> When {
    match built_in {
        BuiltIn::StoreArtifacts | BuiltIn::StoreTestResults => When::Always,
        _ => When::OnSuccess,
    }
}

fn default_name(kind: &StepKind) -> String {
    let name = match kind {
        StepKind::Run(run) => &run.command,
        StepKind::Checkout(_) => "Checkout code",
        StepKind::SetupRemoteDocker { .. } => "Setup a remote Docker engine",
        StepKind::SaveCache { .. } => "Saving Cache",
        StepKind::RestoreCache { .. } => "Restoring Cache",
        StepKind::PersistToWorkspace { .. } => "Persisting to Workspace",
        StepKind::AttachWorkspace { .. } => "Attaching Workspace",
        StepKind::StoreArtifacts { .. } => "Uploading artifacts",
        StepKind::StoreTestResults { .. } => "Uploading test results",
        StepKind::AddSshKeys { .. } => "Installing additional ssh keys",
        StepKind::InstallSigningBundle => "Installing signing bundle",
        StepKind::OrbCommand { command, .. } => command,
    };
    caps::cut_name(name)
}
