//! The build agent and its command line.

pub mod bus;
pub mod chain;
pub mod checkout;
pub mod cli;
pub mod doctor;
pub mod environment;
pub mod event;
pub mod output;
pub mod pipeline;
pub mod settings;
pub mod step;
pub mod supervisor;
pub mod task;
pub mod ui;
