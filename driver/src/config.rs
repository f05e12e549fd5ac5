//! What operators and jobs set, read from the msgpack that Nomad made of their HCL. All that is wrong is said at once, each with its
//! key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use navvy_job::figures::read_size;
use navvy_job::reservation::Reservation;
use navvy_job::resource::Size;
use rmpv::Value;

use crate::log::Level;
use crate::schema;

/// Where the dispatch payload lies, in the Nomad task's directory.
pub const DEFAULT_TOKEN_FILE: &str = "local/token";
/// The kind of environment of a task that names none.
pub const DEFAULT_ENVIRONMENT: &str = "docker";
const DEFAULT_STATE_DIR: &str = "/var/lib/navvy/driver";
/// Kinds of environments that this driver knows.
pub const ENVIRONMENTS: [&str; 2] = ["docker", "vm"];

/// What is wrong, a sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ConfigErrors(pub Vec<String>);

/// `plugin "navvy-driver" { config { … } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// The program `navvy`. `None`: beside the plugin, else in the search path.
    pub agent_path: Option<PathBuf>,
    /// Where tasks' files lie. Kept over reboots.
    pub state_dir: PathBuf,
    /// The processor's address, unless a task names another one.
    pub processor: Option<String>,
    /// Authority of its certificate.
    pub processor_ca: Option<PathBuf>,
    /// What is never given to tasks.
    pub reserve: Reservation,
    /// Kinds of environments that tasks may have.
    pub environments: Vec<String>,
    /// Tasks' cgroups lie below this one, instead of Nomad's own.
    pub cgroup_parent: Option<String>,
    /// The engine's address, as in `DOCKER_HOST`. `None`: that of Nomad's own environment, else the machine's usual socket.
    pub docker: Option<String>,
    /// How much is logged.
    pub log_level: Level,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            agent_path: None,
            state_dir: PathBuf::from(DEFAULT_STATE_DIR),
            processor: None,
            processor_ca: None,
            reserve: Reservation::default(),
            environments: vec![DEFAULT_ENVIRONMENT.to_owned()],
            cgroup_parent: None,
            docker: None,
            log_level: Level::Info,
        }
    }
}

/// A task's `config { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskConfig {
    /// The processor's address, if the job says it.
    pub processor: Option<String>,
    /// The processor's id of the task.
    pub task: String,
    /// Relative to the Nomad task's directory.
    pub token_file: PathBuf,
    /// The kind of environment.
    pub environment: String,
    /// Most processes and threads.
    pub pids: Option<u32>,
    /// Steps' output goes to Nomad's stdout.
    pub output: bool,
}

impl PluginConfig {
    /// Reads the plugin's configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(msgpack: &[u8]) -> Result<Self, ConfigErrors> {
        let mut keys = Keys::of(msgpack, "the plugin's configuration", &schema::PLUGIN_KEYS)?;
        let default = Self::default();
        let level = keys.text("log_level");
        let config = Self {
            agent_path: keys.absolute("agent_path"),
            state_dir: keys.absolute("state_dir").unwrap_or(default.state_dir),
            processor: keys.text("processor"),
            processor_ca: keys.absolute("processor_ca"),
            reserve: keys.reserve(),
            environments: keys.environments().unwrap_or(default.environments),
            cgroup_parent: keys.cgroup(),
            docker: keys.text("docker"),
            log_level: level.map_or(Some(Level::Info), |word| Level::from_word(&word)).unwrap_or_else(|| {
                keys.wrong("log_level", "is none of trace, debug, info, warn and error");
                Level::Info
            }),
        };
        keys.finish(config)
    }
}

impl TaskConfig {
    /// Reads a task's configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(msgpack: &[u8]) -> Result<Self, ConfigErrors> {
        let known = ["task", "processor", "token_file", "environment", "pids", "output"];
        let mut keys = Keys::of(msgpack, "the task's configuration", &known)?;
        let task = keys.text("task").unwrap_or_default();
        if !is_id(&task) {
            keys.wrong("task", "is no id of a task, as the processor gives them: 0123456789abcdef");
        }
        let config = Self {
            processor: keys.text("processor"),
            task,
            token_file: keys.inner("token_file").unwrap_or_else(|| DEFAULT_TOKEN_FILE.into()),
            environment: keys.text("environment").unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned()),
            pids: keys.whole("pids"),
            output: keys.boolean("output"),
        };
        keys.finish(config)
    }
}

fn is_id(text: &str) -> bool {
    text.parse::<navvy_job::id::TaskId>().is_ok()
}

/// A map's values by key, and what is wrong with them.
struct Keys {
    values: BTreeMap<String, Value>,
    errors: Vec<String>,
}

