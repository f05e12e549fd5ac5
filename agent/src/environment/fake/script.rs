//! What a fake's commands do.

use std::collections::BTreeSet;

use navvy_environment::request::Died;
use navvy_protocol::supervisor::{Exit, Exited, Failure, Usage};

/// One thing that a command does, in turn. After the last one it exits with 0, if it has not ended before.
#[derive(Debug, Clone)]
pub enum Act {
    /// It writes this to stdout.
    Says(Vec<u8>),
    /// The same, and the supervisor has so many more bytes of it, which do not come yet.
    SaysOf(&'static str, u64),
    /// Its own process ends. What it leaves running ends when it is stopped.
    Ends(Exited),
    /// It runs until it is asked to end, and obeys.
    UntilStopped,
    /// It ignores SIGTERM: only a stop without grace ends it.
    UntilKilled,
    /// It waits for a word of the test's.
    Waits(&'static str),
    /// The supervisor does not start it.
    Refused(Failure),
    /// The connection of whoever follows it breaks, and the next one holds.
    HangsUp,
    /// Every connection breaks, and nobody is reached any more.
    BreaksTheWay,
    /// From now on whoever answers is not the supervisor.
    Babbles,
    /// The environment ends.
    Dies(Died),
}

pub fn says(text: &str) -> Act {
    Act::Says(text.as_bytes().to_vec())
}

/// It exits with this code and leaves nothing.
pub fn exits(code: i32) -> Act {
    Act::Ends(exits_by(Exit::Code(code)))
}

/// As [`exits`], for a test that has more to say of it.
pub fn exits_by(exit: Exit) -> Exited {
    Exited {
        exit,
        output: 0,
        usage: Usage::default(),
        out_of_memory: None,
        halted: false,
        lacks: BTreeSet::new(),
        main_ended: None,
        left_running: 0,
    }
}
