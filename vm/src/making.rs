//! Machines of this host for a pool: the pool's [`Maker`].
//!
//! ```text
//! make       record (no task, the pool's) ─▶ … ─▶ Booting, Waits ─┐
//! survey     records of a pool that died: locks taken ────────────┤
//!                                                                 ▼
//!                                       warm: record locked, guest attended ── hand_over ─▶ Given written, lock and sockets let go
//!                                                                 └────────── remove ─▶ destroyed by its record
//! ```
//!
//! What a pool has is on disk alone: a pool that was killed is gone on with by its records.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use navvy_environment::HostPaths;
use navvy_environment::survey::{Reaped, Seen};
use navvy_job::chain::chain;
use navvy_job::outcome::Blame;
use navvy_job::resource::{Size, machine_class_names};
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_vm_image::Image;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::error::Fault;
use crate::machine::{Limits, Machine};
use crate::machine_id::MachineId;
use crate::machines::Machines;
use crate::pool::maker::{Holding, Maker, NotMade};
use crate::pool::record::Holder;
use crate::pool::rules::Kind;
use crate::pool::source::Way;
use crate::provider::Order;
use crate::record::{self, Entry, Fact, Known, Planned, Record, RecordError};
use crate::settings::Snapshots;
use crate::state::State;

/// A machine is removed within this, or tried again.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

impl Machines {
    /// Machines of this host for the pool whose directory is `place`.
    pub fn maker(&self, place: PathBuf, host: &HostPaths) -> Arc<dyn Maker> {
        Arc::new(OfHost { machines: self.clone(), place, host: host.clone(), warm: Mutex::default() })
    }
}

struct OfHost {
    machines: Machines,
    place: PathBuf,
    host: HostPaths,
    warm: Mutex<HashMap<MachineId, Warm>>,
}

/// A machine that waits for its taker. Dropped, its lock and its socket are let go.
struct Warm {
    record: Record,
    /// A pool that is dead has made it.
    is_adopted: bool,
    /// Keeps the guest company.
    _socket: Option<UnixStream>,
}

#[async_trait]
impl Maker for OfHost {
    async fn make(&self, id: &MachineId, kind: &Kind) -> Result<(), NotMade> {
        if self.warm().contains_key(id) {
            return Ok(());
        }
        let not_removed = |why| NotMade { why, word: "not_removed", is_final: false, wait_s: None };
        self.remove(id).await.map_err(not_removed)?;
        let (size, image) = self.of_kind(kind)?;
        let made = self.make_now(id, size, image).await;
        made.map_err(|(fault, console)| not_made(&fault, &console))
    }

    async fn hand_over(&self, id: &MachineId, to: &Holder) -> Result<Value, String> {
        let warm = self.warm().remove(id);
        match warm {
            Some(warm) => self.hand(warm, to).await?,
            None => {
                let known = record::load(&self.directory(id)).map_err(|error| error.to_string())?;
                if !known.is_given {
                    return Err(format!("machine {id} is not ready"));
                }
            }
        }
        serde_json::to_value(Way::Here { state: self.host.state.clone() }).map_err(|error| error.to_string())
    }

    async fn remove(&self, id: &MachineId) -> Result<(), String> {
        let warm = self.warm().remove(id);
        let left = match warm {
            Some(Warm { record, .. }) => self.machines.destroy(&record, &self.host, REMOVAL_LIMIT).await,
            None => self.remove_found(id).await?,
        };
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {}", left.join(", "))) }
    }

    async fn look(&self, id: &MachineId, to: &Holder) -> Holding {
        let directory = self.directory(id);
        let known = match record::load(&directory) {
            Ok(known) => known,
            Err(_) if !directory.exists() => return Holding::Gone,
            // What cannot be read is nobody's to remove.
            Err(_) => return Holding::Held,
        };
        // A dead pool has decided to give it, and did not come to it. Its taker was told nothing, and does not ask again.
        if self.warm().get(id).is_some_and(|warm| warm.is_adopted) {
            return Holding::Left;
        }
        if record::is_held(&directory) {
            return Holding::Held;
        }
        let Ok(here) = Owner::this_process() else { return Holding::Held };
        let is_left = match &known.planned.task {
            // Its task may be kept, or be gone on with: that is judged as for every other machine.
            Some(_) => known.owner.is_dead(&here) && self.dead_task(&known).is_some(),
            // Of a taker elsewhere whoever serves it says that it is gone.
            None if known.is_given => to.owner.as_ref().is_some_and(|owner| owner.is_dead(&here)),
            None => known.owner.is_dead(&here),
        };
        if is_left { Holding::Left } else { Holding::Held }
    }

