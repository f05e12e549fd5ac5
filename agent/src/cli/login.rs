//! `navvy login`, `navvy logout`: where a processor is, and the token for it, kept for later commands.
//!
//! ```text
//! URL ─▶ address      FILE, standard input or a question ─▶ token
//!            └──────────────┬─────────────────────────────────┘
//!                 one call tries both ─▶ ~/.config/navvy/login.toml, 0600
//! ```

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_protocol::api;
use rustix::termios::{self, LocalModes, OptionalActions};

use super::args::remote::LoginArgs;
use super::processor::{client, failed, no_way, project};
use super::{CliError, host, out};
use crate::remote::RemoteError;
use crate::remote::address::{Address, LONGEST_TOKEN, Token};
use crate::remote::login::{Access, CA_FILE, token_of};
use crate::settings::Settings;

pub fn run(settings: &Settings, arguments: &LoginArgs) -> Result<u8, CliError> {
    let path = place(settings)?;
    let address = Address::parse(&arguments.url, arguments.plaintext).map_err(|error| no_way(&error.into()))?;
    let token = token(settings, arguments)?;
    let ca = arguments.ca.clone().or(settings.get(CA_FILE).filter(|path| !path.is_empty()).map(Into::into));
    let access = Access { address, token, ca };
    let at = access.address.shown().to_owned();
    host::block_on(try_it(settings, access.clone()))?;
    let kept = access.keep(path, arguments.plaintext);
    kept.map_err(|error| CliError::infra_text(format!("failed to write {}: {error}", path.display())))?;
    out::print(&format!("Address and token of {} are kept in {}\n", navvy_ui::sanitize::clean(&at), path.display()))?;
    Ok(exit_code::PASSED)
}

pub fn forget(settings: &Settings) -> Result<u8, CliError> {
    let path = place(settings)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => out::print("Nothing is kept.\n")?,
        Err(error) => return Err(CliError::infra_text(format!("failed to remove {}: {error}", path.display()))),
        Ok(()) => {
            out::print(&format!("{} is removed. The token itself is still good: revoke it there.\n", path.display()))?;
        }
    }
    Ok(exit_code::PASSED)
}

fn place(settings: &Settings) -> Result<&Path, CliError> {
    settings.login.as_deref().ok_or_else(|| {
        CliError::usage("there is no place to keep it: neither XDG_CONFIG_HOME nor HOME is set")
            .hint("Set one of them, or name processor and token with each command.")
    })
}

/// A token that is wrong is better refused now than by the next command.
async fn try_it(settings: &Settings, access: Access) -> Result<(), CliError> {
    // Any project will do: that there is none of this name is as good an answer.
    let slug = project(settings, None).unwrap_or_else(|_| "gh/none/none".to_owned());
    let client = client(settings, access)?;
    let asked = client.get::<api::Page<api::Pipeline>>(&["pipeline"], &[("project", slug)]).await;
    match asked {
        Err(RemoteError::Refused { status: 403 | 404, problem }) => {
            tracing::debug!(message = problem.message, "The processor knows the token, and nothing of this project.");
            Ok(())
        }
        other => other.map(drop).map_err(failed),
    }
}

fn token(settings: &Settings, arguments: &LoginArgs) -> Result<Token, CliError> {
    let refused = |error| CliError::usage(chain(&error));
    match arguments.token_file.as_deref() {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            let read = io::stdin().lock().take(LONGEST_TOKEN as u64 + 64).read_to_string(&mut text);
            read.map_err(|error| CliError::usage(format!("--token-file -: {error}")))?;
            Token::parse(&text).map_err(|error| CliError::usage(format!("--token-file -: {error}")))
        }
        Some(path) => token_of(path).map_err(refused),
        None if settings.stdin_is_terminal && settings.stderr_is_terminal => {
            Token::parse(&asked()?).map_err(|error| CliError::usage(error.to_string()))
        }
        None => Err(CliError::usage("there is no terminal to ask for the token on")
            .hint("Name a file with `--token-file FILE`; `-` is standard input.")),
    }
}

/// What is typed is not shown.
fn asked() -> Result<String, CliError> {
    let failed = |error: io::Error| CliError::infra_text(format!("failed to ask for the token: {error}"));
    let stdin = io::stdin();
    let before = termios::tcgetattr(stdin.as_fd()).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let mut stderr = io::stderr().lock();
    write!(stderr, "Token: ").and_then(|()| stderr.flush()).map_err(failed)?;
    termios::tcsetattr(stdin.as_fd(), OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let mut line = String::new();
    let read = stdin.lock().take(LONGEST_TOKEN as u64 + 64).read_line(&mut line);
    // Whatever came of it, the terminal is as it was.
    termios::tcsetattr(stdin.as_fd(), OptionalActions::Flush, &before).map_err(|error| failed(error.into()))?;
    writeln!(stderr).map_err(failed)?;
    read.map_err(failed)?;
    Ok(line)
}
