//! `navvy runner`: tasks of a processor, as they come, within the room that the reservation leaves.
//!
//! ```text
//! room? ─▶ Claim (waits) ─▶ carry, beside the others ─▶ steps over: its room is free ─▶ end told
//!   ▲                                                        │
//!   └────────────────────────────────────────────────────────┘
//! signal 1: drain, nothing more is claimed     2, or the drain's time is over: tasks are canceled     3: at once
//! ```

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use navvy_job::executor::ExecutorKinds;
use navvy_job::outcome::{Cancel, CancelReason};
use navvy_job::reservation::Reservation;
use navvy_job::resource::Size;
use navvy_protocol::processor::v1::MachineRoom;
use navvy_vm::Machines;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::fleet::RunnerArgs;
use super::fleet::{self, agent_name, tell, token, token_file};
use super::run::forced::LastResort;
use super::run::signals::{self, StopWatch};
use super::{CliError, host, idle_code, machines};
use crate::fleet::carry::{Carried, Machine, carry, go_on};
use crate::fleet::claiming::{ClaimError, Claimed, Wish, claim};
use crate::fleet::connection::{Bearer, Processor};
use crate::fleet::lease::ask_to_stop;
use crate::fleet::left::Found;
use crate::fleet::persist::Pauses;
use crate::fleet::room::{Room, Share};
use crate::settings::Settings;

/// One open request while nothing runs.
const WAIT: Duration = Duration::from_secs(60);
/// Room that becomes free is offered with the next request.
const WAIT_BESIDE_OTHERS: Duration = Duration::from_secs(10);
/// A runner that waits for so long is idle.
const SETTLED: Duration = Duration::from_secs(1);
/// A look for a Docker engine takes no longer.
const LOOK: Duration = Duration::from_secs(2);
/// What a task that ended by a bug has left is removed within this.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

pub fn run(settings: &Settings, arguments: &RunnerArgs) -> Result<u8, CliError> {
    let address = fleet::address(settings, &arguments.processor)?;
    let token = token(&token_file(settings, arguments.token_file.as_deref())?)?;
    host::finish(host::runtime()?, async {
        let processor = fleet::processor(&address)?;
        let docker = arguments.machine.docker.as_deref();
        let (stop, drain) = signals::watch_with_drain(LastResort::new(settings, docker))?;
        let engine = fleet::engine(settings, docker).await?;
        let whole = fleet::whole_machine(engine.as_ref()).await?;
        let room = left(whole, reservation(arguments))?;
        let machine = fleet::machine(settings, &arguments.machine, &arguments.processor, engine, room).await?;
        // Before what is dead is removed.
        let left = fleet::take_over_left(&machine, &processor, None).await;
        fleet::reap_dead(&machine);
        let mut runner = Runner::new(settings, arguments, processor, token, machine);
        left.into_iter().for_each(|found| runner.go_on(found));
        runner.work(&stop, drain).await
    })
}

fn reservation(arguments: &RunnerArgs) -> Reservation {
    Reservation(Size { millicpus: (arguments.reserve_cpus * 1000.0).round() as u64, memory: arguments.reserve_memory })
}

/// What the reservation leaves of a machine.
fn left(whole: Size, reserved: Reservation) -> Result<Size, CliError> {
    reserved.room(whole).map_err(|error| {
        CliError::usage(error.to_string())
            .hint("Lower the reservation: --reserve-cpus 0.5 --reserve-memory 512M. Nothing was started.")
    })
}

/// A claim that is waited for.
type Asking = BoxFuture<'static, Result<Option<Claimed>, ClaimError>>;

async fn answer(asking: &mut Option<Asking>) -> Result<Option<Claimed>, ClaimError> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// What the task had is removed, for it will not do so itself.
async fn lost_by_a_bug(machine: &Machine, task: &str) -> Carried {
    let left = match task.parse() {
        Ok(task) => machine.providers.remove(&task, &machine.paths, REMOVAL_LIMIT).await,
        Err(_) => Vec::new(),
    };
    for left in left {
        tracing::error!("{left} is still there. `navvy prune` removes it.");
    }
    Carried::Unreported { why: "a bug of Navvy, told above, ended it".to_owned() }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

struct Runner<'a> {
    settings: &'a Settings,
    arguments: &'a RunnerArgs,
    processor: Processor,
    token: Bearer,
    machine: Machine,
    room: Room,
    /// What tasks can run in, when it was looked at last.
    executors: ExecutorKinds,
    /// That the settings cannot be read was said.
    is_unsettled: bool,
    /// What tasks had whose steps are over.
    vacated: (mpsc::UnboundedSender<Share>, mpsc::UnboundedReceiver<Share>),
    tasks: JoinSet<(String, Carried)>,
    /// The wish to stop of all tasks.
    stop_tasks: watch::Sender<Option<Cancel>>,
    taken: u64,
    idle_since: Instant,
    /// Why it ends, where that is a fault.
    fault: Option<CliError>,
    pauses: Pauses,
    /// Before the next request.
    pause: Duration,
    /// That the processor does not answer was said.
    is_away: bool,
}

