//! Machines for tasks: made, held, taken over, removed. What callers see of this crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navvy_environment::request::{
    IDLE_LIMIT, Inheritance, Machine as WantedMachine, OnEvent, Prepare, PrepareEvent, Purpose, Wanted,
};
use navvy_environment::supervisor::Connect;
use navvy_environment::{HostPaths, run_dir};
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_journal::standing::Mark;
use navvy_vm_image::Image;
use tokio::sync::watch;

use crate::environment::{MachineEnvironment, Parts};
use crate::error::{Fault, PrepareError};
use crate::far::{Clouds, Ec2Table, GceTable, SshTable, lent};
use crate::machine::{Limits, Machine};
use crate::machine_id::MachineId;
use crate::pool::source;
use crate::provider::{Order, Provider, Source};
use crate::qemu;
use crate::record::{self, Known, Planned, Record, RecordError};
use crate::settings::{Extras, Settings, Snapshots};
use crate::state::State;
use crate::visitors::Visit;

/// What a failed start has made is removed within this.
pub(crate) const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// What a task whose machine is elsewhere takes of this host: its output is masked, kept and sent on here, and its files go through here.
const ELSEWHERE: Size = Size { millicpus: 100, memory: 256 << 20 };

/// What makes machines. Cheap to clone.
#[derive(Clone)]
pub struct Machines {
    /// Who makes those to come.
    pub(crate) provider: Provider,
    /// Who else may have made some that are there.
    others: Vec<Provider>,
    pub(crate) settings: Arc<Settings>,
    /// Where machines that are ready come from, if there is a pool.
    pub(crate) pool: Option<Arc<dyn source::Source>>,
}

/// What a machine of these would start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The provider's name of it.
    pub name: String,
    /// The version of its Docker engine, if it has one.
    pub docker: Option<String>,
    /// As whom steps run in it.
    pub user: String,
}

impl Machines {
    /// Machines of this host, through QEMU. Touches nothing yet.
    pub fn qemu(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let provider = Provider::Qemu(Arc::new(qemu::Qemu::new(Arc::clone(&settings))));
        Self { provider, others: Vec::new(), settings, pool: None }
    }

