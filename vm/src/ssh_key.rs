//! Ed25519 keys for ssh: of machines, made by who makes the machine and pinned, and of who comes in. Nothing is trusted on first use.

use russh::keys::{Algorithm, PrivateKey, PublicKey, ssh_key::LineEnding};

use crate::cloud::Secret;

/// A private key, with its texts.
#[derive(Clone)]
pub struct SshKey {
    key: PrivateKey,
    private: Secret,
    public: String,
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SshKey").field(&self.fingerprint()).finish()
    }
}

/// Why there is no key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoKey {
    /// The system has none.
    #[error("the system gave no random numbers for a key")]
    NoRandom,
    /// A text is none.
    #[error("this is no private Ed25519 key in OpenSSH's format without a passphrase: {why}")]
    Text {
        /// What it is instead.
        why: String,
    },
}

impl SshKey {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, NoKey> {
        let mut seed = [0; 32];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut seed).map_err(|_| NoKey::NoRandom)?;
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
        Self::of(PrivateKey::from(pair))
    }

    /// Reads a key in OpenSSH's format.
    ///
    /// # Errors
    /// It is none, or has a passphrase.
    pub fn from_openssh(text: &str) -> Result<Self, NoKey> {
        let none = |why: String| NoKey::Text { why };
        let key = PrivateKey::from_openssh(text).map_err(|error| none(error.to_string()))?;
        if key.is_encrypted() {
            return Err(none("it has a passphrase".to_owned()));
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(none(format!("it is {}", key.algorithm())));
        }
        Self::of(key)
    }

    fn of(key: PrivateKey) -> Result<Self, NoKey> {
        let text = |error: russh::keys::ssh_key::Error| NoKey::Text { why: error.to_string() };
        let private = Secret::new(key.to_openssh(LineEnding::LF).map_err(text)?.to_string());
        let public = key.public_key().to_openssh().map_err(text)?;
        Ok(Self { key, private, public })
    }

    /// The key in OpenSSH's format.
    pub fn to_openssh(&self) -> &Secret {
        &self.private
    }

    /// As a line of `authorized_keys`, of `known_hosts` behind the host's name, or of a key's public file.
    pub fn public_line(&self) -> &str {
        &self.public
    }

    /// As `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// The key itself.
    pub fn private(&self) -> &PrivateKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn keys_survive_their_text_and_no_debug_shows_one() {
        let key = SshKey::generate().unwrap();
        let text = key.to_openssh();
        assert_eq!(SshKey::from_openssh(text.reveal()).unwrap().public_line(), key.public_line());
        assert_ne!(SshKey::generate().unwrap().public_line(), key.public_line());
        let debugged = format!("{key:?} {text:?}");
        assert!(!debugged.contains("PRIVATE") && debugged.contains("SHA256:"), "{debugged}");
        assert!(SshKey::from_openssh("-----BEGIN RSA PRIVATE KEY-----").is_err());
    }

    #[test]
    fn openssh_reads_the_key_and_sees_what_was_pinned() {
        let key = SshKey::generate().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        std::fs::write(&path, key.to_openssh().reveal()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = |arguments: &[&str]| {
            let run = Command::new("ssh-keygen").args(arguments).arg("-f").arg(&path).output().expect("ssh-keygen");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        };
        assert_eq!(said(&["-y"]).trim(), key.public_line());
        assert!(said(&["-l"]).contains(&key.fingerprint()));
    }
}
