//! Finds where any of many patterns may begin.
//!
//! ```text
//! text     ..I.am.looked.at.only.here.and.there...
//! gram       ^^^^    ^^^^    ^^^^    ^^^^            every `stride` bytes
//!               │
//!               ▼ filter: two bits of one word         almost always: no
//!               ▼ bucket: patterns with this gram at one of their first `stride` bytes
//!               ▼ comparison
//! ```
//!
//! If a pattern begins at a byte, one of the next `stride` bytes is looked at, and the filter has the pattern's gram from
//! there: no pattern is missed, however they overlap. An automaton would step through every byte, and with ten
//! thousand patterns each of its steps misses the cache; this looks at one word of a few hundred kilobytes at most.

/// Bytes of a gram. No pattern is shorter.
pub const GRAM: usize = 4;
/// A larger one would be looked at less often, but fill the filter.
const LONGEST_STRIDE: usize = 8;

/// A pattern's number in the order of [`Index::new`].
pub type Number = u32;
pub type Pattern = Vec<u8>;

struct Entry {
    gram: u32,
    pattern: Number,
    /// Offset of the gram in the pattern.
    offset: u32,
}

pub struct Index {
    patterns: Vec<Pattern>,
    stride: usize,
    /// A power of two of words.
    filter: Vec<u64>,
    /// Entries of bucket `n`: `entries[starts[n]..starts[n + 1]]`.
    starts: Vec<u32>,
    entries: Vec<Entry>,
    /// Patterns in the order of their bytes.
    sorted: Vec<Number>,
    /// Filter of the patterns' first one, two, three and four bytes.
    beginnings: Vec<u64>,
}

impl Index {
    /// `patterns` are distinct, of at least [`GRAM`] bytes each.
    pub fn new(patterns: Vec<Pattern>) -> Self {
        let shortest = patterns.iter().map(|it| it.len()).min().unwrap_or(GRAM);
        let stride = (shortest - GRAM + 1).min(LONGEST_STRIDE);
        let mut entries = grams(&patterns, stride);
        let buckets = entries.len().next_power_of_two().max(16);
        entries.sort_by_key(|entry| bucket(entry.gram, buckets));
        let mut starts = vec![0; buckets + 1];
        for entry in &entries {
            starts[bucket(entry.gram, buckets) + 1] += 1;
        }
        for index in 0..buckets {
            starts[index + 1] += starts[index];
        }
        let mut filter = vec![0; (buckets / 4).clamp(1 << 9, 1 << 15)];
        entries.iter().for_each(|entry| enter(&mut filter, entry.gram));
        let mut beginnings = vec![0; (patterns.len().next_power_of_two()).clamp(1 << 6, 1 << 13)];
        for pattern in &patterns {
            (1..=GRAM).for_each(|length| enter(&mut beginnings, beginning(&pattern[..length])));
        }
        let mut sorted: Vec<Number> = (0..patterns.len()).filter_map(|number| Number::try_from(number).ok()).collect();
        sorted.sort_by(|a, b| patterns[*a as usize].cmp(&patterns[*b as usize]));
        Self { patterns, stride, filter, starts, entries, sorted, beginnings }
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn pattern(&self, number: Number) -> &[u8] {
        &self.patterns[number as usize]
    }

    /// Looks at `text` from `at` on. Calls `candidate(pattern, where it would begin)` for every possible occurrence; the
    /// beginning is never before the text. Returns where to look next.
    pub fn look(&self, text: &[u8], mut at: usize, mut candidate: impl FnMut(Number, usize)) -> usize {
        while let Some(gram) = text.get(at..).and_then(|rest| rest.first_chunk::<GRAM>()) {
            let gram = u32::from_le_bytes(*gram);
            if may_hold(&self.filter, gram) {
                for entry in self.bucket(gram).iter().filter(|entry| entry.gram == gram) {
                    if let Some(start) = at.checked_sub(entry.offset as usize) {
                        candidate(entry.pattern, start);
                    }
                }
            }
            at += self.stride;
        }
        at
    }

    /// Every pattern that begins before this place was a candidate, if the next look is at `next`.
    pub fn open_from(&self, next: usize) -> usize {
        (next + 1).saturating_sub(self.stride)
    }

    /// Does any pattern begin with these bytes?
    pub fn begins(&self, bytes: &[u8]) -> bool {
        if bytes.is_empty() || !may_hold(&self.beginnings, beginning(&bytes[..bytes.len().min(GRAM)])) {
            return false;
        }
        let first = self.sorted.partition_point(|number| self.pattern(*number) < bytes);
        self.sorted.get(first).is_some_and(|number| self.pattern(*number).starts_with(bytes))
    }

    fn bucket(&self, gram: u32) -> &[Entry] {
        let number = bucket(gram, self.starts.len() - 1);
        &self.entries[self.starts[number] as usize..self.starts[number + 1] as usize]
    }
}

fn grams(patterns: &[Pattern], stride: usize) -> Vec<Entry> {
    let of = |(number, pattern): (usize, &Pattern)| {
        let windows = pattern.windows(GRAM).take(stride).enumerate();
        let entry = |(offset, bytes): (usize, &[u8])| {
            let gram = u32::from_le_bytes(bytes.try_into().ok()?);
            Some(Entry { gram, pattern: Number::try_from(number).ok()?, offset: u32::try_from(offset).ok()? })
        };
        windows.filter_map(entry).collect::<Vec<_>>()
    };
    patterns.iter().enumerate().flat_map(of).collect()
}

fn mixed(gram: u32) -> u64 {
    u64::from(gram).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The top bits of the product are the well-mixed ones.
fn bucket(gram: u32, buckets: usize) -> usize {
    (mixed(gram) >> (64 - buckets.trailing_zeros())) as usize
}

/// Its word, and the two bits there.
fn spot(filter: &[u64], gram: u32) -> (usize, u64) {
    let mixed = mixed(gram);
    let word = (mixed >> (64 - filter.len().trailing_zeros())) as usize;
    (word & (filter.len() - 1), 1 << (mixed >> 40 & 63) | 1 << (mixed >> 34 & 63))
}

fn enter(filter: &mut [u64], gram: u32) {
    let (word, bits) = spot(filter, gram);
    filter[word] |= bits;
}

fn may_hold(filter: &[u64], gram: u32) -> bool {
    let (word, bits) = spot(filter, gram);
    filter[word] & bits == bits
}

/// Up to [`GRAM`] bytes as a gram of their own.
fn beginning(bytes: &[u8]) -> u32 {
    let start = u32::try_from(bytes.len()).unwrap_or(0);
    bytes.iter().fold(start, |sum, byte| sum.wrapping_mul(0x0101_0b03).wrapping_add(u32::from(*byte)))
}
