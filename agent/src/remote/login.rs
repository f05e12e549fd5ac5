//! Which processor, and with which token.
//!
//! ```text
//! --processor ─▶ NAVVY_PROCESSOR ─▶ login.toml       a token in login.toml is for the address in it alone:
//! --token-file ─▶ NAVVY_TOKEN_FILE ─▶ login.toml     another processor never gets it
//! ```

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use navvy_plain_file as plain_file;
use serde::Deserialize;

use super::address::{Address, AddressError, LONGEST_TOKEN, NoToken, Token};

/// No login is longer.
const LONGEST: u64 = 64 << 10;
/// Names the processor.
pub const PROCESSOR: &str = "NAVVY_PROCESSOR";
/// Names a file with the token.
pub const TOKEN_FILE: &str = "NAVVY_TOKEN_FILE";
/// Names a file with one more authority to trust.
pub const CA_FILE: &str = "NAVVY_PROCESSOR_CA";

/// What a client needs.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where the processor is.
    pub address: Address,
    /// Whom it takes us for.
    pub token: Token,
    /// One more authority to trust, as a PEM file.
    pub ca: Option<PathBuf>,
}

/// What command line and environment say.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// The processor's address.
    pub processor: Option<&'a str>,
    /// A file with the token.
    pub token_file: Option<&'a Path>,
    /// One more authority to trust.
    pub ca: Option<&'a Path>,
    /// `http://` may lead to another machine.
    pub plaintext: bool,
    /// Where `navvy login` keeps what it was told.
    pub login: Option<&'a Path>,
}

/// Why nobody knows where to go, or as whom.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Nothing names one.
    #[error("no processor is named")]
    NoProcessor,
    /// A processor, and no token for it.
    #[error("there is no token for the processor at {0}")]
    NoToken(String),
    /// The address is no good.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A file with a token.
    #[error("token file {path}", path = path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// What `navvy login` has kept.
    #[error("{path}: {why}", path = path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its text.
        why: String,
    },
}

impl LoginError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoProcessor => {
                Some(format!("Name one with `--processor URL` or {PROCESSOR}, or log in once: `navvy login URL`."))
            }
            Self::NoToken(at) => {
                Some(format!("`navvy login {at}` keeps one; `--token-file FILE` or {TOKEN_FILE} names one."))
            }
            Self::Address(error) => error.hint().map(str::to_owned),
            Self::TokenFile { .. } => None,
            Self::Kept { .. } => Some("`navvy login URL` writes it anew.".to_owned()),
        }
    }
}

/// `login.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Kept {
    processor: String,
    token: String,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    plaintext: bool,
}

impl Access {
    /// What is said, and where nothing is said, what was kept.
    ///
    /// # Errors
    /// Something is missing, or is no good.
    pub fn gather(sources: &Sources<'_>) -> Result<Self, LoginError> {
        let asks_for_kept = sources.processor.is_none() || sources.token_file.is_none();
        let kept = sources.login.filter(|_| asks_for_kept).map_or(Ok(None), read)?;
        let address = match (sources.processor, &kept) {
            (Some(named), _) => Address::parse(named, sources.plaintext)?,
            (None, Some(kept)) => kept.address.clone(),
            (None, None) => return Err(LoginError::NoProcessor),
        };
        let kept = kept.filter(|kept| kept.address == address);
        let ca = sources.ca.map(Path::to_owned).or(kept.as_ref().and_then(|kept| kept.ca.clone()));
        let token = match (sources.token_file, kept) {
            (Some(path), _) => token_of(path)?,
            (None, Some(kept)) => kept.token,
            (None, None) => return Err(LoginError::NoToken(address.shown().to_owned())),
        };
        Ok(Self { address, token, ca })
    }

    /// Writes it for later commands. Only its user can read it, at no moment anybody else.
    ///
    /// # Errors
    /// It could not be written.
    pub fn keep(&self, path: &Path, plaintext: bool) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut text =
            format!("processor = {}\ntoken = {}\n", quoted(self.address.shown())?, quoted(self.token.expose())?);
        if let Some(ca) = &self.ca {
            let ca = std::path::absolute(ca)?;
            let ca = ca.to_str().ok_or_else(|| io::Error::other("the name of the CA file is not UTF-8"))?;
            text.push_str(&format!("ca-file = {}\n", quoted(ca)?));
        }
        if plaintext {
            text.push_str("plaintext = true\n");
        }
        let beside = directory.join(format!(".login.toml.{}", uuid::Uuid::new_v4().simple()));
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&beside)))
    }
}

/// Text of TOML, which writes it as JSON does as long as nothing is in it that no terminal shows.
fn quoted(text: &str) -> io::Result<String> {
    if text.chars().any(char::is_control) {
        return Err(io::Error::other("there is a control character in it"));
    }
    Ok(serde_json::to_string(text)?)
}

