//! `setup_remote_docker`: a machine with a Docker engine, for this job alone, and the way there for its later steps.
//!
//! ```text
//! machine made ─▶ certificates of this job ─▶ relays inside the job: 127.0.0.1:2376, and one for ssh
//!                        └▶ files of the job's user ─▶ DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH
//! ```
//!
//! The machine is of the same task: what ends and removes the task ends and removes it.

use std::time::Duration;

use navvy_environment::request::{Machine as Wish, Prepare, PrepareEvent, Purpose, Wanted};
use navvy_environment::supervisor::{Client, ClientError, Listening, Relay};
use navvy_job::chain::chain;
use navvy_job::claim::Secrets;
use navvy_job::resource::DEFAULT_MACHINE_CLASS;
use navvy_protocol::supervisor::FailureKind;
use navvy_vm::settings::Extras;
use navvy_vm::ssh_key::SshKey;

use super::Done;
use crate::environment::inside;
use crate::environment::machine::Machine;
use crate::remote_docker::authority::{Issued, issue};
use crate::remote_docker::serve;
use crate::step::cx::{Ground, StepCx};
use crate::step::handing::{Handed, Opened, RemoteDocker};
use crate::step::own::{StepError, StepFault, StepOutput};

/// Where every client of Docker expects TLS.
const PORT: u16 = 2376;
/// Where `ssh remote-docker` leads; nobody else sees it.
const SSH_PORTS: std::ops::Range<u16> = 22376..22384;
/// More than any ssh configuration has.
const CONFIG_CAP: usize = 1 << 20;
/// From a machine that answers to its engine: it starts beside everything else.
const ENGINE_LIMIT: Duration = Duration::from_secs(180);
/// Before what went wrong.
const STEP: &str = "setup_remote_docker: ";

/// Sets up the machine, unless the job has one.
pub async fn set_up(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    version: Option<&str>,
    layers: bool,
) -> Result<Done, StepError> {
    if cx.ground.is_machine {
        output.line("The job runs in a machine with a Docker engine of its own: there is nothing to set up.");
        let client = cx.client.clone();
        cx.bounds.bounded(move || serve::await_engine(&client, ENGINE_LIMIT)).await?.map_err(fault)?;
        return Ok(Done::default());
    }
    if cx.handed.has(&Handed::RemoteDocker) {
        output.line("The job has its remote Docker already; it stays.");
        return Ok(Done::default());
    }
    let (machines, here) = match (&cx.ground.providers.machines, &cx.ground.remote) {
        (Some(machines), Ok(here)) => (machines, here),
        (_, Err(why)) => return Err(fault(why.clone()).into()),
        (None, _) => return Err(fault("this process makes no machines".to_owned()).into()),
    };
    if let Some(wanted) = version {
        here.check(wanted).map_err(fault)?;
    }
    let key = SshKey::generate().map_err(|error| fault(error.to_string()))?;
    let extras = Extras { authorized_keys: vec![line_of(&key)], ..Extras::default() };
    let request = request(cx, here, layers);
    let lines = std::sync::Mutex::new(Vec::new());
    let tell = |event: PrepareEvent| match event {
        PrepareEvent::Report(line) | PrepareEvent::Warning(line) => {
            lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
        }
        PrepareEvent::Progress { .. } => {}
    };
    let made = cx.bounds.while_sensible(Machine::prepare(machines, request, extras, cx.ground.paths, &tell)).await;
    let made = made?.map_err(|error| {
        error.console.lines().for_each(|line| output.line(line));
        fault(chain(&error.fault))
    });
    for line in lines.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        output.line(&line);
    }
    let machine = made?;
    let opened = open(cx, Way { client: Client::new(machine.environment().link()), key, here }).await;
    match opened {
        Ok(opened) => {
            output.line(&format!("Docker {} answers at tcp://localhost:{PORT}, for this job alone.", here.docker));
            Ok(Done { handed: Some((Handed::RemoteDocker, opened)), machine: Some(machine), fidelity: None })
        }
        // It is removed with the task.
        Err(error) => Err(error),
    }
}

fn fault(why: String) -> StepFault {
    StepFault::from(format!("{STEP}{why}"))
}

