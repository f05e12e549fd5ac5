//! Whose name a pull goes under: the config's `auth`, else the user's own docker login with its credential helpers.
//!
//! Nothing here fails a pull: what cannot be used is said as a warning, and the pull goes on without it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use navvy_environment::HostPaths;
use navvy_environment::command::{self, CommandError};
use navvy_job::chain::chain;
use navvy_job::claim::Secrets;
use navvy_job::compiled::RegistryAuth;
use serde::Deserialize;

use super::reference::Reference;

/// The docker CLI's config is never longer.
const LONGEST: u64 = 4 << 20;

/// Docker Hub's name in a docker config file.
const HUB: &str = "https://index.docker.io/v1/";
/// Helpers ask key rings and cloud services; some ask a person, who is not there.
const HELPER_LIMIT: Duration = Duration::from_secs(20);
/// What helpers print for a registry they know nothing of.
const NOT_FOUND: &str = "credentials not found";
/// A helper's user name for a secret that is a token.
const TOKEN_USER: &str = "<token>";

/// The docker CLI's own config file, as far as logins and proxies go.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CliConfig {
    #[serde(default)]
    auths: BTreeMap<String, StoredLogin>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    /// Not parsed here: a mistake in it does not concern the logins.
    #[serde(default)]
    pub(super) proxies: serde_json::Value,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct StoredLogin {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// What a helper answers.
#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Where a login is to be had.
#[derive(Debug, PartialEq)]
enum Place {
    Here(Login),
    /// `docker-credential-NAME`.
    Helper(String),
    Nowhere,
}

/// Why a login cannot be used. The pull is tried without it.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error(
        "auth of image {image} names {}, which no context or -e sets; trying your own docker login",
        variables.join(" and ")
    )]
    Unset { image: String, variables: Vec<String> },
    #[error(
        "aws_auth of image {image} is not available here: it would need an ECR token; log in yourself with \
         `aws ecr get-login-password | docker login --username AWS --password-stdin REGISTRY`, which is then used"
    )]
    Aws { image: String },
    #[error(
        "gcp_auth of image {image} is not available here: it would need a Google access token; log in yourself with \
         `gcloud auth configure-docker`, which is then used"
    )]
    Gcp { image: String },
    #[error(transparent)]
    Config(#[from] CliConfigError),
    #[error("no login for {registry}")]
    Helper { registry: String, source: CommandError },
    #[error("{program} did not answer with a login")]
    Answer { program: String },
}

/// Why the docker CLI's config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CliConfigError {
    #[error("failed to read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not valid", path = path.display())]
    Invalid { path: PathBuf, source: serde_json::Error },
}

/// A user and a password, or a token.
#[derive(Clone, PartialEq, Eq)]
enum Login {
    Password { user: String, password: String },
    Token(String),
}

/// Names only: logs hold no password.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "{user}:****"),
            Self::Token(_) => f.write_str("token"),
        }
    }
}

/// The login for an image's registry; `warn` hears what could not be used.
pub(super) async fn find(
    image: &str,
    auth: Option<&RegistryAuth>,
    secrets: &Secrets,
    host: &HostPaths,
    warn: impl Fn(String),
) -> Option<DockerCredentials> {
    let reference = Reference::parse(image).ok()?;
    let server = server_name(&reference);
    let warn = |error: LoginError| warn(chain(&error));
    let by_config = auth.and_then(|auth| from_job(image, auth, secrets).map_err(warn).ok());
    let login = match by_config {
        Some(login) => login,
        None => from_user(server, host).await.map_err(warn).ok().flatten()?,
    };
    Some(credentials(login, server))
}

fn server_name(reference: &Reference) -> &str {
    if reference.registry == "docker.io" { HUB } else { &reference.registry }
}

fn credentials(login: Login, server: &str) -> DockerCredentials {
    let serveraddress = Some(server.to_owned());
    match login {
        Login::Password { user, password } => DockerCredentials {
            username: Some(user),
            password: Some(password),
            serveraddress,
            ..DockerCredentials::default()
        },
        Login::Token(token) => {
            DockerCredentials { identitytoken: Some(token), serveraddress, ..DockerCredentials::default() }
        }
    }
}

