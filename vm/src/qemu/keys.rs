//! The ssh host key of a machine: made here, given in its seed, and pinned. Nothing is trusted on first use.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

const KIND: &[u8] = b"ssh-ed25519";
const LINE: usize = 70;

/// A new key.
pub struct HostKey {
    /// In OpenSSH's format, for the seed alone.
    pub private: String,
    /// As a line of `known_hosts` has it behind the host's name.
    pub public: String,
    /// As `ssh-keygen -l` shows it.
    pub fingerprint: String,
}

/// Random bytes of the system.
///
/// # Errors
/// It has none.
pub fn random<const N: usize>() -> Result<[u8; N], std::io::Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

impl HostKey {
    /// Makes one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn make() -> Result<Self, std::io::Error> {
        let seed: [u8; 32] = random()?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(std::io::Error::other)?;
        let public = public_blob(pair.public_key().as_ref());
        let check: [u8; 4] = random()?;
        Ok(Self {
            private: private_text(&seed, pair.public_key().as_ref(), check),
            public: format!("ssh-ed25519 {}", STANDARD.encode(&public)),
            fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&public))),
        })
    }
}

fn string(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend((bytes.len() as u32).to_be_bytes());
    into.extend(bytes);
}

fn public_blob(key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, KIND);
    string(&mut blob, key);
    blob
}

/// `openssh-key-v1` without a passphrase: PROTOCOL.key of OpenSSH.
fn private_text(seed: &[u8; 32], public: &[u8], check: [u8; 4]) -> String {
    let mut inner = Vec::new();
    // The same number twice, by which a wrong passphrase would be noticed.
    inner.extend([check, check].concat());
    string(&mut inner, KIND);
    string(&mut inner, public);
    string(&mut inner, &[seed.as_slice(), public].concat());
    string(&mut inner, b"");
    inner.extend((1..).take((8 - inner.len() % 8) % 8));
    let mut blob = b"openssh-key-v1\0".to_vec();
    for word in [b"none".as_slice(), b"none", b""] {
        string(&mut blob, word);
    }
    blob.extend(1u32.to_be_bytes());
    string(&mut blob, &public_blob(public));
    string(&mut blob, &inner);
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> = text.as_bytes().chunks(LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn openssh_reads_the_key_and_sees_what_was_pinned() {
        let (key, other) = (HostKey::make().unwrap(), HostKey::make().unwrap());
        assert_ne!(key.fingerprint, other.fingerprint);
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        std::fs::write(&path, &key.private).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = |arguments: &[&str]| {
            let run = Command::new("ssh-keygen").args(arguments).arg("-f").arg(&path).output().expect("ssh-keygen");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        };
        assert_eq!(said(&["-y"]).trim(), key.public);
        assert!(said(&["-l"]).contains(&key.fingerprint));
    }
}
