//! What a record says: entries, and what they come to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use serde::{Deserialize, Serialize};

use crate::far::Way;
use crate::machine_id::MachineId;
use crate::pool::rules::Kind;
use crate::state::State;

/// What one line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first, and only the first.
    Planned(Box<Planned>),
    /// The machine is about to enter this state.
    State(State),
    /// Something of the machine's, by a name under which it is found again.
    Fact(Fact),
    /// From here on another process looks after the machine.
    Owner(Owner),
    /// Its pool has given it to this process: it is no machine of the pool's any more, and never another taker's.
    Given(Owner),
    /// Who took it from a pool says what it is for: from here on it is like any other machine of a task.
    Taken(Box<Taken>),
}

/// What a taker makes of a pool's machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// The task.
    pub task: TaskId,
    /// The process that looks after it.
    pub owner: Owner,
    /// As [`Planned::is_adoptable`].
    pub is_adoptable: bool,
    /// As [`Planned::has_steps`].
    pub has_steps: bool,
}

/// What was decided before anything was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Form of the record: [`Self::VERSION`] of the program that wrote it.
    pub version: u32,
    /// The machine.
    pub machine: MachineId,
    /// The task that it is made for, if it is known yet.
    pub task: Option<TaskId>,
    /// The process that made the record.
    pub owner: Owner,
    /// Which provider has it: `qemu`, `ssh`, `ec2`, `gce`, `lent`.
    pub provider: String,
    /// The image's name.
    pub image: String,
    /// Another agent may go on with its task, should its owner be killed.
    #[serde(default)]
    pub is_adoptable: bool,
    /// Steps of the task run in it; else it serves them.
    #[serde(default)]
    pub has_steps: bool,
    /// The pool that it was made for, by the pool's directory. `None`: for a task, or for nobody.
    #[serde(default)]
    pub pool: Option<PathBuf>,
    /// What its pool made it as. `None`: it is no pool's, or was made by a version that did not write this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Its pool lends it to another host: its taker's record is there, and this one stays the pool's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lent: bool,
}

impl Planned {
    /// The form that this code writes. Version 1 has no pools.
    pub const VERSION: u32 = 2;
}

/// Something that a machine has, or is about to get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// Its cgroup, below each hierarchy's root. Written before it is made.
    Cgroup {
        /// As `navvy_environment::cgroup::Place::text` says it.
        place: String,
    },
    /// Its network interface on this host. Written before it is made.
    Tap {
        /// The interface's name.
        name: String,
        /// The machine's address.
        address: String,
        /// The machine's link address.
        link_address: String,
    },
    /// What it boots from, and how. Written before its process is started.
    Launch {
        /// The program.
        program: PathBuf,
        /// `kvm` or `tcg`.
        accelerator: String,
        /// The image's digest.
        image: String,
        /// The snapshot that it goes on from, if from one.
        snapshot: Option<String>,
    },
    /// Its process on this host.
    Process {
        /// The process.
        process: Owner,
    },
    /// It waits for its seed: a taker compares this with what it wants. A host that is there has what it has, and says [`Self::Way`] alone.
    Waits {
        /// Virtual processors.
        cpus: u32,
        /// Memory in MiB.
        memory_mib: u64,
    },
    /// Fingerprint of the ssh host key that was made for it.
    HostKey {
        /// As `ssh-keygen -l` shows it.
        fingerprint: String,
    },
    /// Its provider was asked for it under this name, and is asked with the same name again.
    Requested {
        /// A client token or request id.
        token: String,
        /// Where: a region, a zone, a host.
        place: String,
    },
    /// Its provider's own name for it.
    Instance {
        /// The name.
        id: String,
        /// Its address, once that is known.
        address: Option<String>,
    },
    /// How it is entered, once it was seeded; of a pool's machine that is elsewhere also before, once it waits for its seed.
    Way(Way),
}

