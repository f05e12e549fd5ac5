//! Live environments made of what a job asks for.

pub mod docker;
