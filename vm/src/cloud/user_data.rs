//! What a cloud's machine is given at its first start: its own ssh host key, and who may come in. No secret of a task.
//!
//! The text is a cloud-config in JSON (which is YAML, too): cloud-init takes it as well as the images of Navvy's own. The host key
//! is made here and pinned here; the machine's own metadata service shows it to whoever runs on the machine, so it is worth
//! nothing once the machine is gone.

use serde_json::json;

use super::Secret;
use crate::ssh_key::SshKey;

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
