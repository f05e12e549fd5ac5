//! A supervisor that has just been started answers, and learns that an agent is there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::link::SocketPlace;
use navvy_environment::request::Died;
use navvy_environment::supervisor::{Client, Connect};
use tokio::sync::watch;

use super::error::StartError;

/// From a started container to a supervisor that answers: it takes milliseconds, or never happens.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(10);
/// First and longest pause between two looks at a socket that is about to be there.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LONGEST_LOOK: Duration = Duration::from_millis(5);
/// A socket that refuses us for this long will not change its mind.
const REFUSED_LIMIT: Duration = Duration::from_millis(200);

/// Looks for the socket, more and more rarely, until it answers, its container is gone, or time is up.
pub(super) async fn wait_for_socket(
    place: SocketPlace,
    mut died: watch::Receiver<Option<Died>>,
) -> Result<Arc<dyn Connect>, StartError> {
    let look = async {
        let mut pause = FIRST_LOOK;
        let mut refused = Duration::ZERO;
        loop {
            match place.take_hold() {
                Ok(link) => return Ok(Arc::new(link) as Arc<dyn Connect>),
                // A socket that is not ours to use stays so, but where an older supervisor is between its making and its owner.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => refused += pause,
                Err(_) => {}
            }
            if refused > REFUSED_LIMIT {
                return Err(StartError::unshared(format!("not allowed to use {}", place.path().display())));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    };
    let seen = died.clone();
    tokio::select! {
        found = look => found,
        _ = died.wait_for(Option::is_some) => {
            let why = with_last_words("the container ended at once", &seen);
            Err(StartError::NotShared { why, is_certain: false })
        }
        () = tokio::time::sleep(SUPERVISOR_LIMIT) => {
            Err(StartError::unshared(format!("no socket within {SUPERVISOR_LIMIT:?}")))
        }
    }
}

pub(super) fn with_last_words(text: &str, died: &watch::Receiver<Option<Died>>) -> String {
    match &*died.borrow() {
        Some(Died::Exited { code, last_words, .. }) => {
            format!("{text} (exit code {code}): {}", last_words.trim())
        }
        Some(Died::DiskFloor { message } | Died::EngineLost { message } | Died::MachineEnded { message, .. }) => {
            format!("{text} ({message})")
        }
        None => text.to_owned(),
    }
}

/// Calls the supervisor again and again, so that it knows that an agent is there: a task that waits for room, or between two
/// attempts, has no other conversation with it.
pub(crate) async fn stay_present(link: Arc<dyn Connect>, idle_limit: Duration) {
    let client = Client::new(link);
    // With a call or two that fail there is still time for another.
    let every = idle_limit / 5;
    loop {
        tokio::time::sleep(every).await;
        let client = client.clone();
        // A supervisor that does not answer is found out by the next real request.
        let _not_there = tokio::task::spawn_blocking(move || client.ask_for_life()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use navvy_environment::request::IDLE_LIMIT;

    use super::*;

    /// Counts how often it is called.
    #[derive(Default)]
    struct Called(AtomicUsize);

    impl Connect for Called {
        fn connect(&self) -> io::Result<UnixStream> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        fn secret(&self) -> Option<&str> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_waits_calls_before_it_counts_as_dead() {
        let called = Arc::new(Called::default());
        let present = tokio::spawn(stay_present(Arc::clone(&called) as Arc<dyn Connect>, IDLE_LIMIT));
        for hour in 1..=3 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let calls = called.0.load(Ordering::Relaxed) as u64;
            // At most every second call may go astray.
            assert!(calls >= 2 * hour * 3600 / IDLE_LIMIT.as_secs(), "{calls} calls in {hour} hours");
        }
        present.abort();
    }
}
