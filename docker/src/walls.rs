//! What the network keeps from jobs: rules of this machine's firewall, made once, before the first job of a process.
//!
//! ```text
//! INPUT       -i navvy0 ─▶ NAVVY-HOST-x ─▶ answers, name servers, what a task was allowed: on; all else is refused
//! DOCKER-USER -i navvy0 ─▶ NAVVY-OUT-x  ─▶ name servers, what a task was allowed: on; metadata is refused; else on
//! bridge      port of a job             ─▶ isolated: no frame from one port to another, made for each task
//! ```
//!
//! `x` is a digest of the rules, so that chains of another version, or of other name servers, are told apart and
//! replaced. A chain and the jump to it are made in one transaction: who sees the jump sees the rules.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use navvy_environment::command::{self, CommandError};
use sha2::{Digest as _, Sha256};

use super::network::BRIDGE;

/// Addresses at which clouds tell a machine who it is and with which rights. The last two of IPv4 are those of Azure's
/// host and of Alibaba's metadata; the first is link-local as a whole (AWS, GCP, Azure, containers' credentials).
pub const METADATA_V4: [&str; 3] = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"];
/// The same by IPv6: AWS's.
pub const METADATA_V6: [&str; 1] = ["fd00:ec2::/32"];
/// Docker passes what containers send through this chain before its own rules.
const DOCKER_CHAIN: &str = "DOCKER-USER";
const HOST_CHAIN: &str = "NAVVY-HOST-";
const OUT_CHAIN: &str = "NAVVY-OUT-";
/// What a task's rules are found by again.
const COMMENT: &str = "navvy-task-";
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// Another process may have changed the rules between our look and our change.
const ATTEMPTS: usize = 3;
/// Neighbour discovery, without which IPv6 does not reach the next machine.
const NEIGHBOUR_DISCOVERY: [&str; 4] = ["133", "134", "135", "136"];

/// One kind of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wall {
    /// Nothing of it passes.
    Closed,
    /// It is as open as in any container.
    Open {
        /// Why it could not be closed, as part of a sentence.
        why: String,
    },
}

/// What jobs cannot reach, and what they can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walls {
    /// This host and the metadata addresses, by IPv4.
    pub v4: Wall,
    /// The same by IPv6.
    pub v6: Wall,
    /// Frames that are no IP, from one job to another (ARP).
    pub frames: Wall,
    /// Name servers of this host, which stay open at port 53.
    pub name_servers: Vec<IpAddr>,
}

impl Walls {
    /// Nothing could be closed.
    pub fn open(why: &str) -> Self {
        let open = || Wall::Open { why: why.to_owned() };
        Self { v4: open(), v6: open(), frames: open(), name_servers: Vec::new() }
    }

    /// Makes what is not there yet.
    pub(super) async fn make(search_path: &str) -> Self {
        let (name_servers, v4) = (name_servers(), Family::v4());
        let (v4, v6) = tokio::join!(close(&v4, &name_servers, search_path), close_v6(&name_servers, search_path));
        Self { v4, v6, frames: isolate_ports(), name_servers }
    }

    /// What is closed and what is open, in words; `open` with the reason.
    pub fn told(&self) -> String {
        let (mut closed, mut open) = (Vec::new(), Vec::new());
        let mut tell = |wall: &Wall, what: &[&str]| match wall {
            Wall::Closed => closed.extend(what.iter().map(|what| format!("{what} closed"))),
            Wall::Open { why } => open.push(format!("{} open ({why})", what.join(" open, "))),
        };
        if self.v4 == self.v6 {
            tell(&self.v4, &["metadata addresses", "this host"]);
        } else {
            tell(&self.v4, &["metadata addresses by IPv4", "this host by IPv4"]);
            tell(&self.v6, &["metadata addresses by IPv6", "this host by IPv6"]);
        }
        tell(&self.frames, &["ARP between jobs"]);
        [closed, open].concat().join(", ")
    }

    /// Is everything closed?
    pub fn are_whole(&self) -> bool {
        [&self.v4, &self.v6, &self.frames].into_iter().all(|wall| *wall == Wall::Closed)
    }
}

