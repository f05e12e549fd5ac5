//! Where a story happens.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::docker::Docker;
use crate::engine::PrivateEngine;
use crate::finished::Finished;
use crate::leaks;
use crate::network::Network;
use crate::program::{Answer, Program};
use crate::proxy::Proxy;
use crate::run::Run;
use crate::sys;

/// Of a user that is in no other group than `docker`, and in no file of the machine.
const USER: u32 = 7001;

/// Where images of virtual machines are kept from one run of the stories to the next.
const IMAGES: &str = "/var/cache/navvy-images";
/// An emulated processor that several stories share takes its time.
const SMALL_MACHINES: &str = "[vm]\naccelerator = 'tcg'\nsnapshots = 'off'\ncpus = 1\nmemory = '640M'\n";

/// As whom and on which engine a story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// As whoever runs the stories, on the machine's engine.
    Plain,
    /// As a user in group `docker`.
    User,
    /// Over TCP, on an engine that sees none of the agent's files.
    FarEngine,
}

impl Setting {
    fn asked() -> Self {
        match std::env::var("NAVVY_STORIES_AS").as_deref() {
            Ok("user") => Self::User,
            Ok("far-engine") => Self::FarEngine,
            Ok(other) => panic!("NAVVY_STORIES_AS={other}: user or far-engine is understood"),
            Err(_) => Self::Plain,
        }
    }
}

/// A project with a git repository, and around it a home, state and runtime directories of its own.
#[derive(Debug)]
pub struct Bench {
    root: TempDir,
    /// `$XDG_RUNTIME_DIR`
    runtime: PathBuf,
    as_user: bool,
    docker: Docker,
    variables: Vec<(String, String)>,
    // Before the engine: connections end before what they lead to.
    _proxy: Option<Proxy>,
    engine: Option<Arc<PrivateEngine>>,
}

impl Bench {
    /// In the plain setting, or where `NAVVY_STORIES_AS` says: `user`, `far-engine`.
    #[track_caller]
    pub fn new() -> Self {
        Self::of(Setting::asked())
    }

    #[track_caller]
    pub fn of(setting: Setting) -> Self {
        let bench = Self::bare(setting == Setting::User);
        match setting {
            Setting::Plain => bench,
            Setting::User => {
                assert!(sys::is_root(), "only root can become another user: run the stories as root");
                bench
            }
            Setting::FarEngine => {
                let engine = PrivateEngine::far();
                let proxy = Proxy::to(engine.socket());
                bench.on(engine.docker(), &proxy.address()).keeping(Some(proxy), Some(engine))
            }
        }
    }

    /// With the images of virtual machines that `scripts/vm-image` keeps on this machine, and machines that are small and emulated.
    #[track_caller]
    pub fn with_machines() -> Self {
        let images = Path::new(IMAGES);
        assert!(images.join("debian-12-docker").is_dir(), "no images in {IMAGES}: `scripts/vm-image` makes them");
        let bench = Self::on_this_machine().env("NAVVY_IMAGES", IMAGES);
        bench.config_file("navvy/settings.toml", SMALL_MACHINES);
        bench
    }

    /// Its commands have a user's rights, not root's.
    pub fn is_of_a_user(&self) -> bool {
        self.as_user
    }

    /// Whose rights its commands have, if not root's.
    pub fn user(&self) -> Option<u32> {
        self.as_user.then_some(USER)
    }

    /// By root on the machine's own engine, wherever other stories are told: for those about finding it.
    #[track_caller]
    pub fn on_this_machine() -> Self {
        Self::of(Setting::Plain)
    }

    fn bare(as_user: bool) -> Self {
        let root = tempfile::Builder::new().prefix("navvy-").tempdir().expect("a temporary directory can be made");
        for name in ["project", "home", "state", "run", "config"] {
            let path = root.path().join(name);
            fs::create_dir(&path).expect("a directory can be made");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode can be set");
        }
        let runtime = root.path().join("run");
        let bench = Self {
            root,
            runtime,
            as_user,
            docker: Docker::default(),
            variables: Vec::new(),
            _proxy: None,
            engine: None,
        };
        bench.git(&["init", "--quiet", "--initial-branch=main"]).succeeded();
        bench
    }

    /// Lets runs use that engine by way of `address`.
    #[must_use]
    pub fn on(mut self, docker: Docker, address: &str) -> Self {
        self.docker = docker;
        self.env("DOCKER_HOST", address)
    }