    /// The same, and a task whose class and image a pool has gets its machine from there.
    #[must_use]
    pub fn with_pool(self, pool: Arc<dyn source::Source>) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// Hosts that are already there. Touches nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn ssh(settings: Settings, table: &SshTable) -> Result<Self, Fault> {
        let settings = Arc::new(settings);
        let provider = Provider::Ssh(Arc::new(table.hosts(&settings)?));
        Ok(Self { provider, others: Vec::new(), settings, pool: None })
    }

    /// Machines of Amazon EC2. Asks for nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn ec2(settings: Settings, table: &Ec2Table, clouds: Clouds<'_>) -> Result<Self, Fault> {
        let settings = Arc::new(settings);
        let provider = Provider::Cloud(Arc::new(table.cloud(&settings, clouds)?));
        Ok(Self { provider, others: Vec::new(), settings, pool: None })
    }

    /// Machines of Google Compute Engine. Asks for nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn gce(settings: Settings, table: &GceTable, clouds: Clouds<'_>) -> Result<Self, Fault> {
        let settings = Arc::new(settings);
        let provider = Provider::Cloud(Arc::new(table.cloud(&settings, clouds)?));
        Ok(Self { provider, others: Vec::new(), settings, pool: None })
    }

    /// Machines that a fleet's processor lends to its tasks. None of them are made by this side.
    pub fn lent(settings: Settings) -> Self {
        Self { provider: Provider::Lent, others: Vec::new(), settings: Arc::new(settings), pool: None }
    }

    /// These also look after what machines of others have left: those make no new ones.
    #[must_use]
    pub fn beside(mut self, other: Self) -> Self {
        self.others.push(other.provider);
        self.others.extend(other.others);
        self
    }

    /// Where machines that are ready come from.
    pub fn pool(&self) -> Option<Arc<dyn source::Source>> {
        self.pool.clone()
    }

    /// Its name, for journals and people.
    pub fn name(&self) -> &str {
        self.provider.name()
    }

    /// Are its machines of this host: its processors, its memory, its disks?
    pub fn are_here(&self) -> bool {
        matches!(self.provider, Provider::Qemu(_))
    }

    /// What a task whose machine has this size takes of this host. Of a machine elsewhere that is what its agent needs for it.
    pub fn takes(&self, size: Size) -> Size {
        if self.are_here() { size } else { ELSEWHERE }
    }

    /// Most tasks of one process that may have machines at once, whatever room there is: as the operator says, else as many as there are
    /// hosts. `None`: no such bound.
    pub fn at_once(&self) -> Option<usize> {
        let hosts = if let Provider::Ssh(hosts) = &self.provider { Some(hosts.count()) } else { None };
        self.settings.at_once.or(hosts)
    }

    /// What a machine for a config's name of an image would start from; `None`: where none is named. Nothing is asked for it.
    ///
    /// # Errors
    /// There is none, and what to do.
    pub fn offer(&self, image: Option<&str>) -> Result<Offer, Fault> {
        let wanted =
            WantedMachine { image: image.map(str::to_owned), purpose: Purpose::Steps, layers: None, class: None };
        let none = Size { millicpus: 0, memory: 0 };
        let source = self.provider.choose(&self.settings, &wanted, none)?;
        Ok(Offer { name: source.name(), docker: source.docker(), user: source.user() })
    }

    /// Who has made the machine of a record.
    pub(crate) fn of(&self, record: &Record) -> Provider {
        self.named(&record.known().planned.provider)
    }

    /// Who makes, or made, machines of this name.
    pub(crate) fn named(&self, name: &str) -> Provider {
        if name == lent::NAME {
            // To forget one needs nothing of anybody's.
            return Provider::Lent;
        }
        let found = self.providers().find(|it| it.name() == name).cloned();
        found.unwrap_or_else(|| Provider::Lacking(name.into()))
    }

    /// All that there are.
    pub(crate) fn providers(&self) -> impl Iterator<Item = &Provider> {
        std::iter::once(&self.provider).chain(&self.others)
    }

    /// Whether machines can be made here at all: what makes them, in words, with its version.
    ///
    /// # Errors
    /// [`Fault::NoHypervisor`], with what is missing; [`Fault::Setting`], where others make them.
    pub async fn availability(&self, host: &HostPaths) -> Result<String, Fault> {
        match &self.provider {
            Provider::Qemu(qemu) => qemu.availability(host).await,
            Provider::Lent => Err(Fault::Setting {
                key: "vm.provider".to_owned(),
                why: "machines that are lent are made by the processor that lends them (its [machine_pool]), and none here"
                    .to_owned(),
            }),
            other => Ok(format!("machines of {}", other.name())),
        }
    }

    /// Makes a machine whose supervisor answers, or leaves nothing behind.
    ///
    /// # Errors
    /// Why there is none, and whose fault that is.
    pub async fn prepare(
        &self,
        request: Prepare,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<MachineEnvironment, PrepareError> {
        self.prepare_with(request, Extras::default(), host, events).await
    }

    /// The same with disks, files and keys of the caller's.
    ///
    /// # Errors
    /// Why there is none, and whose fault that is.
    pub async fn prepare_with(
        &self,
        request: Prepare,
        extras: Extras,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<MachineEnvironment, PrepareError> {
        let begun = Instant::now();
        let source = match self.begin(&request, host).await {
            Ok(source) => source,
            Err(fault) => return Err(self.failed(None, fault, &request, host).await),
        };
        // On the heap: it is as large as all of what follows, and most tasks have no pool.
        match Box::pin(self.take(&request, &extras, &source, host, events)).await {
            Ok(Some(taken)) => {
                events(PrepareEvent::Report(started_in(begun)));
                return Ok(taken);
            }
            Ok(None) => {}
            Err(fault) => return Err(self.failed(None, fault, &request, host).await),
        }
        let record = match self.plan(&request, &source, host).await {
            Ok(record) => record,
            Err(fault) => return Err(self.failed(None, fault, &request, host).await),
        };
        if let Source::Image(image) = &source
            && self.settings.snapshots == Snapshots::Make
            && extras.disks.is_empty()
        {
            // Whatever comes of it, the machine is made.
            let size = self.provider.guest_size(request.size, request.cgroup_parent.as_ref());
            if let Err(error) = self.warm_image(Image::clone(image), size, host, events).await {
                events(PrepareEvent::Warning(format!("no snapshot could be made: {error}")));
            }
        }
        let order = order(&request, extras, source, record.known().planned);
        let limits = Limits { start: self.settings.start_limit, answer: self.settings.answer_limit };
        let instance = self.provider.order(order, record.clone(), host);
        let mut machine = Machine::new(record, instance, limits);
        match machine.start().await {
            Ok(contact) => {
                report(&mut machine, &request, events);
                events(PrepareEvent::Report(started_in(begun)));
                Ok(MachineEnvironment::new(self.clone(), &request, host, machine, contact))
            }
            Err(fault) => Err(self.failed(Some(machine), fault, &request, host).await),
        }
    }

    async fn failed(
        &self,
        machine: Option<Machine>,
        fault: Fault,
        request: &Prepare,
        host: &HostPaths,
    ) -> PrepareError {
        let console = match &machine {
            Some(machine) => machine.instance.asked_console().await,
            None => String::new(),
        };
        let record = machine.map(|machine| machine.record);
        let leftovers = self.clean_up(record.as_ref(), request, host).await;
        PrepareError { fault, console, leftovers }
    }

    /// Removes what a start that failed has made, and the mark that it began with.
    async fn clean_up(&self, record: Option<&Record>, request: &Prepare, host: &HostPaths) -> Vec<String> {
        let left = match record {
            Some(record) => self.destroy(record, host, CLEAN_UP_LIMIT).await,
            None => Vec::new(),
        };
        if left.is_empty() && has_steps(request) { remove_files(&request.task, host).await } else { left }
    }

    /// Finds what it starts from, and marks the task as begun.
    async fn begin(&self, request: &Prepare, host: &HostPaths) -> Result<Source, Fault> {
        let Wanted::Machine(wanted) = &request.wanted else {
            return Err(Fault::Unsupported("containers were asked for, and this makes machines".to_owned()));
        };
        let source = self.provider.choose(&self.settings, wanted, request.size)?;
        let run = run_dir::place(host.runtime.as_deref(), run_dir::uid(), &request.task);
        if wanted.purpose == Purpose::Steps {
            run_dir::mark(&run, &Mark::Running(request.owner.clone()))?;
        }
        if let Some(journal) = &request.journal {
            journal.opened().await?;
        }
        Ok(source)
    }

    /// Writes down what is to be made; nothing is, before.
    async fn plan(&self, request: &Prepare, source: &Source, host: &HostPaths) -> Result<Record, Fault> {
        let planned = Planned {
            version: Planned::VERSION,
            machine: MachineId::random(),
            task: Some(request.task.clone()),
            owner: request.owner.clone(),
            provider: self.name().to_owned(),
            image: source.name(),
            is_adoptable: request.is_adoptable,
            has_steps: has_steps(request),
            pool: None,
            kind: None,
            is_lent: false,
        };
        Ok(Record::create(&host.state, planned).await?)
    }

    /// A live environment around the way to a supervisor that was found already. Within a Tokio runtime only.
    pub async fn adopt(
        &self,
        task: &TaskId,
        host: &HostPaths,
        link: Arc<dyn Connect>,
        inherited: Inheritance,
    ) -> MachineEnvironment {
        let found = find(&host.state, task, true);
        let record = match found {
            Ok(Some((directory, _))) => Record::resume(directory).await.ok(),
            _ => None,
        };
        let died = match &record {
            Some(record) => self.of(record).watch(&record.known(), &link),
            // Whoever removed it did so just now.
            None => {
                watch::channel(Some(navvy_environment::request::Died::EngineLost {
                    message: "the machine's record is gone, cannot be read, or is held by another process".to_owned(),
                }))
                .1
            }
        };
        MachineEnvironment::of(Parts {
            machines: self.clone(),
            task: task.clone(),
            host: host.clone(),
            record,
            link,
            user: inherited.step_user,
            egress: inherited.egress,
            idle_limit: inherited.idle_limit.unwrap_or(IDLE_LIMIT),
            has_steps: true,
            died,
            instance: None,
            ticket: None,
        })
    }

    /// The way to the supervisor of a task whose agent was killed, or that is held.
    ///
    /// # Errors
    /// It has no machine any more, or nobody answers there.
    pub async fn link_of_left(&self, task: &TaskId, host: &HostPaths) -> std::io::Result<Arc<dyn Connect>> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("task {task} has no machine"));
        let (directory, known) = find(&host.state, task, true).map_err(std::io::Error::other)?.ok_or_else(missing)?;
        self.named(&known.planned.provider).link(&directory, &known).await
    }

    /// The way to the supervisor of a task that runs: by the agent that looks after it. One that has only begun to is waited for.
    ///
    /// # Errors
    /// It lets nobody in: the machine is being made, or the task is ending.
    pub async fn link_of_running(&self, task: &TaskId, host: &HostPaths) -> std::io::Result<Arc<dyn Connect>> {
        Ok(Arc::new(Visit::of(task, host).await?))
    }

    /// As [`Self::link_of_left`], of the machine beside a task whose steps run elsewhere.
    ///
    /// # Errors
    /// It has none any more, or nobody answers there.
    pub async fn remote_of_left(&self, task: &TaskId, host: &HostPaths) -> std::io::Result<Arc<dyn Connect>> {
        let missing =
            || std::io::Error::new(std::io::ErrorKind::NotFound, format!("task {task} has no machine beside it"));
        let (directory, known) = find(&host.state, task, false).map_err(std::io::Error::other)?.ok_or_else(missing)?;
        self.named(&known.planned.provider).link(&directory, &known).await
    }

    /// Has this task a machine here, or something of one? It may where the records cannot be listed, or one of them cannot be read.
    pub fn has(&self, task: &TaskId, host: &HostPaths) -> bool {
        all_of(&host.state, task).map_or(true, |machines| !machines.is_empty())
    }

    /// Removes everything of the task's machines within `limit`, and, where its steps ran in one, all else of the task. Returns what is
    /// left, by name.
    ///
    /// Needs no knowledge of how far its start came; doing it twice is fine.
    pub async fn remove_task(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        let left = self.remove_machines(task, host, limit).await;
        if left.is_empty() { remove_files(task, host).await } else { left }
    }

    /// Removes the task's machines, and nothing else of it: for a task whose steps run elsewhere.
    pub async fn remove_machines(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        let directories = match all_of(&host.state, task) {
            Ok(directories) => directories,
            Err(error) => return vec![chain(&error)],
        };
        let mut left = Vec::new();
        for directory in directories {
            left.extend(self.remove_directory(directory, host, limit).await);
        }
        left
    }

    pub(crate) async fn remove_directory(&self, directory: PathBuf, host: &HostPaths, limit: Duration) -> Vec<String> {
        match Record::resume(directory.clone()).await {
            Ok(record) => self.destroy(&record, host, limit).await,
            // It went meanwhile.
            Err(_) if is_gone(&directory) => Vec::new(),
            Err(error) => vec![format!("machine {} ({error})", directory.display())],
        }
    }

    /// Removes one machine, record last. Returns what is left.
    pub(crate) async fn destroy(&self, record: &Record, host: &HostPaths, limit: Duration) -> Vec<String> {
        if record.state() < State::Destroying {
            // A full disk keeps nobody from removing what fills it.
            let _removed_all_the_same = record.enter(State::Destroying).await;
        }
        let mut left = self.of(record).destroy(record, host, limit).await;
        if left.is_empty() {
            let _removed_all_the_same = record.enter(State::Destroyed).await;
            let gone = record.remove().await;
            left.extend(gone.err().map(|e| format!("directory {} ({e})", record.directory().display())));
        }
        left
    }
}

