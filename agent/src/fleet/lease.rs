//! The right to run a task: kept by beats, lost by this machine's own clock or by the processor's word.
//!
//! ```text
//!             beat, every third of the lease          word: lease until T, cancel, who looks
//! Keeper ──────────────────────────────────▶ Attend ────────────────────────────────▶ Keeper
//!    │  the stream broke: again, within the lease                                        │
//!    ├─ cancel ─────────────────────────────────▶ the task's wish to stop ◀──────────────┤
//!    └─ lease over, or FAILED_PRECONDITION ─────▶ the same, at once: LeaseLost; the spool stays
//! ```
//!
//! A word counts from the moment at which the beat that it answers was sent, so that this machine never thinks that it has
//! the lease for longer than the processor does. Only the monotonic clock is asked.

use std::time::Duration;

use navvy_job::outcome::{Cancel, CancelReason};
use navvy_job::state::TaskState;
use navvy_protocol::processor::v1::{self, Beat, Word};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::connection::{Session, is_loss};
use super::persist::Pauses;
use crate::spool::Spool;

/// A lease that is said to be longer is taken to be so long.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Until when a lease is good. Pure.
#[derive(Debug, Clone)]
pub struct LeaseClock {
    length: Duration,
    good_until: Instant,
    /// When the oldest beat was sent that no word has answered.
    unanswered: Option<Instant>,
}

impl LeaseClock {
    /// A lease of this length from `asked` on: when the call was made that was answered with it.
    pub fn new(length: Duration, asked: Instant) -> Self {
        let length = length.min(LONGEST);
        Self { length, good_until: asked + length, unanswered: None }
    }

    /// Between two beats.
    pub fn every(&self) -> Duration {
        (self.length / 3).max(Duration::from_millis(10))
    }

    pub fn good_until(&self) -> Instant {
        self.good_until
    }

    pub fn beat(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// The stream that beats were sent on is gone: nobody will answer them.
    pub fn broken(&mut self) {
        self.unanswered = None;
    }

    /// A word that nothing was asked for does not say from when on it counts: the lease stays as it is.
    pub fn word(&mut self, lease: Duration) {
        let Some(sent) = self.unanswered.take() else { return };
        if !lease.is_zero() {
            self.length = lease.min(LONGEST);
            self.good_until = sent + self.length;
        }
    }
}

/// The wish to stop of one task.
pub type StopSender = watch::Sender<Option<Cancel>>;

/// Asks a task to stop: the first reason stays, and grace never comes back.
pub fn ask_to_stop(stop: &StopSender, cancel: Cancel) {
    stop.send_if_modified(|asked| {
        let urged = asked.map_or(cancel, |before| before.urged(cancel.at_once));
        asked.replace(urged) != Some(urged)
    });
}

/// A question whether the steps may begin; answered once the processor has written down that they do.
pub type MayBegin = oneshot::Sender<()>;

/// What a keeper is given.
pub struct Keeping {
    pub session: Session,
    pub clock: LeaseClock,
    pub stop: watch::Sender<Option<Cancel>>,
    /// Where the task stands.
    pub state: watch::Receiver<TaskState>,
    pub spool: Spool,
    /// How many look at the task's output.
    pub readers: watch::Sender<u32>,
    /// Set to true with the loss.
    pub loss: watch::Sender<bool>,
    pub questions: mpsc::Receiver<MayBegin>,
    /// Until when the lease is good, whenever that changes.
    pub renewed: watch::Sender<Instant>,
}

/// Keeps one lease.
pub struct Keeper {
    keeping: Keeping,
    question: Option<MayBegin>,
    /// The processor was told, on this stream, that steps begin.
    is_told: bool,
}

enum Attended {
    Lost(String),
    Broken(String),
}

impl Keeper {
    pub fn new(keeping: Keeping) -> Self {
        Self { keeping, question: None, is_told: false }
    }

    /// Until the lease is lost, or this is dropped. Returns why it was lost; by then the task was asked to stop.
    pub async fn keep(mut self) -> String {
        let mut pauses = Pauses::default();
        loop {
            let heard_of = self.keeping.clock.good_until();
            let why = match self.attend().await {
                Attended::Lost(why) => return self.lose(why),
                Attended::Broken(why) => why,
            };
            tracing::debug!("The processor is called again: {why}.");
            self.keeping.clock.broken();
            if self.keeping.clock.good_until() > heard_of {
                pauses = Pauses::default();
            }
            let good_until = self.keeping.clock.good_until();
            if timeout_at(good_until, tokio::time::sleep(pauses.another())).await.is_err() {
                return self.lose(format!("no processor answered within the lease, and the last one {why}"));
            }
        }
    }

    fn lose(self, why: String) -> String {
        self.keeping.loss.send_replace(true);
        ask_to_stop(&self.keeping.stop, Cancel { reason: CancelReason::LeaseLost, at_once: true });
        why
    }

