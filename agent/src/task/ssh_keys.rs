//! `add_ssh_keys`: private keys into the job user's home, for the hosts that they are for; and the way to the user's
//! ssh-agent, where it was named.
//!
//! They cross the supervisor's socket and lie in the environment's own files, as on the real service: whatever the job
//! runs can read them.

use navvy_job::claim::SshKey;
use navvy_protocol::supervisor::FailureKind;
use tar::{Builder, EntryType, Header};

use super::Task;
use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::builtin::of_client;
use super::handed::{Handed, open_ssh_agent};
use super::own::{Told, Trouble};
use super::prepare::Ready;
use crate::ssh_agent::{self, Identity};
use crate::step::Frame;
use crate::supervisor::{Client, ClientError};

/// Of an `~/.ssh/config`; nobody's is longer.
const CONFIG_CAP: usize = 1 << 20;
const HOW: &str =
    "give it with `navvy run --ssh-key [HOST=]FILE`, or let the job use your ssh-agent with `--ssh-key agent`";

impl Task {
    pub(super) async fn add_ssh_keys(
        &mut self,
        ready: &mut Ready,
        place: Place<'_>,
        fingerprints: &[String],
    ) -> Attempted {
        let listing = self.context.handing.ssh_agent.clone();
        let listed = self.bounded(&ready.environment, move || listing.map(|agent| ssh_agent::identities(&agent))).await;
        let (identities, silent) = match listed {
            Ok(Some(Ok(identities))) => (identities, None),
            Ok(Some(Err(error))) => (Vec::new(), Some(format!("your ssh-agent does not answer: {error}"))),
            // The installing below finds out, too, and says why.
            Ok(None) | Err(_) => (Vec::new(), None),
        };
        let (keys, mut missing) = choose(self.secrets.ssh_keys(), &identities, fingerprints);
        missing.extend(silent);
        for what in &missing {
            self.warn(format!("step {}: {what}; {HOW}", place.number));
        }
        let mut said = match self.begin_own(place) {
            Ok(said) => said,
            Err(attempted) => return *attempted,
        };
        missing.iter().for_each(|what| said.line(&format!("{what}: not installed.")));
        let (client, user) = (ready.client.clone(), ready.frame.user.clone());
        let (home, of_ssh) = (ready.frame.home.clone(), home_of_ssh(&ready.frame));
        let installing = self.bounded(&ready.environment, move || {
            install(&client, user.clone(), &home, &keys)?;
            let missing = of_ssh.and_then(|of_ssh| match install(&client, user, &of_ssh, &keys) {
                Err(trouble) if trouble.lost.is_none() => Some(format!(
                    "Warning: ssh looks for keys in {of_ssh}/.ssh alone, where they could not be put: {}",
                    trouble.reason
                )),
                // A supervisor that is lost is told by the next step.
                Ok(()) | Err(_) => None,
            });
            Ok((keys, missing))
        });
        let mut end = installing.await.map(|installed: Result<_, Trouble>| {
            installed.map(|(keys, missing)| {
                keys.iter().for_each(|key| said.line(&told(key)));
                missing.iter().for_each(|line| said.line(line));
            })
        });
        if matches!(end, Ok(Ok(()))) && identities.iter().any(|key| is_asked_for(key, fingerprints)) {
            end = self.hand_over_agent(ready, place, &mut said, &identities, fingerprints).await;
        }
        self.own_ended(place, &said, end)
    }

    /// From here on the job's steps find the user's ssh-agent, as far as these keys go.
    async fn hand_over_agent(
        &mut self,
        ready: &mut Ready,
        place: Place<'_>,
        said: &mut Told,
        identities: &[Identity],
        fingerprints: &[String],
    ) -> Result<Result<(), Trouble>, GivenUp> {
        let Some(agent) = self.context.handing.ssh_agent.clone() else { return Ok(Ok(())) };
        let all = ready.handed.with_keys_before(fingerprints);
        let (client, user, number) = (ready.client.clone(), ready.frame.user.clone(), ready.handed.notes().len());
        let asked = all.clone();
        let opening =
            self.bounded(&ready.environment, move || open_ssh_agent(&client, user, number, agent, asked)).await?;
        let opened = match opening {
            Ok(opened) => opened,
            Err(trouble) => return Ok(Err(trouble)),
        };
        said.line(&format!("Your ssh-agent answers at {} (SSH_AUTH_SOCK), for these keys of it:", opened.path));
        for key in identities.iter().filter(|key| is_asked_for(key, &all)) {
            said.line(&format!("  {} {} {}", key.md5, key.sha256, key.comment));
        }
        if fingerprints.is_empty() {
            said.line("These are all its keys, since the step names no fingerprints.");
            self.result.fidelity.push(format!(
                "step {} names no fingerprints, so all keys of your ssh-agent could be used",
                place.number
            ));
        }
        ready.handed.add(&mut ready.frame, Handed::SshAgent { fingerprints: all }, opened);
        Ok(Ok(()))
    }
}

fn is_asked_for(key: &Identity, fingerprints: &[String]) -> bool {
    fingerprints.is_empty() || fingerprints.iter().any(|it| key.is_meant_by(it))
}