/// Is it a machine in which the task's steps run?
pub(crate) fn has_steps(request: &Prepare) -> bool {
    matches!(&request.wanted, Wanted::Machine(wanted) if wanted.purpose == Purpose::Steps)
}

/// Tells what a machine is that has started.
pub(crate) fn report(machine: &mut Machine, request: &Prepare, events: OnEvent<'_>) {
    let lines = machine.instance.take_report().into_iter().chain(request.egress.report(false));
    lines.chain(request.notes.iter().cloned()).for_each(|line| events(PrepareEvent::Report(line)));
}

fn started_in(begun: Instant) -> String {
    format!("Time to start the machine: {:.2} s", begun.elapsed().as_secs_f64())
}

/// What a machine is to be, with what its record says.
pub(crate) fn order<I>(request: &Prepare, extras: Extras, image: I, planned: Planned) -> Order<I> {
    Order {
        machine: planned.machine,
        task: planned.task,
        owner: request.owner.clone(),
        image,
        purpose: if planned.has_steps { Purpose::Steps } else { Purpose::RemoteDocker },
        size: request.size,
        cgroup_parent: request.cgroup_parent.clone(),
        disk_floor: request.disk_floor,
        idle_limit: request.idle_limit,
        egress: Arc::clone(&request.egress),
        extras,
    }
}