fn request(cx: &StepCx<'_>, here: &RemoteDocker, layers: bool) -> Prepare {
    let Ground { owner, idle_limit, egress, cgroup, is_adoptable, disk_floor, .. } = cx.ground;
    Prepare {
        task: cx.claim.task.clone(),
        wanted: Wanted::Machine(Wish {
            image: None,
            purpose: Purpose::RemoteDocker,
            class: Some(DEFAULT_MACHINE_CLASS.to_owned()),
            layers: layers.then(|| cx.claim.run.project.clone()),
        }),
        size: here.size,
        pids: cx.claim.limits.pids,
        pull: Default::default(),
        secrets: Secrets::default(),
        cgroup_parent: cgroup.cloned(),
        owner: owner.clone(),
        is_adoptable,
        // Begun long ago, by the task.
        journal: None,
        idle_limit,
        disk_floor,
        egress: std::sync::Arc::clone(egress),
        notes: Vec::new(),
    }
}

/// What leads into the machine.
struct Way<'a> {
    client: Client,
    key: SshKey,
    here: &'a RemoteDocker,
}

/// Opens the ways into the machine, and puts what they need into the job.
async fn open(cx: &StepCx<'_>, way: Way<'_>) -> Result<Opened, StepError> {
    let (job, user, home) = (cx.client.clone(), cx.frame.user.clone(), cx.frame.home.clone());
    let (task, limit) = (cx.claim.task.clone(), cx.bounds.limit);
    let Way { client: guest, key, here } = way;
    let login = here.user.clone();
    let opening = cx.bounds.bounded(move || {
        serve::await_engine(&guest, ENGINE_LIMIT).map_err(fault)?;
        let issued = issue(limit).map_err(|error| fault(chain(&error)))?;
        let place = Place { job, user, home, directory: format!("/tmp/.docker-{task}") };
        place.write_certificates(&issued)?;
        let mut listening = place.listen(&guest, &issued)?;
        listening.extend(place.open_ssh(&guest, &key, &login)?);
        Ok::<_, StepFault>(Opened {
            path: format!("tcp://localhost:{PORT}"),
            listening,
            variables: vec![
                ("DOCKER_HOST".to_owned(), format!("tcp://localhost:{PORT}")),
                ("DOCKER_TLS_VERIFY".to_owned(), "1".to_owned()),
                ("DOCKER_CERT_PATH".to_owned(), place.directory),
            ],
        })
    });
    Ok(opening.await??)
}

/// Opens them again, for the process that continues a held task: the certificates of the one before died with it.
pub async fn open_again(cx: &StepCx<'_>, guest: Client) -> Result<Opened, StepError> {
    let Ok(here) = &cx.ground.remote else {
        return Err(fault("there are no machines here any more".to_owned()).into());
    };
    let key = SshKey::generate().map_err(|error| fault(error.to_string()))?;
    let (authorizing, line, login) = (guest.clone(), line_of(&key), here.user.clone());
    let authorized = cx.bounds.bounded(move || authorize(&authorizing, &login, &line)).await?;
    authorized?;
    open(cx, Way { client: guest, key, here }).await
}

/// Gives the machine another key to know the job by.
fn authorize(guest: &Client, login: &str, line: &str) -> Result<(), StepFault> {
    let failed = |error: ClientError| StepFault::of_client(STEP, &error);
    let home = guest.probe(Some(login.to_owned()), &[]).map_err(failed)?.home;
    let directory = format!("{home}/.ssh");
    guest.make_directory(&directory, Some(login.to_owned())).map_err(failed)?;
    let path = format!("{directory}/authorized_keys");
    guest.write(&path, Some(login.to_owned()), 0o600, format!("{line}\n").as_bytes()).map_err(failed)
}

/// By which the job comes in, for who reads the machine's list.
fn line_of(key: &SshKey) -> String {
    format!("{} navvy: a job", key.public_line())
}

/// Where in the job its files go.
struct Place {
    job: Client,
    user: Option<String>,
    home: String,
    directory: String,
}

impl Place {
    fn failed(error: &ClientError) -> StepFault {
        StepFault::of_client(STEP, error)
    }

    fn write(&self, path: &str, text: &str) -> Result<(), StepFault> {
        self.job.write(path, self.user.clone(), 0o600, text.as_bytes()).map_err(|error| Self::failed(&error))
    }

    fn write_certificates(&self, issued: &Issued) -> Result<(), StepFault> {
        self.job.make_directory(&self.directory, self.user.clone()).map_err(|error| Self::failed(&error))?;
        for (name, text) in [("ca.pem", &issued.authority), ("cert.pem", &issued.certificate), ("key.pem", &issued.key)]
        {
            self.write(&format!("{}/{name}", self.directory), text)?;
        }
        Ok(())
    }

