//! `navvy host check`: can tasks of a fleet run here? For a task driver, which asks again and again: cheap, unless it is to be tried
//! for real.
//!
//! ```text
//! engine ─▶ its version, size, cgroups ─┐
//! supervisor's binary, state directory  ├─▶ HostCheck: what works, and a sentence for each thing that does not
//! --thorough: a container is started ───┘
//! ```

use std::path::Path;

use navvy_docker::{Engine, EngineInfo};
use navvy_environment::cgroup::{self, Facts};
use navvy_environment::request::{IDLE_LIMIT, Prepare, PullPolicy, Wanted};
use navvy_environment::{run_dir, supervisor_binary};
use navvy_job::chain::chain;
use navvy_job::claim::Secrets;
use navvy_job::compiled::Container;
use navvy_job::exit_code;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_job::scheduled::{HostCheck, VERSION};
use navvy_journal::owner::Owner;

use crate::cli::args::host::HostCheckArgs;
use crate::cli::run::plan::this_machine;
use crate::cli::{CliError, host, machines, out};
use crate::run_directory::RunDirectory;
use crate::settings::Settings;

/// The kinds of environments that this agent has.
const DOCKER: &str = "docker";
const VM: &str = "vm";
/// What a trial's container gets.
const TRIAL: Size = Size { millicpus: 1000, memory: 256 << 20 };
const TRIAL_PIDS: u32 = 64;

pub fn run(settings: &Settings, arguments: &HostCheckArgs) -> Result<u8, CliError> {
    let found = host::block_on(async { Ok(look(settings, arguments).await) })?;
    match arguments.json {
        true => {
            out::print(&host::json_lines([&found])?)?;
            Ok(exit_code::PASSED)
        }
        false => {
            out::print(&in_words(&found))?;
            Ok(if found.environments.is_empty() { exit_code::NO_DOCKER } else { exit_code::PASSED })
        }
    }
}

async fn look(settings: &Settings, arguments: &HostCheckArgs) -> HostCheck {
    let mut found = HostCheck {
        version: VERSION,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        docker: None,
        environments: Vec::new(),
        problems: Vec::new(),
        of_docker: Vec::new(),
        no_machines: machines::of_no_image(settings).err(),
        kvm: Path::new("/dev/kvm").exists(),
        size: this_machine(),
    };
    let of_files = of_files(settings);
    let mut of_docker = Vec::new();
    match engine(settings, arguments.docker.as_deref()).await {
        Ok((engine, info)) => {
            found.docker = Some(info.version.clone());
            if !engine.endpoint().looks_local() {
                found.size = Size { millicpus: info.cpus * 1000, memory: info.memory };
            }
            found.problems.extend(of_cgroups(&engine, &info));
            if arguments.thorough && of_files.is_empty() {
                of_docker.extend(tried(settings, &engine).await.err());
            }
        }
        Err(error) => of_docker.push(sentence(&error.in_one_line())),
    }
    if of_files.is_empty() && of_docker.is_empty() {
        found.environments.push(DOCKER.to_owned());
    }
    if of_files.is_empty() && found.no_machines.is_none() {
        found.environments.push(VM.to_owned());
    }
    found.of_docker = of_docker.iter().chain(&found.problems).cloned().collect();
    found.problems.splice(0..0, of_files.into_iter().chain(of_docker));
    found
}

async fn engine(settings: &Settings, docker: Option<&str>) -> Result<(Engine, EngineInfo), CliError> {
    let engine = host::connect(settings, docker).await?;
    let info = engine.info().await?.clone();
    Ok((engine, info))
}

/// Without these no task starts.
fn of_files(settings: &Settings) -> Vec<String> {
    let supervisor = supervisor_binary::find(settings.paths.supervisor.as_deref())
        .and_then(|path| supervisor_binary::read_static(&path))
        .err()
        .map(|error| {
            let advice = "Install navvy-supervisor beside navvy, or name it with NAVVY_SUPERVISOR.";
            format!("{} {advice}", sentence(&chain(&error)))
        });
    let state = RunDirectory::check(&settings.paths.state)
        .err()
        .map(|error| sentence(&host::no_log_directory(settings, &error).in_one_line()));
    supervisor.into_iter().chain(state).collect()
}

/// Tasks run all the same, less closely held.
fn of_cgroups(engine: &Engine, info: &EngineInfo) -> Option<String> {
    let facts = Facts {
        engine_is_local: engine.endpoint().looks_local(),
        uid: run_dir::uid(),
        driver: &info.cgroup_driver,
        version: &info.cgroup_version,
    };
    let why = match cgroup::check(facts) {
        Err(why) => why.to_string(),
        Ok(()) if cgroup::goes_below_given(facts) => return None,
        Ok(()) => "the engine's cgroup driver is systemd, which puts them beside the cgroup of the scheduler's task"
            .to_owned(),
    };
    Some(format!(
        "The containers of a task are not held together by the task's cgroup, only each by its own limits: {why}. Run the agent as \
         root beside the engine, and set \"exec-opts\": [\"native.cgroupdriver=cgroupfs\"] in /etc/docker/daemon.json."
    ))
}

async fn tried(settings: &Settings, engine: &Engine) -> Result<(), String> {
    let owner = Owner::this_process().map_err(|error| sentence(&error.to_string()))?;
    let task = TaskId::from_uuid(uuid::Uuid::new_v4().into_bytes());
    let container = Container {
        image: Engine::trial_image(&task),
        name: None,
        entrypoint: None,
        command: None,
        user: None,
        environment: Vec::new(),
        auth: None,
        in_place_of: None,
    };
    let request = Prepare {
        task,
        wanted: Wanted::Containers(vec![container]),
        size: TRIAL,
        pids: TRIAL_PIDS,
        pull: PullPolicy::Never,
        secrets: Secrets::default(),
        cgroup_parent: None,
        owner,
        is_adoptable: false,
        journal: None,
        idle_limit: IDLE_LIMIT,
        disk_floor: 0,
        egress: std::sync::Arc::default(),
        notes: Vec::new(),
    };
    let advice = "`navvy doctor` looks at Docker step by step.";
    let tried = engine.trial(request, &settings.paths).await;
    tried.map_err(|error| format!("{} {advice}", sentence(&chain(&error))))
}

/// Begins with a capital, ends with a stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let first: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

fn in_words(found: &HostCheck) -> String {
    let works = match &found.environments[..] {
        [] => "No task can run here.\n".to_owned(),
        there => format!("Tasks can run here, in environments of these kinds: {}.\n", there.join(", ")),
    };
    let no_machines =
        found.no_machines.iter().map(|why| format!("`machine` jobs get no machine here: {}", sentence(why)));
    let all = found.problems.iter().cloned().chain(no_machines);
    let problems: String = all.map(|problem| format!("- {problem}\n")).collect();
    navvy_ui::sanitize::tame(&format!("{works}{problems}"), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_sentences() {
        assert_eq!(
            sentence("no Docker engine at x: is dockerd running?"),
            "No Docker engine at x: is dockerd running?"
        );
        assert_eq!(sentence("it is full"), "It is full.");
        assert_eq!(sentence(""), ".");
    }
}
