//! The image of a machine: found by the config's name, and verified before it is used.

use std::env::consts::ARCH;

use navvy_environment::request::{Machine, Purpose};
use navvy_vm_image::{Image, ImageError};

use crate::error::Fault;
use crate::settings::Settings;

/// The image that a task asks for. What serves a task with its Docker engine must have one.
pub(crate) fn resolve(settings: &Settings, wanted: &Machine) -> Result<Image, Fault> {
    let image = settings.table.find(&settings.images, wanted.image.as_deref(), ARCH)?;
    if wanted.purpose == Purpose::RemoteDocker && image.manifest.docker.is_none() {
        return Err(Fault::Unsupported(format!(
            "image {} has no Docker engine, which setup_remote_docker needs",
            image.manifest.name
        )));
    }
    Ok(image)
}

/// Whether its files still are what was built: reads them, so not on a runtime's own thread.
pub(crate) async fn verify(image: &Image) -> Result<(), Fault> {
    let image = image.clone();
    let verified = tokio::task::spawn_blocking(move || image.verify()).await;
    let verified = verified.unwrap_or_else(|e| {
        Err(ImageError::Io { verb: "verify", path: "image".into(), source: std::io::Error::other(e) })
    });
    Ok(verified?)
}
