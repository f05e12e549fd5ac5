//! Which agents a job fits. Pure.

use navvy_job::compiled::{Executor, Job, Step, StepKind};
use navvy_job::executor::{ExecutorKind, why_no_machine};
use navvy_job::resource::{self, Size};

/// Where a job can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitting {
    /// Its resource class.
    pub class: String,
    /// What a task of it gets.
    pub size: Size,
    /// What an agent must have for it.
    pub executor: ExecutorKind,
    /// It asks for a virtual machine beside that, which has its Docker engine. Where there are none, it does without.
    pub has_machine: bool,
}

/// A class of somebody's own runners says nothing about a size: it gets the default's.
const OWN_CLASS: Size = Size::new(2, 4);

/// The class that runs a job, or what it would need.
pub fn fitting(job: &Job) -> Result<Fitting, String> {
    let class = job.resource_class.as_deref();
    let (class, size) = match &job.executor {
        Executor::Docker { .. } => {
            let class = class.unwrap_or(resource::DEFAULT_DOCKER_CLASS);
            (class, size_of(class, resource::docker_class)?)
        }
        Executor::Machine { image, .. } => {
            let class = class.unwrap_or(resource::DEFAULT_MACHINE_CLASS);
            if let Some(why) = why_no_machine(class, image.as_deref()) {
                return Err(format!("a virtual machine (class {class}): {why}"));
            }
            (class, size_of(class, resource::machine_class)?)
        }
        Executor::Macos { .. } => return Err("macOS".to_owned()),
    };
    let executor = ExecutorKind::of(&job.executor, class).ok_or("an executor that no agent has")?;
    let asks = |step: &Step| matches!(step.kind, StepKind::SetupRemoteDocker { .. });
    let has_machine = executor == ExecutorKind::Docker && job.steps.iter().any(asks);
    Ok(Fitting { class: class.to_owned(), size, executor, has_machine })
}

fn size_of(class: &str, known: impl Fn(&str) -> Option<Size>) -> Result<Size, String> {
    if resource::is_self_hosted(class) {
        return Ok(OWN_CLASS);
    }
    known(class).ok_or_else(|| format!("a resource class `{class}`, which does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(executor: Executor, class: Option<&str>) -> Job {
        Job {
            executor,
            environment: vec![],
            shell: None,
            working_directory: "~/project".into(),
            parallelism: 1,
            resource_class: class.map(str::to_owned),
            steps: vec![],
        }
    }

    fn machine(image: Option<&str>, class: Option<&str>) -> Result<Fitting, String> {
        let image = image.map(str::to_owned);
        fitting(&job(Executor::Machine { image, docker_layer_caching: false }, class))
    }

    #[test]
    fn a_machine_job_has_the_size_of_its_own_classes() {
        let of = |class: &str, size, executor| Fitting { class: class.to_owned(), size, executor, has_machine: false };
        let medium = resource::machine_class("medium").unwrap();
        assert_eq!(machine(None, None), Ok(of("medium", medium, ExecutorKind::Machine)));
        assert_eq!(
            machine(Some("x"), Some("arm.large")),
            Ok(of("arm.large", Size::new(4, 16), ExecutorKind::MachineArm))
        );
        assert_eq!(machine(None, Some("acme/big")), Ok(of("acme/big", OWN_CLASS, ExecutorKind::Machine)));
        let docker = fitting(&job(Executor::Docker { containers: vec![] }, None)).unwrap();
        assert_eq!((docker.size, docker.executor), (Size::new(2, 4), ExecutorKind::Docker));
    }

    #[test]
    fn what_no_agent_has_is_said() {
        for (found, words) in [
            (machine(Some("windows-server-2022"), None), "no machines with Windows"),
            (machine(None, Some("windows.large")), "no machines with Windows"),
            (machine(None, Some("gpu.nvidia.small")), "graphics processor"),
            (machine(None, Some("small")), "a resource class `small`, which does not exist"),
            (fitting(&job(Executor::Macos { xcode: None }, None)), "macOS"),
        ] {
            let told = found.unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }
}
