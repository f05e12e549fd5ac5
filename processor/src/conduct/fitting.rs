//! Which agents a job fits. Pure.

use navvy_job::compiled::{Executor, Job};
use navvy_job::resource::{self, Size};

/// Where a job can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitting {
    /// Its resource class.
    pub class: String,
    /// What a task of it gets.
    pub size: Size,
}

/// A class of somebody's own runners says nothing about a size: it gets the default's.
const OWN_CLASS: Size = Size::new(2, 4);

/// The class that runs a job, or what it would need.
pub fn fitting(job: &Job) -> Result<Fitting, String> {
    let class = job.resource_class.as_deref();
    match &job.executor {
        Executor::Docker { .. } => {
            let class = class.unwrap_or(resource::DEFAULT_DOCKER_CLASS);
            let size = if resource::is_self_hosted(class) { OWN_CLASS } else { docker_size(class)? };
            Ok(Fitting { class: class.to_owned(), size })
        }
        // Who has such a runner has machines there, or its agent says that it has none.
        Executor::Machine { .. } if class.is_some_and(resource::is_self_hosted) => {
            Ok(Fitting { class: class.unwrap_or_default().to_owned(), size: OWN_CLASS })
        }
        Executor::Machine { .. } => Err("a virtual machine".to_owned()),
        Executor::Macos { .. } => Err("macOS".to_owned()),
    }
}

fn docker_size(class: &str) -> Result<Size, String> {
    resource::docker_class(class).ok_or_else(|| format!("a resource class `{class}`, which does not exist"))
}
