//! The process between the supervisor and a step, and what happens in the step before its program starts.
//!
//! ```text
//! supervisor ──fork──▶ keeper ──clone(VM|VFORK)──▶ step: ids, directory, signals, execve
//!      ▲                 │  subreaper, leads the session, holds nothing but its note pipe
//!      └───── notes ─────┘  Started | Fault, Exited, Alone: nothing of the step is left
//! ```
//!
//! The keeper leads the step's session, not the step: a session's leader that opens a terminal would get it as its
//! controlling one, and `/dev/tty` would work. After the fork only async-signal-safe calls are made; everything that
//! needs the heap is prepared in [`Launch`].
#![expect(unsafe_code, reason = "between fork and exec there is no safe Rust to call")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys::{self, Pid};

/// Room for the step's few frames before execve replaces them.
const STACK: usize = 32 << 10;
const NOTE_LENGTH: usize = 48;

/// All that a step is started with, ready for execve.
pub struct Launch {
    pub argv: Strings,
    pub env: Strings,
    /// Tried in turn.
    pub programs: Vec<CString>,
    pub directory: CString,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Stdin becomes the controlling terminal of a session that the step leads.
    pub controlling: bool,
    /// Undoes what we set for ourselves.
    pub oom_score: Option<CString>,
    /// Where a process writes itself to be of the steps' cgroup; its keeper is not.
    pub group: Option<CString>,
}

/// NUL-terminated texts and the array of pointers to them that execve wants.
pub struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    pub fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}

/// The step's own ends of its streams.
pub struct Ends {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Where the way to the program broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Session = 1,
    Terminal,
    Streams,
    Groups,
    Group,
    User,
    Directory,
    Program,
    Process,
}

impl Stage {
    fn from_number(number: i32) -> Self {
        const ALL: [Stage; 9] = [
            Stage::Session,
            Stage::Terminal,
            Stage::Streams,
            Stage::Groups,
            Stage::Group,
            Stage::User,
            Stage::Directory,
            Stage::Program,
            Stage::Process,
        ];
        ALL.into_iter().find(|stage| *stage as i32 == number).unwrap_or(Stage::Process)
    }
}

#[derive(Debug)]
pub struct Fault {
    pub stage: Stage,
    pub error: io::Error,
}

/// What a keeper tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    Started {
        step: Pid,
    },
    Fault {
        stage: i32,
        errno: i32,
    },
    /// The step's own process ended; `alone`: and nothing else of it is left.
    Exited {
        status: c_int,
        user_us: u64,
        system_us: u64,
        max_rss: u64,
        alone: bool,
    },
    /// Nothing of the step is left. Without this before the end of file the keeper was killed.
    Alone,
}

impl Note {
    fn to_bytes(self) -> [u8; NOTE_LENGTH] {
        let numbers: [u64; 6] = match self {
            Self::Started { step } => [1, step as u64, 0, 0, 0, 0],
            Self::Fault { stage, errno } => [2, stage as u64, errno as u64, 0, 0, 0],
            Self::Exited { status, user_us, system_us, max_rss, alone } => {
                [3, status as u32 as u64, user_us, system_us, max_rss, alone.into()]
            }
            Self::Alone => [4, 0, 0, 0, 0, 0],
        };
        let mut bytes = [0; NOTE_LENGTH];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn parse(bytes: [u8; NOTE_LENGTH]) -> Option<Self> {
        let mut numbers = [0; 6];
        for (number, place) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(place);
            *number = u64::from_ne_bytes(eight);
        }
        let [kind, a, b, c, d, e] = numbers;
        Some(match kind {
            1 => Self::Started { step: a as Pid },
            2 => Self::Fault { stage: a as i32, errno: b as i32 },
            3 => Self::Exited { status: a as c_int, user_us: b, system_us: c, max_rss: d, alone: e != 0 },
            4 => Self::Alone,
            _ => return None,
        })
    }
}

/// The supervisor's end of a keeper's note pipe.
pub struct Notes(pub File);

impl Notes {
    /// The next note; `None` at the end of the keeper. Blocks unless poll said that something is there.
    pub fn read(&self) -> Option<Note> {
        let mut bytes = [0; NOTE_LENGTH];
        (&self.0).read_exact(&mut bytes).ok()?;
        Note::parse(bytes)
    }
}

/// A step that runs below its keeper.
pub struct Kept {
    pub keeper: Pid,
    pub step: Pid,
    pub notes: Notes,
}

