//! Stories, a file a theme.

// Archives that no packer writes; the archive's own tests make them, too.
#[path = "../../archive/tests/forge/mod.rs"]
mod forge;
#[path = "../../archive/tests/trees/mod.rs"]
mod trees;

mod artifacts;
mod attacks;
mod bad_config;
mod bad_stores;
mod caches;
mod cancel;
mod checkout;
mod config;
mod egress;
mod explain;
mod graph;
mod halfway;
mod handed;
mod hold;
mod host;
mod images;
mod inspect;
mod kill;
mod lacking;
mod logs;
mod odd_environments;
mod orbs;
mod output;
mod people;
mod removals;
mod results;
mod secrets;
mod services;
mod setup;
mod ssh_keys;
mod steps;
mod walls;
mod workspaces;
