//! Can a job run here, and as what? Pure, but for a look at the images of machines.

use navvy_docker::ImageSubstitutions;
use navvy_job::compiled::{Container, Executor, Job};
use navvy_job::executor::why_no_machine;
use navvy_job::resource::{self, Size};

use super::room::Room;
use super::vms::Vms;

/// How a job runs here.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    pub job: Job,
    pub class: String,
    /// Size of the class, before clamping.
    pub size: Size,
    /// What a virtual machine gets at most, if it runs in one.
    pub most: Option<Size>,
    /// What it takes of this machine whatever its size, if it runs in a virtual machine elsewhere.
    pub far: Option<Size>,
    /// This machine's image that it runs from, if it runs in a virtual machine.
    pub vm_image: Option<String>,
    /// What thereby differs from the real service: sentences about the job.
    pub fidelity: Vec<String>,
}

impl Local {
    /// What the job gets before the machine's own size is looked at.
    pub fn wanted(&self) -> Size {
        self.most.map_or(self.size, |most| self.size.clamp_to(most))
    }

    /// What it gets in this room: of what is elsewhere no machine here takes anything away.
    pub fn given(&self, room: &Room) -> Size {
        if self.far.is_some() { self.wanted() } else { room.clamp(self.wanted()) }
    }
}

/// What the user has said about jobs that `navvy run` cannot run as they are.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    pub images: ImageSubstitutions,
    /// Runs Linux `machine` jobs in a container of this image.
    pub machine_as: Option<String>,
    /// What they run in otherwise.
    pub vms: Vms,
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
        most: None,
        far: None,
        vm_image: None,
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
    let needs = match image {
        Some(image) => format!("a virtual machine ({image}, class {class})"),
        None => format!("a virtual machine (class {class})"),
    };
    if let Some(why) = why_no_machine(&class, image) {
        return Err(format!("{needs}: {why}"));
    }
    let Some(size) = resource::machine_class(&class) else { return Err(needs) };
    let local = Local { job: job.clone(), class, size, most: None, far: None, vm_image: None, fidelity: Vec::new() };
    match &replacements.machine_as {
        Some(replacement) => Ok(in_a_container(local, replacement, &needs)),
        None => in_a_machine(local, image, &replacements.vms).map_err(|why| format!("{needs}: {why}")),
    }
}

fn in_a_container(local: Local, replacement: &str, needs: &str) -> Local {
    let container = Container { image: replacement.to_owned(), ..Container::default() };
    let executor = Executor::Docker { containers: vec![container] };
    let fidelity = vec![format!("needs {needs}; ran in a container of {replacement}")];
    Local { job: Job { executor, ..local.job }, fidelity, ..local }
}

