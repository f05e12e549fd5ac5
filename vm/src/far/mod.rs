//! Machines that are not of this host: a cloud's, or hosts that are already there.
//!
//! ```text
//!             provision                 launch                     look                    connect
//! cloud       keys made, written down   asked for by its id        until it has an address  ssh by the pinned key ─▶ seed ─▶ link
//! host there  taken (one task's), reset nothing: it is there       it is there              the same
//!                                       │ `Requested` before the call, `Instance` after it, `Way` once it was seeded
//! a pool's    waits: heard at the seed's socket, `Way`, no seed ─▶ its taker: seed ─▶ link
//! destroy     by the record alone; an answer that was lost is found by id and tag; a host is reset
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `choice` | which image, size or host a task gets (pure) |
//! | `tables` | what an operator says, as it is written |
//! | `keys` | what must stay secret, in the machine's directory |
//! | `way` | how a machine is entered, also by the next process |
//! | `dial` | all activities over one program's stdin and stdout, where the server forwards no sockets |
//! | `seeding` | a machine becomes the task's |
//! | `cloud` | machines of a cloud; `hosts` those that are there |
//! | `lent` | machines that a fleet's processor lends |
//! | `identity` | whose a cloud's machine is; `unknown` removes those that no record knows |
//! | `watch` | how their end is learned of |

pub(crate) mod choice;
pub(crate) mod cloud;
mod dial;
pub(crate) mod hosts;
mod identity;
pub(crate) mod keys;
pub(crate) mod lent;
pub(crate) mod seeding;
pub mod tables;
pub(crate) mod unknown;
pub(crate) mod watch;
pub(crate) mod way;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::supervisor::Connect;
use navvy_protocol::guest::Seed;

pub use self::choice::{Row, Type};
pub use self::tables::{Clouds, Ec2Table, GceTable, SshTable};
pub use self::way::{Forwarding, Way};
use crate::error::Fault;
use crate::provider::Order;
use crate::record::{Fact, Known, Record};
use crate::ssh::Target;

/// To enter a machine that answers already.
const ENTER: Duration = Duration::from_secs(30);

/// The way to the supervisor of a machine that another process has made.
pub(crate) async fn link_of(directory: &Path, known: &Known) -> io::Result<Arc<dyn Connect>> {
    let way =
        known.way().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its start has not come far enough"))?;
    let secret = keys::read(directory, keys::SECRET)?;
    way.open(secret, ENTER).await
}

/// Makes a machine the task's by its seed. `waits`: its pool has heard that it waits for one.
async fn begin(
    record: &Record,
    (mut way, target): (Way, Target),
    seed: Seed,
    host: &HostPaths,
    (limit, waits): (Duration, bool),
) -> Result<Arc<dyn Connect>, Fault> {
    let secret = seed.secret.clone();
    keys::write(record.directory(), keys::SECRET, &secret).map_err(Fault::host("keep the machine's secret"))?;
    way.forwarding = match waits {
        true => seeding::seed_waiting(&way, &target, seed, limit.min(ENTER)).await?,
        false => seeding::seed(&target, seed, host, limit).await?,
    };
    record.note(Fact::Way(way.clone())).await?;
    way.open(secret, ENTER)
        .await
        .map_err(|error| Fault::Hostile { doing: "opening the way to its supervisor", message: error.to_string() })
}

/// What such a machine cannot have.
fn refuse<I>(order: &Order<I>, provider: &str) -> Result<(), Fault> {
    match order.extras.disks.first() {
        Some(disk) => Err(Fault::Unsupported(format!(
            "machines of {provider} are not on this host, and cannot have its disk {}",
            disk.path.display()
        ))),
        None => Ok(()),
    }
}

/// What it does not get, though this host's settings or the command line say so: for its report.
fn told_plainly<I>(order: &Order<I>, provider: &str) -> Option<String> {
    let allowed = order.egress.allowed();
    (!allowed.is_empty())
        .then(|| format!("--allow-host ({allowed}) opens nothing to it: a machine of {provider} is not on this host"))
}
