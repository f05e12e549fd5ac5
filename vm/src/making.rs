//! Machines for a pool of this host, wherever they are: the pool's [`Maker`].
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
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use navvy_environment::HostPaths;
use navvy_environment::survey::{Reaped, Seen};
use navvy_job::chain::chain;
use navvy_job::outcome::Blame;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_vm_image::Image;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::error::Fault;
use crate::far::keys;
use crate::machine::{Limits, Machine};
use crate::machine_id::MachineId;
use crate::machines::{Machines, is_gone};
use crate::pool::maker::{Holding, Maker, NotMade};
use crate::pool::record::Holder;
use crate::pool::rules::Kind;
use crate::pool::shelf;
use crate::pool::source::{Entrance, Way};
use crate::provider::{Order, Provider, Source};
use crate::record::{self, Entry, Fact, Known, Planned, Record, RecordError};
use crate::settings::Snapshots;
use crate::state::State;

/// A machine is removed within this, or tried again.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// A machine that is ready says so within this; one of a cloud that does not answer counts as there.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

impl Machines {
    /// Who makes these machines for the pool whose directory is `place`.
    pub fn maker(&self, place: PathBuf, host: &HostPaths) -> Arc<dyn Maker> {
        Arc::new(OfHost { machines: self.clone(), place, host: host.clone(), lends: false, warm: Arc::default() })
    }

    /// The same for a pool that lends its machines to agents of other hosts: they get a way in, and its records stay its own.
    ///
    /// # Errors
    /// They are entered by a key that is not theirs alone, or are of no use elsewhere.
    pub fn lender(&self, place: PathBuf, host: &HostPaths) -> Result<Arc<dyn Maker>, Fault> {
        let Provider::Cloud(_) = self.provider else {
            return Err(Fault::Unsupported(format!("machines of {} are not lent: those of a cloud are", self.name())));
        };
        Ok(Arc::new(OfHost { machines: self.clone(), place, host: host.clone(), lends: true, warm: Arc::default() }))
    }
}

