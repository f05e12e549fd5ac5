//! The program `navvy`: where it is, what it is started with, and what it says of this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_job::scheduled::{HostCheck, VERSION};
use tokio::process::Command;

use crate::config::PluginConfig;
use crate::exec;

const NAME: &str = "navvy";
/// A machine is looked at in less.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// Of what a check prints.
const LONGEST_CHECK: usize = 64 << 10;
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of this process's environment goes on to agents: the way out, and where the engine is. Nothing of Nomad's.
const PASSED: [&str; 14] = [
    "PATH",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// Why there is no agent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    /// Nowhere.
    #[error("there is no agent: {0}. Install navvy there, or set agent_path in the plugin's configuration")]
    Missing(String),
    /// It does not do what it is asked.
    #[error("the agent {path} does not work: {why}", path = .path.display())]
    Broken {
        /// The program.
        path: PathBuf,
        /// What it did instead.
        why: String,
    },
    /// Another form of [`navvy_job::scheduled`].
    #[error("the agent {path} (version {agent}) and this driver (version {driver}) do not understand each other: install both from one release",
        path = .path.display(), driver = env!("CARGO_PKG_VERSION"))]
    Version {
        /// The program.
        path: PathBuf,
        /// Its version.
        agent: String,
    },
}

/// Finds the program.
///
/// # Errors
/// It is not there, or cannot be executed.
pub fn find(config: &PluginConfig, variables: &BTreeMap<String, String>) -> Result<PathBuf, AgentError> {
    if let Some(path) = &config.agent_path {
        return match is_executable(path) {
            true => Ok(path.clone()),
            false => Err(AgentError::Missing(format!("{} is no program", path.display()))),
        };
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(NAME)));
    let search = variables.get("PATH").map_or(SEARCH_PATH, String::as_str);
    let places =
        beside.into_iter().chain(std::env::split_paths(search).filter(|path| path.is_absolute()).map(|d| d.join(NAME)));
    places.into_iter().find(|path| is_executable(path)).ok_or_else(|| {
        AgentError::Missing(format!("no `{NAME}` lies beside the plugin, nor in the search path {search}"))
    })
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What agents are started with. Their files lie in the driver's directory: whoever starts Nomad may have no home.
pub fn environment(config: &PluginConfig, variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let passed = |name: &&str| variables.get(*name).map(|value| ((*name).to_owned(), value.clone()));
    let mut environment: BTreeMap<String, String> = PASSED.iter().filter_map(passed).collect();
    environment.entry("PATH".to_owned()).or_insert_with(|| SEARCH_PATH.to_owned());
    if let Some(docker) = &config.docker {
        environment.insert("DOCKER_HOST".to_owned(), docker.clone());
    }
    environment.insert("HOME".to_owned(), config.state_dir.join("agent").display().to_string());
    environment.into_iter().collect()
}

/// Asks an agent what this machine can do.
///
/// # Errors
/// It does not answer, or not as this driver understands.
pub async fn check(path: &Path, environment: &[(String, String)], is_thorough: bool) -> Result<HostCheck, AgentError> {
    let broken = |why: String| AgentError::Broken { path: path.to_owned(), why };
    let mut command = Command::new(path);
    command.args(["host", "check", "--json"]).args(is_thorough.then_some("--thorough"));
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value))).current_dir("/");
    let output = exec::output(command, CHECK_LIMIT).await.map_err(|error| broken(error.to_string()))?;
    read(&output.stdout).map_err(|Unreadable { agent }| match agent {
        Some(agent) => AgentError::Version { path: path.to_owned(), agent },
        None => {
            let words = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(400)]).into_owned();
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let words = if words.is_empty() { String::new() } else { format!(", and says: {words}") };
            broken(format!("`navvy host check` ends with {}{words}", output.status))
        }
    })
}

struct Unreadable {
    /// The version of an agent that answers in another form.
    agent: Option<String>,
}

fn read(stdout: &[u8]) -> Result<HostCheck, Unreadable> {
    #[derive(serde::Deserialize)]
    struct Form {
        version: u32,
        agent: String,
    }
    let none = Unreadable { agent: None };
    if stdout.len() > LONGEST_CHECK {
        return Err(none);
    }
    let Ok(form) = serde_json::from_slice::<Form>(stdout) else { return Err(none) };
    match form.version == VERSION {
        true => serde_json::from_slice(stdout).map_err(|_| Unreadable { agent: Some(form.agent) }),
        false => Err(Unreadable { agent: Some(form.agent) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_another_form_is_told_from_a_broken_one() {
        let good = r#"{"version":1,"agent":"0.1.0","docker":"20","environments":["docker"],"problems":[],"kvm":false,
                       "size":{"millicpus":2000,"memory":1}}"#;
        assert!(read(good.as_bytes()).is_ok());
        let other = |text: &str| read(text.as_bytes()).err().unwrap().agent;
        assert_eq!(other(&good.replace("\"version\":1", "\"version\":2")).as_deref(), Some("0.1.0"));
        assert_eq!(other("navvy 0.1.0"), None);
        assert_eq!(other(""), None);
    }

    #[test]
    fn agents_get_nothing_of_nomads_environment() {
        let variables = BTreeMap::from([
            ("NOMAD_TOKEN".to_owned(), "hunter2".to_owned()),
            ("https_proxy".to_owned(), "http://p:1".to_owned()),
        ]);
        let config = PluginConfig { docker: Some("unix:///d.sock".to_owned()), ..PluginConfig::default() };
        let environment = environment(&config, &variables);
        let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["DOCKER_HOST", "HOME", "PATH", "https_proxy"]);
    }

    #[test]
    fn an_agent_that_is_not_there_is_missed_by_its_path() {
        let config = PluginConfig { agent_path: Some("/nowhere/navvy".into()), ..PluginConfig::default() };
        assert!(find(&config, &BTreeMap::new()).unwrap_err().to_string().contains("/nowhere/navvy is no program"));
    }
}
