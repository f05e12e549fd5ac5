//! From an error of the kernel to the agent's words.

use std::io;

use navvy_protocol::supervisor::{Failure, FailureKind};

/// What a failed operation on a path means to the agent. `what` reads "cannot …".
pub fn of(error: &io::Error, what: impl std::fmt::Display) -> Failure {
    Failure::new(kind(error), format!("cannot {what}: {}", text(error)))
}

fn kind(error: &io::Error) -> FailureKind {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => return FailureKind::NoSpace,
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => return FailureKind::NotPermitted,
        Some(libc::ENOENT | libc::ENOTDIR) => return FailureKind::NoSuchFile,
        Some(libc::ELOOP | libc::EISDIR | libc::ENAMETOOLONG | libc::EEXIST) => return FailureKind::Invalid,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => FailureKind::Invalid,
        io::ErrorKind::NotFound => FailureKind::NoSuchFile,
        io::ErrorKind::PermissionDenied => FailureKind::NotPermitted,
        _ => FailureKind::Other,
    }
}

/// The kernel's words without Rust's "(os error N)".
pub fn text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// A thread or process that could not be made, usually for want of room below the pids limit.
pub fn no_process(error: &io::Error) -> Failure {
    let advice = match error.raw_os_error() {
        Some(libc::EAGAIN) => "; the environment has as many processes as it may",
        Some(libc::ENOMEM) => "; the environment has no memory left",
        _ => "",
    };
    Failure::new(FailureKind::Other, format!("cannot start a process: {}{advice}", text(error)))
}

pub fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}
