//! A pool's process: happenings to its mind, effects to disk, to the maker and to who waits.
//!
//! ```text
//! takers ─▶ Pool (handle) ─▶ ┐                        ┌─▶ shelf    first, and synced
//! tick, 1 s ────────────────▶├─▶ core::handle ─ effects ┼─▶ maker    in tasks, whose ends are events
//! ends of makes, removals ──▶┘                        └─▶ takers
//! ```
//!
//! What cannot be written down is not done: a disk that takes no record ends the pool, and the next start goes on from what the
//! disk has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::core::{Core, Effect, Event, Wish};
use super::figures::{Figures, Report};
use super::maker::{Holding, Maker, NotMade};
use super::record::{Holder, Record, Stage};
use super::rules::Rules;
use super::shelf::{Shelf, ShelfError};
use crate::machine_id::MachineId;

/// Requests that wait for the pool's mind.
const QUEUE: usize = 256;
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at what is really there.
const SURVEY_EVERY: u64 = 60;
/// Between two looks at who lives.
const LOOK_EVERY: u64 = 2;
/// A machine that is not ready after this is removed: its start and its way in have limits of their own below.
const MAKE_LIMIT: Duration = Duration::from_secs(600);
/// A call of the maker that hangs is given up and made again.
const CALL_LIMIT: Duration = Duration::from_secs(180);

/// A machine that was given.
#[derive(Clone, PartialEq)]
pub struct Handed {
    /// Which.
    pub id: MachineId,
    /// What the taker needs to find it. A key may stand in it: `Debug` tells none of it.
    pub machine: Value,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A running pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(mpsc::Sender<Said>);

enum Said {
    Take(Wish, oneshot::Sender<Result<Handed, String>>),
    Event(Event),
    Report(oneshot::Sender<Report>),
    Given(oneshot::Sender<Vec<(MachineId, Holder)>>),
    IsEmpty(oneshot::Sender<bool>),
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// Waits for a machine. Whoever drops this gives up waiting; a machine that was on its way stays the ticket's until it is
    /// asked for again or given back.
    ///
    /// # Errors
    /// There is none, and why.
    pub async fn take(&self, wish: Wish) -> Result<Handed, String> {
        let ended = || "the pool has ended; its log says why".to_owned();
        let mut leaving = Leaving { pool: self.clone(), ticket: Some(wish.holder.ticket.clone()) };
        let (answer, wait) = oneshot::channel();
        self.0.send(Said::Take(wish, answer)).await.map_err(|_| ended())?;
        let answered = wait.await.map_err(|_| ended());
        leaving.ticket = None;
        answered?
    }

    /// The ticket's machine goes, or its wish.
    pub async fn give_back(&self, ticket: &str) {
        self.tell(Event::GivenBack { ticket: ticket.to_owned() }).await;
    }

    /// No machine is kept ready any more.
    pub async fn empty(&self) {
        self.tell(Event::Empty).await;
    }

    /// Is no machine left?
    pub async fn is_empty(&self) -> bool {
        let (answer, wait) = oneshot::channel();
        // A pool that has ended holds nothing any more.
        if self.0.send(Said::IsEmpty(answer)).await.is_err() {
            return true;
        }
        wait.await.unwrap_or(true)
    }

    /// Its figures.
    pub async fn report(&self) -> Option<Report> {
        let (answer, wait) = oneshot::channel();
        self.0.send(Said::Report(answer)).await.ok()?;
        wait.await.ok()
    }

    /// All machines that are in somebody's hands, and in whose. `None`: the pool has ended.
    pub async fn given(&self) -> Option<Vec<(MachineId, Holder)>> {
        let (answer, wait) = oneshot::channel();
        self.0.send(Said::Given(answer)).await.ok()?;
        wait.await.ok()
    }

    /// Whoever had this machine has it no more: for holders whose process the pool cannot see.
    pub async fn holder_gone(&self, id: MachineId) {
        self.tell(Event::HolderGone { id }).await;
    }

    async fn tell(&self, event: Event) {
        // A pool that has ended reads its disk when it starts again.
        self.0.send(Said::Event(event)).await.ok();
    }
}

/// Somebody waits; when this is dropped early, nobody does.
struct Leaving {
    pool: Pool,
    ticket: Option<String>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let said = Said::Event(Event::Left { ticket });
            if let Err(mpsc::error::TrySendError::Full(said)) = self.pool.0.try_send(said) {
                let sender = self.pool.0.clone();
                tokio::spawn(async move { sender.send(said).await.ok() });
            }
        }
    }
}

