//! Which resource classes an executor knows.

use navvy_job::compiled::Executor;
use navvy_job::resource::{docker_class, docker_class_names, is_self_hosted, machine_class, machine_class_names};

use super::fields::At;
use crate::diagnostic::Diagnostic;
use crate::neighbour::nearest;
use crate::syntax::Node;

/// Machines that Navvy knows by name only.
const OTHER_MACHINES: [&str; 19] = [
    "windows.medium",
    "windows.large",
    "windows.xlarge",
    "windows.2xlarge",
    "windows.arm.medium",
    "windows.arm.large",
    "windows.arm.xlarge",
    "windows.arm.2xlarge",
    "gpu.nvidia.small",
    "gpu.nvidia.small.gen2",
    "gpu.nvidia.small.multi",
    "gpu.nvidia.medium",
    "gpu.nvidia.medium.multi",
    "gpu.nvidia.large",
    "gpu.nvidia.large.multi",
    "windows.gpu.nvidia.medium",
    "windows.gpu.nvidia.small",
    "windows.gpu.nvidia.small.gen2",
    "windows.gpu.nvidia.small.multi",
];

const MACOS: [&str; 4] = ["m4pro.medium", "m4pro.large", "m2pro.medium", "m2pro.large"];

/// Once offered, or found in configs in use; Navvy runs no macOS itself.
const RETIRED_MACOS: [&str; 11] = [
    "small",
    "medium",
    "medium+",
    "large",
    "xlarge",
    "macos.x86.medium.gen2",
    "macos.x86.metal.gen1",
    "macos.m1.medium.gen1",
    "macos.m1.large.gen1",
    "macos.m2.medium.gen1",
    "macos.m2.large.gen1",
];
const RETIRED_MACHINES: [&str; 5] = ["small", "medium+", "gpu.small", "gpu.medium", "gpu.large"];

/// As many names as fit a line.
const SHOWN: usize = 8;

/// The class as written, if the executor has it. An unknown one is an error.
pub(super) fn class(place: At<'_>, node: &Node, executor: &Executor) -> Option<String> {
    let name = place.text(node, "resource_class")?;
    if is_self_hosted(&name) || is_known(&name, executor) {
        return Some(name);
    }
    if retired(executor).contains(&&*name) {
        let message = format!("resource class `{name}` is no longer offered for {}", executor.kind());
        place.report(Diagnostic::warning("retired-resource-class", node.span, message));
        return Some(name);
    }
    let message = format!("there is no resource class `{name}` for executor {}", executor.kind());
    let known = known(executor);
    let diagnostic = Diagnostic::error("unknown-resource-class", node.span, message);
    place.report(match nearest(&name, known.iter().copied()) {
        Some(neighbour) => diagnostic.meant(Some(neighbour)),
        None => diagnostic.help(format!("known are {} and more", known[..known.len().min(SHOWN)].join(", "))),
    });
    None
}

fn is_known(name: &str, executor: &Executor) -> bool {
    match executor {
        Executor::Docker { .. } => docker_class(name).is_some(),
        Executor::Machine { .. } => machine_class(name).is_some() || OTHER_MACHINES.contains(&name),
        Executor::Macos { .. } => MACOS.contains(&name),
    }
}

fn known(executor: &Executor) -> Vec<&'static str> {
    match executor {
        Executor::Docker { .. } => docker_class_names().collect(),
        Executor::Machine { .. } => machine_class_names().chain(OTHER_MACHINES).collect(),
        Executor::Macos { .. } => MACOS.to_vec(),
    }
}

fn retired(executor: &Executor) -> &'static [&'static str] {
    match executor {
        Executor::Docker { .. } => &[],
        Executor::Machine { .. } => &RETIRED_MACHINES,
        Executor::Macos { .. } => &RETIRED_MACOS,
    }
}
