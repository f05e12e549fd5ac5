//! Thin safe wrappers over the system calls that `std` does not have.
//!
//! Nothing here decides anything: a wrapper checks the result, owns the descriptor it made and sets `O_CLOEXEC`.
//! What must run between fork and exec is in [`crate::exec::keeper`].
#![expect(unsafe_code, reason = "the calls that std does not offer; every block says why it is sound")]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The stack of our threads, in bytes: they make short calls and have little of their own. Only touched pages count.
pub const THREAD_STACK: usize = 256 << 10;

pub type Pid = libc::pid_t;

pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn own(fd: RawFd) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the kernel has just returned this descriptor, and no other code knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn c_string(bytes: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(bytes.as_ref().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"))
}

// ---- descriptors ----

pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: fcntl on an open descriptor with integer arguments.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Best effort: beyond the user's allowance the pipe keeps its size.
pub fn enlarge_pipe(fd: impl AsFd, bytes: usize) {
    // SAFETY: fcntl on an open descriptor with an integer argument.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) };
}

/// Best effort: the kernel clips what it does not allow.
pub fn enlarge_send_buffer(stream: &UnixStream, bytes: usize) {
    let value = bytes as libc::c_int;
    // SAFETY: the option's value is an int that outlives the call.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// Bytes that wait to be read.
pub fn available(fd: impl AsFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores an int.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { count.max(0) as usize }
}

/// Marks all descriptors that we were started with, so that no step inherits them.
pub fn close_inherited_on_exec() {
    // SAFETY: close_range with CLOEXEC closes nothing in this process.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done < 0 {
        for fd in 3..1024 {
            // SAFETY: setting a flag on a descriptor that may or may not be open harms nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// For a forked child that must not keep other conversations open. The other descriptors have their owners in the parent.
pub fn close_all_but(kept: &mut Vec<RawFd>) {
    kept.extend([0, 1, 2]);
    kept.sort_unstable();
    let ends = kept.iter().skip(1).map(|fd| fd - 1).chain([RawFd::MAX]);
    for (kept, last) in kept.iter().zip(ends) {
        let first = kept + 1;
        if first > last {
            continue;
        }
        // SAFETY: integers; the caller's process does not use these descriptors.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        for fd in first..=last.min(4096) {
            if done >= 0 {
                break;
            }
            // SAFETY: as above; kernels before 5.9.
            unsafe { libc::close(fd) };
        }
    }
}

/// Opens `/dev/null` over whichever of 0, 1, 2 is closed, so that no later descriptor gets such a number.
pub fn fill_standard_descriptors() {
    loop {
        // SAFETY: a constant path and flags.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        if fd < 0 {
            return;
        }
        if fd > 2 {
            // SAFETY: we have just opened it.
            unsafe { libc::close(fd) };
            return;
        }
    }
}

/// Reads without waiting for a writer, a terminal or a lease: for files that a job could have replaced.
pub fn open_regular(path: &CStr) -> io::Result<File> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
    // SAFETY: a NUL-terminated path.
    let file = File::from(own(unsafe { libc::open(path.as_ptr(), flags) })?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// Takes hold of what lies under a name, without opening it or following a link.
pub fn hold(path: &std::path::Path) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    // SAFETY: a NUL-terminated path.
    own(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) })
}

/// A counter that another thread can raise to wake a poll.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> io::Result<Self> {
        // SAFETY: integer arguments.
        own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(Self)
    }

    pub fn raise(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes from a live array.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes into a live array.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub use libc::pollfd as PollFd;

/// An entry that poll skips when `wanted` is false.
pub fn poll_entry(fd: Option<BorrowedFd<'_>>, events: libc::c_short, wanted: bool) -> PollFd {
    let fd = fd.filter(|_| wanted).map_or(-1, |fd| fd.as_raw_fd());
    PollFd { fd, events, revents: 0 }
}

/// Waits until something is ready. `None` waits for ever; an interruption counts as a time-out.
pub fn poll(entries: &mut [PollFd], limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let time = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: a live slice and its length, and a time or none.
    let result = unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, time, std::ptr::null()) };
    if result <= 0 {
        entries.iter_mut().for_each(|entry| entry.revents = 0);
    }
}