    fn keeping(mut self, proxy: Option<Proxy>, engine: Option<Arc<PrivateEngine>>) -> Self {
        (self._proxy, self.engine) = (proxy, engine);
        self
    }

    /// Lets runs use a near engine at an address that leads to it, and share their sockets with it as they do with the
    /// machine's own.
    #[must_use]
    #[track_caller]
    pub fn beside(self, engine: &PrivateEngine, address: &str) -> Self {
        let mut bench = self.on(engine.docker(), address);
        bench.runtime = engine.sockets().expect("the engine is near").to_owned();
        bench
    }

    /// A variable of the programs under test.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes `.circleci/config.yml`.
    #[track_caller]
    pub fn config(&self, yaml: &str) -> &Self {
        self.file(".circleci/config.yml", yaml)
    }

    /// Writes a file of the project.
    #[track_caller]
    pub fn file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> &Self {
        write(&self.project().join(path), bytes.as_ref());
        self
    }

    /// Writes a file of the home directory.
    #[track_caller]
    pub fn home_file(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        write(&self.root.path().join("home").join(path), bytes.as_ref());
        self
    }

    /// Writes a file of `$XDG_CONFIG_HOME`.
    #[track_caller]
    pub fn config_file(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        write(&self.root.path().join("config").join(path), bytes.as_ref());
        self
    }

    /// Commits everything that is not ignored.
    #[track_caller]
    pub fn commit(&self, message: &str) -> &Self {
        self.git(&["add", "--all"]).succeeded();
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]).succeeded();
        self
    }

    /// The user's settings.
    pub fn settings_file(&self) -> PathBuf {
        self.root.path().join("config/navvy/settings.toml")
    }

    /// Asks git about the project.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> Answer {
        let settings =
            ["safe.directory=*", "user.name=Story", "user.email=story@example.invalid", "commit.gpgsign=false"];
        Program::new("git")
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .args(args)
            .directory(&self.project())
            .env("HOME", self.root.path().join("home"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .run()
    }

    pub fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// `$HOME`
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// `$XDG_STATE_HOME`
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Does the engine see this machine's files and network?
    pub fn is_near(&self) -> bool {
        self.engine.is_none()
    }

    /// The network of the engine, where what a story starts for it must be.
    pub fn network(&self) -> Network {
        Network(self.engine.clone())
    }

    /// What is left of tasks that have ended.
    #[track_caller]
    pub fn left_of(&self, tasks: &[String]) -> Vec<String> {
        leaks::of(self, tasks)
    }

    /// What runs that are over, however they ended, must not have left in this bench's own directories: sockets, marks,
    /// journals, unfinished files, and processes that have them in their environment.
    pub fn left_of_runs(&self) -> Vec<String> {
        leaks::on_host(self)
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Directories below which a run may make one for its sockets.
    pub(crate) fn socket_places(&self) -> Vec<PathBuf> {
        vec![self.runtime.clone(), PathBuf::from("/run")]
    }

    /// `$XDG_RUNTIME_DIR`
    pub fn runtime(&self) -> PathBuf {
        self.runtime.clone()
    }

    /// Starts `navvy` with these words, `--json` among them.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Run<'_> {
        Run::start(self, self.command(args), true)
    }

    /// Starts `navvy run --json` with these words.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run<'_> {
        Run::start(self, self.command(&[&["run", "--json"], args].concat()), true)
    }

    /// Starts `navvy run` with these words, as a person sees it; its events are read from its record.
    #[track_caller]
    pub fn run_for_people(&self, args: &[&str]) -> Run<'_> {
        Run::start(self, self.command(&[&["run"], args].concat()), false)
    }

    /// Runs `navvy run` with these words to its end on a terminal; its standard output is all that the terminal got.
    #[track_caller]
    pub fn run_on_a_terminal(&self, args: &[&str]) -> Finished {
        let inner = self.command(&[&["run"], args].concat());
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let line: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &line.join(" "), "/dev/null"]);
        command.current_dir(self.project()).env_clear().env("TERM", "xterm-256color");
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Run::start(self, command, false).finish()
    }

    /// Runs `navvy run --json` with these words to its end; its standard error takes nothing, as on a full disk.
    #[track_caller]
    pub fn run_with_full_stderr(&self, args: &[&str]) -> Finished {
        self.run_with_stderr(args, Path::new("/dev/full")).finish()
    }

    /// Starts `navvy run --json` with these words and this standard error.
    #[track_caller]
    pub fn run_with_stderr(&self, args: &[&str], stderr: &Path) -> Run<'_> {
        let inner = self.command(&[&["run", "--json"], args].concat());
        let mut command = Command::new("sh");
        command.args(["-c", "exec 2>\"$0\"; exec \"$@\""]).arg(stderr).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(self.project()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Run::start(self, command, true)
    }

    /// Runs `navvy` with these words to its end.
    #[track_caller]
    pub fn navvy(&self, args: &[&str]) -> Finished {
        Run::start(self, self.command(args), false).finish()
    }

    /// The same beside tasks that are held: nothing is looked for.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Finished {
        Run::start(self, self.command(args), false).that_leaves_things().finish()
    }

    /// Runs `navvy` with these words and this standard input.
    #[track_caller]
    pub fn piped(&self, args: &[&str], input: &str) -> Answer {
        self.program(args).input(input).run()
    }

    /// `navvy` with these words, in the project, for whoever wants to start it in another way.
    #[track_caller]
    pub fn program(&self, args: &[&str]) -> Program {
        let command = self.command(args);
        let mut program = Program::new(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            program = program.env(&name.to_string_lossy(), value.unwrap_or_default());
        }
        program.directory(&self.project())
    }

    /// Runs `navvy` with these words on a terminal of its own, where `typed` is typed. What the terminal showed is its
    /// standard output.
    #[track_caller]
    pub fn on_terminal(&self, args: &[&str], typed: &str) -> Answer {
        let command = self.command(args);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
            .collect();
        let mut program = Program::new("script").args(["-qefc", &words.join(" "), "/dev/null"]);
        for (name, value) in command.get_envs() {
            program = program.env(&name.to_string_lossy(), value.unwrap_or_default());
        }
        program.env("TERM", "xterm").env("SHELL", "/bin/sh").directory(&self.project()).input(typed).run()
    }

    /// Writes a config and runs it to its end.
    #[track_caller]
    pub fn run_config(&self, yaml: &str, args: &[&str]) -> Finished {
        self.config(yaml).run(args).finish()
    }

    /// `navvy` with these words, in the project, as whoever this bench's commands are.
    pub fn command_of(&self, args: &[&str]) -> Command {
        self.command(args)
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = navvy();
        let mut command = if self.as_user {
            self.give_to_user();
            let user = USER.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--groups", "docker"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .args(args)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", path)
            .env("LANG", "C.UTF-8")
            .env("HOME", self.root.path().join("home"))
            .env("XDG_STATE_HOME", self.state())
            .env("XDG_CONFIG_HOME", self.root.path().join("config"))
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn give_to_user(&self) {
        let owner = format!("{USER}:{USER}");
        Program::new("chown").args([OsStr::new("-hR"), owner.as_ref(), self.root.path().as_os_str()]).run().succeeded();
        chown(self.root.path(), Some(USER), Some(USER)).expect("root may give files away");
    }
}

