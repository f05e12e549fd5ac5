//! An operator's settings: by flag, by environment, by file. Gathered once; all that is wrong is said at once, each with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use navvy_plain_file as plain_file;
use navvy_protocol::{api, processor};
use navvy_storage::{Proxies, Sources, StorageSettings, StoreTable};

use crate::claims::LEASE;
use crate::keep::Keep;
use crate::telemetry::statsd;
use crate::tls::{self, Certificates, For, Greeting};

mod machine_pool;
mod nomad;

pub use machine_pool::MachinePool;
pub use nomad::{Classes, NomadArgs, NomadSettings};

/// Hands out tasks, takes their output, grants storage.
#[derive(Debug, Parser)]
#[command(name = "navvy-processor", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve agents and people until SIGTERM.
    Serve(Box<ServeArgs>),
    /// Copy the embedded database and the keys of secrets, while the processor runs. The store is copied after it, by what
    /// copies directories or buckets.
    Backup(BackupArgs),
    /// Put a backup into a data directory where no processor has been.
    Restore(BackupArgs),
}

/// What is copied, and where.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The backup's directory.
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
    /// The processor's data directory, as for `serve`.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<String>,
}

/// Without any: everything embedded, on loopback.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Where agents are listened to. Default: 127.0.0.1:8585. Also $NAVVY_PROCESSOR_LISTEN_AGENTS.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen_agents: Option<String>,
    /// Where people are listened to. Default: 127.0.0.1:8080. Also $NAVVY_PROCESSOR_LISTEN.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Under which URL people and agents find this processor's pages. Default: where it listens. Also $NAVVY_PROCESSOR_PUBLIC_URL.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Directory of the embedded database, its key and its store. Default: ~/.local/share/navvy/processor.
    /// Also $NAVVY_PROCESSOR_DATA.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<String>,
    /// sqlite://PATH or postgres://USER@HOST/DATABASE. Default: processor.db in the data directory. Also $NAVVY_PROCESSOR_DATABASE.
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where output, caches, workspaces and artifacts lie: file:///PATH, s3://BUCKET/PREFIX, gs://…, az://…. Default: store in
    /// the data directory. Also $NAVVY_PROCESSOR_STORE.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// File with the keys that secrets are sealed with: one a line, NAME:64 hexadecimal digits, the newest last. Default:
    /// secrets.key in the data directory, made at the first start. Also $NAVVY_PROCESSOR_SECRETS_KEY.
    #[arg(long, value_name = "FILE")]
    pub secrets_key: Option<String>,
    /// Certificate chain (PEM) of both ports. SIGHUP reads it again. Also $NAVVY_PROCESSOR_TLS_CERTIFICATE.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// Its private key (PEM). Also $NAVVY_PROCESSOR_TLS_KEY.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Authority (PEM) whose certificates agents must show. Also $NAVVY_PROCESSOR_CLIENT_CA.
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<String>,
    /// Listen without TLS elsewhere than on loopback; `people` or `agents`: on that port alone, whether there is a certificate
    /// or not. Also $NAVVY_PROCESSOR_PLAINTEXT.
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub plaintext: Option<String>,
    /// How long a drain waits for open streams. Default: 30s. Also $NAVVY_PROCESSOR_DRAIN_TIMEOUT.
    #[arg(long, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// An agent that is not heard of for so long loses its task, a third of it later. At least 2s. Default: 30s. Also
    /// $NAVVY_PROCESSOR_LEASE.
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<String>,
    /// How long caches are kept: a duration such as 15d, or `forever`. Default: 15d. Also
    /// $NAVVY_PROCESSOR_KEEP_CACHES.
    #[arg(long, value_name = "DURATION")]
    pub keep_caches: Option<String>,
    /// How long workspaces are kept, and working trees that were sent. Default: 15d. Also $NAVVY_PROCESSOR_KEEP_WORKSPACES.
    #[arg(long, value_name = "DURATION")]
    pub keep_workspaces: Option<String>,
    /// How long artifacts are kept. Default: 30d. Also $NAVVY_PROCESSOR_KEEP_ARTIFACTS.
    #[arg(long, value_name = "DURATION")]
    pub keep_artifacts: Option<String>,
    /// How long logs are kept. Default: 90d. Also $NAVVY_PROCESSOR_KEEP_LOGS.
    #[arg(long, value_name = "DURATION")]
    pub keep_logs: Option<String>,
    /// Send figures to DogStatsD there, by UDP. Without a port: 8125. Also $NAVVY_PROCESSOR_DOGSTATSD.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub dogstatsd: Option<String>,
    /// Send spans of pipelines that have ended to this OpenTelemetry collector (OTLP over HTTP): http://127.0.0.1:4318. Also
    /// $NAVVY_PROCESSOR_OTLP.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// The way through Nomad.
    #[command(flatten)]
    pub nomad: NomadArgs,
    /// A file with these settings, by the same names (TOML): listen_agents = "…". Also $NAVVY_PROCESSOR_SETTINGS.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<String>,
}

