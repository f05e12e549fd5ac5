//! The path of every object. `docs/storage.md` has the same list with what each holds.
//!
//! ```text
//! v1/cache/NAMESPACE/KEY…/,DIGEST            index object of a cache
//! v1/piece/KIND/NAMESPACE/GROUP/PRODUCER/NODE-STEP   of a workspace layer, of artifacts, of test results
//! v1/body/ID                                 what was uploaded
//! v1/reserved/ID                             an upload that is not committed yet, with its index path
//! v1/quarantine/ID                           an entry that was put aside, and why
//! v1/if-absent, v1/clock                     what the store was asked about itself
//! ```

use navvy_job::claim::TrustScope;

use super::key;
use super::record::{BodyId, Piece, PieceKind, Slot};

pub const ROOT: &str = "v1";
/// Beside the rest, where operators look for it.
pub const AUDIT: &str = "audit-logs/audit_log/v1";
pub const LOGS: &str = "v1/log";
pub const TREES: &str = "v1/tree";
pub const BODIES: &str = "v1/body";
pub const RESERVED: &str = "v1/reserved";
pub const QUARANTINE: &str = "v1/quarantine";
pub const IF_ABSENT: &str = "v1/if-absent";
/// Directory of workspace layers, in every namespace.
pub const LAYERS: &str = "v1/piece/layer";
pub const CLOCK: &str = "v1/clock";

/// What stands around a key's text in its path: `v1/cache/`, namespace, two slashes, commas and digest.
pub const AROUND_KEY: usize = "v1/cache/".len() + 32 + 2 + 2 + 32;

/// Who shares entries with whom: one project's one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace of this scope of this project.
    pub fn new(project: &str, scope: &TrustScope) -> Self {
        Self(key::digest(format!("{}:{project}:{scope}", project.len()).as_bytes()))
    }
}

pub fn body(id: BodyId) -> String {
    format!("{BODIES}/{id}")
}

pub fn reserved(id: BodyId) -> String {
    format!("{RESERVED}/{id}")
}

pub fn quarantine(id: BodyId) -> String {
    format!("{QUARANTINE}/{id}")
}

pub fn caches(namespace: &Namespace) -> String {
    format!("v1/cache/{}", namespace.0)
}

/// The index object of `place`. `limit`: see [`key::path`].
pub fn index(namespace: &Namespace, place: &Slot, limit: usize) -> String {
    match place {
        Slot::Cache { key } => format!("{}/{}", caches(namespace), key::path(key, limit)),
        Slot::Piece(piece) => {
            let Piece { of, group, producer, node, step } = piece;
            // Leading zeros: the order of names is the order of numbers.
            format!("{}/{node:010}-{step:010}", producer_dir(namespace, *of, group, producer))
        }
    }
}

pub fn group_dir(namespace: &Namespace, kind: PieceKind, group: &str) -> String {
    let kind = match kind {
        PieceKind::Layer => "layer",
        PieceKind::Artifacts => "artifacts",
        PieceKind::TestResults => "results",
    };
    format!("v1/piece/{kind}/{}/{}", namespace.0, key::digest(group.as_bytes()))
}

pub fn producer_dir(namespace: &Namespace, kind: PieceKind, group: &str, producer: &str) -> String {
    format!("{}/{}", group_dir(namespace, kind, group), key::digest(producer.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_and_scopes_do_not_run_together() {
        let of = |project: &str, scope: &str| Namespace::new(project, &scope.parse().unwrap());
        assert_ne!(of("a", "fork:trusted"), of("a", "trusted"));
        assert_ne!(of("a", "fork:b:trusted"), of("a:fork:b", "trusted"));
        assert_ne!(of("a", "trusted"), of("b", "trusted"));
    }

    #[test]
    fn the_room_around_a_key_is_counted_right() {
        let namespace = Namespace::new("p", &TrustScope::Trusted);
        let path = index(&namespace, &Slot::Cache { key: "k".repeat(2000) }, 300);
        assert!(path.len() <= 300 + AROUND_KEY, "{}", path.len());
    }
}
