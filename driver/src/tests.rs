//! The driver's calls, with a program in the agent's place that does what a test tells it to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use navvy_journal::owner::Owner;
use rmpv::Value;
use tonic::{Code, Request, Status};

use crate::directory::{Directory, Record};
use crate::plugin::{Base, Driver, Plugin};
use crate::proto::hashicorp::nomad::plugins::base::proto::SetConfigRequest;
use crate::proto::hashicorp::nomad::plugins::base::proto::base_plugin_server::BasePlugin as _;
use crate::proto::hashicorp::nomad::plugins::base::proto::{
    ClientTopology, ClientTopologyCore, NomadConfig, NomadDriverConfig,
};
use crate::proto::hashicorp::nomad::plugins::drivers::proto as nomad;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::driver_server::Driver as _;
use crate::testing::{packed, remove_cgroup};

const TASK: &str = "0123456789abcdef";
/// Says that this machine has four CPUs, whatever it has.
const CHECK: &str = r#"{"version":1,"agent":"0.1.0","docker":"20","environments":["docker"],"problems":[],"kvm":false,
    "size":{"millicpus":4000,"memory":17179869184}}"#;

struct Scene {
    place: tempfile::TempDir,
    driver: Driver,
}

impl Scene {
    /// `agent` is what `navvy agent --scheduled $dir` does, `$dir` being the directory.
    async fn new(agent: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("navvy");
        let text = format!(
            "#!/bin/sh\nexit_with() {{ printf '{{\"code\":%s,\"message\":\"%s\",\"oom_killed\":false}}' $1 \"$2\" > $dir/exit.json; exit $1; }}\n\
             case $1 in\nhost) cat <<'E'\n{CHECK}\nE\n;;\nshell) shift 3; exec \"$@\" ;;\nagent) dir=$3\n[ \"$4\" = --remove ] && {{ echo x >> {removed}; exit 0; }}\n{agent}\n;;\nesac\n",
            removed = place.path().join("removed").display(),
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let scene = Self { driver: Driver(Plugin::new(BTreeMap::new())), place };
        scene.configure(&scene.driver.0, &[]).await;
        scene
    }

    /// Of this scene's tasks.
    fn cgroup(&self) -> String {
        format!("/navvy-driver-test{}", self.place.path().file_name().unwrap().to_str().unwrap())
    }

    async fn configure(&self, plugin: &Arc<Plugin>, more: &[(&str, Value)]) {
        let path = |name: &str| Value::from(self.place.path().join(name).to_str().unwrap());
        let mut pairs = vec![
            ("agent_path", path("navvy")),
            ("state_dir", path("state")),
            ("processor", Value::from("http://127.0.0.1:1")),
            ("cgroup_parent", Value::from(self.cgroup())),
        ];
        pairs.extend(more.iter().cloned());
        let core = ClientTopologyCore { base_speed: 1000, ..Default::default() };
        let topology = Some(ClientTopology { cores: vec![core; 4], ..Default::default() });
        let nomad_config = Some(NomadConfig { driver: Some(NomadDriverConfig { topology, ..Default::default() }) });
        let request = SetConfigRequest { msgpack_config: packed(&pairs), nomad_config, ..Default::default() };
        Base(plugin.clone()).set_config(Request::new(request)).await.unwrap();
        let mut health = plugin.fingerprint.subscribe();
        health.wait_for(|health| health.is_healthy || !health.text.contains("first time")).await.unwrap();
    }

    /// A Nomad task with so many thousandths of a CPU.
    fn wanted(&self, id: &str, millicpus: i64) -> nomad::TaskConfig {
        let alloc = self.place.path().join("alloc").join(id);
        fs::create_dir_all(alloc.join("agent/local")).unwrap();
        fs::write(alloc.join("agent/local/token"), "hunter2").unwrap();
        nomad::TaskConfig {
            id: format!("{id}/agent/1"),
            name: "agent".to_owned(),
            alloc_id: id.to_owned(),
            alloc_dir: alloc.display().to_string(),
            msgpack_driver_config: packed(&[("task", Value::from(TASK))]),
            resources: Some(nomad::Resources {
                allocated_resources: Some(nomad::AllocatedTaskResources {
                    cpu: Some(nomad::AllocatedCpuResources { cpu_shares: millicpus }),
                    memory: Some(nomad::AllocatedMemoryResources { memory_mb: 256, memory_max_mb: 0 }),
                    networks: Vec::new(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    async fn start(&self, id: &str, millicpus: i64) -> Result<nomad::TaskHandle, Status> {
        let task = Some(self.wanted(id, millicpus));
        let started = self.driver.start_task(Request::new(nomad::StartTaskRequest { task })).await?;
        Ok(started.into_inner().handle.unwrap())
    }

    fn directory(&self, id: &str) -> Directory {
        Directory::of(&self.place.path().join("state"), &format!("{id}/agent/1"))
    }

    /// The record, once it is as it is waited for.
    async fn record(&self, id: &str, is_so: impl Fn(&Record) -> bool) -> Record {
        until("the record is so", || self.directory(id).record().ok().filter(|record| is_so(record))).await
    }

    /// Starts an agent that says so once it listens, and waits for that.
    async fn started(&self, id: &str, millicpus: i64) -> nomad::TaskHandle {
        let handle = self.start(id, millicpus).await.unwrap();
        let ready = self.directory(id).path().join("ready");
        until("the agent listens", || ready.exists().then_some(())).await;
        handle
    }

    fn was_removed(&self) -> bool {
        self.place.path().join("removed").exists()
    }
}

/// Looks again and again; what never comes fails the test by its name.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let again = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap_or_else(|_| panic!("{what}: not in 60 s"))
}

impl Drop for Scene {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup());
    }
}

async fn wait(driver: &Driver, id: &str) -> (nomad::ExitResult, String) {
    let task_id = format!("{id}/agent/1");
    let answer = driver.wait_task(Request::new(nomad::WaitTaskRequest { task_id })).await.unwrap().into_inner();
    (answer.result.unwrap(), answer.err)
}

async fn stop(driver: &Driver, id: &str, seconds: i64) {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = nomad::StopTaskRequest { task_id: format!("{id}/agent/1"), timeout, signal: String::new() };
    driver.stop_task(Request::new(request)).await.unwrap();
}

async fn destroy(driver: &Driver, id: &str) {
    let request = nomad::DestroyTaskRequest { task_id: format!("{id}/agent/1"), force: true };
    driver.destroy_task(Request::new(request)).await.unwrap();
}

fn kill(record: &Record) {
    let pid = rustix::process::Pid::from_raw(record.agent.as_ref().unwrap().pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Ends when it is asked to.
const OBEDIENT: &str = "trap 'exit_with 0 canceled' TERM; touch $dir/ready; while :; do sleep 0.02; done";

#[tokio::test]
async fn an_agent_that_ends_says_how_and_leaves_nothing() {
    let scene = Scene::new("exit_with 7 'the processor does not answer'").await;
    let handle = scene.start("a", 1000).await.unwrap();
    assert_eq!(handle.config.unwrap().id, "a/agent/1", "without it every later call would name no task");
    let (result, error) = wait(&scene.driver, "a").await;
    assert_eq!((result.exit_code, error.as_str()), (7, "the processor does not answer"));
    let directory = scene.directory("a").path().to_owned();
    assert!(directory.exists());
    destroy(&scene.driver, "a").await;
    assert!(!directory.exists() && !scene.was_removed());
    destroy(&scene.driver, "a").await;
    stop(&scene.driver, "a", 1).await;
}

#[tokio::test]
async fn a_program_that_is_no_agent_is_quoted() {
    let scene = Scene::new("echo 'no such option: --scheduled' >&2; exit 64").await;
    scene.start("a", 1000).await.unwrap();
    let (result, error) = wait(&scene.driver, "a").await;
    assert_eq!(result.exit_code, 64);
    assert!(error.contains("without having said how") && error.contains("no such option: --scheduled"), "{error}");
}

#[tokio::test]
async fn an_agent_that_is_killed_is_started_again_and_goes_on() {
    let scene =
        Scene::new("[ -e $dir/ready ] && exit_with 0 passed; touch $dir/ready; while :; do sleep 0.02; done").await;
    scene.started("a", 1000).await;
    kill(&scene.record("a", |record| record.agent.is_some()).await);
    let (result, error) = wait(&scene.driver, "a").await;
    assert_eq!((result.exit_code, error.as_str()), (0, ""));
    assert_eq!(scene.record("a", |_| true).await.restarts, 1);
    assert!(!scene.was_removed(), "it went on");
}

#[tokio::test]
async fn an_agent_that_is_killed_again_and_again_is_given_up_and_what_it_left_is_removed() {
    let scene = Scene::new("kill -9 $$").await;
    scene.start("a", 1000).await.unwrap();
    let (result, error) = wait(&scene.driver, "a").await;
    assert!(error.contains("started again 5 times") && result.signal == 9, "{error}");
    assert!(scene.was_removed());
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_what_does_not_listen() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    stop(&scene.driver, "a", 20).await;
    let (result, error) = wait(&scene.driver, "a").await;
    assert_eq!((result.exit_code, error.as_str()), (0, ""));
    let deaf = Scene::new("trap '' TERM; touch $dir/ready; while :; do sleep 0.02; done").await;
    deaf.started("a", 1000).await;
    stop(&deaf.driver, "a", 1).await;
    let (result, error) = wait(&deaf.driver, "a").await;
    assert!(result.signal == 9 && error.contains("killed before it had said how"), "{error}");
    assert!(deaf.was_removed() && deaf.record("a", |_| true).await.restarts == 0);
}

#[tokio::test]
async fn a_plugin_that_comes_later_goes_on_with_what_runs_and_knows_what_has_ended() {
    let scene = Scene::new(OBEDIENT).await;
    let (runs, ends) = (scene.started("runs", 500).await, scene.started("ends", 500).await);
    stop(&scene.driver, "ends", 20).await;
    let later = Driver(Plugin::new(BTreeMap::new()));
    scene.configure(&later.0, &[]).await;
    for handle in [runs, ends] {
        // After a restart of Nomad the driver's own configuration is gone from the handle.
        let config = handle.config.map(|config| nomad::TaskConfig { msgpack_driver_config: Vec::new(), ..config });
        let handle = Some(nomad::TaskHandle { config, ..handle });
        let request = || Request::new(nomad::RecoverTaskRequest { task_id: String::new(), handle: handle.clone() });
        later.recover_task(request()).await.unwrap();
        later.recover_task(request()).await.unwrap();
    }
    assert_eq!(wait(&later, "ends").await.0.exit_code, 0);
    stop(&later, "runs", 20).await;
    let (result, error) = wait(&later, "runs").await;
    assert_eq!((result.exit_code, error.as_str()), (0, ""));
}

/// Its agent ended while no plugin was there, and left nothing but word of how.
#[tokio::test]
async fn what_ended_before_a_plugin_came_is_told_by_that_plugin_and_not_left_to_the_one_before() {
    let scene = Scene::new("exit_with 7 'it broke'").await;
    let handle = scene.start("a", 1000).await.unwrap();
    wait(&scene.driver, "a").await;
    let record = scene.record("a", |record| record.ended.is_some()).await;
    let before = Owner { pid: record.plugin.pid + 1, ..record.plugin.clone() };
    scene.directory("a").put_record(&Record { plugin: before, ended: None, ..record.clone() }).unwrap();
    let later = Driver(Plugin::new(BTreeMap::new()));
    scene.configure(&later.0, &[]).await;
    let request = nomad::RecoverTaskRequest { task_id: String::new(), handle: Some(handle) };
    later.recover_task(Request::new(request)).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), wait(&later, "a")).await;
    let (result, error) = told.expect("its end is told");
    assert_eq!((result.exit_code, error.as_str()), (7, "it broke"));
    assert!(!scene.was_removed(), "it was clean");
    assert_eq!(scene.record("a", |record| record.ended.is_some()).await.plugin, record.plugin);
}

#[tokio::test]
async fn after_a_restart_of_the_machine_a_task_is_gone_and_says_so() {
    let scene = Scene::new(OBEDIENT).await;
    let handle = scene.started("a", 1000).await;
    let record = scene.record("a", |record| record.agent.is_some()).await;
    let directory = scene.directory("a");
    directory.put_record(&Record { boot: "another".to_owned(), ..record.clone() }).unwrap();
    let later = Driver(Plugin::new(BTreeMap::new()));
    scene.configure(&later.0, &[]).await;
    let request = nomad::RecoverTaskRequest { task_id: String::new(), handle: Some(handle) };
    later.recover_task(Request::new(request)).await.unwrap();
    let (result, error) = wait(&later, "a").await;
    assert!(result.exit_code != 0 && error.contains("the machine was restarted"), "{error}");
    assert!(scene.was_removed());
    kill(&record);
}

#[tokio::test]
async fn a_handle_of_another_is_refused() {
    let scene = Scene::new(OBEDIENT).await;
    let handle = scene.started("a", 1000).await;
    let config = handle.config.clone().map(|config| nomad::TaskConfig { id: "b/agent/1".to_owned(), ..config });
    for (wrong, told) in [
        (nomad::TaskHandle { version: 9, ..handle.clone() }, "version 9"),
        (nomad::TaskHandle { driver_state: b"{}".to_vec(), ..handle.clone() }, "is not one that this driver"),
        (nomad::TaskHandle { config, ..handle.clone() }, "belongs to another task"),
        (
            nomad::TaskHandle { driver_state: br#"{"directory":"/nowhere"}"#.to_vec(), ..handle.clone() },
            "/nowhere cannot be read",
        ),
    ] {
        let later = Driver(Plugin::new(BTreeMap::new()));
        let request = nomad::RecoverTaskRequest { task_id: String::new(), handle: Some(wrong) };
        let error = later.recover_task(Request::new(request)).await.unwrap_err();
        assert!(error.message().contains(told) && error.code() != Code::Unavailable, "{error}");
    }
    stop(&scene.driver, "a", 20).await;
}

#[tokio::test]
async fn what_cannot_be_recovered_is_destroyed_all_the_same() {
    for is_readable in [true, false] {
        let scene = Scene::new(OBEDIENT).await;
        scene.started("a", 1000).await;
        let record = scene.record("a", |record| record.agent.is_some()).await;
        if !is_readable {
            fs::write(scene.directory("a").path().join("driver.json"), "{}").unwrap();
        }
        let later = Driver(Plugin::new(BTreeMap::new()));
        scene.configure(&later.0, &[]).await;
        destroy(&later, "a").await;
        assert!(!scene.directory("a").path().exists() && scene.was_removed(), "{is_readable}");
        let here = Owner::this_process().unwrap();
        until("its end", || record.agent.as_ref().unwrap().is_dead(&here).then_some(())).await;
    }
}

/// Nomad asks the next plugin with the same words.
#[tokio::test]
async fn a_plugin_that_ended_while_it_started_a_task_leaves_it_to_the_next_one() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let record = scene.record("a", |record| record.agent.is_some()).await;
    let directory = scene.directory("a");
    for is_noted in [true, false] {
        // Between the start of the agent and its note there is nothing but its process.
        let agent = record.agent.clone().filter(|_| is_noted);
        directory.put_record(&Record { agent, ..record.clone() }).unwrap();
        let later = Driver(Plugin::new(BTreeMap::new()));
        scene.configure(&later.0, &[]).await;
        let request = nomad::StartTaskRequest { task: Some(scene.wanted("a", 1000)) };
        assert!(later.start_task(Request::new(request)).await.is_ok());
        let noted = scene.record("a", |record| record.agent.is_some()).await;
        assert_eq!((&noted.agent, noted.restarts), (&record.agent, 0), "it is the same agent");
        if !is_noted {
            stop(&later, "a", 20).await;
            assert_eq!(wait(&later, "a").await.0.exit_code, 0);
        }
    }
}

#[tokio::test]
async fn a_start_that_came_to_nothing_is_begun_anew() {
    let scene = Scene::new(OBEDIENT).await;
    for record in ["", "{}"] {
        let directory = scene.directory("a");
        directory.make().unwrap();
        if !record.is_empty() {
            fs::write(directory.path().join("driver.json"), record).unwrap();
        }
        scene.started("a", 1000).await;
        stop(&scene.driver, "a", 20).await;
        destroy(&scene.driver, "a").await;
    }
}

/// An agent lives there: what it has is not removed because nobody can read whose it is.
#[tokio::test]
async fn a_start_that_cannot_be_read_stays_and_the_task_is_not_begun_anew() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let record = scene.record("a", |record| record.agent.is_some()).await;
    let directory = scene.directory("a");
    let file = directory.path().join("driver.json");
    let later = Driver(Plugin::new(BTreeMap::new()));
    scene.configure(&later.0, &[]).await;
    let put = |record: Record| directory.put_record(&record).unwrap();
    let spoilt: [(&str, &dyn Fn()); 4] = [
        ("a directory", &|| fs::create_dir(&file).unwrap()),
        ("another version", &|| put(Record { version: Record::VERSION + 1, ..record.clone() })),
        ("another task", &|| put(Record { id: "b/agent/1".to_owned(), ..record.clone() })),
        ("none", &|| {}),
    ];
    for (what, spoil) in spoilt {
        fs::remove_file(&file).unwrap();
        spoil();
        let request = nomad::StartTaskRequest { task: Some(scene.wanted("a", 1000)) };
        let error = later.start_task(Request::new(request)).await.err().unwrap();
        let path = directory.path().display().to_string();
        assert!(error.code() == Code::Internal && error.message().contains(&path), "{what}: {error}");
        assert!(directory.path().join("ready").exists(), "{what}");
        fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).ok();
        put(record.clone());
    }
    stop(&scene.driver, "a", 20).await;
    assert_eq!(wait(&scene.driver, "a").await.0.exit_code, 0);
}

#[tokio::test]
async fn what_may_be_of_a_living_agent_is_not_destroyed_and_that_is_an_error() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let record = scene.record("a", |record| record.agent.is_some()).await;
    let directory = scene.directory("a");
    let later = Driver(Plugin::new(BTreeMap::new()));
    let destroy = |id: &str| {
        let request = nomad::DestroyTaskRequest { task_id: format!("{id}/agent/1"), force: true };
        later.destroy_task(Request::new(request))
    };
    let error = destroy("a").await.unwrap_err();
    assert!(error.message().contains("configuration"), "without one nobody knows where it lies: {error}");
    scene.configure(&later.0, &[]).await;
    directory.put_record(&Record { id: "b/agent/1".to_owned(), ..record.clone() }).unwrap();
    let error = destroy("a").await.unwrap_err();
    assert!(error.code() == Code::Internal && error.message().contains("another task"), "{error}");
    directory.put_record(&record).unwrap();
    let looped = scene.directory("c");
    std::os::unix::fs::symlink(looped.path(), looped.path()).unwrap();
    let error = destroy("c").await.unwrap_err();
    assert!(error.message().contains(&looped.path().display().to_string()), "{error}");
    destroy("d").await.unwrap();
    stop(&scene.driver, "a", 20).await;
    assert_eq!(wait(&scene.driver, "a").await.0.exit_code, 0, "its agent lived on");
}

#[tokio::test]
async fn whose_a_task_is_is_asked_again_while_its_record_cannot_be_read() {
    let scene =
        Scene::new("[ -e $dir/ready ] && exit_with 0 passed; touch $dir/ready; while :; do sleep 0.02; done").await;
    scene.started("a", 1000).await;
    let record = scene.record("a", |record| record.agent.is_some()).await;
    let directory = scene.directory("a");
    let file = directory.path().join("driver.json");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    kill(&record);
    // A plugin that took it for its own would have tried to start another agent by then, and given up.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    fs::remove_dir(&file).unwrap();
    directory.put_record(&record).unwrap();
    let (result, error) = wait(&scene.driver, "a").await;
    assert_eq!((result.exit_code, error.as_str()), (0, ""));
    assert!(!scene.was_removed(), "it went on");
}

#[tokio::test]
async fn the_reservation_is_kept_whatever_nomad_places() {
    let scene = Scene::new(OBEDIENT).await;
    // Four CPUs, of which two are reserved.
    scene.started("a", 1500).await;
    let error = scene.start("b", 600).await.err().unwrap();
    assert!(error.message().contains("wants 0.6 CPUs") && error.message().contains("0.5 CPUs"), "{error}");
    assert!(!scene.directory("b").path().exists());
    scene.started("c", 500).await;
    stop(&scene.driver, "a", 20).await;
    scene.started("d", 1500).await;
    assert!(scene.start("d", 1).await.err().unwrap().message().contains("started before"));
    for id in ["c", "d"] {
        stop(&scene.driver, id, 20).await;
    }
}

#[tokio::test]
async fn what_no_plugin_has_recovered_yet_counts_and_who_is_refused_keeps_its_token() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1500).await;
    let later = Driver(Plugin::new(BTreeMap::new()));
    scene.configure(&later.0, &[]).await;
    let request = nomad::StartTaskRequest { task: Some(scene.wanted("b", 600)) };
    let error = later.start_task(Request::new(request)).await.err().unwrap();
    assert!(error.message().contains("0.5 CPUs"), "{error}");
    assert!(scene.place.path().join("alloc/b/agent/local/token").exists());
    stop(&scene.driver, "a", 20).await;
    let request = nomad::StartTaskRequest { task: Some(scene.wanted("b", 600)) };
    later.start_task(Request::new(request)).await.unwrap();
    stop(&later, "b", 20).await;
}

