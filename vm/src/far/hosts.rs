//! Hosts that are already there: taken, reset, seeded; and reset once more when their task is over.
//!
//! A host is the one's whose record names it. So a task that is held keeps it although no process looks after it, and what a
//! killed agent has left is reset by whoever removes its record.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::{Died, Machine as Wanted};
use navvy_environment::supervisor::Connect;
use navvy_job::chain::chain;
use tokio::sync::watch;
use tokio::time::Instant;

use super::seeding;
use super::way::{Forwarding, Way};
use super::{choice, refuse, told_plainly};
use crate::error::Fault;
use crate::machine_id::MachineId;
use crate::provider::{Contact, Look, Order};
use crate::qemu;
use crate::record::{self, Fact, Known, Record, RecordError};
use crate::settings::Settings;
use crate::ssh::{Host, HostError, Target};
use crate::state::State;

/// The provider's name, in records and for people.
pub(crate) const NAME: &str = "ssh";
/// Between two looks for a host that is free.
const BETWEEN: Duration = Duration::from_secs(1);

/// The hosts of an operator's.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub hosts: Vec<Host>,
    pub settings: Arc<Settings>,
}

/// Those that would do for a task.
#[derive(Debug, Clone)]
pub(crate) struct Candidates {
    pub hosts: Vec<Host>,
    /// Of the names that the operator gives images, the one by which these were found.
    pub counted: String,
}

impl Candidates {
    /// For reports and records.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        format!("host {}", names.join(" or "))
    }
}

impl Hosts {
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    pub fn choose(&self, wanted: &Wanted) -> Result<Candidates, Fault> {
        let found = choice::row(&self.hosts, |host| host.images.as_slice(), wanted.image.as_deref(), "vm.ssh.hosts")
            .map_err(Fault::Unsupported)?;
        let has_what_it_needs = |host: &&Host| choice::check_docker(host.docker.as_deref(), &host.name, wanted);
        let fitting: Vec<Host> =
            found.iter().filter(|host| has_what_it_needs(host).is_ok()).map(|it| (*it).clone()).collect();
        match found.first() {
            Some(host) if fitting.is_empty() => Err(has_what_it_needs(host)
                .err()
                .unwrap_or_else(|| Fault::Unsupported("no host has what the task needs".to_owned()))),
            _ => {
                let patterns = self.hosts.iter().flat_map(|host| &host.images);
                let counted = choice::best(patterns, wanted.image.as_deref()).unwrap_or_default().to_owned();
                Ok(Candidates { hosts: fitting, counted })
            }
        }
    }

    fn named(&self, name: &str) -> Result<&Host, HostError> {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.ok_or_else(|| HostError::Unknown { name: name.to_owned() })
    }

    /// Makes the host of this record as new, if it has one.
    async fn release(&self, known: &Known, host: &HostPaths) -> Result<(), HostError> {
        let Some((_, place)) = known.requested() else { return Ok(()) };
        self.named(place)?.reset(&host.state, &host.search_path).await
    }