/// Rules of one protocol.
pub(super) struct Family {
    pub program: &'static str,
    restore: &'static str,
    metadata: &'static [&'static str],
    pub is_v6: bool,
}

impl Family {
    pub fn v4() -> Self {
        Self { program: "iptables", restore: "iptables-restore", metadata: &METADATA_V4, is_v6: false }
    }

    pub fn v6() -> Self {
        Self { program: "ip6tables", restore: "ip6tables-restore", metadata: &METADATA_V6, is_v6: true }
    }

    /// Every rule as it stands now.
    async fn listing(&self, search_path: &str) -> Result<String, CommandError> {
        let listed = command::run(self.program, &["-w", "5", "-S"], b"", search_path, COMMAND_LIMIT).await?;
        Ok(String::from_utf8_lossy(&listed).into_owned())
    }

    /// Changes in one transaction.
    async fn restore(&self, text: &str, search_path: &str) -> Result<(), CommandError> {
        let arguments = ["-w", "5", "--noflush"];
        command::run(self.restore, &arguments, text.as_bytes(), search_path, COMMAND_LIMIT).await.map(drop)
    }
}

/// The rules of both chains, and what the chains are called.
struct Rules {
    host: String,
    out: String,
    host_rules: Vec<String>,
    out_rules: Vec<String>,
}

impl Rules {
    fn new(family: &Family, name_servers: &[IpAddr]) -> Self {
        let own = name_servers.iter().filter(|address| address.is_ipv6() == family.is_v6);
        let dns: Vec<String> = own
            .flat_map(|address| ["udp", "tcp"].map(|kind| format!("-d {address} -p {kind} --dport 53 -j RETURN")))
            .collect();
        let discovery = NEIGHBOUR_DISCOVERY.iter().filter(|_| family.is_v6);
        let discovery = discovery.map(|kind| format!("-p icmpv6 --icmpv6-type {kind} -j RETURN"));
        let answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned();
        let mut host_rules = vec![answers];
        host_rules.extend(discovery);
        host_rules.extend(dns.iter().cloned());
        host_rules.push("-j REJECT".to_owned());
        let mut out_rules = dns;
        out_rules.extend(family.metadata.iter().map(|address| format!("-d {address} -j REJECT")));
        let digest = Sha256::digest([host_rules.join("\n"), out_rules.join("\n")].join("\n\n"));
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let (host, out) = (format!("{HOST_CHAIN}{digest}"), format!("{OUT_CHAIN}{digest}"));
        Self { host, out, host_rules, out_rules }
    }

    /// What changes the rules that stand into those that should; `None` where they are so already.
    fn changes(&self, listing: &str) -> Option<String> {
        let through = hook(listing);
        let jumps = [("INPUT", &self.host), (through, &self.out)];
        let jump = |(chain, to): &(&str, &String)| format!("{chain} -i {BRIDGE} -j {to}");
        let first = |chain: &str| listing.lines().find(|line| line.starts_with(&format!("-A {chain} ")));
        if jumps.iter().all(|(chain, to)| first(chain) == Some(&*format!("-A {}", jump(&(chain, to))))) {
            return None;
        }
        let mut text = "*filter\n".to_owned();
        for (chain, prefix, rules) in
            [(&self.host, HOST_CHAIN, &self.host_rules), (&self.out, OUT_CHAIN, &self.out_rules)]
        {
            text.push_str(&format!(":{chain} - [0:0]\n"));
            for rule in allowed(listing, prefix).into_iter().chain(rules.iter().map(String::as_str)) {
                text.push_str(&format!("-A {chain} {rule}\n"));
            }
        }
        let is_ours = |line: &&str| {
            line.starts_with("-A ") && [HOST_CHAIN, OUT_CHAIN].iter().any(|it| line.contains(&format!("-j {it}")))
        };
        for line in listing.lines().filter(is_ours) {
            text.push_str(&line.replacen("-A", "-D", 1));
            text.push('\n');
        }
        for jump in jumps.iter().map(jump) {
            let (chain, rest) = jump.split_once(' ').unwrap_or((&jump, ""));
            text.push_str(&format!("-I {chain} 1 {rest}\n"));
        }
        let chains = listing.lines().filter_map(|line| line.strip_prefix("-N "));
        for chain in chains.filter(|it| (it.starts_with(HOST_CHAIN) || it.starts_with(OUT_CHAIN)) && !self.has(it)) {
            text.push_str(&format!("-F {chain}\n-X {chain}\n"));
        }
        text.push_str("COMMIT\n");
        Some(text)
    }

