//! A panic is a bug of ours, and no reason to leave anything behind: it ends the command, not the care for what it made.
//!
//! ```text
//! command ─ panic ─▶ hook: said, masked ─▶ caught here ─▶ this process's tasks removed ─▶ exit 3
//! ```
//!
//! What aborts (a panic during a panic, no memory) is as a SIGKILL: the next start removes what was left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use navvy_environment::survey::{Seen, survey_files};
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;

use super::CliError;
use super::host::{block_on, connect, machines};
use super::rm::is_in_a_machine;
use crate::environment::Providers;
use crate::settings::Settings;

/// The engine gets this long to remove what there is.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// Carries out a command. `docker`: how it reaches the engine, if it makes anything there.
pub fn caught(
    settings: &Settings,
    docker: Option<Option<String>>,
    command: impl FnOnce() -> Result<u8, CliError>,
) -> Result<u8, CliError> {
    match catch_unwind(AssertUnwindSafe(command)) {
        Ok(done) => done,
        Err(_) => Err(bug(docker.map_or_else(Vec::new, |docker| clean_up(settings, docker.as_deref())))),
    }
}

/// Removes what this process has made. What is still there, if anything is.
pub fn clean_up(settings: &Settings, docker: Option<&str>) -> Vec<String> {
    let removal = || {
        block_on(async {
            let here = Owner::this_process().map_err(|error| CliError::infra(&error))?;
            let (machines, engine) = (machines(settings).ok(), connect(settings, docker).await);
            let own = |seen: &Seen| matches!(&seen.condition, Condition::Running(owner) if *owner == here);
            let seen = survey_files(&here, &settings.paths).tasks;
            let docker = match engine {
                Ok(engine) => Some(engine),
                Err(error) if seen.iter().any(|seen| own(seen) && !is_in_a_machine(seen)) => return Err(error),
                // A run that had machines alone has never needed one.
                Err(_) => None,
            };
            let providers = Providers::new(docker, machines);
            Ok(providers.remove_own(&here, &settings.paths, REMOVAL_LIMIT).await)
        })
    };
    match catch_unwind(AssertUnwindSafe(removal)) {
        Ok(Ok(removed)) => removed.left,
        Ok(Err(error)) => vec![format!("what this run made ({})", error.message())],
        Err(_) => vec!["what this run made".to_owned()],
    }
}

fn bug(left: Vec<String>) -> CliError {
    let error = CliError::infra_text("Navvy stopped because of a bug of its own; the lines above say where")
        .hint("Please report it with these lines. `NAVVY_LOG=debug` and `RUST_BACKTRACE=1` tell more.");
    match left.is_empty() {
        true => error,
        false => error.hint(format!("Still there: {}. `navvy prune` removes it.", left.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_exit_code_3_and_says_that_it_is_a_bug() {
        let settings = Settings::from_process();
        let ended = caught(&settings, None, || panic!("a bug of this test"));
        let error = ended.unwrap_err();
        assert_eq!(error.exit_code(), navvy_job::exit_code::INFRA);
        assert!(error.render().contains("bug of its own"), "{}", error.render());
        assert_eq!(caught(&settings, None, || Ok(7)).unwrap(), 7);
    }
}
