//! What is on the host: `ps`, `prune`, `rm`, and what a reaper spares.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use navvy_tests::{Bench, Docker, Event, Finished, PrivateEngine, Run, Signal, SmallDisk};

const WAITS: &str = r#"
version: 2.1
jobs:
  waits:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: {name: wait, command: echo ready; sleep 1000}}]
  short:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: {name: go, command: echo hello}}]
workflows:
  ci: {jobs: [waits, short]}
"#;

fn waiting(bench: &Bench) -> (Run<'_>, String) {
    let run = bench.config(WAITS).run(&["--job", "waits"]);
    let task = run.wait_for_output("ready").task().expect("output is a task's").to_owned();
    (run, task)
}

/// Starts a run, kills it, and returns its task.
fn killed(bench: &Bench) -> String {
    let (run, task) = waiting(bench);
    run.signal(Signal::Kill);
    run.that_leaves_things().finish().exits_with(128 + 9);
    task
}

fn listed(done: &Finished) -> Vec<Event> {
    done.stdout().lines().filter_map(Event::parse).collect()
}

fn state_of(bench: &Bench, task: &str) -> Option<String> {
    let tasks = listed(&bench.ask(&["ps", "--json"]));
    tasks.iter().find(|seen| seen.text("task") == task).map(|seen| seen.text("state").to_owned())
}

#[test]
fn ps_tells_the_living_from_the_dead_and_rm_refuses_the_living() {
    // On an engine of its own: a run of another story would remove what is dead, too.
    let engine = PrivateEngine::near();
    let bench = Bench::new().on(engine.docker(), &engine.address());
    let (run, task) = waiting(&bench);
    let seen = listed(&bench.ask(&["ps", "--json"]));
    let seen = seen.iter().find(|seen| seen.text("task") == task).expect("it is listed");
    assert_eq!((seen.text("state"), seen.text("job"), seen.text("workflow")), ("running", "waits", "ci"));
    assert_eq!(seen.number("owner_pid"), u64::from(run.pid()));
    assert_eq!(seen.texts("containers"), [format!("navvy-{task}-primary")]);
    assert!(fs::metadata(seen.text("directory")).expect("its logs are there").is_dir());
    let table = bench.ask(&["ps"]).stdout();
    assert!(table.lines().any(|line| line.contains(&task) && line.contains("running")), "{table}");

    for name in [&task[..6], "waits", &task] {
        bench.ask(&["rm", name]).exits_with(64).complains(&["running", "--force"]);
    }
    bench.ask(&["rm", "nothing"]).exits_with(64).complains(&["nothing", "navvy ps"]);
    assert!(bench.ask(&["prune"]).stdout().contains("Nothing removed"), "a living task was removed");
    run.signal(Signal::Kill);
    run.that_leaves_things().finish().exits_with(128 + 9);

    assert_eq!(state_of(&bench, &task).as_deref(), Some("dead"));
    let dry = bench.ask(&["prune", "--dry-run"]);
    assert!(dry.passes().stdout().contains(&format!("Would remove task {task} (waits): 1 container")), "{dry:?}");
    assert_eq!(state_of(&bench, &task).as_deref(), Some("dead"));
    let removed = bench.ask(&["rm", "waits"]);
    assert!(removed.passes().stdout().contains(&format!("Removed task {task}")), "{removed:?}");
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));
}

#[test]
fn prune_leaves_what_another_state_directory_of_the_same_user_keeps() {
    let (mine, other) = (Bench::on_this_machine(), Bench::on_this_machine());
    mine.config(&WAITS.replace("echo hello", "exit 1"));
    let failed = mine.run(&["--job", "short", "--keep-on-fail"]).that_leaves_things().finish();
    let task = failed.event("it is kept", |event| event.is("task_kept")).task().expect("it is a task's").to_owned();
    other.ask(&["prune", "--kept"]).passes();
    assert_eq!(state_of(&mine, &task).as_deref(), Some("kept"));
    other.ask(&["rm", &task[..8]]).exits_with(64).complains(&["another user", &task]);
    mine.ask(&["prune", "--kept"]).passes();
    assert_eq!((mine.left_of(&[task]), mine.left_of_runs()), (vec![], vec![]));
}

