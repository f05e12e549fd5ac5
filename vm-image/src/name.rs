//! Names of images, which are names of directories, too.

/// Characters of the longest name.
const LONGEST: usize = 64;

/// Whether this may be an image's name: small letters, digits, `.`, `_` and `-`, the first a letter or a digit.
pub fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= LONGEST
        && name.starts_with(is_plain)
        && name.chars().all(|c| is_plain(c) || matches!(c, '.' | '_' | '-'))
}

/// A name that somebody else chose, as it may be shown: quoted, on one line, cut where it is endless.
pub fn shown(name: &str) -> String {
    const MOST: usize = 100;
    let cut: String = name.chars().take(MOST).collect();
    let dots = if cut.len() < name.len() { "…" } else { "" };
    format!("`{}{dots}`", cut.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_store_or_hides_in_it() {
        for good in ["debian-12-docker", "a", "0.1_x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".locks", "../x", "a/b", "A", "a b", "a\n", "-rf", "é", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_stranger_s_name_stays_on_one_line() {
        assert_eq!(shown("a\n\u{1b}[31m"), "`a\\n\\u{1b}[31m`");
        assert!(shown(&"x".repeat(5000)).len() < 120);
    }
}
