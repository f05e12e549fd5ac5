//! The words of `navvy host nomad-config`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::fleet::parse_cpus;
use navvy_job::figures::read_size;

/// Everything that an operator may say about a Nomad client.
#[derive(Debug, Args)]
pub struct NomadConfigArgs {
    /// Nomad's servers: HOST, HOST:4647, or a cloud's way to find them ("provider=aws tag_key=…"). Repeatable, or with commas.
    #[arg(long, value_name = "SERVER", value_delimiter = ',', value_parser = parse_word)]
    pub servers: Vec<String>,
    /// This machine is Nomad's only server, too: a fleet of one machine.
    #[arg(long, conflicts_with = "servers")]
    pub single: bool,
    /// Nomad's datacenter.
    #[arg(long, value_name = "NAME", default_value = "dc1", value_parser = parse_word)]
    pub datacenter: String,
    /// Nomad's region. Without it: Nomad's own default.
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub region: Option<String>,
    /// The class of this node. A processor's tasks ask for linux-64bit unless its settings say otherwise.
    #[arg(long, value_name = "NAME", default_value = "linux-64bit", value_parser = parse_word)]
    pub node_class: String,
    /// Processors that are never given to tasks.
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = parse_cpus)]
    pub reserve_cpus: f64,
    /// Memory that is never given to tasks.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = read_size)]
    pub reserve_memory: u64,
    /// The processor that tasks come from: https://HOST:8585. Without it: NAVVY_PROCESSOR, else each Nomad job names its own.
    #[arg(long, value_name = "URL", value_parser = parse_word)]
    pub processor: Option<String>,
    /// On the client: certificates that vouch for the processor and its store, as a PEM file.
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    pub processor_ca: Option<String>,
    /// On the client: the directory of ca.pem, client.pem and key.pem, by which Nomad's servers and clients know each other.
    #[arg(long, value_name = "DIR", value_parser = parse_path)]
    pub tls: Option<String>,
    /// Nomad's servers ask for tokens (ACL).
    #[arg(long)]
    pub acl: bool,
    /// Where Nomad's HTTP API listens on the client. Whoever reaches it may do what its ACL allows.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub http_address: IpAddr,
    /// Nomad's own state on the client.
    #[arg(long, value_name = "DIR", default_value = "/opt/nomad/data", value_parser = parse_path)]
    pub data_dir: String,
    /// Where the driver lies on the client. The package navvy-driver puts it there.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/nomad/plugins", value_parser = parse_path)]
    pub plugin_dir: String,
    /// The agent. Without it: navvy beside the driver, else the one on the PATH of Nomad.
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    pub agent_path: Option<String>,
    /// The driver's own state. Without it: /var/lib/navvy/driver.
    #[arg(long, value_name = "DIR", value_parser = parse_path)]
    pub state_dir: Option<String>,
    /// The cgroup below which tasks are held. Without it: Nomad's own.
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    pub cgroup_parent: Option<String>,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: the one at /var/run/docker.sock.
    #[arg(long, value_name = "ENDPOINT", value_parser = parse_word)]
    pub docker: Option<String>,
    /// Another of Nomad's drivers that this client may run jobs with, beside navvy. Repeatable.
    #[arg(long = "driver", value_name = "NAME", value_parser = parse_word)]
    pub drivers: Vec<String>,
    /// Print it for another machine: its processors.
    #[arg(long, value_name = "N", requires = "memory", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub cpus: Option<u16>,
    /// Print it for another machine: its memory.
    #[arg(long, value_name = "SIZE", requires = "cpus", value_parser = read_size)]
    pub memory: Option<u64>,
}

/// A value that means the same in HCL as here: nothing in it ends a text or begins an expression.
fn parse_word(text: &str) -> Result<String, String> {
    let odd = text.chars().find(|c| c.is_control() || matches!(c, '"' | '\\'));
    match odd {
        _ if text.is_empty() => Err("it is empty".to_owned()),
        Some(odd) => Err(format!("{odd:?} may not stand in a value of Nomad's configuration")),
        None if text.contains("${") || text.contains("%{") => {
            Err("${ and %{ begin an expression in Nomad's configuration; write the value itself".to_owned())
        }
        None => Ok(text.to_owned()),
    }
}

/// The same, of a file or directory on the client.
fn parse_path(text: &str) -> Result<String, String> {
    let word = parse_word(text)?;
    match PathBuf::from(&word).is_absolute() {
        true => Ok(word),
        false => Err(format!("`{text}` is no absolute path; Nomad reads it on the client, from wherever it runs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_value_ends_a_text_or_begins_an_expression() {
        assert_eq!(parse_word("provider=aws tag_key=x").as_deref(), Ok("provider=aws tag_key=x"));
        for odd in ["", "a\"b", "a\\b", "a\nb", "${env.HOME}", "%{ if true }"] {
            assert!(parse_word(odd).is_err(), "{odd:?}");
        }
        assert!(parse_path("certificates").unwrap_err().contains("absolute"));
    }
}