#[tokio::test]
async fn an_end_that_cannot_be_read_is_an_end() {
    let scene = Scene::new("echo nonsense > $dir/exit.json; exit 0").await;
    scene.start("a", 1000).await.unwrap();
    let (result, error) = wait(&scene.driver, "a").await;
    assert!(result.exit_code != 0 && error.contains("how the agent ended cannot be read"), "{error}");
    assert_eq!(scene.record("a", |_| true).await.restarts, 0);
}

#[tokio::test]
async fn a_process_of_another_namespace_or_machine_is_nobodys_agent() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let agent = scene.record("a", |record| record.agent.is_some()).await.agent.unwrap();
    assert!(crate::process::Process::find(&agent).unwrap().is_some());
    for other in [
        Owner { pid_namespace: 1, ..agent.clone() },
        Owner { machine: "another".to_owned(), ..agent.clone() },
        Owner { start_time: 1, ..agent.clone() },
    ] {
        assert!(crate::process::Process::find(&other).unwrap().is_none(), "{other:?}");
    }
    stop(&scene.driver, "a", 20).await;
}

#[tokio::test]
async fn a_wrong_configuration_refuses_tasks_and_not_nomad() {
    let scene = Scene::new(OBEDIENT).await;
    scene.configure(&scene.driver.0, &[("reserve", Value::from("much"))]).await;
    let health = scene.driver.0.fingerprint.now();
    assert!(!health.is_healthy && health.text.contains("reserve is no block"), "{}", health.text);
    let error = scene.start("a", 100).await.err().unwrap();
    assert!(error.message().contains("reserve is no block"), "{error}");
    scene.configure(&scene.driver.0, &[]).await;
    scene.driver.0.fingerprint.subscribe().wait_for(|health| health.is_healthy).await.unwrap();
    scene.started("a", 100).await;
    stop(&scene.driver, "a", 20).await;
}

