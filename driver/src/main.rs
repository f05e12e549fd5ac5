//! `navvy-driver`: started by a Nomad agent.

fn main() {}
