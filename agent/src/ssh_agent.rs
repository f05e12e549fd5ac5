//! The user's ssh-agent, as far as a job may speak to it.
//!
//! ```text
//! job ─▶ length, kind, content ─▶ judge ─┬─ list ─────────────────────▶ agent ─▶ only the keys that are meant ─▶ job
//!                                        ├─ sign with a key that is ──▶ agent ─▶ job
//!                                        ├─ session-bind ─────────────▶ agent ─▶ job
//!                                        └─ anything else: refused, the agent never hears of it
//! ```
//!
//! So a job can neither add keys nor remove or lock them, even if it may use all of them. Nothing of the agent's secrets ever
//! leaves it: a job gets signatures.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use navvy_environment::supervisor::Caller;
use navvy_job::claim::is_fingerprint;

use crate::ssh_key::{fingerprints, number, string};

/// As in OpenSSH: no message is longer.
const LONGEST: usize = 256 << 10;
/// A person may have to confirm a signature, or to touch a token.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// A caller that says nothing for this long has forgotten to hang up.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const EXTENSION: u8 = 27;
const SESSION_BIND: &[u8] = b"session-bind@openssh.com";

/// A key that the agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub md5: String,
    pub sha256: String,
    pub comment: String,
}

impl Identity {
    fn new(blob: &[u8], comment: &[u8]) -> Self {
        let (md5, sha256) = fingerprints(blob);
        Self { md5, sha256, comment: String::from_utf8_lossy(comment).into_owned() }
    }

    /// Does a config mean this key?
    pub fn is_meant_by(&self, fingerprint: &str) -> bool {
        is_fingerprint(fingerprint, &self.md5, &self.sha256)
    }
}

/// Which keys may be seen and used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// None: all of them.
    fingerprints: Vec<String>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// The agent's answer goes back as it is.
    Pass,
    /// It is a list, from which the others are taken.
    List,
    Refuse,
}

impl Filter {
    pub fn new(fingerprints: Vec<String>) -> Self {
        Self { fingerprints }
    }

    fn allows(&self, blob: &[u8]) -> bool {
        let identity = Identity::new(blob, b"");
        self.fingerprints.is_empty() || self.fingerprints.iter().any(|meant| identity.is_meant_by(meant))
    }

    /// Of a request without its length.
    fn judge(&self, request: &[u8]) -> Judgement {
        let Some((kind, mut rest)) = request.split_first() else { return Judgement::Refuse };
        match *kind {
            REQUEST_IDENTITIES => Judgement::List,
            SIGN_REQUEST if string(&mut rest).is_some_and(|blob| self.allows(blob)) => Judgement::Pass,
            EXTENSION if string(&mut rest) == Some(SESSION_BIND) => Judgement::Pass,
            _ => Judgement::Refuse,
        }
    }

    /// The agent's list, without the keys that are not meant. A list that makes no sense becomes a refusal.
    fn listed(&self, answer: &[u8]) -> Vec<u8> {
        let Some(keys) = keys(answer) else { return vec![FAILURE] };
        let allowed: Vec<_> = keys.into_iter().filter(|(blob, _)| self.allows(blob)).collect();
        let mut list = vec![IDENTITIES_ANSWER];
        let mut put = |bytes: &[u8]| list.extend_from_slice(bytes);
        // What came in a message is no longer than one.
        put(&(allowed.len() as u32).to_be_bytes());
        for part in allowed.iter().flat_map(|(blob, comment)| [blob, comment]) {
            put(&(part.len() as u32).to_be_bytes());
            put(part);
        }
        list
    }
}

/// Blobs and comments of an answer with a list.
fn keys(answer: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut rest = answer.strip_prefix(&[IDENTITIES_ANSWER])?;
    let count = number(&mut rest)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push((string(&mut rest)?, string(&mut rest)?));
    }
    Some(keys)
}

/// Takes a whole message, without its length, from the front; `None` while it is not whole.
fn message(bytes: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    check(length)?;
    if bytes.len() < 4 + length {
        return Ok(None);
    }
    let message = bytes[4..4 + length].to_vec();
    bytes.drain(..4 + length);
    Ok(Some(message))
}