#[test]
fn what_sits_in_a_dead_task_s_cgroup_is_killed_and_nothing_beside_it() {
    let engine = PrivateEngine::near();
    let bench = Bench::on_this_machine().on(engine.docker(), &engine.address());
    let task = killed(&bench);
    let group = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten().map(|entry| entry.path());
    let groups: Vec<_> = group.chain(["/sys/fs/cgroup".into()]).map(|root| root.join("navvy")).collect();
    let of_task: Vec<_> = groups.iter().map(|it| it.join(format!("task-{task}"))).filter(|it| it.is_dir()).collect();
    assert!(!of_task.is_empty(), "root on a near engine makes cgroups");
    let mut sleepers = Vec::new();
    // As `runc init` does that an engine left behind: in a cgroup of its own below the task's, and in the task's itself.
    for (group, place) in of_task.iter().flat_map(|group| [(group, group.join("half-made")), (group, group.clone())]) {
        fs::create_dir_all(&place).expect("root makes cgroups");
        let sleeper = std::process::Command::new("sleep").arg("1000").spawn().expect("it starts");
        let joined = fs::write(place.join("cgroup.procs"), sleeper.id().to_string());
        // A parent of version 2 holds no process itself; a cpuset that was never filled takes none.
        match joined {
            Ok(()) => sleepers.push(sleeper),
            Err(_) => end(sleeper),
        }
        assert!(group.is_dir());
    }
    assert!(!sleepers.is_empty(), "no cgroup takes a process");
    let beside = std::process::Command::new("sleep").arg("1000").spawn().expect("it starts");
    bench.ask(&["prune"]).passes();
    for mut sleeper in sleepers {
        let status = sleeper.wait().expect("it is ours");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
    assert!(fs::read_to_string(format!("/proc/{}/comm", beside.id())).is_ok_and(|name| name.trim() == "sleep"));
    end(beside);
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));
}

fn end(mut process: std::process::Child) {
    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
}

#[test]
fn rm_with_force_takes_a_task_from_under_its_owner() {
    let bench = Bench::new();
    let (run, task) = waiting(&bench);
    bench.ask(&["rm", "--force", &task]).passes();
    let done = run.finish();
    assert_ne!(done.verdict("waits"), "passed");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn without_an_engine_files_tell_what_they_can() {
    let bench = Bench::new();
    let task = killed(&bench);
    let away = ["--docker", "unix:///nonexistent/docker.sock"];
    let ps = bench.ask(&[&["ps", "--json"], &away[..]].concat());
    ps.exits_with(69).complains(&["/nonexistent/docker.sock"]);
    assert_eq!(listed(&ps)[0].text("task"), task);
    bench.ask(&[&["prune"], &away[..]].concat()).exits_with(69).complains(&["/nonexistent/docker.sock"]);
    bench.ask(&[&["rm", &task], &away[..]].concat()).exits_with(69);
    // It is still known, so that its container is found.
    assert_eq!(state_of(&bench, &task).as_deref(), Some("dead"));
    bench.ask(&["prune"]).passes();
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));
}

#[test]
fn a_reaper_needs_no_free_byte_of_disk_and_a_run_without_one_makes_nothing() {
    let bench = Bench::new();
    let disk = SmallDisk::mounted_at(&bench.state(), 24);
    let task = killed(&bench);
    let filler = bench.state().join("filler");
    // Until the last byte is taken: the error is what is waited for.
    let full = (0..).find_map(|_| append(&filler, 64 << 10).err()).expect("the disk is small");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    while append(&filler, 1).is_ok() {}

    let refused = bench.run(&["--job", "short"]).finish();
    assert_eq!(refused.exit_code, 3, "{}", refused.account());
    assert!(refused.account().contains("No space left on device"), "{}", refused.account());
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));

    fs::remove_file(&filler).expect("it is there");
    let task = killed(&bench);
    while append(&filler, 1 << 10).is_ok() {}
    bench.ask(&["prune"]).passes();
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));
    drop(disk);
}

fn append(path: &std::path::Path, length: usize) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(&vec![0; length])
}

/// Makes a container as a run of that owner would have.
fn forge(docker: &Docker, name: &str, task: &str, owner: &str) {
    let labels = [format!("dev.navvy.task={task}"), format!("dev.navvy.owner={owner}")];
    let args = ["create", "--name", name, "--label", &labels[0], "--label", &labels[1], "navvy/busybox:static", "true"];
    docker.ask(&args).succeeded();
}

