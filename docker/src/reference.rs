//! Image names: `[REGISTRY/]PATH[:TAG][@DIGEST]`, with Docker's defaults filled in.

use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// An image's name with nothing left to guess.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host with an optional port.
    pub registry: String,
    /// `library/postgres`.
    pub path: String,
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image name {text:?} is not valid: {why}")]
pub struct InvalidReference {
    text: String,
    why: &'static str,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |why| InvalidReference { text: text.chars().take(200).collect(), why };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, path) = split_registry(name);
        let path = match registry {
            DEFAULT_REGISTRY if !path.contains('/') => format!("{DEFAULT_NAMESPACE}/{path}"),
            _ => path.to_owned(),
        };
        if !is_registry(registry) {
            return Err(invalid("the registry is not a host name"));
        }
        if !path.split('/').all(is_component) {
            return Err(invalid("only a-z, 0-9 and single . _ - between them are allowed"));
        }
        if !tag.is_none_or(is_tag) {
            return Err(invalid("the tag has characters that are not allowed, or none"));
        }
        if !digest.is_none_or(is_digest) {
            return Err(invalid("the digest is not ALGORITHM:HEX"));
        }
        let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
        let tag = if digest.is_some() { tag } else { tag.or_else(|| Some(DEFAULT_TAG.to_owned())) };
        Ok(Self { registry: registry.to_owned(), path, tag, digest })
    }

    /// What Docker calls the repository: without its own registry and namespace.
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.path);
        }
        self.path.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(&self.path).to_owned()
    }

    /// Tag or, if there is one, digest: what a pull asks for.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// Last part of the path: `postgres`.
    pub fn base_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// As Docker itself writes it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a registry if nothing else can look like it.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
        Some((first, rest)) if first.bytes().any(|b| b.is_ascii_uppercase()) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !text.is_empty() && text.bytes().all(right)
}

fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let right = |b: u8| word(b) || matches!(b, b'.' | b'_' | b'-');
    text.bytes().all(right) && text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        && text.bytes().next().is_some_and(word)
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let algorithm_fits = algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'_' | b'-'));
    !algorithm.is_empty() && algorithm_fits && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String) {
        let reference = Reference::parse(text).unwrap();
        (reference.registry.clone(), reference.path.clone(), reference.version().to_owned())
    }

    fn owned(registry: &str, path: &str, version: &str) -> (String, String, String) {
        (registry.into(), path.into(), version.into())
    }

    #[test]
    fn dockers_defaults_are_filled_in() {
        assert_eq!(parts("postgres"), owned("docker.io", "library/postgres", "latest"));
        assert_eq!(parts("cimg/node:20.1"), owned("docker.io", "cimg/node", "20.1"));
        assert_eq!(parts("index.docker.io/cimg/node"), owned("docker.io", "cimg/node", "latest"));
        assert_eq!(parts("localhost:5000/a"), owned("localhost:5000", "a", "latest"));
        assert_eq!(parts("ghcr.io/o/r/i:v1"), owned("ghcr.io", "o/r/i", "v1"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parts(&format!("redis:7@{digest}")), owned("docker.io", "library/redis", &digest));
    }

    #[test]
    fn names_are_shown_as_docker_shows_them() {
        for (text, shown) in [
            ("postgres", "postgres:latest"),
            ("docker.io/library/redis:7", "redis:7"),
            ("docker.io/cimg/node", "cimg/node:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_mean_another_request_is_refused() {
        for text in
            ["", "../../containers/x", "a//b", "A", "a:", "a b", "a?x=1", "a@sha256:zz", "a/../b", "-a", "a:b#c"]
        {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }
}
