//! One directory of orbs: `NAMESPACE/NAME@VERSION.yml`, and `https/HOST/PATH` for orbs by address.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use navvy_config::{NoOrb, OrbReference};
use navvy_plain_file as plain_file;

/// The compiler refuses larger ones; this keeps them out of memory.
const LARGEST: u64 = 8 << 20;
/// Below it lie orbs by address.
const HTTPS: &str = "https";

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
    ///
    /// # Errors
    /// What is here cannot be looked at. Another place's orb, or one that is built in, is not what is meant then.
    pub fn versions(&self, wanted: &OrbReference) -> Result<Vec<Found>, NoOrb> {
        match wanted {
            OrbReference::Url(_) => {
                let Some(found) = self.file(wanted) else { return Ok(Vec::new()) };
                Ok(if found.exists()? { vec![found] } else { Vec::new() })
            }
            OrbReference::Registry { namespace, name, .. } => {
                let mut found = self.of_namespace(namespace)?;
                found.retain(
                    |found| matches!(&found.reference, OrbReference::Registry { name: other, .. } if other == name),
                );
                Ok(found)
            }
        }
    }

    /// Every orb that is here, by name.
    ///
    /// # Errors
    /// What is here cannot be looked at.
    pub fn all(&self) -> Result<Vec<Found>, NoOrb> {
        let mut found = Vec::new();
        for namespace in self.names("")?.iter().filter(|name| *name != HTTPS) {
            // A file beside the namespaces, such as a README, is nobody's orb.
            if self.is_directory(namespace, fs::metadata(self.directory.join(namespace)))? {
                found.extend(self.of_namespace(namespace)?);
            }
        }
        self.addresses(HTTPS, &mut found)?;
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(found)
    }

    fn of_namespace(&self, namespace: &str) -> Result<Vec<Found>, NoOrb> {
        let reference = |name: String| {
            let (orb, version) = name.strip_suffix(".yml")?.split_once('@')?;
            let version = version.replace("%2F", "/").replace("%25", "%");
            let reference: OrbReference = format!("{namespace}/{orb}@{version}").parse().ok()?;
            self.file(&reference)
        };
        Ok(self.names(namespace)?.into_iter().filter_map(reference).collect())
    }

    /// What lies in a directory of orbs by address: `https`, or one below it.
    fn addresses(&self, directory: &str, found: &mut Vec<Found>) -> Result<(), NoOrb> {
        for name in self.names(directory)? {
            let relative = format!("{directory}/{name}");
            // Links to directories are not followed: they may lead in a circle.
            if self.is_directory(&relative, fs::symlink_metadata(self.directory.join(&relative)))? {
                self.addresses(&relative, found)?;
            } else if let Ok(reference) = relative.replacen(HTTPS, "https:/", 1).parse() {
                found.extend(self.file(&reference));
            }
        }
        Ok(())
    }

    /// Names in a directory of this place, sorted; a name that is not UTF-8 is left out, and a missing directory has no
    /// names. One that cannot be listed is not taken for empty: another orb would be taken for what lies in it.
    fn names(&self, directory: &str) -> Result<Vec<String>, NoOrb> {
        let listed = plain_file::directory::entries(&self.directory.join(directory));
        let entries = listed.map_err(|error| self.unlisted(directory, &error))?;
        let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    /// What has gone meanwhile is no directory.
    fn is_directory(&self, relative: &str, looked: io::Result<fs::Metadata>) -> Result<bool, NoOrb> {
        match looked {
            Ok(meta) => Ok(meta.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.unlisted(relative, &error)),
        }
    }

    fn unlisted(&self, relative: &str, error: &io::Error) -> NoOrb {
        let slash = if relative.is_empty() { "" } else { "/" };
        NoOrb::Refused {
            message: format!("{}{slash}{relative} cannot be listed: {error}", self.shown),
            help: "make it a directory of orbs that you may read, or remove it: what it holds could be what is meant"
                .to_owned(),
        }
    }

    /// Puts an orb's source in its place: written beside it and renamed, so that no reader sees half of it.
    ///
    /// # Errors
    /// The file system's, or a link leads out of the project. An address that maps to no file is an invalid input.
    pub fn put(&self, reference: &OrbReference, text: &str) -> io::Result<Found> {
        let found = self.file(reference).ok_or(io::ErrorKind::InvalidInput)?;
        write(&found.path, self.within.as_deref(), text)?;
        Ok(found)
    }
}