impl<'a> Runner<'a> {
    fn new(
        settings: &'a Settings,
        arguments: &'a RunnerArgs,
        processor: Processor,
        token: Bearer,
        machine: Machine,
    ) -> Self {
        let machines_at_once = machine.providers.machines.as_ref().and_then(Machines::at_once);
        Self {
            settings,
            room: Room::new(machine.room, usize::from(arguments.concurrency), machines_at_once),
            executors: ExecutorKinds::default(),
            is_unsettled: false,
            arguments,
            processor,
            token,
            machine,
            vacated: mpsc::unbounded_channel(),
            tasks: JoinSet::new(),
            stop_tasks: watch::Sender::new(None),
            taken: 0,
            idle_since: Instant::now(),
            fault: None,
            pauses: Pauses::default(),
            pause: Duration::ZERO,
            is_away: false,
        }
    }

    /// Until it is to end. Tasks that run then end first.
    async fn work(mut self, stop: &StopWatch, mut drain: watch::Receiver<bool>) -> Result<u8, CliError> {
        // Kept until it is answered: a task that was given and not taken would be nobody's until its lease is over.
        let mut asking: Option<Asking> = None;
        while !*drain.borrow() && self.fault.is_none() && !self.is_over() {
            if asking.is_none()
                && let Some(room) = self.room.offer()
            {
                self.look_again().await;
                asking = Some(self.ask(room));
            }
            let idle = self.idle_until();
            tokio::select! {
                claimed = answer(&mut asking) => {
                    asking = None;
                    self.take(claimed);
                }
                Some(done) = self.tasks.join_next() => self.ended(done),
                Some(share) = self.vacated.1.recv() => self.room.leave(share),
                () = sleep_until(idle) => {}
                Ok(()) = drain.changed() => {}
            }
        }
        self.drain(stop).await;
        self.fault.map_or(Ok(navvy_job::exit_code::PASSED), Err)
    }

    /// What there was not at the start may be there by now. An engine that does not answer holds up no other task for long.
    async fn look_again(&mut self) {
        let docker = self.arguments.machine.docker.as_deref();
        tokio::time::timeout(LOOK, fleet::look_again(&mut self.machine, self.settings, docker)).await.ok();
        // An image that was built meanwhile counts from now on, and so does one that is gone.
        match machines::executors(self.settings, self.machine.providers.docker.is_some()) {
            Ok(executors) => (self.executors, self.is_unsettled) = (executors, false),
            Err(error) if !std::mem::replace(&mut self.is_unsettled, true) => {
                tracing::warn!("What this machine has for jobs stays as it was: {}", error.in_one_line());
            }
            Err(_) => {}
        }
    }

    fn is_over(&self) -> bool {
        let is_idle = |limit: Duration| self.tasks.is_empty() && self.idle_since.elapsed() >= limit;
        (self.arguments.once && self.taken > 0) || self.arguments.idle_timeout.is_some_and(is_idle)
    }

    /// When it has been idle for too long; `None` if it may be so forever, or is at work.
    fn idle_until(&self) -> Option<Instant> {
        self.arguments.idle_timeout.filter(|_| self.tasks.is_empty()).map(|limit| self.idle_since + limit)
    }

