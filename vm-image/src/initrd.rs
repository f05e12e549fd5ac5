//! The initial file system of a machine: the supervisor as `/init`, and the drivers that it loads before there is a root.
//!
//! It is a cpio archive (form `newc`), not compressed: a guest under emulation would spend longer on that than this host on reading. The
//! supervisor is here and nowhere else, so a new one costs a new initial file system and no new root.

use std::collections::BTreeMap;

/// The supervisor's name.
const INIT: &str = "init";
/// Directories for the kernel's file systems and the root.
const DIRECTORIES: [&str; 5] = ["dev", "modules", "proc", "root", "sys"];
/// Where the drivers are, and the list of them.
const MODULES: &str = "modules/";
const TRAILER: &str = "TRAILER!!!";
const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
/// No file of an initial file system of ours is larger.
const LARGEST: usize = 64 << 20;

/// Drivers by file name, their list among them.
pub type Modules = BTreeMap<String, Vec<u8>>;

/// The archive; the same parts give the same bytes.
pub fn pack(supervisor: &[u8], modules: &Modules) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, 0o040_755, 2, &[]);
    }
    archive.add(INIT, 0o100_755, 1, supervisor);
    for (name, bytes) in modules {
        archive.add(&format!("{MODULES}{name}"), 0o100_644, 1, bytes);
    }
    archive.add(TRAILER, 0, 1, &[]);
    archive.bytes
}

/// Supervisor and drivers of an archive that [`pack`] has made; `None`: another one has.
pub fn unpack(archive: &[u8]) -> Option<(Vec<u8>, Modules)> {
    let (mut rest, mut supervisor, mut modules) = (archive, None, Modules::new());
    loop {
        let header = rest.get(..HEADER)?;
        let field = |at: usize| {
            let digits = header.get(6 + at * 8..14 + at * 8)?;
            usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (size, name_size) = (field(6)?, field(11)?);
        if !header.starts_with(MAGIC) || size > LARGEST || !(1..=4096).contains(&name_size) {
            return None;
        }
        let name = std::str::from_utf8(rest.get(HEADER..HEADER + name_size - 1)?).ok()?;
        let start = padded(HEADER + name_size);
        let content = rest.get(start..start + size)?;
        match name {
            TRAILER => break,
            INIT => supervisor = Some(content.to_vec()),
            _ => {
                if let Some(module) = name.strip_prefix(MODULES) {
                    modules.insert(module.to_owned(), content.to_vec());
                }
            }
        }
        rest = rest.get(padded(start + size)..)?;
    }
    Some((supervisor?, modules))
}

/// To the next multiple of four.
fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, links: u32, content: &[u8]) {
        let inode = if name == TRAILER { 0 } else { self.entries + 1 };
        self.entries += 1;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // Owner, group and time are 0, and so are the devices' numbers and the check.
        let fields = [inode, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(MAGIC);
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(padded(self.bytes.len()), 0);
        self.bytes.extend(content);
        self.bytes.resize(padded(self.bytes.len()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Modules {
        [("list", "a.ko\nb.ko\n"), ("a.ko", "A"), ("b.ko", "BBBBB")]
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .into()
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let archive = pack(b"supervisor", &modules());
        assert_eq!(unpack(&archive), Some((b"supervisor".to_vec(), modules())));
        assert_eq!(archive, pack(b"supervisor", &modules()));
    }

    #[test]
    fn an_archive_that_is_cut_off_or_lies_is_none() {
        let archive = pack(b"supervisor", &modules());
        // The end's own entry is 124 bytes long: what lacks any of it is cut off.
        for length in 0..archive.len() - 3 {
            assert_eq!(unpack(&archive[..length]), None, "{length}");
        }
        let mut lies = archive.clone();
        lies[6 + 6 * 8..6 + 7 * 8].copy_from_slice(b"FFFFFFFF");
        assert_eq!(unpack(&lies), None);
        assert_eq!(unpack(b"no archive"), None);
    }

    /// As `cpio` itself reads it.
    #[test]
    fn the_usual_program_reads_it() {
        use std::io::Write as _;
        let listing = std::process::Command::new("cpio")
            .args(["--list", "--verbose", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = listing else { return };
        child.stdin.take().unwrap().write_all(&pack(b"supervisor", &modules())).unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(said.contains("-rwxr-xr-x") && said.contains("modules/b.ko") && said.lines().count() == 9, "{said}");
    }
}