    fn listen(&self, guest: &Client, issued: &Issued) -> Result<Vec<Listening>, StepFault> {
        let (relay, listening) = self.job.relay_tcp(PORT).map_err(|error| Self::failed(&error))?;
        let server = std::sync::Arc::clone(&issued.server);
        serve::engine(relay, guest.clone(), server).map_err(no_thread)?;
        Ok(vec![listening])
    }

    /// `ssh remote-docker`. The machine's key is asked of its supervisor, and pinned: nothing is trusted on first use.
    fn open_ssh(&self, guest: &Client, key: &SshKey, login: &str) -> Result<Vec<Listening>, StepFault> {
        let id = format!("navvy-host-key-{}", uuid::Uuid::new_v4());
        let host_key = inside::run(guest, &id, &["ssh-keygen", "-y", "-f", HOST_KEY]).map_err(fault)?;
        let (relay, listening, port) = self.relay_for_ssh()?;
        serve::ssh(relay, guest.clone()).map_err(no_thread)?;
        self.write(&format!("{}/ssh_key", self.directory), key.to_openssh().reveal())?;
        let kept: Vec<&str> = host_key.split(' ').take(2).collect();
        self.write(&format!("{}/known_hosts", self.directory), &format!("remote-docker {}\n", kept.join(" ")))?;
        self.add_alias(&alias(&self.directory, port, login))?;
        Ok(vec![listening])
    }

    /// On the first of a few ports that nothing in the job has taken.
    fn relay_for_ssh(&self) -> Result<(Relay, Listening, u16), StepFault> {
        let mut taken = None;
        for port in SSH_PORTS {
            match self.job.relay_tcp(port) {
                Ok((relay, listening)) => return Ok((relay, listening, port)),
                Err(error @ ClientError::Failed(_)) => taken = Some(error),
                Err(error) => return Err(Self::failed(&error)),
            }
        }
        Err(taken.map_or_else(|| fault("no port is free".to_owned()), |error| Self::failed(&error)))
    }

    fn add_alias(&self, block: &str) -> Result<(), StepFault> {
        let directory = format!("{}/.ssh", self.home.trim_end_matches('/'));
        let config = format!("{directory}/config");
        let old = match self.job.read(&config, self.user.clone(), CONFIG_CAP) {
            Ok(old) => String::from_utf8_lossy(&old).into_owned(),
            Err(ClientError::Failed(failure)) if failure.kind == FailureKind::NoSuchFile => String::new(),
            Err(error) => return Err(Self::failed(&error)),
        };
        self.job.make_directory(&directory, self.user.clone()).map_err(|error| Self::failed(&error))?;
        self.write(&config, &with_alias(&old, block))
    }
}

/// The key of the machine's ssh server, which came with its seed.
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

fn no_thread(error: std::io::Error) -> StepFault {
    fault(format!("could not start a thread: {error}"))
}

const ALIAS_BEGIN: &str = "# navvy: remote-docker";
const ALIAS_END: &str = "# navvy: end";

/// For ssh the first value counts: it comes before what is there.
fn alias(directory: &str, port: u16, login: &str) -> String {
    format!(
        "{ALIAS_BEGIN}\nHost remote-docker\n  HostName 127.0.0.1\n  Port {port}\n  User {login}\n  IdentityFile {directory}/ssh_key\n  \
         IdentitiesOnly yes\n  HostKeyAlias remote-docker\n  UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking \
         yes\n{ALIAS_END}\n"
    )
}

/// The old text behind the block, without a block of before.
fn with_alias(old: &str, block: &str) -> String {
    let kept = match (old.find(ALIAS_BEGIN), old.find(ALIAS_END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &old[..begin], old[end + ALIAS_END.len()..].trim_start_matches('\n'))
        }
        _ => old.to_owned(),
    };
    format!("{block}{kept}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alias_stands_first_and_once() {
        let first = alias("/tmp/.docker-x", 40001, "circleci");
        let once = with_alias("Host *\n  User me\n", &first);
        assert_eq!(once, format!("{first}Host *\n  User me\n"));
        let second = alias("/tmp/.docker-x", 40002, "circleci");
        assert_eq!(with_alias(&once, &second), format!("{second}Host *\n  User me\n"));
    }
}