/// The pool's process.
pub struct Keeper {
    core: Core,
    shelf: Arc<Shelf>,
    maker: Arc<dyn Maker>,
    inbox: mpsc::Receiver<Said>,
    answers: HashMap<String, oneshot::Sender<Result<Handed, String>>>,
    work: JoinSet<Done>,
    figures: Figures,
    ticks: u64,
    is_surveying: bool,
    is_looking: bool,
}

/// What a piece of work came to.
enum Done {
    Make(MachineId, Result<(), NotMade>),
    Remove(MachineId, Result<(), String>),
    Survey(u64, Result<std::collections::BTreeSet<MachineId>, String>),
    Hand(String, MachineId, Result<Value, String>),
    Look(Vec<(MachineId, String, Holding)>),
}

impl Keeper {
    /// A pool that goes on from what its disk has. [`Keeper::run`] is its life.
    ///
    /// # Errors
    /// Another process has it, or a record cannot be believed.
    pub fn open(place: &std::path::Path, rules: Rules, maker: Arc<dyn Maker>) -> Result<(Self, Pool), ShelfError> {
        let (shelf, records) = Shelf::open(place)?;
        let (sender, inbox) = mpsc::channel(QUEUE);
        let keeper = Self {
            core: Core::restore(rules, records),
            shelf: Arc::new(shelf),
            maker,
            inbox,
            answers: HashMap::new(),
            work: JoinSet::new(),
            figures: Figures::default(),
            ticks: 0,
            is_surveying: false,
            is_looking: false,
        };
        Ok((keeper, Pool(sender)))
    }

