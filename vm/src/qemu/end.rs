//! How a machine ended, and the removal of all that it had.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::cgroup::Place;
use navvy_environment::request::Died;
use navvy_journal::owner::Owner;
use navvy_protocol::guest::OWN_FAULT;
use tokio::sync::watch;

use super::console::Console;
use super::process::{self, Started, Words};
use super::qmp::Qmp;
use super::{instance, network};
use crate::error::Fault;
use crate::machine_id::MachineId;
use crate::record::{Fact, Known, Record};

/// What a kernel writes when it gives up.
const PANIC: &str = "Kernel panic";
/// After a process's end its last words come at once.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// What an ended machine's console has said is read within this.
const LAST_LINES: Duration = Duration::from_secs(3);
/// A process that closes its sockets ends soon.
const BROKEN_OFF: Duration = Duration::from_secs(2);
/// Code of a process that was killed for want of memory, as shells tell it.
const KILLED: i64 = 137;

/// The machine's id as the name of a cgroup needs it.
pub(super) fn as_task(machine: &MachineId) -> Result<navvy_job::id::TaskId, Fault> {
    instance::task_of(machine.as_str()).ok_or_else(|| Fault::Unsupported("a machine's id names no cgroup".to_owned()))
}

/// Processors of this host.
pub(super) fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// Memory of this host, in bytes.
pub(super) fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

