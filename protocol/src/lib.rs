//! What crosses a wire: codecs that take bytes and yield messages. No sockets, no runtime.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | the envelope: length-capped, typed frames |
//! | [`guest`] | what a virtual machine and its host say before the first step |
//! | [`supervisor`] | the messages between agent and supervisor |
//! | [`in_job`] | the few questions that a job may put to its supervisor |
//! | [`mux`] | many activities over one byte stream, for `navvy-supervisor dial` |
//! | [`place`] | where the supervisor's files are inside an environment |
//! | `processor` | what agents and processors say to each other (gRPC); with the feature `processor` alone |
//! | `api` | what people and their programs say to a processor (JSON over HTTP); with the same feature |

#![warn(missing_docs)]

#[cfg(feature = "processor")]
pub mod api;
pub mod frame;
pub mod guest;
pub mod in_job;
pub mod mux;
pub mod place;
#[cfg(feature = "processor")]
pub mod processor;
pub mod supervisor;
