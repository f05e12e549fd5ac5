//! Machines that a fleet's processor lends: its pool has them made by a cloud, and ends them there. This side has a way in, and a record.
//!
//! ```text
//! Take ─▶ Entrance ─▶ record (ours, the task's): key, `Way` ─▶ seed ─▶ steps, as everywhere
//! destroy: record and key go; GiveBack by the ticket, or the end of the task's lease ─▶ the processor ends the machine
//! ```
//!
//! A host whose machines are lent has no rights at a cloud, and makes none of its own.

use std::path::Path;
use std::sync::Arc;

use navvy_environment::HostPaths;
use navvy_environment::request::{Died, Machine as Wanted, Prepare, Purpose};
use navvy_environment::supervisor::Connect;
use navvy_vm_image::table::DEFAULT;
use tokio::sync::watch;

use super::way::{Forwarding, Way};
use super::{ENTER, keys, refuse, told_plainly};
use crate::error::Fault;
use crate::machine_id::MachineId;
use crate::machines::has_steps;
use crate::pool::source::Entrance;
use crate::provider::{Contact, Order};
use crate::qemu;
use crate::record::{Entry, Fact, Planned, Record};
use crate::state::State;

/// The provider's name, in records and for people.
pub(crate) const NAME: &str = "lent";
/// Characters of a name that a processor says.
const LONGEST: usize = 256;

/// What a task asks the processor for, and what it got.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The config's own name of its image.
    pub image: String,
    /// How the machine is entered that the processor has lent.
    pub lent: Option<Box<Entrance>>,
}

impl Chosen {
    /// What a task's machine starts from, as far as this side knows it.
    ///
    /// # Errors
    /// The task wants more than to run its steps there.
    pub fn of(wanted: &Wanted) -> Result<Self, Fault> {
        match wanted.purpose {
            Purpose::Steps => {
                Ok(Self { image: wanted.image.clone().unwrap_or_else(|| DEFAULT.to_owned()), lent: None })
            }
            Purpose::RemoteDocker => Err(Fault::Unsupported(
                "machines that a processor lends are for machine jobs, and not for setup_remote_docker".to_owned(),
            )),
        }
    }

    /// As whom steps run there.
    pub fn user(&self) -> String {
        self.lent.as_ref().map_or_else(super::choice::step_user, |entrance| entrance.step_user.clone())
    }
}

/// Writes down a machine that was lent, before anything of the task's goes there.
///
/// # Errors
/// What the processor says of it cannot be, or it could not be written: nothing of it is here.
pub(crate) async fn receive(
    id: &MachineId,
    entrance: &Entrance,
    request: &Prepare,
    state: &Path,
) -> Result<Record, Fault> {
    check(entrance)?;
    let planned = Planned {
        version: Planned::VERSION,
        machine: id.clone(),
        task: Some(request.task.clone()),
        owner: request.owner.clone(),
        provider: NAME.to_owned(),
        image: entrance.image.clone(),
        is_adoptable: request.is_adoptable,
        has_steps: has_steps(request),
        pool: None,
        kind: None,
        is_lent: false,
    };
    let record = Record::create(state, planned).await?;
    match keep(&record, entrance).await {
        Ok(()) => Ok(record),
        Err(fault) => {
            // Whoever looks for what dead agents have left finds what could not be removed now.
            let _removed_later = record.remove().await;
            Err(fault)
        }
    }
}

async fn keep(record: &Record, entrance: &Entrance) -> Result<(), Fault> {
    keys::write(record.directory(), keys::LOGIN, &entrance.key).map_err(Fault::host("keep the machine's key"))?;
    let way = Way {
        address: entrance.address.clone(),
        port: entrance.port,
        user: entrance.user.clone(),
        host_key: entrance.host_key.clone(),
        key_file: record.directory().join(keys::LOGIN),
        forwarding: entrance.forwarding.clone(),
    };
    let target = way.target().map_err(Fault::host("read the keys of the machine that was lent"))?;
    let fingerprint = target.host_key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
    let states = [State::Provisioned, State::Launched, State::Booting].map(Entry::State);
    let facts = [Fact::HostKey { fingerprint }, Fact::Way(way)].map(Entry::Fact);
    Ok(record.write(states.into_iter().chain(facts).collect()).await?)
}

