//! What several runs of the same tests say together. Pure.

use std::collections::BTreeMap;

use super::{Case, Outcome};

/// A test that passes in some runs and fails in others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaky {
    /// Class and name, for people.
    pub title: String,
    /// As the report has it.
    pub file: Option<String>,
    /// Runs in which it failed, or passed at a later attempt only.
    pub bad: usize,
    /// Runs in which it ran.
    pub of: usize,
}

/// The tests that took longest, the longest first.
pub fn slowest(cases: &[Case], count: usize) -> Vec<&Case> {
    let mut timed: Vec<&Case> = cases.iter().filter(|case| case.micros.is_some_and(|micros| micros > 0)).collect();
    timed.sort_by_key(|case| std::cmp::Reverse(case.micros));
    timed.truncate(count);
    timed
}

/// What is the same test in another run: file, class, name.
type Key<'a> = (Option<&'a str>, Option<&'a str>, &'a str);

/// The flaky tests of runs that are given in their order: a test that failed and then passed may have been mended, one that failed and passed and failed
/// again was not. Or one that passed at a later attempt. The worst first.
pub fn flaky(runs: &[Vec<Case>]) -> Vec<Flaky> {
    let mut tests: BTreeMap<Key<'_>, Vec<Outcome>> = BTreeMap::new();
    for run in runs {
        let mut worst: BTreeMap<_, Outcome> = BTreeMap::new();
        for case in run.iter().filter(|case| case.outcome != Outcome::Skipped) {
            let key: Key<'_> = (case.file.as_deref(), case.class.as_deref(), case.name.as_str());
            let outcome = worst.entry(key).or_default();
            *outcome = (*outcome).max(case.outcome);
        }
        for (key, outcome) in worst {
            tests.entry(key).or_default().push(outcome);
        }
    }
    let flaky = tests.into_iter().filter(|(_, outcomes)| is_flaky(outcomes));
    let mut flaky: Vec<Flaky> = flaky
        .map(|((file, class, name), outcomes)| Flaky {
            title: Case { class: class.map(str::to_owned), name: name.to_owned(), ..Case::default() }.title(),
            file: file.map(str::to_owned),
            bad: outcomes.iter().filter(|outcome| **outcome != Outcome::Passed).count(),
            of: outcomes.len(),
        })
        .collect();
    flaky.sort_by(|a, b| (b.bad * a.of, &a.title).cmp(&(a.bad * b.of, &b.title)));
    flaky
}

fn is_flaky(outcomes: &[Outcome]) -> bool {
    let turns = outcomes.windows(2).filter(|pair| pair[0].is_bad() != pair[1].is_bad()).count();
    turns >= 2 || outcomes.contains(&Outcome::Flaky)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome, micros: u64) -> Case {
        Case { name: name.to_owned(), outcome, micros: Some(micros), ..Case::default() }
    }

    #[test]
    fn what_turns_back_and_forth_is_flaky() {
        use Outcome::{Errored, Failed, Flaky as Later, Passed, Skipped};
        let table: [(&str, [Outcome; 4]); 7] = [
            ("steady", [Passed, Passed, Passed, Passed]),
            ("broken", [Passed, Passed, Failed, Failed]),
            ("mended", [Failed, Failed, Passed, Passed]),
            ("flaky", [Passed, Failed, Passed, Passed]),
            ("worse", [Failed, Passed, Errored, Passed]),
            ("later", [Passed, Later, Passed, Passed]),
            ("skipped", [Failed, Skipped, Skipped, Passed]),
        ];
        let runs: Vec<Vec<Case>> =
            (0..4).map(|run| table.iter().map(|(name, outcomes)| case(name, outcomes[run], 1)).collect()).collect();
        let found: Vec<(String, usize, usize)> =
            flaky(&runs).into_iter().map(|flaky| (flaky.title, flaky.bad, flaky.of)).collect();
        assert_eq!(found, [("worse".into(), 2, 4), ("flaky".into(), 1, 4), ("later".into(), 1, 4)]);
        assert_eq!(flaky(&[]), []);
    }

    #[test]
    fn one_failing_row_of_a_test_makes_it_fail() {
        let table = |second| vec![case("row", Outcome::Passed, 1), case("row", second, 1)];
        let runs = [table(Outcome::Passed), table(Outcome::Failed), table(Outcome::Passed)];
        assert_eq!(flaky(&runs).len(), 1);
    }

    #[test]
    fn the_slowest_come_first() {
        let cases = [case("a", Outcome::Passed, 3), case("b", Outcome::Failed, 9), case("c", Outcome::Passed, 0)];
        let names: Vec<&str> = slowest(&cases, 5).iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(slowest(&cases, 1).len(), 1);
    }
}