    /// Asks for a task that fits into this room.
    fn ask(&mut self, room: Size) -> Asking {
        let pause = std::mem::take(&mut self.pause);
        let machine_room = match self.machine.has_machines_elsewhere() {
            _ if !self.room.has_place_for_machine() => MachineRoom::NoneNow,
            true => MachineRoom::Elsewhere,
            false => MachineRoom::Shared,
        };
        let wish =
            Wish::Classes { classes: self.arguments.classes.clone(), room, executors: self.executors, machine_room };
        let wait = if self.tasks.is_empty() { WAIT } else { WAIT_BESIDE_OTHERS };
        let (processor, token) = (self.processor.clone(), self.token.clone());
        let is_idle = self.tasks.is_empty();
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let name = agent_name();
            let mut claimed = std::pin::pin!(claim(&processor, &token, &name, &wish, wait));
            if is_idle {
                match tokio::time::timeout(SETTLED, &mut claimed).await {
                    Ok(answer) => return answer,
                    Err(_) => idle_code::let_go(),
                }
            }
            claimed.await
        })
    }

    fn take(&mut self, claimed: Result<Option<Claimed>, ClaimError>) {
        match claimed {
            Ok(claimed) => {
                self.pauses = Pauses::default();
                if std::mem::take(&mut self.is_away) {
                    tracing::warn!("The processor answers again.");
                }
                if let Some(claimed) = claimed {
                    self.begin(claimed);
                }
            }
            Err(error) if error.is_passing() => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!("No task can be taken for now, and it is tried again: {error}");
                }
                self.pause = self.pauses.another();
            }
            Err(error) => self.fault = Some(CliError::infra_text(error.to_string())),
        }
    }

    fn begin(&mut self, claimed: Claimed) {
        // A claim that cannot be read takes nothing, and is given back.
        let share = claimed.peek().map_or(Share::NONE, |claim| self.machine.takes(&claim));
        let occupancy = self.room.enter(share, self.vacated.0.clone());
        self.taken += 1;
        let (processor, machine, stop) = (self.processor.clone(), self.machine.clone(), self.stop_tasks.subscribe());
        let name = claimed.name();
        self.spawn(name, async move { carry(&processor, &machine, claimed, stop, Box::new(occupancy)).await });
    }

    /// With a task whose agent was killed.
    fn go_on(&mut self, found: Found) {
        let occupancy = self.room.enter(self.machine.takes(&found.left.note.claim), self.vacated.0.clone());
        self.taken += 1;
        let (processor, machine, stop) = (self.processor.clone(), self.machine.clone(), self.stop_tasks.subscribe());
        let name = found.task.to_string();
        self.spawn(name, async move { go_on(&processor, &machine, found, stop, Box::new(occupancy)).await });
    }

    fn spawn(&mut self, name: String, carrying: impl Future<Output = Carried> + Send + 'static) {
        let machine = self.machine.clone();
        self.tasks.spawn(async move {
            let carried = match AssertUnwindSafe(carrying).catch_unwind().await {
                Ok(carried) => carried,
                Err(_) => lost_by_a_bug(&machine, &name).await,
            };
            (name, carried)
        });
    }

    fn ended(&mut self, done: Result<(String, Carried), tokio::task::JoinError>) {
        self.room.ended();
        self.idle_since = Instant::now();
        let told = match done {
            Ok((task, carried)) => tell(&task, carried),
            Err(error) => Err(CliError::infra_text(format!("a task ended by a bug of Navvy: {error}"))),
        };
        if let Err(error) = told {
            tracing::error!("{}", error.message());
        }
    }

    /// Nothing more is taken; what runs ends, by itself or asked to.
    async fn drain(&mut self, stop: &StopWatch) {
        let mut asked = stop.receiver();
        let until = Instant::now() + self.arguments.drain_timeout;
        let mut in_time = true;
        loop {
            let wish = *asked.borrow_and_update();
            if let Some(Cancel { at_once, .. }) = wish {
                ask_to_stop(&self.stop_tasks, Cancel { reason: CancelReason::Drain, at_once });
            }
            tokio::select! {
                done = self.tasks.join_next() => match done {
                    Some(done) => self.ended(done),
                    None => return,
                },
                Ok(()) = asked.changed() => {}
                () = tokio::time::sleep_until(until), if in_time => {
                    in_time = false;
                    ask_to_stop(&self.stop_tasks, Cancel::gently(CancelReason::Drain));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_too_small_says_so_and_how_to_lower_the_reservation() {
        let reserved = Reservation::default();
        assert_eq!(left(Size::new(4, 16), reserved).unwrap(), Size::new(2, 12));
        for small in [Size::new(2, 16), Size::new(8, 4), Size::new(1, 1)] {
            let told = left(small, reserved).unwrap_err().render();
            assert!(told.contains("too small") && told.contains("--reserve-cpus"), "{told}");
        }
    }
}