/// Is nothing there any more of a machine with this directory? Where that cannot be seen, something may be.
pub(crate) fn is_gone(directory: &Path) -> bool {
    matches!(directory.try_exists(), Ok(false))
}

/// What the records of a host tell of a task's machines.
struct Told {
    /// Those that are the task's, with their directories.
    its: Vec<(PathBuf, Known)>,
    /// A record that cannot be read now, and may be that of another one.
    unread: Option<RecordError>,
    /// One that this version will never read: damaged, or a newer version's. A survey names it.
    strange: Option<RecordError>,
}

fn told_of(state: &Path, task: &TaskId) -> Result<Told, RecordError> {
    let mut told = Told { its: Vec::new(), unread: None, strange: None };
    for machine in record::all(state)? {
        let directory = record::directory(state, &machine);
        match record::load(&directory) {
            Ok(known) if known.planned.task.as_ref() == Some(task) => told.its.push((directory, known)),
            // Another task's; or nothing was made of it.
            Ok(_) | Err(RecordError::Empty { .. }) => {}
            // It was removed meanwhile, or is another user's who has the same state directory.
            Err(RecordError::Read { source, .. }) if is_none_of_ours(&source) => {}
            Err(error @ RecordError::Read { .. }) => told.unread = Some(error),
            Err(error) => told.strange = Some(error),
        }
    }
    Ok(told)
}