fn check(length: usize) -> io::Result<()> {
    match length {
        1..=LONGEST => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes"))),
    }
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// One connection to it.
struct Agent(UnixStream);

impl Agent {
    fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self(stream))
    }

    /// Its answer, without the length.
    fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(&with_length(request))?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        check(length)?;
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// The keys that the agent at this socket has.
///
/// # Errors
/// Nothing answers there, or not as an ssh-agent does.
pub fn identities(path: &Path) -> io::Result<Vec<Identity>> {
    let answer = Agent::connect(path)?.ask(&[REQUEST_IDENTITIES])?;
    let keys = keys(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not an ssh-agent"))?;
    Ok(keys.into_iter().map(|(blob, comment)| Identity::new(blob, comment)).collect())
}

/// Answers a caller until it hangs up.
///
/// # Errors
/// It speaks no sense, or the agent is gone.
pub fn serve(mut caller: Caller, path: &Path, filter: &Filter) -> io::Result<()> {
    let mut agent = Agent::connect(path)?;
    let mut bytes = Vec::new();
    loop {
        while let Some(request) = message(&mut bytes)? {
            let answer = match filter.judge(&request) {
                Judgement::Pass => agent.ask(&request)?,
                Judgement::List => filter.listed(&agent.ask(&request)?),
                Judgement::Refuse => vec![FAILURE],
            };
            caller.send(&with_length(&answer))?;
        }
        match caller.receive(IDLE_LIMIT)? {
            Some(more) => bytes.extend_from_slice(more),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Vec<u8> {
        with_length(bytes)
    }

    fn only(blob: &[u8]) -> Filter {
        Filter::new(vec![fingerprints(blob).1])
    }

    fn signing(blob: &[u8]) -> Vec<u8> {
        [&[SIGN_REQUEST][..], &text(blob), &text(b"data"), &[0; 4]].concat()
    }

    fn list(keys: &[(&[u8], &[u8])]) -> Vec<u8> {
        let parts = keys.iter().flat_map(|(blob, comment)| [text(blob), text(comment)]).collect::<Vec<_>>().concat();
        [&[IDENTITIES_ANSWER][..], &(keys.len() as u32).to_be_bytes(), &parts].concat()
    }

    #[test]
    fn only_keys_that_are_meant_are_seen_and_used() {
        let (filter, all) = (only(b"ours"), Filter::new(vec![]));
        assert_eq!(filter.judge(&signing(b"ours")), Judgement::Pass);
        assert_eq!(filter.judge(&signing(b"theirs")), Judgement::Refuse);
        assert_eq!(all.judge(&signing(b"theirs")), Judgement::Pass);
        let both = list(&[(b"theirs", b"not this"), (b"ours", b"this")]);
        assert_eq!(filter.listed(&both), list(&[(b"ours", b"this")]));
        assert_eq!(all.listed(&both), both);
        let md5 = Filter::new(vec![format!("MD5:{}", fingerprints(b"ours").0.to_uppercase())]);
        assert_eq!(md5.listed(&both), list(&[(b"ours", b"this")]));
    }

    #[test]
    fn nothing_but_listing_and_signing_gets_through() {
        let all = Filter::new(vec![]);
        let allowed: Vec<u8> =
            (0..=255).filter(|kind| all.judge(&[&[*kind][..], &text(b"x")].concat()) != Judgement::Refuse).collect();
        assert_eq!(allowed, [REQUEST_IDENTITIES, SIGN_REQUEST]);
        let extension = |name: &[u8]| all.judge(&[&[EXTENSION][..], &text(name), b"more"].concat());
        assert_eq!(extension(SESSION_BIND), Judgement::Pass);
        assert_eq!(extension(b"query"), Judgement::Refuse);
        assert_eq!(extension(b"session-bind@openssh.com2"), Judgement::Refuse);
        assert_eq!(all.judge(&[]), Judgement::Refuse);
    }

    #[test]
    fn what_is_cut_short_is_neither_passed_on_nor_believed() {
        let filter = only(b"ours");
        let sign = signing(b"ours");
        for length in 0..5 + b"ours".len() {
            assert_eq!(filter.judge(&sign[..length]), Judgement::Refuse, "{length}");
        }
        let answer = list(&[(b"ours", b"this")]);
        for length in 0..answer.len() {
            assert_eq!(filter.listed(&answer[..length]), [FAILURE], "{length}");
        }
        let countless = [&[IDENTITIES_ANSWER, 255, 255, 255, 255][..], &text(b"ours")].concat();
        assert_eq!(filter.listed(&countless), [FAILURE]);
        assert_eq!(filter.listed(&[FAILURE]), [FAILURE]);
    }

    #[test]
    fn messages_come_whole_or_not_at_all_and_never_too_long() {
        let two = [text(b"one"), text(b"two")].concat();
        let mut bytes = Vec::new();
        let mut seen = Vec::new();
        for byte in two {
            bytes.push(byte);
            seen.extend(message(&mut bytes).unwrap());
        }
        assert_eq!((seen, bytes), (vec![b"one".to_vec(), b"two".to_vec()], vec![]));
        assert!(message(&mut vec![0, 0, 0, 0]).is_err());
        assert!(message(&mut vec![255, 255, 255, 255, 11]).is_err());
        assert!(message(&mut (LONGEST as u32 + 1).to_be_bytes().to_vec()).is_err());
        assert_eq!(message(&mut (LONGEST as u32).to_be_bytes().to_vec()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_list_shows_a_key_that_is_not_meant(answer: Vec<u8>, keys: Vec<(Vec<u8>, Vec<u8>)>) {
            let filter = only(b"ours");
            let plain: Vec<(&[u8], &[u8])> = keys.iter().map(|(blob, comment)| (&blob[..], &comment[..])).collect();
            for answer in [answer, list(&plain)] {
                let listed = filter.listed(&answer);
                let shown = super::keys(&listed).unwrap_or_default();
                prop_assert!(shown.iter().all(|(blob, _)| *blob == b"ours"));
            }
        }
    }
}
