//! Streams a repository's objects, as files, straight out of its object directories.
//!
//! Objects never change, but their files move: `git gc` packs loose ones, makes one pack of many, and removes what it
//! replaced — after the new file is in its place. So loose ones are listed before packs, and if a listed file is gone
//! when its turn comes, everything is listed again and what is new is sent too. What the refs named when the copy began
//! is then complete, with some objects perhaps twice.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata};
use std::io;

use super::CheckoutError;
use super::archive::{Archive, ArchiveError};
use super::git_dir::GitDir;

/// Listings that may find files gone before it is given up: one collection needs two.
const PASSES: usize = 10;

/// What belongs to a pack beside itself. Bitmaps, `.keep` and the multi-pack index are only help or local wishes.
const COMPANIONS: [&str; 4] = ["idx", "rev", "promisor", "mtimes"];

pub(super) struct Objects {
    directories: Vec<GitDir>,
    /// Names below `objects/`, which are the same in every directory.
    sent: HashSet<String>,
}

impl Objects {
    pub(super) fn new(directories: Vec<GitDir>) -> Self {
        Self { directories, sent: HashSet::new() }
    }

    /// Sends everything below `prefix`, which ends with `objects/`. Says whether all that was listed could be sent.
    pub(super) fn stream<W: io::Write>(
        mut self,
        archive: &mut Archive<W>,
        prefix: &[u8],
    ) -> Result<bool, CheckoutError> {
        // git wants both to exist.
        for directory in ["info", "pack"] {
            archive.directory(&name(prefix, directory), 0).map_err(CheckoutError::Write)?;
        }
        for _ in 0..PASSES {
            if self.pass(archive, prefix)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One listing of all directories; false if something vanished meanwhile.
    fn pass<W: io::Write>(&mut self, archive: &mut Archive<W>, prefix: &[u8]) -> Result<bool, CheckoutError> {
        let mut complete = true;
        for directory in self.directories.clone() {
            complete &= self.loose(archive, prefix, &directory)?;
        }
        for directory in self.directories.clone() {
            complete &= self.packs(archive, prefix, &directory)?;
        }
        Ok(complete)
    }

    fn loose<W: io::Write>(
        &mut self,
        archive: &mut Archive<W>,
        prefix: &[u8],
        directory: &GitDir,
    ) -> Result<bool, CheckoutError> {
        let mut complete = true;
        for fan in list(directory, "")?.into_iter().filter(|fan| fan.len() == 2 && is_hex(fan)) {
            // Temporary files have other names.
            for file in list(directory, &fan)?.into_iter().filter(|file| file.len() >= 38 && is_hex(file)) {
                let key = format!("{fan}/{file}");
                if self.sent.contains(&key) {
                    continue;
                }
                match directory.file(key.as_bytes())? {
                    Some(opened) => {
                        send(archive, &name(prefix, &key), opened, directory)?;
                        self.sent.insert(key);
                    }
                    None => complete = false,
                }
            }
        }
        Ok(complete)
    }

    fn packs<W: io::Write>(
        &mut self,
        archive: &mut Archive<W>,
        prefix: &[u8],
        directory: &GitDir,
    ) -> Result<bool, CheckoutError> {
        let mut complete = true;
        for (stem, extensions) in listed_packs(directory)? {
            let key = format!("pack/{stem}");
            if self.sent.contains(&key) {
                continue;
            }
            // All are open before the first goes out: from then on they cannot vanish.
            match open_pack(directory, &stem, &extensions)? {
                Some(files) => {
                    for (file, opened) in files {
                        send(archive, &name(prefix, &format!("pack/{file}")), opened, directory)?;
                    }
                    self.sent.insert(key);
                }
                None => complete = false,
            }
        }
        Ok(complete)
    }
}

type Opened = (File, Metadata);

/// Packs that are finished: the index is what git puts into place last.
fn listed_packs(directory: &GitDir) -> Result<BTreeMap<String, Vec<&'static str>>, CheckoutError> {
    let mut packs: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for file in list(directory, "pack")?.into_iter().filter(|file| file.starts_with("pack-")) {
        let Some((stem, extension)) = file.rsplit_once('.') else { continue };
        if let Some(known) = COMPANIONS.iter().find(|known| **known == extension) {
            packs.entry(stem.to_owned()).or_default().push(known);
        }
    }
    packs.retain(|_, extensions| extensions.contains(&"idx"));
    Ok(packs)
}

fn open_pack(
    directory: &GitDir,
    stem: &str,
    extensions: &[&str],
) -> Result<Option<Vec<(String, Opened)>>, CheckoutError> {
    let mut files = Vec::new();
    for extension in ["pack"].iter().chain(extensions) {
        let file = format!("{stem}.{extension}");
        let Some(opened) = directory.file(format!("pack/{file}").as_bytes())? else { return Ok(None) };
        files.push((file, opened));
    }
    Ok(Some(files))
}

fn send<W: io::Write>(
    archive: &mut Archive<W>,
    name: &[u8],
    (file, meta): Opened,
    directory: &GitDir,
) -> Result<(), CheckoutError> {
    match archive.file(name, file, &meta) {
        Ok(_) => Ok(()),
        Err(ArchiveError::Write(error)) => Err(CheckoutError::Write(error)),
        Err(ArchiveError::Read(source)) => Err(CheckoutError::Read { path: directory.path().to_owned(), source }),
    }
}

/// Names in a directory, sorted; none if it is gone. git's own names are all text.
fn list(directory: &GitDir, name: &str) -> Result<Vec<String>, CheckoutError> {
    let names = directory.list(name)?.into_iter();
    Ok(names.filter_map(|(name, _)| name.into_string().ok()).collect())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn name(prefix: &[u8], rest: &str) -> Vec<u8> {
    [prefix, rest.as_bytes()].concat()
}
