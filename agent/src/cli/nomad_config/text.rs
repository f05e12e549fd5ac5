//! The text of a `client.hcl`.

use std::fmt;

use navvy_job::figures;
use navvy_job::reservation::LARGEST_TESTED;
use navvy_job::resource::{Size, docker_class, docker_class_names};

use super::MIB;
use crate::cli::args::nomad_config::NomadConfigArgs;

const GIB: u64 = 1 << 30;

/// A client, all of it known. Its values hold nothing that HCL would read in another way: `parse_word` has seen to that.
pub struct Client<'a> {
    pub whole: Size,
    /// Whole MiB.
    pub reserved: Size,
    pub room: Size,
    pub processor: Option<&'a str>,
    pub arguments: &'a NomadConfigArgs,
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.agent(f)?;
        self.client(f)?;
        self.plugins(f)?;
        self.tls(f)?;
        f.write_str(TELEMETRY)
    }
}

impl Client<'_> {
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |size: Size| format!("{} CPUs and {}", figures::cpus(size.millicpus), figures::bytes(size.memory));
        writeln!(f, "# A Nomad client of a fleet, made by `navvy host nomad-config` {}.", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "# The machine has {}. {} are kept for coordination,", told(self.whole), told(self.reserved))?;
        writeln!(f, "# {} are left for tasks. {}", told(self.room), self.largest_class())?;
        if !self.whole.fits(LARGEST_TESTED) {
            writeln!(
                f,
                "# This is larger than what is tested ({}): the same arithmetic, untried.",
                told(LARGEST_TESTED)
            )?;
        }
        writeln!(f, "# It replaces /etc/nomad.d/nomad.hcl: Nomad reads every file of that directory.")
    }

    fn largest_class(&self) -> String {
        let fitting = docker_class_names()
            .filter_map(|name| Some((docker_class(name)?, name)))
            .filter(|(size, name)| size.fits(self.room) && !name.starts_with("arm."));
        match fitting.max_by_key(|(size, _)| (size.millicpus, size.memory)) {
            Some((_, name)) => format!("The largest resource class that fits is {name}."),
            None => "No resource class fits: lower the reservation.".to_owned(),
        }
    }

    fn agent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NomadConfigArgs { datacenter, region, data_dir, plugin_dir, http_address, single, acl, .. } =
            self.arguments;
        writeln!(f, "\ndatacenter = \"{datacenter}\"")?;
        if let Some(region) = region {
            writeln!(f, "region     = \"{region}\"")?;
        }
        writeln!(f, "data_dir   = \"{data_dir}\"\nplugin_dir = \"{plugin_dir}\"\n\ndisable_update_check = true\n")?;
        writeln!(f, "# Nomad's HTTP API. Whoever reaches it may do what its ACL allows, without ACL everything.")?;
        writeln!(f, "addresses {{\n  http = \"{http_address}\"\n}}")?;
        if http_address.is_loopback() {
            // Nomad does not start with a loopback address unless it is told to.
            writeln!(f, "\nadvertise {{\n  http = \"{http_address}\"\n}}")?;
        }
        if *single {
            writeln!(
                f,
                "\n# The fleet's only Nomad server.\nserver {{\n  enabled          = true\n  bootstrap_expect = 1\n}}"
            )?;
        }
        if *acl {
            writeln!(f, "\nacl {{\n  enabled = true\n}}")?;
        }
        Ok(())
    }

    fn client(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nclient {{\n  enabled    = true\n  node_class = \"{}\"\n", self.arguments.node_class)?;
        self.servers(f)?;
        writeln!(f, "  # CPUs times 1000: a MHz of Nomad is a thousandth of a CPU.")?;
        writeln!(f, "  cpu_total_compute = {}\n", self.whole.millicpus)?;
        writeln!(
            f,
            "  # Never given to tasks: {} CPUs and {}, for Nomad, the engine, agents and uploads. The same stands in the",
            figures::cpus(self.reserved.millicpus),
            figures::bytes(self.reserved.memory)
        )?;
        writeln!(f, "  # driver's own configuration below.\n  reserved {{")?;
        writeln!(f, "    cpu    = {}\n    memory = {}\n  }}\n", self.reserved.millicpus, self.reserved.memory / MIB)?;
        f.write_str(KEEPING)?;
        let drivers = ["navvy"].into_iter().chain(self.arguments.drivers.iter().map(String::as_str));
        let drivers = drivers.collect::<Vec<_>>().join(",");
        writeln!(f, "  # Jobs of other drivers would not be held by the driver's reservation.")?;
        writeln!(f, "  options = {{\n    \"driver.allowlist\" = \"{drivers}\"\n  }}\n}}")
    }

    fn servers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NomadConfigArgs { servers, single, .. } = self.arguments;
        match (servers.as_slice(), single) {
            (_, true) => Ok(()),
            ([], false) => f.write_str(NO_SERVERS),
            (servers, false) => {
                let quoted: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
                writeln!(f, "  # Tried for ever, until one of them answers.\n  server_join {{")?;
                writeln!(f, "    retry_join     = [{}]\n    retry_interval = \"15s\"\n  }}\n", quoted.join(", "))
            }
        }
    }

    fn plugins(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NomadConfigArgs { processor_ca, agent_path, state_dir, cgroup_parent, docker, .. } = self.arguments;
        writeln!(f, "\nplugin \"navvy-driver\" {{\n  config {{")?;
        let values = [
            ("processor", self.processor),
            ("processor_ca", processor_ca.as_deref()),
            ("agent_path", agent_path.as_deref()),
            ("state_dir", state_dir.as_deref()),
            ("cgroup_parent", cgroup_parent.as_deref()),
            ("docker", docker.as_deref()),
        ];
        for (key, value) in values.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            writeln!(f, "    {key:<13} = \"{value}\"")?;
        }
        writeln!(f, "    environments  = [\"docker\"]")?;
        writeln!(f, "\n    reserve {{\n      cpus   = {}", figures::cpus(self.reserved.millicpus))?;
        writeln!(f, "      memory = \"{}\"\n    }}\n  }}\n}}", exact(self.reserved.memory))?;
        f.write_str(RAW_EXEC)
    }

    fn tls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(directory) = &self.arguments.tls else { return Ok(()) };
        let directory = directory.trim_end_matches('/');
        writeln!(f, "\ntls {{\n  http = true\n  rpc  = true\n")?;
        writeln!(f, "  ca_file   = \"{directory}/ca.pem\"\n  cert_file = \"{directory}/client.pem\"")?;
        writeln!(f, "  key_file  = \"{directory}/key.pem\"\n\n  verify_server_hostname = true\n}}")
    }
}

