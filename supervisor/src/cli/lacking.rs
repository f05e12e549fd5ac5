//! What only the service has: deploy markers, signed tokens, test suites.
//!
//! The supervisor hears of it, so that the run's report can mention it; a job sees the reason only the first time.

use std::process::ExitCode;

use navvy_protocol::in_job::{Answer, Lack, Question};

use super::{ask, complain};

/// Set by people who want the job to continue without.
const SKIP: &str = "NAVVY_SKIP_MISSING";

/// `length` of the words are the command's name.
pub fn told(words: &[&str], length: usize, what: Lack) -> ExitCode {
    let command = format!("circleci {}", words[..length.min(words.len())].join(" "));
    // Without an answer the reason is given once more rather than not at all.
    let first = !matches!(ask(Question::Lacks { what }), Ok(Answer::Noted { first: false }));
    let why = if first { what.why() } else { "not available here, as explained before" };
    match what {
        Lack::DeployMarkers => complain(0, &format!("{command}: {why}")),
        _ if is_skipped() => complain(0, &format!("{command}: {why} ({SKIP} is set: the job goes on)")),
        _ if first => complain(1, &format!("{command}: {why}. To continue without it: navvy run -e {SKIP}=true")),
        _ => complain(1, &format!("{command}: {why}")),
    }
}

fn is_skipped() -> bool {
    std::env::var(SKIP).is_ok_and(|value| matches!(value.as_str(), "true" | "1"))
}
