//! What a cloud's machine is given at its first start: its own ssh host key, and who may come in. No secret of a task.
//!
//! The text is a cloud-config in JSON (which is YAML, too): cloud-init takes it as well as the images of Navvy's own. The host key
//! is made here and pinned here; the machine's own metadata service shows it to whoever runs on the machine, so it is worth
//! nothing once the machine is gone.

use russh::keys::{Algorithm, PrivateKey, PublicKey, ssh_key::LineEnding};
use serde_json::json;

use super::Secret;

/// A machine's host key, or the key by which its owner comes in.
#[derive(Clone)]
pub struct SshKey(PrivateKey);

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SshKey").field(&self.fingerprint()).finish()
    }
}

/// Why a text is no key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("this is no private ssh key in OpenSSH's format without a passphrase: {why}")]
pub struct NoKey {
    why: String,
}

impl SshKey {
    /// A new Ed25519 key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, NoKey> {
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
            .map_err(|_| NoKey { why: "the system gave no random numbers".to_owned() })?;
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
        Ok(Self(PrivateKey::from(pair)))
    }

    /// Reads a key in OpenSSH's format.
    ///
    /// # Errors
    /// It is none, or has a passphrase.
    pub fn from_openssh(text: &str) -> Result<Self, NoKey> {
        let key = PrivateKey::from_openssh(text).map_err(|error| NoKey { why: error.to_string() })?;
        if key.is_encrypted() {
            return Err(NoKey { why: "it has a passphrase".to_owned() });
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(NoKey { why: format!("it is {}, and only Ed25519 is taken", key.algorithm()) });
        }
        Ok(Self(key))
    }

    /// The key in OpenSSH's format.
    pub fn to_openssh(&self) -> Secret {
        Secret::new(self.0.to_openssh(LineEnding::LF).map(|text| text.to_string()).unwrap_or_default())
    }

    /// A line of `authorized_keys` or of a host key's public file.
    pub fn public_line(&self) -> String {
        self.0.public_key().to_openssh().unwrap_or_default()
    }

    /// As `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(russh::keys::HashAlg::Sha256).to_string()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        self.0.public_key()
    }

    /// The key itself.
    pub fn private(&self) -> &PrivateKey {
        &self.0
    }
}

/// The user data of a machine that shows `host` and lets `authorized` in as `user`.
pub fn user_data(host: &SshKey, authorized: &str, user: &str) -> Secret {
    let config = json!({
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": host.to_openssh().reveal(), "ed25519_public": host.public_line()},
        "ssh_pwauth": false,
        "disable_root": user != "root",
        "users": [{"name": user, "ssh_authorized_keys": [authorized]}],
    });
    Secret::new(format!("#cloud-config\n{config}\n"))
}

#[cfg(test)]
mod tests {
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
    fn user_data_is_a_cloud_config_that_holds_keys_alone() {
        let key = SshKey::generate().unwrap();
        let text = user_data(&key, "ssh-ed25519 AAAA agent", "root");
        let json = text.reveal().strip_prefix("#cloud-config\n").unwrap();
        let config: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(config["users"][0]["ssh_authorized_keys"][0], "ssh-ed25519 AAAA agent");
        assert_eq!(config["ssh_keys"]["ed25519_public"], key.public_line());
        assert_eq!(config["disable_root"], false);
    }
}