/// The keys that a step asks for, and what it asks for and is not here. Without fingerprints it asks for all.
fn choose(given: &[SshKey], of_agent: &[Identity], fingerprints: &[String]) -> (Vec<SshKey>, Vec<String>) {
    let meant = |key: &&SshKey| fingerprints.is_empty() || fingerprints.iter().any(|it| key.is_meant_by(it));
    let missing =
        |it: &&String| !given.iter().any(|key| key.is_meant_by(it)) && !of_agent.iter().any(|key| key.is_meant_by(it));
    let mut lacking: Vec<String> =
        fingerprints.iter().filter(missing).map(|it| format!("no SSH key with the fingerprint {it} is here")).collect();
    if fingerprints.is_empty() && given.is_empty() && of_agent.is_empty() {
        lacking.push("no SSH key is here".to_owned());
    }
    (given.iter().filter(meant).cloned().collect(), lacking)
}

fn told(key: &SshKey) -> String {
    let host = key.host.as_ref().map(|host| format!(" for {host}")).unwrap_or_default();
    format!("Installed the SSH key {}{host} as ~/.ssh/{}", key.md5, file_name(key))
}

fn file_name(key: &SshKey) -> String {
    format!("id_rsa_{}", key.md5.replace(':', ""))
}

/// Where ssh looks, which asks the file of users and never `$HOME`, if that is not the home of the steps.
fn home_of_ssh(frame: &Frame) -> Option<String> {
    let home = frame.account.home.trim_end_matches('/');
    // Without a name ssh does not work at all.
    (frame.account.name.is_some() && home != frame.home.trim_end_matches('/')).then(|| home.to_owned())
}

fn install(client: &Client, user: Option<String>, home: &str, keys: &[SshKey]) -> Result<(), Trouble> {
    if keys.is_empty() {
        return Ok(());
    }
    let failed = |error: ClientError| of_client("add_ssh_keys: ", &error);
    let old = match client.read(&format!("{}/.ssh/config", home.trim_end_matches('/')), user.clone(), CONFIG_CAP) {
        Err(error) if error.failure().is_some_and(|failure| failure.kind == FailureKind::NoSuchFile) => Vec::new(),
        read => read.map_err(failed)?,
    };
    let config = with_keys(old, home, keys);
    let unpacked = client.unpack(home, user, |sink| archive(sink, &config, keys)).map_err(failed)?;
    unpacked.map_err(|error| Trouble::from(format!("add_ssh_keys: {error}"))).map(drop)
}

/// The old text, and behind it a block for each key that has none yet.
fn with_keys(old: Vec<u8>, home: &str, keys: &[SshKey]) -> Vec<u8> {
    let mut text = old;
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    for key in keys {
        let host = key.host.as_deref().unwrap_or("*");
        let file = format!("{}/.ssh/{}", home.trim_end_matches('/'), file_name(key));
        let block = format!("Host {host}\n  IdentitiesOnly no\n  IdentityFile {file}\n");
        // A step that is run again finds what it wrote before.
        if !text.windows(block.len()).any(|part| part == block.as_bytes()) {
            text.extend_from_slice(block.as_bytes());
        }
    }
    text
}

/// OpenSSH uses no key that others might read.
fn archive(sink: &mut dyn std::io::Write, config: &[u8], keys: &[SshKey]) -> std::io::Result<()> {
    let mut archive = Builder::new(sink);
    let mut entry = |name: &str, kind: EntryType, mode: u32, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0));
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes)
    };
    entry(".ssh/", EntryType::Directory, 0o700, b"")?;
    for key in keys {
        entry(&format!(".ssh/{}", file_name(key)), EntryType::Regular, 0o600, key.text.as_bytes())?;
    }
    entry(".ssh/config", EntryType::Regular, 0o600, config)?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: Option<&str>, md5: &str) -> SshKey {
        SshKey { host: host.map(str::to_owned), text: "k\n".into(), md5: md5.into(), sha256: format!("SHA256:{md5}") }
    }

    #[test]
    fn a_step_gets_the_keys_that_it_names_or_all() {
        let given = [key(None, "aa:01"), key(Some("h"), "bb:02")];
        assert_eq!(choose(&given, &[], &[]), (given.to_vec(), vec![]));
        assert_eq!(choose(&given, &[], &["bb:02".into()]).0, given[1..]);
        let (chosen, missing) = choose(&given, &[], &["SHA256:aa:01".into(), "cc:03".into()]);
        assert_eq!(
            (chosen.len(), &missing[..]),
            (1, &["no SSH key with the fingerprint cc:03 is here".to_owned()][..])
        );
        assert_eq!(choose(&[], &[], &[]), (vec![], vec!["no SSH key is here".to_owned()]));
        let of_agent = [Identity { md5: "cc:03".into(), sha256: "SHA256:cc:03".into(), comment: "mine".into() }];
        assert_eq!(choose(&[], &of_agent, &[]), (vec![], vec![]));
        assert_eq!(choose(&given, &of_agent, &["MD5:CC:03".into()]), (vec![], vec![]));
    }

    #[test]
    fn blocks_come_behind_what_is_there_once() {
        let keys = [key(None, "aa:01"), key(Some("git.example"), "bb:02")];
        let once = with_keys(b"Host own\n  User me".to_vec(), "/root/", &keys);
        let text = "Host own\n  User me\nHost *\n  IdentitiesOnly no\n  IdentityFile /root/.ssh/id_rsa_aa01\n\
            Host git.example\n  IdentitiesOnly no\n  IdentityFile /root/.ssh/id_rsa_bb02\n";
        assert_eq!(String::from_utf8_lossy(&once), text);
        assert_eq!(with_keys(once.clone(), "/root", &keys), once);
    }
}
