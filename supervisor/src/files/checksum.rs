//! SHA-256 of files.

use std::io::{self, Read as _};

use navvy_protocol::supervisor::{Failure, Reply};
use sha2::{Digest as _, Sha256};

use crate::{failure, sys};

pub fn of(paths: &[String]) -> Result<Reply, Failure> {
    let sha256 = paths
        .iter()
        .map(|path| digest(path).map_err(|error| failure::of(&error, format_args!("read {path:?}"))))
        .collect::<Result<_, _>>()?;
    Ok(Reply::Checksums { sha256 })
}

fn digest(path: &str) -> io::Result<String> {
    let mut file = sys::open_regular(&sys::c_string(path)?)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}
