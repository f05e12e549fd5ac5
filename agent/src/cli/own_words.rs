//! What the program says outside a run's events: errors, its own log, a panic. Masked like everything else.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use navvy_output::mask::{MaskedIn, Masks};

/// The run's secrets. A process has one run; a panic hook and a logger get no arguments to take them from.
static MASKS: OnceLock<Masks> = OnceLock::new();

/// The program's log goes nowhere any more.
static SILENT: AtomicBool = AtomicBool::new(false);

/// From now on the program's log is dropped: no thread may wait for standard error.
pub fn be_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

/// From now on nothing says these.
pub fn mask_with(masks: &Masks) {
    MASKS.get_or_init(|| masks.clone());
}

pub fn masked(text: &str) -> Cow<'_, str> {
    match MASKS.get() {
        Some(masks) => masks.text(|| MaskedIn::of_run("message of navvy"), text),
        None => Cow::Borrowed(text),
    }
}

/// A panic is a bug of ours: it must not be drawn over by the live view, nor tell a secret.
pub fn keep_panics_readable() {
    std::panic::set_hook(Box::new(|panic| {
        navvy_ui::live::let_go();
        let thread = std::thread::current();
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("{trace}\n") } else { String::new() };
        let text = format!("thread '{}' {panic}\n{trace}", thread.name().unwrap_or("unnamed"));
        // When this fails, there is nowhere left to report it.
        io::stderr().write_all(masked(&text).as_bytes()).ok();
    }));
}

/// Standard error for the program's log, which writes a line at a time. It never fails: there is nowhere left to report that it is on a
/// full disk, and the code that logs is about something else.
pub fn stderr() -> impl Write {
    Masked(io::stderr())
}

struct Masked<W>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if SILENT.load(Ordering::Relaxed) {
            return Ok(line.len());
        }
        let text = String::from_utf8_lossy(line);
        self.0.write_all(masked(&text).as_bytes()).ok();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().ok();
        Ok(())
    }
}
