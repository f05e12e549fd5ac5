//! The machine's end.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{cli, failure, kernel, sys};

/// Switches the machine off: at once as its first process, else by asking systemd. Returns where neither can be done.
pub fn off() {
    if sys::pid() == 1 {
        let error = kernel::power_off();
        cli::complain(1, &format!("navvy-supervisor: cannot switch the machine off: {}", failure::text(&error)));
        // The first process must not end: a kernel that panics says less than the line above.
        loop {
            std::thread::park();
        }
    }
    let asked = std::process::Command::new("systemctl").args(["--no-block", "poweroff"]).status();
    if !asked.is_ok_and(|status| status.success()) {
        cli::complain(1, "navvy-supervisor: systemctl could not switch the machine off.");
    }
}

/// A fault of ours ends the machine with a line on its console: half a supervisor would be worse.
pub fn off_on_panic() {
    static IS_PANICKING: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|panic| {
        if IS_PANICKING.swap(true, Ordering::AcqRel) {
            return;
        }
        cli::complain(1, &format!("navvy-supervisor: a fault of its own; the machine ends: {panic}"));
        off();
    }));
}