fn in_a_machine(local: Local, image: Option<&str>, vms: &Vms) -> Result<Local, String> {
    let architecture = if local.class.starts_with("arm.") { "aarch64" } else { "x86_64" };
    let found = vms.image_for(image, architecture)?.name;
    let stands_for = image.filter(|image| *image != found);
    let fidelity = stands_for.map(|image| format!("image {image} was replaced by {found}"));
    let fidelity = fidelity.into_iter().collect();
    Ok(Local { most: vms.most(), far: vms.far(), vm_image: Some(found), fidelity, ..local })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Found;
    use crate::settings::overcommit::Overcommit;

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

    fn debian() -> Found {
        Found { name: "debian-12-docker".into(), docker: Some("20.10.24".into()), user: "circleci".into() }
    }

    fn needs(job: &Job, replacements: &Replacements) -> String {
        localise(job, replacements).unwrap_err()
    }

    #[test]
    fn what_is_not_here_says_what_it_needs() {
        let none = Replacements::default();
        let ubuntu = machine_job("ubuntu-2404:current", None);
        assert_eq!(
            needs(&ubuntu, &none),
            "a virtual machine (ubuntu-2404:current, class medium): this run has no virtual machines"
        );
        assert_eq!(needs(&job(Executor::Macos { xcode: Some("16.0".into()) }, None), &none), "macOS with Xcode 16.0");
        assert_eq!(needs(&machine_job("x", Some("acme/big")), &none), "a self-hosted runner of class acme/big");
    }

    #[test]
    fn a_replaced_image_is_remembered_as_the_config_has_it() {
        let image = |image: &str| Container { image: image.to_owned(), ..Container::default() };
        let docker = Executor::Docker { containers: vec![image("cimg/go:1.22"), image("cimg/postgres:15.3")] };
        let images = ImageSubstitutions::parse(&["cimg/postgres:*=postgres:15".to_owned()]).unwrap();
        let local = localise(&job(docker, None), &Replacements { images, ..Replacements::default() }).unwrap();
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
        let windows = needs(&machine_job("windows-server-2022", None), &replacements);
        assert!(
            windows.contains("windows-server-2022") && windows.ends_with("no machines with Windows here"),
            "{windows}"
        );
    }

    #[test]
    fn linux_machines_run_in_a_machine_where_there_is_one() {
        let vms = Vms::of("x86_64", |wanted| match wanted {
            Some("mine") => Err("mine is no image of machines that is known here".to_owned()),
            _ => Ok(debian()),
        });
        let replacements =
            Replacements { vms: vms.with_most(Size { millicpus: 1000, memory: u64::MAX }), ..Replacements::default() };
        let local = localise(&machine_job("ubuntu-2404:current", Some("large")), &replacements).unwrap();
        assert_eq!((local.size, local.wanted()), (Size::new(4, 15), Size::new(1, 15)));
        assert_eq!(local.vm_image.as_deref(), Some("debian-12-docker"));
        assert_eq!(local.fidelity, ["image ubuntu-2404:current was replaced by debian-12-docker"]);
        assert_eq!(local.job.executor, machine_job("ubuntu-2404:current", None).executor);
        let exact = localise(&machine_job("debian-12-docker", None), &replacements).unwrap();
        assert!(exact.fidelity.is_empty());
        for (image, class, why) in [
            ("mine", None, "mine is no image"),
            ("windows-server-2022", None, "no machines with Windows"),
            ("x", Some("windows.medium"), "no machines with Windows"),
            ("x", Some("gpu.nvidia.small"), "graphics processor"),
            ("x", Some("arm.medium"), "this machine is x86_64"),
        ] {
            let told = needs(&machine_job(image, class), &replacements);
            assert!(told.starts_with(&format!("a virtual machine ({image}, class ")) && told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_machine_elsewhere_has_its_whole_class_and_takes_little_of_this_host() {
        let takes = Size { millicpus: 100, memory: 1 << 28 };
        let vms = Vms::of("x86_64", |_| Ok(debian())).elsewhere(takes);
        let room = Room::new(Size::new(1, 1), Overcommit::default(), 0);
        let of = |vms: Vms, class: &str| {
            let replacements = Replacements { vms, ..Replacements::default() };
            let local = localise(&machine_job("ubuntu-2404:current", Some(class)), &replacements).unwrap();
            (local.given(&room), local.far)
        };
        assert_eq!(of(vms.clone(), "large"), (Size::new(4, 15), Some(takes)));
        assert_eq!(of(vms.with_most(Size::new(2, 8)), "large"), (Size::new(2, 8), Some(takes)), "the operator's word");
        assert_eq!(of(Vms::of("x86_64", |_| Ok(debian())), "large"), (Size::new(1, 1), None), "of this host");
    }

    #[test]
    fn a_container_that_was_asked_for_wins_over_a_machine() {
        let replacements = Replacements {
            machine_as: Some("navvy/base:bookworm".into()),
            vms: Vms::of("x86_64", |_| Ok(debian())),
            ..Replacements::default()
        };
        let local = localise(&machine_job("ubuntu-2404:current", None), &replacements).unwrap();
        assert_eq!(local.job.executor.primary_image(), Some("navvy/base:bookworm"));
        assert_eq!((local.vm_image, local.most), (None, None));
    }
}
