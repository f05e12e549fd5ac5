//! A machine of a pool becomes a task's.
//!
//! ```text
//! is it what a pool has? ─▶ asked for by a ticket ─▶ record locked, Taken written ─▶ process in the task's cgroup, if one is here
//!                                                                                      ─▶ seed ─▶ Ready
//!      │ no                    │ no                      └─ whatever fails: the machine goes back to be removed
//!      └───────────────────────┴──▶ the task makes its own, and the report says why
//! ```
//!
//! From `Taken` on the machine is found, held, adopted and removed by its record, like any other. A taker that is killed before leaves a
//! machine that its record names as a dead process's: reapers and the pool remove it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::{OnEvent, Prepare, PrepareEvent, Wanted};
use navvy_job::chain::chain;
use navvy_vm_image::Image;
use tokio::time::Instant;

use crate::environment::MachineEnvironment;
use crate::error::Fault;
use crate::far::lent;
use crate::layers;
use crate::machine::{Limits, Machine};
use crate::machine_id::MachineId;
use crate::machines::{CLEAN_UP_LIMIT, Machines, has_steps, order, report};
use crate::pool::rules::Kind;
use crate::pool::source::{Asked, Given, NotGiven, Source, Way};
use crate::provider::{Contact, Source as Start};
use crate::qemu::{size_here, takes_disks};
use crate::record::{self, Entry, Record, RecordError, Taken};
use crate::settings::Extras;
use crate::state::State;

/// The pool lets go of a record's lock before it answers; whoever surveys machines may have it for a moment.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const LOCK_LOOK: Duration = Duration::from_millis(5);
/// Machines that are asked for beyond the first, where a host makes none of its own.
const MORE: u32 = 2;

/// What was asked of a pool. Given back when it is dropped before the machine is the task's: nobody would know of the machine.
pub(crate) struct Ticket {
    source: Arc<dyn Source>,
    ticket: String,
    is_settled: bool,
}

impl Ticket {
    fn new(source: &Arc<dyn Source>, ticket: String) -> Self {
        Self { source: Arc::clone(source), ticket, is_settled: false }
    }

    /// The machine is the task's: from here on its record says whose it is.
    fn settle(&mut self) {
        self.is_settled = true;
    }

    /// Nothing is wanted by it any more.
    pub async fn give_back(mut self) {
        self.is_settled = true;
        self.source.give_back(&self.ticket).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (source, ticket) = (Arc::clone(&self.source), self.ticket.clone());
            runtime.spawn(async move { source.give_back(&ticket).await });
        }
    }
}

