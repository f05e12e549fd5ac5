//! Why there is no machine, and whose fault that is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use navvy_environment::command::CommandError;
use navvy_environment::run_dir::RunDirError;
use navvy_job::outcome::Blame;
use navvy_journal::JournalError;

use crate::record::RecordError;
use crate::ssh::{HostError, SshFault};

/// Why there is no machine.
#[derive(Debug)]
pub struct PrepareError {
    /// What went wrong.
    pub fault: Fault,
    /// The last lines of the machine's console, where it had one that said anything.
    pub console: String,
    /// What could not be removed again.
    pub leftovers: Vec<String>,
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)?;
        if !self.console.is_empty() {
            write!(f, "; the machine's console ends with:\n{}", self.console)?;
        }
        Ok(())
    }
}

impl std::error::Error for PrepareError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

impl PrepareError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.fault.blame()
    }
}

/// What went wrong with a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The config's image is not here, is no image, or is not what was built.
    #[error(transparent)]
    Image(#[from] navvy_vm_image::ImageError),
    /// The task asks for something that machines of this provider do not have.
    #[error("{0}")]
    Unsupported(String),
    /// What makes machines is not on this host.
    #[error("machine jobs need QEMU on this host: {0}")]
    NoHypervisor(String),
    /// A cloud did not do what it was asked for.
    #[error(transparent)]
    Cloud(#[from] crate::cloud::Fault),
    /// A host that is there cannot be used.
    #[error(transparent)]
    There(#[from] HostError),
    /// A far machine cannot be entered, or not be seeded.
    #[error(transparent)]
    Ssh(#[from] SshFault),
    /// A setting cannot be.
    #[error("the setting `{key}`: {why}")]
    Setting {
        /// Its key.
        key: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// Something is left that nothing of these settings made.
    #[error("machines of {0} are not in these settings: give them back their [vm.{0}] until the machine is removed")]
    Lacking(String),
    /// Machines of this host are a processor's, and it gave none.
    #[error("machines of this host are lent by its processor ([vm] provider = \"lent\"), and none was: {0}")]
    NotLent(String),
    /// The provider said something that is not so.
    #[error("{provider} failed to {doing}: {message}")]
    Provider {
        /// Which.
        provider: String,
        /// What it was asked for.
        doing: String,
        /// Its words.
        message: String,
    },
    /// The disk of this host has no room for the machine's.
    #[error("no space for the machine's disk in {path}: {message}", path = path.display())]
    NoSpace {
        /// Where it was to go.
        path: PathBuf,
        /// What is missing.
        message: String,
    },
    /// The machine's process ended.
    #[error("QEMU ended while the machine was {doing}: {message}")]
    Ended {
        /// What the machine was at.
        doing: &'static str,
        /// How it ended, and what it said.
        message: String,
    },
    /// The guest's kernel gave up.
    #[error("the machine's kernel panicked while the machine was {doing}")]
    Panicked {
        /// What the machine was at.
        doing: &'static str,
    },
    /// The first process of the guest is the supervisor, and it gave up.
    #[error("the machine's supervisor ended by a fault of its own while the machine was {doing}")]
    OwnFault {
        /// What the machine was at.
        doing: &'static str,
    },
    /// Nothing came from the guest in time.
    #[error("the machine's supervisor did not answer within {limit:?} ({doing})")]
    NoAnswer {
        /// The time it had.
        limit: Duration,
        /// What was waited for.
        doing: &'static str,
    },
    /// The guest said something that its protocol does not have.
    #[error("the machine said something that is not understood ({doing}): {message}")]
    Hostile {
        /// What was waited for.
        doing: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The guest could not become what its seed says.
    #[error("the machine could not take its seed: {0}")]
    Seed(String),
    /// QEMU's monitor did not do what it was asked.
    #[error("QEMU failed to {doing}: {message}")]
    Monitor {
        /// What it was asked for.
        doing: &'static str,
        /// Its words.
        message: String,
    },
    /// The machine's network could not be made.
    #[error("failed to make the machine's network: {0}")]
    Network(String),
    /// The whole start took too long.
    #[error("the machine was not ready within {limit:?}")]
    Start {
        /// The time it had.
        limit: Duration,
    },
    /// Something of this host.
    #[error("failed to {doing}")]
    Host {
        /// What was to be done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program of this host failed.
    #[error("failed to {doing}: {source}")]
    Command {
        /// What was to be done.
        doing: &'static str,
        /// How it failed.
        source: CommandError,
    },
    /// The machine's record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The task's mark.
    #[error(transparent)]
    RunDirectory(#[from] RunDirError),
    /// The task's journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Fault {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Image(error) => error.blame(),
            Self::Unsupported(_) => Blame::Job,
            Self::NoHypervisor(_) => Blame::Engine,
            Self::Setting { .. } | Self::Lacking(_) => Blame::Usage,
            Self::Cloud(fault) => fault.blame(),
            Self::There(error) => error.blame(),
            Self::Ssh(fault) => fault.blame(),
            _ => Blame::Infra,
        }
    }

    /// Something of this host failed.
    pub(crate) fn host(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Host { doing, source }
    }
}

/// Why a machine could not be held, or not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The task's journal or its mark could not be read, locked or written.
    #[error(transparent)]
    Written(#[from] navvy_environment::hold::HoldError),
    /// The machine's record could not be read, locked or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its machine is gone.
    #[error("task {task} has no machine any more ({why}); `navvy rm {task}` removes the rest")]
    NoMachine {
        /// The task.
        task: navvy_job::id::TaskId,
        /// What became of it.
        why: String,
    },
}
