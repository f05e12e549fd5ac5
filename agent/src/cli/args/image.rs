//! Images of virtual machines: `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use navvy_vm_image::build::Variant;
use navvy_vm_image::manifest::Init;

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images that machines can start from.
    Ls(ImageListArgs),
    /// Make an image from Debian's packages, or give one that is here the supervisor of this version. Needs root.
    Build(ImageBuildArgs),
    /// Take a disk (qcow2, raw), or a tar archive of an image's directory.
    Import(Box<ImageImportArgs>),
    /// Read images, and say whether they still are what they were.
    Verify(ImageVerifyArgs),
    /// Remove images that no machine uses.
    Rm(ImageRemoveArgs),
    /// Show which image a config's name stands for.
    Table(ImageTableArgs),
}

#[derive(Debug, Args)]
pub struct ImageListArgs {
    /// Print one image a line, as JSON (docs/vm.md).
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ImageBuildArgs {
    /// What is in it: minimal (shell, git, ssh), docker (and the Docker engine), full (and systemd, compilers, the usual tools).
    pub variant: VariantWord,
    /// For which processors.
    #[arg(long, value_name = "ARCHITECTURE", default_value = Architecture::HERE)]
    pub arch: Architecture,
    /// What the image is called. Without it: debian-12-VARIANT, and -arm64 behind it for aarch64.
    #[arg(long)]
    pub name: Option<String>,
    /// The supervisor's program. Without it: the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub supervisor: Option<PathBuf>,
    /// Make all of it anew, with today's packages, also where it is here already.
    #[arg(long)]
    pub anew: bool,
}

/// A variant, as a word.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum VariantWord {
    Minimal,
    Docker,
    Full,
}

impl From<VariantWord> for Variant {
    fn from(word: VariantWord) -> Self {
        match word {
            VariantWord::Minimal => Self::Minimal,
            VariantWord::Docker => Self::Docker,
            VariantWord::Full => Self::Full,
        }
    }
}

/// Processors of a guest.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Architecture {
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    #[value(name = "aarch64", alias = "arm64")]
    Arm,
}

impl Architecture {
    /// This machine's.
    pub const HERE: &str = std::env::consts::ARCH;

    pub fn word(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }
}

#[derive(Debug, Args)]
pub struct ImageImportArgs {
    /// The disk or the archive.
    pub file: PathBuf,
    /// What the image is called. Without it: as an archive's manifest says.
    #[arg(long)]
    pub name: Option<String>,
    /// An image that is here: kernel, initial file system, user and kernel's arguments are taken from it.
    #[arg(long, value_name = "IMAGE")]
    pub like: Option<String>,
    /// An uncompressed kernel (vmlinux) for it.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// An initial file system for it.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// What starts the supervisor in it: the supervisor itself (own) or systemd.
    #[arg(long, value_name = "INIT")]
    pub init: Option<InitWord>,
    /// Where its root is on the disk, as in /dev/vda1. Without it: the whole disk.
    #[arg(long, value_name = "DEVICE")]
    pub root_device: Option<String>,
    /// As whom steps run in it.
    #[arg(long)]
    pub user: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum InitWord {
    Own,
    Systemd,
}

impl From<InitWord> for Init {
    fn from(word: InitWord) -> Self {
        match word {
            InitWord::Own => Self::Own,
            InitWord::Systemd => Self::Systemd,
        }
    }
}

#[derive(Debug, Args)]
pub struct ImageVerifyArgs {
    /// These images. Without any: all.
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ImageRemoveArgs {
    /// Names of images.
    #[arg(required = true)]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ImageTableArgs {
    /// Only what this name of a config stands for.
    pub name: Option<String>,
    /// For guests with these processors.
    #[arg(long, value_name = "ARCHITECTURE", default_value = Architecture::HERE)]
    pub arch: Architecture,
}
