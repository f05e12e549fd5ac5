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
    /// What one of them takes of this host, where they are elsewhere.
    far: Option<Size>,
    at_once: Option<usize>,
}

impl fmt::Debug for Vms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vms")
            .field("architecture", &self.architecture)
            .field("most", &self.most)
            .field("far", &self.far)
            .field("at_once", &self.at_once)
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
        Self { architecture, find: Arc::new(find), most: None, far: None, at_once: None }
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

    /// They are not of this host: each takes so much of it, whatever its size.
    pub fn elsewhere(self, takes: Size) -> Self {
        Self { far: Some(takes), ..self }
    }

    /// No more jobs than this have machines at once, if it says so.
    pub fn with_at_once(self, at_once: Option<usize>) -> Self {
        Self { at_once, ..self }
    }

    /// Most jobs that have machines at once, beside what there is room for.
    pub fn at_once(&self) -> Option<usize> {
        self.at_once
    }

    /// What a machine takes of this host, whatever its size. `None`: they are of this host, and take what they have.
    pub fn far(&self) -> Option<Size> {
        self.far
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
