//! "Spin up environment": the lines of a task's first output.

use std::time::Duration;

use navvy_environment::run_dir::Kept;
use navvy_job::resource::Size;

use super::disk::EngineDisk;
use super::engine::EngineInfo;
use super::image::LocalImage;
use super::reference::Reference;
use super::walls::Walls;

const MIB: f64 = 1_048_576.0;

pub(super) fn agent() -> String {
    format!("Build-agent navvy {}", env!("CARGO_PKG_VERSION"))
}

pub(super) fn system(info: &EngineInfo) -> Vec<String> {
    let mut lines = vec![
        "System information:".to_owned(),
        format!(" Server Version: {} (API {})", info.version, info.api),
        format!(" Storage Driver: {}", info.storage_driver),
    ];
    lines.extend(info.backing_filesystem.iter().map(|found| format!("  Backing Filesystem: {found}")));
    lines.extend([
        format!(" Cgroup Driver: {}", info.cgroup_driver),
        format!(" Cgroup Version: {}", info.cgroup_version),
        format!(" Kernel Version: {}", info.kernel),
        format!(" Operating System: {}", info.operating_system),
        format!(" OSType: {}", info.os_type),
        format!(" Architecture: {}", info.architecture),
    ]);
    lines
}

/// Where an image came from. `now` is what its age is counted to.
pub(super) fn image(name: &str, image: &LocalImage, now: jiff::Timestamp) -> Vec<String> {
    let mut lines = vec![format!("Starting container {name}")];
    let stats = match image.pulled {
        None => {
            lines.push(format!("  image is here{}; no registry was asked", age(image, now)));
            "  pull stats: N/A (already available)".to_owned()
        }
        Some(stats) => {
            let seconds = stats.duration.as_secs_f64();
            let mib = stats.bytes as f64 / MIB;
            lines.push(format!("  image pulled{}", age(image, now)));
            format!(
                "  pull stats: {mib:.2} MiB in {} ({:.2} MiB/s)",
                duration(stats.duration),
                mib / seconds.max(0.001)
            )
        }
    };
    lines.push(format!("  using image {}", digest(name, image)));
    lines.push(stats);
    lines
}

fn digest(name: &str, image: &LocalImage) -> String {
    let repository = || Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.familiar_repository());
    image.repository_digest.clone().unwrap_or_else(|| format!("{}@{} (made here)", repository(), image.id))
}

fn age(image: &LocalImage, now: jiff::Timestamp) -> String {
    let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    // An image of a reproducible build says 1970; its age means nothing.
    let Some(created) = created.filter(|created| created.as_second() > 86_400) else { return String::new() };
    let seconds = (now.as_second() - created.as_second()).max(0);
    let age = match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!(", made {age} ago")
}

pub(super) fn limits(size: Size, pids: u32, together: Result<&str, &str>) -> String {
    let cpus = size.millicpus as f64 / 1000.0;
    let gib = size.memory as f64 / (MIB * 1024.0);
    let scope = match together {
        Ok(parent) => format!("for all containers together (cgroup {parent})"),
        Err(why) => format!("for each container, not for their sum ({why})"),
    };
    format!("Limits: {cpus} CPUs, {gib:.1} GiB, {pids} processes, {scope}")
}

/// What of a class its containers do not get.
pub(super) fn engines_share(memory: u64, services: usize) -> Option<String> {
    let share = memory as f64 / MIB;
    (memory > 0).then(|| format!("  {share:.0} MiB of the class go to the engine, for {services} service containers"))
}

pub(super) fn disk(disk: Result<&EngineDisk, &String>) -> String {
    match disk {
        Ok(disk) => disk.described(),
        Err(why) => format!("Disk: what jobs write is not bounded, and the engine's disk is not watched ({why})"),
    }
}

/// `None`: there is no shared directory.
pub(super) fn supervisor(kept: Option<&Kept>) -> String {
    match kept {
        None => "uploaded, reached through the engine".to_owned(),
        Some(Kept::Apart) => "shared socket, in a small file system of its own".to_owned(),
        Some(Kept::Plain { why }) => format!("shared socket, in a plain directory of this machine ({why})"),
    }
}

pub(super) fn network(walls: &Walls) -> String {
    format!("Network: other jobs unreachable, {}", walls.told())
}

pub(super) fn created(name: &str, took: Duration) -> String {
    format!("  time to create container {name}: {}", duration(took))
}

pub(super) fn duration(value: Duration) -> String {
    if value < Duration::from_secs(1) {
        format!("{} ms", value.as_millis())
    } else {
        format!("{:.2} s", value.as_secs_f64())
    }
}
