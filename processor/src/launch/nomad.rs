//! Calls to Nomad's HTTP API. Each has a deadline and a largest answer; an answer of another form than was asked for is an error
//! that names the call, never an empty one.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use navvy_plain_file as plain_file;
use navvy_storage::{Proxies, TransportError};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::settings::NomadSettings;

/// A call that asks for what is there.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long Nomad waits for a change; it adds up to a sixteenth of it.
pub const WAIT: Duration = Duration::from_secs(60);
/// A whole list, which Nomad gives at once: a long one takes longer than other answers.
const FIRST: Duration = Duration::from_secs(30);
/// The largest answer: lists of some ten thousand jobs.
const LARGEST: usize = 64 << 20;
/// Of what a refusal says, so much is told.
const LONGEST_TEXT: usize = 300;
/// An ACL token is a UUID; what an identity provider hands out is longer.
const LONGEST_TOKEN: u64 = 16 << 10;

/// Why a call did not do what it was to do. It names the call; no token stands in it.
#[derive(Debug, thiserror::Error)]
pub enum NomadError {
    /// No whole answer came.
    #[error("{call}: Nomad does not answer: {why}")]
    Away {
        /// Method and path.
        call: String,
        /// In words.
        why: String,
    },
    /// It says no.
    #[error("{call}: Nomad answers {status}: {text}")]
    Refused {
        /// Method and path.
        call: String,
        /// Of HTTP.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// What it says is none of the answers to this call.
    #[error("{call}: Nomad's answer is not understood: {why}")]
    Form {
        /// Method and path.
        call: String,
        /// Where, and what was expected.
        why: String,
    },
    /// The file with the token.
    #[error("the Nomad token file {}: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl NomadError {
    /// Is it certain that there is nothing of this name?
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// Short for what this module returns.
pub type Result<T, E = NomadError> = std::result::Result<T, E>;

/// What was asked for, and how new it is.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// The index of Nomad's state. At least 1.
    pub index: u64,
    /// What it says.
    pub value: T,
}

/// A way to Nomad.
pub struct Nomad {
    client: Client,
    base: String,
    /// Namespace and region, behind each path.
    place: String,
    token_file: Option<PathBuf>,
    token: Mutex<Option<KeptToken>>,
}

/// The token, as the file had it when it was last changed.
struct KeptToken {
    written: (SystemTime, u64),
    value: HeaderValue,
}

impl fmt::Debug for Nomad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nomad").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Nomad {
    /// Reads the certificates, and calls nobody.
    ///
    /// # Errors
    /// A certificate, a key or a proxy that cannot be read.
    pub fn new(settings: &NomadSettings, proxies: &Proxies) -> Result<Self, TransportError> {
        let client = navvy_storage::client_as(settings.ca.as_deref(), settings.identity.as_ref(), proxies)?;
        let mut place = format!("namespace={}", encoded(&settings.namespace));
        if let Some(region) = &settings.region {
            place.push_str(&format!("&region={}", encoded(region)));
        }
        let (base, token_file) = (settings.address.clone(), settings.token_file.clone());
        Ok(Self { client, base, place, token_file, token: Mutex::default() })
    }

    /// `path` with its own query, if it has one: `/v1/jobs?prefix=navvy-`.
    ///
    /// # Errors
    /// Nomad does not answer, refuses, or its answer is not understood.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(&called(&Method::GET, path), &self.send(Method::GET, path, None, DEADLINE).await?.value)
    }

    /// The same once there is something newer than `index`, or some time has passed.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn next<T: DeserializeOwned>(&self, path: &str, index: u64) -> Result<Answer<T>> {
        let joined = if path.contains('?') { '&' } else { '?' };
        let waiting = format!("{path}{joined}index={index}&wait={}s", WAIT.as_secs());
        // Nomad answers at once where nothing is known yet: silence is told soon then.
        let deadline = if index == 0 { FIRST } else { WAIT + WAIT / 16 + DEADLINE };
        let Raw { index, value } = self.send(Method::GET, &waiting, None, deadline).await?;
        let call = called(&Method::GET, path);
        let index = index.ok_or_else(|| form(&call, "it has no header X-Nomad-Index"))?;
        // Before anything was ever written it is 0, which would not wait.
        Ok(Answer { index: index.max(1), value: read(&call, &value)? })
    }

    /// # Errors
    /// As for [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let answer = self.send(Method::POST, path, Some(body), DEADLINE).await?;
        read(&called(&Method::POST, path), &answer.value)
    }

    /// # Errors
    /// As for [`Self::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(&called(&Method::DELETE, path), &self.send(Method::DELETE, path, None, DEADLINE).await?.value)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>, deadline: Duration) -> Result<Raw> {
        let call = called(&method, path);
        let joined = if path.contains('?') { '&' } else { '?' };
        let mut request = self.client.request(method, format!("{}{path}{joined}{}", self.base, self.place));
        if let Some(token) = self.token().await? {
            request = request.header("X-Nomad-Token", token);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let away = |error: reqwest::Error| NomadError::Away {
            call: call.clone(),
            why: navvy_job::chain::chain(&error.without_url()),
        };
        let mut response = request.timeout(deadline).send().await.map_err(away)?;
        let index = response.headers().get("X-Nomad-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        let status = response.status();
        let mut value = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(away)? {
            if value.len() + piece.len() > LARGEST {
                return Err(form(&call, format!("it has more than {LARGEST} bytes")));
            }
            value.extend_from_slice(&piece);
        }
        match status.is_success() {
            true => Ok(Raw { index, value }),
            false => Err(NomadError::Refused { call, status, text: told(&value) }),
        }
    }

    async fn token(&self) -> Result<Option<HeaderValue>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let failed = |why: String| NomadError::Token { path: path.clone(), why };
        let written = std::fs::metadata(path).and_then(|about| Ok((about.modified()?, about.len())));
        let written = written.map_err(|error| failed(error.to_string()))?;
        let mut kept = self.token.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.written == written) {
            return Ok(Some(kept.value.clone()));
        }
        let text = plain_file::text(path, LONGEST_TOKEN).map_err(|error| failed(error.to_string()))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(failed("it is empty".to_owned()));
        }
        // The error would show the token.
        let value =
            HeaderValue::from_str(text).map_err(|_| failed("it holds no token: one line of ASCII".to_owned()))?;
        let value = sensitive(value);
        *kept = Some(KeptToken { written, value: value.clone() });
        Ok(Some(value))
    }
}

/// Bytes of an answer.
struct Raw {
    index: Option<u64>,
    value: Vec<u8>,
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// Method and path, for people. The query stays away.
fn called(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default())
}

/// An answer that is none to this call, which is named without its query.
pub fn form(call: &str, why: impl Into<String>) -> NomadError {
    NomadError::Form { call: call.split('?').next().unwrap_or_default().to_owned(), why: why.into() }
}

fn read<T: DeserializeOwned>(call: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| form(call, error.to_string()))
}

/// One line of what a stranger says.
fn told(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..4 * LONGEST_TEXT).unwrap_or(bytes)).into_owned();
    let text: String = text.trim().chars().take(LONGEST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "nothing more".to_owned() } else { text }
}

/// One part of a path or a query: ids of dispatched jobs have slashes in them.
pub fn encoded(text: &str) -> String {
    let spelled = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(spelled).collect()
}
