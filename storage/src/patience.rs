//! How long to wait before another attempt, and when to stop.

use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};
use tokio::time::Instant;

/// How often and how long a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Most retries after the first attempt.
    pub most: usize,
    /// No retry is begun after this.
    pub within: Duration,
    /// The first pause; each is up to three times the one before, at random, and at most `last`.
    pub first: Duration,
    /// The longest pause.
    pub last: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            most: 8,
            within: Duration::from_secs(120),
            first: Duration::from_millis(100),
            last: Duration::from_secs(15),
        }
    }
}

impl Retries {
    pub(super) fn config(self) -> RetryConfig {
        let backoff = BackoffConfig { init_backoff: self.first, max_backoff: self.last, base: 3. };
        RetryConfig { backoff, max_retries: self.most, retry_timeout: self.within }
    }
}

/// The retries of one request: how many there were, and when it began.
#[derive(Debug)]
pub struct Patience {
    retries: Retries,
    begun: Instant,
    made: usize,
    last: Duration,
}

impl Patience {
    /// Before the first attempt.
    pub fn new(retries: Retries) -> Self {
        Self { retries, begun: Instant::now(), made: 0, last: retries.first }
    }

    /// Waits before the next attempt. `false`: there shall be none.
    pub async fn wait(&mut self) -> bool {
        if self.made >= self.retries.most || self.begun.elapsed() >= self.retries.within {
            return false;
        }
        self.made += 1;
        // Up to three times the last pause, at random: many agents that failed together do not come back together.
        let most = (self.last * 3).min(self.retries.last).max(self.retries.first);
        let random = (uuid::Uuid::new_v4().as_u64_pair().0 >> 11) as f64 / (1_u64 << 53) as f64;
        self.last = self.retries.first + (most - self.retries.first).mul_f64(random);
        tokio::time::sleep(self.last).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_and_time_are_bounded() {
        let retries = Retries {
            most: 5,
            within: Duration::from_secs(3600),
            first: Duration::from_millis(100),
            last: Duration::from_secs(2),
        };
        let mut patience = Patience::new(retries);
        let mut attempts = 0;
        while patience.wait().await {
            attempts += 1;
            assert!((retries.first..=retries.last).contains(&patience.last), "{:?}", patience.last);
        }
        assert_eq!(attempts, 5);
        let mut patience = Patience::new(Retries { within: Duration::from_secs(1), most: 1000, ..retries });
        let begun = Instant::now();
        while patience.wait().await {}
        assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
