//! Jobs in Docker containers.
