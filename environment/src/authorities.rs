//! The certificates of authorities that this host trusts, as one file that containers can be given.
//!
//! ```text
//! SSL_CERT_FILE, or the system's bundle ─┐
//! NODE_EXTRA_CA_CERTS, PIP_CERT, …  ─────┴─▶ certificates alone, each once ─▶ STATE/ca/DIGEST/bundle.pem
//! ```
//!
//! A copy, so that nothing else of such a file (a key that stands in it, too) comes into a container, and an update of the
//! host disturbs no running job.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use navvy_journal::owner::Owner;
use sha2::{Digest as _, Sha256};

/// The bundle's name in its directory.
pub const FILE: &str = "bundle.pem";
/// The variable that replaces the system's bundle.
const WHOLE: &str = "SSL_CERT_FILE";
/// Variables whose files add to it: what one program of this host trusts, jobs trust.
const FURTHER: [&str; 5] =
    ["NODE_EXTRA_CA_CERTS", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"];
/// Where systems keep their bundle: Debian, Fedora, SUSE, CentOS, Alpine.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where an administrator puts a company's own: Debian, Fedora, Arch, SUSE.
const OWN: [&str; 4] = [
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/trust/anchors",
];
/// No bundle is longer; the usual ones have some hundred kilobytes.
const LONGEST: u64 = 16 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Half a SHA-256, as the supervisor's copies have it.
const DIGEST_LENGTH: usize = 16;

/// Why jobs cannot be given this host's authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// A file of certificates could not be read.
    #[error("{origin}{path} cannot be read", path = path.display())]
    Read {
        /// `VARIABLE: `, or empty for the system's own bundle.
        origin: String,
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
    },
    /// A file was read, and there is no certificate in it.
    #[error("{origin}{path} holds no certificate in PEM form", path = path.display())]
    NoCertificate {
        /// `VARIABLE: `, or empty for the system's own bundle.
        origin: String,
        /// The file.
        path: PathBuf,
    },
    /// Neither a variable nor the system names a bundle.
    #[error("this host has no bundle of authorities; SSL_CERT_FILE may name one")]
    Nowhere,
    /// The copy for containers could not be made.
    #[error("the bundle of authorities could not be written to {path}", path = path.display())]
    Write {
        /// The directory it was to be in.
        path: PathBuf,
        /// Why it could not be written.
        source: io::Error,
    },
}

/// The host's bundle, where containers can mount it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Holds [`FILE`] and nothing else.
    pub directory: PathBuf,
    /// The files that it is made of.
    pub sources: Vec<PathBuf>,
    /// Certificates in it.
    pub count: usize,
}

impl Bundle {
    /// Gathers the host's authorities and writes them below `state`/ca.
    ///
    /// # Errors
    /// A file that a variable names cannot be read or holds no certificate, or there is nothing to give.
    pub fn make(variables: &BTreeMap<String, String>, state: &Path) -> Result<Self, AuthoritiesError> {
        let (certificates, sources) = gather(variables, Path::new("/"))?;
        let text = certificates.concat();
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().take(DIGEST_LENGTH / 2).map(|byte| format!("{byte:02x}")).collect();
        let directory = state.join("ca").join(digest);
        let failed = |source| AuthoritiesError::Write { path: directory.clone(), source };
        place(&directory, text.as_bytes()).map_err(failed)?;
        Ok(Self { directory, sources, count: certificates.len() })
    }

    /// The bundle's content, for containers that cannot mount its directory.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        fs::read(self.directory.join(FILE))
    }
}

/// How many certificates jobs would be given. Writes nothing.
///
/// # Errors
/// As for [`Bundle::make`].
pub fn look(variables: &BTreeMap<String, String>) -> Result<usize, AuthoritiesError> {
    gather(variables, Path::new("/")).map(|(certificates, _)| certificates.len())
}

/// What this host trusts beyond what its system came with: variables and directories that say so.
pub fn own_of_host(variables: &BTreeMap<String, String>) -> Vec<String> {
    own(variables, Path::new("/"))
}

fn own(variables: &BTreeMap<String, String>, root: &Path) -> Vec<String> {
    let is_usual = |path: &str| SYSTEM.contains(&path);
    let named = [WHOLE].iter().chain(&FURTHER).filter(|name| set(variables, name).is_some_and(|path| !is_usual(path)));
    let holds_any = |directory: &&&str| {
        fs::read_dir(below(root, directory)).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()))
    };
    let directories = OWN.iter().filter(holds_any);
    named.chain(directories).map(|text| (*text).to_owned()).collect()
}

fn set<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Certificates, each once, and the files that they come from.
fn gather(variables: &BTreeMap<String, String>, root: &Path) -> Result<(Vec<String>, Vec<PathBuf>), AuthoritiesError> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let system = || SYSTEM.iter().map(|path| below(root, path)).find(|path| path.is_file());
    match set(variables, WHOLE) {
        Some(path) => files.push((format!("{WHOLE}: "), path.into())),
        None => files.extend(system().map(|path| (String::new(), path))),
    }
    for name in FURTHER {
        let path = set(variables, name).map(PathBuf::from);
        let is_new = |path: &PathBuf| files.iter().all(|(_, known)| known != path);
        // A directory of certificates is something else, which some programs take, too.
        if let Some(path) = path.filter(is_new).filter(|path| !path.is_dir()) {
            files.push((format!("{name}: "), path));
        }
    }
    let (mut certificates, mut seen) = (Vec::new(), BTreeSet::new());
    for (origin, path) in &files {
        let found = certificates_in(origin, path)?;
        certificates.extend(found.into_iter().filter(|certificate| seen.insert(certificate.clone())));
    }
    match certificates.is_empty() {
        true => Err(AuthoritiesError::Nowhere),
        false => Ok((certificates, files.into_iter().map(|(_, path)| path).collect())),
    }
}

