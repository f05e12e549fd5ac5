//! The machine's end.

use std::sync::atomic::{AtomicBool, Ordering};

use navvy_protocol::guest::OWN_FAULT;

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
        cli::complain(1, &format!("{OWN_FAULT}: {panic}"));
        off();
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// Set for the process that plays the machine's first one.
    const PLAYED: &str = "NAVVY_TEST_FIRST_PROCESS";

    #[test]
    #[ignore = "the first process of the test below; nowhere else does it do anything"]
    fn first_process() {
        // Whoever else was to end like this would switch off this host.
        if sys::pid() == 1 && std::env::var_os(PLAYED).is_some() {
            off_on_panic();
            panic!("provoked");
        }
    }

    #[test]
    fn a_fault_of_the_first_process_is_told_and_ends_the_machine() {
        let own = std::env::current_exe().unwrap();
        let name = module_path!().split_once("::").unwrap().1;
        // Of a namespace's first process the kernel switches off the namespace.
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).arg(own);
        command.args(["--exact", &format!("{name}::first_process"), "--ignored", "--nocapture", "--test-threads", "1"]);
        let ended = command.env(PLAYED, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(OWN_FAULT) && said.contains("provoked"), "{said}");
        // So it tells of RB_POWER_OFF; a process that went on would have ended by itself, with 101.
        assert_eq!((ended.status.signal(), ended.status.code()), (Some(libc::SIGINT), None), "{said}");
    }
}