/// Starts a step and waits until its program runs or could not be run.
pub fn start(launch: &Launch, ends: &Ends) -> Result<Kept, Fault> {
    let process = |error| Fault { stage: Stage::Process, error };
    let (reader, writer) = io::pipe().map_err(process)?;
    let stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    let streams = [ends.stdin.as_raw_fd(), ends.stdout.as_raw_fd(), ends.stderr.as_raw_fd()];
    let shared = Shared::new().map_err(process)?;
    let begun: &AtomicI32 = &shared;
    let context = Context {
        launch,
        streams,
        notes: writer.as_raw_fd(),
        begun,
        stage: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let top = stack.as_ptr().wrapping_add(STACK & !15).cast_mut().cast::<c_void>();
    let keeper = sys::fork_child(|| {
        // SAFETY: we are the only thread of a fresh process; the stack and the context outlive it.
        unsafe { keep(&context, top) }
    })
    .map_err(process)?;
    drop(writer);
    let notes = Notes(File::from(OwnedFd::from(reader)));
    match (notes.read(), begun.load(Ordering::Acquire)) {
        (Some(Note::Started { step }), _) => Ok(Kept { keeper, step, notes }),
        (Some(Note::Fault { stage, errno }), _) => {
            Err(Fault { stage: Stage::from_number(stage), error: io::Error::from_raw_os_error(errno) })
        }
        // Its first act was to kill its keeper: it runs all the same.
        (_, step) if step != 0 => Ok(Kept { keeper, step, notes }),
        _ => Err(process(io::Error::other("its keeper was killed before it could start"))),
    }
}

/// A number that forked children share with us.
struct Shared(*mut AtomicI32);

impl Shared {
    fn new() -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), size_of::<AtomicI32>(), protection, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(start.cast())) }
    }
}

impl std::ops::Deref for Shared {
    type Target = AtomicI32;

    fn deref(&self) -> &AtomicI32 {
        // SAFETY: zeroed, aligned memory of our own mapping; every access is atomic.
        unsafe { &*self.0 }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping; what borrowed it has ended.
        unsafe { libc::munmap(self.0.cast(), size_of::<AtomicI32>()) };
    }
}

struct Context<'a> {
    launch: &'a Launch,
    streams: [RawFd; 3],
    notes: RawFd,
    /// The step's pid from the moment at which it may run, even if the keeper is killed.
    begun: &'a AtomicI32,
    /// Written by the step, which shares the keeper's memory until execve.
    stage: AtomicI32,
    errno: AtomicI32,
}

/// The keeper's whole life.
///
/// # Safety
/// Only in a forked, single-threaded child; `top` is the end of a stack that no other code uses.
unsafe fn keep(context: &Context<'_>, top: *mut c_void) -> u8 {
    let notes = context.notes;
    // SAFETY: async-signal-safe calls with integers and live buffers. The step runs on its own stack while this
    // thread is suspended (CLONE_VFORK), so nothing is shared at the same time.
    unsafe {
        libc::setsid();
        block_signals();
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"navvy-keeper".as_ptr());
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let step = libc::clone(begin, top, flags, ptr::from_ref(context).cast_mut().cast());
        if step < 0 {
            tell(notes, Note::Fault { stage: Stage::Process as i32, errno: errno() });
            return 1;
        }
        let stage = context.stage.load(Ordering::Relaxed);
        if stage != 0 {
            libc::waitpid(step, ptr::null_mut(), 0);
            tell(notes, Note::Fault { stage, errno: context.errno.load(Ordering::Relaxed) });
            return 1;
        }
        tell(notes, Note::Started { step });
        close_all_but(notes);
        watch(step, notes);
    }
    0
}

/// Takes every child's end until no child is left.
///
/// # Safety
/// As [`keep`].
unsafe fn watch(step: Pid, notes: RawFd) {
    loop {
        let mut status = 0;
        // Look before taking: killed in here, we must not have taken a status that would then be lost. It stays with the
        // zombie, which the supervisor inherits.
        // SAFETY: siginfo and rusage are plain data; the calls fill them.
        let (pid, usage) = unsafe {
            let mut seen: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_ALL, 0, &raw mut seen, libc::WEXITED | libc::WNOWAIT);
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(-1, &raw mut status, 0, &raw mut usage), usage)
        };
        if pid == step {
            let micro = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
            let max_rss = usage.ru_maxrss as u64 * 1024;
            let (user_us, system_us) = (micro(usage.ru_utime), micro(usage.ru_stime));
            let alone = nobody_else();
            // SAFETY: as above.
            unsafe { tell(notes, Note::Exited { status, user_us, system_us, max_rss, alone }) };
            if alone {
                return;
            }
        } else if pid < 0 && errno() == libc::ECHILD {
            // SAFETY: as above.
            unsafe { tell(notes, Note::Alone) };
            return;
        }
    }
}

/// Takes those that have ended already. True when no child is left.
fn nobody_else() -> bool {
    loop {
        // SAFETY: integers; no status is wanted.
        let pid = unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) };
        if pid <= 0 {
            return pid < 0 && errno() == libc::ECHILD;
        }
    }
}

/// # Safety
/// As [`keep`].
unsafe fn tell(notes: RawFd, note: Note) {
    let bytes = note.to_bytes();
    // SAFETY: a live buffer; notes are shorter than a pipe's atomic size.
    unsafe { libc::write(notes, bytes.as_ptr().cast(), bytes.len()) };
}

