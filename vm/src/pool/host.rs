//! Which host this is, to whoever is far away: machines of one host are of no use on another.

use std::io;

use navvy_journal::owner::Owner;

/// `MACHINE/BOOT`, by the ids that Linux gives both.
///
/// # Errors
/// `/proc` does not say.
pub fn this_host() -> io::Result<String> {
    let Owner { machine, boot, .. } = Owner::this_process()?;
    Ok(format!("{machine}/{boot}"))
}
