//! The supervisor inside a container's own file system, for an engine that cannot mount our files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bollard::body_try_stream;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use futures_util::stream;
use navvy_environment::authorities::{self, Bundle};
use navvy_environment::egress::CA_DIR;
use navvy_environment::supervisor_binary::NAME;
use navvy_protocol::place::{BIN_DIR, CLI_NAMES, RUN_DIR, SECRET_FILE};
use tar::{Builder, EntryType, Header};

use super::engine::Engine;

/// Bytes of the program that are in memory at once: many containers may be given it at the same time.
const PIECE: u64 = 64 << 10;
/// A tar's unit.
const BLOCK: u64 = 512;

pub(super) enum UploadError {
    Io(io::Error),
    Engine(bollard::errors::Error),
}

impl Engine {
    /// Puts binary, names and secret into a container that was created. Returns the secret.
    pub(super) async fn upload_supervisor(&self, container: &str, bin: &Path) -> Result<String, UploadError> {
        let secret = new_secret().map_err(UploadError::Io)?;
        let pieces = archive(bin, &secret).map_err(UploadError::Io)?;
        self.upload(container, pieces).await?;
        Ok(secret)
    }

    /// Puts the bundle of authorities into a container that was created.
    pub(super) async fn upload_authorities(&self, container: &str, bundle: &Bundle) -> Result<(), UploadError> {
        let archive = bundle.bytes().and_then(|bytes| authorities(&bytes)).map_err(UploadError::Io)?;
        self.upload(container, std::iter::once(Ok(archive.into()))).await
    }

    async fn upload(
        &self,
        container: &str,
        pieces: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), UploadError> {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let body = body_try_stream(stream::iter(pieces));
        self.docker().upload_to_container(container, Some(options), body).await.map_err(UploadError::Engine)
    }
}

fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The archive, piece by piece: what stands before the program, the program, and what stands behind it.
fn archive(bin: &Path, secret: &str) -> io::Result<impl Iterator<Item = io::Result<Bytes>> + Send + use<>> {
    let mut program = File::open(bin.join(NAME))?;
    let size = program.metadata()?.len();
    let mut left = size;
    let pieces = std::iter::from_fn(move || {
        (left > 0).then(|| {
            let mut piece = vec![0; left.min(PIECE) as usize];
            left -= piece.len() as u64;
            // Its header has promised this length.
            program.read_exact(&mut piece).map(|()| Bytes::from(piece))
        })
    });
    let (before, behind) = (Bytes::from(before(size)?), Bytes::from(behind(size, secret)?));
    Ok(std::iter::once(Ok(before)).chain(pieces).chain(std::iter::once(Ok(behind))))
}

/// Directories, and the header of the program.
fn before(size: u64) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    directory(&mut tar, parent(BIN_DIR), 0o755)?;
    directory(&mut tar, BIN_DIR, 0o755)?;
    // Steps of any user pass through it to the in-job socket.
    directory(&mut tar, RUN_DIR, 0o711)?;
    let mut program = header(EntryType::Regular, 0o755, size);
    program.set_path(relative(&format!("{BIN_DIR}/{NAME}")))?;
    program.set_cksum();
    let mut bytes = std::mem::take(tar.get_mut());
    bytes.extend_from_slice(program.as_bytes());
    Ok(bytes)
}

/// What fills the program's last block, its other names, and the secret.
fn behind(size: u64, secret: &str) -> io::Result<Vec<u8>> {
    let filling = size.next_multiple_of(BLOCK) - size;
    let mut tar = Builder::new(vec![0; filling as usize]);
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
    use std::fs;

    use super::*;

    #[test]
    fn the_archive_holds_binary_names_and_secret() {
        let bin = tempfile::tempdir().unwrap();
        // More than one piece, and no whole number of blocks.
        let program = vec![b'p'; PIECE as usize + 700];
        fs::write(bin.path().join(NAME), &program).unwrap();
        let pieces: Vec<Bytes> = super::archive(bin.path(), "s3").unwrap().collect::<Result<_, _>>().unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE as usize));
        let bytes = pieces.concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let shown: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                if entry.path().unwrap().ends_with(NAME) {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).unwrap();
                    assert_eq!(content, program);
                }
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