/// What the processor goes by.
#[derive(Debug)]
pub struct Settings {
    /// For agents.
    pub listen_agents: SocketAddr,
    /// For people.
    pub listen: SocketAddr,
    /// Without a slash at its end. `None`: where it listens.
    pub public_url: Option<String>,
    /// Where everything embedded lies.
    pub data: PathBuf,
    /// URL of the database.
    pub database: String,
    /// The object store.
    pub store: StorageSettings,
    /// Keys of secrets. `None`: the embedded one.
    pub secrets_key: Option<PathBuf>,
    /// The certificates. `None`: no port has TLS.
    pub tls: Option<Arc<Certificates>>,
    /// Which ports have none all the same.
    pub plaintext: Plaintext,
    /// How long a drain waits.
    pub drain_timeout: Duration,
    /// How long an agent has its task without a word.
    pub lease: Duration,
    /// How long what is kept.
    pub keep: Keep,
    /// Where figures are sent.
    pub dogstatsd: Option<SocketAddr>,
    /// Where spans are sent.
    pub otlp: Option<String>,
    /// The way to other machines.
    pub proxies: Proxies,
    /// Where tasks are launched. `None`: nowhere, runners and schedulers of one's own come for them.
    pub nomad: Option<NomadSettings>,
    /// Machines that are kept ready. `None`: there is no pool.
    pub machine_pool: Option<MachinePool>,
}

/// Which ports an operator wants without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plaintext {
    /// The people's.
    pub people: bool,
    /// The agents'.
    pub agents: bool,
}

impl Settings {
    /// How the people's port greets; `None`: without TLS.
    pub fn greeting_of_people(&self) -> Option<Greeting> {
        let certificates = self.tls.clone().filter(|_| !self.plaintext.people)?;
        Some(Greeting::new(certificates, For::People))
    }

    /// How the agents' port greets.
    pub fn greeting_of_agents(&self) -> Option<Greeting> {
        let certificates = self.tls.clone().filter(|_| !self.plaintext.agents)?;
        Some(Greeting::new(certificates, For::Agents))
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsErrors(Vec<String>);

/// Longer settings files are nobody's.
const LONGEST_FILE: u64 = 1 << 20;

/// Names as in the file; flags have dashes, variables the prefix and large letters.
const NAMES: [&str; 19] = [
    "listen_agents",
    "listen",
    "public_url",
    "data",
    "database",
    "store",
    "secrets_key",
    "tls_certificate",
    "tls_key",
    "client_ca",
    "plaintext",
    "drain_timeout",
    "lease",
    "keep_caches",
    "keep_workspaces",
    "keep_artifacts",
    "keep_logs",
    "dogstatsd",
    "otlp",
];

fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(nomad::NAMES)
}

/// With a shorter lease, a slow answer would be the end of a task.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
/// With a longer one, nobody would ever hear that an agent is gone.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// A value and where it was said.
#[derive(Debug, Clone)]
struct Said {
    value: String,
    place: String,
}

/// Gathers values from their places, and what is wrong with them.
struct Gathering {
    said: BTreeMap<&'static str, Said>,
    /// The one table of the file.
    machine_pool: Option<machine_pool::Table>,
    errors: Vec<String>,
}

impl Settings {
    /// Gathers the settings. Reads the settings file and the certificates, and nothing else.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn gather(arguments: &ServeArgs, variables: &BTreeMap<String, String>) -> Result<Self, SettingsErrors> {
        let mut gathering = Gathering::of(arguments, variables);
        let gathered = gathering.settings(variables);
        match gathered.filter(|_| gathering.errors.is_empty()) {
            Some(settings) => Ok(settings),
            None => Err(SettingsErrors(gathering.errors)),
        }
    }
}

