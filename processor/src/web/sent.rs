//! Queries, and bodies in JSON, as people and their programs send them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::Refusal;

/// A body, read. No text in it has a NUL: PostgreSQL takes none in a text, and SQLite would.
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
        let media = media.and_then(|media| media.split(';').next()).unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            let message = "the body is no JSON: the request has no `content-type: application/json`";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
        if has_nul(&bytes) {
            let message = "a text in the body has a NUL character (\\u0000): nothing here takes one";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        match Json::from_bytes(&bytes) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// A URL's query, read.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Refusal::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// Does JSON have the escape for NUL? As it is, no JSON has one.
fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = &rest[at + 1..];
        if escape.starts_with(b"u0000") {
            return true;
        }
        // A backslash that is escaped itself begins nothing.
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_found_and_what_only_looks_like_one_is_not() {
        for json in [r#""\u0000""#, r#"{"a\u0000": 1}"#, r#""\\\u0000""#, r#""\n\u0000b""#] {
            assert!(has_nul(json.as_bytes()), "{json}");
            let text = serde_json::from_str::<serde_json::Value>(json).unwrap().to_string();
            assert!(text.contains("\\u0000"), "{json}");
        }
        for json in
            [r#""\\u0000""#, r#""\u0001 u0000""#, r#""\u00000""#.replace("0000", "0041").as_str(), r#""\\""#, "\\"]
        {
            assert!(!has_nul(json.as_bytes()), "{json}");
        }
    }
}
