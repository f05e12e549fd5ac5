//! QEMU's command line (pure).
//!
//! ```text
//! -S: no instruction of the guest runs before the agent has looked at the process, which by then has laid down its rights
//!
//! port 1 console (hvc0) ── console.sock      port 2 navvy.seed ── seed.sock      port 3 navvy.mux ── mux.sock
//! all in the machine's directory, which is the process's working directory: no path is too long for a socket
//! ```

use std::path::{Path, PathBuf};

use navvy_protocol::guest::{MUX_PORT, SEED_PORT};
use navvy_vm_image::manifest::Init;
use serde_json::{Value, json};

use crate::settings::Disk;

/// Sockets of a machine, in its directory.
pub const QMP: &str = "qmp.sock";
pub const CONSOLE: &str = "console.sock";
pub const SEED: &str = "seed.sock";
pub const MUX: &str = "mux.sock";
/// What its kernel writes before it has a console.
pub const EARLY: &str = "early.sock";
/// Where a disk goes that is not there from its start: the name of a port of its board.
pub const LATER: &str = "later";
/// Its disk, in its directory.
pub const DISK: &str = "disk.qcow2";

/// What every kernel gets beside its board's own. `panic=-1` with `-no-reboot`: a guest that panics ends its QEMU. `no_timer_check`: on a busy host an emulated
/// timer may be late, and a kernel that checks it gives up ("IO-APIC + timer doesn't work").
const ARGUMENTS: &str = "console=hvc0 quiet panic=-1 reboot=t no_timer_check net.ifnames=0 random.trust_cpu=on";
/// What TCG's translations may take: a part of what the cgroup of the machine has beyond the guest's memory.
const TRANSLATIONS_MIB: u32 = 128;

/// Everything that the command line depends on.
#[derive(Debug, Clone)]
pub struct Line {
    pub program: PathBuf,
    pub machine: String,
    pub uuid: String,
    pub board: Board,
    pub accelerator: Processor,
    pub cpus: u32,
    pub memory_mib: u64,
    pub ram: Ram,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub init: Init,
    pub arguments: String,
    /// The image's root, and what stands between it and the machine's own disk: the snapshot's.
    pub backing: Vec<PathBuf>,
    pub disks: Vec<Extra>,
    pub net: Net,
    pub link_address: String,
    /// The uid (and gid) that the process takes on, if it is root's.
    pub run_as: Option<u32>,
    pub devices: Vec<String>,
}

/// A disk beside the root, which outlives its machine.
#[derive(Debug, Clone)]
pub struct Extra {
    pub path: PathBuf,
    pub backing: Option<PathBuf>,
    pub serial: String,
}

impl Extra {
    /// What it is as a disk.
    pub fn node(at: usize) -> String {
        format!("x{at}")
    }

    /// What is told to QEMU of its files, in this order.
    pub fn nodes(&self, at: usize) -> Vec<Value> {
        let (under, base, base_file) = (format!("xf{at}"), format!("xb{at}"), format!("xbf{at}"));
        let mut nodes = Vec::new();
        if let Some(backing) = &self.backing {
            nodes.push(file(&base_file, backing, Use::Read));
            nodes.push(qcow2(&base, &base_file, None, Use::Read));
        }
        let stands_on = self.backing.as_ref().map(|_| base);
        nodes.push(file(&under, &self.path, Use::Keep));
        nodes.push(qcow2(&Self::node(at), &under, stands_on, Use::Keep));
        nodes
    }
}

impl From<&Disk> for Extra {
    fn from(disk: &Disk) -> Self {
        Self { path: disk.path.clone(), backing: disk.backing.clone(), serial: disk.serial.clone() }
    }
}

/// What the guest's processor is put on: one for each architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    Q35,
    Virt,
}

impl Board {
    /// For an image of this architecture.
    pub fn of(architecture: &str) -> Self {
        match architecture {
            "aarch64" => Self::Virt,
            _ => Self::Q35,
        }
    }

    /// As `-M` takes it.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            // As new an interrupt controller as the accelerator has.
            Self::Virt => "virt,gic-version=max",
        }
    }

    /// Where the kernel writes before it has a console.
    fn early(self) -> &'static str {
        match self {
            Self::Q35 => "earlyprintk=ttyS0",
            Self::Virt => "earlycon=pl011,0x9000000",
        }
    }
}

/// Which processor the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    Kvm,
    Tcg,
}

impl Processor {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The model of it: part of a snapshot's key.
    pub fn model(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max",
        }
    }
}