impl Keys {
    fn of(msgpack: &[u8], what: &str, known: &[&str]) -> Result<Self, ConfigErrors> {
        let unreadable = |why: String| ConfigErrors(vec![format!("{what} could not be read: {why}")]);
        if msgpack.is_empty() {
            return Ok(Self { values: BTreeMap::new(), errors: Vec::new() });
        }
        let mut rest = msgpack;
        let value = rmpv::decode::read_value(&mut rest).map_err(|error| unreadable(error.to_string()))?;
        let pairs = match value {
            Value::Nil => Vec::new(),
            Value::Map(pairs) => pairs,
            _ => return Err(unreadable("it is no map".to_owned())),
        };
        let mut keys = Self { values: BTreeMap::new(), errors: Vec::new() };
        for (key, value) in pairs {
            match key.as_str() {
                Some(name) if known.contains(&name) => drop(keys.values.insert(name.to_owned(), value)),
                // Of another version's schema: what it would limit is not passed over.
                _ => keys.errors.push(format!("{key} is no key of {what}")),
            }
        }
        Ok(keys)
    }

    fn finish<T>(self, made: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(made) } else { Err(ConfigErrors(self.errors)) }
    }

    fn wrong(&mut self, key: &str, why: &str) {
        self.errors.push(format!("{key} {why}"));
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.values.remove(key).filter(|value| !value.is_nil())
    }

    /// `None`: not set, or wrong. An empty text is not set.
    fn text(&mut self, key: &str) -> Option<String> {
        let value = self.take(key)?;
        match value.as_str() {
            Some(text) => Some(text.to_owned()).filter(|text| !text.is_empty()),
            None => {
                self.wrong(key, "is no text");
                None
            }
        }
    }

    fn boolean(&mut self, key: &str) -> bool {
        match self.take(key) {
            None => false,
            Some(Value::Boolean(is_so)) => is_so,
            Some(_) => {
                self.wrong(key, "is neither true nor false");
                false
            }
        }
    }

    fn absolute(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        if !path.is_absolute() {
            self.wrong(key, "is no absolute path");
            return None;
        }
        Some(path)
    }

    /// A path that stays in the directory that it is relative to.
    fn inner(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        let stays = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !stays {
            self.wrong(key, "is no path inside the Nomad task's directory, such as local/token or secrets/token");
            return None;
        }
        Some(path)
    }

    fn whole(&mut self, key: &str) -> Option<u32> {
        let value = self.take(key)?;
        let number =
            number(&value).filter(|number| number.fract() == 0.0 && *number >= 1.0 && *number <= f64::from(u32::MAX));
        if number.is_none() {
            self.wrong(key, "is no whole number above 0");
        }
        number.map(|number| number as u32)
    }

    fn environments(&mut self) -> Option<Vec<String>> {
        let value = self.take("environments")?;
        let names: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            self.wrong("environments", "is no list of names, such as [\"docker\"]");
            return None;
        };
        for name in &names {
            if !ENVIRONMENTS.contains(&name.as_str()) {
                self.wrong("environments", &format!("names {name:?}; this version knows {}", ENVIRONMENTS.join(", ")));
            }
        }
        Some(names)
    }

    fn cgroup(&mut self) -> Option<String> {
        let parent = self.text("cgroup_parent")?;
        let parts: Vec<_> = Path::new(parent.trim_matches('/')).components().collect();
        let are_plain = parts.iter().all(|part| matches!(part, std::path::Component::Normal(_)));
        // Deeper down a reaper would not find what a task has left.
        if !are_plain || !(1..=2).contains(&parts.len()) {
            self.wrong("cgroup_parent", "is no path of one or two names, such as /ci or /ci/tasks");
            return None;
        }
        Some(format!("/{}", parts.iter().collect::<PathBuf>().display()))
    }

    /// HCL's blocks arrive as a list of maps, an object as a map.
    fn reserve(&mut self) -> Reservation {
        let mut reserved = Reservation::default().0;
        let maps = match self.take("reserve") {
            None => return Reservation(reserved),
            Some(Value::Array(maps)) => maps,
            Some(map) => vec![map],
        };
        for map in maps {
            let Value::Map(pairs) = map else {
                self.wrong("reserve", "is no block: reserve { cpus = 2, memory = \"4GiB\" }");
                continue;
            };
            for (key, value) in pairs {
                self.reserve_one(&mut reserved, key.as_str().unwrap_or_default(), &value);
            }
        }
        Reservation(reserved)
    }

    fn reserve_one(&mut self, reserved: &mut Size, key: &str, value: &Value) {
        match key {
            _ if value.is_nil() => {}
            "cpus" => match number(value).filter(|cpus| (0.0..=65_536.0).contains(cpus)) {
                Some(cpus) => reserved.millicpus = (cpus * 1000.0).round() as u64,
                None => self.wrong("reserve.cpus", "is no number of CPUs, such as 2 or 0.5"),
            },
            "memory" => {
                // A number alone would be bytes, and whoever writes 4096 means MiB: next to nothing would be kept.
                let has_unit =
                    |text: &&str| text.trim() == "0" || text.ends_with(|last: char| last.is_ascii_alphabetic());
                match value.as_str().filter(has_unit).and_then(|text| read_size(text).ok()) {
                    Some(memory) => reserved.memory = memory,
                    None => self.wrong(
                        "reserve.memory",
                        "is no amount of memory with its unit, such as \"4GiB\" or \"512MiB\"",
                    ),
                }
            }
            other => self.wrong("reserve", &format!("has no key {other:?}; it has cpus and memory")),
        }
    }
}

