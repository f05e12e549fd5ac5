//! What `agent` and `runner` share: the way to the processor, tokens, and what this machine brings.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_docker::Engine;
use navvy_docker::proxies::configured;
use navvy_environment::egress::Egress;
use navvy_environment::request::PullPolicy;
use navvy_job::chain::chain;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_output::mask::Masks;
use navvy_plain_file as plain_file;
use navvy_storage::{Pace, Proxies, Transport};

use super::args::fleet::{MachineArgs, ProcessorArgs};
use super::run::{floor, idle_limit, reap};
use super::{CliError, host, machines, own_words};
use crate::environment::Providers;
use crate::fleet::carry::{Carried, Machine};
use crate::fleet::connection::{Address, Bearer, ConnectionError, Processor};
use crate::fleet::left::{self, Found, NotTaken};
use crate::oom;
use crate::run_directory::RunDirectory;
use crate::scheduled::Scheduled;
use crate::settings::Settings;

/// A token is never longer.
const MAX_TOKEN: u64 = 4 << 10;
pub const PROCESSOR: &str = "NAVVY_PROCESSOR";
const TOKEN_FILE: &str = "NAVVY_TOKEN_FILE";

impl From<ConnectionError> for CliError {
    fn from(error: ConnectionError) -> Self {
        Self::usage(navvy_job::chain::chain(&error))
    }
}

/// The processor that words and environment name.
pub fn address(settings: &Settings, arguments: &ProcessorArgs) -> Result<Address, CliError> {
    let variable = settings.get(PROCESSOR).filter(|url| !url.is_empty());
    let Some(url) = arguments.processor.as_deref().or(variable) else {
        return Err(CliError::usage("no processor is named").hint(format!("--processor URL, or {PROCESSOR}.")));
    };
    Ok(Address {
        url: url.to_owned(),
        plaintext: arguments.plaintext,
        ca: arguments.ca.clone(),
        identity: arguments.cert.clone().zip(arguments.key.clone()),
    })
}

/// Within a runtime only.
pub fn processor(address: &Address) -> Result<Processor, CliError> {
    Ok(Processor::new(address)?)
}

/// The file of the token that words and environment name.
pub fn token_file(settings: &Settings, flag: Option<&Path>) -> Result<PathBuf, CliError> {
    let variable = settings.get(TOKEN_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let missing = || CliError::usage("no token is named").hint(format!("--token-file FILE, or {TOKEN_FILE}."));
    flag.map(Path::to_owned).or(variable).ok_or_else(missing)
}

/// A token that stays where it is.
pub fn token(path: &Path) -> Result<Bearer, CliError> {
    bearer(&private_text(path, "the token", MAX_TOKEN)?)
}

pub fn bearer(text: &str) -> Result<Bearer, CliError> {
    let token = text.trim();
    if token.is_empty() {
        return Err(CliError::usage("the token is empty"));
    }
    Ok(Bearer::new(token)?)
}

/// The text of a file that only we can read: it is as good as a password.
pub fn private_text(path: &Path, what: &str, most: u64) -> Result<String, CliError> {
    let read = || -> io::Result<Result<String, String>> {
        let file = plain_file::open(path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Ok(Err("it belongs to another user".to_owned()));
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Ok(Err(format!("its mode is {mode:04o}, and others can read it")));
        }
        let bytes = plain_file::rest(file, most)?;
        String::from_utf8(bytes).map(Ok).map_err(|_| io::Error::other("it is not UTF-8 text"))
    };
    match read() {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(why)) => {
            let refused = CliError::usage(format!("{what} {} is not private: {why}", path.display()));
            Err(refused.hint(format!("Make it yours alone: chmod 600 {}", path.display())))
        }
        Err(error) => Err(CliError::usage(format!("{what} {} cannot be read: {error}", path.display()))),
    }
}

/// The same, of a file that is good for one use: it is gone then.
pub fn one_time_text(path: &Path, what: &str, most: u64) -> Result<String, CliError> {
    let text = private_text(path, what, most)?;
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, "{what} {} could not be removed. It is good for one use only.", path.display());
    }
    Ok(text)
}

