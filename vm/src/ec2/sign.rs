//! Signature version 4: a request is signed by a key that is good for one day, one region and one service (pure).

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What of a request is signed.
pub(super) struct Signed<'a> {
    pub method: &'a str,
    /// Path as it stands in the request; empty counts as `/`.
    pub path: &'a str,
    /// Names in lower case and values, in the order of their names.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The value of the header `authorization`. `at` is as in `20150830T123600Z`.
pub(super) fn authorization(
    credentials: &Credentials,
    (region, service): (&str, &str),
    at: &str,
    request: &Signed<'_>,
) -> String {
    let day = at.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let to_sign = format!("{ALGORITHM}\n{at}\n{scope}\n{}", hex(&Sha256::digest(canonical(request, &names))));
    let first = format!("AWS4{}", credentials.secret.reveal());
    let key =
        [day, region, service, "aws4_request"].iter().fold(first.into_bytes(), |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", credentials.key_id)
}

fn canonical(request: &Signed<'_>, names: &str) -> String {
    let mut text = format!("{}\n{}\n\n", request.method, if request.path.is_empty() { "/" } else { request.path });
    for (name, value) in request.headers {
        text.push_str(&format!("{name}:{}\n", value.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    text.push_str(&format!("\n{names}\n{}", hex(&Sha256::digest(request.body))));
    text
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// Lower-case digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _a_string_takes_everything = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Secret;

    fn example() -> Credentials {
        Credentials {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            token: None,
            until_s: None,
        }
    }

    /// AWS's own test suite: get-vanilla, post-vanilla, post-x-www-form-urlencoded.
    #[test]
    fn the_vendors_vectors_agree() {
        let at = "20150830T123600Z";
        let base = [("host", "example.amazonaws.com"), ("x-amz-date", at)];
        let form = [("content-type", "application/x-www-form-urlencoded"), base[0], base[1]];
        let cases: [(&str, &[_], &[u8], &str); 3] = [
            ("GET", &base, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", &base, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            ("POST", &form, b"Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
        ];
        for (method, headers, body, signature) in cases {
            let request = Signed { method, path: "/", headers, body };
            let header = authorization(&example(), ("us-east-1", "service"), at, &request);
            assert!(header.ends_with(&format!("Signature={signature}")), "{method} {header}");
            assert!(header.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
            ));
        }
    }

    #[test]
    fn values_count_without_the_spaces_around_and_between() {
        let at = "20150830T123600Z";
        let headers = [("host", "example.amazonaws.com"), ("my-header1", " value1 \t x"), ("x-amz-date", at)];
        let plain = [headers[0], ("my-header1", "value1 x"), headers[2]];
        let sign = |headers| {
            let request = Signed { method: "GET", path: "", headers, body: b"" };
            authorization(&example(), ("us-east-1", "service"), at, &request)
        };
        assert_eq!(sign(&headers), sign(&plain));
    }
}
