//! `circleci` inside a job.

mod continuation;
mod lacking;
mod options;
mod path_filtering;
mod share;
mod subst;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use navvy_protocol::in_job::{Answer, Lack, MAX_LINE, Question};
use navvy_protocol::place;

/// The command line makes no sense.
pub const USAGE: u8 = 64;

const HELP: &str = "\
The circleci command inside a job.

  circleci env subst [TEXT]     replace $NAME, ${NAME}, ${NAME:-default} … in TEXT or stdin
  circleci step halt            end the job after this step, with the result it has (also: task halt)
  circleci continuation continue --configuration FILE [--parameters JSON|FILE]
                                continue a setup pipeline with this config
  circleci path-filtering set-parameters | generate-config …
                                pipeline parameters from what changed
  circleci tests glob PATTERN…  the files that match, one per line
  circleci tests split, run     this node's share of a list of tests; see --help
  circleci version [--short]    which version this is

What only the service has:

  circleci run release plan | update | log
                                deploy markers: nothing is done, with a message
  circleci run oidc get, circleci testsuite …
                                fail, or do nothing where NAVVY_SKIP_MISSING is true
";

const KNOWN: [&[&str]; 15] = [
    &["env", "subst"],
    &["step", "halt"],
    &["task", "halt"],
    &["continuation", "continue"],
    &["path-filtering", "set-parameters"],
    &["path-filtering", "generate-config"],
    &["tests", "glob"],
    &["tests", "split"],
    &["tests", "run"],
    &["run", "release", "plan"],
    &["run", "release", "update"],
    &["run", "release", "log"],
    &["run", "oidc", "get"],
    &["testsuite"],
    &["version"],
];

pub fn main(arguments: &[String]) -> ExitCode {
    // To `tests` the word means something.
    let drops_it = arguments.first().is_none_or(|first| first != "tests");
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !drops_it || *word != "--verbose").collect();
    match words.as_slice() {
        ["tests", .., "--help" | "-h"] | ["help", "tests", ..] | ["tests"] => say(share::HELP),
        [] | ["help" | "--help" | "-h", ..] | [.., "--help" | "-h"] => say(HELP),
        ["version" | "--version"] => say(&format!("{} (navvy)\n", env!("CARGO_PKG_VERSION"))),
        ["version", "--short"] => say(&format!("{}\n", env!("CARGO_PKG_VERSION"))),
        ["step" | "task", "halt"] => halt(),
        ["env", "subst", text @ ..] => substitute(text),
        ["continuation", "continue", rest @ ..] => continuation::go_on(rest),
        ["path-filtering", rest @ ..] => path_filtering::main(rest),
        ["tests", "glob", patterns @ ..] => share::glob(patterns),
        ["tests", "split", rest @ ..] => share::split(rest),
        ["tests", "run", rest @ ..] => share::run(rest),
        ["run", "release", "plan" | "update" | "log", ..] => lacking::told(words.as_slice(), 3, Lack::DeployMarkers),
        ["run", "oidc", "get", ..] => lacking::told(words.as_slice(), 3, Lack::OidcToken),
        ["run", "testsuite", ..] => lacking::told(words.as_slice(), 2, Lack::TestSuite),
        ["testsuite", ..] => lacking::told(words.as_slice(), 1, Lack::TestSuite),
        words => unknown(words),
    }
}

pub fn say(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

pub fn complain(code: u8, text: &str) -> ExitCode {
    // Without a stderr the exit code has to do.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
    ExitCode::from(code)
}

fn unknown(words: &[&str]) -> ExitCode {
    let shown = words.join(" ");
    let neighbour = neighbour(words).map_or_else(String::new, |near| format!(" Did you mean \"circleci {near}\"?"));
    complain(USAGE, &format!("circleci {shown}: unknown command.{neighbour}\n\n{HELP}"))
}

/// The command that needs the fewest changes, if they are few.
fn neighbour(words: &[&str]) -> Option<String> {
    let typed = |length: usize| words.iter().take(length).copied().collect::<Vec<_>>().join(" ");
    let two = neighbour_of(&typed(2), KNOWN.iter().map(|known| known.join(" ")));
    two.or_else(|| neighbour_of(&typed(3), KNOWN.iter().map(|known| known.join(" "))))
}

/// The known word that needs the fewest changes, if they are few.
fn neighbour_of(typed: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let nearest = known.map(|known| (distance(typed, &known), known)).min()?;
    (nearest.0 <= 3).then_some(nearest.1)
}

/// Insertions, deletions and replacements from one text to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let next = (diagonal + usize::from(a != *b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn halt() -> ExitCode {
    match ask(Question::Halt) {
        Ok(Answer::Halted) => ExitCode::SUCCESS,
        Ok(Answer::Refused { why }) => complain(1, &format!("circleci step halt: refused: {why}")),
        Ok(Answer::Pong { .. } | Answer::Noted { .. }) => {
            complain(1, "circleci step halt: the supervisor answered something else")
        }
        Err(error) => complain(1, &format!("circleci step halt: cannot reach the job's supervisor: {error}")),
    }
}

fn ask(question: Question) -> std::io::Result<Answer> {
    let socket = Path::new(&run_dir()).join(place::JOB_SOCKET);
    let mut stream = UnixStream::connect(socket)?;
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    stream.take(MAX_LINE as u64).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Elsewhere only in tests.
fn run_dir() -> String {
    std::env::var("NAVVY_RUN_DIR").unwrap_or_else(|_| place::RUN_DIR.to_owned())
}

fn substitute(words: &[&str]) -> ExitCode {
    let text = match words {
        [] => {
            let mut text = Vec::new();
            match std::io::stdin().lock().read_to_end(&mut text) {
                Ok(_) => text,
                Err(error) => return complain(1, &format!("circleci env subst: cannot read stdin: {error}")),
            }
        }
        words => words.join(" ").into_bytes(),
    };
    match subst::substitute(&text, &subst::environment()) {
        Ok(bytes) => match std::io::stdout().lock().write_all(&bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(1, &format!("circleci env subst: cannot write: {error}")),
        },
        Err(error) => complain(1, &format!("circleci env subst: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours() {
        assert_eq!(neighbour(&["step", "hlat"]).as_deref(), Some("step halt"));
        assert_eq!(neighbour(&["env", "subs", "x"]).as_deref(), Some("env subst"));
        assert_eq!(neighbour(&["versoin"]).as_deref(), Some("version"));
        assert_eq!(neighbour(&["run", "release", "plann"]).as_deref(), Some("run release plan"));
        assert_eq!(neighbour(&["orb", "publish"]), None);
    }
}