impl Found {
    /// Whether the file is there.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn exists(&self) -> Result<bool, NoOrb> {
        self.path.try_exists().map_err(|error| self.refused(format!("cannot be read: {error}")))
    }

    /// The file's text.
    ///
    /// # Errors
    /// It cannot be read, or is nothing that an orb's source could be.
    pub fn read(&self) -> Result<String, NoOrb> {
        let path =
            self.within.as_ref().map_or_else(|| Ok(self.path.clone()), |top| plain_file::within(top, &self.path));
        let bytes = path.and_then(|path| plain_file::read(&path, LARGEST));
        let bytes = bytes.map_err(|error| self.refused(format!("cannot be read: {error}")))?;
        String::from_utf8(bytes).map_err(|_| self.refused("is not UTF-8 text".to_owned()))
    }

    fn refused(&self, what: String) -> NoOrb {
        NoOrb::Refused {
            message: format!("{} {what}", self.shown),
            help: "put the orb's source there, or remove it".to_owned(),
        }
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

/// Writes beside `path` and renames. The directory is made if it is not there. `within` is the project that the file is to
/// lie in, if it is one's: its author decides where its links lead, and nothing is written outside of it.
///
/// # Errors
/// The file system's, or a link leads out of the project.
pub fn write(path: &Path, within: Option<&Path>, text: &str) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if let Some(project) = within {
        stay_within(project, directory)?;
    }
    fs::create_dir_all(directory)?;
    // As `create` would have it: the umask takes away from it.
    let mode = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".new~").permissions(mode).tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// Refuses a directory of a project that a link leads out of it. What is not there yet is made below the nearest that is.
fn stay_within(project: &Path, directory: &Path) -> io::Result<()> {
    for above in directory.ancestors() {
        match above.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            looked => {
                let inside = looked.and_then(|_| plain_file::within(project, above));
                let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", above.display()));
                return inside.map(drop).map_err(told);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(project: &Path) -> Place {
        let shown = ".circleci/orbs".to_owned();
        Place { directory: project.join(&shown), shown, within: Some(project.to_owned()) }
    }

    fn orb(reference: &str) -> OrbReference {
        reference.parse().unwrap()
    }

    fn refusal(found: Result<Vec<Found>, NoOrb>) -> String {
        match found {
            Err(NoOrb::Refused { message, .. }) => message,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_written_where_a_link_leads_out_of_the_project() {
        let (outside, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (place, orb) = (place(project.path()), orb("a/b@1.0.0"));
        fs::create_dir(project.path().join(".circleci")).unwrap();
        symlink(outside.path(), &place.directory).unwrap();
        let told = place.put(&orb, "text").unwrap_err().to_string();
        assert!(told.contains(".circleci/orbs: it is a link to") && told.contains("leads out of"), "{told}");
        // A namespace that is there already is no way out either.
        fs::create_dir(outside.path().join("a")).unwrap();
        assert!(place.put(&orb, "text").is_err());
        assert_eq!(fs::read_dir(outside.path().join("a")).unwrap().count(), 0);
        // The user's own directory may be a link to wherever the user likes.
        let own = Place { within: None, ..place.clone() };
        assert!(own.put(&orb, "text").is_ok_and(|found| found.read().is_ok()));
    }

    #[test]
    fn what_stays_in_the_project_is_written_and_its_directories_are_made() {
        let project = tempfile::tempdir().unwrap();
        let (place, orb) = (place(project.path()), orb("a/b@1.0.0"));
        assert_eq!(place.put(&orb, "first").unwrap().read().unwrap(), "first");
        fs::remove_dir_all(&place.directory).unwrap();
        fs::create_dir(project.path().join("kept")).unwrap();
        symlink("../kept", &place.directory).unwrap();
        assert_eq!(place.put(&orb, "second").unwrap().read().unwrap(), "second");
        assert_eq!(fs::read_to_string(project.path().join("kept/a/b@1.0.0.yml")).unwrap(), "second");
    }

    #[test]
    fn what_cannot_be_listed_is_not_taken_for_empty() {
        let project = tempfile::tempdir().unwrap();
        let place = place(project.path());
        assert_eq!(place.versions(&orb("a/b@1")).unwrap().len() + place.all().unwrap().len(), 0);
        fs::create_dir(project.path().join(".circleci")).unwrap();
        fs::write(&place.directory, "no directory").unwrap();
        assert!(refusal(place.all()).starts_with(".circleci/orbs cannot be listed: "), "{}", refusal(place.all()));
        let told = refusal(place.versions(&orb("a/b@1")));
        assert!(told.starts_with(".circleci/orbs/a cannot be listed: "), "{told}");
        let told = refusal(place.versions(&orb("https://h.example/o.yml")));
        assert!(told.starts_with(".circleci/orbs/https/h.example/o.yml cannot be read: "), "{told}");
    }

    #[test]
    fn all_orbs_are_listed_and_a_file_beside_them_is_none() {
        let project = tempfile::tempdir().unwrap();
        let place = place(project.path());
        let orbs = ["a/b@1.0.0", "c/d@2.0.0", "https://h.example/https/o.yml"];
        orbs.iter().for_each(|name| drop(place.put(&orb(name), "text").unwrap()));
        fs::write(place.directory.join("README.md"), "words").unwrap();
        let mut found: Vec<String> = place.all().unwrap().iter().map(|found| found.reference.to_string()).collect();
        found.sort();
        assert_eq!(found, orbs);
        symlink("round", place.directory.join("round")).unwrap();
        assert!(refusal(place.all()).starts_with(".circleci/orbs/round cannot be listed: "));
    }
}
