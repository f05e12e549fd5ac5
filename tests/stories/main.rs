//! Stories, a file a theme.

// Archives that no packer writes; the archive's own tests make them, too.
#[path = "../../archive/tests/forge/mod.rs"]
mod forge;
#[path = "../../archive/tests/trees/mod.rs"]
mod trees;

mod artifacts;
mod attacks;
mod background;
mod bad_config;
mod bad_stores;
mod caches;
mod cancel;
mod checkout;
mod client_config;
mod config;
mod consent;
mod egress;
mod elsewhere;
mod explain;
mod field;
mod fleet;
mod fleet_adoption;
mod fleet_attacks;
mod fleet_cancel;
mod fleet_disasters;
mod fleet_faults;
mod fleet_operation;
mod fleet_results;
mod full_output;
mod graph;
mod halfway;
mod handed;
mod hold;
mod homes;
mod host;
mod host_setup;
mod hostile_repositories;
mod images;
mod inodes;
mod inspect;
mod kill;
mod lacking;
mod logs;
mod names;
mod neighbours;
mod no_branch;
mod odd_environments;
mod orbs;
mod output;
mod people;
mod removals;
mod results;
mod scale_down;
mod scheduled;
mod scheduled_shell;
mod secrets;
mod services;
mod settings;
mod setup;
mod ssh_keys;
mod steps;
mod unreadable;
mod waiting;
mod walls;
mod workspaces;
