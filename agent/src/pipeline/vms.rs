//! Virtual machines of this host, as far as a quick look tells.

use std::fmt;
use std::sync::Arc;

use navvy_job::resource::Size;

/// From the config's name of an image to this machine's, or why there is none: a sentence that says what to do.
type Find = dyn Fn(Option<&str>) -> Result<Found, String> + Send + Sync;

/// An image of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The version of its Docker engine, if it has one.
    pub docker: Option<String>,
    /// As whom steps run in it.
    pub user: String,
}

/// What this host has for `machine` jobs. Cheap to clone.
#[derive(Clone)]
pub struct Vms {
    /// What the machines are: `x86_64` or `aarch64`.
    architecture: &'static str,
    find: Arc<Find>,
    most: Option<Size>,
}

impl fmt::Debug for Vms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vms")
            .field("architecture", &self.architecture)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Default for Vms {
    fn default() -> Self {
        Self::lacking("this run has no virtual machines")
    }
}

impl Vms {
    /// Machines of this architecture, whose images are found like this.
    pub fn of(
        architecture: &'static str,
        find: impl Fn(Option<&str>) -> Result<Found, String> + Send + Sync + 'static,
    ) -> Self {
        Self { architecture, find: Arc::new(find), most: None }
    }

    /// None, and why.
    pub fn lacking(why: impl Into<String>) -> Self {
        let why = why.into();
        Self::of(std::env::consts::ARCH, move |_| Err(why.clone()))
    }

    /// No machine gets more than this.
    pub fn with_most(self, most: Size) -> Self {
        Self { most: Some(most), ..self }
    }

    /// What a machine gets at most, if the operator says so.
    pub fn most(&self) -> Option<Size> {
        self.most
    }

    /// This machine's image that stands for the config's.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub fn image_for(&self, wanted: Option<&str>, architecture: &str) -> Result<Found, String> {
        if architecture != self.architecture {
            return Err(format!("it is to be {architecture}, and this machine is {}", self.architecture));
        }
        (self.find)(wanted)
    }
}