/// The token in a file that a person named.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn token_of(path: &Path) -> Result<Token, LoginError> {
    let failed = |source| LoginError::TokenFile { path: path.to_owned(), source };
    let text = plain_file::given_text(path, LONGEST_TOKEN as u64 + 64).map_err(failed)?;
    Token::parse(&text).map_err(|error: NoToken| failed(io::Error::other(error)))
}

/// What `navvy login` has kept; `None` where it has not.
///
/// # Errors
/// Somebody else could read or write it, or it is not what was written.
pub fn read(path: &Path) -> Result<Option<Access>, LoginError> {
    let refused = |why: String| LoginError::Kept { path: path.to_owned(), why };
    let file = match plain_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| refused(error.to_string()))?,
    };
    let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("it belongs to another user".to_owned()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused(format!(
            "others may read or write it (mode {:03o}): it must be 600",
            metadata.mode() & 0o777
        )));
    }
    let bytes = plain_file::rest(file, LONGEST).map_err(|error| refused(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text".to_owned()))?;
    // The line itself may hold the token.
    let kept: Kept =
        toml::from_str(&text).map_err(|error| refused(navvy_job::chain::about_a_value(error.message())))?;
    let address = Address::parse(&kept.processor, kept.plaintext).map_err(|error| refused(error.to_string()))?;
    let token = Token::parse(&kept.token).map_err(|error| refused(error.to_string()))?;
    Ok(Some(Access { address, token, ca: kept.ca_file }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn login(&self) -> PathBuf {
            self.0.path().join("navvy/login.toml")
        }

        fn token_file(&self, token: &str) -> PathBuf {
            let path = self.0.path().join("token");
            std::fs::write(&path, token).unwrap();
            path
        }

        fn keep(&self, at: &str, token: &str) {
            let address = Address::parse(at, true).unwrap();
            let access = Access { address, token: Token::parse(token).unwrap(), ca: Some("/etc/my \"ca\".pem".into()) };
            access.keep(&self.login(), true).unwrap();
        }

        fn gather(&self, processor: Option<&str>, token_file: Option<&Path>) -> Result<Access, LoginError> {
            let login = self.login();
            Access::gather(&Sources { processor, token_file, login: Some(&login), ..Sources::default() })
        }
    }

    #[test]
    fn what_is_kept_is_read_back_and_nobody_else_can_read_it() {
        let home = Home::new();
        assert!(matches!(home.gather(None, None), Err(LoginError::NoProcessor)));
        home.keep("http://ci.example", "first");
        home.keep("http://ci.example", "hunter2");
        let access = home.gather(None, None).unwrap();
        assert_eq!((access.address.shown(), access.token.expose()), ("http://ci.example", "hunter2"));
        assert_eq!(access.ca.as_deref(), Some(Path::new("/etc/my \"ca\".pem")));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home.login()), mode(home.login().parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(home.login().parent().unwrap()).unwrap().count(), 1);
        assert!(!format!("{access:?}").contains("hunter2"));
    }

    #[test]
    fn a_login_that_others_could_read_or_write_is_refused() {
        let home = Home::new();
        home.keep("https://ci.example", "hunter2");
        for mode in [0o644, 0o620, 0o604] {
            std::fs::set_permissions(home.login(), std::fs::Permissions::from_mode(mode)).unwrap();
            let told = home.gather(None, None).unwrap_err().to_string();
            assert!(told.contains("must be 600") && !told.contains("hunter2"), "{told}");
        }
        std::fs::set_permissions(home.login(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(home.login(), "processor = 'https://ci.example'\ntoken = hunter2\n").unwrap();
        let told = home.gather(None, None).unwrap_err().to_string();
        assert!(told.contains("login.toml") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_token_goes_to_its_own_processor_alone() {
        let home = Home::new();
        home.keep("http://ci.example", "hunter2");
        let other = home.gather(Some("https://other.example"), None);
        assert!(matches!(other, Err(LoginError::NoToken(at)) if at == "https://other.example"));
        let file = home.token_file("theirs\n");
        let access = home.gather(Some("https://other.example"), Some(&file)).unwrap();
        assert_eq!((access.address.shown(), access.token.expose()), ("https://other.example", "theirs"));
        assert_eq!(access.ca, None);
        let access = home.gather(None, Some(&file)).unwrap();
        assert_eq!((access.address.shown(), access.token.expose()), ("http://ci.example", "theirs"));
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let home = Home::new();
        let file = home.token_file("two words");
        let told = navvy_job::chain::chain(&home.gather(Some("https://ci.example"), Some(&file)).unwrap_err());
        assert!(told.contains("token: it holds no token") && !told.contains("two words"), "{told}");
        let told = home.gather(Some("https://ci.example"), Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(told.to_string().contains("/nonexistent"), "{told}");
    }
}
