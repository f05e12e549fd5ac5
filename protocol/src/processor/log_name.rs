//! The name of a log: one spelling each, so that a name from a wire may stand in a path and in a key.

use std::fmt;

use super::FormError;

/// Whose log it is. Names are `NNN-A` for attempt A of step NNN, and `service-K` for service container K.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogName {
    /// Of one attempt at a step.
    Step {
        /// From 1; 0 is "Spin up environment".
        step: u32,
        /// From 1.
        attempt: u32,
    },
    /// Of a service container, from 0.
    Service(u32),
}

impl LogName {
    /// Reads a name, which must be spelled as [`fmt::Display`] writes it.
    ///
    /// # Errors
    /// It is no log's name.
    pub fn read(text: &str) -> Result<Self, FormError> {
        let read = || match text.strip_prefix("service-") {
            Some(service) => Some(Self::Service(service.parse().ok()?)),
            None => {
                let (step, attempt) = text.split_once('-')?;
                Some(Self::Step { step: step.parse().ok()?, attempt: attempt.parse().ok().filter(|nth| *nth > 0)? })
            }
        };
        // Numbers have many spellings: `+1`, `01`.
        read().filter(|name| name.to_string() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            FormError(format!("{shown:?} is no log; logs are named 003-1 for step 3, attempt 1, and service-0"))
        })
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, attempt } => write!(f, "{step:03}-{attempt}"),
            Self::Service(service) => write!(f, "service-{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_log_has_one_name() {
        for name in ["000-1", "003-12", "999-1", "1000-1", "service-0", "service-17"] {
            assert_eq!(LogName::read(name).unwrap().to_string(), name);
        }
        for odd in [
            "",
            "-",
            "3-1",
            "0003-1",
            "003-0",
            "003-01",
            "003-+1",
            "003-1.log",
            "003-1/../x",
            "../003-1",
            "service-",
            "service-00",
            "service--1",
            "service-+1",
            "003 -1",
            "003-1\n",
            "٣٣٣-1",
            "4294967296-1",
            "service-99999999999",
        ] {
            let error = LogName::read(odd).unwrap_err().to_string();
            assert!(error.contains("is no log; logs are named 003-1"), "{odd:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_text_that_is_read_is_its_own_name(text in "(service-|[0-9]{1,4}-)?[-+0-9./a]{0,6}") {
            if let Ok(name) = LogName::read(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
