//! The states of a machine, and the legal moves between them, once.

use serde::{Deserialize, Serialize};

/// Where a machine stands. Written down before the side effects that the state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is decided what is to be made; nothing is.
    Planned,
    /// Its disks, directory, keys and network are being made.
    Provisioned,
    /// It is being started: from here on a process or a cloud's instance may be there.
    Launched,
    /// It is there, and its supervisor does not answer yet.
    Booting,
    /// Its supervisor answers.
    Ready,
    /// It is asked to end.
    Stopping,
    /// It is being removed.
    Destroying,
    /// Nothing of it is left.
    Destroyed,
}

impl State {
    /// Every state, in the order of a machine's life.
    pub const ALL: [Self; 8] = [
        Self::Planned,
        Self::Provisioned,
        Self::Launched,
        Self::Booting,
        Self::Ready,
        Self::Stopping,
        Self::Destroying,
        Self::Destroyed,
    ];

    /// May a machine go from this state to that one? Forward one by one; and from everywhere to its end.
    pub fn may_become(self, next: Self) -> bool {
        use State::{Booting, Destroyed, Destroying, Launched, Planned, Provisioned, Ready, Stopping};
        match next {
            Planned => false,
            Provisioned => self == Planned,
            Launched => self == Provisioned,
            Booting => self == Launched,
            Ready => self == Booting,
            Stopping => matches!(self, Launched | Booting | Ready),
            Destroying => self < Destroying,
            Destroyed => self == Destroying,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_can_end_and_none_comes_back() {
        for state in State::ALL {
            assert_eq!(state.may_become(State::Destroying), state < State::Destroying);
            assert!(!State::Destroyed.may_become(state), "{state:?}");
            assert!(!state.may_become(state), "{state:?}");
        }
    }
}