/// What all entries together say.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The first entry, with what a taker has said since.
    pub planned: Planned,
    /// Who looks after it, by the last entry that says so.
    pub owner: Owner,
    /// The last state that it was about to enter.
    pub state: State,
    /// In the order in which they became known.
    pub facts: Vec<Fact>,
    /// A pool's machine, and the pool has given it away.
    pub is_given: bool,
}

impl Known {
    pub(super) fn new(planned: Planned) -> Self {
        Self { owner: planned.owner.clone(), planned, state: State::Planned, facts: Vec::new(), is_given: false }
    }

    /// The last fact of a kind.
    pub fn last<'a, T>(&'a self, of: impl Fn(&'a Fact) -> Option<T>) -> Option<T> {
        self.facts.iter().rev().find_map(of)
    }

    /// Its process on this host, if it was started.
    pub fn process(&self) -> Option<&Owner> {
        self.last(|fact| if let Fact::Process { process } = fact { Some(process) } else { None })
    }

    /// Is it a pool's, which has not given it away?
    pub fn is_pooled(&self) -> bool {
        self.planned.pool.is_some() && !self.is_given
    }

    /// Has it come so far that it waits for its seed, as a pool's does?
    pub fn has_waited(&self) -> bool {
        let waits = |fact: &Fact| matches!(fact, Fact::Waits { .. } | Fact::Way(_)).then_some(());
        self.last(waits).is_some()
    }

    /// Processors and MiB of a machine that waits for its seed, where its provider gives it some.
    pub fn shape(&self) -> Option<(u32, u64)> {
        self.last(|fact| if let Fact::Waits { cpus, memory_mib } = fact { Some((*cpus, *memory_mib)) } else { None })
    }

    /// Its cgroup, if it was to get one.
    pub fn cgroup(&self) -> Option<String> {
        self.last(|fact| if let Fact::Cgroup { place } = fact { Some(place.clone()) } else { None })
    }

    /// The name and the place by which its provider was asked for it, if it was.
    pub fn requested(&self) -> Option<(&str, &str)> {
        self.last(|fact| {
            if let Fact::Requested { token, place } = fact { Some((token.as_str(), place.as_str())) } else { None }
        })
    }

    /// Its provider's own names for it.
    pub fn instances(&self) -> BTreeSet<String> {
        let names = self
            .facts
            .iter()
            .filter_map(|fact| if let Fact::Instance { id, .. } = fact { Some(id.clone()) } else { None });
        names.collect()
    }

    /// How it is entered, if it came so far and is elsewhere.
    pub fn way(&self) -> Option<&Way> {
        self.last(|fact| if let Fact::Way(way) = fact { Some(way) } else { None })
    }

    /// Does it live, as far as can be told from here? One that is elsewhere does, from its seed to its end, until somebody asks it.
    pub fn may_live(&self, here: &Owner) -> bool {
        match self.process() {
            Some(process) => !process.is_dead(here),
            None => self.way().is_some() && self.state == State::Ready,
        }
    }

    pub(super) fn take(&mut self, entry: Entry) -> Result<(), Illegal> {
        match entry {
            Entry::Planned(_) => return Err(Illegal),
            Entry::State(next) if self.state.may_become(next) => self.state = next,
            Entry::State(_) => return Err(Illegal),
            Entry::Fact(fact) => self.facts.push(fact),
            Entry::Owner(owner) => self.owner = owner,
            Entry::Given(owner) if self.planned.pool.is_some() && self.planned.task.is_none() => {
                (self.owner, self.is_given) = (owner, true);
            }
            Entry::Taken(taken) if self.is_given && self.planned.task.is_none() => self.be_taken(*taken),
            Entry::Given(_) | Entry::Taken(_) => return Err(Illegal),
        }
        Ok(())
    }

    fn be_taken(&mut self, taken: Taken) {
        let Taken { task, owner, is_adoptable, has_steps } = taken;
        self.owner = owner;
        (self.planned.task, self.planned.is_adoptable, self.planned.has_steps) = (Some(task), is_adoptable, has_steps);
    }
}

/// An entry that cannot follow those before it.
#[derive(Debug)]
pub(super) struct Illegal;
