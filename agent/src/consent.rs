//! What of the user's own a project may be given, as the user once answered.
//!
//! ```text
//! (directory, config, origin) ─▶ ~/.local/state/navvy/consents/DIGEST.json ─▶ contexts and files that it was given
//! ```
//!
//! An origin is a stranger's word: any directory can claim any. So an answer is for one directory, by its real path, and
//! for one config in it; that the origin is the same tells whether another project has come to lie there.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Something of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// By its name, in the user's directory of contexts.
    Context(String),
    /// A file that `env-file` of the user's settings names.
    EnvFile(PathBuf),
}

/// As it is remembered, and as messages call it.
impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context(name) => write!(f, "context {name}"),
            Self::EnvFile(path) => write!(f, "env-file {}", path.display()),
        }
    }
}

/// For whom an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// Where the project begins; its real path.
    pub directory: PathBuf,
    /// The config that is run; its real path.
    pub config: PathBuf,
    /// The address of the repository, as it says itself.
    pub origin: Option<String>,
}

impl Asking {
    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for part in [self.directory.as_os_str().as_bytes(), self.config.as_os_str().as_bytes()] {
            digest.update(part);
            digest.update([0]);
        }
        // None and an empty one are two.
        digest.update(self.origin.as_ref().map(|origin| format!("={origin}")).unwrap_or_default());
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// No file of answers is longer; what claims to be is not read to its end.
const LONGEST: u64 = 1 << 20;

/// What one project was given. The file's name is whom it is for; that it says so, too, is for people.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Answers {
    directory: String,
    config: String,
    origin: Option<String>,
    given: BTreeSet<String>,
}

/// The answers that concern one project.
#[derive(Debug, Clone)]
pub struct Consents {
    directory: PathBuf,
    asking: Asking,
}

impl Consents {
    /// In Navvy's own state directory.
    pub fn new(state: &Path, asking: Asking) -> Self {
        Self { directory: state.join("consents"), asking }
    }

    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.asking.digest()))
    }

    /// Was the project given this? What cannot be read gives nothing.
    pub fn has(&self, own: &Own) -> bool {
        let answers = self.read().unwrap_or_else(|error| {
            let path = self.path();
            tracing::warn!("{} cannot be read: {error}. What it gave is not given.", path.display());
            Answers::default()
        });
        answers.given.contains(&own.to_string())
    }

    fn read(&self) -> io::Result<Answers> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match File::options().read(true).custom_flags(flags).open(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answers::default()),
            file => file?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// From now on the project is given this. Only the user may read whom they gave what.
    ///
    /// # Errors
    /// It could not be written.
    pub fn remember(&self, own: &Own) -> io::Result<()> {
        let mut answers = self.read().unwrap_or_default();
        answers.given.insert(own.to_string());
        let Asking { directory, config, origin } = &self.asking;
        answers.directory = directory.display().to_string();
        answers.config = config.display().to_string();
        answers.origin.clone_from(origin);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        // Its mode is 0600.
        let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.directory)?;
        file.write_all(&serde_json::to_vec_pretty(&answers)?)?;
        file.persist(self.path())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn asking(directory: &str, config: &str, origin: Option<&str>) -> Asking {
        Asking { directory: directory.into(), config: config.into(), origin: origin.map(str::to_owned) }
    }

    #[test]
    fn an_answer_is_for_one_directory_config_and_origin() {
        let state = tempfile::tempdir().unwrap();
        let of = |directory, config, origin| Consents::new(state.path(), asking(directory, config, origin));
        let prod = Own::Context("prod".to_owned());
        let shop = of("/shop", "/shop/c.yml", Some("acme/shop"));
        assert!(!shop.has(&prod));
        shop.remember(&prod).unwrap();
        shop.remember(&Own::EnvFile("/home/a.env".into())).unwrap();
        assert!(shop.has(&prod) && shop.has(&Own::EnvFile("/home/a.env".into())));
        assert!(!shop.has(&Own::Context("staging".to_owned())));
        for other in [
            of("/copy", "/copy/c.yml", Some("acme/shop")),
            of("/shop", "/tmp/c.yml", Some("acme/shop")),
            of("/shop", "/shop/c.yml", Some("evil/shop")),
            of("/shop", "/shop/c.yml", None),
            of("/shop", "/shop/c.yml", Some("")),
        ] {
            assert!(!other.has(&prod), "{:?}", other.asking());
        }
        assert_eq!(shop.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(state.path().join("consents")).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_cannot_be_read_gives_nothing() {
        let state = tempfile::tempdir().unwrap();
        let shop = Consents::new(state.path(), asking("/shop", "/shop/c.yml", None));
        let prod = Own::Context("prod".to_owned());
        shop.remember(&prod).unwrap();
        let text = std::fs::read(shop.path()).unwrap();
        std::fs::write(shop.path(), &text[..text.len() / 2]).unwrap();
        assert!(!shop.has(&prod));
        std::fs::remove_file(shop.path()).unwrap();
        std::fs::write(state.path().join("elsewhere"), &text).unwrap();
        std::os::unix::fs::symlink(state.path().join("elsewhere"), shop.path()).unwrap();
        assert!(!shop.has(&prod), "a link is not followed");
    }
}
