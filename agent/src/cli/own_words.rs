//! What the program says outside a run's events: errors, its own log, a panic. Masked like everything else.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use navvy_output::mask::{MaskedIn, Masks};

use crate::scheduled::pipe::Pipe;

/// The run's secrets. A process has one run; a panic hook and a logger get no arguments to take them from.
static MASKS: OnceLock<Masks> = OnceLock::new();

/// Those of tasks that run side by side, by number.
static OF_TASKS: RwLock<BTreeMap<u64, Masks>> = RwLock::new(BTreeMap::new());

/// What hides a task's secrets as long as it lives.
pub struct Hidden(u64);

/// Nothing says these, as long as what is returned lives.
pub fn hide(masks: &Masks) -> Hidden {
    let mut all = OF_TASKS.write().unwrap_or_else(PoisonError::into_inner);
    let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
    all.insert(number, masks.clone());
    Hidden(number)
}

impl Drop for Hidden {
    fn drop(&mut self) {
        OF_TASKS.write().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// The program's log goes nowhere any more.
static SILENT: AtomicBool = AtomicBool::new(false);

/// From now on the program's log is dropped: no thread may wait for standard error.
pub fn be_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Where the program's own words go in place of standard error.
static PIPE: OnceLock<Pipe> = OnceLock::new();
/// The last of them are waited for no longer.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// From now on the program's own words go there.
pub fn send_to(pipe: Pipe) {
    PIPE.get_or_init(|| pipe);
}

/// Says this as it is. When that fails, there is nowhere left to report it.
pub fn say(text: &[u8]) {
    match PIPE.get() {
        Some(pipe) => pipe.push(text),
        None => drop(io::stderr().lock().write_all(text)),
    }
}

/// Before the process's end: what was said last shall arrive where somebody listens.
pub fn settle() {
    if let Some(pipe) = PIPE.get() {
        pipe.settle(LAST_WORDS);
    }
}

/// From now on nothing says these.
pub fn mask_with(masks: &Masks) {
    MASKS.get_or_init(|| masks.clone());
}

pub fn masked(text: &str) -> Cow<'_, str> {
    let of_tasks = OF_TASKS.read().unwrap_or_else(PoisonError::into_inner);
    let mut shown = Cow::Borrowed(text);
    for masks in MASKS.get().into_iter().chain(of_tasks.values()) {
        if let Cow::Owned(masked) = masks.text(|| MaskedIn::of_run("message of navvy"), &shown) {
            shown = Cow::Owned(masked);
        }
    }
    shown
}

/// A panic is a bug of ours: it must not be drawn over by the live view, nor tell a secret.
pub fn keep_panics_readable() {
    std::panic::set_hook(Box::new(|panic| {
        navvy_ui::live::let_go();
        let thread = std::thread::current();
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("{trace}\n") } else { String::new() };
        let text = format!("thread '{}' {panic}\n{trace}", thread.name().unwrap_or("unnamed"));
        say(masked(&text).as_bytes());
    }));
}

/// Standard error for the program's log, which writes a line at a time. It never fails: there is nowhere left to report that it is on a
/// full disk, and the code that logs is about something else.
pub fn stderr() -> impl Write {
    Masked
}

struct Masked;

impl Write for Masked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if SILENT.load(Ordering::Relaxed) {
            return Ok(line.len());
        }
        let text = String::from_utf8_lossy(line);
        say(masked(&text).as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if PIPE.get().is_none() {
            io::stderr().flush().ok();
        }
        Ok(())
    }
}
