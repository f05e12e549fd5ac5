//! The build agent and its command line.

pub mod bus;
pub mod checkout;
pub mod environment;
pub mod event;
pub mod output;
pub mod step;
pub mod supervisor;
pub mod ui;
