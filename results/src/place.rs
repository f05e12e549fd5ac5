//! Where a test failed, by what it says.

/// Finds `FILE:LINE`: the test's own file if that is known, with the line that the report or the message names; else the first
/// of the message that looks like a place in a source.
pub fn place(file: Option<&str>, line: Option<u32>, message: &str) -> Option<String> {
    let mut mentions = mentions(message);
    let Some(file) = file else {
        return mentions.next().map(|(path, line)| format!("{path}:{line}"));
    };
    let name = file.rsplit('/').next().unwrap_or(file);
    let own = || mentions.find(|(path, _)| path.rsplit('/').next() == Some(name)).map(|(_, line)| line);
    Some(line.or_else(own).map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
}

/// All `PATH.EXT:LINE` of a text, in order.
fn mentions(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.match_indices(':').filter_map(|(colon, _)| {
        let digits = text[colon + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let line = text[colon + 1..colon + 1 + digits.min(7)].parse().ok().filter(|line| *line > 0)?;
        let before = &text[..colon];
        let from = before
            .rfind(|c: char| !is_of_path(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let path = &before[from..];
        let (stem, end) = path.rsplit_once('.')?;
        let is_source = !stem.is_empty()
            && end.len() <= 8
            && end.starts_with(|c: char| c.is_ascii_alphabetic())
            && end.chars().all(|c| c.is_ascii_alphanumeric());
        // `host.example:8080` has no directory, and a letter or two are no host's end.
        (is_source && (path.contains('/') || end.len() <= 5)).then_some((path, line))
    })
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_many_tongues() {
        let rspec = "expected 12\n# ./lib/cart.rb:9\n# ./spec/cart_spec.rb:14:in `block'";
        let pytest = "def test_x():\n>   assert 1 == 2\n\ntests/test_x.py:7: AssertionError";
        let jest = "Error: boom\n    at Object.<anonymous> (src/__tests__/a.test.ts:3:9)";
        for (file, message, expected) in [
            (Some("spec/cart_spec.rb"), rspec, Some("spec/cart_spec.rb:14")),
            (None, pytest, Some("tests/test_x.py:7")),
            (None, "at shop.CartTest.total(CartTest.java:42)", Some("CartTest.java:42")),
            (None, jest, Some("src/__tests__/a.test.ts:3")),
            (None, "cart_test.go:12: got 3", Some("cart_test.go:12")),
            (Some("a.py"), "b.py:3", Some("a.py")),
            (None, "connection to localhost:8080 refused at 12:30:05 ::1", None),
            (None, "grün.rs:5", Some("grün.rs:5")),
            (None, ":1 .rs:1 a.rs:0 b.rs:99999999999999", Some("b.rs:9999999")),
            (None, "", None),
        ] {
            assert_eq!(place(file, None, message).as_deref(), expected, "{message}");
        }
        assert_eq!(place(Some("a.py"), Some(3), "a.py:9").as_deref(), Some("a.py:3"));
    }
}
