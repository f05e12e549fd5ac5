//! Private keys that a person gives to jobs: `--ssh-key [HOST=]FILE`.
//!
//! ```text
//! FILE ─▶ PEM ─┬─ OPENSSH PRIVATE KEY ─▶ its public part, in clear ─┬─▶ public key ─▶ fingerprints
//!              └─ RSA PRIVATE KEY (DER) ─▶ modulus and exponent ─────┘
//! ```
//!
//! The fingerprint is that of the public key, as `ssh-keygen -l` prints it; the private part is never looked at.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use md5::Md5;
use navvy_job::claim::SshKey;
use sha2::{Digest as _, Sha256};

const OPENSSH: &str = "OPENSSH PRIVATE KEY";
const RSA: &str = "RSA PRIVATE KEY";
/// First bytes of what an OpenSSH key's PEM holds.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// No key is longer by far.
const LONGEST: u64 = 64 << 10;

/// Why a file is of no use as a key. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    NoKey { path: PathBuf, why: NoKey },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    #[error("this is a public key; the private one is the file without .pub")]
    Public,
    #[error("this is not a private key")]
    Unknown,
    #[error("this key has a passphrase, which no job could enter; `ssh-keygen -p -N '' -f COPY` takes it off a copy")]
    Passphrase,
    #[error("keys of the kind `{kind}` are not read; `ssh-keygen -p -N '' -f COPY` writes a copy as OpenSSH does")]
    Kind { kind: String },
    #[error("this key is damaged")]
    Damaged,
}

/// Reads `[HOST=]FILE`. What stands before the first `=` is a host unless a file is called so as a whole.
///
/// # Errors
/// The file cannot be read, or is no private key that a job could use.
pub fn read(word: &str, home: Option<&Path>) -> Result<SshKey, SshKeyError> {
    let (host, file) = match word.split_once('=') {
        Some((host, file)) if !host.contains('/') && !Path::new(word).exists() => (Some(host), file),
        _ => (None, word),
    };
    let path = match (file.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(file),
    };
    let text = text_of(&path).map_err(|source| SshKeyError::Read { path: path.clone(), source })?;
    let blob = public_part(&text).map_err(|why| SshKeyError::NoKey { path, why })?;
    Ok(key(host.filter(|host| !host.is_empty()).map(str::to_owned), text, &blob))
}

/// Reads the text of a private key.
///
/// # Errors
/// It is none that a job could use.
pub fn of_text(host: Option<String>, text: String) -> Result<SshKey, NoKey> {
    let blob = public_part(&text)?;
    Ok(key(host, text, &blob))
}

fn text_of(path: &Path) -> io::Result<String> {
    navvy_plain_file::given_text(path, LONGEST)
}

fn key(host: Option<String>, mut text: String, blob: &[u8]) -> SshKey {
    // OpenSSH reads no key whose last line does not end.
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let (md5, sha256) = fingerprints(blob);
    SshKey { host, text, md5, sha256 }
}

/// MD5 and SHA-256 of a public key, as [`SshKey`] has them.
pub(crate) fn fingerprints(blob: &[u8]) -> (String, String) {
    let md5 = Md5::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    (md5, format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob))))
}

/// The public key, as it goes over the wire.
fn public_part(text: &str) -> Result<Vec<u8>, NoKey> {
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") {
        return Err(NoKey::Public);
    }
    let (kind, headers, body) = pem(text).ok_or(NoKey::Unknown)?;
    match kind.as_str() {
        _ if headers.contains("ENCRYPTED") || kind.contains("ENCRYPTED") => Err(NoKey::Passphrase),
        OPENSSH => of_openssh(&body),
        RSA => of_rsa(&body).ok_or(NoKey::Damaged),
        kind if kind.ends_with("PRIVATE KEY") => Err(NoKey::Kind { kind: kind.to_lowercase() }),
        _ => Err(NoKey::Unknown),
    }
}

/// The label of a PEM text, its headers and its bytes.
fn pem(text: &str) -> Option<(String, String, Vec<u8>)> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN "));
    let kind = lines.next()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned();
    let end = format!("-----END {kind}-----");
    let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
    let (headers, body): (Vec<&str>, Vec<&str>) = inside.into_iter().partition(|line| line.contains(':'));
    let bytes = STANDARD.decode(body.concat()).ok()?;
    Some((kind, headers.concat(), bytes))
}

fn of_openssh(bytes: &[u8]) -> Result<Vec<u8>, NoKey> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(NoKey::Damaged)?;
    let cipher = string(&mut rest).ok_or(NoKey::Damaged)?;
    if cipher != b"none" {
        return Err(NoKey::Passphrase);
    }
    let _derivation = string(&mut rest).ok_or(NoKey::Damaged)?;
    let _options = string(&mut rest).ok_or(NoKey::Damaged)?;
    let count = number(&mut rest).ok_or(NoKey::Damaged)?;
    match string(&mut rest) {
        Some(public) if count == 1 && !public.is_empty() => Ok(public.to_vec()),
        _ => Err(NoKey::Damaged),
    }
}

