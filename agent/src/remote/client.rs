//! One call to a processor: JSON in, JSON or a stream out.
//!
//! ```text
//! call ─▶ request, token ─▶ head of the answer ─┬─ 2xx ─▶ JSON, at most so long ─▶ value
//!            within a deadline                  ├─ 2xx ─▶ a stream, watched by its reader
//!                                               └─ else ─▶ Problem, or our own words
//! ```

use std::time::Duration;

use bytes::Bytes;
use navvy_protocol::api::Problem;
use navvy_storage::Proxies;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue};
use reqwest::{Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::address::Token;
use super::error::{RemoteError, words};
use super::login::Access;

/// No answer in JSON is longer.
const LONGEST_ANSWER: usize = 16 << 20;
/// No word of refusal is longer: a large config has many diagnostics.
const LONGEST_PROBLEM: usize = 1 << 20;
/// Longest time to the whole of an answer in JSON, and to the head of a stream.
const DEADLINE: Duration = Duration::from_secs(30);
/// A config is compiled meanwhile.
pub const LONG_DEADLINE: Duration = Duration::from_secs(120);
/// A stream that has said nothing for so long is opened again where it was: nobody knows if its other end is still there.
pub const IDLE: Duration = Duration::from_secs(60);

/// The way to one processor, for one user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    access: Access,
}

impl Client {
    /// Opens no connection yet. What is on this machine is never asked for through a proxy.
    ///
    /// # Errors
    /// A certificate or a proxy that cannot be read.
    pub fn new(access: Access, proxies: &Proxies) -> Result<Self, RemoteError> {
        let none = Proxies::default();
        let proxies = if access.address.is_loopback() { &none } else { proxies };
        Ok(Self { http: navvy_storage::client(access.ca.as_deref(), proxies)?, access })
    }

    /// The processor, for people.
    pub fn at(&self) -> String {
        self.access.address.shown().to_owned()
    }

    /// Asks for a value.
    ///
    /// # Errors
    /// It is refused, or does not come; so it is with every call here.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, RemoteError> {
        self.json(self.request(Method::GET, path, query)?, DEADLINE).await
    }

    /// Sends a value, and gets one.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        self.send_within(method, path, body, DEADLINE).await
    }

    /// The same, with another deadline.
    pub async fn send_within<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, RemoteError> {
        let body = serde_json::to_vec(body).map_err(|error| RemoteError::Source(error.to_string()))?;
        let request = self.request(method, path, &[])?.header(CONTENT_TYPE, "application/json").body(body);
        self.json(request, limit).await
    }

    /// Has something removed.
    pub async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, RemoteError> {
        self.json(self.request(Method::DELETE, path, &[])?, DEADLINE).await
    }

    /// Sends a stream of bytes; whoever makes it watches that it moves.
    pub async fn upload<T: DeserializeOwned>(&self, path: &[&str], body: reqwest::Body) -> Result<T, RemoteError> {
        let request = self.request(Method::POST, path, &[])?.header(CONTENT_TYPE, "application/zstd").body(body);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        self.within(DEADLINE, async { self.value(self.accepted(response).await?).await }).await
    }

    /// Opens a stream. Its head has come, and is good.
    pub async fn open(&self, path: &[&str], query: &[(&str, String)]) -> Result<Incoming, RemoteError> {
        let request = self.request(Method::GET, path, query)?;
        let answer = async {
            let response = request.send().await.map_err(|error| self.unreachable(error))?;
            self.accepted(response).await
        };
        let response = self.within(DEADLINE, answer).await?;
        Ok(Incoming { response, at: self.at() })
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<reqwest::RequestBuilder, RemoteError> {
        let url = self.access.address.at(path, query)?;
        let request = self.http.request(method, url).header(ACCEPT, "application/json");
        Ok(request.header(AUTHORIZATION, bearer(&self.access.token)))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        limit: Duration,
    ) -> Result<T, RemoteError> {
        let answer = async {
            let response = request.send().await.map_err(|error| self.unreachable(error))?;
            self.value(self.accepted(response).await?).await
        };
        self.within(limit, answer).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        let late = || RemoteError::Late { at: self.at(), limit };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
    }

    /// The answer, unless it is a refusal.
    async fn accepted(&self, response: Response) -> Result<Response, RemoteError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = self.body(response, LONGEST_PROBLEM).await.ok();
        // Whatever stands between may answer in its place, with a page for a browser: that is not shown.
        let problem = said.and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
        let unsaid = || {
            let reason = status.canonical_reason().map_or_else(String::new, |reason| format!(" {reason}"));
            let message = format!("the processor at {} answered {}{reason}", self.at(), status.as_u16());
            Problem { message, hint: None, diagnostics: None }
        };
        let problem = Box::new(problem.filter(|problem| !problem.message.is_empty()).unwrap_or_else(unsaid));
        Err(RemoteError::Refused { status: status.as_u16(), problem })
    }

    async fn value<T: DeserializeOwned>(&self, response: Response) -> Result<T, RemoteError> {
        let body = self.body(response, LONGEST_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| self.answer(&error.to_string()))
    }

    async fn body(&self, response: Response, most: usize) -> Result<Vec<u8>, RemoteError> {
        let mut incoming = Incoming { response, at: self.at() };
        let mut body = Vec::new();
        while let Some(bytes) = incoming.next().await? {
            if body.len() + bytes.len() > most {
                return Err(self.answer(&format!("it is longer than {} MiB", most >> 20)));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    fn answer(&self, why: &str) -> RemoteError {
        RemoteError::Answer { at: self.at(), why: why.to_owned() }
    }

    fn unreachable(&self, error: reqwest::Error) -> RemoteError {
        RemoteError::Unreachable { at: self.at(), why: words(error) }
    }
}

fn bearer(token: &Token) -> HeaderValue {
    // A token has no byte that a header may not have.
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", token.expose())).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// An answer that comes piece by piece.
#[derive(Debug)]
pub struct Incoming {
    response: Response,
    at: String,
}

impl Incoming {
    /// The next piece; `None` at an end that was meant as one. May be dropped and asked again.
    ///
    /// # Errors
    /// It was cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        match tokio::time::timeout(IDLE, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|error| RemoteError::Cut { at: self.at.clone(), why: words(error) }),
            Err(_) => Err(RemoteError::Late { at: self.at.clone(), limit: IDLE }),
        }
    }

    /// The processor's clock as it answered: RFC 9110.
    pub fn date(&self) -> Option<&str> {
        self.response.headers().get(DATE)?.to_str().ok()
    }
}
