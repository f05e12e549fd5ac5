//! Signals by the names that jobs and operators write.

use rustix::process::Signal;

/// `SIGTERM`, `TERM`, `sigterm`.
pub fn signal(name: &str) -> Option<Signal> {
    let upper = name.to_ascii_uppercase();
    Some(match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ABRT" => Signal::ABORT,
        "KILL" => Signal::KILL,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TERM" => Signal::TERM,
        "CONT" => Signal::CONT,
        "STOP" => Signal::STOP,
        "TSTP" => Signal::TSTP,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        assert_eq!(
            ["SIGTERM", "term", "Sigusr1"].map(signal),
            [Some(Signal::TERM), Some(Signal::TERM), Some(Signal::USR1)]
        );
        assert_eq!(["", "SIG", "SIGNAL", "15"].map(signal), [None; 4]);
    }
}
