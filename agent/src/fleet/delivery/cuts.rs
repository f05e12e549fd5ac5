//! Where a log is cut into segments, and how far it is durable. Pure.
//!
//! ```text
//! 0 ─────────── durable ─────────── cut ─────────── length
//!    in the index        on its way      next: 4 MiB (less where the store is slow) behind a burst, or what there is 2 s after its first byte, or at the log's end
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes of a whole segment.
pub const SEGMENT: u64 = 4 << 20;
/// A byte waits no longer than this for its segment to fill up.
pub const AGE: Duration = Duration::from_secs(2);

/// A step that writes much for less than this has the machine's processors for itself; its output goes on its way then.
pub const BURST: Duration = Duration::from_millis(500);

/// One log's cuts.
#[derive(Debug, Clone, Default)]
pub struct Cuts {
    /// Bytes of a whole segment, where it is less than [`SEGMENT`].
    whole: Option<u64>,
    /// All before is cut into segments.
    cut: u64,
    /// When the first byte behind the cut was seen.
    since: Option<Instant>,
    /// Since when there has been something behind the cut all the time.
    behind: Option<Instant>,
    /// Whole segments are cut without waiting for the end of a burst.
    presses: bool,
    /// What there is becomes a segment without waiting for more.
    hurries: bool,
    /// Its length, once nothing more is written.
    end: Option<u64>,
    durable: u64,
    /// Durable, but behind a gap.
    beyond: BTreeMap<u64, u64>,
}

/// What is to be done next with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These bytes become a segment now.
    Cut(Range<u64>),
    /// At this moment, if it has not grown before.
    At(Instant),
    /// Nothing, before it grows.
    Nothing,
}

impl Cuts {
    /// Of a log of which another agent has made this much durable.
    pub fn from(durable: u64) -> Self {
        Self { cut: durable, durable, ..Self::default() }
    }

    /// What is next, now that the log is this long. A cut is only made by [`Self::make`].
    pub fn next(&mut self, length: u64, now: Instant) -> Next {
        let length = self.end.map_or(length, |end| end.min(length));
        let waiting = length.saturating_sub(self.cut);
        if waiting == 0 {
            (self.since, self.behind) = (None, None);
            return Next::Nothing;
        }
        let due = *self.since.get_or_insert(now) + AGE;
        let burst = *self.behind.get_or_insert(now) + BURST;
        let may_wait = self.end.is_none() && !self.hurries && !self.presses;
        let whole = self.whole();
        if waiting >= whole && may_wait && now < burst {
            Next::At(burst.min(due))
        } else if waiting >= whole {
            Next::Cut(self.cut..self.cut + whole)
        } else if self.end.is_some() || self.hurries || now >= due {
            Next::Cut(self.cut..length)
        } else {
            Next::At(due)
        }
    }

    /// These bytes, as [`Self::next`] gave them, are a segment.
    pub fn make(&mut self, range: &Range<u64>) {
        self.cut = range.end;
        self.since = None;
        // The rest of what there was when the writer paused hurries, too.
        self.hurries &= range.end - range.start == self.whole();
    }

    fn whole(&self) -> u64 {
        self.whole.unwrap_or(SEGMENT)
    }

    /// Segments have at most these many bytes from now on.
    pub fn limit(&mut self, whole: u64) {
        self.whole = Some(whole.clamp(1, SEGMENT));
    }

    /// When its oldest byte that is in no segment was seen.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Its writer pauses: what there is need not wait for more.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Whether the spool needs room: then no burst is waited for.
    pub fn press(&mut self, presses: bool) {
        self.presses = presses;
    }

    /// Nothing more is written: it has this length.
    pub fn ends(&mut self, length: u64) {
        self.end = Some(length);
    }

    /// A segment is in the index. Returns how many bytes the mark moved.
    pub fn committed(&mut self, range: Range<u64>) -> u64 {
        let before = self.durable;
        if range.start < range.end {
            let end = self.beyond.entry(range.start).or_default();
            *end = range.end.max(*end);
        }
        while let Some(first) = self.beyond.first_entry() {
            if *first.key() > self.durable {
                break;
            }
            self.durable = self.durable.max(first.remove());
        }
        self.durable - before
    }

