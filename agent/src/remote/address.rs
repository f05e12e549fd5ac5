//! Where a processor is, and the token that it knows its user by.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

/// A processor's address for people: `https://ci.example`, or `http://127.0.0.1:8080`.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    base: Url,
}

/// Why a text is no address that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It cannot be read at all. It may hold a password: it is not repeated.
    #[error("the processor's address is not a URL: {0}")]
    NotUrl(String),
    /// It has a part that no address has.
    #[error("the processor's address has {0}")]
    Part(&'static str),
    /// The token would be readable for everybody on the way.
    #[error("http://{0} is not on this machine: the token would go over the network in plain text")]
    Plaintext(String),
    /// A name that changes the path that it is put into.
    #[error("{0:?} is not a name")]
    Name(String),
}

impl AddressError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotUrl(_) => Some("Write it as `https://HOST[:PORT]`."),
            Self::Part(_) => {
                Some("A token is given with `--token-file FILE`; the address is `https://HOST[:PORT]` alone.")
            }
            Self::Plaintext(_) => {
                Some("Use https://, or allow plain text with `--plaintext` where the network is yours alone.")
            }
            Self::Name(_) => None,
        }
    }
}

impl Address {
    /// Reads an address. `plaintext`: `http://` may lead to another machine.
    ///
    /// # Errors
    /// It is none, or a token must not be sent there.
    pub fn parse(text: &str, plaintext: bool) -> Result<Self, AddressError> {
        let mut base = Url::parse(text.trim()).map_err(|error| AddressError::NotUrl(error.to_string()))?;
        let host = base.host_str().unwrap_or_default().to_owned();
        match base.scheme() {
            "http" | "https" if !host.is_empty() => {}
            _ => return Err(AddressError::NotUrl("it begins with neither http:// nor https://".to_owned())),
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(AddressError::Part("a user name or a password"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(AddressError::Part("a query or a fragment"));
        }
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        let address = Self { base };
        if address.base.scheme() == "http" && !plaintext && !address.is_loopback() {
            return Err(AddressError::Plaintext(host));
        }
        Ok(address)
    }

    /// Is it on this machine, whoever is asked for the name?
    pub fn is_loopback(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        ip.map_or(host == "localhost", |ip| ip.is_loopback())
    }

    /// As people write it.
    pub fn shown(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The address of something there: each name is one segment of the path, whatever it holds.
    ///
    /// # Errors
    /// A name would lead elsewhere.
    pub fn at(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, AddressError> {
        let mut url = self.base.clone();
        if let Some(name) = path.iter().find(|name| matches!(**name, "" | "." | "..")) {
            return Err(AddressError::Name((*name).to_owned()));
        }
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v2"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown()).finish()
    }
}

/// What a processor knows its user by. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// No token is longer.
pub const LONGEST_TOKEN: usize = 4 << 10;

/// Why a text is no token. The text is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it holds no token: one line of letters, digits and signs is expected")]
pub struct NoToken;

impl Token {
    /// Reads a token, spaces around it left out.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, NoToken> {
        let text = text.trim();
        let is_one =
            !text.is_empty() && text.len() <= LONGEST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_one { Ok(Self(text.to_owned())) } else { Err(NoToken) }
    }

    /// The token itself, for the wire and for the file that keeps it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Address::parse(text, false).map(|address| address.shown().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_goes_in_plain_text_to_this_machine_alone() {
        for good in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://localhost:1",
            "https://ci.example/a",
        ] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for bad in [
            "http://ci.example",
            "http://127.0.0.1.example",
            "http://10.0.0.1:8080",
            "http://[::2]",
            "http://localhost.example",
        ] {
            assert!(parse(bad).unwrap_err().contains("plain text"), "{bad}");
            assert!(Address::parse(bad, true).is_ok(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_password_in_it_not_repeated() {
        for bad in [
            "ci.example:8080",
            "ftp://ci.example",
            "https://",
            "/run/x",
            "https://u:hunter2@ci.example",
            "https://h/?t=hunter2",
        ] {
            let told = parse(bad).unwrap_err();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_name_stays_one_part_of_the_path() {
        let address = Address::parse("https://ci.example/below/", false).unwrap();
        let url = address.at(&["project", "gh/acme/shop", "pipeline"], &[("after", "1&2".to_owned())]).unwrap();
        assert_eq!(url.as_str(), "https://ci.example/below/api/v2/project/gh%2Facme%2Fshop/pipeline?after=1%262");
        let url = address.at(&["context", "a%2e?#b"], &[]).unwrap();
        assert_eq!(url.path(), "/below/api/v2/context/a%252e%3F%23b");
        for name in ["..", ".", ""] {
            assert!(address.at(&["context", name], &[]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_token_is_one_line_and_never_shown() {
        assert_eq!(Token::parse(" abc-1.2_3\n").unwrap().expose(), "abc-1.2_3");
        for bad in ["", " \n", "a b", "a\nb", "ä", &"x".repeat(LONGEST_TOKEN + 1)] {
            assert!(Token::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(format!("{:?}", Token::parse("hunter2").unwrap()), "Token");
    }
}
