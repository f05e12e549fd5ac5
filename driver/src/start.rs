//! From what Nomad asks for to a task with its directory, cgroup and token. Whatever fails, nothing is left of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use navvy_cgroup::Limits;
use navvy_job::resource::Size;
use navvy_job::scheduled::{Host, VERSION};
use navvy_journal::owner::Owner;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;

use crate::agent::{self, AgentError};
use crate::cgroup::{self, CgroupError, Mounts, Share};
use crate::config::{PluginConfig, TaskConfig};
use crate::directory::{Directory, Record, make_private};
use crate::log::warning;
use crate::node::Node;
use crate::proto::hashicorp::nomad::plugins::drivers::proto as nomad;
use crate::task::{boot, now_ms};

/// A token is never longer.
const LONGEST_TOKEN: u64 = 4096;

/// Why a task does not start, in words for `nomad alloc status`.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The job's or the plugin's configuration.
    #[error("{0}")]
    Config(String),
    /// The program.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The token.
    #[error("the launch token could not be read from {path}: {why}. A job gets it there by a dispatch payload (dispatch_payload {{ file = \"token\" }}) or by a template",
        path = .path.display())]
    Token {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        why: String,
    },
    /// Limits.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Files.
    #[error("{what} could not be written: {source}")]
    Files {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// A task that is about to start.
pub struct Wanted<'a> {
    /// As Nomad says it.
    pub nomad: &'a nomad::TaskConfig,
    /// As the job says it.
    pub task: TaskConfig,
    /// The processor's address.
    pub processor: String,
    /// What it may use.
    pub size: Size,
}

impl<'a> Wanted<'a> {
    /// Checks what Nomad asks for against what this client allows.
    ///
    /// # Errors
    /// All that is wrong with the job's configuration, or what this client does not have.
    pub fn of(nomad: &'a nomad::TaskConfig, config: &PluginConfig, node: Node) -> Result<Self, StartError> {
        let task = TaskConfig::read(&nomad.msgpack_driver_config)
            .map_err(|errors| StartError::Config(format!("the task's configuration is wrong: {errors}")))?;
        if !config.environments.contains(&task.environment) {
            return Err(StartError::Config(format!(
                "environment {:?} is not to be had on this client; its driver allows {}",
                task.environment,
                config.environments.join(", ")
            )));
        }
        let Some(processor) = task.processor.clone().or_else(|| config.processor.clone()) else {
            return Err(StartError::Config(
                "no processor is named: set `processor` in the task's configuration, or in the plugin's".to_owned(),
            ));
        };
        let size = size(nomad, node)?;
        Ok(Self { nomad, task, processor, size })
    }

