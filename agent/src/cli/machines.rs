//! What this host has for `machine` jobs, looked at as cheaply as it goes: nothing is started for it.

use std::ffi::OsStr;

use navvy_environment::command;
use navvy_job::executor::{ExecutorKind, ExecutorKinds};
use navvy_job::resource::{self, Size};
use navvy_vm::{Machines, Offer};
use navvy_vm_image::{Image, Table};

use super::CliError;
use super::host::{self, vm_table};
use crate::pipeline::{Found, Vms};
use crate::settings::Settings;
use crate::settings::vm::{VmTable, images};
use crate::step::handing::RemoteDocker;

/// Virtual machines as jobs get them here, or why there are none.
pub fn vms(settings: &Settings) -> Result<Vms, CliError> {
    let table = vm_table(settings)?;
    if let Some(why) = table.refusal() {
        return Ok(Vms::lacking(why));
    }
    let machines = host::machines(settings)?;
    let at_once = machines.at_once();
    let vms = match lacking(settings, &table) {
        _ if !machines.are_here() => elsewhere(machines),
        Some(why) => return Ok(Vms::lacking(why)),
        None => of_images(settings),
    };
    let vms = vms.with_at_once(at_once);
    Ok(table.most().map_or(vms.clone(), |most| vms.with_most(most)))
}

/// Virtual machines as jobs of `navvy run` get them here: a processor lends none to it.
pub fn vms_of_run(settings: &Settings) -> Result<Vms, CliError> {
    if vm_table(settings)?.are_lent() {
        let why = "a fleet's processor lends this host its machines (`provider = \"lent\"` in [vm] of your settings), and none to `navvy run`";
        return Ok(Vms::lacking(why));
    }
    vms(settings)
}

/// Whoever makes them knows what he has by the settings alone.
fn elsewhere(machines: Machines) -> Vms {
    let takes = machines.takes(Size { millicpus: 0, memory: 0 });
    let vms = Vms::of(std::env::consts::ARCH, move |wanted| {
        let offered = machines.offer(wanted).map_err(|fault| fault.to_string())?;
        let Offer { name, docker, user } = offered;
        Ok(Found { name, docker, user })
    });
    vms.elsewhere(takes)
}

/// The image of a job that names none.
///
/// # Errors
/// Why such a job gets no machine here: a sentence that says what to do.
pub fn of_no_image(settings: &Settings) -> Result<String, String> {
    let vms = vms(settings).map_err(|error| error.in_one_line())?;
    vms.image_for(None, std::env::consts::ARCH).map(|found| found.name)
}

/// Do jobs get machines here?
pub fn are_there(settings: &Settings) -> bool {
    of_no_image(settings).is_ok()
}

/// What a fleet's jobs can run in here now.
///
/// # Errors
/// The settings cannot be read: whether jobs get machines is not known then.
pub fn executors(settings: &Settings, has_docker: bool) -> Result<ExecutorKinds, CliError> {
    let has_image = vms(settings)?.image_for(None, std::env::consts::ARCH).is_ok();
    let machine = ExecutorKind::of_machines(std::env::consts::ARCH).filter(|_| has_image);
    Ok(machine.into_iter().chain(has_docker.then_some(ExecutorKind::Docker)).collect())
}

/// What is not installed, and the command that installs it.
fn lacking(settings: &Settings, table: &VmTable) -> Option<String> {
    let architecture = std::env::consts::ARCH;
    let path = command::search_path(settings.get("PATH").map(OsStr::new));
    let program = format!("qemu-system-{architecture}");
    let is_there = match &table.qemu {
        Some(named) if !named.is_file() => {
            return Some(format!("your settings name {} as QEMU, which is no file", named.display()));
        }
        Some(_) => true,
        None => command::find(&program, &path).is_some(),
    };
    let package = if architecture == "aarch64" { "qemu-system-arm" } else { "qemu-system-x86" };
    if !is_there {
        return Some(format!("{program} is not installed: `sudo apt install {package} qemu-utils`"));
    }
    let has_disks = command::find("qemu-img", &path).is_some();
    (!has_disks).then(|| "qemu-img is not installed: `sudo apt install qemu-utils`".to_owned())
}

fn of_images(settings: &Settings) -> Vms {
    let (images, table) = (images(settings), Table::default());
    Vms::of(std::env::consts::ARCH, move |wanted| {
        let found = table.find(&images, wanted, std::env::consts::ARCH);
        let known =
            |Image { manifest, .. }: Image| Found { name: manifest.name, docker: manifest.docker, user: manifest.user };
        found.map(known).map_err(|error| match error.hint() {
            Some(hint) => format!("{error}. {}", hint.trim_end_matches('.')),
            None => error.to_string(),
        })
    })
}

/// What `setup_remote_docker` gives a job on a machine of this size, or why it gives none.
pub fn remote_docker(vms: &Vms, machine: Size) -> Result<RemoteDocker, String> {
    let Found { name, docker, user } = vms.image_for(None, std::env::consts::ARCH)?;
    let Some(docker) = docker else { return Err(format!("the image {name} has no Docker engine")) };
    // A package's version: `20.10.24+dfsg1-1`.
    let docker = docker.split(['+', '-', '~']).next().unwrap_or_default().to_owned();
    let size = resource::machine_class(resource::REMOTE_DOCKER_CLASS).unwrap_or(Size::new(2, 4));
    let size = vms.most().map_or(size, |most| size.clamp_to(most));
    let size = if vms.far().is_some() { size } else { size.clamp_to(machine) };
    Ok(RemoteDocker { size, takes: vms.far().unwrap_or(size), image: name, docker, user })
}
