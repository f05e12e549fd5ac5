//! Who asks: from the environment, from a profile's file, or from the machine's own metadata service (version 2 alone).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Method, Request, Url};
use serde::Deserialize;

use super::CLOUD;
use crate::cloud::call::{self, words};
use crate::cloud::{Fault, Secret};

/// The metadata service of a machine at AWS.
const METADATA: &str = "http://169.254.169.254";
/// It answers in milliseconds, or it is not there.
const METADATA_LIMIT: Duration = Duration::from_secs(2);
/// How long a session with it is good for.
const SESSION_S: &str = "300";
/// Credentials that end within this are asked for anew.
const EARLY_S: i64 = 300;
/// Bytes of the longest profile file.
const PROFILES: u64 = 1 << 20;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The key's name, which is no secret.
    pub key_id: String,
    /// The key.
    pub secret: Secret,
    /// Of temporary ones.
    pub token: Option<Secret>,
    /// When they end, in seconds since 1970.
    pub until_s: Option<i64>,
}

impl Credentials {
    /// Are they good for a while yet?
    pub fn are_fresh(&self, now_s: i64) -> bool {
        self.until_s.is_none_or(|until| until - EARLY_S > now_s)
    }
}

/// Where credentials are looked for, in this order; read from settings once.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    pub given: Option<Credentials>,
    /// `AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`.
    pub file: Option<PathBuf>,
    /// `AWS_PROFILE`, else `default`.
    pub profile: String,
    /// Address of the metadata service. `None`: it is not asked.
    pub metadata: Option<String>,
}

impl Sources {
    /// As the environment variables say.
    pub fn new(environment: &BTreeMap<String, String>, home: Option<&Path>) -> Self {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let given = set("AWS_ACCESS_KEY_ID").zip(set("AWS_SECRET_ACCESS_KEY")).map(|(key_id, secret)| Credentials {
            key_id,
            secret: Secret::new(secret),
            token: set("AWS_SESSION_TOKEN").map(Secret::new),
            until_s: None,
        });
        let file = set("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let disabled = set("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let metadata = set("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| METADATA.to_owned());
        Self {
            given,
            file: file.or_else(|| home.map(|home| home.join(".aws/credentials"))),
            profile: set("AWS_PROFILE").unwrap_or_else(|| "default".to_owned()),
            metadata: (!disabled).then_some(metadata),
        }
    }

    /// The first that has any. `direct` goes through no proxy: what answers there must be this machine's own service.
    ///
    /// # Errors
    /// None has.
    pub async fn find(&self, direct: &Client) -> Result<Credentials, Fault> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        if let Some(found) = self.of_file()? {
            return Ok(found);
        }
        let Some(metadata) = &self.metadata else { return Err(self.none("the metadata service is turned off")) };
        match of_metadata(direct, metadata).await {
            Ok(found) => Ok(found),
            Err(Fault::Unreachable { message, .. }) => Err(self.none(&message)),
            Err(Fault::Late { .. }) => Err(self.none("the metadata service does not answer")),
            Err(fault) => Err(fault),
        }
    }

    fn none(&self, metadata: &str) -> Fault {
        let file = self.file.as_deref().unwrap_or(Path::new("~/.aws/credentials"));
        let message = format!(
            "no AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY in the environment, no profile [{}] in {}, and this machine has no \
             role ({metadata}); give one of them",
            self.profile,
            file.display()
        );
        Fault::NoCredentials { cloud: CLOUD, message }
    }

    fn of_file(&self) -> Result<Option<Credentials>, Fault> {
        let Some(path) = &self.file else { return Ok(None) };
        let failed = |why: String| Fault::NoCredentials { cloud: CLOUD, message: format!("{}: {why}", path.display()) };
        let text = match navvy_plain_file::text(path, PROFILES) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let Some(profile) = profile(&text, &self.profile) else { return Ok(None) };
        let value = |name: &str| profile.get(name).map(|value| (*value).to_owned());
        match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(key_id), Some(secret)) => Ok(Some(Credentials {
                key_id,
                secret: Secret::new(secret),
                token: value("aws_session_token").map(Secret::new),
                until_s: None,
            })),
            _ => Err(failed(format!(
                "profile [{}] has no aws_access_key_id and aws_secret_access_key, and nothing else is understood there",
                self.profile
            ))),
        }
    }
}