    /// One stream, from its first beat to its end.
    async fn attend(&mut self) -> Attended {
        let (beats, stream) = mpsc::channel(4);
        self.is_told = false;
        self.beat(&beats);
        let mut agents = self.keeping.session.agents();
        let opened = timeout_at(self.keeping.clock.good_until(), agents.attend(ReceiverStream::new(stream))).await;
        let mut words = match opened {
            Ok(Ok(words)) => words.into_inner(),
            Ok(Err(status)) => return self.ended(&status),
            Err(_) => return Attended::Lost("the lease was over before the processor answered".to_owned()),
        };
        let mut next_beat = Instant::now() + self.keeping.clock.every();
        loop {
            tokio::select! {
                biased;
                word = words.message() => match word {
                    Ok(Some(word)) => self.hear(&word),
                    Ok(None) => return Attended::Broken("it ended the stream".to_owned()),
                    Err(status) => return self.ended(&status),
                },
                () = sleep_until(self.keeping.clock.good_until()) => {
                    return Attended::Lost("the processor has not renewed the lease in time".to_owned());
                }
                Some(question) = self.keeping.questions.recv() => {
                    self.question = Some(question);
                    self.beat(&beats);
                }
                () = sleep_until(next_beat) => {
                    self.beat(&beats);
                    next_beat = Instant::now() + self.keeping.clock.every();
                }
            }
        }
    }

    fn ended(&self, status: &tonic::Status) -> Attended {
        let why = self.keeping.session.processor.explain(status).to_string();
        if is_loss(status) { Attended::Lost(why) } else { Attended::Broken(why) }
    }

    /// A connection that takes no beat is found broken by its pings, or by the lease.
    fn beat(&mut self, beats: &mpsc::Sender<Beat>) {
        let state = match *self.keeping.state.borrow() {
            TaskState::Claimed | TaskState::Preparing if self.question.is_some() => TaskState::Running,
            state => state,
        };
        let beat = Beat { state: word(state), spooled: self.keeping.spool.waiting() };
        if beats.try_send(beat).is_ok() {
            self.is_told |= self.question.is_some();
            self.keeping.clock.beat(Instant::now());
        }
    }

    fn hear(&mut self, word: &Word) {
        self.keeping.clock.word(Duration::from_millis(word.lease_ms.into()));
        self.keeping.renewed.send_replace(self.keeping.clock.good_until());
        self.keeping.readers.send_if_modified(|readers| std::mem::replace(readers, word.readers) != word.readers);
        if let Some(cancel) = &word.cancel {
            ask_to_stop(&self.keeping.stop, cancel_of(cancel));
        }
        let is_written = matches!(word.state.as_str(), "" | "running");
        if self.is_told
            && is_written
            && let Some(question) = self.question.take()
        {
            // The task may have been asked to stop meanwhile.
            question.send(()).ok();
        }
    }
}

/// A state as it crosses the wire.
fn word(state: TaskState) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A reason that this version does not know is a person's.
fn cancel_of(cancel: &v1::Cancel) -> Cancel {
    let reason = serde_json::from_value(serde_json::Value::String(cancel.reason.clone()));
    Cancel { reason: reason.unwrap_or(CancelReason::User), at_once: cancel.at_once }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_word_counts_from_its_beat_and_an_unasked_one_not_at_all() {
        let start = Instant::now();
        let mut clock = LeaseClock::new(LEASE, start);
        assert_eq!((clock.every(), clock.good_until()), (LEASE / 3, start + LEASE));
        clock.word(Duration::from_secs(3600));
        assert_eq!(clock.good_until(), start + LEASE);
        let sent = start + Duration::from_secs(10);
        clock.beat(sent);
        clock.beat(sent + Duration::from_secs(10));
        clock.word(LEASE);
        assert_eq!(clock.good_until(), sent + LEASE);
        clock.beat(sent + Duration::from_secs(20));
        clock.broken();
        clock.word(LEASE);
        assert_eq!(clock.good_until(), sent + LEASE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_never_endless_nor_over_by_a_word_that_says_nothing() {
        let start = Instant::now();
        let mut clock = LeaseClock::new(Duration::MAX, start);
        assert_eq!(clock.good_until(), start + LONGEST);
        clock.beat(start);
        clock.word(Duration::ZERO);
        assert_eq!(clock.good_until(), start + LONGEST);
    }

    #[test]
    fn words_of_the_wire_are_those_of_the_house() {
        assert_eq!(word(TaskState::Running), "running");
        let cancel = |reason: &str| cancel_of(&v1::Cancel { reason: reason.to_owned(), at_once: true }).reason;
        assert_eq!((cancel("lease_lost"), cancel("of_the_future")), (CancelReason::LeaseLost, CancelReason::User));
    }

    #[test]
    fn a_second_wish_to_stop_takes_the_grace_and_keeps_the_reason() {
        let stop = watch::Sender::new(None);
        ask_to_stop(&stop, Cancel::gently(CancelReason::User));
        ask_to_stop(&stop, Cancel { reason: CancelReason::LeaseLost, at_once: true });
        ask_to_stop(&stop, Cancel::gently(CancelReason::Drain));
        assert_eq!(*stop.borrow(), Some(Cancel { reason: CancelReason::User, at_once: true }));
    }
}
