//! Results of tests, in lines for people.

use navvy_job::figures;

use super::{Case, Outcome};

/// Failed tests that are shown, and lines of what each said.
const SHOWN: usize = 20;
const LINES: usize = 3;
const WIDTH: usize = 200;

/// Tests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed at once.
    pub passed: usize,
    /// Passed at a later attempt.
    pub flaky: usize,
    /// Not run.
    pub skipped: usize,
    /// Failed.
    pub failed: usize,
    /// Ended before they could pass or fail.
    pub errored: usize,
    /// What they took together, in microseconds; those without a time count as 0.
    pub micros: u64,
}

impl Counts {
    /// Counts these.
    pub fn of(cases: &[Case]) -> Self {
        let mut counts = Self::default();
        for case in cases {
            *match case.outcome {
                Outcome::Passed => &mut counts.passed,
                Outcome::Flaky => &mut counts.flaky,
                Outcome::Skipped => &mut counts.skipped,
                Outcome::Failed => &mut counts.failed,
                Outcome::Errored => &mut counts.errored,
            } += 1;
            counts.micros = counts.micros.saturating_add(case.micros.unwrap_or(0));
        }
        counts
    }

    /// Those of others, too.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.flaky += other.flaky;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.errored += other.errored;
        self.micros = self.micros.saturating_add(other.micros);
    }

    /// However they ended.
    pub fn all(&self) -> usize {
        self.passed + self.flaky + self.skipped + self.failed + self.errored
    }

    /// `14 tests in 3.2s: 11 passed, 2 failed, 1 skipped`.
    pub fn line(&self) -> String {
        let parts = [
            (self.passed, "passed"),
            (self.flaky, "passed at a later attempt"),
            (self.failed, "failed"),
            (self.errored, "with errors"),
            (self.skipped, "skipped"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let time = figures::duration(self.micros / 1000);
        match self.all() {
            0 => "No tests in them".to_owned(),
            1 => format!("1 test in {time}: {}", parts.join(", ")),
            all => format!("{all} tests in {time}: {}", parts.join(", ")),
        }
    }
}

/// The counts, then the tests that failed with the beginning of what they said.
pub fn lines(cases: &[Case]) -> Vec<String> {
    let mut lines = vec![Counts::of(cases).line()];
    let bad: Vec<&Case> = cases.iter().filter(|case| case.outcome.is_bad()).collect();
    if !bad.is_empty() {
        lines.push("Failed:".to_owned());
    }
    for case in bad.iter().take(SHOWN) {
        let place = case.place.as_ref().map_or_else(String::new, |place| format!(" ({})", one_line(place)));
        lines.push(format!("  {}{place}", one_line(&case.title())));
        let message = case.message.as_deref().unwrap_or_default();
        let said = message.lines().map(str::trim_end).filter(|line| !line.trim().is_empty());
        lines.extend(said.take(LINES).map(|line| format!("      {}", one_line(line))));
    }
    if bad.len() > SHOWN {
        lines.push(format!("  … and {} more", bad.len() - SHOWN));
    }
    lines
}

/// What some reader ends a line at.
const LINE_ENDS: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// Cut to a line's length.
fn one_line(text: &str) -> String {
    let end = text.char_indices().nth(WIDTH).map(|(at, _)| at);
    let line = without_line_ends(&text[..end.unwrap_or(text.len())]);
    if end.is_some() { line + "…" } else { line }
}

/// With spaces in their place.
pub(super) fn without_line_ends(text: &str) -> String {
    text.replace(LINE_ENDS, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> Case {
        Case { name: name.to_owned(), outcome, micros: Some(1_500_000), ..Case::default() }
    }

    #[test]
    fn what_failed_is_shown_with_place_and_words() {
        let bad = Case {
            class: Some("spec.cart".into()),
            message: Some("expected: 12\n\n     got: 11\nmore\nand more".into()),
            place: Some("spec/cart_spec.rb:14".into()),
            ..case("adds", Outcome::Failed)
        };
        let lines = lines(&[case("a", Outcome::Passed), bad, case("b", Outcome::Skipped), case("c", Outcome::Errored)]);
        assert_eq!(
            lines,
            [
                "4 tests in 6.0s: 1 passed, 1 failed, 1 with errors, 1 skipped",
                "Failed:",
                "  spec.cart adds (spec/cart_spec.rb:14)",
                "      expected: 12",
                "           got: 11",
                "      more",
                "  c",
            ]
        );
    }

    /// A report may say anything: what it says begins no line of ours.
    #[test]
    fn a_line_for_each_thing_that_is_said() {
        let bad = Case {
            class: Some("a\rb".into()),
            message: Some("one\rtwo\u{2028}three\nfour\u{b}five\u{85}six".into()),
            place: Some("a.rb\n1 test in 1s: 1 passed:3".into()),
            ..case("c\nd", Outcome::Failed)
        };
        let lines = lines(&[bad]);
        assert_eq!(
            lines[2..],
            ["  a b c d (a.rb 1 test in 1s: 1 passed:3)", "      one two three", "      four five six"]
        );
        let long = Case { place: Some("p".repeat(1000)), ..case("c", Outcome::Failed) };
        assert!(super::lines(&[long])[2].chars().count() < 2 * WIDTH + 10);
    }

    #[test]
    fn counts_of_several_jobs_add_up() {
        let mut all = Counts::of(&[case("a", Outcome::Passed), case("b", Outcome::Failed)]);
        all.add(Counts::of(&[case("c", Outcome::Passed), case("d", Outcome::Skipped), case("e", Outcome::Flaky)]));
        let line = "5 tests in 7.5s: 2 passed, 1 passed at a later attempt, 1 failed, 1 skipped";
        assert_eq!(all.line(), line);
    }

    #[test]
    fn many_failures_are_cut() {
        let cases: Vec<Case> = (0..50).map(|_| case(&"x".repeat(1000), Outcome::Failed)).collect();
        let lines = lines(&cases);
        assert_eq!(lines.len(), 2 + SHOWN + 1);
        assert!(lines[2].chars().count() < WIDTH + 5);
        assert_eq!(lines.last().unwrap(), "  … and 30 more");
        assert_eq!(super::lines(&[]), ["No tests in them"]);
    }
}
