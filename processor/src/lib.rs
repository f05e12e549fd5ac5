//! `navvy-processor`: takes configs, hands out tasks, takes their output, grants storage.
//!
//! ```text
//! people ─▶ web ──┐                 ┌─▶ conduct: compile, walk, events
//!                 ├─▶ auth ─▶ claims┤
//! agents ─▶ grpc ─┘      │          └─▶ state (SQL)
//!                        ├─▶ output: live, segments, readers ─┐
//!                        └─▶ grants: the store's verbs, URLs ─┴─▶ store
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`serve`], [`settings`], [`backup`] | the program and its operator's words |
//! | [`door`], [`tls`] | connections, before anybody has said who they are |
//! | [`grpc`] | what agents say (`navvy.processor.v1`) |
//! | [`web`], [`probes`], [`disks`], [`figures`] | what people and operators' machines say |
//! | [`telemetry`] | what other machines are told: figures, spans |
//! | [`auth`], [`audit`] | who asks, and what for; who did what |
//! | [`conduct`] | pipelines: compiled, walked, told |
//! | [`claims`] | tasks: taken, kept by a lease, ended; secrets |
//! | [`launch`] | agents started for tasks, through Nomad |
//! | [`machines`] | machines that are ready before a job wants them |
//! | [`output`] | logs: live, durable, read |
//! | [`grants`] | one object, one verb, some minutes |
//! | [`state`] | the database |

#![warn(missing_docs)]

pub mod audit;
pub mod auth;
pub mod backup;
pub mod claims;
pub mod conduct;
pub mod disks;
pub mod door;
pub mod figures;
pub mod grants;
pub mod grpc;
pub mod keep;
pub mod keys;
pub mod known;
pub mod launch;
pub mod machines;
pub mod output;
pub mod probes;
pub mod serve;
pub mod settings;
pub mod silent;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod web;
