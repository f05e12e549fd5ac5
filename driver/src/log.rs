//! The plugin's log, as Nomad reads it: one JSON object a line on stderr.
//!
//! Whoever reads may be stuck or gone: after a crash of the Nomad agent nobody reads this pipe any more. So a line is written
//! only while the pipe takes it at once, and is dropped otherwise; nothing here waits, fails or panics. A dropped line is counted, and
//! the next one that goes through says so.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stderr;
use serde_json::json;

/// A write of so many bytes to a pipe is done whole or not at all.
const LONGEST_LINE: usize = 4096;
/// Of a message; the rest of a line is bounded by itself.
const LONGEST_MESSAGE: usize = 3072;

/// How much is logged.
static LEVEL: AtomicU8 = AtomicU8::new(if cfg!(test) { u8::MAX } else { Level::Info as u8 });
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a fault in the driver.
    Debug,
    /// What an operator may want to know.
    Info,
    /// Something is amiss, and the driver goes on.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// From a setting's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "debug" | "trace" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warn" => Some(Self::Warn),
            "error" => Some(Self::Error),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Lines below this are dropped from now on. Tests log nothing.
pub fn set_level(level: Level) {
    if !cfg!(test) {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
}

/// Writes one line.
pub fn log(level: Level, message: &dyn fmt::Display) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0
        && !put(&line(Level::Warn, &format!("{dropped} lines of the log were dropped: nobody read them in time")))
    {
        DROPPED.fetch_add(dropped, Ordering::Relaxed);
    }
    if !put(&line(level, &message.to_string())) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A line that Nomad's reader understands: it takes the message for a string without looking, and a time of another shape for no
/// log line at all.
fn line(level: Level, message: &str) -> Vec<u8> {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let object = |message: &str| {
        let value = json!({"@level": level.word(), "@message": message, "@module": "navvy", "@timestamp": time});
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        line
    };
    let whole = object(&message[..end]);
    // A message of control characters is six times as long when it is written down.
    if whole.len() <= LONGEST_LINE { whole } else { object("a message that was too long for one line was left out") }
}

/// `false`: it was not taken at once.
fn put(line: &[u8]) -> bool {
    let err = stderr();
    let mut fds = [PollFd::new(&err, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A pipe that shows room takes a whole page: one write of at most a page does not block.
    let is_open = matches!(poll(&mut fds, Some(&at_once)), Ok(1)) && fds[0].revents() == PollFlags::OUT;
    is_open && rustix::io::write(err, line).is_ok_and(|written| written == line.len())
}

/// Logs for those who look for a fault in the driver.
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Debug, &format_args!($($text)*)) };
}

/// Logs what an operator may want to know.
macro_rules! info {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Info, &format_args!($($text)*)) };
}

/// Logs that something is amiss.
macro_rules! warning {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Warn, &format_args!($($text)*)) };
}

/// Logs that something failed.
macro_rules! failure {
    ($($text:tt)*) => { $crate::log::log($crate::log::Level::Error, &format_args!($($text)*)) };
}

pub(crate) use {debug, failure, info, warning};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_nomads_reader_wants() {
        let written = line(Level::Warn, "a \"quoted\"\nmessage");
        let value: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(value["@level"], "warn");
        assert_eq!(value["@message"], "a \"quoted\"\nmessage");
        let time = value["@timestamp"].as_str().unwrap();
        assert_eq!((time.len(), &time[19..20], &time[26..]), (27, ".", "Z"), "{time}");
        assert_eq!(written.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn no_message_makes_a_line_longer_than_a_page() {
        for message in ["x".repeat(100_000), "\u{1}".repeat(3000), "ä".repeat(5000)] {
            let written = line(Level::Error, &message);
            assert!(written.len() <= LONGEST_LINE, "{}", written.len());
            assert!(serde_json::from_slice::<serde_json::Value>(&written).unwrap()["@message"].is_string());
        }
    }
}
