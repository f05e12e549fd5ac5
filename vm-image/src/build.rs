//! An image made by the recipe.
//!
//! ```text
//! nothing, another recipe, or asked for ─▶ recipe ─▶ root, kernel, drivers ─┐
//! the same recipe ─▶ root and kernel as they are, drivers of the old initrd ┴▶ with the supervisor ─▶ manifest ─▶ put
//! ```
//!
//! Everything is made in a directory of the store that goes with its maker, and gets the image's name at the end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::error::{At as _, ImageError};
use crate::initrd::{self, Modules};
use crate::making::Making;
use crate::manifest::{self, File, Init, Manifest, hex};
use crate::store::{Alone, Image, Images};
pub use crate::tools::Stop;
use crate::{recipe, tools, verify};

/// Most seconds that a recipe takes; an emulated one of another architecture takes longest.
const LIMIT: u32 = 2 * 3600;
/// As whom steps run.
const USER: &str = "circleci";
/// What speeds the start of a kernel up whose machine is gone with its job. Processors differ.
const ARGUMENTS: &str = "net.ifnames=0 mitigations=off nokaslr audit=0 apparmor=0 selinux=0 cryptomgr.notests=1";
const ARGUMENTS_X86: &str = "noreplace-smp i8042.noaux";

/// What is in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The shell, git, ssh.
    Minimal,
    /// And the Docker engine.
    Docker,
    /// And systemd, compilers, the usual tools.
    Full,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 3] = [Self::Minimal, Self::Docker, Self::Full];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Docker => "docker",
            Self::Full => "full",
        }
    }

    /// What starts the supervisor in it.
    pub fn init(self) -> Init {
        if self == Self::Full { Init::Systemd } else { Init::Own }
    }

    /// How its image is called.
    pub fn image(self, architecture: &str) -> String {
        let arm = if architecture == "aarch64" { "-arm64" } else { "" };
        format!("debian-12-{}{arm}", self.word())
    }
}

/// What to build.
#[derive(Debug, Clone)]
pub struct Build {
    /// What is in it.
    pub variant: Variant,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// How the image is called.
    pub name: String,
    /// The supervisor's program, of that architecture and static.
    pub supervisor: PathBuf,
    /// Also where the same recipe has made it already: its packages may be newer.
    pub anew: bool,
}

/// What became of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    /// It was there: by this recipe, with this supervisor.
    AsItWas,
    /// It was there, and got another supervisor.
    Supervisor,
    /// All of it is new.
    Anew,
}

/// Builds an image.
///
/// # Errors
/// Somebody else builds it; something that it needs is not here; the recipe failed, or was stopped. What was there before is there still.
pub fn build(images: &Images, wanted: &Build, stop: &Stop, say: &dyn Fn(&str)) -> Result<Built, ImageError> {
    let supervisor = read_supervisor(wanted)?;
    let inputs = recipe::inputs(wanted.variant, &wanted.architecture);
    let before = images.has(&wanted.name).then(|| images.get(&wanted.name)).and_then(Result::ok);
    let same = before.filter(|image| !wanted.anew && image.manifest.inputs == inputs);
    if let Some(image) = same
        && let Some((is, modules)) = std::fs::read(image.initrd()).ok().and_then(|it| initrd::unpack(&it))
    {
        image.verify()?;
        return if is == supervisor {
            Ok(Built::AsItWas)
        } else {
            exchange(images, wanted, image, &supervisor, &modules)
        };
    }
    let alone = images.alone(&wanted.name)?;
    let made = by_recipe(images, wanted, &supervisor, stop, say)?;
    alone.put(made)?;
    drop(alone);
    remembered(images, &wanted.name)?;
    Ok(Built::Anew)
}

/// The same root and kernel with another supervisor.
fn exchange(
    images: &Images,
    wanted: &Build,
    image: Image,
    supervisor: &[u8],
    modules: &Modules,
) -> Result<Built, ImageError> {
    let (directory, mut manifest) = (image.directory.clone(), image.manifest.clone());
    // It is held no longer: to be replaced it must be free.
    drop(image);
    let alone: Alone<'_> = images.alone(&wanted.name)?;
    let made = images.making()?;
    for file in [&manifest.root, &manifest.kernel] {
        std::fs::hard_link(directory.join(&file.name), made.path().join(&file.name))
            .at("link", &directory.join(&file.name))?;
    }
    manifest.initrd = write(made.path(), manifest::INITRD, &initrd::pack(supervisor, modules))?;
    manifest.supervisor = version_of(wanted);
    manifest.recipe = recipe_digest(&manifest.inputs, &manifest.packages, supervisor);
    finish(made.path(), &manifest)?;
    alone.put(made)?;
    drop(alone);
    remembered(images, &wanted.name)?;
    Ok(Built::Supervisor)
}

/// Read once, now that it is in memory: who may only read the store could not note that it was.
pub(crate) fn remembered(images: &Images, name: &str) -> Result<(), ImageError> {
    images.get(name)?.verify()
}