/// Lets what was said last arrive.
pub(super) async fn drain(words: &Words) {
    let deadline = tokio::time::Instant::now() + LAST_WORDS;
    while words.text().is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What became of a machine whose process has ended.
pub(super) async fn fault(words: &Words, status: Option<ExitStatus>, console: &Console, doing: &'static str) -> Fault {
    drain(words).await;
    console.over(LAST_LINES).await;
    if console.text().contains(PANIC) {
        return Fault::Panicked { doing };
    }
    if console.text().contains(OWN_FAULT) {
        return Fault::OwnFault { doing };
    }
    let said = words.text();
    let how = match status {
        Some(status) if status.success() => "the guest has ended it".to_owned(),
        Some(status) => status.to_string(),
        None => "it was ready before, and another process would know how it ended".to_owned(),
    };
    Fault::Ended { doing, message: if said.is_empty() { how } else { format!("{how}: {said}") } }
}

/// A conversation that broke off: most often since the process has ended, which says more.
pub(super) async fn or_ended(started: &mut Started, console: &Console, doing: &'static str, broken: Fault) -> Fault {
    // What is not understood is the guest's doing, whether it ended then or not.
    let limit = if matches!(broken, Fault::Ended { .. } | Fault::Monitor { .. }) { BROKEN_OFF } else { LAST_WORDS };
    match tokio::time::timeout(limit, started.wait()).await {
        Ok(Ok(status)) if !matches!(broken, Fault::Hostile { .. }) => {
            fault(&started.words, status, console, doing).await
        }
        _ => broken,
    }
}

/// What is looked at when a machine ends.
pub(super) struct Ending {
    pub console: Console,
    pub cgroup: Option<String>,
    pub directory: PathBuf,
}

/// Waits for the end of a machine of this process.
pub(super) async fn follow(mut started: Started, mut qmp: Qmp, ending: Ending, sender: watch::Sender<Option<Died>>) {
    let before = ending.oom_kills();
    let died = tokio::select! {
        status = started.wait() => {
            if !started.is_of_another() {
                drain(&started.words).await;
            }
            ending.console.over(LAST_LINES).await;
            let by_guest = started.is_of_another() && qmp.was_shut_down().await;
            ending.died(status.ok().flatten(), by_guest, &started.words, before)
        }
        message = qmp.disk_is_full() => Died::DiskFloor {
            message: format!("no space was left for the machine's disk in {} ({message})", ending.directory.display()),
        },
    };
    sender.send_replace(Some(died));
    // Kept, so that a later caller still learns of it.
    sender.closed().await;
}

impl Ending {
    /// `None`: they cannot be counted.
    fn oom_kills(&self) -> Option<u64> {
        let hierarchies = navvy_cgroup::mounted().ok()?;
        self.cgroup.as_deref().map(|name| navvy_cgroup::oom_kills(name, &hierarchies))
    }

    /// Only what was counted both times says so.
    fn is_out_of_memory(&self, before: Option<u64>) -> bool {
        self.oom_kills().zip(before).is_some_and(|(now, before)| now > before)
    }

    /// `by_guest`: its monitor has said so; of another's child nobody here gets a status.
    fn died(&self, status: Option<ExitStatus>, by_guest: bool, words: &Words, before: Option<u64>) -> Died {
        use std::os::unix::process::ExitStatusExt as _;
        let last_words = self.console.last_lines();
        let said = words.text();
        if let Some(at) = last_words.find(OWN_FAULT) {
            return Died::EngineLost { message: format!("its console ends with: {}", last_words[at..].trim_end()) };
        }
        let Some(status) = status else {
            return match by_guest {
                true => Died::Exited { code: 0, out_of_memory: false, last_words },
                false if self.is_out_of_memory(before) => {
                    Died::Exited { code: KILLED, out_of_memory: true, last_words }
                }
                false => Died::EngineLost { message: "the machine's QEMU was lost".to_owned() },
            };
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => Died::Exited { code: 0, out_of_memory: false, last_words },
            (_, Some(_)) if self.is_out_of_memory(before) => {
                Died::Exited { code: KILLED, out_of_memory: true, last_words }
            }
            _ => Died::EngineLost {
                message: format!("the machine's QEMU ended ({status}) {said}").trim_end().to_owned(),
            },
        }
    }
}

/// Learns of the end of a machine that another process has made. Within a Tokio runtime only.
pub(crate) fn watch(known: &Known) -> watch::Receiver<Option<Died>> {
    let (sender, died) = watch::channel(None);
    let process = known.process().cloned();
    tokio::spawn(async move {
        let wait = async {
            if let Some(process) = &process {
                process::ended(process).await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = sender.closed() => return,
        }
        let message = "the machine's QEMU has ended; who started it, and would know how, is gone".to_owned();
        sender.send_replace(Some(Died::EngineLost { message }));
        sender.closed().await;
    });
    died
}

/// Ends its process.
pub(crate) async fn stop(record: &Record, limit: Duration) {
    let known = record.known();
    let _destroyed_later = process::kill(record.directory(), known.process(), limit).await;
}

/// Removes everything that it has on this host but for its directory.
pub(crate) async fn destroy(record: &Record, host: &HostPaths, limit: Duration) -> Vec<String> {
    let known = record.known();
    let mut left = process::kill(record.directory(), written(&known), limit).await;
    if !left.is_empty() {
        return left;
    }
    let taps = known.facts.iter().filter_map(|fact| match fact {
        Fact::Tap { name, address, .. } => Some((name, address)),
        _ => None,
    });
    for (name, address) in taps {
        left.extend(network::give_back(&known.planned.machine, name, address, &host.search_path).await.err());
    }
    let places: Vec<_> = known.facts.iter().filter_map(|fact| place(&known, fact)).collect();
    let work = move || places.iter().filter_map(|place| navvy_environment::cgroup::remove(place).err()).collect();
    let groups: Result<Vec<(PathBuf, std::io::Error)>, _> = tokio::task::spawn_blocking(work).await;
    match groups {
        Ok(groups) => left.extend(groups.into_iter().map(|(path, e)| format!("cgroup {} ({e})", path.display()))),
        Err(error) => left.push(format!("cgroups of the machine ({error})")),
    }
    left
}

fn written(known: &Known) -> Option<&Owner> {
    known.process()
}

fn place(known: &Known, fact: &Fact) -> Option<Place> {
    let Fact::Cgroup { place } = fact else { return None };
    // Only a place of this machine's or this task's: whatever stands in the record.
    let name = Path::new(place).file_name()?.to_str()?.strip_prefix("task-")?;
    let own = known.planned.task.iter().cloned().chain(as_task(&known.planned.machine).ok());
    let id = own.into_iter().find(|id| id.as_str() == name)?;
    Some(Place::read(&id, place))
}