/// # Safety
/// As [`keep`]: the owners of these descriptors are in another process.
unsafe fn close_all_but(kept: RawFd) {
    // SAFETY: integers.
    unsafe {
        let below = libc::syscall(libc::SYS_close_range, 0, kept - 1, 0);
        let above = libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
        if below < 0 || above < 0 {
            for fd in (0..4096).filter(|fd| *fd != kept) {
                libc::close(fd);
            }
        }
    }
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The step, up to execve.
extern "C" fn begin(context: *mut c_void) -> c_int {
    // SAFETY: `keep` passes a Context that outlives this process's use of the shared memory.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    // SAFETY: as `keep`: only async-signal-safe calls.
    let stage = unsafe { prepare(context) }.unwrap_or_else(|| unsafe { execute(context) });
    context.errno.store(errno(), Ordering::Relaxed);
    context.stage.store(stage as i32, Ordering::Relaxed);
    // SAFETY: ends this process; the keeper goes on.
    unsafe { libc::_exit(127) }
}

/// Everything before execve; the stage at which it failed.
///
/// # Safety
/// As [`keep`], in the step.
unsafe fn prepare(context: &Context<'_>) -> Option<Stage> {
    let launch = context.launch;
    // SAFETY: integers and NUL-terminated texts. Raw calls for the ids: glibc's would address other threads.
    unsafe {
        let session = if launch.controlling { libc::setsid() } else { libc::setpgid(0, 0) };
        if session < 0 {
            return Some(Stage::Session);
        }
        if launch.controlling && libc::ioctl(context.streams[0], libc::TIOCSCTTY, 0) < 0 {
            return Some(Stage::Terminal);
        }
        for (target, stream) in context.streams.into_iter().enumerate() {
            if libc::dup2(stream, target as c_int) < 0 {
                return Some(Stage::Streams);
            }
        }
        restore_oom_score(launch);
        join_group(launch);
        let failed = change_ids(launch);
        if failed.is_some() {
            return failed;
        }
        if libc::chdir(launch.directory.as_ptr()) < 0 {
            return Some(Stage::Directory);
        }
        restore_signals();
        None
    }
}

/// # Safety
/// As [`prepare`].
unsafe fn change_ids(launch: &Launch) -> Option<Stage> {
    let (uid, gid) = (launch.uid, launch.gid);
    // SAFETY: a live slice and integers.
    unsafe {
        if libc::geteuid() != 0 && libc::geteuid() == uid {
            return None;
        }
        if libc::syscall(libc::SYS_setgroups, launch.groups.len(), launch.groups.as_ptr()) < 0 {
            return Some(Stage::Groups);
        }
        if libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0 {
            return Some(Stage::Group);
        }
        (libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0).then_some(Stage::User)
    }
}

/// # Safety
/// As [`prepare`].
unsafe fn restore_oom_score(launch: &Launch) {
    let Some(score) = &launch.oom_score else { return };
    // SAFETY: constant path, live buffer.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(file, score.as_ptr().cast(), score.count_bytes());
        libc::close(file);
    }
}

/// Where that fails the step runs without a bound: nothing else would be better.
///
/// # Safety
/// As [`prepare`].
unsafe fn join_group(launch: &Launch) {
    let Some(group) = &launch.group else { return };
    // SAFETY: a path that ends in NUL, and one byte of a constant.
    unsafe {
        let file = libc::open(group.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(file, c"0".as_ptr().cast(), 1);
        libc::close(file);
    }
}

/// A step that signals all its relatives shall not end its keeper.
///
/// # Safety
/// As [`keep`].
unsafe fn block_signals() {
    // SAFETY: a sigset is plain integers, made valid by sigfillset.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// Nothing ignored, nothing blocked: as a shell expects it.
///
/// # Safety
/// As [`prepare`].
unsafe fn restore_signals() {
    // SAFETY: zeroes are SIG_DFL without flags, restorer or mask; numbers that cannot be set are refused harmlessly.
    unsafe {
        // The kernel's own structure; glibc's call would spare the two signals that it uses itself.
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Returns only when no candidate could be executed; `errno` is the most telling one's.
///
/// # Safety
/// As [`prepare`].
unsafe fn execute(context: &Context<'_>) -> Stage {
    let launch = context.launch;
    // SAFETY: cannot fail.
    context.begun.store(unsafe { libc::getpid() }, Ordering::Release);
    let mut telling = libc::ENOENT;
    for program in &launch.programs {
        // SAFETY: NUL-terminated text and two NULL-terminated arrays of such.
        unsafe { libc::execve(program.as_ptr(), launch.argv.pointers.as_ptr(), launch.env.pointers.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => telling = libc::EACCES,
            other => {
                telling = other;
                break;
            }
        }
    }
    // SAFETY: this thread's own errno.
    unsafe { *libc::__errno_location() = telling };
    Stage::Program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip() {
        let notes = [
            Note::Started { step: 42 },
            Note::Fault { stage: 3, errno: 13 },
            Note::Exited { status: 0x8b, user_us: 1, system_us: 2, max_rss: 3, alone: true },
            Note::Alone,
        ];
        for note in notes {
            assert_eq!(Note::parse(note.to_bytes()), Some(note));
        }
        assert_eq!(Note::parse([0; NOTE_LENGTH]), None);
    }
}
