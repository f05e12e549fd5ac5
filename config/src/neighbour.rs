//! The name that an author may have meant.

/// Among more names than this, no neighbour of a typo is looked for.
const MOST: usize = 500;

/// The known name nearest to `name`, if it is near enough to be a typo.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = fold(name);
    known
        .into_iter()
        .take(MOST)
        .filter(|candidate| *candidate != name)
        .map(|candidate| (strsim::damerau_levenshtein(&plain, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= tolerance(name.len().max(candidate.len())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Is `name` written as `other` is, but for one letter?
pub(crate) fn is_slip(name: &str, other: &str) -> bool {
    // Most names differ by their length already.
    name.len().abs_diff(other.len()) <= 1 && strsim::damerau_levenshtein(&fold(name), &fold(other)) <= 1
}

/// Case and the choice between `-` and `_` are the commonest slips.
fn fold(name: &str) -> String {
    // Names longer than this are not typos of anything, and the distance is quadratic.
    name.chars().take(64).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// A third of the letters may differ.
fn tolerance(length: usize) -> usize {
    (length / 3).clamp(1, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_one_letter() {
        assert!(is_slip("onyl", "only") && is_slip("exlude", "exclude") && is_slip("Filter", "filters"));
        assert!(!is_slip("include", "exclude") && !is_slip("fixtures", "filters"));
    }

    #[test]
    fn typos_find_their_neighbour() {
        assert_eq!(nearest("chekout", ["run", "checkout"]), Some("checkout"));
        assert_eq!(nearest("save-cache", ["save_cache", "restore_cache"]), Some("save_cache"));
        assert_eq!(nearest("Medium", ["small", "medium"]), Some("medium"));
        assert_eq!(nearest("deploy", ["build", "test"]), None);
        assert_eq!(nearest("a", ["b"]), Some("b"));
    }
}