    /// All before this is durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Its end is known, and all before it is durable.
    pub fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.durable >= end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_first_unless_the_spool_needs_room() {
        let (mut cuts, start) = (Cuts::default(), Instant::now());
        assert_eq!(cuts.next(3 * SEGMENT, start), Next::At(start + BURST));
        cuts.press(true);
        assert_eq!(cuts.next(3 * SEGMENT, start), Next::Cut(0..SEGMENT));
        cuts.make(&(0..SEGMENT));
        cuts.press(false);
        assert_eq!(cuts.next(3 * SEGMENT, start + BURST / 2), Next::At(start + BURST));
        // Once it is over, each segment is cut as soon as it is there.
        assert_eq!(cuts.next(3 * SEGMENT, start + BURST), Next::Cut(SEGMENT..2 * SEGMENT));
        cuts.make(&(SEGMENT..2 * SEGMENT));
        assert_eq!(cuts.next(3 * SEGMENT, start + BURST), Next::Cut(2 * SEGMENT..3 * SEGMENT));
        cuts.make(&(2 * SEGMENT..3 * SEGMENT));
        assert_eq!(cuts.next(3 * SEGMENT, start + BURST), Next::Nothing);
        // The writer pauses: there is nobody to wait for.
        assert_eq!(cuts.next(5 * SEGMENT, start + BURST), Next::At(start + 2 * BURST));
        cuts.hurry();
        assert_eq!(cuts.next(5 * SEGMENT, start + BURST), Next::Cut(3 * SEGMENT..4 * SEGMENT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_segment_is_cut_at_once_and_a_small_one_after_a_while_or_at_the_end() {
        let (mut cuts, start) = (Cuts::default(), Instant::now());
        cuts.press(true);
        assert_eq!(cuts.next(0, start), Next::Nothing);
        assert_eq!(cuts.next(10, start), Next::At(start + AGE));
        // A byte that comes later does not put it off.
        assert_eq!(cuts.next(20, start + AGE / 2), Next::At(start + AGE));
        assert_eq!(cuts.next(20, start + AGE), Next::Cut(0..20));
        cuts.make(&(0..20));
        assert_eq!(cuts.next(20, start + AGE), Next::Nothing);
        assert_eq!(cuts.next(20 + SEGMENT + 1, start + AGE), Next::Cut(20..20 + SEGMENT));
        cuts.make(&(20..20 + SEGMENT));
        assert_eq!(cuts.next(21 + SEGMENT, start + AGE), Next::At(start + AGE + AGE));
        cuts.hurry();
        assert_eq!(cuts.next(21 + SEGMENT, start + AGE), Next::Cut(20 + SEGMENT..21 + SEGMENT));
        cuts.ends(20 + SEGMENT + 1);
        assert_eq!(cuts.next(u64::MAX, start + AGE), Next::Cut(20 + SEGMENT..21 + SEGMENT));
    }

    #[test]
    fn a_mark_moves_over_no_gap() {
        let mut cuts = Cuts::default();
        cuts.ends(40);
        assert_eq!(cuts.committed(0..10), 10);
        assert_eq!(cuts.committed(20..30), 0);
        assert_eq!(cuts.committed(10..20), 20);
        assert!(!cuts.is_done());
        assert_eq!(cuts.committed(10..20), 0);
        assert_eq!((cuts.committed(30..40), cuts.durable(), cuts.is_done()), (10, 40, true));
    }

    #[derive(Debug, Clone)]
    enum Happening {
        Grows(u64),
        Passes(u64),
        Pauses,
        /// The segment on its way at this place, of those that there are, arrives.
        Arrives(usize),
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let one = prop_oneof![
            (0..3 * SEGMENT).prop_map(Happening::Grows),
            (0..3000_u64).prop_map(Happening::Passes),
            Just(Happening::Pauses),
            (0..3_usize).prop_map(Happening::Arrives),
        ];
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        /// Whatever happens in whatever order: segments follow each other without gap or overlap, none is empty or too long, no
        /// byte waits longer than it may, and in the end all of the log is durable.
        #[test]
        fn segments_cover_a_log_exactly(happenings in happenings()) {
            let start = Instant::now();
            let (mut cuts, mut now, mut length) = (Cuts::default(), start, 0);
            let (mut covered, mut under_way, mut oldest) = (0, Vec::new(), None);
            let mut look = |cuts: &mut Cuts, length: u64, now: Instant, under_way: &mut Vec<Range<u64>>| {
                while let Next::Cut(range) = cuts.next(length, now) {
                    assert_eq!(range.start, covered);
                    assert!(range.start < range.end && range.end - range.start <= SEGMENT && range.end <= length);
                    covered = range.end;
                    cuts.make(&range);
                    under_way.push(range);
                }
                covered
            };
            for happening in happenings {
                match happening {
                    Happening::Grows(bytes) => length += bytes,
                    Happening::Pauses => cuts.hurry(),
                    Happening::Passes(ms) => now += Duration::from_millis(ms),
                    Happening::Arrives(nth) if nth < under_way.len() => {
                        let range = under_way.remove(nth);
                        cuts.committed(range);
                    }
                    Happening::Arrives(_) => {}
                }
                let covered = look(&mut cuts, length, now, &mut under_way);
                oldest = if covered == length { None } else { oldest.filter(|(at, _)| *at == covered).or(Some((covered, now))) };
                prop_assert!(oldest.is_none_or(|(_, since)| now < since + AGE));
                prop_assert!(cuts.durable() <= covered);
            }
            cuts.ends(length);
            prop_assert_eq!(look(&mut cuts, length, now, &mut under_way), length);
            under_way.into_iter().rev().for_each(|range| assert!(cuts.committed(range) <= length));
            prop_assert!(cuts.is_done() && cuts.durable() == length);
        }
    }
}
