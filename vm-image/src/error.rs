//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use navvy_job::outcome::Blame;

use crate::name::shown;

/// Why there is no image, or none that may be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that is none.
    #[error(
        "{} is no name of an image: it has small letters, digits, `.`, `_` and `-`, at most 64, and begins with a letter or a digit",
        shown(.0)
    )]
    Name(String),
    /// Neither HOME nor another variable says where images are.
    #[error("there is no place for images of machines: none of NAVVY_IMAGES, XDG_DATA_HOME and HOME is set")]
    NoPlace,
    /// There is no image of this name here.
    #[error("there is no image {} of machines in {}", shown(.name), .place.display())]
    Missing {
        /// The name.
        name: String,
        /// Where images are.
        place: PathBuf,
    },
    /// A config's name stands for nothing.
    #[error("{} is no image of machines that is known here: {}", shown(.wanted), .there)]
    Unknown {
        /// What the config says.
        wanted: String,
        /// What there is, as a part of a sentence.
        there: String,
    },
    /// The table says what a config's name stands for, and nothing of it is here.
    #[error("{} stands for the image {}, which is not here: {}", shown(.wanted), .images.join(" or "), .there)]
    NotBuilt {
        /// What the config says.
        wanted: String,
        /// What it stands for, the better ones first.
        images: Vec<String>,
        /// What there is, as a part of a sentence.
        there: String,
    },
    /// A config's name of something that Navvy does not have.
    #[error("{} is not available: {why}", shown(.wanted))]
    Refused {
        /// What the config says.
        wanted: String,
        /// Why.
        why: &'static str,
    },
    /// Not what its manifest says, or no manifest.
    #[error("the image {name} is damaged: {why}")]
    Damaged {
        /// Its name.
        name: String,
        /// In what way.
        why: String,
    },
    /// Somebody makes, removes or starts from it at the moment.
    #[error("the image {name} is in use: {by}")]
    Busy {
        /// Its name.
        name: String,
        /// By whom.
        by: &'static str,
    },
    /// A file that cannot become an image.
    #[error("{} cannot be an image: {why}", .file.display())]
    Import {
        /// Which.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// A recipe that did not come to its end.
    #[error("failed to build the image {name}: {why}")]
    Build {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// What a build needs and this machine does not have.
    #[error("an image cannot be built here: {0}")]
    NotHere(String),
    /// A call of the system.
    #[error("failed to {verb} {}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Name(_) | Self::NoPlace | Self::Missing { .. } | Self::Import { .. } | Self::Busy { .. } => {
                Blame::Usage
            }
            Self::Unknown { .. } | Self::NotBuilt { .. } | Self::Refused { .. } => Blame::Config,
            Self::Damaged { .. } | Self::Build { .. } | Self::NotHere(_) | Self::Io { .. } => Blame::Infra,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "`navvy image ls` lists what there is, `navvy image build` makes one.".into(),
            Self::Unknown { .. } => "`navvy image table` shows which names are known; `[machine-images]` in \
                                     ~/.config/navvy/settings.toml adds some (docs/vm.md)."
                .into(),
            Self::NotBuilt { images, .. } => {
                let variant = images.first().map_or("docker", |name| variant_of(name));
                format!(
                    "`sudo navvy image build {variant}` makes it; `[machine-images]` in ~/.config/navvy/settings.toml names another one."
                )
            }
            Self::Damaged { .. } => "`navvy image rm` removes it, `navvy image build` makes it anew.".into(),
            _ => return None,
        })
    }
}

/// `docker` of `debian-12-docker`; another name stays as it is.
fn variant_of(name: &str) -> &str {
    name.strip_prefix("debian-12-").map_or(name, |variant| variant.trim_end_matches("-arm64"))
}

/// Names what was tried, and with what.
pub(crate) trait At<T> {
    /// `verb` as in "failed to read".
    fn at(self, verb: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, verb: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { verb, path: path.to_owned(), source })
    }
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, verb: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(io::Error::from).at(verb, path)
    }
}