pub(crate) fn number(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// A string of the SSH protocol: four bytes of length, and the bytes.
pub(crate) fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (found, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(found)
}

/// Modulus and exponent are the second and third number of a PKCS #1 key.
fn of_rsa(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut outer = bytes;
    let mut inner = der(&mut outer, 0x30)?;
    let _version = der(&mut inner, 0x02)?;
    let (modulus, exponent) = (der(&mut inner, 0x02)?, der(&mut inner, 0x02)?);
    // Both forms write numbers alike: big endian, with a zero before a first bit that is set.
    let parts = [b"ssh-rsa".as_slice(), exponent, modulus];
    let with_length = |part: &[u8]| Some([&u32::try_from(part.len()).ok()?.to_be_bytes(), part].concat());
    parts.into_iter().map(with_length).collect::<Option<Vec<_>>>().map(|parts| parts.concat())
}

/// The content of a DER element with this tag.
fn der<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let [found, length, after @ ..] = *rest else { return None };
    if *found != tag {
        return None;
    }
    let (length, after) = match usize::from(*length) {
        short @ 0..0x80 => (short, after),
        long => {
            let (digits, after) = after.split_at_checked(long & 0x7f)?;
            if digits.len() > 4 {
                return None;
            }
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), after)
        }
    };
    let (content, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(content)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use std::fs;

    use super::*;

    /// A key made by OpenSSH itself, and what OpenSSH says of it.
    struct Made {
        room: tempfile::TempDir,
        file: PathBuf,
    }

    impl Made {
        fn new(words: &[&str]) -> Self {
            let room = tempfile::tempdir().unwrap();
            let file = room.path().join("key");
            let base = ["-q", "-C", "test", "-f", file.to_str().unwrap()];
            assert!(Command::new("ssh-keygen").args(base).args(words).status().unwrap().success());
            Self { room, file }
        }

        fn fingerprint(&self, kind: &str) -> String {
            let asked = Command::new("ssh-keygen").args(["-l", "-E", kind, "-f"]).arg(&self.file).output().unwrap();
            let said = String::from_utf8(asked.stdout).unwrap();
            said.split(' ').nth(1).unwrap().trim_start_matches("MD5:").to_owned()
        }

        fn read(&self) -> Result<SshKey, SshKeyError> {
            read(self.file.to_str().unwrap(), None)
        }
    }

    #[test]
    fn fingerprints_are_those_that_openssh_prints() {
        let kinds: [&[&str]; 4] = [
            &["-N", "", "-t", "ed25519"],
            &["-N", "", "-t", "rsa", "-b", "2048"],
            &["-N", "", "-t", "rsa", "-b", "2048", "-m", "PEM"],
            &["-N", "", "-t", "ecdsa"],
        ];
        for words in kinds {
            let made = Made::new(words);
            let key = made.read().unwrap();
            assert_eq!((key.md5.clone(), key.sha256.clone()), (made.fingerprint("md5"), made.fingerprint("sha256")));
            assert_eq!(key.host, None);
            assert!(!format!("{key:?}").contains("PRIVATE"), "{key:?}");
        }
    }

    #[test]
    fn a_host_stands_before_the_file() {
        let made = Made::new(&["-N", "", "-t", "ed25519"]);
        let file = made.file.to_str().unwrap();
        assert_eq!(read(&format!("git.example={file}"), None).unwrap().host.as_deref(), Some("git.example"));
        assert_eq!(read("=~/key", Some(made.room.path())).unwrap().host, None);
        let odd = made.room.path().join("a=b");
        fs::copy(&made.file, &odd).unwrap();
        assert_eq!(read(odd.to_str().unwrap(), None).unwrap().host, None);
    }

    #[test]
    fn what_is_no_key_for_a_job_is_told() {
        let told = |made: &Made| match made.read() {
            Err(SshKeyError::NoKey { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&Made::new(&["-N", "secret", "-t", "ed25519"])), NoKey::Passphrase);
        assert_eq!(told(&Made::new(&["-N", "secret", "-t", "rsa", "-b", "2048", "-m", "PEM"])), NoKey::Passphrase);
        let kind = told(&Made::new(&["-N", "", "-t", "rsa", "-b", "2048", "-m", "PKCS8"]));
        assert_eq!(kind, NoKey::Kind { kind: "private key".to_owned() });
        let made = Made::new(&["-N", "", "-t", "ed25519"]);
        let text = fs::read_to_string(&made.file).unwrap();
        fs::write(&made.file, text.replace("OPENSSH", "GREETING")).unwrap();
        assert!(matches!(told(&made), NoKey::Kind { .. }));
        fs::copy(made.file.with_extension("pub"), &made.file).unwrap();
        assert_eq!(told(&made), NoKey::Public);
        fs::write(&made.file, "hello").unwrap();
        assert_eq!(told(&made), NoKey::Unknown);
        assert!(matches!(read("/nowhere/key", None), Err(SshKeyError::Read { .. })));
    }

    #[test]
    fn a_damaged_key_is_told_wherever_it_is_cut() {
        for words in [["-N", "", "-t", "ed25519"].as_slice(), &["-N", "", "-t", "rsa", "-b", "2048", "-m", "PEM"]] {
            let text = fs::read_to_string(&Made::new(words).file).unwrap();
            let (kind, _, bytes) = pem(&text).unwrap();
            let whole = public_part(&text).unwrap();
            for length in 0..bytes.len() {
                let cut =
                    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(&bytes[..length]));
                match public_part(&cut) {
                    Ok(public) => assert_eq!(public, whole),
                    Err(why) => assert_eq!(why, NoKey::Damaged),
                }
            }
        }
    }
}
