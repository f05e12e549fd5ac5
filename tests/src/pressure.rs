//! How long something took that was not hindered: on a machine that is busy everything takes long.

use std::fs;
use std::time::{Duration, Instant};

/// The time since, without that in which something on this machine waited for a processor.
#[derive(Debug)]
pub struct Unhindered {
    begun: Instant,
    waited: Duration,
}

impl Unhindered {
    pub fn since_now() -> Self {
        Self { begun: Instant::now(), waited: waited() }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.hindered())
    }

    /// How long something waited for a processor.
    pub fn hindered(&self) -> Duration {
        waited().saturating_sub(self.waited)
    }
}

/// Since the machine was started; none where the kernel does not count it.
fn waited() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text.lines().find(|line| line.starts_with("some ")).and_then(|line| line.split_once("total="));
    Duration::from_micros(total.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0))
}
