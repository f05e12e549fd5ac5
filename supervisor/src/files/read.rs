//! A file's bytes to the agent.

use std::io;

use navvy_protocol::supervisor::{Failure, Reply};

use super::data::Sender;
use crate::{failure, sys};

pub fn send(path: &str, sender: &mut Sender<'_>) -> Result<Reply, Failure> {
    copy(path, sender).map_err(|error| failure::of(&error, format_args!("read {path:?}")))?;
    Ok(Reply::Done)
}

fn copy(path: &str, sender: &mut Sender<'_>) -> io::Result<()> {
    let mut file = sys::open_regular(&sys::c_string(path)?)?;
    io::copy(&mut file, sender)?;
    sender.finish()
}
