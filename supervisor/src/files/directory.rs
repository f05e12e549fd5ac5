//! Making a directory that the job shall own, also where only uid 0 can.
//!
//! First as the user, as `mkdir -p` would. Only where that is forbidden uid 0 makes the rest, component by component
//! below open descriptors: a link counts only if uid 0 made it, so that a job cannot send us elsewhere.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;

use navvy_protocol::supervisor::Failure;

use crate::failure;
use crate::sys::{self, at};
use crate::users::User;

/// Mode of every directory that we make for a job and that no archive describes, under any umask.
pub const MODE: u32 = 0o755;

/// Makes a directory with its parents.
pub fn builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(MODE);
    builder
}

/// Makes the directory, in a child of uid 0.
pub fn make(path: &str, user: &User) -> Result<(), Failure> {
    sys::set_umask(0);
    let explain =
        |error: io::Error| failure::of(&error, format_args!("make directory {path:?} for user {}", user.shown()));
    sys::act_as_user(user.uid, user.gid, &user.groups).map_err(explain)?;
    let made = builder().create(path);
    sys::become_root_again();
    match made {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
            make_as_root(path, user).map_err(explain)
        }
        other => other.map_err(explain),
    }
}

fn make_as_root(path: &str, user: &User) -> io::Result<()> {
    let mut directory = open(None, "/", libc::O_DIRECTORY)?;
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        directory = match enter(&directory, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_one(&directory, name, user)?,
            other => other?,
        };
    }
    Ok(())
}

fn open(directory: Option<&OwnedFd>, name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let name = sys::c_string(name)?;
    match directory {
        Some(directory) => at::open(directory, &name, libc::O_PATH | flags, 0),
        None => std::fs::File::open("/").map(OwnedFd::from),
    }
}

fn enter(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let strict = open(Some(directory), name, libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let is_link = matches!(&strict, Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)));
    if !is_link {
        return strict;
    }
    if at::link_owner(directory, &sys::c_string(name)?)? != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} in it is a link or file of a user, through which uid 0 does not go"),
        ));
    }
    open(Some(directory), name, libc::O_DIRECTORY)
}

fn make_one(directory: &OwnedFd, name: &str, user: &User) -> io::Result<OwnedFd> {
    let text = sys::c_string(name)?;
    at::make_directory(directory, &text, MODE)?;
    let made = open(Some(directory), name, libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    at::change_owner(&made, c"", user.uid, user.gid)?;
    Ok(made)
}
