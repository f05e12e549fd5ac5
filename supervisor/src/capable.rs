//! Programs whose file asks for more than a job has.
//!
//! Jobs have no raw sockets (`CAP_NET_RAW`). The kernel does not start a program at all whose file asks for a capability
//! that no process here can have, even where it could do without: Debian's and Ubuntu's `ping` ask for it so, and ping
//! through a socket of the kernel's own for it where they do not get it. What is asked for in vain is taken from the file:
//! of the usual programs at the start, and of every program that is installed later, when its attributes are set.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::sys;
use crate::sys::THREAD_STACK;

const NET_RAW: u64 = 1 << 13;
/// Where packages put programs.
const DIRECTORIES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
/// Programs that images bring with such a file.
const USUAL: [&str; 7] = ["ping", "ping4", "ping6", "arping", "clockdiff", "fping", "mtr-packet"];
/// Header, and two words for each half of the sets.
const LEAST: usize = 20;
/// In the header: the program is given what its file asks for, or is not started.
const EFFECTIVE: u32 = 1;
const ATTRIBUTE: &std::ffi::CStr = c"security.capability";

/// Mends the usual programs, and from a thread what comes later. Nothing to do where raw sockets are to be had.
pub fn keep_startable() {
    let Some(bounds) = bounds().filter(|bounds| bounds & NET_RAW == 0) else { return };
    let mut directories: Vec<PathBuf> = DIRECTORIES.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    directories.sort();
    directories.dedup();
    // Where changes cannot be watched, what is installed later is left as it is.
    let watch = sys::watch_attributes(&directories).ok();
    for directory in &directories {
        USUAL.iter().for_each(|name| mend(&directory.join(name), bounds));
    }
    if let Some(watch) = watch {
        let body = move || follow(&watch, &directories, bounds);
        let _ = std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body);
    }
}

fn follow(watch: &OwnedFd, directories: &[PathBuf], bounds: u64) {
    while let Ok(changed) = sys::changed_names(watch) {
        for name in changed {
            let name = Path::new(std::ffi::OsStr::from_bytes(&name));
            // Which of the directories it was in does not matter: what needs no mending is left.
            directories.iter().for_each(|directory| mend(&directory.join(name), bounds));
        }
    }
}

/// Capabilities beyond which no process here gets any.
fn bounds() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn mend(path: &Path, bounds: u64) {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return;
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else { return };
    let mut bytes = [0; 24];
    let Ok(length) = sys::attribute(&file, ATTRIBUTE, &mut bytes) else { return };
    // Where the file system takes no change, the program stays as it is, and the kernel says why.
    let _ = match within(&bytes[..length], bounds) {
        Mended::AsItIs => Ok(()),
        Mended::Nothing => sys::remove_attribute(&file, ATTRIBUTE),
        Mended::Less(less) => sys::set_attribute(&file, ATTRIBUTE, &less),
    };
}

/// What is left of what a file asks for.
#[derive(Debug, PartialEq, Eq)]
enum Mended {
    AsItIs,
    Nothing,
    Less(Vec<u8>),
}

/// The attribute within these bounds (`struct vfs_cap_data`: header, then permitted and inheritable, low and high).
fn within(bytes: &[u8], bounds: u64) -> Mended {
    let word = |at: usize| bytes.get(at * 4..at * 4 + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes);
    let (Some(header), Some(low), Some(high)) = (word(0), word(1), word(3)) else { return Mended::AsItIs };
    let permitted = u64::from(high) << 32 | u64::from(low);
    if bytes.len() < LEAST || header & EFFECTIVE == 0 || permitted & !bounds == 0 {
        return Mended::AsItIs;
    }
    let left = permitted & bounds;
    if left == 0 {
        return Mended::Nothing;
    }
    let mut less = bytes.to_vec();
    less[4..8].copy_from_slice(&(left as u32).to_le_bytes());
    less[12..16].copy_from_slice(&((left >> 32) as u32).to_le_bytes());
    Mended::Less(less)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(effective: u32, permitted: u64) -> Vec<u8> {
        let words = [0x0200_0000 | effective, permitted as u32, 0, (permitted >> 32) as u32, 0];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_asked_for_in_vain_is_taken_away_and_nothing_else() {
        let bounds = 0xa804_05fb;
        assert_eq!(within(&asks(1, NET_RAW), bounds), Mended::Nothing);
        assert_eq!(within(&asks(1, NET_RAW | 1), bounds), Mended::Less(asks(1, 1)));
        assert_eq!(within(&asks(1, 1 << 38), bounds), Mended::Nothing);
        // It is started without.
        assert_eq!(within(&asks(0, NET_RAW), bounds), Mended::AsItIs);
        assert_eq!(within(&asks(1, 1), bounds), Mended::AsItIs);
        assert_eq!(within(&asks(1, NET_RAW), bounds | NET_RAW), Mended::AsItIs);
        for cut in 0..20 {
            assert_eq!(within(&asks(1, NET_RAW)[..cut], bounds), Mended::AsItIs, "{cut}");
        }
    }
}
