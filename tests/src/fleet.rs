//! A processor and its runners, each a process of the story's own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::bench::Bench;
use crate::deadline::{eventually, seldom};
use crate::gate::Gate;
use crate::object_store::ObjectStore;
use crate::program::{Answer, Program};
use crate::sys::{self, Signal};

/// For programs to begin.
const LIMIT: Duration = Duration::from_secs(30);

/// A process that is killed when the story is over.
pub struct Served {
    child: Child,
    log: PathBuf,
}

impl Served {
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let to = || File::options().create(true).append(true).open(&log).expect("a log can be made");
        let child = command.stdin(Stdio::null()).stdout(to()).stderr(to()).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")), log }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        sys::signal(self.child.id(), signal);
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Waits for its end. Its exit code.
    #[track_caller]
    pub fn end(&mut self, limit: Duration) -> Option<i32> {
        let log = self.log.clone();
        let mut ended = || self.child.try_wait().expect("a child can be waited for");
        eventually(&format!("the end of the process that logs to {}", log.display()), limit, &mut ended).code()
    }

    /// The most memory that it has had.
    pub fn peak_mebibytes(&self) -> u64 {
        crate::memory::peak_mebibytes(self.child.id())
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // For whoever looks into why the story failed.
            std::io::stderr().write_all(format!("--- {}\n{}", self.log.display(), self.said()).as_bytes()).ok();
        }
    }
}

/// A processor with all that is its own in one directory.
pub struct Fleet<'a> {
    bench: &'a Bench,
    directory: PathBuf,
    processor: Served,
    extra: Vec<(String, String)>,
    /// Where people find it, and where agents do.
    pub url: String,
    pub agents: String,
    runners: u32,
    /// Where its store has its objects on this machine.
    objects: PathBuf,
    submitted: Cell<usize>,
}

impl<'a> Fleet<'a> {
    /// A processor on loopback, with everything embedded, that this bench is logged in at.
    #[track_caller]
    pub fn start(bench: &'a Bench) -> Self {
        Self::with(bench, &[])
    }

    /// The same with these settings (`NAVVY_PROCESSOR_…`) beside.
    #[track_caller]
    pub fn with(bench: &'a Bench, settings: &[(&str, &str)]) -> Self {
        let objects = bench.state().join("fleet/data/store");
        let fleet = Self::served(bench, "fleet", settings, objects);
        let token = fleet.word("Token").expect("the first start tells a token");
        fleet.secret("admin.token", &token);
        fleet.log_in();
        fleet
    }

    /// The same, whose store is an object store behind a gate.
    #[track_caller]
    pub fn over(bench: &'a Bench, store: &ObjectStore, gate: &Gate, settings: &[(&str, &str)]) -> Self {
        let of_store = store.of_a_processor(gate);
        let of_store = of_store.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = of_store.chain(settings.iter().copied()).collect();
        Self { objects: store.files().join("of-a-fleet"), ..Self::with(bench, &all) }
    }

    /// Another processor with the same settings, so over the same database and store; this bench is logged in there now.
    #[track_caller]
    pub fn another(&self) -> Self {
        let settings: Vec<(&str, &str)> = self.extra.iter().map(|(name, value)| (&**name, &**value)).collect();
        let fleet = Self::served(self.bench, "fleet-2", &settings, self.objects.clone());
        fleet.submitted.set(self.submitted.get());
        fs::copy(self.directory.join("admin.token"), fleet.directory.join("admin.token")).expect("the token is kept");
        fleet.log_in();
        fleet
    }

    #[track_caller]
    fn served(bench: &'a Bench, name: &str, settings: &[(&str, &str)], objects: PathBuf) -> Self {
        let directory = bench.state().join(name);
        fs::create_dir_all(&directory).expect("a directory can be made");
        let extra = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        let processor = serve(&directory, &extra, ["127.0.0.1:0", "127.0.0.1:0"]);
        let (url, agents) = addresses(&processor);
        Self { bench, directory, processor, extra, url, agents, runners: 0, objects, submitted: Cell::new(0) }
    }

    #[track_caller]
    fn log_in(&self) {
        let file = self.directory.join("admin.token");
        self.navvy(&["login", &self.url, "--token-file", file.to_str().expect("a path of ours")]).succeeded();
    }

