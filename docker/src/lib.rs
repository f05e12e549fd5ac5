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
//! | [`endpoint`] | which engine: found as the docker CLI finds it (pure) |
//! | `create` | plan to API requests; the only place that knows both |
//! | [`image`], [`mod@reference`], `credentials` | images: here or pulled, by whose name |
//! | [`proxies`] | what docker's config file gives containers |
//! | [`network`], [`walls`] | the one bridge that all tasks share, and what it keeps from them |
//! | `allow` | the way through the walls for what is allowed |
//! | `dial` | the way to the supervisor through the engine |
//! | [`prepare`], [`environment`], `services`, [`destroy`] | a task's containers from nothing to nothing |
//! | `trial` | a try whether jobs can run here at all |
//! | `disk` | the engine's disk, watched while tasks run |
//! | `adopt` | an environment that outlived its agent, taken up again |
//! | [`survey`], [`hold`] | tasks on this host: what is dead is removed, what is kept is spared, and taken over |

#![warn(missing_docs)]

mod adopt;
mod allow;
mod create;
mod credentials;
mod destroy;
mod dial;
mod disk;
pub mod endpoint;
mod engine;
mod environment;
mod fault;
pub mod hold;
mod image;
pub mod network;
mod prepare;
pub mod proxies;
mod reference;
mod report;
mod services;
pub mod survey;
mod trial;
mod upload;
pub mod walls;

pub use credentials::missing_helpers as missing_credential_helpers;
pub use engine::{Engine, EngineError, EngineInfo};
pub use environment::DockerEnvironment;
pub use image::ImageSubstitutions;
pub use prepare::PrepareError;
pub use trial::TrialError;