    /// Keeps the pool until every [`Pool`] is dropped. Its machines stay: who starts next goes on with them.
    ///
    /// # Errors
    /// The disk takes no record any more.
    pub async fn run(mut self) -> Result<(), ShelfError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                said = self.inbox.recv() => match said {
                    Some(said) => self.hear(said).await?,
                    None => return Ok(()),
                },
                Some(done) = self.work.join_next() => match done {
                    Ok(done) => self.done(done).await?,
                    Err(error) => tracing::error!(%error, "A piece of the pool's work ended in a panic."),
                },
                _ = tick.tick() => self.tick().await?,
            }
        }
    }

    async fn hear(&mut self, said: Said) -> Result<(), ShelfError> {
        match said {
            Said::Take(wish, answer) => {
                // Whoever asked by it before is not answered any more.
                self.answers.insert(wish.holder.ticket.clone(), answer);
                self.happen(Event::Take(wish)).await
            }
            // It has asked anew by the same ticket, and waits on: what was dropped is its first call, whose connection is gone.
            Said::Event(Event::Left { ticket })
                if self.answers.get(&ticket).is_some_and(|answer| !answer.is_closed()) =>
            {
                Ok(())
            }
            Said::Event(event) => {
                if let Event::Left { ticket } | Event::GivenBack { ticket } = &event {
                    self.answers.remove(ticket);
                }
                self.happen(event).await
            }
            Said::Report(answer) => {
                let report = self.figures.report(&self.core, now_s());
                answer.send(report).ok();
                Ok(())
            }
            Said::Given(answer) => {
                answer.send(self.given()).ok();
                Ok(())
            }
            Said::IsEmpty(answer) => {
                answer.send(self.core.is_empty()).ok();
                Ok(())
            }
        }
    }

    async fn tick(&mut self) -> Result<(), ShelfError> {
        if self.ticks.is_multiple_of(SURVEY_EVERY) && !self.is_surveying {
            self.is_surveying = true;
            self.shelf.touch();
            let (asked, maker) = (self.core.mark(), Arc::clone(&self.maker));
            self.work.spawn(async move { Done::Survey(asked, limited(maker.survey()).await) });
        }
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        self.ticks += 1;
        self.happen(Event::Tick).await
    }

    fn given(&self) -> Vec<(MachineId, Holder)> {
        let given = |record: &Record| match &record.stage {
            Stage::Given { to, .. } => Some((record.id.clone(), to.clone())),
            _ => None,
        };
        self.core.records().filter_map(given).collect()
    }

    /// Looks who has the machines that were given away.
    fn look(&mut self) {
        if self.is_looking {
            return;
        }
        let given = self.given();
        if given.is_empty() {
            return;
        }
        self.is_looking = true;
        let maker = Arc::clone(&self.maker);
        self.work.spawn(async move {
            let mut seen = Vec::new();
            for (id, to) in given {
                let holding = maker.look(&id, &to).await;
                seen.push((id, to.ticket, holding));
            }
            Done::Look(seen)
        });
    }

    async fn looked(&mut self, seen: Vec<(MachineId, String, Holding)>) -> Result<(), ShelfError> {
        self.is_looking = false;
        for (id, ticket, holding) in seen {
            match holding {
                Holding::Held => {}
                Holding::Left => self.happen(Event::HolderGone { id }).await?,
                Holding::Gone => self.happen(Event::GivenBack { ticket }).await?,
            }
        }
        Ok(())
    }

    async fn done(&mut self, done: Done) -> Result<(), ShelfError> {
        match done {
            Done::Make(id, Ok(())) => self.happen(Event::Made { id }).await,
            Done::Make(id, Err(NotMade { why, word, is_final, wait_s })) => {
                tracing::warn!(machine = %id, why, "A machine of the pool was not made.");
                self.figures.fault(word);
                self.happen(Event::NotMade { id, why, is_final, wait_s }).await
            }
            Done::Remove(id, Ok(())) => self.happen(Event::Removed { id }).await,
            Done::Remove(id, Err(why)) => {
                tracing::warn!(machine = %id, why, "A machine of the pool was not removed; it is tried again.");
                self.figures.fault("not_removed");
                self.happen(Event::NotRemoved { id }).await
            }
            Done::Survey(asked, Ok(present)) => {
                self.is_surveying = false;
                self.happen(Event::Survey { asked, present }).await
            }
            Done::Survey(_, Err(why)) => {
                tracing::warn!(why, "It is not known which machines of the pool are there; it is asked again.");
                self.figures.fault("survey");
                self.is_surveying = false;
                // With the next tick but some: nothing is given before one has come.
                self.ticks = SURVEY_EVERY - 5;
                Ok(())
            }
            Done::Look(seen) => self.looked(seen).await,
            Done::Hand(ticket, id, Ok(machine)) => {
                if let Some(answer) = self.answers.remove(&ticket) {
                    // Who has gone meanwhile may ask again by the ticket.
                    answer.send(Ok(Handed { id, machine })).ok();
                }
                Ok(())
            }
            Done::Hand(_, id, Err(why)) => {
                tracing::warn!(machine = %id, why, "A machine could not be handed over; another one is taken.");
                self.figures.fault("not_handed");
                self.happen(Event::NotHanded { id }).await
            }
        }
    }

    async fn happen(&mut self, event: Event) -> Result<(), ShelfError> {
        let effects = self.core.handle(event, now_s(), &mut MachineId::random);
        for effect in effects {
            self.carry_out(effect).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), ShelfError> {
        let maker = Arc::clone(&self.maker);
        match effect {
            Effect::Write(record) => return self.on_disk(move |shelf| shelf.write(&record)).await,
            Effect::Erase { id } => return self.on_disk(move |shelf| shelf.erase(&id)).await,
            Effect::Make { id, kind } => {
                self.figures.launch();
                self.work.spawn(async move {
                    let made = tokio::time::timeout(MAKE_LIMIT, maker.make(&id, &kind)).await;
                    let late = || NotMade {
                        why: format!("it was not ready within {} s", MAKE_LIMIT.as_secs()),
                        word: "late",
                        is_final: false,
                        wait_s: None,
                    };
                    Done::Make(id, made.unwrap_or_else(|_| Err(late())))
                });
            }
            Effect::Remove { id, why } => {
                tracing::info!(machine = %id, ?why, "A machine of the pool goes.");
                self.figures.removal(why);
                self.work.spawn(async move {
                    let removed = limited(maker.remove(&id)).await;
                    Done::Remove(id, removed)
                });
            }
            Effect::Hand { ticket, id, waited_s } => self.hand(ticket, id, waited_s),
            Effect::Refuse { ticket, why } => {
                self.figures.fault("refused_taker");
                if let Some(answer) = self.answers.remove(&ticket) {
                    answer.send(Err(why)).ok();
                }
            }
        }
        Ok(())
    }

    fn hand(&mut self, ticket: String, id: MachineId, waited_s: u64) {
        self.figures.wait(waited_s);
        let given = self.core.records().find(|record| record.id == id).map(|record| record.stage.clone());
        let Some(Stage::Given { to, .. }) = given else { return };
        let maker = Arc::clone(&self.maker);
        self.work.spawn(async move {
            let handed = limited(maker.hand_over(&id, &to)).await;
            Done::Hand(ticket, id, handed)
        });
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Shelf) -> Result<(), ShelfError> + Send + 'static,
    ) -> Result<(), ShelfError> {
        let shelf = Arc::clone(&self.shelf);
        let done = tokio::task::spawn_blocking(move || work(&shelf)).await;
        done.unwrap_or_else(|error| {
            Err(ShelfError::Disk { what: "write below", path: "machines".into(), source: std::io::Error::other(error) })
        })
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let done = tokio::time::timeout(CALL_LIMIT, call).await;
    done.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_LIMIT.as_secs())))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
