//! Who asks: a service account's file, or the machine's own metadata service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Request, Url};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;

use super::CLOUD;
use crate::cloud::call::{self, Answer};
use crate::cloud::{Fault, Secret};

/// What the token allows.
const SCOPE: &str = "https://www.googleapis.com/auth/compute";
/// How long an assertion is good for: an hour is the most.
const ASSERTION_S: i64 = 3600;
/// Tokens that end within this are asked for anew.
const EARLY_S: i64 = 300;
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of the longest file.
const FILE: u64 = 64 << 10;
/// The metadata service of a machine at Google.
const METADATA: &str = "metadata.google.internal";

/// Where a token comes from; read from settings once.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `GOOGLE_APPLICATION_CREDENTIALS`: a service account's file.
    pub file: Option<PathBuf>,
    /// `GCE_METADATA_HOST`, else Google's own name for it.
    pub metadata: String,
}

impl Sources {
    /// As the environment variables say.
    pub fn new(environment: &BTreeMap<String, String>) -> Self {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        Self {
            file: set("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            metadata: set("GCE_METADATA_HOST").cloned().unwrap_or_else(|| METADATA.to_owned()),
        }
    }
}

/// A token, and when it ends in seconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub text: Secret,
    pub until_s: i64,
}

impl Token {
    pub(super) fn is_fresh(&self, now_s: i64) -> bool {
        self.until_s - EARLY_S > now_s
    }
}

#[derive(Deserialize)]
struct Account {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: i64,
}

/// A new token. `direct` goes through no proxy.
///
/// # Errors
/// There is none.
pub(super) async fn fetch(sources: &Sources, (cloud, direct): (&Client, &Client)) -> Result<Token, Fault> {
    match &sources.file {
        Some(path) => of_account(&account(path)?, path, cloud).await,
        None => of_metadata(&sources.metadata, direct).await,
    }
}

fn none(message: String) -> Fault {
    Fault::NoCredentials { cloud: CLOUD, message }
}

fn account(path: &Path) -> Result<Account, Fault> {
    let failed = |why: &str| none(format!("{}: {why}", path.display()));
    let text = navvy_plain_file::text(path, FILE).map_err(|error| failed(&error.to_string()))?;
    // The parser's words could quote the key.
    let account: Account =
        serde_json::from_str(&text).map_err(|_| failed("it is no JSON file of a service account's key"))?;
    if account.kind != "service_account" {
        return Err(failed("its type is not service_account, and nothing else is understood"));
    }
    Ok(account)
}

async fn of_account(account: &Account, path: &Path, client: &Client) -> Result<Token, Fault> {
    let now_s = Timestamp::now().as_second();
    let assertion = assertion(account, now_s).map_err(|why| none(format!("{}: {why}", path.display())))?;
    let url =
        Url::parse(&account.token_uri).map_err(|_| none(format!("{}: its token_uri is no URL", path.display())))?;
    let mut request = Request::new(Method::POST, url);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let body = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    *request.body_mut() = Some(body.into());
    read(call::send(client, request, (CLOUD, "a token"), LIMIT).await?, now_s)
}

async fn of_metadata(host: &str, direct: &Client) -> Result<Token, Fault> {
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let url = Url::parse(&url).map_err(|_| none(format!("{host:?} is no address of a metadata service")))?;
    let mut request = Request::new(Method::GET, url);
    request.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
    let now_s = Timestamp::now().as_second();
    match call::send(direct, request, (CLOUD, "a token"), Duration::from_secs(3)).await {
        Ok(answer) => read(answer, now_s),
        Err(Fault::Unreachable { message, .. }) => Err(none(format!(
            "GOOGLE_APPLICATION_CREDENTIALS names no file, and this machine has no metadata service ({message})"
        ))),
        Err(fault) => Err(fault),
    }
}

fn read(answer: Answer, now_s: i64) -> Result<Token, Fault> {
    let status = answer.status.as_u16();
    if status >= 500 || status == 429 {
        return Err(Fault::Unwell { cloud: CLOUD, status, message: "it gives no token".to_owned() });
    }
    if !answer.status.is_success() {
        return Err(none(format!("a token was asked for, and the answer is {status}; is the key still good?")));
    }
    let read: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| Fault::Nonsense {
        cloud: CLOUD,
        call: "a token",
        message: "there is no token in the answer".to_owned(),
    })?;
    Ok(Token { text: Secret::new(read.access_token), until_s: now_s.saturating_add(read.expires_in.clamp(0, 86_400)) })
}

/// What an account shows to get a token: a claim that its key has signed.
fn assertion(account: &Account, now_s: i64) -> Result<String, &'static str> {
    let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}));
    let claim = part(&json!({
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": now_s,
        "exp": now_s + ASSERTION_S,
    }));
    let signed = format!("{header}.{claim}");
    let key = key(&account.private_key)?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| "its private_key does not sign")?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn key(pem: &str) -> Result<RsaKeyPair, &'static str> {
    let wrong = "its private_key is no RSA key in PKCS#8";
    let lines = pem.lines().map(str::trim).filter(|line| !line.is_empty());
    let inner: String = lines
        .skip_while(|line| *line != "-----BEGIN PRIVATE KEY-----")
        .skip(1)
        .take_while(|line| *line != "-----END PRIVATE KEY-----")
        .collect();
    let der = BASE64_STANDARD.decode(inner).map_err(|_| wrong)?;
    RsaKeyPair::from_pkcs8(&der).map_err(|_| wrong)
}

#[cfg(test)]
pub(super) mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    /// A key as Google makes them.
    pub(in crate::gce) fn rsa_key() -> String {
        let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success());
        String::from_utf8(made.stdout).unwrap()
    }

    /// What an assertion claims, if this key has signed it.
    pub(in crate::gce) fn claimed(pem: &str, assertion: &str) -> Option<serde_json::Value> {
        let (signed, signature) = assertion.rsplit_once('.')?;
        let public = key(pem).ok()?;
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.public().as_ref());
        public.verify(signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claim = signed.split_once('.')?.1;
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claim).ok()?).ok()
    }

    #[test]
    fn an_assertion_is_signed_and_says_who_and_what_for() {
        let account = Account {
            kind: "service_account".to_owned(),
            client_email: "ci@project.iam.gserviceaccount.com".to_owned(),
            private_key: rsa_key(),
            private_key_id: Some("1".to_owned()),
            token_uri: "https://oauth2.googleapis.com/token".to_owned(),
        };
        let assertion = assertion(&account, 1_000).unwrap();
        let claim = claimed(&account.private_key, &assertion).unwrap();
        assert_eq!((&claim["exp"], &claim["scope"]), (&json!(4_600), &json!(SCOPE)));
        assert!(claimed(&rsa_key(), &assertion).is_none());
        assert!(key("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----").is_err());
    }
}
