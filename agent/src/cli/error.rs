//! Every error that ends a command: whose fault it is, what to do, and the exit code.

use std::error::Error;

use crate::environment::HoldError;
use navvy_checkout::{CheckoutError, GitError};
use navvy_docker::EngineError;
use navvy_docker::endpoint::EndpointError;
use navvy_environment::supervisor::ClientError;
use navvy_job::chain::chain;
use navvy_job::outcome::Blame;
use navvy_storage::StorageError;

use crate::run_store::RunStoreError;
use crate::settings::NoDirectory;
use crate::task::NoteError;

/// An error as a person gets it.
#[derive(Debug)]
pub struct CliError {
    blame: Blame,
    message: String,
    hints: Vec<String>,
}

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Blame::Usage, message)
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Blame::Config, message)
    }

    /// Of a call of the system that nothing of ours explains.
    pub fn infra(error: &dyn Error) -> Self {
        Self::of(Blame::Infra, error)
    }

    pub fn infra_text(message: impl Into<String>) -> Self {
        Self::new(Blame::Infra, message)
    }

    fn of(blame: Blame, error: &dyn Error) -> Self {
        match blame {
            Blame::Engine => Self::new(blame, chain(error)).hint("`navvy doctor` looks at Docker step by step."),
            _ => Self::new(blame, chain(error)),
        }
    }

    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
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
        self.blame.exit_code()
    }

    /// All of it, for where there is one line.
    pub fn in_one_line(&self) -> String {
        let mut text = self.message.clone();
        for hint in &self.hints {
            text.push_str(if text.ends_with(['.', '?', '!']) { " " } else { ". " });
            text.push_str(hint);
        }
        text
    }

    pub fn render(&self) -> String {
        let mut text = format!("Error: {}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("Hint: {hint}\n"));
        }
        text
    }
}

/// Whose fault an error is by its kind.
macro_rules! blamed {
    ($($blame:ident: $($error:ty),+;)+) => {$($(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::of(Blame::$blame, &error)
            }
        }
    )+)+};
}

blamed! {
    Engine: EndpointError, EngineError;
    Infra: CheckoutError, ClientError, GitError, HoldError, NoDirectory, NoteError, RunStoreError, StorageError;
}

#[cfg(test)]
mod tests {
    use navvy_job::exit_code;
    use navvy_storage::SettingsError;

    use super::*;
    use crate::settings::store::StoreError;

    #[test]
    fn whose_fault_an_error_is_decides_how_the_program_ends() {
        let no_engine = CliError::from(EndpointError::NoEndpoint { name: "far".into() });
        assert_eq!(no_engine.exit_code(), exit_code::NO_DOCKER);
        assert!(no_engine.render().contains("Hint: `navvy doctor`"), "{}", no_engine.render());
        let no_store = RunStoreError::Settings(StoreError::Settings(SettingsError::NoHome).into());
        let no_store = CliError::from(no_store);
        assert_eq!(no_store.exit_code(), exit_code::INFRA);
        assert!(no_store.message().contains("--store") && !no_store.render().contains("Hint"), "{}", no_store.render());
    }

    #[test]
    fn causes_are_told() {
        let source = StorageError::Source(std::io::Error::other("no disk")).into();
        let layers = CliError::from(RunStoreError::Layers { count: 3, source });
        assert_eq!(layers.message(), "3 of its layers: failed to read what was to be stored: no disk");
    }
}