/// A story that fails leaves what it was at: a machine that is held for hours, say.
impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would hide the first one.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_tasks())).ok();
        }
    }
}

impl Bench {
    /// Removes all tasks that are this bench's own, whatever their state.
    fn remove_tasks(&self) {
        let marks = fs::read_dir(self.runtime.join("navvy")).into_iter().flatten().flatten();
        let names = marks.filter_map(|mark| mark.file_name().into_string().ok());
        let tasks: Vec<String> = names.filter_map(|name| name.strip_suffix(".owner").map(str::to_owned)).collect();
        if tasks.is_empty() {
            return;
        }
        let words: Vec<&str> = ["rm", "--force"].into_iter().chain(tasks.iter().map(String::as_str)).collect();
        let answer = self.program(&words).run();
        let told =
            format!("--- left by the story, and removed: {}\n{}{}", tasks.join(", "), answer.stdout(), answer.stderr);
        std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).ok();
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

#[track_caller]
fn write(path: &Path, bytes: &[u8]) {
    let parent = path.parent().expect("a file is in a directory");
    fs::create_dir_all(parent).expect("a directory can be made");
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The program under test: what `scripts/build` has made.
fn navvy() -> PathBuf {
    program_of_ours("navvy")
}

/// A program of ours by its name, as `scripts/build` has made it.
pub fn program_of_ours(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bin").join(name);
    path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}; run scripts/build", path.display()))
}