/// Nomad writes what is no whole number and no exact float as a text.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{map, packed};

    #[test]
    fn without_a_configuration_everything_has_its_default() {
        let nothing = PluginConfig::read(&[]).unwrap();
        assert_eq!(nothing, PluginConfig::default());
        let nils: Vec<_> = schema::PLUGIN_KEYS.iter().map(|key| (*key, Value::Nil)).collect();
        assert_eq!(PluginConfig::read(&packed(&nils)).unwrap(), nothing);
        assert_eq!(nothing.reserve.0, Size::new(2, 4));
    }

    #[test]
    fn a_reservation_comes_as_block_or_object_and_with_numbers_as_texts() {
        let of = |reserve: Value| PluginConfig::read(&packed(&[("reserve", reserve)])).map(|config| config.reserve.0);
        // As `navvy host nomad-config` writes them: every thousandth is what Nomad reserves, too.
        for millis in 0..10_000_u64 {
            let text = navvy_job::figures::cpus(millis);
            let as_number = Value::from(text.parse::<f64>().unwrap());
            for value in [as_number, Value::from(text.as_str())] {
                assert_eq!(of(map(&[("cpus", value)])).unwrap().millicpus, millis, "{text}");
            }
        }
        let block = Value::Array(vec![map(&[("cpus", Value::from("0.1")), ("memory", Value::from("512MiB"))])]);
        assert_eq!(of(block).unwrap(), Size { millicpus: 100, memory: 512 << 20 });
        assert_eq!(of(map(&[("cpus", Value::from(0))])).unwrap(), Size { millicpus: 0, memory: 4 << 30 });
        for (wrong, told) in [
            (map(&[("cpus", Value::from(-1))]), "reserve.cpus"),
            (map(&[("cpus", Value::from("NaN"))]), "reserve.cpus"),
            (map(&[("cpu", Value::from(1))]), "no key \"cpu\""),
            (map(&[("memory", Value::from("four"))]), "reserve.memory"),
            (map(&[("memory", Value::from(4096))]), "with its unit"),
            (map(&[("memory", Value::from("4096"))]), "with its unit"),
            (Value::from(2), "no block"),
        ] {
            let error = of(wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_plugin_is_said_at_once() {
        let wrong = packed(&[
            ("agent_path", Value::from("navvy")),
            ("state_dir", Value::from(7)),
            ("environments", Value::Array(vec![Value::from("jail")])),
            ("log_level", Value::from("loud")),
            ("cgroup_parent", Value::from("/../x")),
            ("colour", Value::from("red")),
        ]);
        let errors = PluginConfig::read(&wrong).unwrap_err().0.join("\n");
        for told in ["agent_path", "state_dir", "\"jail\"", "log_level", "cgroup_parent", "\"colour\" is no key"] {
            assert!(errors.contains(told), "{told}: {errors}");
        }
        let parent = |path: &str| PluginConfig::read(&packed(&[("cgroup_parent", Value::from(path))]));
        assert_eq!(parent("/ci//tasks/").unwrap().cgroup_parent.as_deref(), Some("/ci/tasks"));
        for wrong in ["/", "//", "/a/b/c", "/a/../b", "."] {
            assert!(parent(wrong).is_err(), "{wrong}");
        }
        assert!(PluginConfig::read(&[0x93]).is_err(), "cut off");
        assert!(PluginConfig::read(&[0x05]).is_err(), "no map");
    }

    #[test]
    fn a_task_names_its_task_and_stays_in_its_directory() {
        let good = packed(&[
            ("task", Value::from("0123456789abcdef")),
            ("pids", Value::from(100)),
            ("output", Value::from(true)),
        ]);
        let config = TaskConfig::read(&good).unwrap();
        assert_eq!((config.pids, config.output, config.environment.as_str()), (Some(100), true, "docker"));
        assert_eq!(config.token_file, Path::new("local/token"));
        for (wrong, told) in [
            (packed(&[]), "task is no id"),
            (packed(&[("task", Value::from("../etc"))]), "task is no id"),
            (packed(&[("task", Value::from("0123456789abcdef")), ("token_file", Value::from("../x"))]), "token_file"),
            (
                packed(&[("task", Value::from("0123456789abcdef")), ("token_file", Value::from("/etc/shadow"))]),
                "token_file",
            ),
            (packed(&[("task", Value::from("0123456789abcdef")), ("pids", Value::from(0.5))]), "pids"),
        ] {
            let error = TaskConfig::read(&wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
