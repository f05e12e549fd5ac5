//! Secrets, compared.

/// Takes as long for a near miss as for any other.
pub fn is_same(ours: &str, theirs: &str) -> bool {
    let differences = ours.bytes().zip(theirs.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    std::hint::black_box(differences) == 0 && ours.len() == theirs.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_whole() {
        assert!(is_same("abc", "abc"));
        assert!(!is_same("abc", "abd") && !is_same("abc", "ab") && !is_same("ab", "abc") && !is_same("abc", ""));
    }
}
