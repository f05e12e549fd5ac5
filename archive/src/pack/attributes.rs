//! Extended attributes of an open file: those of users. Others (capabilities, labels, access lists) are the machine's.

use std::os::fd::BorrowedFd;

use rustix::fs::{fgetxattr, flistxattr};

/// Those that a user may set.
pub const SPACE: &[u8] = b"user.";
/// What the kernel lets a file have in all.
const LIST_CAP: usize = 64 << 10;

/// Sorted by name. What cannot be read has none.
pub fn read(file: BorrowedFd<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut small = [0; 1024];
    let names = match flistxattr(file, &mut small[..]) {
        Ok(0) => return Vec::new(),
        Ok(length) => small[..length].to_vec(),
        Err(rustix::io::Errno::RANGE) => whole(|buffer| flistxattr(file, buffer)),
        Err(_) => return Vec::new(),
    };
    let names = names.split(|byte| *byte == 0).filter(|name| name.starts_with(SPACE) && !name.contains(&b'='));
    let mut found: Vec<_> = names.map(|name| (name.to_vec(), whole(|buffer| fgetxattr(file, name, buffer)))).collect();
    found.sort();
    found
}

fn whole(read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> Vec<u8> {
    let mut buffer = vec![0; LIST_CAP];
    let length = read(&mut buffer).unwrap_or(0);
    buffer.truncate(length);
    buffer
}
