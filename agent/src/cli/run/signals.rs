//! Ctrl-C once: end what runs, with grace. Twice: at once, even if the main thread is busy. A runner takes one more before
//! those: it takes no new task, and lets what runs end.
//!
//! ```text
//! signals ─▶ a thread of their own ─▶ Cancel ─▶ main thread
//!                  │ twice, and the main thread does not answer: a call of the system does not return
//!                  └─▶ what this process made is removed from here, the process ends
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use navvy_job::event::Event;
use navvy_job::outcome::{Cancel, CancelReason};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::forced::LastResort;
use crate::bus::Bus;
use crate::cli::CliError;
use crate::step::bounded::Stop;

/// The main thread never computes for so long. Once it is to end at once, it is asked so often.
const ANSWERS: Duration = Duration::from_secs(5);
/// It is waited for so many times, each an equal part of that.
const WAITS: u32 = 20;

/// The wish to stop, out of SIGINT, SIGTERM and SIGHUP.
pub struct StopWatch {
    stop: Stop,
    /// Every job has its verdict.
    jobs_over: Arc<AtomicBool>,
}

/// A caller that wants to know that the main thread still does something.
type Question = oneshot::Sender<()>;

/// Starts listening, until the end of the process. Needs a runtime, whose thread is the one that has to answer.
pub fn watch(last: LastResort) -> Result<StopWatch, CliError> {
    start(last, None)
}

/// The same, but that the first signal only asks to take nothing more on: then what is returned beside is true.
pub fn watch_with_drain(last: LastResort) -> Result<(StopWatch, watch::Receiver<bool>), CliError> {
    let (drain, drained) = watch::channel(false);
    Ok((start(last, Some(drain))?, drained))
}

fn start(last: LastResort, drain: Option<watch::Sender<bool>>) -> Result<StopWatch, CliError> {
    let (sender, stop) = watch::channel(None);
    let (ask, mut asked) = mpsc::unbounded_channel::<Question>();
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            // The caller may have stopped waiting.
            question.send(()).ok();
        }
    });
    let (opened, is_open) = std::sync::mpsc::channel();
    let listening = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime.and_then(|runtime| Ok((Signals::open(&runtime)?, runtime))) {
            Ok((signals, runtime)) => {
                opened.send(Ok(())).ok();
                runtime.block_on(listen(signals, drain.as_ref(), &sender, &ask, last));
            }
            Err(error) => drop(opened.send(Err(error))),
        }
    };
    // Its end is not waited for: it is there in case the main thread hangs.
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(listening);
    let open = thread.and_then(|_| is_open.recv().unwrap_or_else(|error| Err(std::io::Error::other(error))));
    open.map_err(|error| CliError::infra(&error))?;
    Ok(StopWatch { stop, jobs_over: Arc::default() })
}

impl StopWatch {
    pub fn receiver(&self) -> Stop {
        self.stop.clone()
    }

    /// Tells of every signal that was heard. Once the run is being stopped, a stuck terminal must not hold it up.
    pub fn tell(&self, bus: Bus) {
        let (mut stop, jobs_over) = (self.receiver(), Arc::clone(&self.jobs_over));
        tokio::spawn(async move {
            while stop.changed().await.is_ok() {
                let at_once = stop.borrow_and_update().is_some_and(|cancel| cancel.at_once);
                bus.close_output();
                bus.send(Event::StopAsked { at_once, jobs_over: jobs_over.load(Ordering::Relaxed) });
            }
        });
    }

    /// Every job has its verdict: no signal changes one any more.
    pub fn jobs_are_over(&self) {
        self.jobs_over.store(true, Ordering::Relaxed);
    }
}

/// The signals that mean the end.
pub struct Signals([Signal; 3]);

impl Signals {
    fn open(runtime: &tokio::runtime::Runtime) -> std::io::Result<Self> {
        let _within = runtime.enter();
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    /// Waits for the next one, and says what it means.
    pub async fn next(&mut self) -> CancelReason {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => CancelReason::User,
            _ = terminate.recv() => CancelReason::Shutdown,
            _ = hangup.recv() => CancelReason::Shutdown,
        }
    }
}

async fn listen(
    mut signals: Signals,
    drain: Option<&watch::Sender<bool>>,
    sender: &watch::Sender<Option<Cancel>>,
    ask: &mpsc::UnboundedSender<Question>,
    last: LastResort,
) {
    if let Some(drain) = drain {
        signals.next().await;
        drain.send_replace(true);
    }
    let cancel = Cancel::gently(signals.next().await);
    sender.send_replace(Some(cancel));
    signals.next().await;
    sender.send_replace(Some(cancel.urged(true)));
    no_answer(ask, ANSWERS).await;
    let another = async {
        signals.next().await;
    };
    last.end(another).await;
}

/// Returns once the main thread has not answered for so long. While it answers it is at work on the end.
async fn no_answer(ask: &mpsc::UnboundedSender<Question>, limit: Duration) {
    loop {
        let (question, mut answer) = oneshot::channel();
        // If no channel is left to ask on, the process is about to end, and does not get longer for that.
        let answered = match ask.send(question) {
            Ok(()) => answered(&mut answer, limit).await,
            Err(_) => false,
        };
        if answered {
            tokio::time::sleep(limit).await;
        } else if ask.is_closed() {
            return tokio::time::sleep(limit).await;
        } else {
            return;
        }
    }
}

/// In many short waits: where the whole process stood still (stopped, or on a busy machine), one of them is over at once, and the main
/// thread has the others.
async fn answered(answer: &mut oneshot::Receiver<()>, limit: Duration) -> bool {
    for _ in 0..WAITS {
        if let Ok(answer) = tokio::time::timeout(limit / WAITS, &mut *answer).await {
            return answer.is_ok();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_whole_process_stood_still_is_no_silence() {
        let (answers, mut answer) = oneshot::channel();
        let limit = Duration::from_secs(5);
        let asking = tokio::spawn(async move { answered(&mut answer, limit).await });
        tokio::task::yield_now().await;
        // All timers are due when it goes on, and the main thread answers only then.
        tokio::time::advance(limit).await;
        tokio::task::yield_now().await;
        answers.send(()).unwrap();
        assert!(asking.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_main_thread_that_answers_is_left_alone_and_one_that_does_not_is_not() {
        let (ask, mut asked) = mpsc::unbounded_channel::<Question>();
        let main = tokio::spawn(async move {
            for _ in 0..100 {
                asked.recv().await.unwrap().send(()).unwrap();
            }
            // From now on it is stuck.
            (asked.recv().await, asked)
        });
        let begun = tokio::time::Instant::now();
        no_answer(&ask, ANSWERS).await;
        assert_eq!(begun.elapsed(), 101 * ANSWERS);
        assert!(main.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_main_thread_that_has_gone_gets_no_longer_than_one_that_is_stuck() {
        let (ask, asked) = mpsc::unbounded_channel::<Question>();
        drop(asked);
        let begun = tokio::time::Instant::now();
        no_answer(&ask, ANSWERS).await;
        assert_eq!(begun.elapsed(), ANSWERS);
    }
}