impl Gathering {
    fn of(arguments: &ServeArgs, variables: &BTreeMap<String, String>) -> Self {
        let mut gathering = Self { said: BTreeMap::new(), machine_pool: None, errors: Vec::new() };
        let file = arguments.settings.clone().map(|path| (path, "--settings".to_owned()));
        let file = file.or_else(|| {
            set(variables, "NAVVY_PROCESSOR_SETTINGS").map(|path| (path, "NAVVY_PROCESSOR_SETTINGS".into()))
        });
        if let Some((path, place)) = file {
            gathering.read_file(Path::new(&path), &place);
        }
        for name in names() {
            let variable = format!("NAVVY_PROCESSOR_{}", name.to_uppercase());
            if let Some(value) = set(variables, &variable) {
                gathering.said.insert(name, Said { value, place: variable });
            }
        }
        for (name, value) in flags(arguments).into_iter().chain(nomad::flags(&arguments.nomad)) {
            if let Some(value) = value {
                let place = format!("--{}", name.replace('_', "-"));
                gathering.said.insert(name, Said { value: value.clone(), place });
            }
        }
        gathering
    }

    fn read_file(&mut self, path: &Path, place: &str) {
        let text = match plain_file::read(path, LONGEST_FILE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return self.errors.push(format!("{place}: {} cannot be read: {error}", path.display())),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => return self.errors.push(format!("{}: {}", path.display(), error.message())),
        };
        for (key, value) in table {
            let place = format!("{} in {}", key, path.display());
            if key == machine_pool::NAME {
                match value {
                    toml::Value::Table(table) => {
                        let place = format!("{key} of {}", path.display());
                        self.machine_pool = Some(machine_pool::Table { table, place });
                    }
                    _ => self.errors.push(format!("{place}: it must be a table, [{key}]")),
                }
                continue;
            }
            let Some(name) = names().find(|name| *name == key) else {
                self.errors.push(format!(
                    "{place}: there is no such setting; there are {}",
                    names().chain([machine_pool::NAME]).collect::<Vec<_>>().join(", ")
                ));
                continue;
            };
            match value {
                toml::Value::String(value) => drop(self.said.insert(name, Said { value, place })),
                toml::Value::Boolean(value) => drop(self.said.insert(name, Said { value: value.to_string(), place })),
                _ => self.errors.push(format!("{place}: it must be a text")),
            }
        }
    }

    fn settings(&mut self, variables: &BTreeMap<String, String>) -> Option<Settings> {
        let listen_agents = self.address("listen_agents", processor::PORT);
        let listen = self.address("listen", api::PORT);
        let public_url = self.public_url();
        let data = self.data(variables);
        let database = self.text("database");
        let store = self.store(data.as_deref(), variables);
        let tls = self.tls();
        let drain_timeout = self.duration("drain_timeout", Duration::from_secs(30));
        let lease = self.lease();
        let keep = self.keep();
        let plaintext = self.plaintext();
        let has_certificate = self.said.contains_key("tls_certificate");
        let open = [("listen_agents", listen_agents, plaintext.agents), ("listen", listen, plaintext.people)];
        for (name, address, is_meant) in open {
            let is_open = |address: &SocketAddr| !address.ip().is_loopback() && !has_certificate && !is_meant;
            if let Some(address) = address.filter(is_open) {
                let flag = name.replace('_', "-");
                self.errors.push(format!(
                    "--{flag} {address}: tokens and secrets would go there in the clear. Give a certificate \
                     (--tls-certificate, --tls-key), put a TLS proxy before it, or say --plaintext"
                ));
            }
        }
        let (dogstatsd, otlp, nomad) = (self.dogstatsd(), self.otlp(), self.nomad());
        let machine_pool = self.machine_pool(variables);
        let data = data?;
        let database = database.unwrap_or_else(|| format!("sqlite://{}", data.join("processor.db").display()));
        let secrets_key = self.text("secrets_key").map(PathBuf::from);
        Some(Settings {
            listen_agents: listen_agents?,
            listen: listen?,
            public_url,
            data,
            database,
            store: store?,
            secrets_key,
            tls: tls.map(Arc::new),
            plaintext,
            drain_timeout,
            lease,
            keep,
            dogstatsd,
            otlp,
            proxies: Proxies::of(variables),
            nomad,
            machine_pool,
        })
    }

