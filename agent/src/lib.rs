//! The build agent.