    fn has(&self, chain: &str) -> bool {
        chain == self.host || chain == self.out
    }
}

/// Docker's own chain for rules of others, where docker has made it; else the kernel's.
fn hook(listing: &str) -> &'static str {
    let is_there = listing.lines().any(|line| line.strip_prefix("-N ") == Some(DOCKER_CHAIN));
    if is_there { DOCKER_CHAIN } else { "FORWARD" }
}

/// Rules of tasks in chains of that kind, without the chain's name.
fn allowed<'a>(listing: &'a str, prefix: &str) -> Vec<&'a str> {
    let rules = listing.lines().filter(|line| line.contains(COMMENT));
    let rules = rules.filter_map(|line| line.strip_prefix("-A ")?.strip_prefix(prefix)?.split_once(' '));
    let rules: BTreeSet<&str> = rules.map(|(_, rule)| rule).collect();
    rules.into_iter().collect()
}

async fn close(family: &Family, name_servers: &[IpAddr], search_path: &str) -> Wall {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match try_to_close(family, name_servers, search_path).await {
            Ok(()) => return Wall::Closed,
            Err(error @ CommandError::NotFound { .. }) => return Wall::Open { why: error.to_string() },
            Err(error) => last = error.to_string(),
        }
    }
    Wall::Open { why: last }
}

async fn try_to_close(family: &Family, name_servers: &[IpAddr], search_path: &str) -> Result<(), CommandError> {
    let rules = Rules::new(family, name_servers);
    let Some(changes) = rules.changes(&family.listing(search_path).await?) else { return Ok(()) };
    family.restore(&changes, search_path).await
}

/// Where the kernel speaks no IPv6 there is nothing to close.
async fn close_v6(name_servers: &[IpAddr], search_path: &str) -> Wall {
    match fs::exists("/proc/net/if_inet6") {
        Ok(false) => Wall::Closed,
        _ => close(&Family::v6(), name_servers, search_path).await,
    }
}

/// A container behind one port of the bridge sends nothing to another port: not IP, which docker's own rules stop, and
/// not ARP, which they do not see. A port's isolation goes with the port; every container's is a new one.
pub(super) fn isolate_ports() -> Wall {
    match isolate_all(&Path::new("/sys/class/net").join(BRIDGE).join("brif")) {
        Ok(()) => Wall::Closed,
        Err(error) => Wall::Open { why: format!("the ports of the bridge could not be isolated: {error}") },
    }
}

fn isolate_all(ports: &Path) -> io::Result<()> {
    // Where there is no bridge yet, there is no port.
    navvy_plain_file::directory::entries(ports)?.iter().try_for_each(|port| isolate(&port.path()))
}

fn isolate(port: &Path) -> io::Result<()> {
    let place = port.join("isolated");
    match fs::read_to_string(&place).and_then(|now| if now.trim() == "1" { Ok(()) } else { fs::write(&place, "1") }) {
        // Its container has ended.
        Err(_) if matches!(port.try_exists(), Ok(false)) => Ok(()),
        done => done,
    }
}

/// Lets a task, at its address, through to what it was allowed. Its rules carry its id.
pub(super) async fn allow(
    family: &Family,
    task: &str,
    source: IpAddr,
    [to_host, beyond]: &[Vec<String>; 2],
    search_path: &str,
) -> Result<(), CommandError> {
    let listing = family.listing(search_path).await?;
    let mut text = "*filter\n".to_owned();
    for chain in listing.lines().filter_map(|line| line.strip_prefix("-N ")) {
        let matches: &[String] = match chain {
            _ if chain.starts_with(HOST_CHAIN) => to_host,
            _ if chain.starts_with(OUT_CHAIN) => beyond,
            _ => &[],
        };
        for matched in matches {
            let comment = format!("-m comment --comment {COMMENT}{task}");
            text.push_str(&format!("-I {chain} 1 -s {source} {matched} {comment} -j RETURN\n"));
        }
    }
    family.restore(&(text + "COMMIT\n"), search_path).await
}