/// The other side's process, as our pid namespace sees it: 0 when it is outside.
pub fn peer_pid(stream: &UnixStream) -> io::Result<Pid> {
    peer(stream).map(|peer| peer.pid)
}

/// The other side's process and user.
pub fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: -1, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option stores a ucred of that length.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    })?;
    Ok(peer)
}

/// Connects to a unix socket; `WouldBlock` when its queue of callers has been full for this long.
pub fn connect_unix(path: &str, limit: Duration) -> io::Result<UnixStream> {
    // SAFETY: a sockaddr_un is plain bytes.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // The last byte stays NUL.
    if path.len() >= address.sun_path.len() || path.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is too long for a socket, or holds a NUL byte",
        ));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: integer arguments.
    let socket = own(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let stream = UnixStream::from(socket);
    // On a unix socket this bounds connecting, too.
    stream.set_write_timeout(Some(limit))?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: a live address and its length.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) })?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

// ---- attributes of files ----

/// An extended attribute of an open file; its length.
pub fn attribute(file: &impl AsFd, name: &CStr, bytes: &mut [u8]) -> io::Result<usize> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: a live descriptor, a name that ends in NUL, and a live slice with its length.
    let length = unsafe { libc::fgetxattr(fd, name.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

pub fn set_attribute(file: &impl AsFd, name: &CStr, bytes: &[u8]) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: a live descriptor, a name that ends in NUL, and a live slice with its length.
    check(unsafe { libc::fsetxattr(fd, name.as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0) }).map(drop)
}

pub fn remove_attribute(file: &impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: a live descriptor and a name that ends in NUL.
    check(unsafe { libc::fremovexattr(file.as_fd().as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Watches files of these directories whose attributes change, or that are put there under a name. At least one directory
/// must be there.
pub fn watch_attributes(directories: &[std::path::PathBuf]) -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags alone.
    let watch = own(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    let mut last = Err(io::ErrorKind::NotFound.into());
    for directory in directories {
        let path = c_string(directory)?;
        let events = libc::IN_ATTRIB | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        // SAFETY: a live descriptor and a path that ends in NUL.
        let added = check(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), events) }).map(drop);
        if last.is_err() {
            last = added;
        }
    }
    last.map(|()| watch)
}

/// Waits for changes; the names of the files.
pub fn changed_names(watch: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    const HEADER: usize = size_of::<libc::inotify_event>();
    let mut buffer = [0u8; 4096];
    // SAFETY: a live descriptor, and a live array with its length.
    let count = unsafe { libc::read(watch.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let mut rest = &buffer[..count];
    let mut names = Vec::new();
    // The header's last four bytes are the length of the name, which is padded with NULs.
    while let Some(length) = rest.get(HEADER - 4..HEADER).and_then(|four| <[u8; 4]>::try_from(four).ok()) {
        let end = HEADER.saturating_add(u32::from_ne_bytes(length) as usize);
        let Some(name) = rest.get(HEADER..end) else { break };
        names.push(name.iter().copied().take_while(|byte| *byte != 0).collect());
        rest = &rest[end..];
    }
    names.retain(|name: &Vec<u8>| !name.is_empty());
    Ok(names)
}

// ---- memory and time ----

/// Keeps the heap small: one arena for all threads, large blocks returned at once.
pub fn limit_heap() {
    // SAFETY: integers; called before any thread is started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
    }
}

/// Zeroed pages that cost nothing until they are touched and that no child inherits.
pub struct Pages {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone; access goes through & and &mut as for a Vec.
unsafe impl Send for Pages {}

impl Pages {
    pub fn new(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: our own mapping. Huge pages would make one byte of output cost 2 MiB.
        unsafe {
            libc::madvise(start, length, libc::MADV_DONTFORK);
            libc::madvise(start, length, libc::MADV_NOHUGEPAGE);
        }
        Ok(Self { start: start.cast(), length })
    }

    /// Gives the memory back; the bytes are zero afterwards.
    pub fn forget(&mut self) {
        // SAFETY: our own mapping, borrowed mutably, anonymous.
        unsafe { libc::madvise(self.start.cast(), self.length, libc::MADV_DONTNEED) };
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialised (zero) memory of that length until drop.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no borrow of it is left.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: stores a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

// ---- terminals ----

/// A pty pair: master (not blocking) and slave, neither of them controlling.
pub fn open_pty() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let open = |path: &CStr| {
        // SAFETY: a constant path and flags.
        own(unsafe { libc::open(path.as_ptr(), flags | libc::O_NONBLOCK) })
    };
    let master = open(c"/dev/ptmx").or_else(|_| open(c"/dev/pts/ptmx"))?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let slave = own(peer).or_else(|_| open_slave(&master, flags))?;
    Ok((master, slave))
}

/// Kernels before 4.13.
fn open_slave(master: &OwnedFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN stores an unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    let path = c_string(format!("/dev/pts/{number}"))?;
    // SAFETY: a NUL-terminated path.
    own(unsafe { libc::open(path.as_ptr(), flags) })
}

/// No echo, no signals, no line editing, no translation.
pub fn make_raw(terminal: impl AsFd) -> io::Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: a termios is plain integers; tcgetattr fills it, tcsetattr reads it.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(fd, &raw mut settings))?;
        libc::cfmakeraw(&raw mut settings);
        check(libc::tcsetattr(fd, libc::TCSANOW, &raw const settings)).map(drop)
    }
}

pub fn set_window_size(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

// ---- processes ----

pub fn pid() -> Pid {
    // SAFETY: cannot fail.
    unsafe { libc::getpid() }
}

pub fn uid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// The largest pid is a positive number, so 0 and below (groups, everybody) are refused.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: integers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends a signal to every member of a process group at once.
pub fn kill_group(group: Pid, signal: i32) -> io::Result<()> {
    // 1 would mean every process.
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: integers.
    check(unsafe { libc::kill(-group, signal) }).map(drop)
}

/// Orphans below us become our children even when we are not PID 1.
pub fn become_subreaper() {
    // SAFETY: integer arguments.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Closes our memory, environment and descriptors to everybody without `CAP_SYS_PTRACE`, uid 0 of the job included. What
/// we fork stays closed until it executes another program.
pub fn close_to_others() {
    // SAFETY: integer arguments.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

pub fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    pub pid: Pid,
    pub status: libc::c_int,
}

/// Takes one ended child, if there is one.
pub fn reap() -> Option<Reaped> {
    let mut status = 0;
    // SAFETY: stores an int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some(Reaped { pid, status })
}

/// Forks; the child runs `body` and ends with its result, without any destructor of the parent's.
///
/// glibc keeps the heap usable in a forked child, so `body` may allocate. It must not take a lock that another thread
/// could have held, and must not return into the parent's world: hence the closure.
pub fn fork_child(body: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: the child runs `body` on its own copy of the memory and leaves by _exit.
    let pid = check(unsafe { libc::fork() })?;
    if pid != 0 {
        return Ok(pid);
    }
    let code = body();
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(code.into()) }
}

fn syscall_result(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives up everything but these ids. For single-threaded children only: raw calls, which other threads do not follow.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    if self::uid() != 0 && self::uid() == uid {
        return Ok(());
    }
    // SAFETY: a live slice and its length; integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// As the user for a while: the real and saved ids stay, so that [`become_root_again`] works.
pub fn act_as_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    if self::uid() != 0 {
        return Ok(());
    }
    let keep = u32::MAX;
    // SAFETY: a live slice and its length; integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setresgid, keep, gid, keep) })?;
    // SAFETY: integers.
    syscall_result(unsafe { libc::syscall(libc::SYS_setresuid, keep, uid, keep) })
}

/// Undoes [`act_as_user`].
pub fn become_root_again() {
    let keep = u32::MAX;
    // SAFETY: integers; without the right to do so it fails and everything stays as it was.
    unsafe {
        libc::syscall(libc::SYS_setresuid, keep, 0, keep);
        libc::syscall(libc::SYS_setresgid, keep, 0, keep);
    }
}

/// `uname -m`.
pub fn architecture() -> String {
    // SAFETY: a utsname is plain bytes; uname fills it with NUL-terminated texts.
    unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut names);
        CStr::from_ptr(names.machine.as_ptr()).to_string_lossy().into_owned()
    }
}

// ---- signals ----

/// Signals that the main thread takes from a descriptor; blocked everywhere else, unblocked again in steps.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in this thread and all that it starts later.
    pub fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: a sigset is plain integers, made valid by sigemptyset; the calls read it only.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
            own(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)).map(Self)
        }
    }

    /// The next signal that has arrived.
    pub fn next(&self) -> Option<libc::c_int> {
        // SAFETY: plain integers, filled by read as far as it says.
        unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            let read = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
            (read == size as isize).then_some(info.ssi_signo as libc::c_int)
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

// ---- below a directory's descriptor ----

/// Operations relative to an open directory; none of them follows a link in the last component.
pub mod at {
    use super::*;

    pub fn open(directory: impl AsFd, name: &CStr, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
        let directory = directory.as_fd().as_raw_fd();
        // SAFETY: a NUL-terminated name and integers.
        own(unsafe { libc::openat(directory, name.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOCTTY, mode) })
    }

    pub fn make_directory(directory: impl AsFd, name: &CStr, mode: u32) -> io::Result<()> {
        // SAFETY: a NUL-terminated name.
        check(unsafe { libc::mkdirat(directory.as_fd().as_raw_fd(), name.as_ptr(), mode) }).map(drop)
    }

    pub fn change_owner(directory: impl AsFd, name: &CStr, uid: u32, gid: u32) -> io::Result<()> {
        let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
        // SAFETY: a NUL-terminated name.
        check(unsafe { libc::fchownat(directory.as_fd().as_raw_fd(), name.as_ptr(), uid, gid, flags) }).map(drop)
    }

    pub fn link_owner(directory: impl AsFd, name: &CStr) -> io::Result<u32> {
        // SAFETY: a stat is plain integers, filled by the call.
        unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            let directory = directory.as_fd().as_raw_fd();
            check(libc::fstatat(directory, name.as_ptr(), &raw mut status, libc::AT_SYMLINK_NOFOLLOW))?;
            Ok(status.st_uid)
        }
    }

    pub fn symlink(target: &CStr, directory: impl AsFd, name: &CStr) -> io::Result<()> {
        // SAFETY: NUL-terminated texts.
        check(unsafe { libc::symlinkat(target.as_ptr(), directory.as_fd().as_raw_fd(), name.as_ptr()) }).map(drop)
    }

    pub fn link(from: impl AsFd, from_name: &CStr, to: impl AsFd, to_name: &CStr) -> io::Result<()> {
        let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
        // SAFETY: NUL-terminated names; without AT_SYMLINK_FOLLOW a link itself is linked.
        check(unsafe { libc::linkat(from, from_name.as_ptr(), to, to_name.as_ptr(), 0) }).map(drop)
    }

    pub fn remove(directory: impl AsFd, name: &CStr) -> io::Result<()> {
        // SAFETY: a NUL-terminated name.
        check(unsafe { libc::unlinkat(directory.as_fd().as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    /// Sets the time of last change; the name may be empty for the descriptor itself.
    pub fn set_time(directory: impl AsFd, name: &CStr, seconds: i64) -> io::Result<()> {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = [time, time];
        let (fd, flags) = (directory.as_fd().as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: two timespecs and a NUL-terminated name or none.
        let result = unsafe {
            if name.is_empty() {
                libc::futimens(fd, times.as_ptr())
            } else {
                libc::utimensat(fd, name.as_ptr(), times.as_ptr(), flags)
            }
        };
        check(result).map(drop)
    }
}

pub fn change_owner(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: integers.
    check(unsafe { libc::fchown(fd.as_fd().as_raw_fd(), uid, gid) }).map(drop)
}