fn by_recipe(
    images: &Images,
    wanted: &Build,
    supervisor: &[u8],
    stop: &Stop,
    say: &dyn Fn(&str),
) -> Result<Making, ImageError> {
    check_here()?;
    let failed = |why: String| ImageError::Build { name: wanted.name.clone(), why };
    let bench = images.making()?;
    let [steps, out, work] = ["recipe", "out", "work"].map(|name| bench.path().join(name));
    recipe::lay_down(&steps)?;
    for directory in [&out, &work] {
        std::fs::create_dir(directory).at("make", directory)?;
    }
    let words =
        [OsStr::new(wanted.variant.word()), OsStr::new(&wanted.architecture), out.as_os_str(), work.as_os_str()];
    tools::run(&steps.join("build"), &words, true, LIMIT, stop, say).map_err(failed)?;
    let made = images.making()?;
    for name in [manifest::ROOT, manifest::KERNEL] {
        std::fs::rename(out.join(name), made.path().join(name)).at("move", &out.join(name))?;
    }
    let packages = packages(&out.join("packages"))?;
    let inputs = recipe::inputs(wanted.variant, &wanted.architecture);
    let manifest = Manifest {
        version: Manifest::VERSION,
        name: wanted.name.clone(),
        recipe: recipe_digest(&inputs, &packages, supervisor),
        inputs,
        architecture: wanted.architecture.clone(),
        init: wanted.variant.init(),
        docker: packages.get("docker.io").map(|version| upstream(version)),
        user: USER.into(),
        supervisor: version_of(wanted),
        root: describe(made.path(), manifest::ROOT)?,
        root_size: disk_size(&made.path().join(manifest::ROOT))?,
        kernel: describe(made.path(), manifest::KERNEL)?,
        initrd: write(made.path(), manifest::INITRD, &initrd::pack(supervisor, &modules(&out.join("modules"))?))?,
        arguments: arguments(wanted),
        packages,
    };
    finish(made.path(), &manifest)?;
    Ok(made)
}

fn check_here() -> Result<(), ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ImageError::NotHere(
            "only root can install packages into a directory; run it with sudo, or bring an image with `navvy image import`".into(),
        ));
    }
    let programs = recipe::NEEDS.map(|(program, _)| program);
    let missing = tools::missing(&programs);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> =
        recipe::NEEDS.iter().filter(|(program, _)| missing.contains(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    let (missing, packages) = (missing.join(", "), packages.join(" "));
    Err(ImageError::NotHere(format!("{missing} is missing; on Debian: apt-get install {packages}")))
}

/// The supervisor, if a machine of that architecture can start it without anything else.
fn read_supervisor(wanted: &Build) -> Result<Vec<u8>, ImageError> {
    let bytes = std::fs::read(&wanted.supervisor).at("read", &wanted.supervisor)?;
    let machine: u16 = if wanted.architecture == "aarch64" { 183 } else { 62 };
    let is = bytes.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if !bytes.starts_with(b"\x7fELF") || is != Some(machine) {
        let (path, architecture) = (wanted.supervisor.display(), &wanted.architecture);
        return Err(ImageError::NotHere(format!(
            "{path} is no supervisor for {architecture}; `--supervisor FILE` names one"
        )));
    }
    Ok(bytes)
}

/// What the supervisor says, where this machine can start it; else the version of this program, with which it was given.
fn version_of(wanted: &Build) -> String {
    let said = Command::new(&wanted.supervisor).arg("--version").output().ok();
    let said = said.filter(|said| said.status.success()).and_then(|said| String::from_utf8(said.stdout).ok());
    let plain = said.map(|said| said.trim().to_owned()).filter(|said| !said.is_empty() && said.len() < 64);
    plain.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

fn arguments(wanted: &Build) -> String {
    let mut arguments = ARGUMENTS.to_owned();
    if wanted.architecture == "x86_64" {
        arguments = format!("{arguments} {ARGUMENTS_X86}");
    }
    if wanted.variant.init() == Init::Systemd {
        arguments.push_str(" navvy.init=/sbin/init");
    }
    arguments
}

/// `20.10.24` of `20.10.24+dfsg1-1`.
fn upstream(version: &str) -> String {
    version.split(['+', '-', '~']).next().unwrap_or(version).to_owned()
}

fn recipe_digest(inputs: &str, packages: &BTreeMap<String, String>, supervisor: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(inputs);
    for (name, version) in packages {
        hash.update(format!("{name}\t{version}\n"));
    }
    hash.update(Sha256::digest(supervisor));
    hex(&hash.finalize())
}

fn packages(file: &Path) -> Result<BTreeMap<String, String>, ImageError> {
    let text = std::fs::read_to_string(file).at("read", file)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, version)| (name.into(), version.into()))
        .collect())
}

fn modules(directory: &Path) -> Result<Modules, ImageError> {
    let mut modules = Modules::new();
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let entry = entry.at("read", directory)?;
        let bytes = std::fs::read(entry.path()).at("read", &entry.path())?;
        modules.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
    }
    Ok(modules)
}

/// The guest's bytes of a qcow2 disk, as its header says.
pub(crate) fn disk_size(disk: &Path) -> Result<u64, ImageError> {
    use std::os::unix::fs::FileExt as _;
    let mut size = [0; 8];
    std::fs::File::open(disk).and_then(|file| file.read_exact_at(&mut size, 24)).at("read", disk)?;
    Ok(u64::from_be_bytes(size))
}

/// A file that is there, as a manifest has it.
pub(crate) fn describe(directory: &Path, name: &str) -> Result<File, ImageError> {
    let path = directory.join(name);
    let file = std::fs::File::open(&path).at("open", &path)?;
    let size = file.metadata().at("look at", &path)?.len();
    Ok(File { name: name.to_owned(), sha256: verify::digest(file).at("read", &path)?, size })
}

pub(crate) fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<File, ImageError> {
    let path = directory.join(name);
    std::fs::write(&path, bytes).at("write", &path)?;
    describe(directory, name)
}

/// The manifest is written, and everybody may read the image.
pub(crate) fn finish(directory: &Path, manifest: &Manifest) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(manifest::FILE);
    let text = serde_json::to_vec_pretty(manifest).map_err(std::io::Error::from).at("write", &path)?;
    std::fs::write(&path, text).at("write", &path)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).at("open to others", directory)
}

#[cfg(test)]
mod tests;