/// The engine. `None`: there is none, and jobs in virtual machines can be taken without it.
///
/// # Errors
/// There is neither, or no engine where words name one.
pub async fn engine(settings: &Settings, docker: Option<&str>) -> Result<Option<Engine>, CliError> {
    match host::connect(settings, docker).await {
        Ok(engine) => Ok(Some(engine)),
        Err(error) if docker.is_none() && machines::are_there(settings) => {
            tracing::warn!("Jobs in containers are not taken: {}", error.in_one_line());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What this machine brings to tasks, each of which gets no more than `room`.
pub async fn machine(
    settings: &Settings,
    arguments: &MachineArgs,
    processor: &ProcessorArgs,
    engine: Option<Engine>,
    room: Size,
) -> Result<Machine, CliError> {
    RunDirectory::check(&settings.paths.state).map_err(|error| host::no_log_directory(settings, &error))?;
    oom::spare_this_process();
    if let Some(engine) = &engine {
        // A job that cannot have it says why.
        engine.supervisor(&settings.paths).ok();
    }
    let vm = host::vm_table(settings)?;
    let transport = Transport::new(processor.ca.as_deref(), &Proxies::of(&settings.variables), Pace::default());
    let remote_docker = machines::remote_docker(&machines::vms(settings)?, room);
    Ok(Machine {
        remote_docker: Arc::new(remote_docker),
        egress: Arc::new(engine.as_ref().map(|engine| egress(settings, engine)).unwrap_or_default()),
        providers: Providers::new(engine, Some(host::machines(settings)?)).without_machine_jobs(vm.refusal()),
        most_of_machines: vm.most(),
        paths: Arc::new(settings.paths.clone()),
        owner: Owner::this_process().map_err(|error| CliError::infra(&error))?,
        floor: floor(settings, arguments.disk_floor)?,
        idle_limit: idle_limit(settings)?,
        pull: PullPolicy::default(),
        room,
        transport: transport.map_err(|error| CliError::usage(error.to_string()))?,
        no_tty: arguments.no_tty,
        store: None,
        spool: arguments.spool,
        scheduled: Scheduled::default(),
        hide,
    })
}

/// The proxies of docker's config file, as under `navvy run`.
fn egress(settings: &Settings, engine: &Engine) -> Egress {
    match configured(&settings.paths, &engine.endpoint().to_string()) {
        Ok(configured) => Egress::of_docker_config(configured),
        Err(why) => {
            tracing::warn!("Jobs get no proxies of docker's config file: {why}.");
            Egress::default()
        }
    }
}

/// Takes over the tasks of killed agents that run on, or this one alone. What cannot be gone on with is removed, and said.
pub async fn take_over_left(machine: &Machine, processor: &Processor, only: Option<&str>) -> Vec<Found> {
    let mut found = Vec::new();
    let left = left::left_tasks(&machine.paths, &machine.owner).unwrap_or_else(|error| {
        tracing::error!("Tasks of killed agents are not gone on with: {}.", chain(&error));
        Vec::new()
    });
    for task in left {
        if only.is_some_and(|only| only != task.as_str()) {
            continue;
        }
        match left::take_over(machine, processor.url(), &task).await {
            Ok(taken) => found.push(taken),
            // It is looked after, or will be.
            Err(NotTaken::Busy) => {}
            Err(error @ (NotTaken::Elsewhere { .. } | NotTaken::Unread { .. })) => {
                tracing::warn!(%task, "A killed agent's task is left alone: {error}.")
            }
            Err(NotTaken::Gone { why, left }) => {
                tracing::warn!(%task, "A killed agent's task cannot be gone on with, and is removed: {why}.");
                for left in left {
                    tracing::error!("{left} is still there. `navvy prune` removes it.");
                }
            }
        }
    }
    found
}

/// Removes what dead owners left on this host, beside the work.
pub fn reap_dead(machine: &Machine) {
    // Its end is not waited for: what it does not get done is the next one's.
    drop(reap(&machine.providers, &machine.paths));
}

fn hide(masks: &Masks) -> Box<dyn std::any::Any + Send + Sync> {
    Box::new(own_words::hide(masks))
}

/// The machine that engine and processes share: this one, or the engine's where that is another.
pub async fn whole_machine(engine: Option<&Engine>) -> Result<Size, CliError> {
    super::run::machine_of(engine).await
}

/// What this machine has for jobs may be more or less by now, and its user's word another. Settings that cannot be read change nothing.
pub async fn look_again(machine: &mut Machine, settings: &Settings, docker: Option<&str>) {
    if let Ok(vm) = host::vm_table(settings) {
        machine.providers = machine.providers.clone().without_machine_jobs(vm.refusal());
        machine.most_of_machines = vm.most();
        machine.remote_docker = Arc::new(
            machines::vms(settings)
                .map_err(|error| error.in_one_line())
                .and_then(|vms| machines::remote_docker(&vms, machine.room)),
        );
    }
    if machine.providers.docker.is_none()
        && let Ok(engine) = host::connect(settings, docker).await
    {
        tracing::info!("There is a Docker engine now: jobs in containers are taken, too.");
        engine.supervisor(&settings.paths).ok();
        machine.egress = Arc::new(egress(settings, &engine));
        machine.providers.docker = Some(engine);
    }
}

/// What people call this agent: host and process.
pub fn agent_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| !c.is_control()).take(100).collect();
    format!("{host}/{}", std::process::id())
}

/// Says how a task was left. An error is the agent's, never the job's.
pub fn tell(task: &str, carried: Carried) -> Result<(), CliError> {
    match carried {
        Carried::Reported { missing } => {
            for missing in missing {
                tracing::warn!(task, "The processor says that the task's output is incomplete: {missing}.");
            }
            Ok(())
        }
        Carried::Lost { why } => {
            let lost = CliError::infra_text(format!("the right to run task {task} was lost: {why}"));
            Err(lost.hint("The task was ended. What it wrote is kept; `navvy logs` shows it."))
        }
        Carried::Unreported { why } => {
            let unreported = CliError::infra_text(format!("the end of task {task} was not taken: {why}"));
            Err(unreported.hint("What the task wrote is kept; `navvy logs` shows it."))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_token_that_others_can_read_is_refused_with_what_to_do() {
        for mode in [0o644, 0o640, 0o602] {
            let (_directory, path) = file(mode);
            let told = token(&path).unwrap_err().render();
            assert!(told.contains("chmod 600") && told.contains(&format!("{mode:04o}")), "{told}");
            assert!(!told.contains("hunter2") && path.exists(), "{told}");
        }
    }

    #[test]
    fn a_one_time_token_is_read_once() {
        let (_directory, path) = file(0o600);
        assert!(token(&path).is_ok() && path.exists());
        assert_eq!(one_time_text(&path, "the token", MAX_TOKEN).unwrap(), "hunter2\n");
        let again = one_time_text(&path, "the token", MAX_TOKEN).unwrap_err();
        assert!(again.message().contains("cannot be read"), "{}", again.message());
    }

    #[test]
    fn words_stand_above_the_environment() {
        let settings = Settings::for_tests(&[(PROCESSOR, "http://127.0.0.1:1"), (TOKEN_FILE, "/t")]);
        let flag = ProcessorArgs { processor: Some("http://127.0.0.1:2".to_owned()), ..ProcessorArgs::default() };
        assert_eq!(address(&settings, &flag).unwrap().url, "http://127.0.0.1:2");
        assert_eq!(address(&settings, &ProcessorArgs::default()).unwrap().url, "http://127.0.0.1:1");
        assert_eq!(token_file(&settings, None).unwrap(), Path::new("/t"));
        let nothing = Settings::for_tests(&[]);
        assert!(address(&nothing, &ProcessorArgs::default()).unwrap_err().render().contains(PROCESSOR));
        assert!(token_file(&nothing, None).unwrap_err().render().contains(TOKEN_FILE));
    }
}