/// `4GiB`, `1536MiB`: as it can be said without a fraction.
fn exact(memory: u64) -> String {
    match memory % GIB {
        0 => format!("{}GiB", memory / GIB),
        _ => format!("{}MiB", memory / MIB),
    }
}

const NO_SERVERS: &str = "  # No servers were named (--servers): Nomad finds them by Consul, or put them here.
  # server_join { retry_join = [\"HOST:4647\"] }

";

const KEEPING: &str = "  # What an agent may be given to cancel its job and to deliver the output; each Nomad job says how much of it it wants.
  max_kill_timeout = \"5m\"

  # Ended tasks keep their directory, with the agent's log, until there are more than so many. The disk is the engine's, too, and
  # is mostly full of images: removing logs would not help it.
  gc_max_allocs            = 100
  gc_disk_usage_threshold  = 95
  gc_inode_usage_threshold = 95

";

const RAW_EXEC: &str = "
# Whoever may register a Nomad job would be root here.
plugin \"raw_exec\" {
  config {
    enabled = false
  }
}
";

const TELEMETRY: &str = "
telemetry {
  collection_interval        = \"10s\"
  disable_hostname           = true
  prometheus_metrics         = true
  publish_allocation_metrics = true
  publish_node_metrics       = true
}
";

#[cfg(test)]
mod tests {
    use navvy_job::reservation::Reservation;

    use super::super::tests::arguments;
    use super::*;

    fn text(words: &[&str], processor: Option<&str>) -> String {
        let arguments = arguments(words);
        let (whole, reserved) = (Size::new(8, 32), Size::new(2, 4));
        let room = Reservation(reserved).room(whole).unwrap();
        Client { whole, reserved, room, processor, arguments: &arguments }.to_string()
    }

    #[test]
    fn a_clients_text() {
        insta::assert_snapshot!(text(
            &["--servers", "a.example:4647,b.example:4647"],
            Some("https://ci.example.com:8585")
        ));
    }

    #[test]
    fn what_was_not_said_is_not_there_and_all_that_was_said_is() {
        let little = text(&[], None);
        for word in ["processor ", "tls", "acl", "server {", "agent_path", "region", "docker "] {
            assert!(!little.contains(word), "{word}: {little}");
        }
        let words = [
            "--single",
            "--acl",
            "--tls=/etc/ssl/nomad/",
            "--region=eu",
            "--datacenter=berlin",
            "--driver=docker",
            "--node-class=big",
            "--processor-ca=/etc/navvy/ca.pem",
            "--agent-path=/opt/navvy",
            "--state-dir=/srv/navvy",
            "--cgroup-parent=/ci",
            "--docker=unix:///run/other.sock",
            "--data-dir=/srv/nomad",
            "--plugin-dir=/srv/plugins",
            "--http-address=10.0.0.1",
        ];
        let much = text(&words, Some("https://ci.example.com:8585"));
        let expected = [
            "server {",
            "acl {",
            "\"/etc/ssl/nomad/ca.pem\"",
            "\"eu\"",
            "\"berlin\"",
            "\"navvy,docker\"",
            "\"big\"",
            "= \"/etc/navvy/ca.pem\"",
            "\"/opt/navvy\"",
            "\"/srv/navvy\"",
            "\"/ci\"",
            "\"unix:///run/other.sock\"",
            "\"/srv/nomad\"",
            "\"/srv/plugins\"",
            "\"10.0.0.1\"",
            "\"https://ci.example.com:8585\"",
        ];
        for word in expected {
            assert!(much.contains(word), "{word}: {much}");
        }
    }

    #[test]
    fn memory_is_said_without_a_fraction() {
        assert_eq!([exact(4 << 30), exact(3 << 29), exact(512 << 20), exact(0)], ["4GiB", "1536MiB", "512MiB", "0GiB"]);
    }
}