    /// Takes the first that is free.
    async fn take(&self, candidates: &Candidates, record: &Record, host: &HostPaths) -> Result<Host, Fault> {
        let begun = Instant::now();
        // The rest of its time is for the reset and the way in.
        let patience = self.settings.start_limit / 2;
        loop {
            let mut whose = Vec::new();
            for candidate in &candidates.hosts {
                match self.try_take(candidate, record, host).await? {
                    None => return Ok(candidate.clone()),
                    Some(why) => whose.push(format!("{} ({why})", candidate.name)),
                }
            }
            if begun.elapsed() + BETWEEN > patience {
                return Err(HostError::AllTaken { whose: whose.join(", "), waited: begun.elapsed() }.into());
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// `None`: it is this record's now. Else who has it.
    async fn try_take(&self, candidate: &Host, record: &Record, host: &HostPaths) -> Result<Option<String>, Fault> {
        let Some(_turn) = candidate.turn(&host.state)? else { return Ok(Some("another task takes it".to_owned())) };
        for machine in record::all(&host.state)? {
            if machine == record.machine() {
                continue;
            }
            let directory = record::directory(&host.state, &machine);
            let known = match record::load(&directory) {
                Ok(known) => known,
                Err(RecordError::Read { .. }) if !directory.exists() => continue,
                // Whose host it is cannot be read: it may be this one.
                Err(error) => return Err(error.into()),
            };
            let is_its =
                known.planned.provider == NAME && known.requested().is_some_and(|(_, at)| at == candidate.name);
            if is_its && let Some(why) = self.make_up(&machine, directory, &known, host).await {
                return Ok(Some(why));
            }
        }
        record
            .note(Fact::Requested { token: record.machine().as_str().to_owned(), place: candidate.name.clone() })
            .await?;
        Ok(None)
    }

    /// A removal that stopped at the host's reset is gone on with. Returns why the host is not free all the same.
    async fn make_up(
        &self,
        machine: &MachineId,
        directory: PathBuf,
        known: &Known,
        host: &HostPaths,
    ) -> Option<String> {
        let task = match &known.planned.task {
            Some(task) => format!("task {task}"),
            None if known.is_pooled() => "a pool keeps it ready".to_owned(),
            None => "no task".to_owned(),
        };
        if known.state < State::Destroying || record::is_held(&directory) {
            return Some(task);
        }
        let Ok(record) = Record::resume(directory).await else { return Some(task) };
        tracing::info!(%machine, "A host whose reset had failed is reset again.");
        if let Err(error) = self.release(known, host).await {
            return Some(format!("{task} is over, and {}", chain(&error)));
        }
        let _removed_all_the_same = record.enter(State::Destroyed).await;
        record.remove().await.err().map(|error| format!("the record of {task} cannot be removed: {error}"))
    }
}

/// A host in a task's hands.
pub(crate) struct Instance {
    hosts: Arc<Hosts>,
    order: Order<Candidates>,
    record: Record,
    host: HostPaths,
    report: Vec<String>,
    taken: Option<Host>,
    /// How it is entered, of one that its pool has heard to wait.
    waits: Option<Way>,
    link: Option<Arc<dyn Connect>>,
}

impl Instance {
    pub fn new(hosts: Arc<Hosts>, order: Order<Candidates>, record: Record, host: &HostPaths) -> Self {
        Self { hosts, order, record, host: host.clone(), report: Vec::new(), taken: None, waits: None, link: None }
    }

    /// One that a pool has given to this process.
    pub fn of_pool(
        hosts: Arc<Hosts>,
        order: Order<Candidates>,
        record: Record,
        host: &HostPaths,
    ) -> Result<Self, Fault> {
        refuse(&order, NAME)?;
        let known = record.known();
        let name = known.requested().map_or("", |(_, place)| place);
        let taken = order.image.hosts.iter().find(|host| host.name == name).cloned();
        let taken = taken.ok_or_else(|| HostError::Unknown { name: name.to_owned() })?;
        let mut instance = Self::new(hosts, order, record, host);
        instance.waits = known.way().cloned();
        instance.tell(&taken);
        instance.taken = Some(taken);
        Ok(instance)
    }

    /// Takes a host and makes it as new.
    pub async fn provision(&mut self) -> Result<(), Fault> {
        refuse(&self.order, NAME)?;
        let begun = Instant::now();
        let taken = self.hosts.take(&self.order.image, &self.record, &self.host).await?;
        let waited = begun.elapsed();
        taken.reset(&self.host.state, &self.host.search_path).await?;
        self.tell(&taken);
        if waited > BETWEEN {
            self.report.push(format!("Waited {:.1} s for a host that is free", waited.as_secs_f64()));
        }
        self.taken = Some(taken);
        Ok(())
    }

    fn tell(&mut self, taken: &Host) {
        self.report.push(format!("Host: {} ({}:{}), as its reset leaves it", taken.name, taken.address, taken.port));
        self.report.push("Its processors and memory are what the host has, whatever the class says".to_owned());
        self.report.extend(told_plainly(&self.order, NAME));
    }

    fn taken(&self) -> Result<&Host, Fault> {
        self.taken.as_ref().ok_or_else(|| Fault::Unsupported("a host was entered before it was taken".to_owned()))
    }

    pub fn look(&self) -> Look {
        if self.taken.is_some() { Look::Up } else { Look::Absent }
    }

    /// How it is entered, by what its operator says now.
    fn way(&self) -> Result<(Way, Target), Fault> {
        let taken = self.taken()?;
        let way = Way {
            address: taken.address.clone(),
            port: taken.port,
            user: taken.user.clone(),
            host_key: taken.host_key.trim().to_owned(),
            key_file: taken.key_file.clone(),
            forwarding: self.waits.as_ref().map_or(Forwarding::Sockets, |way| way.forwarding.clone()),
        };
        let usage = |error: std::io::Error| Fault::Setting {
            key: format!("vm.ssh.hosts {}", taken.name),
            why: error.to_string(),
        };
        let target = way.target().map_err(usage)?;
        Ok((way, target))
    }

    fn limit(&self) -> Duration {
        self.hosts.settings.answer_limit.mul_f32(0.9)
    }

    /// Enters it and hears that it waits for a seed: for a pool.
    pub async fn wait(&mut self) -> Result<(), Fault> {
        let (mut way, target) = self.way()?;
        way.forwarding = seeding::wait(&target, &self.host, self.limit()).await?;
        Ok(self.record.note(Fact::Way(way)).await?)
    }

    /// Enters it and makes it the task's.
    pub async fn connect(&mut self) -> Result<Contact, Fault> {
        let (way, target) = self.way()?;
        let taken = self.taken()?.clone();
        let fingerprint = target.host_key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
        self.record.note(Fact::HostKey { fingerprint }).await?;
        let mut seed = qemu::seed::of(&self.order, None, None, taken.docker.is_some())?;
        // It costs nothing while it waits, and nobody but its operator switches it off; whoever removes its task resets it.
        seed.idle_limit_s = 0;
        let limit = (self.limit(), self.waits.is_some());
        let link = super::begin(&self.record, (way, target), seed, &self.host, limit).await?;
        self.link = Some(Arc::clone(&link));
        Ok(Contact { link, user: Some(taken.step_user) })
    }

    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        let name = self.taken.as_ref().map_or_else(|| NAME.to_owned(), |host| format!("host {}", host.name));
        super::watch::of(self.link.clone(), name, super::watch::Nobody)
    }

    pub fn host_key(&self) -> Option<&str> {
        self.taken.as_ref().map(|host| host.host_key.trim())
    }

    pub fn take_report(&mut self) -> Vec<String> {
        std::mem::take(&mut self.report)
    }
}

/// Makes the record's host as new. That takes as long as the operator lets it: a host that is not reset is of no use to anybody.
pub(crate) async fn destroy(hosts: &Hosts, record: &Record, host: &HostPaths) -> Vec<String> {
    let released = hosts.release(&record.known(), host).await;
    released.err().map(|error| chain(&error)).into_iter().collect()
}
