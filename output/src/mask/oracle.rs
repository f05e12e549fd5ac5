//! What masking must result in, computed in the plainest way: for tests and fuzzing alone.

/// Replaces every range that is covered by occurrences of `patterns`; ranges that only touch stay apart.
pub fn replace(text: &[u8], patterns: &[Vec<u8>]) -> Vec<u8> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
        for (start, window) in text.windows(pattern.len()).enumerate() {
            if window == pattern.as_slice() {
                ranges.push((start, start + pattern.len()));
            }
        }
    }
    ranges.sort_unstable();
    let mut masked = Vec::new();
    let mut end = 0;
    for (start, stop) in ranges {
        if start >= end {
            masked.extend_from_slice(&text[end..start]);
            masked.extend_from_slice(super::STARS);
        }
        end = end.max(stop);
    }
    masked.extend_from_slice(&text[end..]);
    masked
}