/// The login that the config's `auth` names.
fn from_job(image: &str, auth: &RegistryAuth, secrets: &Secrets) -> Result<Login, LoginError> {
    let image = image.to_owned();
    match auth {
        RegistryAuth::Password { username, password } => {
            let mut missing = Vec::new();
            let user = expand(username, secrets, &mut missing);
            let password = expand(password, secrets, &mut missing);
            if missing.is_empty() {
                return Ok(Login::Password { user, password });
            }
            missing.dedup();
            Err(LoginError::Unset { image, variables: missing })
        }
        RegistryAuth::Aws { .. } => Err(LoginError::Aws { image }),
        RegistryAuth::Gcp { .. } => Err(LoginError::Gcp { image }),
    }
}

/// `$NAME` and `${NAME}` replaced by their values; names without one go into `missing`.
fn expand(text: &str, secrets: &Secrets, missing: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let (braces, inner) = behind.strip_prefix('{').map_or((false, behind), |inner| (true, inner));
        let length = inner.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let (name, after) = inner.split_at(length);
        let after = if braces { after.strip_prefix('}') } else { Some(after) };
        match after.filter(|_| !name.is_empty() && !name.as_bytes()[0].is_ascii_digit()) {
            Some(after) => {
                match secrets.get(name) {
                    Some(value) => out.push_str(value),
                    None => missing.push(format!("${name}")),
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The user's own login.
async fn from_user(server: &str, host: &HostPaths) -> Result<Option<Login>, LoginError> {
    let Some(config) = read_config(host)? else { return Ok(None) };
    match config.place(server) {
        Place::Nowhere => Ok(None),
        Place::Here(login) => Ok(Some(login)),
        Place::Helper(name) => ask_helper(&name, server, &host.search_path).await,
    }
}

/// Credential helpers that the user's docker config names and that are not on `PATH`.
pub fn missing_helpers(host: &HostPaths) -> Result<Vec<String>, CliConfigError> {
    let named = read_config(host)?.unwrap_or_default().helper_programs();
    Ok(named.into_iter().filter(|program| command::find(program, &host.search_path).is_none()).collect())
}

/// The docker CLI's config file; `None` when there is none to read.
pub(super) fn read_config(host: &HostPaths) -> Result<Option<CliConfig>, CliConfigError> {
    let Some(directory) = &host.docker_config else { return Ok(None) };
    let path = directory.join("config.json");
    match navvy_plain_file::read(&path, LONGEST) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| CliConfigError::Invalid { path, source })
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(source) => Err(CliConfigError::Read { path, source }),
    }
}

impl CliConfig {
    /// Programs that the file relies on.
    fn helper_programs(&self) -> Vec<String> {
        let mut names: Vec<_> = self.helpers.values().chain(&self.store).map(|name| program(name)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// As the docker CLI looks: a registry's own helper, the store for all, the file itself.
    fn place(&self, server: &str) -> Place {
        let same = |key: &str| host_name(key) == host_name(server);
        if let Some((_, helper)) = self.helpers.iter().find(|(key, _)| same(key)) {
            return Place::Helper(helper.clone());
        }
        if let Some(store) = self.store.as_ref().filter(|store| !store.is_empty()) {
            return Place::Helper(store.clone());
        }
        let stored = self.auths.iter().find(|(key, _)| same(key)).and_then(|(_, stored)| stored.login());
        stored.map_or(Place::Nowhere, Place::Here)
    }
}

impl StoredLogin {
    fn login(&self) -> Option<Login> {
        if !self.identity_token.is_empty() {
            return Some(Login::Token(self.identity_token.clone()));
        }
        let decoded = STANDARD.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.trim_end_matches('\0').split_once(':')?;
        Some(Login::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Keys are written as URLs or hosts, with and without a path.
fn host_name(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

async fn ask_helper(name: &str, server: &str, search_path: &str) -> Result<Option<Login>, LoginError> {
    let program = program(name);
    let answer = command::run(&program, &["get"], server.as_bytes(), search_path, HELPER_LIMIT).await;
    let bytes = match answer {
        Ok(bytes) => bytes,
        Err(CommandError::Failed { stderr, .. }) if stderr.contains(NOT_FOUND) => return Ok(None),
        Err(source) => return Err(LoginError::Helper { registry: host_name(server).to_owned(), source }),
    };
    let answer: HelperAnswer = serde_json::from_slice(&bytes).map_err(|_| LoginError::Answer { program })?;
    Ok(Some(match answer {
        HelperAnswer { username, secret } if username == TOKEN_USER => Login::Token(secret),
        HelperAnswer { username, secret } => Login::Password { user: username, password: secret },
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::fs;

    use super::*;

    fn secrets() -> Secrets {
        Secrets::new(vec![("USER_NAME".into(), "ann".into()), ("PASS".into(), "s3".into())])
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.into(), password: password.into() }
    }

    fn config(text: &str) -> CliConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn variables_of_the_config_are_filled_in() {
        let auth = RegistryAuth::Password { username: "$USER_NAME".into(), password: "a${PASS}b$1$".into() };
        assert_eq!(from_job("i", &auth, &secrets()).unwrap(), password("ann", "as3b$1$"));
    }

    #[test]
    fn missing_variables_are_named() {
        let auth = RegistryAuth::Password { username: "$WHO".into(), password: "${WHAT}".into() };
        let words = from_job("i", &auth, &secrets()).unwrap_err().to_string();
        assert!(words.contains("names $WHO and $WHAT"), "{words}");
    }

    #[test]
    fn cloud_logins_say_what_they_would_need() {
        let aws = RegistryAuth::Aws { settings: BTreeMap::new() };
        assert!(from_job("i", &aws, &secrets()).unwrap_err().to_string().contains("aws ecr get-login-password"));
        let gcp = RegistryAuth::Gcp { settings: BTreeMap::new() };
        assert!(from_job("i", &gcp, &secrets()).unwrap_err().to_string().contains("gcloud auth"));
    }

    #[test]
    fn the_config_file_is_read_as_docker_reads_it() {
        let stored = config(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YW5uOnMz"},"r.io":{"identitytoken":"tok"}},
                "credHelpers":{"ecr.aws":"ecr-login"}}"#,
        );
        assert_eq!(stored.place(HUB), Place::Here(password("ann", "s3")));
        assert_eq!(stored.place("r.io"), Place::Here(Login::Token("tok".into())));
        assert_eq!(stored.place("ecr.aws"), Place::Helper("ecr-login".into()));
        assert_eq!(stored.place("other"), Place::Nowhere);
        assert_eq!(stored.helper_programs(), ["docker-credential-ecr-login"]);
        assert_eq!(config(r#"{"credsStore":"pass"}"#).place("x"), Place::Helper("pass".into()));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(format!("{:?}", password("ann", "s3")), "ann:****");
    }

    fn helper(directory: &Path, script: &str) -> String {
        let (source, path) = (directory.join("source"), directory.join("docker-credential-test"));
        fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        // By a process of its own: what is still open for writing, if only in a process that another test is just
        // starting, cannot be run.
        let made = std::process::Command::new("install").args(["-m", "755"]).args([&source, &path]).status().unwrap();
        assert!(made.success());
        format!("{}:/usr/bin:/bin", directory.display())
    }

    #[tokio::test]
    async fn helpers_are_asked_on_their_input() {
        let scratch = tempfile::tempdir().unwrap();
        let path = helper(scratch.path(), r#"read server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}""#);
        assert_eq!(ask_helper("test", "r.io", &path).await.unwrap(), Some(password("get", "r.io")));
        let path = helper(scratch.path(), "echo credentials not found in native keychain; exit 1");
        assert_eq!(ask_helper("test", "r.io", &path).await.unwrap(), None);
        let path = helper(scratch.path(), "echo locked >&2; exit 1");
        let why = async |name| chain(&ask_helper(name, "r.io", &path).await.unwrap_err());
        let locked = why("test").await;
        assert!(
            locked.starts_with("no login for r.io: docker-credential-test ended with") && locked.ends_with(": locked")
        );
        assert_eq!(why("absent").await, "no login for r.io: no program docker-credential-absent on PATH");
    }
}
