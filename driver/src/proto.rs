//! Nomad's plugin protocol as code: generated from `proto/`, a module for each part of a package's name.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/proto.rs"));
