//! Small images for this crate's tests.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::manifest::{self, File, Init, Manifest, hex};
use crate::store::Images;

/// A store in a directory of its own.
pub fn store() -> (tempfile::TempDir, Images) {
    let directory = tempfile::tempdir().unwrap();
    let images = Images::at(directory.path().join("images"));
    (directory, images)
}

/// An image's files in this directory.
pub fn fill(directory: &Path, name: &str) -> Manifest {
    let file = |name: &str, text: &[u8]| {
        std::fs::write(directory.join(name), text).unwrap();
        File { name: name.into(), sha256: hex(&Sha256::digest(text)), size: text.len() as u64 }
    };
    let manifest = Manifest {
        version: Manifest::VERSION,
        name: name.into(),
        recipe: "r".into(),
        inputs: String::new(),
        architecture: "x86_64".into(),
        init: Init::Own,
        docker: None,
        user: "circleci".into(),
        supervisor: "0.1.0".into(),
        root: file(manifest::ROOT, b"root"),
        root_size: 4,
        kernel: file(manifest::KERNEL, b"kernel"),
        initrd: file(manifest::INITRD, b"initrd"),
        arguments: "net.ifnames=0".into(),
        packages: BTreeMap::new(),
    };
    write(directory, &manifest);
    manifest
}

/// Its manifest.
pub fn write(directory: &Path, manifest: &Manifest) {
    std::fs::write(directory.join(manifest::FILE), serde_json::to_vec(manifest).unwrap()).unwrap();
}

/// Puts a small image into the store.
pub fn put(images: &Images, name: &str) {
    let made = images.making().unwrap();
    fill(made.path(), name);
    images.alone(name).unwrap().put(made).unwrap();
}