/// Takes back what a task was allowed.
pub(super) async fn disallow(family: &Family, task: &str, search_path: &str) -> Result<(), CommandError> {
    let listing = family.listing(search_path).await?;
    let comment = format!("{COMMENT}{task}");
    let rules = listing.lines().filter(|line| line.split([' ', '"']).any(|word| word == comment));
    let rules: Vec<String> = rules.map(|line| line.replacen("-A", "-D", 1)).collect();
    if rules.is_empty() {
        return Ok(());
    }
    family.restore(&format!("*filter\n{}\nCOMMIT\n", rules.join("\n")), search_path).await
}

/// Those that dockerd asks from a container's own network: the host's, but for its own loopback, which dockerd asks from
/// the host's network.
fn name_servers() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for file in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
        found.extend(of_resolv_conf(&fs::read_to_string(file).unwrap_or_default()));
    }
    found.extend(of_daemon_json(&fs::read_to_string("/etc/docker/daemon.json").unwrap_or_default()));
    found.retain(|address| !address.is_loopback());
    found.sort();
    found.dedup();
    found
}

fn of_resolv_conf(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        // A zone (`fe80::1%eth0`) is of no use to a container.
        words.next()?.parse().ok()
    });
    servers.collect()
}

fn of_daemon_json(text: &str) -> Vec<IpAddr> {
    let settings: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let servers = settings["dns"].as_array().into_iter().flatten();
    servers.filter_map(|server| server.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: &str = "-P INPUT ACCEPT\n-N DOCKER-USER\n-A INPUT -i eth0 -j ACCEPT\n-A DOCKER-USER -j RETURN\n";

    fn rules(name_servers: &[&str]) -> Rules {
        let servers: Vec<IpAddr> = name_servers.iter().map(|text| text.parse().unwrap()).collect();
        Rules::new(&Family::v4(), &servers)
    }

    #[test]
    fn ports_that_cannot_be_listed_are_not_isolated() {
        let scratch = tempfile::tempdir().unwrap();
        isolate_all(&scratch.path().join("no bridge yet")).unwrap();
        let file = scratch.path().join("brif");
        fs::write(&file, "").unwrap();
        assert_eq!(isolate_all(&file).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        fs::remove_file(&file).unwrap();
        fs::create_dir_all(file.join("port")).unwrap();
        isolate_all(&file).unwrap_err();
        fs::write(file.join("port/isolated"), "0").unwrap();
        isolate_all(&file).unwrap();
        assert_eq!(fs::read_to_string(file.join("port/isolated")).unwrap(), "1");
    }

    #[test]
    fn both_chains_are_made_and_jumped_to_before_anything_else() {
        let rules = rules(&["10.0.0.53", "fd00::53"]);
        let (host, out) = (&rules.host, &rules.out);
        assert_eq!(
            rules.changes(FRESH).unwrap(),
            format!(
                "*filter\n:{host} - [0:0]\n-A {host} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n\
                 -A {host} -d 10.0.0.53 -p udp --dport 53 -j RETURN\n-A {host} -d 10.0.0.53 -p tcp --dport 53 -j RETURN\n\
                 -A {host} -j REJECT\n:{out} - [0:0]\n-A {out} -d 10.0.0.53 -p udp --dport 53 -j RETURN\n\
                 -A {out} -d 10.0.0.53 -p tcp --dport 53 -j RETURN\n-A {out} -d 169.254.0.0/16 -j REJECT\n\
                 -A {out} -d 168.63.129.16/32 -j REJECT\n-A {out} -d 100.100.100.200/32 -j REJECT\n\
                 -I INPUT 1 -i navvy0 -j {host}\n-I DOCKER-USER 1 -i navvy0 -j {out}\nCOMMIT\n"
            )
        );
        let v6 = Rules::new(&Family::v6(), &[]).changes("-P INPUT ACCEPT\n").unwrap();
        assert!(v6.contains("-d fd00:ec2::/32 -j REJECT") && v6.contains("-I FORWARD 1 -i navvy0"), "{v6}");
    }

    #[test]
    fn what_stands_first_is_left_and_what_does_not_is_put_there() {
        let rules = rules(&[]);
        let (host, out) = (&rules.host, &rules.out);
        let made = format!(
            "-N DOCKER-USER\n-N {host}\n-N {out}\n-A INPUT -i navvy0 -j {host}\n-A INPUT -i eth0 -j ACCEPT\n\
             -A DOCKER-USER -i navvy0 -j {out}\n-A DOCKER-USER -j RETURN\n"
        );
        assert_eq!(rules.changes(&made), None);
        let behind = made.replace("-A INPUT -i navvy0", "-A INPUT -j OTHERS\n-A INPUT -i navvy0");
        let changes = rules.changes(&behind).unwrap();
        assert!(changes.contains(&format!("-D INPUT -i navvy0 -j {host}\n")), "{changes}");
        assert!(changes.contains(&format!("-I INPUT 1 -i navvy0 -j {host}\n")), "{changes}");
        assert!(!changes.contains("OTHERS") && !changes.contains("-X "), "{changes}");
        // A chain that was emptied by hand goes with its jump.
        assert!(rules.changes(&made.replace("-A INPUT -i navvy0", "-A X -i navvy0")).is_some());
    }

    #[test]
    fn chains_of_other_rules_go_and_what_running_tasks_were_allowed_stays() {
        let (old, new) = (rules(&["10.0.0.1"]), rules(&["10.0.0.2"]));
        assert_ne!(old.host, new.host);
        let (host, out) = (&old.host, &old.out);
        let allowed = "-s 172.18.0.2/32 -p tcp -m tcp --dport 80 -m comment --comment navvy-task-0123 -j RETURN";
        let listing = format!(
            "-N DOCKER-USER\n-N {host}\n-N {out}\n-A INPUT -i navvy0 -j {host}\n-A DOCKER-USER -i navvy0 -j {out}\n\
             -A {host} {allowed}\n-A {host} -j REJECT\n"
        );
        let changes = new.changes(&listing).unwrap();
        assert!(changes.contains(&format!(":{} - [0:0]\n-A {} {allowed}\n", new.host, new.host)), "{changes}");
        assert!(changes.contains(&format!("-D INPUT -i navvy0 -j {host}\n")), "{changes}");
        assert!(changes.contains(&format!("-F {host}\n-X {host}\n-F {out}\n-X {out}\nCOMMIT\n")), "{changes}");
    }

    #[test]
    fn name_servers_that_containers_ask_are_found() {
        let text =
            "# nameserver 1.1.1.1\nsearch x\nnameserver 10.0.0.53\nnameserver fd00::53\nnameserver fe80::1%eth0\n";
        let addresses: Vec<String> = of_resolv_conf(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.53", "fd00::53"]);
        assert_eq!(of_daemon_json(r#"{"dns": ["172.17.0.1", 3]}"#).len(), 1);
        assert!(of_daemon_json("").is_empty() && of_daemon_json(r#"{"dns": "x"}"#).is_empty());
    }

    #[test]
    fn what_is_open_is_told_with_its_reason() {
        let walls = Walls::open("closing takes root");
        assert_eq!(
            walls.told(),
            "metadata addresses open, this host open (closing takes root), ARP between jobs open (closing takes root)"
        );
        let closed = Walls { v4: Wall::Closed, v6: Wall::Closed, frames: Wall::Closed, name_servers: Vec::new() };
        assert_eq!(closed.told(), "metadata addresses closed, this host closed, ARP between jobs closed");
        let half = Walls { v6: Wall::Open { why: "no ip6tables".into() }, ..closed };
        assert!(half.told().contains("metadata addresses by IPv6 open, this host by IPv6 open (no ip6tables)"));
        assert!(!half.are_whole());
    }
}
