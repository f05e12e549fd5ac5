//! Disks beside the root: found by their serial numbers, given a file system where they are empty, and mounted.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use navvy_protocol::guest::Volume;

use super::program;
use crate::kernel;

const BLOCKS: &str = "/sys/block";
/// A disk that was attached a moment ago shows up late.
const FOUND_LIMIT: Duration = Duration::from_secs(20);
const MKFS_LIMIT: Duration = Duration::from_secs(120);
/// In front of any file system that there is.
const LOOKED_AT: usize = 1 << 20;
/// Of ext4's superblock, and what stands there.
const MAGIC_AT: usize = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];

pub fn mount(volume: &Volume) -> io::Result<()> {
    let device = await_device(&volume.serial)?;
    match contents(&device)? {
        Contents::Ext4 => {}
        Contents::Nothing => {
            let path = device.to_string_lossy();
            program::run(&["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", &path], MKFS_LIMIT)?;
        }
        Contents::Strange => {
            let what = "it holds something that is not an ext4 file system, and is not overwritten";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
    let target = Path::new(&volume.path);
    fs::create_dir_all(target)?;
    kernel::mount(&device.to_string_lossy(), target, "ext4", libc::MS_NOATIME, "")?;
    grow(&device, target)
}

/// Makes a mounted ext4 file system as large as its disk.
pub fn grow(device: &Path, mounted: &Path) -> io::Result<()> {
    let directory = File::open(mounted)?;
    let size = kernel::device_size(&File::open(device)?)?;
    let (block, count) = kernel::blocks(&directory)?;
    // What the file system keeps for itself is not among its blocks; a group more or less is not worth the work.
    const WORTHWHILE: u64 = 256 << 20;
    if size <= (block * count).saturating_add(WORTHWHILE).saturating_add(size / 16) {
        return Ok(());
    }
    kernel::resize_ext4(&directory, size / block)
}

fn await_device(serial: &str) -> io::Result<PathBuf> {
    let deadline = Instant::now() + FOUND_LIMIT;
    loop {
        match find(Path::new(BLOCKS), serial).filter(|device| device.exists()) {
            Some(device) => return Ok(device),
            None if Instant::now() >= deadline => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "no disk of the machine has this serial number"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Of virtio disks and of NVMe's, some of which leave out hyphens (a cloud's `vol-0123` is `vol0123`).
fn find(blocks: &Path, serial: &str) -> Option<PathBuf> {
    let plain = serial.replace('-', "");
    fs::read_dir(blocks).ok()?.flatten().find_map(|block| {
        let said =
            ["serial", "device/serial"].iter().find_map(|file| fs::read_to_string(block.path().join(file)).ok())?;
        let said = said.trim();
        (said == serial || said == plain).then(|| Path::new("/dev").join(block.file_name()))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Contents {
    Nothing,
    Ext4,
    Strange,
}

fn contents(device: &Path) -> io::Result<Contents> {
    let file = File::open(device)?;
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, MAGIC_AT as u64)?;
    if magic == MAGIC {
        return Ok(Contents::Ext4);
    }
    let mut buffer = [0; 16 << 10];
    let mut front = file.take(LOOKED_AT as u64);
    loop {
        match front.read(&mut buffer)? {
            0 => return Ok(Contents::Nothing),
            count if buffer[..count].iter().any(|byte| *byte != 0) => return Ok(Contents::Strange),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_by_their_serial_numbers() {
        let blocks = tempfile::tempdir().unwrap();
        fs::create_dir_all(blocks.path().join("vda")).unwrap();
        fs::create_dir_all(blocks.path().join("vdb")).unwrap();
        fs::write(blocks.path().join("vdb/serial"), "layers-1").unwrap();
        fs::create_dir_all(blocks.path().join("nvme1n1/device")).unwrap();
        fs::write(blocks.path().join("nvme1n1/device/serial"), "vol0123  \n").unwrap();
        assert_eq!(find(blocks.path(), "layers-1").unwrap(), Path::new("/dev/vdb"));
        assert_eq!(find(blocks.path(), "vol-0123").unwrap(), Path::new("/dev/nvme1n1"));
        assert_eq!(find(blocks.path(), "layers"), None);
        assert_eq!(find(blocks.path(), ""), None);
    }

    #[test]
    fn only_what_is_empty_is_given_a_file_system() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(4 << 20).unwrap();
        assert_eq!(contents(disk.path()).unwrap(), Contents::Nothing);
        disk.as_file().write_all_at(b"LUKS", 0).unwrap();
        assert_eq!(contents(disk.path()).unwrap(), Contents::Strange);
        disk.as_file().write_all_at(&MAGIC, MAGIC_AT as u64).unwrap();
        assert_eq!(contents(disk.path()).unwrap(), Contents::Ext4);
        disk.as_file().set_len(100).unwrap();
        assert!(contents(disk.path()).is_err());
    }
}
