//! `navvy image build`, `navvy image import`: what takes minutes, and leaves nothing when it is stopped.

use navvy_environment::supervisor_binary;
use navvy_job::exit_code;
use navvy_vm_image::build::{self, Build, Built, Stop};
use navvy_vm_image::import::{self, Import};
use navvy_vm_image::{ImageError, Images};
use tokio::signal::unix::{SignalKind, signal};

use super::super::CliError;
use super::super::args::image::{ImageBuildArgs, ImageImportArgs};
use super::super::host::block_on;
use super::super::out::print;
use super::super::own_words;
use super::told;
use crate::settings::Settings;

pub fn build(settings: &Settings, images: Images, arguments: &ImageBuildArgs) -> Result<u8, CliError> {
    let variant = arguments.variant.into();
    let given = arguments.supervisor.as_deref().or(settings.paths.supervisor.as_deref());
    let supervisor = supervisor_binary::find(given).map_err(|error| CliError::infra(&error))?;
    supervisor_binary::read_static(&supervisor).map_err(|error| CliError::infra(&error))?;
    let architecture = arguments.arch.word().to_owned();
    let name = arguments.name.clone().unwrap_or_else(|| build::Variant::image(variant, &architecture));
    let wanted = Build { variant, architecture, name: name.clone(), supervisor, anew: arguments.anew };
    let say = |line: &str| own_words::say(format!("{line}\n").as_bytes());
    let Some(built) = until_stopped(move |stop| build::build(&images, &wanted, stop, &say))? else { return stopped() };
    print(&match built {
        Built::AsItWas => format!("{name} is here already; `--anew` makes it with today's packages.\n"),
        Built::Supervisor => format!("{name} has another supervisor now.\n"),
        Built::Anew => format!("{name} is built.\n"),
    })?;
    Ok(exit_code::PASSED)
}

pub fn import(images: Images, arguments: ImageImportArgs) -> Result<u8, CliError> {
    let wanted = Import {
        file: arguments.file,
        name: arguments.name,
        like: arguments.like,
        kernel: arguments.kernel,
        initrd: arguments.initrd,
        init: arguments.init.map(Into::into),
        root_device: arguments.root_device,
        user: arguments.user,
    };
    let Some(name) = until_stopped(move |stop| import::import(&images, &wanted, stop))? else { return stopped() };
    print(&format!("{name} is imported.\n"))?;
    Ok(exit_code::PASSED)
}

fn stopped() -> Result<u8, CliError> {
    own_words::say(b"It was stopped, and nothing of it is left.\n");
    Ok(exit_code::CANCELED)
}

/// On a thread of its own. A signal stops what it runs; then it tidies up, and there is no outcome.
fn until_stopped<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, ImageError> + Send + 'static,
) -> Result<Option<T>, CliError> {
    block_on(async move {
        let stop = Stop::default();
        let listen = |kind| signal(kind).map_err(|error| CliError::infra(&error));
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let mut hang_up = listen(SignalKind::hangup())?;
        let stopped = stop.clone();
        let mut working = tokio::task::spawn_blocking(move || work(&stopped));
        loop {
            tokio::select! {
                done = &mut working => return match done.map_err(|error| CliError::infra(&error))? {
                    Err(_) if stop.is_stopped() => Ok(None),
                    done => done.map(Some).map_err(told),
                },
                _ = interrupt.recv() => stop.stop(),
                _ = terminate.recv() => stop.stop(),
                _ = hang_up.recv() => stop.stop(),
            }
        }
    })
}
