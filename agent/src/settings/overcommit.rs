//! How many times the machine's processors are given out.

use std::fmt;
use std::str::FromStr;

use navvy_job::resource::Size;
use serde::Deserialize;

/// A task that waits for the network uses no processor: more of them than the machine has can be given out. Memory is given
/// out once: what a task has taken of it, no other can use meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Overcommit {
    /// Thousandths.
    times: u32,
}

/// Beyond this everything only waits for everything else.
const MOST: f64 = 16.0;

/// No number of times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number from 1 (processors are given out once) to {MOST}, such as 1.5 or 2")]
pub struct NoOvercommit(String);

impl Overcommit {
    /// The part of this machine that may be given out.
    pub fn of(self, machine: Size) -> Size {
        Size { millicpus: machine.millicpus.saturating_mul(u64::from(self.times)) / 1000, ..machine }
    }

    /// Is anything given out more than once?
    pub fn is_any(self) -> bool {
        self.times > 1000
    }
}

impl Default for Overcommit {
    /// Once: docs/navvy-run.md says why.
    fn default() -> Self {
        Self { times: 1000 }
    }
}

impl TryFrom<f64> for Overcommit {
    type Error = NoOvercommit;

    fn try_from(times: f64) -> Result<Self, NoOvercommit> {
        if !(1.0..=MOST).contains(&times) {
            return Err(NoOvercommit(times.to_string()));
        }
        // At most 16,000.
        Ok(Self { times: (times * 1000.0).round() as u32 })
    }
}

impl FromStr for Overcommit {
    type Err = NoOvercommit;

    fn from_str(text: &str) -> Result<Self, NoOvercommit> {
        let times: f64 = text.parse().map_err(|_| NoOvercommit(text.to_owned()))?;
        Self::try_from(times).map_err(|_| NoOvercommit(text.to_owned()))
    }
}

impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.times) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_given_out_several_times_and_memory_once() {
        let machine = Size::new(2, 8);
        let twice: Overcommit = "2".parse().unwrap();
        assert_eq!(twice.of(machine), Size::new(4, 8));
        assert_eq!("1.5".parse::<Overcommit>().unwrap().of(machine), Size::new(3, 8));
        assert_eq!(Overcommit::default().of(machine), machine);
        assert!(twice.is_any() && !Overcommit::default().is_any());
        assert_eq!(("2".parse(), twice.to_string()), (Ok(twice), "2".to_owned()));
    }

    #[test]
    fn what_is_no_number_of_times_is_refused_with_what_would_be() {
        for text in ["", "0", "0.5", "-2", "17", "nan", "inf", "two", "2x"] {
            let refused = text.parse::<Overcommit>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`{text}` is not a number from 1")), "{refused}");
        }
    }
}