#[derive(Clone)]
struct OfHost {
    machines: Machines,
    place: PathBuf,
    host: HostPaths,
    /// To agents of other hosts.
    lends: bool,
    warm: Arc<Mutex<HashMap<MachineId, Warm>>>,
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
        let made = self.make_now(id, kind, self.of_kind(kind)?).await;
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
        let way = match self.lends {
            true => Way::Ssh(Box::new(self.entrance(id)?)),
            false => Way::Here { state: self.host.state.clone() },
        };
        serde_json::to_value(way).map_err(|error| error.to_string())
    }

    async fn remove(&self, id: &MachineId) -> Result<(), String> {
        let warm = self.warm().remove(id);
        let left = match warm {
            Some(Warm { record, .. }) => self.go_on_with(Doomed::Machine(record)).await,
            None => self.remove_found(id).await?,
        };
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {}", left.join(", "))) }
    }

    async fn look(&self, id: &MachineId, to: &Holder) -> Holding {
        let directory = self.directory(id);
        let known = match record::load(&directory) {
            Ok(known) => known,
            Err(_) if is_gone(&directory) => return Holding::Gone,
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
        let mut looks = JoinSet::new();
        for id in record::all(&self.host.state).map_err(|error| chain(&error))? {
            let known = match record::load(&self.directory(&id)) {
                Ok(known) => known,
                // It was removed meanwhile.
                Err(RecordError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                // The pool ends what is not there: it asks again for what cannot be read now.
                Err(error @ RecordError::Read { .. }) => return Err(chain(&error)),
                Err(error) => {
                    tracing::warn!("A machine's record cannot be believed, and the machine is left alone: {error}.");
                    // The pool would try for ever to remove it: one that it has, if it were absent, and one that it has not, if it were
                    // present.
                    if shelf::has(&self.place, &id).map_err(|error| chain(&error))? {
                        present.insert(id);
                    }
                    continue;
                }
            };
            if known.planned.pool.as_ref() == Some(&self.place) {
                let maker = self.clone();
                looks.spawn(async move { maker.is_there(&id, &known).await.then_some(id) });
            }
        }
        // Side by side: a cloud is asked for each of its machines.
        while let Some(found) = looks.join_next().await {
            present.extend(found.map_err(|error| format!("a look at a machine ended in a panic: {error}"))?);
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

    /// How a machine is entered that is lent.
    fn entrance(&self, id: &MachineId) -> Result<Entrance, String> {
        let directory = self.directory(id);
        let known = record::load(&directory).map_err(|error| error.to_string())?;
        let way = known.way().ok_or_else(|| format!("machine {id} is not ready"))?;
        let kind = known.planned.kind.as_ref().ok_or_else(|| format!("machine {id} is of no kind"))?;
        let (_, start) = self.machines.start_of(kind).map_err(|wrong| wrong.join("; "))?;
        let key = keys::read(&directory, keys::LOGIN).map_err(|error| error.to_string())?;
        Ok(Entrance {
            provider: known.planned.provider.clone(),
            instance: known.instances().pop_last().unwrap_or_else(|| id.host_name()),
            address: way.address.clone(),
            port: way.port,
            user: way.user.clone(),
            host_key: way.host_key.clone(),
            key,
            forwarding: way.forwarding.clone(),
            image: known.planned.image.clone(),
            step_user: start.user(),
            docker: start.docker(),
        })
    }

    fn of_kind(&self, kind: &Kind) -> Result<(Size, Source), NotMade> {
        let refused = |why| NotMade { why, word: "refused", is_final: true, wait_s: None };
        if !self.machines.settings.devices.is_empty() {
            return Err(refused("machines here have devices of this host, and are not made beforehand".to_owned()));
        }
        self.machines.start_of(kind).map_err(|wrong| refused(wrong.join("; ")))
    }

    async fn make_now(
        &self,
        id: &MachineId,
        kind: &Kind,
        (size, start): (Size, Source),
    ) -> Result<(), (Fault, String)> {
        let without_console = |fault: Fault| (fault, String::new());
        let owner = Owner::this_process().map_err(Fault::host("look at this process")).map_err(without_console)?;
        let settings = &self.machines.settings;
        if let (Source::Image(image), Snapshots::Make) = (&start, settings.snapshots) {
            let warmed = self.machines.warm_image(Image::clone(image), size, &self.host, &|_| {}).await;
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
            image: start.name(),
            is_adoptable: false,
            has_steps: false,
            pool: Some(self.place.clone()),
            kind: Some(kind.clone()),
            is_lent: self.lends,
        };
        let record = Record::create(&self.host.state, planned).await.map_err(|error| without_console(error.into()))?;
        let instance =
            self.machines.provider.order(Order::nobodys(id.clone(), owner, start, size), record.clone(), &self.host);
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
        let known = warm.record.known();
        if let Some(why) = self.machines.of(&warm.record).ended(&known, &here, LOOK_LIMIT).await {
            return Err(format!("it has ended while it was ready: {why}"));
        }
        let taker = to.owner.clone().unwrap_or(here);
        let written = warm.record.write(vec![Entry::Given(taker)]).await;
        written.map_err(|error| error.to_string())
    }

    /// What a machine's record says. `None`: nothing of it is there.
    fn known(&self, id: &MachineId) -> Result<Option<Known>, String> {
        let directory = self.directory(id);
        match record::load(&directory) {
            Ok(known) => Ok(Some(known)),
            Err(_) if is_gone(&directory) => Ok(None),
            // Whether a task has it is not known.
            Err(error) => Err(chain(&error)),
        }
    }

    async fn remove_found(&self, id: &MachineId) -> Result<Vec<String>, String> {
        let dead_task = self.known(id)?.and_then(|known| self.dead_task(&known));
        // All that the task has on this host goes with it.
        if let Some(task) = dead_task {
            return Ok(self.go_on_with(Doomed::Task(Box::new(task))).await);
        }
        // A host that is there is not reset under its task: it is told to, once that has ended, by whoever removes the task.
        if self.known(id)?.is_some_and(|known| self.is_host_of_task(&known)) {
            return Err("it is a host that is there, and its task has it".to_owned());
        }
        match self.found(id).await? {
            Some(record) => Ok(self.go_on_with(Doomed::Machine(record)).await),
            None => Ok(Vec::new()),
        }
    }

    /// Removes it, also when the caller has no patience any more: a host's reset may take longer than a call has, and is not to begin anew
    /// with each.
    async fn go_on_with(&self, doomed: Doomed) -> Vec<String> {
        let (machines, host) = (self.machines.clone(), self.host.clone());
        let work = tokio::spawn(async move {
            match doomed {
                Doomed::Machine(record) => machines.destroy(&record, &host, REMOVAL_LIMIT).await,
                Doomed::Task(task) => {
                    let mut reaped = Reaped::default();
                    machines.reap_task(*task, &host, REMOVAL_LIMIT, &mut reaped).await;
                    reaped.left
                }
            }
        });
        work.await.unwrap_or_else(|error| vec![format!("what a panic has left of a removal ({error})")])
    }

    /// The record of a machine that is not one of ours that are warm. `None`: nothing of it is there.
    async fn found(&self, id: &MachineId) -> Result<Option<Record>, String> {
        let directory = self.directory(id);
        match Record::resume(directory.clone()).await {
            Ok(record) => Ok(Some(record)),
            Err(_) if is_gone(&directory) => Ok(None),
            Err(busy @ RecordError::Busy { .. }) => {
                // Its taker's process lives: it is told by the machine's end, and removes the rest.
                if let Ok(known) = record::load(&directory)
                    && known.is_given
                {
                    let provider = self.machines.named(&known.planned.provider);
                    provider.end_of_another(&directory, &known, REMOVAL_LIMIT).await;
                }
                Err(busy.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn is_host_of_task(&self, known: &Known) -> bool {
        let is_host = matches!(self.machines.named(&known.planned.provider), Provider::Ssh(_));
        is_host && known.planned.task.is_some()
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
        let is_left = known.owner == here || known.owner.is_dead(&here);
        let is_ready = known.is_pooled() && known.has_waited() && known.state == State::Booting;
        if is_ready && is_left && !self.warm().contains_key(id) {
            self.adopt(id, here.clone()).await;
        }
        if !self.warm().contains_key(id) {
            return true;
        }
        let provider = self.machines.named(&known.planned.provider);
        self.is_of_today(known) && provider.ended(known, &here, LOOK_LIMIT).await.is_none()
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
        let _socket = self.machines.of(&record).attend(record.directory()).await;
        self.warm().insert(id.clone(), Warm { record, is_adopted, _socket });
    }

    /// Would one that is made now start from the same?
    fn is_of_today(&self, known: &Known) -> bool {
        if known.planned.provider != self.machines.name() {
            return false;
        }
        if !self.machines.are_here() {
            let start = known.planned.kind.as_ref().and_then(|kind| self.machines.start_of(kind).ok());
            return start.is_some_and(|(_, start)| start.is_of(known));
        }
        let digest = known.last(|fact| if let Fact::Launch { image, .. } = fact { Some(image) } else { None });
        let image = self.machines.settings.images.get(&known.planned.image);
        image.is_ok_and(|image| Some(&image.digest) == digest)
    }
}

/// What is to be removed.
enum Doomed {
    /// One machine.
    Machine(Record),
    /// All that a task has on this host, its machine with it.
    Task(Box<Seen>),
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
        Fault::Cloud(fault) => fault.word(),
        Fault::Ssh(_) | Fault::Provider { .. } => "unreachable",
        Fault::There(_) => "no_host",
        _ => "host",
    };
    let console = if console.is_empty() { String::new() } else { format!("; its console ends with: {console}") };
    let (is_final, wait) = match fault {
        Fault::Cloud(fault) => (fault.is_final(), fault.wait()),
        _ => (!matches!(fault.blame(), Blame::Infra), None),
    };
    let wait_s = wait.map(|wait| wait.as_secs());
    NotMade { why: format!("{}{console}", chain(fault)), word, is_final, wait_s }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use navvy_vm_image::Images;

    use super::*;
    use crate::pool::core::{Core, Effect, Event};
    use crate::pool::record::{Record as Kept, Stage};
    use crate::pool::rules::Rules;
    use crate::pool::shelf::Shelf;
    use crate::settings::Settings;

    fn place(state: &Path) -> PathBuf {
        state.join("vm-pool")
    }

    fn maker(state: &Path) -> Arc<dyn Maker> {
        let host = HostPaths {
            state: state.to_owned(),
            runtime: None,
            docker_config: None,
            search_path: "/usr/bin:/bin".to_owned(),
            supervisor: None,
        };
        Machines::qemu(Settings::new(Images::at("/nonexistent"))).maker(place(state), &host)
    }

    fn holder() -> Holder {
        Holder { ticket: "a-ticket".to_owned(), task: "0123456789abcdef".to_owned(), owner: None }
    }

    /// A machine of the pool, by its record alone, and its directory.
    async fn machine(state: &Path) -> (MachineId, PathBuf) {
        let planned = Planned {
            version: Planned::VERSION,
            machine: MachineId::random(),
            task: None,
            owner: Owner::this_process().unwrap(),
            provider: "qemu".to_owned(),
            image: "debian-12-minimal".to_owned(),
            is_adoptable: false,
            has_steps: false,
            pool: Some(place(state)),
            kind: None,
            is_lent: false,
        };
        let id = planned.machine.clone();
        let record = Record::create(state, planned).await.unwrap();
        (id, record.directory().to_owned())
    }

    #[tokio::test]
    async fn a_machine_whose_record_cannot_be_read_now_is_not_absent() {
        let state = tempfile::tempdir().unwrap();
        let (maker, (id, directory)) = (maker(state.path()), machine(state.path()).await);
        assert_eq!(maker.survey().await.unwrap(), BTreeSet::from([id]));
        let record = directory.join("record");
        fs::remove_file(&record).unwrap();
        assert!(maker.survey().await.unwrap().is_empty(), "it was removed meanwhile");
        symlink("record", &record).unwrap();
        let told = maker.survey().await.unwrap_err();
        assert!(told.contains("could not read the record of a machine"), "{told}");
    }

    #[tokio::test]
    async fn a_machine_whose_directory_cannot_be_looked_at_is_neither_gone_nor_removed() {
        let state = tempfile::tempdir().unwrap();
        let (maker, (id, directory)) = (maker(state.path()), machine(state.path()).await);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((maker.look(&id, &holder()).await, maker.remove(&id).await), (Holding::Gone, Ok(())));
        symlink(&directory, &directory).unwrap();
        assert_eq!(maker.look(&id, &holder()).await, Holding::Held);
        let told = maker.remove(&id).await.unwrap_err();
        assert!(told.contains("could not read the record of a machine"), "{told}");
    }

    #[tokio::test]
    async fn a_machine_whose_record_cannot_be_believed_is_left_alone_by_the_pool_that_has_it_and_by_every_other() {
        let state = tempfile::tempdir().unwrap();
        let (maker, (id, directory)) = (maker(state.path()), machine(state.path()).await);
        fs::write(directory.join("record"), "no record\n and more\n").unwrap();
        assert!(maker.survey().await.unwrap().is_empty(), "a pool removes what is present and not its own");
        let (shelf, _) = Shelf::open(&place(state.path())).unwrap();
        let kept = Kept {
            version: Kept::VERSION,
            id: id.clone(),
            kind: Kind { class: "medium".to_owned(), image: "debian-12-minimal".to_owned() },
            born_s: 7,
            stage: Stage::Given { to: holder(), since_s: 7 },
        };
        shelf.write(&kept).unwrap();
        let present = maker.survey().await.unwrap();
        assert_eq!(present, BTreeSet::from([id]));
        let mut core = Core::restore(Rules::default(), [kept]);
        let asked = core.mark();
        let effects = core.handle(Event::Survey { asked, present }, 8, &mut MachineId::random);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Remove { .. })), "{effects:?}");
    }
}
