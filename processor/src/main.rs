//! The processor.

fn main() {}
