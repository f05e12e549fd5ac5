//! One directory of orbs: `NAMESPACE/NAME@VERSION.yml`, and `https/HOST/PATH` for orbs by address.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use navvy_config::{NoOrb, OrbReference};
use navvy_plain_file as plain_file;

/// The compiler refuses larger ones; this keeps them out of memory.
const LARGEST: u64 = 8 << 20;

/// A directory of orbs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is; it need not exist.
    pub directory: PathBuf,
    /// How messages call it: relative to where the user is, if it lies there.
    pub shown: String,
    /// The project that it came with: no link leads out of it. `None`: the user's own.
    pub within: Option<PathBuf>,
}

/// An orb's file, not read yet.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the file's name says it is.
    pub reference: OrbReference,
    /// Where it is.
    pub path: PathBuf,
    /// What messages call it.
    pub shown: String,
    /// As its place has it.
    within: Option<PathBuf>,
}

impl Place {
    /// What messages call the file of an orb; `None` for an address that maps to no file.
    pub fn file_name(&self, reference: &OrbReference) -> Option<String> {
        relative(reference).map(|relative| format!("{}/{relative}", self.shown))
    }

    /// The file that an orb would have here; `None` for an address that maps to no file. Whether it exists is not asked.
    pub fn file(&self, reference: &OrbReference) -> Option<Found> {
        let relative = relative(reference)?;
        let (path, shown) = (self.directory.join(&relative), format!("{}/{relative}", self.shown));
        Some(Found { reference: reference.clone(), path, shown, within: self.within.clone() })
    }

    /// Every version of this orb.
    pub fn versions(&self, wanted: &OrbReference) -> Vec<Found> {
        match wanted {
            OrbReference::Url(_) => self.file(wanted).filter(|found| found.path.exists()).into_iter().collect(),
            OrbReference::Registry { namespace, name, .. } => {
                let mut found = self.of_namespace(namespace);
                found.retain(
                    |found| matches!(&found.reference, OrbReference::Registry { name: other, .. } if other == name),
                );
                found
            }
        }
    }

    /// Every orb that is here, by name.
    pub fn all(&self) -> Vec<Found> {
        let mut namespaces = names(&self.directory);
        namespaces.retain(|name| name != "https");
        let mut found: Vec<Found> = namespaces.iter().flat_map(|namespace| self.of_namespace(namespace)).collect();
        self.addresses(&self.directory.join("https"), "https://", &mut found);
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        found
    }

    fn of_namespace(&self, namespace: &str) -> Vec<Found> {
        let reference = |name: String| {
            let (orb, version) = name.strip_suffix(".yml")?.split_once('@')?;
            let version = version.replace("%2F", "/").replace("%25", "%");
            let reference: OrbReference = format!("{namespace}/{orb}@{version}").parse().ok()?;
            self.file(&reference)
        };
        names(&self.directory.join(namespace)).into_iter().filter_map(reference).collect()
    }

    fn addresses(&self, directory: &Path, url: &str, found: &mut Vec<Found>) {
        for name in names(directory) {
            let (path, url) = (directory.join(&name), format!("{url}{name}"));
            // Links to directories are not followed: they may lead in a circle.
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
                self.addresses(&path, &format!("{url}/"), found);
            } else if let Ok(reference) = url.parse() {
                found.extend(self.file(&reference));
            }
        }
    }

    /// Puts an orb's source in its place: written beside it and renamed, so that no reader sees half of it.
    ///
    /// # Errors
    /// The file system's. An address that maps to no file is an invalid input.
    pub fn put(&self, reference: &OrbReference, text: &str) -> io::Result<Found> {
        let found = self.file(reference).ok_or(io::ErrorKind::InvalidInput)?;
        write(&found.path, text)?;
        Ok(found)
    }
}

impl Found {
    /// The file's text.
    ///
    /// # Errors
    /// It cannot be read, or is nothing that an orb's source could be.
    pub fn read(&self) -> Result<String, NoOrb> {
        let refused = |what: String| NoOrb::Refused {
            message: format!("{} {what}", self.shown),
            help: "put the orb's source there, or remove it".to_owned(),
        };
        let path =
            self.within.as_ref().map_or_else(|| Ok(self.path.clone()), |top| plain_file::within(top, &self.path));
        let bytes = path.and_then(|path| plain_file::read(&path, LARGEST));
        let bytes = bytes.map_err(|error| refused(format!("cannot be read: {error}")))?;
        String::from_utf8(bytes).map_err(|_| refused("is not UTF-8 text".to_owned()))
    }
}

/// The file of an orb below a place.
fn relative(reference: &OrbReference) -> Option<String> {
    match reference {
        OrbReference::Registry { namespace, name, version } => {
            let version = version.to_string().replace('%', "%25").replace('/', "%2F");
            Some(format!("{namespace}/{name}@{version}.yml"))
        }
        OrbReference::Url(url) => {
            let rest = url.strip_prefix("https://")?;
            let (host, path) = rest.split_once('/')?;
            let plain = !host.contains('@') && std::iter::once(host).chain(path.split('/')).all(is_plain);
            plain.then(|| format!("https/{rest}"))
        }
    }
}

/// A part of an address that is a file's name as it stands.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b'+' | b'@' | b':'))
}

/// Sorted; a name that is not UTF-8 is left out, and a missing directory has no names.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// Writes beside `path` and renames. The directory is made if it is not there.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    // As `create` would have it: the umask takes away from it.
    let mode = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".new~").permissions(mode).tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
