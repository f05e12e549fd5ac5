//! `navvy-processor`.
#![warn(missing_docs)]

pub mod auth;
pub mod claims;
pub mod conduct;
pub mod state;