    async fn survey(&self) -> Result<BTreeSet<MachineId>, String> {
        let mut present = BTreeSet::new();
        for id in record::all(&self.host.state) {
            let known = match record::load(&self.directory(&id)) {
                Ok(known) => known,
                Err(RecordError::Read { .. }) => continue,
                Err(error) => {
                    tracing::warn!("A machine's record cannot be believed, and the machine is left alone: {error}.");
                    continue;
                }
            };
            if known.planned.pool.as_ref() == Some(&self.place) && self.is_there(&id, &known).await {
                present.insert(id);
            }
        }
        Ok(present)
    }
}

impl OfHost {
    fn warm(&self) -> MutexGuard<'_, HashMap<MachineId, Warm>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, id: &MachineId) -> PathBuf {
        record::directory(&self.host.state, id)
    }

    fn of_kind(&self, kind: &Kind) -> Result<(Size, Image), NotMade> {
        let refused = |why| NotMade { why, word: "refused", is_final: true, wait_s: None };
        let settings = &self.machines.settings;
        if !settings.devices.is_empty() {
            return Err(refused("machines here have devices of this host, and are not made beforehand".to_owned()));
        }
        let unknown = || {
            let known: Vec<_> = machine_class_names().collect();
            refused(format!("{} is no class of machines; there are {}", kind.class, known.join(", ")))
        };
        let size = settings.size_of(&kind.class).ok_or_else(unknown)?;
        let image = settings.images.get(&kind.image).map_err(|error| refused(error.to_string()))?;
        Ok((size, image))
    }

    async fn make_now(&self, id: &MachineId, size: Size, image: Image) -> Result<(), (Fault, String)> {
        let without_console = |fault: Fault| (fault, String::new());
        let owner = Owner::this_process().map_err(Fault::host("look at this process")).map_err(without_console)?;
        let settings = &self.machines.settings;
        if settings.snapshots == Snapshots::Make {
            let warmed = self.machines.warm_image(image.clone(), size, &self.host, &|_| {}).await;
            if let Err(error) = warmed {
                tracing::warn!("No snapshot could be made, and machines of the pool boot: {error}.");
            }
        }
        let planned = Planned {
            version: Planned::VERSION,
            machine: id.clone(),
            task: None,
            owner: owner.clone(),
            provider: self.machines.name().to_owned(),
            image: image.manifest.name.clone(),
            is_adoptable: false,
            has_steps: false,
            pool: Some(self.place.clone()),
        };
        let record = Record::create(&self.host.state, planned).await.map_err(|error| without_console(error.into()))?;
        let instance =
            self.machines.provider.order(Order::nobodys(id.clone(), owner, image, size), record.clone(), &self.host);
        let limits = Limits { start: settings.start_limit, answer: settings.answer_limit };
        let mut machine = Machine::new(record.clone(), instance, limits);
        if let Err(fault) = machine.start_for_pool().await {
            return Err((fault, machine.instance.asked_console().await));
        }
        // With it goes its hold on the image, which somebody may want to build anew.
        drop(machine);
        self.keep(id, record, false).await;
        Ok(())
    }

    async fn hand(&self, warm: Warm, to: &Holder) -> Result<(), String> {
        let here = Owner::this_process().map_err(|error| error.to_string())?;
        if is_ended(&warm.record.known(), &here) {
            return Err("it has ended while it was ready".to_owned());
        }
        let taker = to.owner.clone().unwrap_or(here);
        let written = warm.record.write(vec![Entry::Given(taker)]).await;
        written.map_err(|error| error.to_string())
    }

    async fn remove_found(&self, id: &MachineId) -> Result<Vec<String>, String> {
        let dead_task = record::load(&self.directory(id)).ok().and_then(|known| self.dead_task(&known));
        // All that the task has on this host goes with it.
        if let Some(task) = dead_task {
            let mut reaped = Reaped::default();
            self.machines.reap_task(task, &self.host, REMOVAL_LIMIT, &mut reaped).await;
            return Ok(reaped.left);
        }
        match self.found(id).await? {
            Some(record) => Ok(self.machines.destroy(&record, &self.host, REMOVAL_LIMIT).await),
            None => Ok(Vec::new()),
        }
    }

    /// The record of a machine that is not one of ours that are warm. `None`: nothing of it is there.
    async fn found(&self, id: &MachineId) -> Result<Option<Record>, String> {
        let directory = self.directory(id);
        match Record::resume(directory.clone()).await {
            Ok(record) => Ok(Some(record)),
            Err(_) if !directory.exists() => Ok(None),
            Err(busy @ RecordError::Busy { .. }) => {
                // Its taker's process lives: it is told by the machine's end, and removes the rest.
                if let Ok(known) = record::load(&directory)
                    && known.is_given
                {
                    self.machines.provider.end_of_another(&directory, &known, REMOVAL_LIMIT).await;
                }
                Err(busy.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The task of a machine, if nobody looks after it any more.
    fn dead_task(&self, known: &Known) -> Option<Seen> {
        let task = known.planned.task.as_ref()?;
        let here = Owner::this_process().ok()?;
        let seen = self.machines.survey(&here, &self.host).tasks;
        seen.into_iter().find(|seen| seen.task == *task && seen.condition == Condition::Dead)
    }

    /// Is anything of it there that the pool has to know of? One that was ready and has ended, or whose image was built anew, is not: it is
    /// replaced. One that a dead pool has left becomes this one's.
    async fn is_there(&self, id: &MachineId, known: &Known) -> bool {
        let Ok(here) = Owner::this_process() else { return true };
        if self.warm().contains_key(id) {
            return !is_ended(known, &here) && self.is_of_today(known);
        }
        let is_ready = known.last(|fact| matches!(fact, Fact::Waits { .. }).then_some(())).is_some();
        let is_left = known.owner == here || known.owner.is_dead(&here);
        if known.is_pooled() && is_ready && known.state == State::Booting && is_left {
            self.adopt(id, here).await;
        }
        true
    }

    async fn adopt(&self, id: &MachineId, here: Owner) {
        // Busy: whoever makes, hands over or removes it.
        let Ok(record) = Record::resume(self.directory(id)).await else { return };
        if !record.known().is_pooled() || record.write(vec![Entry::Owner(here)]).await.is_err() {
            return;
        }
        self.keep(id, record, true).await;
    }

    async fn keep(&self, id: &MachineId, record: Record, is_adopted: bool) {
        let _socket = self.machines.provider.attend(record.directory()).await;
        self.warm().insert(id.clone(), Warm { record, is_adopted, _socket });
    }

    fn is_of_today(&self, known: &Known) -> bool {
        let digest = known.last(|fact| if let Fact::Launch { image, .. } = fact { Some(image) } else { None });
        let image = self.machines.settings.images.get(&known.planned.image);
        image.is_ok_and(|image| Some(&image.digest) == digest)
    }
}

fn is_ended(known: &Known, here: &Owner) -> bool {
    known.process().is_none_or(|process| process.is_dead(here))
}

fn not_made(fault: &Fault, console: &str) -> NotMade {
    let word = match fault {
        Fault::Image(_) => "image",
        Fault::NoHypervisor(_) => "no_hypervisor",
        Fault::NoSpace { .. } => "no_space",
        Fault::Start { .. } | Fault::NoAnswer { .. } => "late",
        Fault::Ended { .. } | Fault::Panicked { .. } => "ended",
        Fault::Hostile { .. } | Fault::OwnFault { .. } | Fault::Seed(_) => "guest",
        Fault::Network(_) => "network",
        _ => "host",
    };
    let console = if console.is_empty() { String::new() } else { format!("; its console ends with: {console}") };
    let is_final = !matches!(fault.blame(), Blame::Infra);
    NotMade { why: format!("{}{console}", chain(fault)), word, is_final, wait_s: None }
}