    /// Makes everything that an agent needs to begin.
    ///
    /// # Errors
    /// One of them cannot be made. Nothing is left.
    pub fn prepare(
        &self,
        config: &PluginConfig,
        variables: &BTreeMap<String, String>,
    ) -> Result<(Directory, Record), StartError> {
        let agent_path = agent::find(config, variables)?;
        let token = self.token()?;
        let directory = Directory::of(&config.state_dir, &self.nomad.id);
        directory.make().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => {
                StartError::Config(format!("a task with the id {} has begun before", self.nomad.id))
            }
            _ => files(&directory.path().display().to_string(), source),
        })?;
        let mut made = cgroup::Made::default();
        let prepared = self.make_cgroup(config).and_then(|cgroup| {
            made = cgroup;
            self.write(&directory, config, &token, self.record(config, variables, &agent_path, &made)?)
        });
        if prepared.is_err() {
            navvy_cgroup::remove(&made.directories);
            let _told_by_the_error = directory.remove();
        }
        let record = prepared?;
        // It is to lie in the claim now, and nowhere else.
        if let Err(error) = self.remove_token() {
            warning!("The launch token's file {} could not be removed: {error}", self.token_path().display());
        }
        Ok((directory, record))
    }

    fn make_cgroup(&self, config: &PluginConfig) -> Result<cgroup::Made, StartError> {
        let linux = self.nomad.resources.as_ref().and_then(|resources| resources.linux_resources.as_ref());
        let (prepared, cores) = linux.map_or(("", ""), |linux| (&*linux.cpuset_cgroup, &*linux.cpuset_cpus));
        let mounts = Mounts::here().map_err(|source| CgroupError::Mounts { source })?;
        let own = format!("{}.{}", self.nomad.alloc_id, self.nomad.name);
        let own: String = own.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
        let name = mounts.name(prepared, config.cgroup_parent.as_deref(), &own);
        // Cgroups are root's: without it the task's containers have their limits each. Root without any would give the task none at all.
        let is_root = rustix::process::geteuid().is_root();
        if is_root && mounts == Mounts::None {
            let why =
                "this machine has no cgroups mounted below /sys/fs/cgroup: nothing would hold the task to its size";
            return Err(StartError::Config(why.to_owned()));
        }
        let name = name.filter(|_| is_root);
        let limits = Limits { size: self.size, pids: self.task.pids };
        Ok(mounts.make(name, &Share { limits, cores: cores.to_owned() })?)
    }

    fn record(
        &self,
        config: &PluginConfig,
        variables: &BTreeMap<String, String>,
        agent_path: &Path,
        cgroup: &cgroup::Made,
    ) -> Result<Record, StartError> {
        Ok(Record {
            version: Record::VERSION,
            id: self.nomad.id.clone(),
            alloc_id: self.nomad.alloc_id.clone(),
            name: self.nomad.name.clone(),
            task: self.task.task.clone(),
            size: self.size,
            pipes: [&self.nomad.stdout_path, &self.nomad.stderr_path].map(PathBuf::from),
            plugin: Owner::this_process().map_err(|source| files("the task's record", source))?,
            agent_path: agent_path.to_owned(),
            environment: agent::environment(config, variables),
            agent: None,
            cgroup: cgroup.name.clone(),
            cgroup_directories: cgroup.directories.clone(),
            boot: boot().map_err(|source| files("the task's record", source))?,
            started_ms: now_ms(),
            is_stopping: false,
            restarts: 0,
            ended: None,
        })
    }

    fn write(
        &self,
        directory: &Directory,
        config: &PluginConfig,
        token: &str,
        record: Record,
    ) -> Result<Record, StartError> {
        let home = config.state_dir.join("agent");
        make_private(&home).map_err(|source| files(&home.display().to_string(), source))?;
        let pipe = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let host = Host {
            version: VERSION,
            processor: self.processor.clone(),
            processor_ca: config.processor_ca.clone(),
            task: self.task.task.clone(),
            cgroup: record.cgroup.clone(),
            size: Some(self.size),
            pids: self.task.pids,
            stdout: pipe(&self.nomad.stdout_path).filter(|_| self.task.output),
            stderr: pipe(&self.nomad.stderr_path),
            environment: self.task.environment.clone(),
        };
        let put = directory
            .put_record(&record)
            .and_then(|()| directory.put_host(&host))
            .and_then(|()| directory.put_claim(&self.processor, &self.task.task, token));
        put.map_err(|source| files("the task's files", source))?;
        Ok(record)
    }

    fn token_path(&self) -> PathBuf {
        Path::new(&self.nomad.alloc_dir).join(&self.nomad.name).join(&self.task.token_file)
    }

    /// Opens what lies in the Nomad task's directory: a link could lead anywhere.
    fn inside(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let directory = Path::new(&self.nomad.alloc_dir).join(&self.nomad.name);
        let root = openat(CWD, &directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn remove_token(&self) -> io::Result<()> {
        let path = &self.task.token_file;
        let (Some(name), parent) = (path.file_name(), path.parent()) else { return Ok(()) };
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = self.inside(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(unlinkat(&directory, name, AtFlags::empty())?)
    }

    /// The token. What a link leads to would be sent to the processor.
    fn token(&self) -> Result<String, StartError> {
        let fault = |why: String| StartError::Token { path: self.token_path(), why };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.inside(&self.task.token_file, flags).map_err(|error| match error {
            Errno::LOOP => fault("it is a symbolic link, which is not followed".to_owned()),
            error => fault(io::Error::from(error).to_string()),
        })?;
        let file = navvy_plain_file::regular(File::from(file)).map_err(|error| fault(error.to_string()))?;
        let mut text = String::new();
        file.take(LONGEST_TOKEN + 1).read_to_string(&mut text).map_err(|error| fault(error.to_string()))?;
        let token = text.trim();
        let is_word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_word && text.len() as u64 <= LONGEST_TOKEN {
            true => Ok(token.to_owned()),
            false => Err(fault("it is not one line of text without spaces".to_owned())),
        }
    }
}

fn files(what: &str, source: io::Error) -> StartError {
    StartError::Files { what: what.to_owned(), source }
}

/// What Nomad has given the task. A task without CPUs or memory of its own would have no limits at all.
fn size(nomad: &nomad::TaskConfig, node: Node) -> Result<Size, StartError> {
    let resources = nomad.resources.as_ref();
    let millicpus = resources.map_or(0, |resources| node.millicpus(resources));
    let limit = resources.and_then(|r| r.linux_resources.as_ref()).map_or(0, |linux| linux.memory_limit_bytes);
    let allocated = resources.and_then(|r| r.allocated_resources.as_ref()).and_then(|all| all.memory);
    let allocated = allocated.map_or(0, |memory| memory.memory_mb.max(memory.memory_max_mb).saturating_mul(1 << 20));
    let memory = u64::try_from(limit.max(allocated)).unwrap_or(0);
    match millicpus > 0 && memory > 0 {
        true => Ok(Size { millicpus, memory }),
        false => {
            Err(StartError::Config("Nomad gives the task no CPU or no memory: set both in its `resources`".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rmpv::Value;

    use super::*;
    use crate::testing::{packed, remove_cgroup};

    struct Scene {
        place: tempfile::TempDir,
        config: PluginConfig,
        nomad: nomad::TaskConfig,
    }

    fn scene(driver_config: &[(&str, Value)]) -> Scene {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("alloc/agent/local")).unwrap();
        std::fs::write(place.path().join("alloc/agent/local/token"), "hunter2\n").unwrap();
        let config = PluginConfig {
            agent_path: Some("/bin/true".into()),
            state_dir: place.path().join("state"),
            processor: Some("http://127.0.0.1:1".to_owned()),
            cgroup_parent: Some(format!("/navvy-driver-test{}", place.path().file_name().unwrap().to_str().unwrap())),
            ..PluginConfig::default()
        };
        let nomad = nomad::TaskConfig {
            id: "a/agent/1".to_owned(),
            name: "agent".to_owned(),
            alloc_id: format!("a{:?}", std::thread::current().id()),
            alloc_dir: place.path().join("alloc").display().to_string(),
            msgpack_driver_config: packed(driver_config),
            resources: Some(nomad::Resources {
                allocated_resources: Some(nomad::AllocatedTaskResources {
                    cpu: Some(nomad::AllocatedCpuResources { cpu_shares: 1000 }),
                    memory: Some(nomad::AllocatedMemoryResources { memory_mb: 256, memory_max_mb: 0 }),
                    networks: Vec::new(),
                }),
                ..nomad::Resources::default()
            }),
            ..nomad::TaskConfig::default()
        };
        Scene { place, config, nomad }
    }

    fn node() -> Node {
        Node { cores: 2, compute: 2000.0, is_told: true }
    }

    const TASK: (&str, &str) = ("task", "0123456789abcdef");

    impl Drop for Scene {
        fn drop(&mut self) {
            remove_cgroup(self.config.cgroup_parent.as_ref().unwrap());
        }
    }

    impl Scene {
        fn prepare(&self) -> Result<(Directory, Record), StartError> {
            Wanted::of(&self.nomad, &self.config, node())?.prepare(&self.config, &BTreeMap::new())
        }
    }

    #[test]
    fn a_task_has_its_files_and_its_token_is_in_the_claim_alone() {
        let scene = scene(&[(TASK.0, Value::from(TASK.1))]);
        let (directory, record) = scene.prepare().unwrap_or_else(|error| panic!("{error}"));
        let text = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(text("claim.json").contains("hunter2"));
        assert!(!text("host.json").contains("hunter2") && !text("driver.json").contains("hunter2"));
        assert!(!scene.place.path().join("alloc/agent/local/token").exists());
        assert_eq!(directory.record().unwrap(), record);
        assert_eq!(record.size, Size { millicpus: 1000, memory: 256 << 20 });
        assert!(scene.prepare().unwrap_err().to_string().contains("token"), "it was taken");
    }

    #[test]
    fn what_is_wrong_is_named_and_leaves_nothing() {
        let told = |scene: &Scene, told: &str| {
            let error = scene.prepare().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hunter2"), "{told}: {error}");
            assert!(!scene.config.state_dir.join("tasks").read_dir().is_ok_and(|mut left| left.next().is_some()));
        };
        let good = [(TASK.0, Value::from(TASK.1))];
        told(&scene(&[(TASK.0, Value::from("x"))]), "task is no id");
        told(&scene(&[(TASK.0, Value::from(TASK.1)), ("environment", Value::from("vm"))]), "\"vm\" is not to be had");
        let mut alone = scene(&good);
        alone.config.processor = None;
        told(&alone, "no processor is named");
        let mut missing = scene(&good);
        missing.config.agent_path = Some("/nowhere".into());
        told(&missing, "/nowhere is no program");
        let mut poor = scene(&good);
        poor.nomad.resources = None;
        told(&poor, "no CPU or no memory");
        let link = scene(&good);
        let token = link.place.path().join("alloc/agent/local/token");
        std::fs::remove_file(&token).unwrap();
        told(&link, "local/token: No such file");
        symlink("/etc/hostname", &token).unwrap();
        told(&link, "a symbolic link");
        let parent = scene(&good);
        std::fs::remove_dir_all(parent.place.path().join("alloc/agent/local")).unwrap();
        symlink("/etc", parent.place.path().join("alloc/agent/local")).unwrap();
        told(&parent, "a symbolic link");
        let words = scene(&good);
        std::fs::write(words.place.path().join("alloc/agent/local/token"), "two words").unwrap();
        told(&words, "one line of text");
    }
}