fn is_none_of_ours(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
}

/// Directories of all machines that a task has here. An error where it has none that can be read, and one that cannot be read now may be
/// its. Of a record that nobody will ever read no task of all is suspected.
pub(crate) fn all_of(state: &Path, task: &TaskId) -> Result<Vec<PathBuf>, RecordError> {
    let Told { its, unread, .. } = told_of(state, task)?;
    match unread {
        Some(error) if its.is_empty() => Err(error),
        _ => Ok(its.into_iter().map(|(directory, _)| directory).collect()),
    }
}

/// The machine in which the task's steps run, or the other one. An error where it is not found, and one that cannot be read now may be
/// it; of a task that has no other machine here, one that nobody will ever read may be it, too.
pub(crate) fn find(state: &Path, task: &TaskId, has_steps: bool) -> Result<Option<(PathBuf, Known)>, RecordError> {
    let Told { its, unread, strange } = told_of(state, task)?;
    let doubt = unread.or(strange.filter(|_| its.is_empty()));
    let found = its.into_iter().find(|(_, known)| known.planned.has_steps == has_steps);
    match (found, doubt) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

/// What else of a task is on this machine: its run directory, its cgroup, and, if nothing is left at all, its mark.
pub(crate) async fn remove_files(task: &TaskId, host: &HostPaths) -> Vec<String> {
    let (task, runtime) = (task.clone(), host.runtime.clone());
    let work = tokio::task::spawn_blocking(move || {
        let run = run_dir::place(runtime.as_deref(), run_dir::uid(), &task);
        let directory = run_dir::remove(&run).map_err(|e| format!("directory {} ({e})", run.display()));
        let groups = navvy_environment::cgroup::Place::find(&task);
        let groups = groups.iter().map(navvy_environment::cgroup::remove);
        let groups = groups.map(|gone| gone.map_err(|(path, e)| format!("cgroup {} ({e})", path.display())));
        let left: Vec<String> = std::iter::once(directory).chain(groups).filter_map(Result::err).collect();
        if !left.is_empty() {
            return left;
        }
        run_dir::unmark(&run).err().map(|e| format!("mark of {} ({e})", run.display())).into_iter().collect()
    });
    work.await.unwrap_or_else(|e| vec![format!("files of the task ({e})")])
}

#[cfg(test)]
mod tests;
