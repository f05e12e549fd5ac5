//! What images ask for that no container can have. The image's fault, known before anything is made: an engine would
//! say it late and in words that fit a fault of this machine as well.

use navvy_protocol::place::{BIN_DIR, RUN_DIR};

use super::{ImageConfig, Role, clean, cut};
use crate::egress::CA_DIR;

/// Each is made, labelled and removed for every container. Real images have a handful.
const MOST_VOLUMES: usize = 100;
/// Bytes of a variable with its end: Linux hands no longer one to a program.
const LONGEST_VARIABLE: usize = 128 << 10;
/// Bytes of all variables with their ends: what Linux hands to a program, arguments included.
const LARGEST_ENVIRONMENT: usize = 2 << 20;
/// Characters of an image's own words in an error.
const SHOWN: usize = 60;

/// Why no container can be made of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OddImage {
    /// The whole of the variable, cut to a readable length.
    #[error("it sets a variable without a name ({0:?})")]
    NamelessVariable(String),
    /// The variable's name.
    #[error("its variable {0:?} holds a NUL byte")]
    NulInVariable(String),
    /// A variable alone is too long.
    #[error("its variable {name:?} has {bytes} bytes, and Linux hands at most {LONGEST_VARIABLE} to a program")]
    LongVariable {
        /// Its name.
        name: String,
        /// Its length with name and end.
        bytes: usize,
    },
    /// Bytes of all variables with their ends.
    #[error("its variables have {0} bytes, and Linux hands at most {LARGEST_ENVIRONMENT} to a program")]
    LargeEnvironment(usize),
    /// How many volumes it wants.
    #[error("it wants {0} volumes, of at most {MOST_VOLUMES}")]
    ManyVolumes(usize),
    /// The volume's path, and what it would hide.
    #[error("it wants a volume at {0:?}, where {1}")]
    VolumeOver(String, &'static str),
}

/// What cannot be had of `image`, if anything.
pub(super) fn check(image: &ImageConfig, role: Role) -> Result<(), OddImage> {
    image.env.iter().try_for_each(|variable| check_variable(variable))?;
    let bytes = image.env.iter().map(|variable| variable.len() + 1).sum();
    if bytes > LARGEST_ENVIRONMENT {
        return Err(OddImage::LargeEnvironment(bytes));
    }
    if image.volumes.len() > MOST_VOLUMES {
        return Err(OddImage::ManyVolumes(image.volumes.len()));
    }
    let over = image.volumes.iter().find_map(|volume| Some((volume, held_by(&clean(volume), role)?)));
    over.map_or(Ok(()), |(volume, holder)| Err(OddImage::VolumeOver(cut(volume, SHOWN), holder)))
}

/// `NAME` without a value and an empty text pass: engines drop them.
fn check_variable(variable: &str) -> Result<(), OddImage> {
    let name = || cut(variable.split('=').next().unwrap_or_default(), SHOWN);
    if variable.starts_with('=') {
        return Err(OddImage::NamelessVariable(cut(variable, SHOWN)));
    }
    if variable.contains('\0') {
        return Err(OddImage::NulInVariable(name()));
    }
    let bytes = variable.len() + 1;
    if bytes > LONGEST_VARIABLE { Err(OddImage::LongVariable { name: name(), bytes }) } else { Ok(()) }
}

/// What lies where a volume would hide it. At our directories themselves nothing is mounted twice, and above them
/// ours come on top.
fn held_by(path: &str, role: Role) -> Option<&'static str> {
    let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    match path {
        "/" => Some("the image itself is"),
        "/dev" => Some("the engine puts the devices"),
        "/proc" => Some("the engine puts the processes"),
        _ if below("/proc") => Some("the engine puts the processes"),
        _ if below(CA_DIR) => Some("the CA bundle is"),
        _ if role == Role::Primary && [BIN_DIR, RUN_DIR].into_iter().any(below) => Some("the supervisor is"),
        _ => None,
    }
}