/// Where the guest's memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ram {
    /// Its process's own.
    Own,
    /// A file that is to become a snapshot.
    Template(PathBuf),
    /// A snapshot's file, mapped for this process alone: what it writes stays its own.
    Clone(PathBuf),
}

/// The guest's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// A port of the machines' bridge, by the name of its interface.
    Tap(String),
    /// A network without anything in it.
    Restricted,
}

impl Line {
    /// The arguments behind the program.
    pub fn arguments(&self) -> Vec<String> {
        let mut line = vec![
            "-name".to_owned(),
            format!("guest={}", self.machine),
            "-uuid".to_owned(),
            self.uuid.clone(),
            "-S".to_owned(),
        ];
        let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", self.sandbox()]);
        if let Some(uid) = self.run_as {
            add(&["-runas", &format!("{uid}:{uid}")]);
        }
        let ram = if self.ram == Ram::Own { "" } else { ",memory-backend=ram0" };
        let machine = format!("{}{ram}", self.board.machine());
        add(&["-M", &machine, "-accel", &self.accelerator(), "-cpu", &self.processor()]);
        add(&["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        self.add_ram(&mut add);
        self.add_kernel(&mut add);
        self.add_disks(&mut add);
        self.add_ports(&mut add);
        self.add_net(&mut add);
        for device in &self.devices {
            add(&["-device", &format!("vfio-pci,host={}", escaped(device))]);
        }
        line
    }

    /// Who lays down root's rights itself must be allowed to; without root there are none, and none can be had.
    fn sandbox(&self) -> &'static str {
        match self.run_as {
            Some(_) => "on,obsolete=deny,spawn=deny,resourcecontrol=deny",
            None => "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        }
    }

    fn accelerator(&self) -> String {
        match self.accelerator {
            Processor::Kvm => "kvm".to_owned(),
            Processor::Tcg => format!("tcg,thread=multi,tb-size={TRANSLATIONS_MIB}"),
        }
    }

    /// Emulated signatures of pointers cost more than all else that an emulated ARM does.
    fn processor(&self) -> String {
        let model = self.accelerator.model();
        let is_slow = self.board == Board::Virt && self.accelerator == Processor::Tcg;
        format!("{model}{}", if is_slow { ",pauth-impdef=on" } else { "" })
    }

    fn add_ram(&self, add: &mut impl FnMut(&[&str])) {
        let (path, is_shared) = match &self.ram {
            Ram::Own => return,
            Ram::Template(path) => (path, "on"),
            Ram::Clone(path) => (path, "off"),
        };
        let object = format!(
            "memory-backend-file,id=ram0,size={}M,mem-path={},share={is_shared}",
            self.memory_mib,
            path_text(path)
        );
        add(&["-object", &object]);
        if is_shared == "off" {
            add(&["-incoming", "defer"]);
        }
    }

    fn add_kernel(&self, add: &mut impl FnMut(&[&str])) {
        let init = match self.init {
            Init::Own => "own",
            Init::Systemd => "/sbin/init",
        };
        let early = self.board.early();
        let append = format!("{early} {ARGUMENTS} navvy.root=/dev/vda navvy.init={init} {}", self.arguments);
        add(&["-kernel", &self.kernel.display().to_string(), "-initrd", &self.initrd.display().to_string()]);
        add(&["-append", append.trim_end()]);
    }

    /// The chain is spelled out, so that no file says what stands below it.
    fn add_disks(&self, add: &mut impl FnMut(&[&str])) {
        let below = |at: usize| format!("b{at}");
        for (at, path) in self.backing.iter().enumerate() {
            add(&["-blockdev", &file(&format!("bf{at}"), path, Use::Read).to_string()]);
            let under = at.checked_sub(1).map(below);
            add(&["-blockdev", &qcow2(&below(at), &format!("bf{at}"), under, Use::Read).to_string()]);
        }
        let top = self.backing.len().checked_sub(1).map(below);
        let own = [file("f", Path::new(DISK), Use::Own), qcow2("d", "f", top, Use::Own)];
        for node in own {
            add(&["-blockdev", &node.to_string()]);
        }
        add(&["-device", "virtio-blk-pci,drive=d,write-cache=on"]);
        self.add_extras(add);
    }

    fn add_extras(&self, add: &mut impl FnMut(&[&str])) {
        for (at, extra) in self.disks.iter().enumerate() {
            for node in extra.nodes(at) {
                add(&["-blockdev", &node.to_string()]);
            }
            add(&["-device", &format!("virtio-blk-pci,drive={},serial={}", Extra::node(at), escaped(&extra.serial))]);
        }
        if self.board == Board::Q35 {
            add(&["-device", &format!("pcie-root-port,id={LATER},chassis=1")]);
        }
    }

    fn add_ports(&self, add: &mut impl FnMut(&[&str])) {
        let socket = |id: &str, path: &str| format!("socket,id={id},path={path},server=on,wait=off");
        add(&["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=4"]);
        add(&["-chardev", &socket("early", EARLY), "-serial", "chardev:early"]);
        add(&["-chardev", &socket("console", CONSOLE), "-device", "virtconsole,chardev=console,nr=1"]);
        add(&["-chardev", &socket("seed", SEED)]);
        add(&["-device", &format!("virtserialport,chardev=seed,name={SEED_PORT},nr=2")]);
        add(&["-chardev", &socket("mux", MUX)]);
        add(&["-device", &format!("virtserialport,chardev=mux,name={MUX_PORT},nr=3")]);
        add(&["-qmp", &format!("unix:{QMP},server=on,wait=off")]);
    }

    fn add_net(&self, add: &mut impl FnMut(&[&str])) {
        let net = match &self.net {
            Net::Tap(name) => format!("tap,id=n0,ifname={},script=no,downscript=no", escaped(name)),
            Net::Restricted => "user,id=n0,restrict=on,ipv6=off".to_owned(),
        };
        add(&["-netdev", &net]);
        add(&["-device", &format!("virtio-net-pci,netdev=n0,romfile=,mac={}", self.link_address)]);
    }
}

/// What a machine does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    /// It goes with the machine: what the guest has flushed need not survive.
    Own,
    /// It outlives the machine: what the guest has flushed is on the disk.
    Keep,
}

fn file(node: &str, path: &Path, how: Use) -> Value {
    // Locks stay on: whoever asks whether an image is in use asks for them.
    let mut file = json!({
        "driver": "file", "node-name": node, "filename": path, "read-only": how == Use::Read,
        "cache": {"no-flush": how != Use::Keep},
    });
    if how != Use::Read {
        file["discard"] = "unmap".into();
    }
    file
}

fn qcow2(node: &str, under: &str, backing: Option<String>, how: Use) -> Value {
    let mut disk = json!({
        "driver": "qcow2", "node-name": node, "file": under, "backing": backing, "read-only": how == Use::Read,
        "cache": {"no-flush": how != Use::Keep},
    });
    if how != Use::Read {
        disk["discard"] = "unmap".into();
    }
    disk
}

fn path_text(path: &Path) -> String {
    escaped(&path.display().to_string())
}

/// A comma would begin another option.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            program: "/usr/bin/qemu-system-x86_64".into(),
            machine: "navvy-0123456789abcdef".to_owned(),
            uuid: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            board: Board::Q35,
            accelerator: Processor::Tcg,
            cpus: 2,
            memory_mib: 512,
            ram: Ram::Own,
            kernel: "/i/vmlinux".into(),
            initrd: "/i/initrd.cpio".into(),
            init: Init::Own,
            arguments: "quiet".to_owned(),
            backing: vec!["/i/root.qcow2".into()],
            disks: Vec::new(),
            net: Net::Tap("nvy0007".to_owned()),
            link_address: "52:54:00:00:00:07".to_owned(),
            run_as: Some(1_900_000_007),
            devices: Vec::new(),
        }
    }

    fn shown(line: &Line) -> String {
        let words = line.arguments();
        words.iter().map(|word| if word.starts_with('-') { format!("\n{word}") } else { format!(" {word}") }).collect()
    }

    #[test]
    fn a_machine_that_boots() {
        insta::assert_snapshot!(shown(&line()));
    }

    #[test]
    fn a_clone_of_a_snapshot_without_root() {
        let clone = Line {
            ram: Ram::Clone("/s/ram".into()),
            backing: vec!["/i/root.qcow2".into(), "/s/disk.qcow2".into()],
            net: Net::Restricted,
            run_as: None,
            disks: vec![Extra {
                path: "/layers/a,b.qcow2".into(),
                backing: Some("/layers/before.qcow2".into()),
                serial: "layers".to_owned(),
            }],
            accelerator: Processor::Kvm,
            init: Init::Systemd,
            ..line()
        };
        insta::assert_snapshot!(shown(&clone));
    }

    #[test]
    fn a_machine_of_arm() {
        let arm = Line { board: Board::Virt, program: "/usr/bin/qemu-system-aarch64".into(), ..line() };
        insta::assert_snapshot!(shown(&arm));
    }
}
