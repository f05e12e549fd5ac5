//! What only the first process of a machine asks of the kernel. As in [`crate::sys`], a wrapper decides nothing.
#![expect(unsafe_code, reason = "the calls that std does not offer; every block says why it is sound")]

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::sys::{c_string, check};

/// Random bytes that the kernel takes at once.
pub const ENTROPY_CAP: usize = 1024;

const RND_ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const RND_RESEED_CRNG: libc::c_ulong = 0x5207;
const BLK_GET_SIZE_64: libc::c_ulong = 0x8008_1272;
const EXT4_RESIZE: libc::c_ulong = 0x4008_6610;

/// Before anything of the standard library runs, which ends a process whose standard descriptors are closed where there is
/// no `/dev/null`: in an initial file system there is nothing, and a console that is a module cannot be open yet.
extern "C" fn make_devices() {
    // SAFETY: integers, and texts that end in NUL; no other thread exists yet.
    unsafe {
        if libc::getpid() == 1
            && libc::fcntl(2, libc::F_GETFD) < 0
            && libc::access(c"/dev/null".as_ptr(), libc::F_OK) < 0
        {
            libc::mkdir(c"/dev".as_ptr(), 0o755);
            let (kind, path) = (c"devtmpfs".as_ptr(), c"/dev".as_ptr());
            libc::mount(kind, path, kind, libc::MS_NOSUID | libc::MS_NOEXEC, std::ptr::null());
        }
    }
}

#[used]
// SAFETY: the C library calls what stands in this section, in every program, before main.
#[unsafe(link_section = ".init_array")]
static MAKE_DEVICES: extern "C" fn() = make_devices;

// ---- identity ----

pub fn set_clock(since_1970: Duration) -> io::Result<()> {
    let time =
        libc::timespec { tv_sec: since_1970.as_secs() as libc::time_t, tv_nsec: since_1970.subsec_nanos().into() };
    // SAFETY: a live timespec.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// Adds these bytes to the kernel's random numbers, counts them as random, and has all that comes later made of them, too.
pub fn add_entropy(device: &impl AsFd, bytes: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        bytes: libc::c_int,
        buffer: [u8; ENTROPY_CAP],
    }
    let bytes = &bytes[..bytes.len().min(ENTROPY_CAP)];
    let mut pool =
        Pool { bits: bytes.len() as libc::c_int * 8, bytes: bytes.len() as libc::c_int, buffer: [0; ENTROPY_CAP] };
    pool.buffer[..bytes.len()].copy_from_slice(bytes);
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the call reads two ints and as many bytes behind them as the second says: they are in the buffer.
    check(unsafe { libc::ioctl(device, RND_ADD_ENTROPY, &raw const pool) })?;
    // SAFETY: no argument.
    check(unsafe { libc::ioctl(device, RND_RESEED_CRNG) }).map(drop)
}

pub fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: a live text and its length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

// ---- ends ----

/// Writes back what is not on the disks yet, and switches the machine off. Returns only where that is not allowed.
pub fn power_off() -> io::Error {
    // SAFETY: no arguments.
    unsafe { libc::sync() };
    // SAFETY: an integer.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    io::Error::last_os_error()
}

// ---- disks and mounts ----

pub fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target, kind, data) = (c_string(source)?, c_string(target)?, c_string(kind)?, c_string(data)?);
    // SAFETY: texts that end in NUL.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
        .map(drop)
}

pub fn move_mount(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: texts that end in NUL; a move reads neither kind nor data.
    check(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null()) })
        .map(drop)
}

/// Bytes of a block device.
pub fn device_size(device: &impl AsFd) -> io::Result<u64> {
    let mut size = 0_u64;
    // SAFETY: stores eight bytes.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLK_GET_SIZE_64, &raw mut size) })?;
    Ok(size)
}

/// Bytes of a block, and number of blocks, of a mounted file system.
pub fn blocks(directory: &impl AsFd) -> io::Result<(u64, u64)> {
    // SAFETY: a statvfs is plain integers, filled by the call.
    unsafe {
        let mut status: libc::statvfs = std::mem::zeroed();
        check(libc::fstatvfs(directory.as_fd().as_raw_fd(), &raw mut status))?;
        Ok((status.f_frsize, status.f_blocks))
    }
}

