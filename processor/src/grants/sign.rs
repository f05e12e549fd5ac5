//! URLs of our own: for one object and one verb, good for some minutes.
//!
//! ```text
//! BASE/store/v1/body/ID?verb=put&length=N&expires=T&signature=HMAC
//!            ╰────────────── signed ──────────────╯
//! ```
//!
//! The signature is of the text as it stands there: nothing is decoded or put in order before it is compared, so no two
//! spellings of one URL are good. T counts seconds of the monotonic clock since the key was made: a clock that is set does not
//! lengthen a URL's life. The key is random and kept nowhere: a restart ends all URLs, and agents ask for new ones.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::Method;
use navvy_storage::{ObjectPath, URL_LIVES_FOR, UrlSigner, Verb};
use sha2::Sha256;
use tokio::time::Instant;

/// What is signed begins with this, so that a signature of this key is of nothing else.
const PURPOSE: &[u8] = b"navvy store url 1\n";
const SIGNATURE: &str = "&signature=";

/// Signs URLs, and knows its own again.
#[derive(Clone)]
pub struct UrlKey {
    mac: Hmac<Sha256>,
    made: Instant,
    base: String,
}

impl fmt::Debug for UrlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlKey").field("base", &self.base).finish_non_exhaustive()
    }
}

impl UrlKey {
    /// A new random key. `base`: the URL at which [`super::router`] is reached, `https://ci.example:8080`.
    pub fn random(base: &str) -> Self {
        // Four times 122 random bits; together a block of the hash, which is a key as it is.
        let mut key = [0; 64];
        for part in key.chunks_exact_mut(16) {
            part.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        let mac = Hmac::new(&key.into());
        Self { mac, made: Instant::now(), base: base.trim_end_matches('/').to_owned() }
    }

    fn signed(&self, text: &str) -> Hmac<Sha256> {
        self.mac.clone().chain_update(PURPOSE).chain_update(text)
    }

    /// What a request is allowed to do. `path`: behind `/store/`, as it was sent.
    pub(super) fn read(&self, method: &Method, path: &str, query: Option<&str>) -> Option<(ObjectPath, Verb)> {
        let (said, signature) = query?.rsplit_once(SIGNATURE)?;
        let signature = unhex(signature)?;
        self.signed(&format!("{path}?{said}")).verify_slice(&signature).ok()?;
        // From here on it is our own text.
        let path = ObjectPath::read(path)?;
        let said: BTreeMap<&str, &str> = said.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |name: &str| said.get(name)?.parse::<u64>().ok();
        if self.made.elapsed().as_secs() >= number("expires")? {
            return None;
        }
        let (needed, verb) = match *said.get("verb")? {
            "get" => (Method::GET, Verb::Get),
            "put" => (Method::PUT, Verb::Put { length: number("length")? }),
            "part" => {
                let (part, upload) = (u32::try_from(number("part")?).ok()?, (*said.get("upload")?).to_owned());
                (Method::PUT, Verb::Part { upload, part, length: number("length")? })
            }
            _ => return None,
        };
        (*method == needed).then_some((path, verb))
    }
}

impl UrlSigner for UrlKey {
    fn sign(&self, path: &ObjectPath, verb: &Verb) -> String {
        let expires = (self.made.elapsed() + URL_LIVES_FOR).as_secs();
        let said = match verb {
            Verb::Get => "verb=get".to_owned(),
            Verb::Put { length } => format!("verb=put&length={length}"),
            Verb::Part { upload, part, length } => {
                format!("verb=part&length={length}&part={part}&upload={}", plain(upload))
            }
        };
        let said = format!("{path}?{said}&expires={expires}");
        let signature = hex(&self.signed(&said).finalize().into_bytes());
        format!("{}/store/{said}{SIGNATURE}{signature}", self.base)
    }
}

/// An upload's id is of the store's making, but an agent repeats it: what could be read as another field is left out, and then
/// no such upload is found.
fn plain(upload: &str) -> String {
    upload.chars().filter(|char| char.is_ascii_alphanumeric() || "-_.~".contains(*char)).take(1024).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Of our own spelling: two small hexadecimal digits a byte.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let good = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let bytes = good.then(|| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16)))?;
    bytes.collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navvy_storage::BodyId;

    use super::*;

    fn split(url: &str) -> (String, String) {
        let (path, query) = url.strip_prefix("https://ci.example/store/").unwrap().split_once('?').unwrap();
        (path.to_owned(), query.to_owned())
    }

    fn verbs() -> [Verb; 3] {
        [Verb::Get, Verb::Put { length: 17 }, Verb::Part { upload: "0af".into(), part: 2, length: 17 }]
    }

    fn method(verb: &Verb) -> Method {
        if *verb == Verb::Get { Method::GET } else { Method::PUT }
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_is_good_for_one_object_and_one_verb_and_some_minutes() {
        let (key, other) = (UrlKey::random("https://ci.example/"), UrlKey::random("https://ci.example"));
        let path = ObjectPath::body(BodyId::random());
        let methods = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];
        for verb in verbs() {
            let (said, query) = split(&key.sign(&path, &verb));
            assert_eq!(said, path.as_str());
            for tried in &methods {
                let wanted = (*tried == method(&verb)).then(|| (path.clone(), verb.clone()));
                assert_eq!(key.read(tried, &said, Some(&query)), wanted, "{tried} {verb:?}");
            }
            assert_eq!(
                other.read(&method(&verb), &said, Some(&query)),
                None,
                "another processor's, or of a life before"
            );
            let another = ObjectPath::body(BodyId::random());
            assert_eq!(key.read(&method(&verb), another.as_str(), Some(&query)), None);
            assert_eq!(key.read(&method(&verb), &said, None), None);
        }
        let (said, query) = split(&key.sign(&path, &Verb::Get));
        tokio::time::advance(URL_LIVES_FOR - Duration::from_secs(1)).await;
        assert!(key.read(&Method::GET, &said, Some(&query)).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(key.read(&Method::GET, &said, Some(&query)), None, "it has expired");
    }

    #[tokio::test]
    async fn no_character_of_a_url_may_be_another() {
        let key = UrlKey::random("https://ci.example");
        let path = ObjectPath::read("v1/log/task/001-1/0").unwrap();
        for verb in verbs() {
            let (said, query) = split(&key.sign(&path, &verb));
            let whole = format!("{said}?{query}");
            for at in 0..whole.len() {
                for edit in ["", "0", "1", "f", "A", "&", "=", "/", "?", "%30", "x"] {
                    let edited = format!("{}{edit}{}", &whole[..at], &whole[at + 1..]);
                    let (path, query) = edited.split_once('?').unwrap_or((&edited, ""));
                    let read = key.read(&method(&verb), path, Some(query));
                    assert!(edited == whole || read.is_none(), "{edited}");
                }
            }
            for more in ["&verb=put", "&expires=99999999", "&", "&length=99"] {
                assert_eq!(key.read(&method(&verb), &said, Some(&format!("{query}{more}"))), None);
                assert_eq!(key.read(&method(&verb), &said, Some(&format!("{}&{query}", &more[1..]))), None);
            }
            let upper = query.to_uppercase();
            assert_eq!(key.read(&method(&verb), &said, Some(&upper)), None);
        }
    }

    #[tokio::test]
    async fn an_upload_s_id_cannot_say_more_than_an_id() {
        let key = UrlKey::random("https://ci.example");
        let path = ObjectPath::body(BodyId::random());
        let verb = Verb::Part { upload: "0&length=99&verb=put&expires=9".into(), part: 1, length: 1 };
        let (said, query) = split(&key.sign(&path, &verb));
        let (_, Verb::Part { upload, part: 1, length: 1 }) = key.read(&Method::PUT, &said, Some(&query)).unwrap()
        else {
            panic!("{query}")
        };
        assert_eq!(upload, "0length99verbputexpires9");
        assert!(!format!("{key:?}").contains(query.rsplit('=').next().unwrap()));
    }
}
