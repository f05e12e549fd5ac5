//! Jobs in Docker containers.
//!
//! ```text
//! Engine::connect ─▶ Engine::prepare ─▶ DockerEnvironment ─▶ destroy
//!                     │ images here? pull  │ link()          │ from any half-made state;
//!                     │ plan (pure)        │ take_services() │ Engine::remove_task does the
//!                     │ create, start      │ primary_died()  │ same by labels alone
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`engine`] | a connection to an engine, and what it says about itself |
//! | [`plan`] | the container plan (pure) |
//! | `create` | plan to API requests; the only place that knows both |
//! | [`image`], [`mod@reference`], `credentials` | images: here or pulled, by whose name |
//! | [`proxies`] | what docker's config file gives containers |
//! | [`network`], [`walls`] | the one bridge that all tasks share, and what it keeps from them |
//! | [`allow`] | what of this host, or of what is closed, a run's jobs may reach all the same |
//! | [`cgroup`] | the task's parent cgroup, where it can be had |
//! | [`supervisor_binary`], [`run_dir`] | what is mounted into the primary container |
//! | [`link`], `dial` | the ways to the supervisor |
//! | [`prepare`], [`environment`], [`services`], [`destroy`] | a task's containers from nothing to nothing |
//! | `disk` | the engine's disk, watched while tasks run |
//! | `adopt` | an environment that outlived its agent, taken up again |
//! | [`survey`], [`hold`] | tasks on this host: what is dead is removed, what is kept is spared, and taken over |

mod adopt;
pub mod allow;
pub mod cgroup;
mod create;
mod credentials;
pub mod destroy;
mod dial;
mod disk;
pub mod engine;
pub mod environment;
mod fault;
pub mod hold;
pub mod image;
pub mod link;
pub mod network;
pub mod plan;
pub mod prepare;
pub mod proxies;
pub mod reference;
mod report;
pub mod run_dir;
pub mod services;
pub mod supervisor_binary;
pub mod survey;
mod upload;
pub mod walls;

pub use adopt::{Inheritance, shared_link};
pub use credentials::missing_helpers as missing_credential_helpers;
pub use engine::{Engine, EngineError, EngineInfo};
pub use environment::{Died, DockerEnvironment};
pub use image::{ImageSubstitutions, PullPolicy};
pub use prepare::{Blame, Prepare, PrepareError, PrepareEvent};
pub use services::{ServiceEnd, ServiceOutput};