/// What a processor says is shown to people and told to an ssh server.
fn check(entrance: &Entrance) -> Result<(), Fault> {
    let Entrance { provider, instance, address, user, image, step_user, forwarding, docker, .. } = entrance;
    let mut names = vec![
        ("provider", provider),
        ("instance", instance),
        ("address", address),
        ("user", user),
        ("image", image),
        ("step_user", step_user),
    ];
    names.extend(docker.iter().map(|version| ("docker", version)));
    if let Forwarding::Dial { program } = forwarding {
        names.push(("forwarding", program));
    }
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.len() <= LONGEST
            && text.chars().all(|c| c.is_ascii_graphic() && !"'\"`$;&|<>\\".contains(c))
    };
    match names.into_iter().find(|(_, text)| !is_plain(text)) {
        Some((name, text)) => {
            Err(Fault::Unsupported(format!("the processor lends a machine whose {name} cannot be: {text:?}")))
        }
        None => Ok(()),
    }
}

/// A machine that was lent, on its way to a task.
pub(crate) struct Instance {
    order: Order<Box<Entrance>>,
    record: Record,
    host: HostPaths,
    report: Vec<String>,
    link: Option<Arc<dyn Connect>>,
}

impl Instance {
    pub fn new(order: Order<Box<Entrance>>, record: Record, host: &HostPaths) -> Result<Self, Fault> {
        refuse(&order, NAME)?;
        let Entrance { provider, instance, image, .. } = &*order.image;
        let mut report =
            vec![format!("Machine: {instance} of {provider}, lent by the processor"), format!("Image: {image}")];
        report.extend(told_plainly(&order, NAME));
        Ok(Self { order, record, host: host.clone(), report, link: None })
    }

    /// Enters it and makes it the task's.
    pub async fn connect(&mut self) -> Result<Contact, Fault> {
        let way = self.record.known().way().cloned();
        let way = way.ok_or_else(|| Fault::Unsupported("a machine without an address was to be entered".to_owned()))?;
        let target = way.target().map_err(Fault::host("read the machine's key"))?;
        let seed = qemu::seed::of(&self.order, None, None, self.order.image.docker.is_some())?;
        let link = super::begin(&self.record, (way, target), seed, &self.host, (ENTER, true)).await?;
        self.link = Some(Arc::clone(&link));
        Ok(Contact { link, user: Some(self.order.image.step_user.clone()) })
    }

    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        let name = format!("machine {}, which the processor has lent,", self.order.image.instance);
        super::watch::of(self.link.clone(), name, super::watch::Nobody)
    }

    pub fn host_key(&self) -> Option<&str> {
        Some(self.order.image.host_key.trim())
    }

    pub fn take_report(&mut self) -> Vec<String> {
        std::mem::take(&mut self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance(changed: serde_json::Value) -> Entrance {
        let mut text = serde_json::json!({
            "provider": "ec2", "instance": "i-1", "address": "192.0.2.1", "port": 22, "user": "root", "host_key": "k", "key": "hidden",
            "forwarding": "sockets", "image": "ami-1", "step_user": "circleci", "docker": null,
        });
        for (key, value) in changed.as_object().unwrap() {
            text[key] = value.clone();
        }
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_a_processor_says_is_plain_or_refused_and_its_key_is_not_shown() {
        let usual =
            entrance(serde_json::json!({"forwarding": {"dial": {"program": "/opt/navvy/far/navvy-supervisor-0"}}}));
        check(&usual).unwrap();
        assert!(!format!("{usual:?}").contains("hidden"));
        for (changed, name) in [
            (serde_json::json!({"address": ""}), "address"),
            (serde_json::json!({"instance": "i\n\u{1b}[31m"}), "instance"),
            (serde_json::json!({"user": "root x"}), "user"),
            (serde_json::json!({"docker": "a".repeat(300)}), "docker"),
            (serde_json::json!({"forwarding": {"dial": {"program": "/bin/sh;"}}}), "forwarding"),
        ] {
            let told = check(&entrance(changed)).unwrap_err().to_string();
            assert!(told.contains(&format!("whose {name} cannot be")), "{told}");
        }
    }
}
