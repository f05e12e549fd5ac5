//! A file descriptor that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for it.
///
/// # Errors
/// The kernel cannot wait for it.
#[expect(unsafe_code, reason = "the runtime takes any type that has a descriptor, and asks for a promise about it")]
pub fn ready(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names the same open descriptor, which lives until it is dropped; the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(Into::into)
}