/// The lines of a profile.
fn profile<'a>(text: &'a str, name: &str) -> Option<BTreeMap<&'a str, &'a str>> {
    let mut found = None;
    let mut is_in = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_in = header.trim().trim_start_matches("profile ").trim() == name;
            if is_in {
                found.get_or_insert_with(BTreeMap::new);
            }
        } else if is_in && let Some((key, value)) = line.split_once('=') {
            found.get_or_insert_with(BTreeMap::new).insert(key.trim(), value.trim());
        }
    }
    found
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleAnswer {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

/// A session first, always: version 1 of the service answers whoever can make this machine send a GET.
async fn of_metadata(direct: &Client, base: &str) -> Result<Credentials, Fault> {
    let session =
        ask(direct, base, Method::PUT, "/latest/api/token", ("x-aws-ec2-metadata-token-ttl-seconds", SESSION_S));
    let session = session.await?;
    let header = ("x-aws-ec2-metadata-token", session.trim());
    let roles = "/latest/meta-data/iam/security-credentials/";
    let role = ask(direct, base, Method::GET, roles, header).await?;
    let role = role.lines().next().unwrap_or_default().trim();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    if role.is_empty() || !role.chars().all(is_name) {
        return Err(nonsense(format!("the name of its role is {:?}", words(role))));
    }
    let text = ask(direct, base, Method::GET, &format!("{roles}{role}"), header).await?;
    // The parser's words could quote a key.
    let answer: RoleAnswer =
        serde_json::from_str(&text).map_err(|_| nonsense("it gave no credentials for its role".to_owned()))?;
    let until: Timestamp =
        answer.expiration.parse().map_err(|_| nonsense("it does not say when its credentials end".to_owned()))?;
    Ok(Credentials {
        key_id: answer.access_key_id,
        secret: Secret::new(answer.secret_access_key),
        token: Some(Secret::new(answer.token)),
        until_s: Some(until.as_second()),
    })
}

fn nonsense(message: String) -> Fault {
    Fault::Nonsense { cloud: CLOUD, call: "the metadata service", message }
}

async fn ask(
    direct: &Client,
    base: &str,
    method: Method,
    path: &str,
    (name, value): (&'static str, &str),
) -> Result<String, Fault> {
    let url = Url::parse(&format!("{base}{path}")).map_err(|error| nonsense(format!("its address: {error}")))?;
    let mut request = Request::new(method, url);
    let value = value.parse().map_err(|_| nonsense("its token is no header".to_owned()))?;
    request.headers_mut().insert(name, value);
    let answer = call::send(direct, request, (CLOUD, "the metadata service"), METADATA_LIMIT).await?;
    if !answer.status.is_success() {
        let message = format!("the metadata service answered {}; has this machine a role?", answer.status.as_u16());
        return Err(Fault::NoCredentials { cloud: CLOUD, message });
    }
    String::from_utf8(answer.body).map_err(|_| nonsense("its answer is no text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_name() {
        let text = "; mine\n[default]\naws_access_key_id = A\n\n[profile ci]\naws_access_key_id=B\naws_secret_access_key = C=D\n";
        assert_eq!(profile(text, "ci").unwrap()["aws_secret_access_key"], "C=D");
        assert_eq!(profile(text, "default").unwrap().len(), 1);
        assert!(profile(text, "other").is_none());
    }

    #[test]
    fn the_environment_goes_before_all_else() {
        let variables = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hidden-value")];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let sources = Sources::new(&environment, None);
        assert_eq!(sources.given.as_ref().unwrap().key_id, "AKID");
        assert!(!format!("{sources:?}").contains("hidden-value"));
        let off = [("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned())].into();
        assert_eq!(Sources::new(&off, None).metadata, None);
    }

    #[test]
    fn credentials_are_renewed_before_they_end() {
        let until = |until_s| Credentials { key_id: String::new(), secret: Secret::new(""), token: None, until_s };
        assert!(until(None).are_fresh(1_000) && until(Some(2_000)).are_fresh(1_000));
        assert!(!until(Some(1_200)).are_fresh(1_000));
    }
}
