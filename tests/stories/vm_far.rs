//! Machine jobs on a host that is there already: an ssh server and a supervisor in namespaces of this machine (`vm/tests/far-host`).

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use navvy_tests::{Bench, Signal, eventually};

const LIMIT: Duration = Duration::from_secs(120);

/// A host, until this is dropped.
struct There(tempfile::TempDir);

impl Drop for There {
    fn drop(&mut self) {
        drop(Command::new(script()).arg("stop").arg(self.0.path()).status());
    }
}

fn script() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../vm/tests/far-host"].iter().collect()
}

impl There {
    /// With the settings that name it alone.
    fn new(bench: &Bench) -> Self {
        let (there, entry) = Self::with_entry("one");
        bench.config_file("navvy/settings.toml", format!("[vm]\nprovider = 'ssh'\n\n{entry}"));
        there
    }

    /// And what settings say of it.
    fn with_entry(name: &str) -> (Self, String) {
        let there = Self(tempfile::tempdir().unwrap());
        for name in ["host_key", "login"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(there.at(name));
            assert!(keygen.status().unwrap().success(), "ssh-keygen");
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let supervisor: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../target/bin/navvy-supervisor"].iter().collect();
        let supervisor = supervisor.canonicalize().expect("scripts/build makes it").display().to_string();
        fs::copy(there.at("login.pub"), there.at("authorized_keys")).unwrap();
        for (name, text) in [("port", port.to_string()), ("forwarding", "yes".to_owned()), ("supervisor", supervisor)] {
            fs::write(there.at(name), text).unwrap();
        }
        let host_key = fs::read_to_string(there.at("host_key.pub")).unwrap();
        let entry = format!(
            "[[vm.ssh.hosts]]\nname = '{name}'\naddress = '127.0.0.1'\nport = {port}\nhost-key = '{}'\nkey-file = '{}'\n\
             reset = ['{}', 'reset', '{}']\n",
            host_key.trim(),
            there.at("login").display(),
            script().display(),
            there.0.path().display(),
        );
        (there, entry)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn resets(&self) -> usize {
        fs::read_to_string(self.at("resets")).unwrap_or_default().lines().count()
    }
}

#[test]
fn a_machine_job_runs_on_a_host_that_is_there() {
    // Nobody answers there.
    let bench = Bench::on_this_machine().env("DOCKER_HOST", "tcp://127.0.0.1:1");
    let there = There::new(&bench);
    bench.config(
        "version: 2.1\njobs:\n  vm:\n    machine: {image: 'ubuntu-2204:current', docker_layer_caching: true}\n    steps:\n      \
         - run: {name: says, command: 'id -un; pwd'}\n      - run: {name: counts, command: 'seq 1 200000'}\n\
         workflows:\n  ci: {jobs: [vm]}\n",
    );
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    assert_eq!(done.text("vm", "says"), "circleci\n/home/circleci/project\n");
    let counted = (1..=200_000).map(|nth| format!("{nth}\n")).collect::<String>();
    assert!(done.text("vm", "counts") == counted, "not every byte is what the step wrote");
    let report = done.report("vm");
    assert!(report.contains("Host: one (127.0.0.1:") && report.contains("Docker layer caching: none"), "{report}");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
    assert_eq!(there.resets(), 2, "before and after");
}

#[test]
fn jobs_elsewhere_have_their_whole_class_and_run_at_once_as_far_as_there_are_hosts() {
    let bench = Bench::on_this_machine();
    let ((one, first), (two, second)) = (There::with_entry("one"), There::with_entry("two"));
    bench.config_file("navvy/settings.toml", format!("[vm]\nprovider = 'ssh'\n\n{first}{second}"));
    let job = |name: &str| {
        format!(
            "  {name}:\n    machine: true\n    resource_class: 2xlarge+\n    steps: [{{run: {{name: says, command: 'echo {name}'}}}}]\n"
        )
    };
    let jobs: String = ["a", "b", "c"].map(job).concat();
    bench.config(&format!("version: 2.1\njobs:\n{jobs}workflows:\n  ci: {{jobs: [a, b, c]}}\n"));
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    let of = |kind: &str, job: &str| done.event(kind, |event| event.is(kind) && event.job() == job);
    for job in ["a", "b", "c"] {
        let size = of("task_started", job).get("size");
        assert_eq!((size["millicpus"].as_u64(), size["memory"].as_u64()), (Some(32_000), Some(64 << 30)), "{job}");
        assert_eq!(done.text(job, "says"), format!("{job}\n"));
    }
    let told = done.event("the end", |event| event.is("run_ended")).texts("fidelity").join("\n");
    assert!(!told.contains("clamped"), "{told}");
    let at = |kind: &str, job: &str| of(kind, job).at_ms();
    let both = at("task_started", "a").max(at("task_started", "b"));
    assert!(both < at("task_ended", "a").min(at("task_ended", "b")), "two run at once");
    let freed = at("task_removed", "a").min(at("task_removed", "b"));
    assert!(at("task_started", "c") >= freed, "a host is free when it is made as new, and not before");
    assert_eq!(
        of("job_waiting", "c").text("why"),
        "as many jobs have virtual machines as [vm] of your settings allows"
    );
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
    assert_eq!(one.resets() + two.resets(), 6, "before and after each");
}

#[test]
fn a_failed_job_on_a_host_that_is_there_is_held_entered_and_gone_on_with() {
    let bench = Bench::on_this_machine();
    let there = There::new(&bench);
    bench.config(
        "version: 2.1\njobs:\n  vm:\n    machine: true\n    steps:\n      - run: {name: begins, command: 'echo here > kept'}\n      \
         - run: {name: fails, command: 'test -e mended && cat kept'}\nworkflows:\n  ci: {jobs: [vm]}\n",
    );
    let done = bench.run(&["--keep-on-fail"]).that_leaves_things().finish_within(LIMIT);
    assert_eq!(done.verdict("vm"), "failed", "{}", done.account());
    let task = done.tasks()[0].clone();
    // Who cleans up meanwhile spares it, and resets nothing under it.
    bench.ask(&["prune"]).exits_with(0);
    let entered = bench.ask(&["shell", &task, "--", "sh", "-c", "id -un; pwd; cat kept; touch mended"]);
    entered.exits_with(0);
    assert_eq!(entered.stdout(), "circleci\n/home/circleci/project\nhere\n");
    assert_eq!(there.resets(), 1);
    let again = bench.start(&["retry", &task, "--json"]).finish_within(LIMIT);
    again.passes();
    assert_eq!(again.text("vm", "fails"), "here\n");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
    assert_eq!(there.resets(), 2);
}

fn pool_file(bench: &Bench) -> String {
    bench.state().with_file_name("config").join("navvy/pool.toml").display().to_string()
}

/// A pool's process, until this is dropped.
struct Pool<'a>(&'a Bench, Child);

impl<'a> Pool<'a> {
    /// Keeps one host ready, and waits until it is.
    fn of(bench: &'a Bench) -> Self {
        let file = "[pool]\nprescale = [{class = 'medium', image = 'ubuntu-2204:current', count = 1}]\n";
        bench.config_file("navvy/pool.toml", file);
        let mut command = bench.command_of(&["vm-pool", "--settings", &pool_file(bench)]);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the pool can be started");
        let pool = Self(bench, process);
        eventually("a host is ready", LIMIT, || {
            let report: serde_json::Value =
                serde_json::from_str(&bench.ask(&["vm-pool", "report", "--json"]).stdout()).ok()?;
            report["kinds"].as_array()?.iter().any(|kind| kind["warm"] == 1).then_some(())
        });
        pool
    }

