//! The supervisor inside a container's own file system, for an engine that cannot mount our files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use bollard::body_full;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use navvy_environment::authorities::{self, Bundle};
use navvy_environment::egress::CA_DIR;
use navvy_environment::supervisor_binary::NAME;
use navvy_protocol::place::{BIN_DIR, CLI_NAMES, RUN_DIR, SECRET_FILE};
use tar::{Builder, EntryType, Header};

use super::engine::Engine;

pub(super) enum UploadError {
    Io(io::Error),
    Engine(bollard::errors::Error),
}

impl Engine {
    /// Puts binary, names and secret into a container that was created. Returns the secret.
    pub(super) async fn upload_supervisor(&self, container: &str, bin: &Path) -> Result<String, UploadError> {
        let secret = new_secret().map_err(UploadError::Io)?;
        self.upload(container, archive(bin, &secret).map_err(UploadError::Io)?).await?;
        Ok(secret)
    }

    /// Puts the bundle of authorities into a container that was created.
    pub(super) async fn upload_authorities(&self, container: &str, bundle: &Bundle) -> Result<(), UploadError> {
        let archive = bundle.bytes().and_then(|bytes| authorities(&bytes)).map_err(UploadError::Io)?;
        self.upload(container, archive).await
    }

    async fn upload(&self, container: &str, archive: Vec<u8>) -> Result<(), UploadError> {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let upload = self.docker().upload_to_container(container, Some(options), body_full(archive.into()));
        upload.await.map_err(UploadError::Engine)
    }
}

fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn archive(bin: &Path, secret: &str) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    directory(&mut tar, parent(BIN_DIR), 0o755)?;
    directory(&mut tar, BIN_DIR, 0o755)?;
    // Steps of any user pass through it to the in-job socket.
    directory(&mut tar, RUN_DIR, 0o711)?;
    file(&mut tar, &format!("{BIN_DIR}/{NAME}"), 0o755, &fs::read(bin.join(NAME))?)?;
    for name in CLI_NAMES {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, relative(&format!("{BIN_DIR}/{name}")), NAME)?;
    }
    file(&mut tar, &format!("{RUN_DIR}/{SECRET_FILE}"), 0o600, secret.as_bytes())?;
    tar.into_inner()
}

/// A file system that holds one program and nothing else.
pub(super) fn one_program(path: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, path, 0o755, bytes)?;
    tar.into_inner()
}

fn authorities(bundle: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    directory(&mut tar, parent(CA_DIR), 0o755)?;
    directory(&mut tar, CA_DIR, 0o755)?;
    file(&mut tar, &format!("{CA_DIR}/{}", authorities::FILE), 0o444, bundle)?;
    tar.into_inner()
}

fn directory(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Directory, mode, 0), relative(path), io::empty())
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, mode, bytes.len() as u64), relative(path), bytes)
}

/// Root's, from the beginning of time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_holds_binary_names_and_secret() {
        let bin = tempfile::tempdir().unwrap();
        fs::write(bin.path().join(NAME), "program").unwrap();
        let bytes = archive(bin.path(), "s3").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let shown: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                format!("{} {:o}", entry.path().unwrap().display(), entry.header().mode().unwrap())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "opt/navvy 755",
                "opt/navvy/bin 755",
                "opt/navvy/run 711",
                "opt/navvy/bin/navvy-supervisor 755",
                "opt/navvy/bin/circleci 777",
                "opt/navvy/bin/circleci-agent 777",
                "opt/navvy/run/secret 600",
            ]
        );
    }
}
