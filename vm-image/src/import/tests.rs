use std::fs;
use std::process::Command;

use super::*;
use crate::samples;

fn wanted(file: &Path) -> Import {
    Import {
        file: file.to_owned(),
        name: Some("theirs".into()),
        like: None,
        kernel: None,
        initrd: None,
        init: None,
        root_device: None,
        user: None,
    }
}

fn told(images: &Images, wanted: &Import) -> String {
    let error = import(images, wanted, &Stop::default()).unwrap_err();
    assert!(matches!(error, ImageError::Import { .. }), "{error:?}");
    assert!(!images.has("theirs"));
    let left = fs::read_dir(images.directory()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".making-")), "{left:?}");
    error.to_string()
}

fn qemu_img(words: &[&OsStr]) {
    let said = Command::new("qemu-img").args(words).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

fn has_qemu_img() -> bool {
    tools::missing(&["qemu-img"]).is_empty()
}

/// A stranger's disk whose backing file is one of this host's: a guest would read it.
#[test]
fn a_disk_on_another_file_is_refused() {
    let (directory, images) = samples::store();
    if !has_qemu_img() {
        return;
    }
    let [secret, disk] = ["secret", "disk.qcow2"].map(|name| directory.path().join(name));
    fs::write(&secret, vec![b's'; 4096]).unwrap();
    let words = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"].map(OsStr::new);
    qemu_img(&words.into_iter().chain([secret.as_os_str(), disk.as_os_str()]).collect::<Vec<_>>());
    assert!(told(&images, &wanted(&disk)).contains("it has a backing file"));
    fs::remove_file(&disk).unwrap();
    let data = format!("data_file={},data_file_raw=on", secret.display());
    let words = ["create", "-q", "-f", "qcow2", "-o", &data].map(OsStr::new);
    qemu_img(&words.into_iter().chain([disk.as_os_str(), OsStr::new("4096")]).collect::<Vec<_>>());
    assert!(told(&images, &wanted(&disk)).contains("data in another file"));
}

#[test]
fn a_disk_gets_kernel_and_initial_files_of_an_image_that_is_here() {
    let (directory, images) = samples::store();
    if !has_qemu_img() {
        return;
    }
    let disk = directory.path().join("disk.raw");
    fs::write(&disk, vec![7; 1 << 16]).unwrap();
    assert!(told(&images, &wanted(&disk)).contains("`--like IMAGE`"));
    samples::put(&images, "ours");
    let like = Import { like: Some("ours".into()), root_device: Some("/dev/vda1".into()), ..wanted(&disk) };
    // The sample's kernel is none, and that is seen.
    assert!(told(&images, &like).contains("not an uncompressed one"));
    let kernel = directory.path().join("vmlinux");
    fs::write(&kernel, b"\x7fELF and so on").unwrap();
    let like = Import { kernel: Some(kernel), ..like };
    assert_eq!(import(&images, &like, &Stop::default()).unwrap(), "theirs");
    let image = images.get("theirs").unwrap();
    image.verify().unwrap();
    assert_eq!(image.manifest.arguments, "net.ifnames=0 navvy.root=/dev/vda1");
    assert_eq!(image.manifest.root_size, 1 << 16);
    drop(image);
    let again = import(&images, &like, &Stop::default()).unwrap_err().to_string();
    assert!(again.contains("there is an image theirs already"), "{again}");
    let bad_device = Import { root_device: Some("/dev/vda\ninit=/x".into()), name: Some("other".into()), ..like };
    assert!(import(&images, &bad_device, &Stop::default()).is_err());
    assert!(!images.has("other"));
}

#[test]
fn what_is_no_disk_is_refused() {
    let (directory, images) = samples::store();
    let file = directory.path().join("file");
    fs::write(&file, "hello").unwrap();
    assert!(told(&images, &wanted(&file)).contains("neither a qcow2 disk"));
    let unnamed = Import { name: None, ..wanted(&file) };
    assert!(import(&images, &unnamed, &Stop::default()).unwrap_err().to_string().contains("--name"));
    let nothing = Import { file: directory.path().join("nothing"), ..wanted(&file) };
    assert!(matches!(import(&images, &nothing, &Stop::default()), Err(ImageError::Io { .. })));
}

/// An archive of the image of that name, and what `change` makes of its directory first.
fn archive(directory: &Path, change: impl FnOnce(&Path)) -> PathBuf {
    let image = directory.join("image");
    fs::create_dir(&image).unwrap();
    let mut root = vec![0; 512];
    root[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    root[24..32].copy_from_slice(&4096_u64.to_be_bytes());
    root[103] = 104;
    let mut manifest = samples::fill(&image, "theirs");
    fs::write(image.join(manifest::ROOT), root).unwrap();
    manifest.root = describe(&image, manifest::ROOT).unwrap();
    manifest.root_size = 4096;
    samples::write(&image, &manifest);
    change(&image);
    let path = directory.join("image.tar");
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all("image", &image).unwrap();
    builder.finish().unwrap();
    path
}

#[test]
fn an_archive_of_an_image_is_that_image() {
    let (directory, images) = samples::store();
    let path = archive(directory.path(), |_| {});
    assert_eq!(import(&images, &Import { name: None, ..wanted(&path) }, &Stop::default()).unwrap(), "theirs");
    images.get("theirs").unwrap().verify_thoroughly().unwrap();
    assert_eq!(
        import(&images, &Import { name: Some("mine".into()), ..wanted(&path) }, &Stop::default()).unwrap(),
        "mine"
    );
}

#[test]
fn an_archive_with_anything_else_in_it_is_refused() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 6] = [
        ("is no file of an image", |image| fs::write(image.join("more"), "").unwrap()),
        ("is no file of an image", |image| {
            fs::remove_file(image.join(manifest::INITRD)).unwrap();
            std::os::unix::fs::symlink("/etc/shadow", image.join(manifest::INITRD)).unwrap();
        }),
        ("it has no manifest.json", |image| fs::remove_file(image.join(manifest::FILE)).unwrap()),
        ("the digest of", |image| fs::write(image.join(manifest::KERNEL), "lenrek").unwrap()),
        ("failed to open", |image| fs::remove_file(image.join(manifest::KERNEL)).unwrap()),
        ("has a backing file", |image| {
            let mut root = fs::read(image.join(manifest::ROOT)).unwrap();
            root[15] = 1;
            fs::write(image.join(manifest::ROOT), root).unwrap();
            let mut manifest: Manifest =
                serde_json::from_slice(&fs::read(image.join(manifest::FILE)).unwrap()).unwrap();
            manifest.root = describe(image, manifest::ROOT).unwrap();
            samples::write(image, &manifest);
        }),
    ];
    for (expected, change) in cases {
        let (directory, images) = samples::store();
        let path = archive(directory.path(), change);
        let said = told(&images, &wanted(&path));
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn an_archive_that_is_cut_off_is_refused() {
    let (directory, images) = samples::store();
    let path = archive(directory.path(), |_| {});
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    told(&images, &wanted(&path));
}
