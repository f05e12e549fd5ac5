//! What the head of a disk says, before any program of ours or QEMU's follows it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// A disk that somebody gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// QEMU's own, whole in itself.
    Qcow2,
    /// The disk's bytes.
    Raw,
}

impl Form {
    /// As `qemu-img` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

const MAGIC: &[u8] = b"QFI\xfb";
/// Other forms of disks, which would be taken for raw ones.
const OTHERS: [(&[u8], &str); 6] = [
    (b"KDMV", "a VMDK disk"),
    (b"COWD", "a VMDK disk"),
    (b"vhdxfile", "a VHDX disk"),
    (b"conectix", "a VHD disk"),
    (b"<<< ", "a VDI disk"),
    (b"QED\0", "a QED disk"),
];
/// A name of a file with the guest's data; in the header's extensions.
const DATA_FILE: u32 = 0x4441_5441;
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED: u64 = 1 << 4;

/// The form of a disk that names no other file. A stranger's disk that did would have this host's files read as the guest's.
///
/// # Errors
/// Why it cannot be used, as a part of a sentence; or it cannot be read.
pub fn form(disk: &File) -> io::Result<Result<Form, String>> {
    // The header's cluster: the extensions, and the backing file's name, end in it.
    let mut head = vec![0; 64 << 10];
    let mut filled = 0;
    while filled < head.len() {
        match disk.read_at(&mut head[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    head.truncate(filled);
    Ok(of_head(&head, disk.metadata()?.len()))
}

fn of_head(head: &[u8], length: u64) -> Result<Form, String> {
    if head.starts_with(MAGIC) {
        return qcow2(head).map(|()| Form::Qcow2);
    }
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(format!("it is {what}; `qemu-img convert -O qcow2` makes one that can be imported"));
    }
    if length == 0 || !length.is_multiple_of(512) {
        return Err(format!("its {length} bytes are neither a qcow2 disk nor whole sectors of 512 bytes"));
    }
    Ok(Form::Raw)
}

fn qcow2(head: &[u8]) -> Result<(), String> {
    let short = || "it ends within its header".to_owned();
    let u32_at =
        |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or_else(short);
    let u64_at =
        |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or_else(short);
    let version = u32_at(4)?;
    if !matches!(version, 2 | 3) {
        return Err(format!("it is a qcow2 disk of version {version}, which is not known here"));
    }
    if u64_at(8)? != 0 || u32_at(16)? != 0 {
        return Err("it has a backing file: only a disk that is whole in itself is taken (`qemu-img convert -O qcow2` makes one)".into());
    }
    if u32_at(32)? != 0 {
        return Err("it is encrypted".into());
    }
    if version == 2 {
        return extensions(head, 72);
    }
    let features = u64_at(72)?;
    if features & EXTERNAL != 0 {
        return Err("it keeps its data in another file: only a disk that is whole in itself is taken".into());
    }
    if features & (DIRTY | CORRUPT) != 0 {
        return Err("it was not closed, or is marked as damaged (`qemu-img check -r all` may mend it)".into());
    }
    let unknown = features & !(COMPRESSION | EXTENDED);
    if unknown != 0 {
        return Err(format!("it has features that are not known here ({unknown:#x})"));
    }
    let length = u32_at(100)? as usize;
    if !(104..=4096).contains(&length) {
        return Err(format!("its header of {length} bytes is none"));
    }
    extensions(head, length)
}

/// None of them names another file.
fn extensions(head: &[u8], mut at: usize) -> Result<(), String> {
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    loop {
        let (Some(kind), Some(length)) = (word(at), word(at + 4)) else { return Ok(()) };
        match kind {
            0 => return Ok(()),
            DATA_FILE => {
                return Err("it names another file for its data: only a disk that is whole in itself is taken".into());
            }
            _ => at = at + 8 + (length as usize).next_multiple_of(8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u32) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(MAGIC);
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[100..104].copy_from_slice(&104_u32.to_be_bytes());
        head
    }

    fn told(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut head = head(3);
        change(&mut head);
        of_head(&head, 512).unwrap_err()
    }

    #[test]
    fn whole_disks_are_known() {
        assert_eq!(of_head(&head(3), 512), Ok(Form::Qcow2));
        assert_eq!(of_head(&head(2), 512), Ok(Form::Qcow2));
        assert_eq!(of_head(&[0; 512], 1024), Ok(Form::Raw));
    }

    #[test]
    fn a_disk_that_names_another_file_is_refused() {
        assert!(told(|head| head[15] = 1).contains("backing file"));
        assert!(told(|head| head[19] = 5).contains("backing file"));
        assert!(told(|head| head[79] = 4).contains("another file"));
        let data_file = |head: &mut Vec<u8>| {
            head[104..108].copy_from_slice(&0x1234_u32.to_be_bytes());
            head[111] = 3;
            head[120..124].copy_from_slice(&DATA_FILE.to_be_bytes());
        };
        assert!(told(data_file).contains("names another file"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(told(|head| head[7] = 4).contains("version 4"));
        assert!(told(|head| head[35] = 1).contains("encrypted"));
        assert!(told(|head| head[79] = 1).contains("not closed"));
        assert!(told(|head| head[78] = 1).contains("not known here"));
        assert!(told(|head| head.truncate(20)).contains("ends within"));
        assert!(told(|head| head[100..104].copy_from_slice(&u32::MAX.to_be_bytes())).contains("is none"));
        assert!(of_head(b"KDMV", 512).unwrap_err().contains("VMDK"));
        assert!(of_head(b"hello", 5).unwrap_err().contains("5 bytes"));
        assert!(of_head(b"", 0).is_err());
    }

    /// An extension that claims to be endless ends the search, and not this program.
    #[test]
    fn lengths_are_not_believed() {
        let mut head = head(3);
        head[104..108].copy_from_slice(&0x1234_u32.to_be_bytes());
        head[108..112].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(of_head(&head, 512), Ok(Form::Qcow2));
    }
}
