//! Can a job run here, and as what? Pure.

use navvy_docker::ImageSubstitutions;
use navvy_job::compiled::{Container, Executor, Job};
use navvy_job::resource::{self, Size};

/// How a job runs here.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    pub job: Job,
    pub class: String,
    /// Size of the class, before clamping.
    pub size: Size,
    /// What thereby differs from the real service: sentences about the job.
    pub fidelity: Vec<String>,
}

/// What the user has said about jobs that `navvy run` cannot run as they are.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    pub images: ImageSubstitutions,
    /// Runs Linux `machine` jobs in a container of this image.
    pub machine_as: Option<String>,
}

/// The job as it runs here, or what it would need.
pub fn localise(job: &Job, replacements: &Replacements) -> Result<Local, String> {
    let class = job.resource_class.clone();
    if let Some(class) = class.as_deref().filter(|class| resource::is_self_hosted(class)) {
        return Err(format!("a self-hosted runner of class {class}"));
    }
    match &job.executor {
        Executor::Docker { containers } => Ok(docker(job, containers, replacements)),
        Executor::Machine { image, .. } => machine(job, image.as_deref(), replacements),
        Executor::Macos { xcode } => Err(match xcode {
            Some(xcode) => format!("macOS with Xcode {xcode}"),
            None => "macOS".to_owned(),
        }),
    }
}

fn docker(job: &Job, containers: &[Container], replacements: &Replacements) -> Local {
    let class = job.resource_class.clone().unwrap_or_else(|| resource::DEFAULT_DOCKER_CLASS.to_owned());
    let mut local = Local {
        job: job.clone(),
        // The config refuses classes that do not exist.
        size: resource::docker_class(&class).unwrap_or(Size::new(2, 4)),
        class,
        fidelity: Vec::new(),
    };
    let containers = containers.iter().map(|container| substitute(container, replacements, &mut local.fidelity));
    local.job.executor = Executor::Docker { containers: containers.collect() };
    local
}

fn substitute(container: &Container, replacements: &Replacements, fidelity: &mut Vec<String>) -> Container {
    let mut container = container.clone();
    if let Some(image) = replacements.images.apply(&container.image) {
        fidelity.push(format!("image {} was replaced by {image}", container.image));
        container.in_place_of = Some(std::mem::replace(&mut container.image, image));
    }
    container
}

fn machine(job: &Job, image: Option<&str>, replacements: &Replacements) -> Result<Local, String> {
    let class = job.resource_class.clone().unwrap_or_else(|| resource::DEFAULT_MACHINE_CLASS.to_owned());
    let foreign = is_windows(&class, image) || class.starts_with("gpu.");
    let needs = match image {
        Some(image) => format!("a virtual machine ({image}, class {class})"),
        None => format!("a virtual machine (class {class})"),
    };
    let (Some(replacement), Some(size), false) = (&replacements.machine_as, resource::machine_class(&class), foreign)
    else {
        return Err(needs);
    };
    let container = Container { image: replacement.clone(), ..Container::default() };
    let mut job = job.clone();
    job.executor = Executor::Docker { containers: vec![container] };
    let fidelity = vec![format!("needs {needs}; ran in a container of {replacement}")];
    Ok(Local { job, class, size, fidelity })
}

fn is_windows(class: &str, image: Option<&str>) -> bool {
    class.starts_with("windows.") || image.is_some_and(|image| image.starts_with("windows"))
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

    fn machine_job(image: &str, class: Option<&str>) -> Job {
        job(Executor::Machine { image: Some(image.into()), docker_layer_caching: false }, class)
    }

    fn needs(job: &Job, replacements: &Replacements) -> String {
        localise(job, replacements).unwrap_err()
    }

    #[test]
    fn what_is_not_here_says_what_it_needs() {
        let none = Replacements::default();
        let ubuntu = machine_job("ubuntu-2404:current", None);
        assert_eq!(needs(&ubuntu, &none), "a virtual machine (ubuntu-2404:current, class medium)");
        assert_eq!(needs(&job(Executor::Macos { xcode: Some("16.0".into()) }, None), &none), "macOS with Xcode 16.0");
        assert_eq!(needs(&machine_job("x", Some("acme/big")), &none), "a self-hosted runner of class acme/big");
    }

    #[test]
    fn a_replaced_image_is_remembered_as_the_config_has_it() {
        let image = |image: &str| Container { image: image.to_owned(), ..Container::default() };
        let docker = Executor::Docker { containers: vec![image("cimg/go:1.22"), image("cimg/postgres:15.3")] };
        let images = ImageSubstitutions::parse(&["cimg/postgres:*=postgres:15".to_owned()]).unwrap();
        let local = localise(&job(docker, None), &Replacements { images, machine_as: None }).unwrap();
        let Executor::Docker { containers } = local.job.executor else { panic!("it is a Docker job") };
        assert_eq!(containers[0], image("cimg/go:1.22"));
        assert_eq!(containers[1].image, "postgres:15");
        assert_eq!(containers[1].in_place_of.as_deref(), Some("cimg/postgres:15.3"));
        assert_eq!(local.fidelity, ["image cimg/postgres:15.3 was replaced by postgres:15"]);
    }

    #[test]
    fn linux_machines_may_run_in_a_container_and_windows_may_not() {
        let replacements = Replacements { machine_as: Some("navvy/base:bookworm".into()), ..Replacements::default() };
        let local = localise(&machine_job("ubuntu-2404:current", Some("large")), &replacements).unwrap();
        assert_eq!(local.size, Size::new(4, 15));
        assert_eq!(local.fidelity.len(), 1);
        assert!(needs(&machine_job("windows-server-2022", None), &replacements).contains("windows-server-2022"));
    }
}
