//! The Nomad task driver `navvy`.

pub mod proto;