#[tokio::test]
async fn a_command_in_a_task_has_its_output_and_its_code() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let exec = |command: &[&str], nanos: i32| {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let timeout = (nanos > 0).then_some(prost_types::Duration { seconds: 0, nanos });
        let request = nomad::ExecTaskRequest { task_id: "a/agent/1".to_owned(), command, timeout };
        scene.driver.exec_task(Request::new(request))
    };
    let answer = exec(&["sh", "-c", "echo out; echo err >&2; exit 43"], 0).await.unwrap().into_inner();
    assert_eq!(
        (&*answer.stdout, &*answer.stderr, answer.result.unwrap().exit_code),
        (&b"out\n"[..], &b"err\n"[..], 43)
    );
    let error = exec(&["sleep", "60"], 100_000_000).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    stop(&scene.driver, "a", 20).await;
    assert!(exec(&["true"], 0).await.unwrap_err().message().contains("has ended"));
}

#[tokio::test]
async fn an_inspection_has_both_times_and_a_result() {
    let scene = Scene::new(OBEDIENT).await;
    scene.started("a", 1000).await;
    let inspect =
        || scene.driver.inspect_task(Request::new(nomad::InspectTaskRequest { task_id: "a/agent/1".to_owned() }));
    let running = inspect().await.unwrap().into_inner().task.unwrap();
    assert_eq!((running.state(), running.completed_at.unwrap().seconds), (nomad::TaskState::Running, -62_135_596_800));
    assert!(running.result.is_some() && running.started_at.unwrap().seconds > 1_700_000_000);
    stop(&scene.driver, "a", 20).await;
    assert_eq!(inspect().await.unwrap().into_inner().task.unwrap().state(), nomad::TaskState::Exited);
}
