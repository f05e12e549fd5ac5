//! The end of a process whose main thread is stuck in a call of the system: a disk or a file server that does not answer, a
//! pipe that is not read.

use std::sync::Arc;
use std::time::Duration;

use navvy_job::exit_code;
use navvy_ui::{live, sanitize};
use tokio::sync::oneshot;

use crate::cli::{CliError, own_words, panicked};
use crate::settings::Settings;

/// For asking the engine and removing what it has.
const CLEANING: Duration = Duration::from_secs(30);
/// Standard error may be what is stuck.
const SAYING: Duration = Duration::from_secs(1);

/// What it takes to end without the main thread.
#[derive(Clone)]
pub struct LastResort {
    settings: Settings,
    docker: Option<String>,
    last_word: Option<LastWord>,
}

/// Gets the exit code, and why it ended.
pub type LastWord = Arc<dyn Fn(u8, &str) + Send + Sync>;

impl LastResort {
    pub fn new(settings: &Settings, docker: Option<&str>) -> Self {
        Self { settings: settings.clone(), docker: docker.map(str::to_owned), last_word: None }
    }

    /// Told to whoever started the process, as its last act.
    pub fn with_last_word(self, last_word: LastWord) -> Self {
        Self { last_word: Some(last_word), ..self }
    }

    /// Removes what this process has made, says so, and ends the process; at once when `another` signal comes.
    pub(super) async fn end(self, another: impl Future<Output = ()>) {
        live::let_go();
        // A thread that waits for standard error would wait with what it has to do.
        own_words::be_silent();
        let (done, cleaned) = oneshot::channel();
        let Self { settings, docker, last_word } = self;
        let cleaning = move || done.send(panicked::clean_up(&settings, docker.as_deref()));
        // Its end is not waited for: what it reads may be what does not answer.
        let left = match std::thread::Builder::new().name("clean-up".to_owned()).spawn(cleaning) {
            Ok(_) => tokio::select! {
                left = tokio::time::timeout(CLEANING, cleaned) => left.ok().and_then(Result::ok),
                () = another => None,
            },
            Err(_) => None,
        };
        let left = left.unwrap_or_else(|| vec!["what this run made".to_owned()]);
        let code = if left.is_empty() { exit_code::CANCELED } else { exit_code::INFRA };
        say(&words(&left)).await;
        if let Some(last_word) = last_word {
            let message = error(&left).in_one_line();
            // The disk may be what is stuck.
            tokio::time::timeout(SAYING, tokio::task::spawn_blocking(move || last_word(code, &message))).await.ok();
        }
        exit(code);
    }
}

fn words(left: &[String]) -> String {
    sanitize::tame(&own_words::masked(&error(left).render()), false)
}

fn error(left: &[String]) -> CliError {
    let error = CliError::infra_text("the run was ended in the middle: a call of the system did not return").hint(
        "A disk or a file server does not answer, or standard error or output leads to a reader that does not read. What was \
         being written is not complete.",
    );
    match left.is_empty() {
        true => error,
        false => error.hint(format!("Still there: {}. `navvy prune` removes it.", left.join(", "))),
    }
}

/// Past the lock of standard error, and not for long.
async fn say(text: &str) {
    let text = text.as_bytes().to_vec();
    let writing = tokio::task::spawn_blocking(move || rustix::io::write(std::io::stderr(), &text));
    tokio::time::timeout(SAYING, writing).await.ok();
}

#[expect(clippy::disallowed_methods, clippy::exit, reason = "main itself does not come to its end")]
fn exit(code: u8) -> ! {
    std::process::exit(code.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_why_it_ended_and_what_is_left() {
        let text = words(&[]);
        assert!(
            text.starts_with("Error: the run was ended in the middle: a call of the system did not return\n"),
            "{text}"
        );
        assert!(!text.contains("Still there"), "{text}");
        let text = words(&["container navvy-x-primary".to_owned()]);
        assert!(text.contains("Still there: container navvy-x-primary. `navvy prune` removes it."), "{text}");
    }
}