impl Machines {
    /// The task's machine, from the pool. `None`: it makes its own; why is told, where there is a pool.
    ///
    /// # Errors
    /// None was lent, and machines of its own this host does not make.
    pub(crate) async fn take(
        &self,
        request: &Prepare,
        extras: &Extras,
        start: &Start,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<Option<MachineEnvironment>, Fault> {
        let is_lent = matches!(start, Start::Lent(_));
        let none_lends = || Fault::NotLent("no pool of a processor lends any to this job".to_owned());
        let Some(source) = self.pool.as_ref().filter(|source| source.is_there()) else {
            return if is_lent { Err(none_lends()) } else { Ok(None) };
        };
        let kind = match start {
            Start::Image(image) => self.kind(request, extras, image),
            start => self.kind_elsewhere(request, extras, start),
        };
        let taken = match kind {
            Ok(kind) => {
                let what = "waiting for a machine of the pool".to_owned();
                events(PrepareEvent::Progress { what, done: 0, total: None });
                let mut more = if is_lent { MORE } else { 0 };
                loop {
                    match self.ask(source, kind.clone(), (request, extras, start), host).await {
                        Err(NotGiven::Lost { why }) if more > 0 => {
                            more -= 1;
                            let line =
                                format!("Machine: one that was lent was of no use, and another is asked for: {why}");
                            events(PrepareEvent::Report(line));
                        }
                        asked => break asked,
                    }
                }
            }
            Err(why) => Err(NotGiven::No { why }),
        };
        match taken {
            Ok((mut machine, contact, waited)) => {
                let line = format!("Machine: from the pool, waited {:.2} s", waited.as_secs_f64());
                events(PrepareEvent::Report(line));
                report(&mut machine, request, events);
                Ok(Some(MachineEnvironment::new(self.clone(), request, host, machine, contact)))
            }
            Err(NotGiven::NoPool) if is_lent => Err(none_lends()),
            Err(NotGiven::No { why } | NotGiven::Lost { why }) if is_lent => Err(Fault::NotLent(why)),
            Err(NotGiven::NoPool) => Ok(None),
            Err(NotGiven::No { why } | NotGiven::Lost { why }) => {
                // A machine that has come to nothing may have begun to write to them.
                for disk in &extras.disks {
                    let renewed = layers::renew(disk).await.map_err(io::Error::other);
                    renewed.map_err(Fault::host("make the job's disks anew"))?;
                }
                events(PrepareEvent::Report(format!("Machine: its own, none from the pool: {why}")));
                Ok(None)
            }
        }
    }

    /// What a pool may have that is just what this task needs.
    fn kind(&self, request: &Prepare, extras: &Extras, image: &Image) -> Result<Kind, String> {
        let Wanted::Machine(wanted) = &request.wanted else { return Err("containers are wanted".to_owned()) };
        if !extras.disks.is_empty() && !takes_disks(image) {
            return Err(
                "the job has disks of its own (Docker layers), and a machine of its processor takes none later"
                    .to_owned(),
            );
        }
        if !self.settings.devices.is_empty() {
            return Err("machines here have devices of this host".to_owned());
        }
        let class = wanted.class.clone().ok_or("the machine is of no resource class")?;
        let size = self.settings.size_of(&class).ok_or_else(|| format!("{class} is no class of machines"))?;
        if size_here(size) != size_here(request.size) {
            return Err(format!("the job gets less here than its class {class} has"));
        }
        Ok(Kind { class, image: image.manifest.name.clone() })
    }

    async fn ask(
        &self,
        source: &Arc<dyn Source>,
        kind: Kind,
        (request, extras, start): (&Prepare, &Extras, &Start),
        host: &HostPaths,
    ) -> Result<(Machine, Contact, Duration), NotGiven> {
        let begun = Instant::now();
        // A ticket is for one wish: a task whose machine was lost asks by another one.
        let wish: String = MachineId::random().as_str().chars().take(12).collect();
        let is_lent = matches!(start, Start::Lent(_));
        let asked = Asked { kind, ticket: format!("{}-{wish}", request.task), task: request.task.clone(), is_lent };
        let mut ticket = Ticket::new(source, asked.ticket.clone());
        let given = source.take(&asked).await?;
        let waited = begun.elapsed();
        let (record, start) = match (&given.way, start) {
            (Way::Ssh(entrance), Start::Lent(chosen)) => {
                let received = lent::receive(&given.id, entrance, request, &host.state).await;
                let record = received.map_err(|fault| NotGiven::No { why: chain(&fault) })?;
                (record, Start::Lent(lent::Chosen { lent: Some(entrance.clone()), ..chosen.clone() }))
            }
            _ => (self.take_found(&given, start, request, host).await?, start.clone()),
        };
        ticket.settle();
        match self.begin_with(record.clone(), (request, extras, &start), host).await {
            Ok((mut machine, contact)) => {
                machine.ticket = Some(ticket);
                Ok((machine, contact, waited))
            }
            Err(fault) => {
                let left = self.destroy(&record, host, CLEAN_UP_LIMIT).await;
                drop(record);
                ticket.give_back().await;
                let left = if left.is_empty() { String::new() } else { format!("; left: {}", left.join(", ")) };
                Err(NotGiven::Lost { why: format!("{}{left}", chain(&fault)) })
            }
        }
    }

    /// The record of a machine that was given, which is the task's from here on.
    async fn take_found(
        &self,
        given: &Given,
        start: &Start,
        request: &Prepare,
        host: &HostPaths,
    ) -> Result<Record, NotGiven> {
        let record = self.found(given, start, host).await?;
        let taken = Taken {
            task: request.task.clone(),
            owner: request.owner.clone(),
            is_adoptable: request.is_adoptable,
            has_steps: has_steps(request),
        };
        record.write(vec![Entry::Taken(Box::new(taken))]).await.map_err(|error| no(&error))?;
        Ok(record)
    }

    /// The record of a machine that was given, locked. Nothing of the pool's answer is believed but which record it is.
    async fn found(&self, given: &Given, start: &Start, host: &HostPaths) -> Result<Record, NotGiven> {
        let refused = |why: String| NotGiven::No { why };
        let Way::Here { state } = &given.way else {
            return Err(refused("its machine is lent, which `provider = \"lent\"` in [vm] takes".to_owned()));
        };
        if *state != host.state {
            let (there, here) = (state.display(), host.state.display());
            return Err(refused(format!("it keeps its machines in {there}, and this process in {here}")));
        }
        let record = locked(record::directory(&host.state, &given.id)).await.map_err(|error| no(&error))?;
        let known = record.known();
        let is_whole = known.is_given && known.planned.task.is_none() && known.state == State::Booting;
        if !is_whole || known.planned.machine != given.id {
            return Err(refused(format!("machine {} is not one that was given", given.id)));
        }
        if known.planned.provider != self.name() || !start.is_of(&known) {
            let record::Planned { provider, image, .. } = &known.planned;
            return Err(refused(format!("it gave a machine of {provider} with the image {image}")));
        }
        Ok(record)
    }

    async fn begin_with(
        &self,
        record: Record,
        (request, extras, start): (&Prepare, &Extras, &Start),
        host: &HostPaths,
    ) -> Result<(Machine, Contact), Fault> {
        let order = order(request, extras.clone(), start.clone(), record.known().planned);
        let instance = self.provider.take(order, record.clone(), host).await?;
        let limits = Limits { start: self.settings.start_limit, answer: self.settings.answer_limit };
        let mut machine = Machine::new(record, instance, limits);
        let contact = machine.start().await?;
        Ok((machine, contact))
    }
}

async fn locked(directory: std::path::PathBuf) -> Result<Record, RecordError> {
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match Record::resume(directory.clone()).await {
            Err(RecordError::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(LOCK_LOOK).await,
            resumed => return resumed,
        }
    }
}

fn no(error: &RecordError) -> NotGiven {
    NotGiven::No { why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use navvy_journal::owner::Owner;
    use navvy_vm_image::Images;

    use super::*;
    use crate::record::Planned;
    use crate::settings::Settings;

    fn host(state: &Path) -> HostPaths {
        HostPaths {
            state: state.to_owned(),
            runtime: None,
            docker_config: None,
            search_path: "/usr/bin:/bin".to_owned(),
            supervisor: None,
        }
    }

    /// An image that nothing can boot from.
    fn image(name: &str) -> Start {
        let store = tempfile::tempdir().unwrap();
        let directory = store.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = |name: &str| {
            std::fs::write(directory.join(name), "").unwrap();
            serde_json::json!({"name": name, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0})
        };
        let manifest = serde_json::json!({
            "version": 1, "name": name, "recipe": "r", "architecture": "x86_64", "init": "own", "docker": null, "user": "circleci",
            "supervisor": "0", "root": file("root.qcow2"), "root_size": 0, "kernel": file("vmlinux"), "initrd": file("initrd.cpio"),
            "arguments": "", "packages": {},
        });
        std::fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
        Start::from(Images::at(store.path()).get(name).unwrap())
    }

    /// A pool's machine that waits for its seed, by its record alone.
    async fn ready(state: &Path, is_given: bool) -> MachineId {
        let owner = Owner::this_process().unwrap();
        let planned = Planned {
            version: Planned::VERSION,
            machine: MachineId::random(),
            task: None,
            owner: owner.clone(),
            provider: "qemu".to_owned(),
            image: "debian-12-minimal".to_owned(),
            is_adoptable: false,
            has_steps: false,
            pool: Some(state.join("vm-pool")),
            kind: None,
            is_lent: false,
        };
        let machine = planned.machine.clone();
        let record = Record::create(state, planned).await.unwrap();
        let states = [State::Provisioned, State::Launched, State::Booting].map(Entry::State);
        let given = is_given.then_some(Entry::Given(owner));
        record.write(states.into_iter().chain(given).collect()).await.unwrap();
        machine
    }

    #[tokio::test]
    async fn only_a_machine_that_was_given_here_is_taken_whatever_a_pool_says() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (state, elsewhere) = (state.path().to_owned(), elsewhere.path().to_owned());
        let machines = Machines::qemu(Settings::new(Images::at("/nonexistent")));
        let (here, minimal) = (|| Way::Here { state: state.clone() }, image("debian-12-minimal"));
        let entrance = serde_json::from_value(serde_json::json!({
            "way": "ssh", "provider": "ec2", "instance": "i", "address": "192.0.2.1", "port": 22, "user": "root", "host_key": "", "key": "k",
            "forwarding": "sockets", "image": "a", "step_user": "u", "docker": null,
        }));
        let cases = [
            (ready(&elsewhere, true).await, Way::Here { state: elsewhere }, "it keeps its machines in"),
            (MachineId::random(), here(), "could not read the record"),
            (ready(&state, false).await, here(), "is not one that was given"),
            (ready(&state, true).await, entrance.unwrap(), "its machine is lent"),
        ];
        for (id, way, words) in cases {
            let told = machines.found(&Given { id, way }, &minimal, &host(&state)).await.unwrap_err();
            assert!(matches!(&told, NotGiven::No { why } if why.contains(words)), "{words}: {told:?}");
        }
        let given = Given { id: ready(&state, true).await, way: here() };
        let told = machines.found(&given, &image("debian-12-full"), &host(&state)).await.unwrap_err();
        assert!(told.to_string().contains("a machine of qemu with the image debian-12-minimal"), "{told}");
        let found = machines.found(&given, &minimal, &host(&state)).await.unwrap();
        assert!(record::is_held(found.directory()));
    }
}
