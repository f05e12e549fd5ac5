//! Every error that ends a command: whose fault it is, what to do, and the exit code.

use std::error::Error;

use navvy_job::chain::chain;
use navvy_job::exit_code;

/// An error as a person gets it.
#[derive(Debug)]
pub struct CliError {
    blame: Blame,
    message: String,
    hints: Vec<String>,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The command line.
    Usage,
    /// The config, or a file that was named.
    Config,
    /// This machine's Docker.
    Docker,
    /// Ours, or the machine's.
    Infra,
}

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Blame::Usage, message)
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Blame::Config, message)
    }

    pub fn docker(error: &dyn Error) -> Self {
        Self::new(Blame::Docker, chain(error)).hint("`navvy doctor` looks at Docker step by step.")
    }

    pub fn infra(error: &dyn Error) -> Self {
        Self::new(Blame::Infra, chain(error))
    }

    pub fn infra_text(message: impl Into<String>) -> Self {
        Self::new(Blame::Infra, message)
    }

    fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), hints: Vec::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What went wrong, without advice.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn exit_code(&self) -> u8 {
        match self.blame {
            Blame::Usage => exit_code::USAGE,
            Blame::Config => exit_code::BAD_CONFIG,
            Blame::Docker => exit_code::NO_DOCKER,
            Blame::Infra => exit_code::INFRA,
        }
    }

    pub fn render(&self) -> String {
        let mut text = format!("Error: {}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("Hint: {hint}\n"));
        }
        text
    }
}
