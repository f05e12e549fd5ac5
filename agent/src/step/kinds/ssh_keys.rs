//! `add_ssh_keys`: private keys into the job user's home, for the hosts that they are for; and the way to the user's
//! ssh-agent, where it was named.
//!
//! They cross the supervisor's socket and lie in the environment's own files, as on the real service: whatever the job
//! runs can read them.

use navvy_environment::supervisor::{Client, ClientError};
use navvy_job::claim::SshKey;
use navvy_protocol::supervisor::FailureKind;
use tar::{Builder, EntryType, Header};

use super::Done;
use super::handed::open_ssh_agent;
use crate::ssh_agent::{self, Identity};
use crate::step::Frame;
use crate::step::cx::StepCx;
use crate::step::handing::Handed;
use crate::step::own::{StepError, StepFault, StepOutput};

/// Bytes of an `~/.ssh/config`; no real one is longer.
const CONFIG_CAP: usize = 1 << 20;
const HOW: &str =
    "give it with `navvy run --ssh-key [HOST=]FILE`, or let the job use your ssh-agent with `--ssh-key agent`";

pub async fn add_ssh_keys(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    fingerprints: &[String],
) -> Result<Done, StepError> {
    let listing = cx.handing.ssh_agent.clone();
    let listed = cx.bounds.bounded(move || listing.map(|agent| ssh_agent::identities(&agent))).await?;
    let (identities, silent) = match listed {
        Some(Ok(identities)) => (identities, None),
        Some(Err(error)) => (Vec::new(), Some(format!("your ssh-agent does not answer: {error}"))),
        None => (Vec::new(), None),
    };
    let (keys, mut missing) = choose(cx.secrets.ssh_keys(), &identities, fingerprints);
    missing.extend(silent);
    for what in &missing {
        cx.voice.warn(format!("step {}: {what}; {HOW}", output.number));
        output.line(&format!("{what}: not installed."));
    }
    install_all(cx, output, keys).await?;
    match identities.iter().any(|key| is_asked_for(key, fingerprints)) {
        true => hand_over_agent(cx, output, &identities, fingerprints).await,
        false => Ok(Done::default()),
    }
}

/// Where the steps look, and where ssh looks if that is not the same.
async fn install_all(cx: &StepCx<'_>, output: &mut StepOutput, keys: Vec<SshKey>) -> Result<(), StepError> {
    let (client, user) = (cx.client.clone(), cx.frame.user.clone());
    let (home, of_ssh) = (cx.frame.home.clone(), home_of_ssh(cx.frame));
    let installing = cx.bounds.bounded(move || {
        install(&client, user.clone(), &home, &keys)?;
        let missing = of_ssh.and_then(|of_ssh| match install(&client, user, &of_ssh, &keys) {
            Err(fault) if fault.lost.is_none() => Some(format!(
                "Warning: ssh looks for keys in {of_ssh}/.ssh alone, where they could not be put: {}",
                fault.reason
            )),
            // A supervisor that is lost is reported by the next step.
            Ok(()) | Err(_) => None,
        });
        Ok::<_, StepFault>((keys, missing))
    });
    let (keys, missing) = installing.await??;
    keys.iter().for_each(|key| output.line(&told(key)));
    missing.iter().for_each(|line| output.line(line));
    Ok(())
}

/// From here on the job's steps find the user's ssh-agent, as far as these keys go.
async fn hand_over_agent(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    identities: &[Identity],
    fingerprints: &[String],
) -> Result<Done, StepError> {
    let Some(agent) = cx.handing.ssh_agent.clone() else { return Ok(Done::default()) };
    let all = cx.handed.with_keys_before(fingerprints);
    let (client, user, number) = (cx.client.clone(), cx.frame.user.clone(), cx.handed.notes().len());
    let asked = all.clone();
    let opened = cx.bounds.bounded(move || open_ssh_agent(&client, user, number, agent, asked)).await??;
    output.line(&format!("Your ssh-agent answers at {} (SSH_AUTH_SOCK), for these of its keys:", opened.path));
    for key in identities.iter().filter(|key| is_asked_for(key, &all)) {
        output.line(&format!("  {} {} {}", key.md5, key.sha256, key.comment));
    }
    let mut fidelity = None;
    if fingerprints.is_empty() {
        output.line("These are all its keys, since the step names no fingerprints.");
        let number = output.number;
        fidelity = Some(format!("step {number} names no fingerprints, so all keys of your ssh-agent could be used"));
    }
    Ok(Done { handed: Some((Handed::SshAgent { fingerprints: all }, opened)), machine: None, fidelity })
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

fn install(client: &Client, user: Option<String>, home: &str, keys: &[SshKey]) -> Result<(), StepFault> {
    if keys.is_empty() {
        return Ok(());
    }
    let failed = |error: ClientError| StepFault::of_client("add_ssh_keys: ", &error);
    let old = match client.read(&format!("{}/.ssh/config", home.trim_end_matches('/')), user.clone(), CONFIG_CAP) {
        Err(error) if error.failure().is_some_and(|failure| failure.kind == FailureKind::NoSuchFile) => Vec::new(),
        read => read.map_err(failed)?,
    };
    let config = with_keys(old, home, keys);
    let unpacked = client.unpack(home, user, |sink| archive(sink, &config, keys)).map_err(failed)?;
    unpacked.map_err(|error| StepFault::from(format!("add_ssh_keys: {error}"))).map(drop)
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
