//! `mask ENV_FILE`: standard input with the secrets of ENV_FILE masked, on standard output. The masker of `navvy run`
//! by itself, for scripts/bench.

use std::io::{Read as _, Write as _};

use navvy_agent::pipeline::read_env_file;
use navvy_output::mask::{MaskedIn, Masks};

/// As much as a terminal or pipe gives at once.
const PIECE: usize = 64 << 10;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("usage: mask ENV_FILE"))?;
    let masks = Masks::new(&read_env_file(path.as_ref())?);
    let mut stream = masks.stream(MaskedIn::of_run("input"));
    let (mut input, mut output) = (std::io::stdin().lock(), std::fs::File::from(rest()?));
    let mut piece = vec![0; PIECE];
    let mut done = Ok(());
    loop {
        match input.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => stream.push(&piece[..length], &mut |bytes| done = output.write_all(bytes)),
            // The last one who had the other end of a terminal open is gone.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        std::mem::replace(&mut done, Ok(()))?;
    }
    stream.finish(&mut |bytes| done = output.write_all(bytes));
    Ok(done?)
}

/// Standard output without its buffer, which would look for newlines.
fn rest() -> std::io::Result<std::os::fd::OwnedFd> {
    std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()
}