#[test]
fn nobodys_tasks_go_and_what_may_be_somebodys_stays() {
    let engine = PrivateEngine::near();
    let bench = Bench::new().on(engine.docker(), &engine.address());
    let docker = engine.docker();
    let (run, task) = waiting(&bench);
    let format = r#"{{index .Config.Labels "dev.navvy.owner"}}"#;
    let owner = docker.ask(&["inspect", "--format", format, &format!("navvy-{task}-primary")]).text();
    let fields: Vec<&str> = owner.trim().split('/').collect();
    let [machine, boot, namespace, pid, start] = fields[..] else { panic!("an owner has five fields: {owner}") };
    let dead = format!("{machine}/{boot}/{namespace}/{pid}/1");
    let plain = |task: &str| format!("navvy-{task}-primary");
    let owners = [
        ("otherboot0000001", format!("{machine}/an-earlier-boot/{namespace}/{pid}/{start}"), "gone"),
        ("deadowner0000001", dead.clone(), "gone"),
        ("othermachine0001", format!("elsewhere/{boot}/{namespace}/{pid}/1"), "stays"),
        ("othernamespace01", format!("{machine}/{boot}/1/{pid}/1"), "stays"),
        ("garbagelabel0001", "garbage".to_owned(), "stays"),
    ];
    for (task, owner, _) in &owners {
        forge(&docker, &plain(task), task, owner);
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let earlier = now() - 10;
    forge(&docker, &format!("navvy-keptuntilnow00001-kept-{earlier}-primary"), "keptuntilnow00001", &dead);
    forge(&docker, "navvy-keptforlong000001-service-0", "keptforlong000001", &dead);
    // What an engine leaves that dies between a container and its volumes.
    let labels = ["dev.navvy.task=orphanvolume0001".to_owned(), format!("dev.navvy.owner={dead}")];
    docker.ask(&["volume", "create", "--label", &labels[0], "--label", &labels[1]]).succeeded();
    // Last: it is looked at within the minute.
    let later = now() + 8040;
    forge(&docker, &format!("navvy-keptforlong000001-kept-{later}-primary"), "keptforlong000001", &dead);

    let table = bench.ask(&["ps"]).stdout();
    let kept = table.lines().find(|line| line.starts_with("keptforlong000001")).unwrap_or_default().to_owned();
    assert!(kept.contains("kept until") && kept.contains("(in 2 h 14 min)"), "{table}");
    let pruned = bench.ask(&["prune"]);
    assert!(pruned.passes().stdout().contains("Spared task keptforlong000001"), "{pruned:?}");
    for (task, _, expected) in &owners {
        let found = if docker.containers_of(task).is_empty() { "gone" } else { "stays" };
        assert_eq!(found, *expected, "{task}: {}", pruned.stdout());
    }
    assert_eq!(docker.containers_of("keptforlong000001").len(), 2);
    assert_eq!(docker.containers_of("keptuntilnow00001").len(), 0);
    assert_eq!(docker.volumes_of("orphanvolume0001").len(), 0);
    assert_eq!(state_of(&bench, &task).as_deref(), Some("running"));
    bench.ask(&["rm", "--force", "othermachine0001"]).exits_with(64).complains(&["another machine"]);

    // Nobody knows whose it is: it goes when it is named, in full, and not otherwise.
    let pruned = bench.ask(&["prune", "--kept"]);
    assert!(pruned.passes().stdout().contains("another user, or from another state directory"), "{pruned:?}");
    assert_eq!(docker.containers_of("keptforlong000001").len(), 2);
    bench.ask(&["rm", "keptforlong"]).exits_with(64).complains(&["another user", "navvy rm keptforlong000001"]);
    assert_eq!(docker.containers_of("keptforlong000001").len(), 2);
    bench.ask(&["rm", "keptforlong000001"]).passes();
    assert_eq!(docker.containers_of("keptforlong000001").len(), 0);
    run.signal(Signal::Interrupt);
    run.finish_within(Duration::from_secs(30)).exits_with(130);
    let stays: Vec<String> = owners.iter().filter(|(_, _, end)| *end == "stays").map(|(t, _, _)| plain(t)).collect();
    let args: Vec<&str> = ["rm"].into_iter().chain(stays.iter().map(String::as_str)).collect();
    docker.ask(&args).succeeded();
}

/// A panic is a bug of ours: nothing stays behind, whether it ended the run or one task of it. `scripts/test` builds navvy with
/// these bugs; a release has none.
#[test]
fn a_bug_of_navvy_ends_a_run_with_code_3_and_leaves_nothing() {
    for (bug, jobs, says) in [("run", &[][..], "bug of its own"), ("task", &["--job", "short"][..], "without a result")]
    {
        let bench = Bench::new().env("NAVVY_TEST_BUG", bug);
        let run = bench.config(WAITS).run(jobs);
        let pid = run.pid();
        let done = run.finish();
        done.exits_with(3).complains(&["a bug that NAVVY_TEST_BUG asked for", says]);
        assert_eq!(bench.docker().owned_by(pid), [""; 0], "{}", done.account());
        assert_eq!(bench.left_of_runs(), [""; 0], "{bug}");
        // A task that has no result any more has an end all the same, and so has its job.
        if bug == "task" {
            let words = done.end_words("short");
            assert!(words.contains("a bug of Navvy ended the task"), "{words}");
        }
    }
}

/// A log on a full disk: nobody can be told, and that is all.
#[test]
fn a_run_whose_standard_error_is_full_goes_on() {
    for level in ["debug", "a=wrong=filter"] {
        let bench = Bench::new().env("NAVVY_LOG", level);
        let done = bench.config(WAITS).run_with_full_stderr(&["--job", "short"]);
        done.passes();
        assert_eq!(bench.left_of_runs(), [""; 0]);
    }
}