fn certificates_in(origin: &str, path: &Path) -> Result<Vec<String>, AuthoritiesError> {
    let failed = |source| AuthoritiesError::Read { origin: origin.to_owned(), path: path.to_owned(), source };
    let found = certificates(&read(path).map_err(failed)?);
    match found.is_empty() {
        true => Err(AuthoritiesError::NoCertificate { origin: origin.to_owned(), path: path.to_owned() }),
        false => Ok(found),
    }
}

fn read(path: &Path) -> io::Result<String> {
    // Names of authorities stand between the certificates, in any encoding.
    Ok(String::from_utf8_lossy(&navvy_plain_file::read(path, LONGEST)?).into_owned())
}

/// Each with its line ends, and nothing of what stands between them.
fn certificates(text: &str) -> Vec<String> {
    let (mut found, mut current) = (Vec::new(), None::<String>);
    for line in text.lines().map(str::trim) {
        if line == BEGIN {
            current = Some(String::new());
        }
        let Some(certificate) = &mut current else { continue };
        certificate.push_str(line);
        certificate.push('\n');
        if line == END {
            found.extend(current.take());
        }
    }
    found
}

/// Made beside its place and renamed into it: a reader sees nothing or the whole.
fn place(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_whole = || fs::read(directory.join(FILE)).is_ok_and(|there| there == bytes);
    if is_whole() {
        return Ok(());
    }
    let all = directory.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(all)?;
    let scratch = tempfile::Builder::new().prefix(&Owner::this_process()?.unfinished("")).tempdir_in(all)?;
    let file = scratch.path().join(FILE);
    fs::write(&file, bytes)?;
    // Steps of any user read it.
    fs::set_permissions(&file, Permissions::from_mode(0o444))?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    match fs::rename(scratch.path(), directory) {
        // Another process was first, or something damaged is in the way.
        Err(_) if is_whole() => Ok(()),
        Err(_) => {
            fs::remove_dir_all(directory)?;
            fs::rename(scratch.path(), directory)
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
            let path = below(self.0.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn gather(&self, variables: &[(&str, &Path)]) -> Result<(String, usize), String> {
            let variables = variables.iter().map(|(name, path)| ((*name).into(), path.display().to_string())).collect();
            let gathered = gather(&variables, self.0.path());
            gathered
                .map(|(text, sources)| (text.concat(), sources.len()))
                .map_err(|error| navvy_job::chain::chain(&error))
        }
    }

    #[test]
    fn a_bundle_holds_certificates_alone_and_each_once() {
        let host = Host::new();
        let key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";
        host.file(SYSTEM[1], format!("# One\n{}{key}{}", pem("one"), pem("two").replace('\n', "\r\n")));
        let ours = host.file("/ours", [b"\xff\n", pem("two").as_bytes(), pem("ours").as_bytes()].concat());
        let only = host.file("/only", pem("only"));
        assert_eq!(host.gather(&[]).unwrap(), (pem("one") + &pem("two"), 1));
        let all = pem("one") + &pem("two") + &pem("ours");
        assert_eq!(host.gather(&[("NODE_EXTRA_CA_CERTS", &ours), ("PIP_CERT", &ours)]).unwrap(), (all, 2));
        let replaced = pem("only") + &pem("two") + &pem("ours");
        assert_eq!(host.gather(&[("SSL_CERT_FILE", &only), ("CURL_CA_BUNDLE", &ours)]).unwrap(), (replaced, 2));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let host = Host::new();
        assert!(host.gather(&[]).unwrap_err().contains("no bundle of authorities"));
        let key = host.file("/key", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
        let error = host.gather(&[("SSL_CERT_FILE", &key)]).unwrap_err();
        assert!(error.contains("SSL_CERT_FILE: ") && error.contains("holds no certificate"), "{error}");
        let error = host.gather(&[("PIP_CERT", Path::new("/nonexistent/ca"))]).unwrap_err();
        assert!(error.contains("PIP_CERT: /nonexistent/ca cannot be read: "), "{error}");
    }

    #[test]
    fn a_bundle_is_there_whole_whatever_was_in_its_place() {
        let host = Host::new();
        let ours = host.file("/ours", pem("ours"));
        let variables = BTreeMap::from([("SSL_CERT_FILE".to_owned(), ours.display().to_string())]);
        let state = host.0.path().join("state");
        let bundle = Bundle::make(&variables, &state).unwrap();
        assert_eq!((bundle.bytes().unwrap(), bundle.count), (pem("ours").into_bytes(), 1));
        let file = bundle.directory.join(FILE);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "damaged").unwrap();
        assert_eq!(Bundle::make(&variables, &state).unwrap(), bundle);
        assert_eq!(fs::read_to_string(&file).unwrap(), pem("ours"));
        assert_eq!(fs::read_dir(state.join("ca")).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_host_s_own_authorities_are_seen() {
        let host = Host::new();
        let none = BTreeMap::new();
        assert!(own(&none, host.0.path()).is_empty());
        host.file(&format!("{}/ours.crt", OWN[0]), "");
        assert_eq!(own(&none, host.0.path()), [OWN[0]]);
        let named = |path: &str| BTreeMap::from([("PIP_CERT".to_owned(), path.to_owned())]);
        assert_eq!(own(&named("/ours"), host.0.path()), ["PIP_CERT", OWN[0]]);
        assert_eq!(own(&named(SYSTEM[0]), host.0.path()), [OWN[0]], "the system's own bundle is nothing special");
    }
}
