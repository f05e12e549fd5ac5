//! The main thread: takes ended orphans, forwards signals, waits for a reason to end.

use std::io;
use std::os::fd::AsFd as _;

use super::entrypoint::Entrypoint;
use super::{GRACE, Init};
use crate::exec::stop_all;
use crate::sys::{self, Signals};
use crate::{failure, lock};

const FORWARDED: [i32; 5] = [libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
const ENDING: [i32; 2] = [libc::SIGTERM, libc::SIGINT];

pub fn block_signals() -> io::Result<Signals> {
    let mut signals = vec![libc::SIGCHLD];
    signals.extend(FORWARDED.iter().chain(&ENDING));
    Signals::block(&signals)
}

/// The exit code, when everything has been stopped.
pub fn until_the_end(init: &Init, signals: &Signals, entrypoint: Option<&Entrypoint>) -> u8 {
    let mut ending = false;
    loop {
        if let Some(code) = *lock(&init.quit.code) {
            return code;
        }
        let mut entries = [
            sys::poll_entry(Some(signals.as_fd()), libc::POLLIN, true),
            sys::poll_entry(Some(init.quit.event.as_fd()), libc::POLLIN, true),
            sys::poll_entry(entrypoint.map(|entrypoint| entrypoint.notes.0.as_fd()), libc::POLLIN, !ending),
        ];
        sys::poll(&mut entries, None);
        while let Some(signal) = signals.next() {
            ending |= ENDING.contains(&signal);
            handle(init, signal, entrypoint);
        }
        if entries[2].revents != 0
            && let Some(code) = entrypoint.and_then(Entrypoint::ended)
        {
            ending = true;
            *lock(&init.main_ended) = Some(code);
            end(init, code);
        }
    }
}

fn handle(init: &Init, signal: i32, entrypoint: Option<&Entrypoint>) {
    match signal {
        libc::SIGCHLD => reap(init),
        signal if ENDING.contains(&signal) => end(init, 0),
        signal => {
            if let Some(entrypoint) = entrypoint {
                // It may have ended just now.
                let _ = sys::kill(entrypoint.pid, signal);
            }
        }
    }
}

fn reap(init: &Init) {
    while let Some(ended) = sys::reap() {
        init.execs.orphan_ended(ended.pid, ended.status);
    }
}

/// Stops everything beside this thread, which must go on reaping.
fn end(init: &Init, code: u8) {
    std::thread::scope(|scope| {
        let stopping = std::thread::Builder::new().stack_size(crate::sys::THREAD_STACK).spawn_scoped(scope, || {
            stop_all(init, GRACE);
        });
        match stopping {
            Ok(stopping) => {
                while !stopping.is_finished() {
                    reap(init);
                    sys::poll(&mut [], Some(std::time::Duration::from_millis(5)));
                }
            }
            // No room for a thread: stop from here; what ends stays a zombie, which does not count as running.
            Err(error) => {
                crate::cli::complain(0, &failure::no_process(&error).message);
                stop_all(init, GRACE);
            }
        }
    });
    init.quit(code);
}