    fn kill(mut self) {
        navvy_tests::signal(self.1.id(), Signal::Kill);
        self.1.wait().expect("it ends");
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.1.kill().ok();
        self.1.wait().ok();
        if std::thread::panicking() {
            self.0.command_of(&["vm-pool", "empty"]).status().ok();
        }
    }
}

#[test]
fn a_pool_has_a_host_ready_for_a_job_and_keeps_it_over_a_sigkill() {
    let bench = Bench::on_this_machine().env("DOCKER_HOST", "tcp://127.0.0.1:1");
    let there = There::new(&bench);
    bench.config(
        "version: 2.1\njobs:\n  vm:\n    machine: {image: 'ubuntu-2204:current'}\n    steps:\n      \
         - run: {name: says, command: 'id -un; pwd'}\nworkflows:\n  ci: {jobs: [vm]}\n",
    );
    Pool::of(&bench).kill();
    let pool = Pool::of(&bench);
    assert_eq!(there.resets(), 1, "what was ready is gone on with");
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    assert_eq!(done.text("vm", "says"), "circleci\n/home/circleci/project\n");
    let report = done.report("vm");
    assert!(report.contains("Machine: from the pool") && report.contains("Host: one (127.0.0.1:"), "{report}");
    pool.kill();
    bench.ask(&["vm-pool", "empty"]).exits_with(0);
    let machines = fs::read_dir(bench.state().join("navvy/machines")).into_iter().flatten().flatten();
    assert_eq!(machines.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_pool_that_wants_more_hosts_than_there_are_does_not_start() {
    let bench = Bench::on_this_machine();
    let _there = There::new(&bench);
    for (entry, words) in [
        ("{class = 'medium', image = 'default', count = 2}", "count is 2, and [[vm.ssh.hosts]] of your settings has 1"),
        ("{class = 'huge', image = 'default', count = 1}", "class \"huge\" is no class of machines; there are medium"),
    ] {
        bench.config_file("navvy/pool.toml", format!("[pool]\nprescale = [{entry}]\n"));
        let told = bench.navvy(&["vm-pool", "--settings", &pool_file(&bench)]);
        told.exits_with(64);
        assert!(told.stderr.contains(words), "{}", told.stderr);
    }
}

#[test]
fn what_does_not_go_together_in_settings_is_named() {
    let bench = Bench::on_this_machine();
    bench.config(
        "version: 2.1\njobs:\n  vm:\n    machine: true\n    steps: [{run: 'true'}]\nworkflows:\n  ci: {jobs: [vm]}\n",
    );
    for (text, words) in [
        ("[vm]\nprovider = 'ec2'\n", "needs a table [vm.ec2]"),
        ("[vm]\nprovider = 'xen'\n", "expected one of `qemu`, `ssh`, `ec2`, `gce`"),
        ("[vm]\nprovider = 'ssh'\ndevices = ['0000:01:00.0']\n[vm.ssh]\n", "`devices` is for machines of this host"),
        ("[vm]\nprovider = 'ssh'\n[vm.ssh]\n", "`vm.ssh.hosts`: it has no entry"),
    ] {
        bench.config_file("navvy/settings.toml", text);
        let listed = bench.navvy(&["run", "--list"]);
        listed.exits_with(64);
        assert!(listed.stderr.contains(words), "{text}: {}", listed.stderr);
        assert!(listed.stderr.contains("navvy/settings.toml"), "it says where: {}", listed.stderr);
    }
}