/// Makes a mounted ext4 file system so many blocks large.
pub fn resize_ext4(directory: &impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: the call reads eight bytes.
    check(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), EXT4_RESIZE, &raw const blocks) }).map(drop)
}

pub fn change_root(directory: &CStr) -> io::Result<()> {
    // SAFETY: a text that ends in NUL.
    check(unsafe { libc::chroot(directory.as_ptr()) }).map(drop)
}

// ---- modules, devices and limits ----

pub fn load_module(file: &impl AsFd) -> io::Result<()> {
    // SAFETY: a live descriptor, no parameters, no flags.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_fd().as_raw_fd(), c"".as_ptr(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes this descriptor 0, 1 and 2.
pub fn become_standard(fd: &impl AsFd) -> io::Result<()> {
    for standard in 0..=2 {
        // SAFETY: integers; the numbers belong to standard input and output.
        check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), standard) })?;
    }
    Ok(())
}

/// How many descriptors a process may have: at first, and when it asks for more.
pub fn limit_descriptors(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a live rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Keeps what this process has in memory now where it is, however short memory is.
pub fn stay_in_memory() -> io::Result<()> {
    // SAFETY: an integer.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT) }).map(drop)
}

/// A file in memory that has no name.
pub fn memory_file(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a text that ends in NUL, and a flag.
    let fd = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just returned this descriptor, and no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// ---- links ----

/// A network link, by its name.
pub struct Link {
    socket: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
}

/// `struct ifreq` on a 64-bit machine: a name and a union, whose largest member is 24 bytes.
#[repr(C)]
struct Asked {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

/// `struct rtentry`.
#[repr(C)]
struct Route {
    pad1: libc::c_ulong,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: libc::c_ushort,
    pad2: libc::c_short,
    pad3: libc::c_ulong,
    class: [u8; 2],
    pad4: [libc::c_short; 3],
    metric: libc::c_short,
    device: *const libc::c_char,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    rtt: libc::c_ushort,
}

impl Link {
    pub fn new(name: &str) -> io::Result<Self> {
        let mut bytes = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no link's name")));
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: integers.
        let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel has just returned this descriptor, and no other code knows it.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(socket) }, name: bytes })
    }

    pub fn set_up(&self, up: bool) -> io::Result<()> {
        let asked = self.ask(libc::SIOCGIFFLAGS, [0; 24])?;
        let flags = i16::from_ne_bytes([asked[0], asked[1]]) as libc::c_int;
        let flags = if up { flags | libc::IFF_UP } else { flags & !libc::IFF_UP } as i16;
        self.ask(libc::SIOCSIFFLAGS, value(&flags.to_ne_bytes())).map(drop)
    }

    pub fn set_link_address(&self, address: [u8; 6]) -> io::Result<()> {
        let kind = libc::ARPHRD_ETHER.to_ne_bytes();
        self.ask(libc::SIOCSIFHWADDR, value(&[&kind[..], &address].concat())).map(drop)
    }

    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.ask(libc::SIOCSIFADDR, value(&socket_address(address)))?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        self.ask(libc::SIOCSIFNETMASK, value(&socket_address(mask.into()))).map(drop)
    }

    /// What is not on a link of ours goes through this gateway.
    pub fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let route = Route {
            pad1: 0,
            destination: socket_address(Ipv4Addr::UNSPECIFIED),
            gateway: socket_address(gateway),
            mask: socket_address(Ipv4Addr::UNSPECIFIED),
            flags: libc::RTF_UP | libc::RTF_GATEWAY,
            pad2: 0,
            pad3: 0,
            class: [0; 2],
            pad4: [0; 3],
            metric: 0,
            device: self.name.as_ptr().cast(),
            mtu: 0,
            window: 0,
            rtt: 0,
        };
        // SAFETY: a live rtentry whose device is a text that ends in NUL and outlives the call.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) }).map(drop)
    }

    fn ask(&self, request: libc::c_ulong, value: [u8; 24]) -> io::Result<[u8; 24]> {
        let mut asked = Asked { name: self.name, value };
        // SAFETY: a live ifreq; none of our requests reads or writes more.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw mut asked) })?;
        Ok(asked.value)
    }
}

fn value(bytes: &[u8]) -> [u8; 24] {
    let mut value = [0; 24];
    value[..bytes.len()].copy_from_slice(bytes);
    value
}

/// `struct sockaddr_in`.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}
