//! Machines that are ready before somebody wants them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`rules`], [`cron`] | what an operator asks for, and how many machines that means now (pure) |
//! | [`record`] | what is written down of a machine, before it is done |
//! | [`core`] | what is decided: happenings in, effects out (pure) |
//! | [`shelf`] | the records on disk |
//! | [`maker`] | what is needed of whoever makes the machines |
//! | [`keeper`] | the pool's process |
//! | [`door`] | a unix socket, for agents of this host |
//! | [`source`] | what a taker sees of a pool, wherever the pool is |
//! | [`figures`] | what it tells of itself |
//! | [`host`] | which host this is

pub mod core;
pub mod cron;
pub mod door;
pub mod figures;
pub mod host;
pub mod keeper;
pub mod maker;
pub mod record;
pub mod rules;
pub mod shelf;
pub mod source;
