//! Which shell runs a command.

use std::fmt;

const WITH_BASH: &str = "/bin/bash -eo pipefail";
const WITHOUT_BASH: &str = "/bin/sh -eo pipefail";

/// A shell with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// As written, or the default.
    text: String,
    words: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    #[error("shell `{text}` has an open quote; close it, or write the shell without quotes")]
    Quotes { text: String },
    #[error("shell is empty; remove the key, or name a program such as `/bin/sh`")]
    Empty,
}

impl Shell {
    /// Step before job before default: bash if the environment has it, else sh.
    pub fn resolve(step: Option<&str>, job: Option<&str>, has_bash: bool) -> Result<Self, ShellError> {
        let default = if has_bash { WITH_BASH } else { WITHOUT_BASH };
        let text = step.or(job).unwrap_or(default);
        let words = shell_words::split(text).map_err(|_| ShellError::Quotes { text: text.to_owned() })?;
        if words.is_empty() {
            return Err(ShellError::Empty);
        }
        Ok(Self { text: text.to_owned(), words })
    }

    /// The whole command line for `command`.
    pub fn argv(&self, command: &str) -> Vec<String> {
        let mut argv = self.words.clone();
        // People do write `bash -euo pipefail -c`; a second `-c` would be taken as the command by some programs.
        if argv.len() == 1 || argv.last().is_none_or(|last| last != "-c") {
            argv.push("-c".to_owned());
        }
        argv.push(command.to_owned());
        argv
    }

    pub fn program(&self) -> &str {
        &self.words[0]
    }
}

impl fmt::Display for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_shell_wins() {
        let shell = |step, job, bash| Shell::resolve(step, job, bash).unwrap().to_string();
        assert_eq!(shell(Some("/bin/ash"), Some("/bin/zsh"), true), "/bin/ash");
        assert_eq!(shell(None, Some("/bin/zsh"), true), "/bin/zsh");
        assert_eq!(shell(None, None, true), "/bin/bash -eo pipefail");
        assert_eq!(shell(None, None, false), "/bin/sh -eo pipefail");
    }

    #[test]
    fn a_shell_that_ends_in_c_gets_no_second_one() {
        let shell = Shell::resolve(Some("/usr/bin/env bash -euo pipefail -c"), None, true).unwrap();
        assert_eq!(shell.argv("x"), ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", "x"]);
    }

    #[test]
    fn nonsense_is_refused_with_advice() {
        assert_eq!(Shell::resolve(Some("  "), None, true), Err(ShellError::Empty));
        assert!(Shell::resolve(Some("bash 'x"), None, true).is_err());
    }
}
