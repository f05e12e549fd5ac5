//! How large segments are: as small as a slow store needs them. Pure.
//!
//! ```text
//! 4 MiB ──too slow──▶ an eighth … 32 KiB, one at a time       a quick one: twice as much, up to 4 MiB
//! ```
//!
//! A request that hardly moves is given up ([`navvy_storage::Pace`]), and what it had sent is lost. One of 32 KiB has time enough at
//! a third of a KiB a second.

use std::time::Duration;

use super::cuts::SEGMENT;

/// No segment is cut for slowness below this.
const LEAST: u64 = 32 << 10;
/// One that took less might have been longer, one that took more should be shorter.
const QUICK: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(40);
/// Segments on their way at a time: two cover the way of the third.
const AT_ONCE: usize = 3;

/// What a segment has at most now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    whole: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { whole: SEGMENT }
    }
}

impl Sizes {
    /// Bytes of a whole segment, before compression.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// So many are on their way together: where the way is narrow, each would only make the others slower.
    pub fn at_once(&self) -> usize {
        if self.whole < SEGMENT { 1 } else { AT_ONCE }
    }

    /// Is there a smaller one to try?
    pub fn can_shrink(length: u64) -> bool {
        length > LEAST
    }

    /// A segment of this length has arrived.
    pub fn arrived(&mut self, length: u64, took: Duration) {
        if took > SLOW {
            self.whole = (length.min(self.whole) / 2).max(LEAST);
        } else if took < QUICK && length >= self.whole {
            self.whole = (self.whole * 2).min(SEGMENT);
        }
    }

    /// One of this length was given up.
    pub fn too_slow(&mut self, length: u64) {
        self.whole = (length.min(self.whole) / 8).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes so many bytes a second, and gives a request up that lasts longer than this.
    const GIVEN_UP: Duration = Duration::from_secs(120);

    /// How long 4 MiB and then 256 KiB more take to arrive.
    fn deliver(rate: u64) -> Duration {
        let (mut sizes, mut left, mut spent) = (Sizes::default(), SEGMENT + (256 << 10), Duration::ZERO);
        while left > 0 {
            let length = sizes.whole().min(left);
            let takes = Duration::from_secs_f64(length as f64 / rate as f64) * u32::try_from(sizes.at_once()).unwrap();
            if takes > GIVEN_UP && Sizes::can_shrink(length) {
                spent += GIVEN_UP;
                sizes.too_slow(length);
                continue;
            }
            assert!(takes <= GIVEN_UP, "{length} bytes never arrive at {rate} a second");
            spent += takes;
            left -= length;
            sizes.arrived(length, takes);
        }
        spent
    }

    #[test]
    fn everything_arrives_at_any_speed_and_most_of_the_time_is_well_spent() {
        for rate in [300, 1 << 10, 10_000, 16 << 10, 100_000, 1 << 20] {
            let best = Duration::from_secs_f64((SEGMENT + (256 << 10)) as f64 / rate as f64);
            assert!(deliver(rate) < 3 * best + 3 * GIVEN_UP, "{rate}: {:?} of {best:?}", deliver(rate));
        }
    }

    #[test]
    fn what_was_slow_for_a_while_is_quick_again() {
        let mut sizes = Sizes::default();
        for _ in 0..9 {
            sizes.too_slow(sizes.whole());
        }
        assert_eq!((sizes.whole(), sizes.at_once()), (LEAST, 1));
        // A short one at the end of a step says nothing.
        sizes.arrived(100, Duration::ZERO);
        assert_eq!(sizes.whole(), LEAST);
        for _ in 0..7 {
            sizes.arrived(sizes.whole(), Duration::from_secs(1));
        }
        assert_eq!(sizes, Sizes::default());
    }
}
