//! Environments that are removed beside the run, and its end that waits for them.

use std::time::Duration;

use navvy_job::event::{Event, TaskRef};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::step::bounded::Stop;
use crate::task::Removal;

/// A run that waits no longer than this for its removals says nothing of them. A cancelled one says it at once.
const WORTH_A_WORD: Duration = Duration::from_secs(1);
/// Between two words about the same removals.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// Removals on their way. Those that are not waited for end with the process: the next start does their work.
pub struct Removals {
    bus: Bus,
    going: JoinSet<(TaskRef, Vec<String>)>,
    under_way: Vec<TaskRef>,
}

impl Removals {
    pub fn new(bus: Bus) -> Self {
        Self { bus, going: JoinSet::new(), under_way: Vec::new() }
    }

    /// Begins one.
    pub fn begin(&mut self, removal: Removal) {
        let task = removal.reference().clone();
        self.add(task, removal.carry_out());
    }

    fn add(&mut self, task: TaskRef, work: impl Future<Output = Vec<String>> + Send + 'static) {
        self.under_way.push(task.clone());
        self.going.spawn(async move { (task, work.await) });
    }

    /// Waits for all of them, and says so now and then. Returns what could not be removed. No signal cuts this short: what
    /// is left would only be removed later.
    pub async fn finish(mut self, mut stop: Stop) -> Vec<String> {
        let mut left = Vec::new();
        let first = if stop.borrow_and_update().is_none() { WORTH_A_WORD } else { Duration::ZERO };
        let mut word = std::pin::pin!(tokio::time::sleep(first));
        loop {
            tokio::select! {
                biased;
                done = self.going.join_next() => match done {
                    Some(Ok((task, found))) => {
                        self.under_way.retain(|known| *known != task);
                        left.extend(found);
                    }
                    Some(Err(error)) => tracing::error!(%error, "A removal ended unexpectedly."),
                    None => break,
                },
                Ok(()) = stop.changed() => self.tell(),
                () = word.as_mut() => {
                    self.tell();
                    word.as_mut().reset(Instant::now() + WORD_EVERY);
                }
            }
        }
        left.extend(self.under_way.iter().map(|task| format!("environment of task {}", task.task)));
        left
    }

    fn tell(&self) {
        self.bus.send(Event::RemovalAwaited { tasks: self.under_way.clone() });
    }
}

#[cfg(test)]
mod tests {
    use navvy_job::event::JobRef;
    use navvy_job::id::TaskId;

    use super::*;
    use crate::bus::{self, Events};
    use navvy_job::outcome::{Cancel, CancelReason};
    use navvy_output::mask::Masks;
    use tokio::sync::watch;

    const GENTLY: Cancel = Cancel { reason: CancelReason::User, at_once: false };

    fn task(name: &str, number: u8) -> TaskRef {
        let job = JobRef { workflow: "ci".to_owned(), job: name.to_owned() };
        TaskRef { task: TaskId::from_random([number; 8]), job, node_index: 0, node_total: 1 }
    }

    fn removals() -> (Removals, Events) {
        let (bus, events) = bus::channel(Masks::new(&[]));
        (Removals::new(bus), events)
    }

    /// Whom each word about removals named.
    fn words(events: &Events) -> Vec<Vec<String>> {
        let mut words = Vec::new();
        while let Ok(Some(stamped)) = events.next(Duration::ZERO) {
            if let Event::RemovalAwaited { tasks } = stamped.event {
                words.push(tasks.into_iter().map(|task| task.job.job).collect());
            }
        }
        words
    }

    async fn after(seconds: u64, left: &[&str]) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        left.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_all_removals_names_what_is_left_and_says_what_it_waits_for() {
        let (mut removals, events) = removals();
        let (_sender, stop) = watch::channel(None);
        removals.add(task("quick", 1), after(0, &[]));
        removals.add(task("slow", 2), after(15, &["container slow"]));
        assert_eq!(removals.finish(stop).await, ["container slow"]);
        assert_eq!(words(&events), [["slow"], ["slow"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_wait_is_not_worth_a_word_unless_the_run_was_cancelled() {
        let (mut short, events) = removals();
        let (_sender, stop) = watch::channel(None);
        short.add(task("short", 1), after(0, &[]));
        short.finish(stop).await;
        assert!(words(&events).is_empty());
        let (mut canceled, events) = removals();
        let (_sender, stop) = watch::channel(Some(GENTLY));
        canceled.add(task("canceled", 1), after(1, &[]));
        canceled.finish(stop).await;
        assert_eq!(words(&events), [["canceled"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_is_answered_and_cuts_nothing_short() {
        let (mut removals, events) = removals();
        let (sender, stop) = watch::channel(None);
        removals.add(task("slow", 1), after(5, &["container slow"]));
        let signals = async {
            sender.send_replace(Some(GENTLY));
            tokio::time::sleep(Duration::from_millis(1)).await;
            sender.send_replace(Some(GENTLY.urged(true)));
        };
        let (left, ()) = tokio::join!(removals.finish(stop), signals);
        assert_eq!(left, ["container slow"]);
        assert!(words(&events).len() >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_breaks_down_is_named() {
        let (mut removals, _events) = removals();
        let (_sender, stop) = watch::channel(None);
        removals.add(task("broken", 1), async { panic!("as a bug would") });
        assert_eq!(removals.finish(stop).await, [format!("environment of task {}", task("broken", 1).task)]);
    }
}
