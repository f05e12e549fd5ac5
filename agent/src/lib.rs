//! The build agent and its command line.

pub mod checkout;
pub mod environment;
pub mod event;
pub mod supervisor;
pub mod ui;