    fn keep(&mut self) -> Keep {
        let Keep { caches, workspaces, artifacts, logs } = Keep::default();
        Keep {
            caches: self.kept("keep_caches", caches),
            workspaces: self.kept("keep_workspaces", workspaces),
            artifacts: self.kept("keep_artifacts", artifacts),
            logs: self.kept("keep_logs", logs),
        }
    }

    /// Nothing, such as an empty rule or `0s`, means that all goes at once: it must not be said by mistake.
    fn kept(&mut self, name: &str, default: Option<Duration>) -> Option<Duration> {
        let Some(said) = self.said.get(name).cloned() else { return default };
        if said.value == "forever" {
            return None;
        }
        let kept = self.duration(name, Duration::MAX);
        if kept.is_zero() {
            self.wrong(&said, "keeps nothing; write a duration such as 15d, or `forever`");
        }
        Some(kept)
    }

    fn lease(&mut self) -> Duration {
        let lease = self.duration("lease", LEASE);
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&lease)
            && let Some(said) = self.said.get("lease").cloned()
        {
            self.wrong(&said, "is not between 2s and 1h");
        }
        lease
    }

    fn text(&self, name: &str) -> Option<String> {
        self.said.get(name).map(|said| said.value.clone())
    }

    fn wrong(&mut self, said: &Said, why: impl fmt::Display) {
        self.errors.push(format!("{}: {:?} {why}", said.place, said.value));
    }

    fn address(&mut self, name: &str, port: u16) -> Option<SocketAddr> {
        let Some(said) = self.said.get(name).cloned() else { return Some(SocketAddr::from(([127, 0, 0, 1], port))) };
        match said.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.wrong(&said, format!("is no address; write it as 127.0.0.1:{port} or [::1]:{port}"));
                None
            }
        }
    }

    fn public_url(&mut self) -> Option<String> {
        let said = self.said.get("public_url").cloned()?;
        let url = said.value.trim_end_matches('/').to_owned();
        if !(url.starts_with("https://") || url.starts_with("http://")) || url.contains(char::is_whitespace) {
            self.wrong(&said, "is no URL; write it as https://ci.example");
        }
        Some(url)
    }

    fn data(&mut self, variables: &BTreeMap<String, String>) -> Option<PathBuf> {
        if let Some(said) = self.said.get("data").cloned() {
            let path = PathBuf::from(&said.value);
            if !path.is_absolute() {
                self.wrong(&said, "is not absolute: after a change of directory it would be another one");
                return None;
            }
            return Some(path);
        }
        let data = set(variables, "XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(Path::new(&set(variables, "HOME")?).join(".local/share")));
        if data.is_none() {
            self.errors.push("no directory for data is known: set HOME, or give --data DIRECTORY".to_owned());
        }
        Some(data?.join("navvy/processor"))
    }

    fn store(&mut self, data: Option<&Path>, variables: &BTreeMap<String, String>) -> Option<StorageSettings> {
        let Some(said) = self.said.get("store").cloned() else {
            return Some(StorageSettings::directory(&data?.join("store")));
        };
        let home = set(variables, "HOME").map(PathBuf::from);
        let sources = Sources {
            flag: Some(&said.value),
            variables,
            home: home.as_deref(),
            data,
            table: StoreTable::default(),
            file: None,
        };
        match StorageSettings::gather(sources) {
            Ok(settings) => Some(settings),
            Err(error) => {
                self.errors.push(format!("{}: {}", said.place, navvy_job::chain::chain(&error)));
                None
            }
        }
    }

    fn tls(&mut self) -> Option<Certificates> {
        let said = ["tls_certificate", "tls_key", "client_ca"].map(|name| self.said.get(name).cloned());
        let path = |said: &Said| PathBuf::from(&said.value);
        let (certificate, key, client_ca) = match &said {
            [None, None, None] => return None,
            [Some(certificate), Some(key), client_ca] => (path(certificate), path(key), client_ca.as_ref().map(path)),
            [certificate, key, client_ca] => {
                for said in [certificate, key, client_ca].into_iter().flatten() {
                    self.wrong(said, "is only of use with both --tls-certificate and --tls-key");
                }
                return None;
            }
        };
        let read = Certificates::read(tls::Files { certificate, key, client_ca });
        let [certificate, key, client_ca] = said;
        for tls::Wrong { file, why } in read.as_ref().err().into_iter().flatten() {
            let said = match file {
                tls::File::Certificate => &certificate,
                tls::File::Key => &key,
                tls::File::ClientCa => &client_ca,
            };
            if let Some(said) = said {
                self.wrong(said, why);
            }
        }
        read.ok()
    }

    fn dogstatsd(&mut self) -> Option<SocketAddr> {
        let said = self.said.get("dogstatsd").cloned()?;
        let alone = || said.value.parse().map(|ip| SocketAddr::new(ip, statsd::PORT));
        let address = said.value.parse().or_else(|_| alone()).ok();
        if address.is_none() {
            self.wrong(&said, "is no address; write it as 127.0.0.1 or 127.0.0.1:8125");
        }
        address
    }

    fn otlp(&mut self) -> Option<String> {
        let said = self.said.get("otlp").cloned()?;
        let rest = said.value.strip_prefix("https://").or_else(|| said.value.strip_prefix("http://"));
        if rest.is_none_or(|rest| {
            rest.is_empty() || rest.contains(|c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#'))
        }) {
            // What stands there may be a password.
            self.errors.push(format!("{}: it is no URL of a collector; write it as http://127.0.0.1:4318", said.place));
        }
        Some(said.value)
    }

    fn plaintext(&mut self) -> Plaintext {
        let Some(said) = self.said.get("plaintext").cloned() else { return Plaintext::default() };
        match said.value.as_str() {
            "true" | "1" => {
                if self.said.contains_key("tls_certificate") {
                    self.wrong(&said, "and a certificate: say which port is to be without TLS, people or agents");
                }
                Plaintext { people: true, agents: true }
            }
            "people" => Plaintext { people: true, agents: false },
            "agents" => {
                if let Some(client_ca) = self.said.get("client_ca").cloned() {
                    self.wrong(&client_ca, format!("has no effect: {} leaves agents without TLS", said.place));
                }
                Plaintext { people: false, agents: true }
            }
            "false" | "0" => Plaintext::default(),
            _ => {
                self.wrong(&said, "is none of true, false, people, agents");
                Plaintext::default()
            }
        }
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(said) = self.said.get(name).cloned() else { return default };
        navvy_job::figures::read_duration(&said.value).unwrap_or_else(|why| {
            self.errors.push(format!("{}: {why}", said.place));
            default
        })
    }
}

fn set(variables: &BTreeMap<String, String>, name: &str) -> Option<String> {
    variables.get(name).filter(|value| !value.is_empty()).cloned()
}

fn flags(arguments: &ServeArgs) -> [(&'static str, &Option<String>); 19] {
    [
        ("listen_agents", &arguments.listen_agents),
        ("listen", &arguments.listen),
        ("public_url", &arguments.public_url),
        ("data", &arguments.data),
        ("database", &arguments.database),
        ("store", &arguments.store),
        ("secrets_key", &arguments.secrets_key),
        ("tls_certificate", &arguments.tls_certificate),
        ("tls_key", &arguments.tls_key),
        ("client_ca", &arguments.client_ca),
        ("plaintext", &arguments.plaintext),
        ("drain_timeout", &arguments.drain_timeout),
        ("lease", &arguments.lease),
        ("keep_caches", &arguments.keep_caches),
        ("keep_workspaces", &arguments.keep_workspaces),
        ("keep_artifacts", &arguments.keep_artifacts),
        ("keep_logs", &arguments.keep_logs),
        ("dogstatsd", &arguments.dogstatsd),
        ("otlp", &arguments.otlp),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn without_any_setting_everything_is_embedded_and_on_loopback() {
        let settings = Settings::gather(&ServeArgs::default(), &variables(&[("HOME", "/home/u")])).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.listen_agents.to_string(), "127.0.0.1:8585");
        assert_eq!(settings.database, "sqlite:///home/u/.local/share/navvy/processor/processor.db");
        assert_eq!(settings.store.location.to_string(), "file:///home/u/.local/share/navvy/processor/store");
    }

    #[test]
    fn a_flag_stands_above_a_variable_and_a_variable_above_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("processor.toml");
        std::fs::write(&file, "listen = '127.0.0.1:1'\nlisten_agents = '127.0.0.1:2'\ndrain_timeout = '5s'\nkeep_caches = '2d'\nkeep_logs = 'forever'\n").unwrap();
        let given = variables(&[
            ("HOME", "/h"),
            ("NAVVY_PROCESSOR_LISTEN", "127.0.0.1:3"),
            ("NAVVY_PROCESSOR_LISTEN_AGENTS", "127.0.0.1:4"),
            ("NAVVY_PROCESSOR_SETTINGS", file.to_str().unwrap()),
        ]);
        let arguments = ServeArgs { listen: Some("127.0.0.1:5".into()), ..ServeArgs::default() };
        let settings = Settings::gather(&arguments, &given).unwrap();
        assert_eq!((settings.listen.port(), settings.listen_agents.port()), (5, 4));
        assert_eq!((settings.drain_timeout, settings.lease), (Duration::from_secs(5), LEASE));
        let keep = Keep { caches: Some(Duration::from_secs(48 * 3600)), logs: None, ..Keep::default() };
        assert_eq!(settings.keep, keep);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_place() {
        let arguments = ServeArgs {
            listen: Some("everywhere".into()),
            data: Some("here".into()),
            tls_key: Some("/nowhere/key.pem".into()),
            ..ServeArgs::default()
        };
        let given = variables(&[
            ("NAVVY_PROCESSOR_LISTEN_AGENTS", "0.0.0.0:8585"),
            ("NAVVY_PROCESSOR_DRAIN_TIMEOUT", "soon"),
            ("NAVVY_PROCESSOR_LEASE", "1s"),
            ("NAVVY_PROCESSOR_PLAINTEXT", "maybe"),
            ("NAVVY_PROCESSOR_KEEP_CACHES", "0s"),
            ("NAVVY_PROCESSOR_KEEP_LOGS", "two weeks"),
            ("NAVVY_PROCESSOR_DOGSTATSD", "metrics"),
            ("NAVVY_PROCESSOR_OTLP", "http://me:hunter2@collector"),
        ]);
        let told = Settings::gather(&arguments, &given).unwrap_err().to_string();
        for expected in [
            "--listen: \"everywhere\" is no address",
            "--data: \"here\" is not absolute",
            "/nowhere/key.pem",
            "--listen-agents 0.0.0.0:8585: tokens and secrets",
            "NAVVY_PROCESSOR_DRAIN_TIMEOUT: `soon` is not a duration",
            "NAVVY_PROCESSOR_LEASE: \"1s\" is not between 2s and 1h",
            "--tls-key: \"/nowhere/key.pem\" is only of use with both --tls-certificate and --tls-key",
            "NAVVY_PROCESSOR_DOGSTATSD: \"metrics\" is no address",
            "NAVVY_PROCESSOR_OTLP: it is no URL of a collector",
            "NAVVY_PROCESSOR_PLAINTEXT: \"maybe\" is none of true, false, people, agents",
            "NAVVY_PROCESSOR_KEEP_CACHES: \"0s\" keeps nothing",
            "NAVVY_PROCESSOR_KEEP_LOGS: `two weeks` is not a duration",
        ] {
            assert!(told.contains(expected), "{expected} is missing in:\n{told}");
        }
    }
}
