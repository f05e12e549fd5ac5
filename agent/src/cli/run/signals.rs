//! Ctrl-C once: end what runs, with grace. Twice: at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::cli::CliError;
use crate::event::Event;
use crate::task::Stop;

/// Turns SIGINT, SIGTERM and SIGHUP into the wish to stop.
pub struct StopWatch {
    sender: watch::Sender<Stop>,
    listener: tokio::task::JoinHandle<()>,
    /// Every job has its verdict.
    jobs_over: Arc<AtomicBool>,
}

/// Starts listening. Needs a runtime.
pub fn watch() -> Result<StopWatch, CliError> {
    let open = |kind| signal(kind).map_err(|error| CliError::infra(&error));
    let signals = [open(SignalKind::interrupt())?, open(SignalKind::terminate())?, open(SignalKind::hangup())?];
    let (sender, _) = watch::channel(Stop::No);
    let listener = tokio::spawn(listen(signals, sender.clone()));
    Ok(StopWatch { sender, listener, jobs_over: Arc::default() })
}

impl StopWatch {
    pub fn receiver(&self) -> watch::Receiver<Stop> {
        self.sender.subscribe()
    }

    /// Tells of every signal that was heard. Once the run is being stopped, a stuck terminal must not hold it up.
    pub fn tell(&self, bus: Bus) {
        let (mut stop, jobs_over) = (self.receiver(), Arc::clone(&self.jobs_over));
        tokio::spawn(async move {
            while stop.changed().await.is_ok() {
                let at_once = *stop.borrow_and_update() == Stop::AtOnce;
                bus.close_output();
                bus.send(Event::StopAsked { at_once, jobs_over: jobs_over.load(Ordering::Relaxed) });
            }
        });
    }

    /// Every job has its verdict: no signal changes one any more.
    pub fn jobs_are_over(&self) {
        self.jobs_over.store(true, Ordering::Relaxed);
    }

    /// The run is over.
    pub fn finish(self) {
        self.listener.abort();
    }
}

async fn listen(mut signals: [Signal; 3], sender: watch::Sender<Stop>) {
    loop {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        sender.send_if_modified(|stop| {
            let before = *stop;
            *stop = match *stop {
                Stop::No => Stop::Gracefully,
                Stop::Gracefully | Stop::AtOnce => Stop::AtOnce,
            };
            *stop != before
        });
    }
}
