//! The machine's link: its addresses, its route, its name servers. By ioctl, since images need not have programs for it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::kernel::Link;

use super::check::CheckedNetwork;

const LINKS: &str = "/sys/class/net";
const LIMIT: Duration = Duration::from_secs(10);

/// Gives the machine's one link what the seed says; a snapshot brings the link address of another machine.
pub fn apply(network: &CheckedNetwork) -> io::Result<()> {
    let link = Link::new(&await_link()?)?;
    link.set_up(false)?;
    link.set_link_address(network.link_address)?;
    link.set_address(network.address, network.prefix)?;
    link.set_up(true)?;
    network.gateway.map_or(Ok(()), |gateway| link.add_default_route(gateway))
}

/// The text of `/etc/resolv.conf`.
pub fn resolver(network: &CheckedNetwork) -> String {
    network.name_servers.iter().map(|server| format!("nameserver {server}\n")).collect()
}

fn await_link() -> io::Result<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match find(Path::new(LINKS)) {
            Some(name) => return Ok(name),
            None if Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the machine has no network link"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The first link that is a device: bridges and the loopback are none.
fn find(links: &Path) -> Option<String> {
    let links = fs::read_dir(links).ok()?.flatten();
    let devices = links.filter(|link| link.path().join("device").exists());
    devices.filter_map(|link| link.file_name().into_string().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_the_first_device() {
        let links = tempfile::tempdir().unwrap();
        assert_eq!(find(links.path()), None);
        for (name, device) in [("lo", false), ("docker0", false), ("eth1", true), ("eth0", true)] {
            let link = links.path().join(name);
            fs::create_dir(&link).unwrap();
            if device {
                fs::create_dir(link.join("device")).unwrap();
            }
        }
        assert_eq!(find(links.path()).unwrap(), "eth0");
    }
}