    /// Whose commands these are.
    pub fn bench(&self) -> &'a Bench {
        self.bench
    }

    /// The store's own directory.
    pub(crate) fn objects(&self) -> PathBuf {
        self.objects.clone()
    }

    /// How many pipelines this was asked for.
    pub(crate) fn submitted(&self) -> usize {
        self.submitted.get()
    }

    /// `navvy` with these words, in the bench's project.
    #[track_caller]
    pub fn navvy(&self, args: &[&str]) -> Answer {
        self.bench.program(args).run()
    }

    /// A runner that takes tasks of every class.
    #[track_caller]
    pub fn runner(&mut self, args: &[&str]) -> Served {
        let agents = self.agents.clone();
        self.runner_by(&agents, args)
    }

    /// The same, which finds the processor at this address.
    #[track_caller]
    pub fn runner_by(&mut self, address: &str, args: &[&str]) -> Served {
        self.runners += 1;
        let token = self.navvy(&["runner-token", "*"]).text();
        let file = self.secret(&format!("runner-{}.token", self.runners), token.trim());
        let url = format!("{}://{address}", self.scheme());
        let words =
            ["runner", "--processor", &url, "--token-file", file.to_str().expect("a path of ours"), "--class", "*"];
        let without_reservation = ["--reserve-cpus", "0", "--reserve-memory", "0"];
        let all: Vec<&str> = words.iter().chain(&without_reservation).chain(args).copied().collect();
        Served::start(self.bench.command_of(&all), self.directory.join(format!("runner-{}.log", self.runners)))
    }

    /// An agent that was started for this task.
    #[track_caller]
    pub fn agent(&mut self, task: &str, token: &str) -> Served {
        self.runners += 1;
        let file = self.secret(&format!("agent-{}.token", self.runners), token);
        let url = format!("http://{}", self.agents);
        let file = file.to_str().expect("a path of ours");
        let command = self.bench.command_of(&["agent", "--processor", &url, "--task", task, "--token-file", file]);
        Served::start(command, self.directory.join(format!("agent-{}.log", self.runners)))
    }

    /// A reader who looks on from the first event, by this address of a processor.
    #[track_caller]
    pub fn follow(&mut self, pipeline: &str, address: &str) -> Served {
        self.runners += 1;
        let (url, token) = (format!("http://{address}"), self.directory.join("admin.token"));
        let token = token.to_str().expect("a path of ours");
        let words = ["follow", pipeline, "--plain", "--verbose", "--processor", &url, "--token-file", token];
        Served::start(self.bench.command_of(&words), self.directory.join(format!("reader-{}.log", self.runners)))
    }

    /// A command of a person's, which runs beside the story.
    #[track_caller]
    pub fn beside(&mut self, words: &[&str]) -> Served {
        self.runners += 1;
        Served::start(self.bench.command_of(words), self.directory.join(format!("beside-{}.log", self.runners)))
    }

    /// A token for an agent of this task.
    #[track_caller]
    pub fn launch_token(&self, task: &str) -> String {
        let path = format!("/api/v2/task/{task}/launch");
        let said = self.ask("POST", &path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let said: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
        said["token"].as_str().expect("a token").to_owned()
    }

    /// All events of a pipeline, up to its end.
    #[track_caller]
    pub fn events(&self, pipeline: &str) -> Vec<serde_json::Value> {
        self.events_by(&format!("/api/v2/pipeline/{pipeline}/events?follow=true"))
    }

    /// The events that a pipeline has had so far.
    #[track_caller]
    pub fn events_so_far(&self, pipeline: &str) -> Vec<serde_json::Value> {
        self.events_by(&format!("/api/v2/pipeline/{pipeline}/events"))
    }

    #[track_caller]
    fn events_by(&self, path: &str) -> Vec<serde_json::Value> {
        let said = self.get(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let lines = String::from_utf8(said).expect("JSON is UTF-8");
        let event =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an event a line")["event"].take();
        lines.lines().map(event).collect()
    }

    /// Submits the bench's project. The pipeline's id.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> String {
        let words: Vec<&str> = ["submit", "--json"].iter().chain(args).copied().collect();
        self.submitted.set(self.submitted.get() + 1);
        let said = self.navvy(&words).text();
        let json: serde_json::Value = said
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .unwrap_or_else(|| panic!("no JSON in: {said}"));
        json["id"].as_str().unwrap_or_else(|| panic!("no id in: {said}")).to_owned()
    }

    /// The pipeline's end: `success`, `failed`, …
    #[track_caller]
    pub fn end_of(&self, pipeline: &str, limit: Duration) -> String {
        seldom(&format!("the end of pipeline {pipeline}"), limit, || {
            let state = self.show(pipeline)["state"].as_str()?.to_owned();
            (state != "running" && state != "on_hold").then_some(state)
        })
    }

    /// The pipeline as the processor shows it.
    #[track_caller]
    pub fn show(&self, pipeline: &str) -> serde_json::Value {
        let said = self.navvy(&["pipelines", "show", pipeline, "--json"]).text();
        serde_json::from_str(said.trim()).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// The job of this name.
    #[track_caller]
    pub fn job(&self, pipeline: &str, name: &str) -> serde_json::Value {
        let shown = self.show(pipeline);
        let workflows = shown["workflows"].as_array().expect("workflows").iter();
        let mut jobs = workflows.flat_map(|workflow| workflow["jobs"].as_array().expect("jobs"));
        jobs.find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job {name} in {shown}")).clone()
    }

    /// The id of the job's first task.
    #[track_caller]
    pub fn task(&self, pipeline: &str, job: &str) -> String {
        seldom(&format!("a task of {job}"), LIMIT, || {
            Some(self.job(pipeline, job)["tasks"].get(0)?["id"].as_str()?.to_owned())
        })
    }

    /// A log as the processor has it.
    #[track_caller]
    pub fn log(&self, task: &str, log: &str) -> Vec<u8> {
        let path = format!("/api/v2/task/{task}/log/{log}");
        self.get(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The log's bytes so far, if there is one.
    pub fn log_so_far(&self, task: &str, log: &str) -> Vec<u8> {
        self.get(&format!("/api/v2/task/{task}/log/{log}")).unwrap_or_default()
    }

    /// The bytes of a log that may have no end, since its agent was lost: the answer breaks off behind what there is.
    #[track_caller]
    pub fn log_without_end(&self, task: &str, log: &str) -> Vec<u8> {
        let done = self.curl(&["--fail"], &format!("/api/v2/task/{task}/log/{log}"));
        // 22: there is no such log. 18: it breaks off, as it must where the agent has not said where it ends.
        assert!(matches!(done.status.code(), Some(0 | 18 | 22)), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    /// By HTTP, as an admin.
    ///
    /// # Errors
    /// What the processor answered, or why it did not.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        self.ask("GET", path)
    }

    /// `authorization: Bearer TOKEN` of an admin.
    #[track_caller]
    pub fn admin_header(&self) -> String {
        let token = fs::read_to_string(self.directory.join("admin.token")).expect("the token is kept");
        format!("authorization: Bearer {}", token.trim())
    }

    /// What an answer's head says.
    #[track_caller]
    pub fn head(&self, path: &str) -> String {
        let words = ["--silent", "--show-error", "--dump-header", "-", "--output", "/dev/null", "--max-time", "60"];
        let header = self.admin_header();
        let program = Program::new("curl").args(words).args(["--header", &header, &format!("{}{path}", self.url)]);
        program.run().text()
    }

    fn ask(&self, method: &str, path: &str) -> Result<Vec<u8>, String> {
        let done = self.curl(&["--fail-with-body", "--request", method], path);
        match done.status.success() {
            true => Ok(done.stdout),
            false => Err(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()),
        }
    }

    fn curl(&self, words: &[&str], path: &str) -> Output {
        let header = self.admin_header();
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--header", &header]).args(words);
        // Whom it trusts is what `navvy` is asked for.
        command.args(self.url.starts_with("https://").then_some("--insecure"));
        command.arg(format!("{}{path}", self.url)).output().expect("curl can be run")
    }

    /// SIGKILL to the processor, and a start at the same addresses.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.processor.kill();
        self.restart();
    }

    /// What the processor has said since it was started last.
    pub fn processor_says(&self) -> String {
        fs::read_to_string(self.directory.join("processor.log")).unwrap_or_default()
    }

    /// A start at the same addresses, of a processor that has ended.
    #[track_caller]
    pub fn restart(&mut self) {
        let people = self.url.trim_start_matches("http://").trim_start_matches("https://").to_owned();
        fs::rename(self.directory.join("processor.log"), self.directory.join("processor.before.log")).ok();
        self.processor = serve(&self.directory, &self.extra, [&people, &self.agents]);
        addresses(&self.processor);
    }

    /// The processor's process.
    pub fn processor(&mut self) -> &mut Served {
        &mut self.processor
    }

    /// What the processor said before it was started again.
    pub fn said_before(&self) -> String {
        fs::read_to_string(self.directory.join("processor.before.log")).unwrap_or_default()
    }

    /// Where all that is the processor's own is.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Both ports have TLS, or none.
    fn scheme(&self) -> &'static str {
        if self.url.starts_with("https://") { "https" } else { "http" }
    }

    fn word(&self, name: &str) -> Option<String> {
        word(&self.processor.said(), name)
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.join(name);
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        path
    }
}

fn serve(directory: &Path, settings: &[(String, String)], [people, agents]: [&str; 2]) -> Served {
    let mut command = Command::new(crate::bench::program_of_ours("navvy-processor"));
    command.args(["serve", "--listen", people, "--listen-agents", agents, "--data"]).arg(directory.join("data"));
    command.env_remove("XDG_DATA_HOME").envs(settings.iter().map(|(name, value)| (name, value)));
    Served::start(command, directory.join("processor.log"))
}

#[track_caller]
fn addresses(processor: &Served) -> (String, String) {
    let said = eventually("the processor's addresses", LIMIT, || {
        let said = processor.said();
        word(&said, "Data").map(|_| said)
    });
    let of = |name: &str| word(&said, name).unwrap_or_else(|| panic!("no {name} in: {said}"));
    (of("Processor"), of("Agents"))
}

fn word(said: &str, name: &str) -> Option<String> {
    said.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

/// All files beneath a directory that hold these bytes.
pub fn files_that_hold(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_that_hold(&path, bytes));
            continue;
        }
        let mut content = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut content));
        if read.is_ok() && content.windows(bytes.len()).any(|window| window == bytes) {
            found.push(path);
        }
    }
    found
}
