//! Ports that several services of a job would listen on, in the one network that they share.

use std::collections::{BTreeMap, BTreeSet};

use navvy_job::compiled::Container;

use super::{Pair, PlanError, cut, service_title};

/// So many of a kind are named in one line; the rest is counted.
const NAMED: usize = 3;
/// Characters of a port in a line: `65535/sctp` has ten, an image's config may hold anything.
const LONGEST_PORT: usize = 20;

/// The named services whose images expose a port, where these are several. An image may expose thousands.
pub(super) struct Clashes<'a>(BTreeMap<&'a str, Vec<&'a Container>>);

impl<'a> Clashes<'a> {
    pub fn of(services: &[Pair<'a>]) -> Self {
        let mut by_port: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for (container, image) in services.iter().filter(|(container, _)| container.name.is_some()) {
            let ports: BTreeSet<&str> = image.exposed_ports.iter().map(String::as_str).collect();
            ports.into_iter().for_each(|port| by_port.entry(port).or_default().push(container));
        }
        by_port.retain(|_, containers| containers.len() > 1);
        Self(by_port)
    }

    /// Two that are sure to get into each other's way.
    pub fn check(&self) -> Result<(), PlanError> {
        for (port, containers) in &self.0 {
            let mut sure = containers.iter().filter(|container| !may_listen_elsewhere(container));
            if let (Some(first), Some(second)) = (sure.next(), sure.next()) {
                let (first, second) = (service_title(first), service_title(second));
                return Err(PlanError::PortClash { first, second, port: cut(port, LONGEST_PORT) });
            }
        }
        Ok(())
    }

    /// What the report says of the others: one line, however many they are.
    pub fn note(&self) -> Option<String> {
        let (port, containers) = self.0.first_key_value()?;
        if let ([first, second], 1) = (&containers[..], self.0.len()) {
            let (first, second, port) = (service_title(first), service_title(second), cut(port, LONGEST_PORT));
            return Some(format!(
                "Services {first} and {second} may both listen on port {port}; they share one network"
            ));
        }
        let names: BTreeSet<String> = self.0.values().flatten().map(|container| service_title(container)).collect();
        let ports = some(self.0.keys().map(|port| cut(port, LONGEST_PORT)), self.0.len());
        let count = names.len();
        let names = some(names.into_iter(), count);
        Some(format!("Several services may listen on the same ports, and share one network: {names}, on {ports}"))
    }
}

/// The first few of `count`, and how many more there are.
fn some(mut all: impl Iterator<Item = String>, count: usize) -> String {
    let named = all.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A service that the config tells how to run may well listen elsewhere than its image says.
fn may_listen_elsewhere(container: &Container) -> bool {
    container.command.is_some()
        || container.entrypoint.is_some()
        || container.environment.iter().any(|(name, _)| name.to_ascii_uppercase().contains("PORT"))
}
