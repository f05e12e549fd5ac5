//! Which processor machines get here: found by looking, then by trying.
//!
//! ```text
//! flags of the processor, /dev/kvm ─▶ trial: the image's kernel, 5 s ─▶ works │ aborts │ hangs      kept per boot, QEMU and kernel
//! ```
//!
//! A KVM that is there need not work: a paravirtual one runs kernels of its own alone, and a kernel that it cannot run hangs in it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use navvy_environment::HostPaths;
use tokio::process::Command;

use super::line::{Board, Processor};
use super::trials;
use crate::error::Fault;
use crate::settings::Accelerator;

/// A kernel that boots panics for want of a root within a second or two.
const TRIAL_LIMIT: Duration = Duration::from_secs(5);
const KVM: &str = "/dev/kvm";

/// Where to look, and what to try.
pub struct Bench<'a> {
    pub program: &'a Path,
    pub version: &'a str,
    pub board: Board,
    pub kernel: &'a Path,
    /// The kernel's digest.
    pub digest: &'a str,
    pub host: &'a HostPaths,
}

/// How a trial came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel ran.
    Works,
    /// QEMU ended in another way than a guest's end.
    Aborts(String),
    /// The kernel never came to its end.
    Hangs,
}

impl Outcome {
    fn to_text(&self) -> String {
        match self {
            Self::Works => "works".to_owned(),
            Self::Hangs => "hangs".to_owned(),
            Self::Aborts(how) => format!("aborts {how}"),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        match text.trim_end() {
            "works" => Some(Self::Works),
            "hangs" => Some(Self::Hangs),
            other => other.strip_prefix("aborts ").map(|how| Self::Aborts(how.to_owned())),
        }
    }

    fn why_not(&self) -> Option<String> {
        match self {
            Self::Works => None,
            Self::Hangs => Some(format!("the image's kernel hangs under this host's KVM (tried for {TRIAL_LIMIT:?})")),
            Self::Aborts(how) => Some(format!("QEMU aborts with this host's KVM ({how})")),
        }
    }
}

/// The processor, and why it is not the host's own, if it is not.
pub async fn choose(wanted: Accelerator, bench: &Bench<'_>) -> Result<(Processor, Option<String>), Fault> {
    let why_not = match wanted {
        Accelerator::Tcg => Some("the settings say so".to_owned()),
        Accelerator::Auto | Accelerator::Kvm => match lack(&read("/proc/cpuinfo"), Path::new(KVM)) {
            Some(why) => Some(why),
            None => tried(bench).await?.why_not(),
        },
    };
    match (why_not, wanted) {
        (None, _) => Ok((Processor::Kvm, None)),
        (Some(why), Accelerator::Kvm) => {
            Err(Fault::NoHypervisor(format!("KVM was asked for, and does not work here: {why}")))
        }
        (why, _) => Ok((Processor::Tcg, why)),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Why a trial need not be made.
fn lack(cpuinfo: &str, kvm: &Path) -> Option<String> {
    if let Err(error) = fs::File::options().read(true).write(true).open(kvm) {
        return Some(match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no {}", kvm.display()),
            _ => format!("{} cannot be used: {error}", kvm.display()),
        });
    }
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let is_native = flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    // ARM's processors do not list what they can.
    let is_x86 = cpuinfo.contains("flags");
    (is_x86 && !is_native).then(|| "the processor has neither vmx nor svm: this KVM is a paravirtual one".to_owned())
}

/// What an earlier trial of this boot has shown, or what one shows now.
async fn tried(bench: &Bench<'_>) -> Result<Outcome, Fault> {
    let boot = read("/proc/sys/kernel/random/boot_id");
    let about = format!("{boot}\n{}\n{}\n{}", bench.program.display(), bench.version, bench.digest);
    if let Some(known) = trials::known(bench.host, &about).as_deref().and_then(Outcome::from_text) {
        return Ok(known);
    }
    let outcome = try_it(bench).await?;
    trials::keep(bench.host, &about, &outcome.to_text());
    Ok(outcome)
}

/// Runs the kernel without a root: it gives up at once, and QEMU ends with it.
async fn try_it(bench: &Bench<'_>) -> Result<Outcome, Fault> {
    let mut command = Command::new(bench.program);
    command.args([
        "-M",
        bench.board.machine(),
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256M",
        "-nodefaults",
        "-no-user-config",
    ]);
    command.args(["-display", "none", "-no-reboot", "-serial", "null", "-kernel"]).arg(bench.kernel);
    command.args(["-append", "console=ttyS0 panic=-1 reboot=t"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let failed = || Fault::host(format!("start {}", bench.program.display()));
    let child = command.spawn().map_err(failed())?;
    let Ok(output) = tokio::time::timeout(TRIAL_LIMIT, child.wait_with_output()).await else {
        return Ok(Outcome::Hangs);
    };
    let output = output.map_err(failed())?;
    if output.status.success() {
        return Ok(Outcome::Works);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
    Ok(Outcome::Aborts(format!("{}: {words}", output.status)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn host(state: &Path) -> HostPaths {
        HostPaths {
            state: state.to_owned(),
            runtime: None,
            docker_config: None,
            search_path: "/usr/bin:/bin".to_owned(),
            supervisor: None,
        }
    }

    #[test]
    fn flags_and_rights_are_looked_at_before_anything_is_tried() {
        let scratch = tempfile::tempdir().unwrap();
        let kvm = scratch.path().join("kvm");
        assert!(lack("flags : vmx", &kvm).unwrap().contains("there is no"));
        fs::write(&kvm, "").unwrap();
        assert_eq!(lack("processor : 0\nflags\t\t: fpu vmx sse\n", &kvm), None);
        assert_eq!(lack("flags : svm", &kvm), None);
        assert!(lack("flags : fpu vmx_other", &kvm).unwrap().contains("paravirtual"));
        assert_eq!(lack("Features : fp asimd", &kvm), None);
    }

    async fn outcome(script: &str) -> (Outcome, Outcome, usize) {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("qemu");
        let runs = scratch.path().join("runs");
        fs::write(&program, format!("#!/bin/sh\necho x >>{}\n{script}\n", runs.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let host = host(scratch.path());
        let bench =
            Bench { program: &program, version: "7.2", board: Board::Q35, kernel: &program, digest: "d", host: &host };
        let first = tried(&bench).await.unwrap();
        let again = tried(&bench).await.unwrap();
        (first, again, fs::read_to_string(&runs).unwrap().lines().count())
    }

    #[tokio::test]
    async fn an_abort_and_a_hang_are_told_apart_and_nothing_is_tried_twice() {
        let works = outcome("exit 0").await;
        assert_eq!(works, (Outcome::Works, Outcome::Works, 1));
        let (aborts, again, runs) = outcome("echo failed to set MSR 0x10a >&2; kill -ABRT $$").await;
        assert_eq!((&aborts, runs), (&again, 1));
        let why = aborts.why_not().unwrap();
        assert!(why.starts_with("QEMU aborts") && why.contains("SIGABRT") && why.contains("MSR 0x10a"), "{why}");
        let (hangs, again, runs) = outcome("exec sleep 1000").await;
        assert_eq!((&hangs, &again, runs), (&Outcome::Hangs, &Outcome::Hangs, 1));
        assert!(hangs.why_not().unwrap().contains("hangs"));
    }
}
