//! Makes the machine what a seed says.
//!
//! ```text
//! clock ─▶ entropy ─▶ machine id, host name ─▶ volumes ─▶ files, keys ─▶ network ─▶ sockets, port ─▶ services
//! ```
//!
//! No step of a job has run by now: what is written here is followed through no link of a job's.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navvy_protocol::guest::{MUX_PORT, Seed};

use super::check::{self, Checked};
use super::{Guest, Settings, find, network, port, spawn, volume};
use crate::{control, failure, kernel, sys, users};

/// As whom steps run in our images, where an image does not say.
const USER: &str = "circleci";
/// Where an image says so.
const USER_FILE: &str = "/etc/navvy/user";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
/// A machine that has a seed's port has this one, too.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// A seed that could not be applied.
pub enum Refusal {
    /// Nothing was touched.
    Untouched(String),
    /// It was applied in part.
    Half(String),
}

/// Applies a seed that came at `arrived`. `has_port`: the agent will speak on the machine's own port.
pub fn apply(guest: &Arc<Guest>, seed: &Seed, arrived: Instant, has_port: bool) -> Result<(), Refusal> {
    let checked = check::check(seed).map_err(|why| Refusal::Untouched(format!("the seed is refused: {why}")))?;
    let half =
        |what: &'static str| move |error: io::Error| Refusal::Half(format!("cannot {what}: {}", failure::text(&error)));
    let is_trial = guest.settings.is_trial;
    if !is_trial {
        become_itself(&checked, arrived).map_err(half("set the clock, random numbers and host name"))?;
        mount_volumes(guest, seed)?;
    }
    let place = &guest.settings;
    write_names(place, seed).map_err(half("write the machine's names"))?;
    write_keys(place, seed).map_err(half("write the machine's ssh keys"))?;
    for file in &seed.files {
        write(&place.below_root(&file.path), file.mode, file.text.as_bytes())
            .map_err(|error| Refusal::Half(format!("cannot write {:?}: {}", file.path, failure::text(&error))))?;
    }
    if let Some(network) = &checked.network {
        write(&place.below_root("/etc/resolv.conf"), 0o644, network::resolver(network).as_bytes())
            .map_err(half("write /etc/resolv.conf"))?;
        if !is_trial {
            network::apply(network).map_err(half("set the network up"))?;
        }
    }
    serve(guest, seed, has_port).map_err(half("serve the agent"))?;
    if is_trial { Ok(()) } else { start_services(guest, seed).map_err(half("start the machine's services")) }
}

fn become_itself(checked: &Checked<'_>, arrived: Instant) -> io::Result<()> {
    kernel::set_clock(Duration::from_nanos(checked.seed.time_ns) + arrived.elapsed())?;
    kernel::add_entropy(&File::open("/dev/random")?, &checked.entropy)?;
    kernel::set_host_name(&checked.seed.host_name)
}

fn mount_volumes(guest: &Guest, seed: &Seed) -> Result<(), Refusal> {
    // An engine that was warmed for a snapshot would go on using what lies below.
    let restarts = !seed.volumes.is_empty() || !seed.variables.is_empty();
    if restarts && guest.services.has_docker() {
        let stopped = guest.services.stop_docker();
        stopped.map_err(|error| Refusal::Half(format!("cannot stop the Docker engine: {}", failure::text(&error))))?;
    }
    for each in &seed.volumes {
        volume::mount(each).map_err(|error| {
            Refusal::Half(format!(
                "cannot mount the disk {:?} at {:?}: {}",
                each.serial,
                each.path,
                failure::text(&error)
            ))
        })?;
    }
    Ok(())
}

fn write_names(place: &Settings, seed: &Seed) -> io::Result<()> {
    let name = &seed.host_name;
    write(&place.below_root("/etc/machine-id"), 0o444, format!("{}\n", seed.machine_id).as_bytes())?;
    write(&place.below_root("/etc/hostname"), 0o644, format!("{name}\n").as_bytes())?;
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n");
    write(&place.below_root("/etc/hosts"), 0o644, hosts.as_bytes())
}

fn write_keys(place: &Settings, seed: &Seed) -> io::Result<()> {
    if let Some(key) = &seed.host_key {
        remove_host_keys(&place.below_root("/etc/ssh"));
        write(&place.below_root(HOST_KEY), 0o600, key.as_bytes())?;
    }
    if seed.authorized_keys.is_empty() {
        return Ok(());
    }
    let said = fs::read_to_string(place.below_root(USER_FILE)).ok();
    let name = said.as_deref().map_or(USER, str::trim);
    let user = users::look_up(Some(name)).map_err(io::Error::other);
    // In a trial the user is nobody's.
    let user = if place.is_trial { None } else { Some(user?) };
    let home = user.as_ref().map_or("/home/trial", |user| &user.home);
    let directory = place.below_root(home).join(".ssh");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let file = directory.join("authorized_keys");
    let lines: String = seed.authorized_keys.iter().map(|line| format!("{line}\n")).collect();
    write(&file, 0o600, lines.as_bytes())?;
    for made in [&directory, &file] {
        user.as_ref().map_or(Ok(()), |user| chown(made, Some(user.uid), Some(user.gid)))?;
    }
    Ok(())
}

/// No key of the image's, or of another machine's, is offered beside the one that the host knows.
fn remove_host_keys(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            // One that stays is not in the server's settings.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file of uid 0's, whole or not at all.
fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut beside = PathBuf::from(path).into_os_string();
    beside.push(".navvy");
    // What a seed that was broken off has left.
    let _ = fs::remove_file(&beside);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    drop(file);
    match fs::rename(&beside, path) {
        // Something is mounted there, as systemd does with a machine id that is not set.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let _ = fs::remove_file(&beside);
            fs::write(path, bytes)
        }
        renamed => renamed,
    }
}

fn serve(guest: &Arc<Guest>, seed: &Seed, has_port: bool) -> io::Result<()> {
    let init = &guest.init;
    // A second seed does not come this far.
    init.secret.set(seed.secret.clone()).unwrap_or_default();
    // The machine has waited for its seed, maybe for long: it is left alone from now on.
    drop(init.presences.enter(1));
    let limit = (seed.idle_limit_s > 0).then(|| Duration::from_secs(seed.idle_limit_s));
    control::listen(init, &guest.settings.run_dir, limit)?;
    if has_port {
        let port = find::open(MUX_PORT, guest.settings.mux_port.as_deref(), PORT_LIMIT)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the machine has no port {MUX_PORT}")))?;
        let agents = control::take_from_the_agent(init)?;
        let guest = Arc::clone(guest);
        spawn(move || port::serve(port, agents, &guest.is_told))?;
    }
    Ok(())
}

fn start_services(guest: &Guest, seed: &Seed) -> io::Result<()> {
    if seed.docker {
        guest.services.start_docker(&seed.variables)?;
    }
    if seed.host_key.is_some() {
        guest.services.start_ssh(&seed.variables)?;
    }
    Ok(())
}

/// The machine's clock, in nanoseconds since 1970.
pub fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

const _: () = assert!(sys::THREAD_STACK >= 256 << 10, "reading a disk's front takes 16 KiB of it");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/file");
        write(&path, 0o640, b"one").unwrap();
        write(&path, 0o600, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let other = directory.path().join("other");
        fs::write(&other, "kept").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write(&path, 0o600, b"three").unwrap();
        assert_eq!((fs::read(&other).unwrap(), fs::read(&path).unwrap()), (b"kept".to_vec(), b"three".to_vec()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
