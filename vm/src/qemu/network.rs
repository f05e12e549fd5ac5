//! The machines' network on this host, where this process may make one: a bridge whose ports do not see each other, and rules.
//!
//! ```text
//! guest ─ nvyXXXX (isolated port) ─ navvyvm0 ─┬─ input:   answers, what its task was allowed: on; all else is dropped
//!                                             └─ forward: name servers, what its task was allowed: on; private and metadata
//!                                                         addresses are dropped; else on, masqueraded
//! ```
//!
//! Bridge and rules stay: they are shared by all machines of this host, whoever starts them, and cost nothing. An interface, its
//! address and its rules go with their machine. A name that the kernel has given once is given to nobody else: that is the lease.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_environment::allowed::Allowed;
use navvy_environment::command::{self, CommandError};
use navvy_protocol::guest::Network;
use sha2::{Digest as _, Sha256};

use super::random::random;
use crate::error::Fault;
use crate::machine_id::MachineId;
use crate::record::{Fact, Record};
use crate::settings::Subnet;

/// The bridge.
pub const BRIDGE: &str = "navvyvm0";
const TABLE: &str = "navvy-vm";
const LOCK: &str = "/run/navvy-machines.lock";
const LIMIT: Duration = Duration::from_secs(10);
/// Metadata of clouds, this host's neighbours, and what is no address of a host at all.
const CLOSED: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// Docker's own chain for others' rules.
const DOCKER_CHAIN: &str = "DOCKER-USER";
/// What iptables says of a chain that is not there.
const NO_CHAIN: &str = "No chain/target/match by that name";
/// What it says of a table that others have made as it cannot show it, and of one that the kernel does not have.
const NO_LIST: [&str; 2] = ["is incompatible", "Table does not exist"];
/// Of this host's name servers; the second has those behind systemd's own.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The process of a machine runs as its own user: this and the number of its interface. Above what systemd gives to containers.
const FIRST_UID: u32 = 1_900_000_000;

/// A machine's interface and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The interface's name.
    pub interface: String,
    /// The machine's address.
    pub address: Ipv4Addr,
    /// Its link address.
    pub link_address: String,
    /// Which of the leases it is.
    pub number: u32,
}

impl Lease {
    fn new(number: u32, subnet: Subnet) -> Self {
        let address = Ipv4Addr::from(u32::from(subnet.network) + number);
        let [_, b, c, d] = number.to_be_bytes();
        let link_address = format!("52:54:4e:{b:02x}:{c:02x}:{d:02x}");
        Self { interface: format!("nvy{number:04x}"), address, link_address, number }
    }

    /// The lease of an interface's name; `None`: it is no name of a machine's interface.
    pub fn named(interface: &str, subnet: Subnet) -> Option<Self> {
        let digits = interface.strip_prefix("nvy").filter(|digits| digits.len() == 4)?;
        let number = u32::from_str_radix(digits, 16).ok()?;
        Some(Self::new(number, subnet)).filter(|lease| lease.interface == interface)
    }

    /// For a machine that has no lease.
    pub fn random_link_address() -> io::Result<String> {
        let [b, c, d] = random()?;
        Ok(format!("52:54:4f:{b:02x}:{c:02x}:{d:02x}"))
    }

    /// The user that the machine's process becomes.
    pub fn uid(&self) -> u32 {
        FIRST_UID + self.number
    }

    /// What the guest is told.
    pub fn network(&self, subnet: Subnet, name_servers: &[IpAddr]) -> Network {
        Network {
            link_address: self.link_address.clone(),
            address: format!("{}/{}", self.address, subnet.prefix),
            gateway: Some(gateway(subnet).to_string()),
            name_servers: name_servers.iter().map(IpAddr::to_string).collect(),
        }
    }
}

fn gateway(subnet: Subnet) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network) + 1)
}

/// Makes what is not there yet, and a machine's part of it.
pub async fn lease(
    record: &Record,
    subnet: Subnet,
    allowed: &Allowed,
    search_path: &str,
) -> Result<(Lease, Vec<IpAddr>), Fault> {
    let _alone = lock().await?;
    let name_servers = name_servers(&RESOLVERS)?;
    make_shared(subnet, &name_servers, search_path).await?;
    let lease = free(&record.machine(), subnet)?;
    record
        .note(Fact::Tap {
            name: lease.interface.clone(),
            address: lease.address.to_string(),
            link_address: lease.link_address.clone(),
        })
        .await?;
    // Both are there before the machine's process is.
    let port = port_lines(&lease, &record.machine());
    let rules = own_rules(&lease, allowed);
    tokio::try_join!(ip(&port, search_path), nft(&rules, search_path))?;
    Ok((lease, name_servers))
}

/// Lets a machine that is there, and that was allowed nothing yet, reach what its task may. Returns this host's name servers.
pub async fn allow(lease: &Lease, allowed: &Allowed, search_path: &str) -> Result<Vec<IpAddr>, Fault> {
    let _alone = lock().await?;
    let name_servers = name_servers(&RESOLVERS)?;
    // What is there already is added once.
    nft(&own_rules(lease, allowed), search_path).await?;
    Ok(name_servers)
}

/// Removes a machine's part. Missing is fine; what has become another machine's is left.
pub async fn give_back(machine: &MachineId, interface: &str, address: &str, search_path: &str) -> Result<(), String> {
    let _alone = lock().await.map_err(|e| e.to_string())?;
    let place = class(interface);
    let alias = fs::read_to_string(place.join("ifalias")).unwrap_or_default();
    if !alias.trim().is_empty() && alias.trim() != alias_of(machine) {
        return Ok(());
    }
    let removals = removals(interface, address);
    if nft(&removals.concat(), search_path).await.is_err() {
        // One by one: each may be there without the others.
        for rules in removals {
            let _not_there = nft(&rules, search_path).await;
        }
    }
    if place.exists() {
        let gone = run("ip", &["link", "delete", "dev", interface], search_path).await;
        if place.exists() {
            return Err(format!("interface {interface} ({})", gone.err().map_or_else(String::new, |e| e.to_string())));
        }
    }
    Ok(())
}

/// One process at a time changes anything; the lock goes with the process.
async fn lock() -> Result<fs::File, Fault> {
    let take = || {
        let file = fs::File::options().create(true).append(true).open(LOCK)?;
        file.lock().map(|()| file)
    };
    let taken = tokio::task::spawn_blocking(take).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    taken.map_err(Fault::host(format!("lock {LOCK}")))
}

fn class(interface: &str) -> PathBuf {
    Path::new("/sys/class/net").join(interface)
}

fn alias_of(machine: &MachineId) -> String {
    format!("navvy:{machine}")
}

/// The first that the kernel has not given: by the machine's id on, so that an address is not soon another machine's.
fn free(machine: &MachineId, subnet: Subnet) -> Result<Lease, Fault> {
    let room = (1u32 << (32 - u32::from(subnet.prefix.clamp(8, 29)))) - 3;
    let room = room.min(0xfff0);
    let seed = Sha256::digest(machine.as_str().as_bytes());
    let first = u32::from_be_bytes([seed[0], seed[1], seed[2], seed[3]]) % room;
    let mut numbers = (0..room).map(|at| 2 + (first + at) % room);
    let number = numbers.find(|number| !class(&format!("nvy{number:04x}")).exists());
    number.map(|number| Lease::new(number, subnet)).ok_or_else(|| {
        Fault::Network(format!("every address of {}/{} is taken by a machine", subnet.network, subnet.prefix))
    })
}

/// Isolated before it is up: no frame of it ever reaches another machine.
fn port_lines(lease: &Lease, machine: &MachineId) -> String {
    let (name, alias) = (lease.interface.as_str(), alias_of(machine));
    format!(
        "tuntap add dev {name} mode tap
link set dev {name} alias {alias} master {BRIDGE}
link set dev {name} type bridge_slave isolated on
link set dev {name} up
"
    )
}

fn network(error: CommandError) -> Fault {
    Fault::Network(error.to_string())
}

async fn make_shared(subnet: Subnet, name_servers: &[IpAddr], search_path: &str) -> Result<(), Fault> {
    if !class(BRIDGE).exists() {
        check_unused(subnet, search_path).await?;
        run("ip", &["link", "add", BRIDGE, "type", "bridge"], search_path).await.map_err(network)?;
    }
    // Each of them may be what an earlier process did not come to.
    let ipv6 = Path::new("/proc/sys/net/ipv6/conf").join(BRIDGE).join("disable_ipv6");
    if ipv6.exists() {
        fs::write(&ipv6, "1").map_err(Fault::host(format!("write {}", ipv6.display())))?;
    }
    let address = format!("{}/{}", gateway(subnet), subnet.prefix);
    let bridge = format!("address replace {address} dev {BRIDGE}\nlink set dev {BRIDGE} up\n");
    let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
    if fs::read_to_string(forward).is_ok_and(|now| now.trim() != "1") {
        fs::write(forward, "1").map_err(Fault::host("let this host forward what machines send"))?;
    }
    let rules = make_rules(shared_rules(subnet, name_servers), search_path);
    tokio::try_join!(ip(&bridge, search_path), rules, pass_docker(search_path)).map(drop)
}

/// The rules of all machines, unless they are there as they are here: an empty chain, their marker, is named after what was loaded last.
async fn make_rules(rules: String, search_path: &str) -> Result<(), Fault> {
    let marker = format!("v{}", digest(&rules));
    let listed = run("nft", &["list", "chains", "inet"], search_path).await.map_err(network)?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let (current, others): (Vec<&str>, Vec<&str>) = markers(&listed).into_iter().partition(|it| *it == marker);
    if !current.is_empty() && others.is_empty() {
        return Ok(());
    }
    // One that stayed would say later that its rules stand. An earlier version leaves its own beside ours, whoever came last.
    let removals: String = others.iter().map(|it| format!("delete chain inet {TABLE} {it}\n")).collect();
    nft(&format!("{rules}add chain inet {TABLE} {marker}\n{removals}"), search_path).await
}

/// The markers in a list of chains.
fn markers(chains: &str) -> Vec<&str> {
    let own = format!("table inet {TABLE} {{");
    let of_table = chains.lines().skip_while(|line| !line.starts_with(&own)).take_while(|line| *line != "}");
    let names = of_table.filter_map(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"));
    names.filter(|name| is_marker(name)).collect()
}

fn is_marker(chain: &str) -> bool {
    let is_digest = |digits: &str| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    chain.strip_prefix('v').is_some_and(is_digest)
}

/// An address of somebody else's network would lead into the bridge instead.
async fn check_unused(subnet: Subnet, search_path: &str) -> Result<(), Fault> {
    let routes = run("ip", &["-4", "-o", "route", "show"], search_path).await.map_err(network)?;
    let routes = String::from_utf8_lossy(&routes).into_owned();
    match routes.lines().find(|line| overlaps(line, subnet)) {
        None => Ok(()),
        Some(line) => Err(Fault::Network(format!(
            "{}/{} is in use on this host (route {}); name another one as `network` in `[vm]` of the settings",
            subnet.network,
            subnet.prefix,
            line.trim()
        ))),
    }
}

fn overlaps(route: &str, subnet: Subnet) -> bool {
    let Some(target) = route.split_whitespace().next() else { return false };
    let (address, prefix) = target.split_once('/').unwrap_or((target, "32"));
    let (Ok(address), Ok(prefix)) = (address.parse::<Ipv4Addr>(), prefix.parse::<u8>()) else { return false };
    let bits = u32::from(prefix.min(subnet.prefix).min(32));
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    u32::from(address) & mask == u32::from(subnet.network) & mask
}

/// Where Docker's own policy drops what is forwarded, an accept elsewhere does not help.
async fn pass_docker(search_path: &str) -> Result<(), Fault> {
    let Some(listed) = docker_rules(search_path).await? else { return Ok(()) };
    let out = format!("-i {BRIDGE} -j ACCEPT");
    let back = format!("-o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    for rule in [out, back] {
        if listed.lines().any(|line| line == format!("-A {DOCKER_CHAIN} {rule}")) {
            continue;
        }
        let words = format!("-w 5 -I {DOCKER_CHAIN} 1 {rule}");
        let words: Vec<&str> = words.split(' ').collect();
        run("iptables", &words, search_path).await.map_err(network)?;
    }
    Ok(())
}

/// Rules of iptables with those of Docker's chain among them. `None`: there is no such chain.
async fn docker_rules(search_path: &str) -> Result<Option<String>, Fault> {
    match run("iptables", &["-w", "5", "-S", DOCKER_CHAIN], search_path).await {
        Ok(listed) => return Ok(Some(String::from_utf8_lossy(&listed).into_owned())),
        Err(CommandError::NotFound { .. }) => return Ok(None),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains(NO_CHAIN) => return Ok(None),
        // One that works by nf_tables calls a chain that is not there incompatible: the list of all rules tells which it is.
        Err(CommandError::Failed { .. }) => {}
        Err(error) => return Err(network(error)),
    }
    let listed = match run("iptables", &["-w", "5", "-S"], search_path).await {
        Err(CommandError::Failed { stderr, .. }) if NO_LIST.iter().any(|words| stderr.contains(words)) => {
            tracing::warn!("Whether Docker stops what machines send, iptables does not say: {}.", stderr.trim());
            return Ok(None);
        }
        listed => listed.map_err(network)?,
    };
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let is_there = listed.lines().any(|line| line == format!("-N {DOCKER_CHAIN}"));
    Ok(is_there.then_some(listed))
}

/// What all machines have in common. What single machines were allowed stays as it is.
fn shared_rules(subnet: Subnet, name_servers: &[IpAddr]) -> String {
    let (network, prefix) = (subnet.network, subnet.prefix);
    let v4 = name_servers.iter().filter(|it| it.is_ipv4());
    let names: String =
        v4.map(|it| format!("    ip daddr {it} meta l4proto {{ tcp, udp }} th dport 53 accept\n")).collect();
    let closed = CLOSED.join(", ");
    let hook = |chain: &str, kind: &str| format!("  chain {chain} {{ type {kind}; policy accept; }}\n");
    let kinds = [
        "\n  map to_host { type ipv4_addr : verdict; }\n  map beyond { type ipv4_addr : verdict; }\n".to_owned(),
        hook("input", "filter hook input priority -5"),
        hook("forward", "filter hook forward priority -5"),
        hook("postrouting", "nat hook postrouting priority 100"),
        "  chain from_machine { }\n".to_owned(),
    ]
    .concat();
    let prerouting = hook("prerouting", "filter hook prerouting priority -300");
    let chains = ["input", "forward", "from_machine", "postrouting"];
    let flush: String = chains.iter().map(|chain| format!("flush chain inet {TABLE} {chain}\n")).collect();
    format!(
        "table inet {TABLE} {{ {kinds} }}\n{flush}table inet {TABLE} {{
  chain input {{
    iifname != \"{BRIDGE}\" accept
    ct state established,related accept
    meta nfproto ipv6 drop
{names}    ip saddr vmap @to_host
    drop
  }}
  chain forward {{
    iifname \"{BRIDGE}\" jump from_machine
    oifname \"{BRIDGE}\" ct state established,related accept
    oifname \"{BRIDGE}\" drop
  }}
  chain from_machine {{
    meta nfproto ipv6 drop
    oifname \"{BRIDGE}\" drop
    ip saddr != {network}/{prefix} drop
    ct state established,related accept
{names}    ip saddr vmap @beyond
    ip daddr {{ {closed} }} drop
  }}
  chain postrouting {{
    ip saddr {network}/{prefix} oifname != \"{BRIDGE}\" masquerade
  }}
}}
table bridge {TABLE} {{
  set own {{ type ifname . ipv4_addr; }}
{prerouting}}}
flush chain bridge {TABLE} prerouting
table bridge {TABLE} {{
  chain prerouting {{
    iifname \"nvy*\" ether type ip6 drop
    iifname \"nvy*\" ether type ip iifname . ip saddr != @own drop
    iifname \"nvy*\" ether type arp iifname . arp saddr ip != @own drop
  }}
}}
"
    )
}

/// What one machine may reach that others may not, and the one address that it may have.
fn own_rules(lease: &Lease, allowed: &Allowed) -> String {
    let Lease { interface, address, .. } = lease;
    let mut text = format!("add element bridge {TABLE} own {{ \"{interface}\" . {address} }}\n");
    for (map, is_beyond) in [("to_host", false), ("beyond", true)] {
        let chain = format!("{interface}_{map}");
        let rules: String = allowed
            .matches(false, is_beyond)
            .iter()
            .map(|words| format!("add rule inet {TABLE} {chain} {} accept\n", rule(words)))
            .collect();
        text.push_str(&format!("add chain inet {TABLE} {chain}\n{rules}"));
        text.push_str(&format!("add element inet {TABLE} {map} {{ {address} : jump {chain} }}\n"));
    }
    text
}

/// The words of iptables in those of nft.
fn rule(words: &str) -> String {
    let mut words = words.split(' ');
    let (mut address, mut protocol, mut port) = (None, None, None);
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            "-d" => address = Some(value),
            "-p" => protocol = Some(value),
            _ => port = Some(value),
        }
    }
    let address = address.map(|address| format!("ip daddr {address}"));
    let port = protocol.zip(port).map(|(protocol, port)| format!("{protocol} dport {port}"));
    [address, port].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn removals(interface: &str, address: &str) -> Vec<String> {
    let mut all = vec![format!("delete element bridge {TABLE} own {{ \"{interface}\" . {address} }}\n")];
    for map in ["to_host", "beyond"] {
        all.push(format!("delete element inet {TABLE} {map} {{ {address} }}\n"));
        all.push(format!("delete chain inet {TABLE} {interface}_{map}\n"));
    }
    all
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// One line after the other, up to the first that fails.
async fn ip(lines: &str, search_path: &str) -> Result<(), Fault> {
    command::run("ip", &["-batch", "-"], lines.as_bytes(), search_path, LIMIT).await.map(drop).map_err(network)
}

async fn nft(rules: &str, search_path: &str) -> Result<(), Fault> {
    command::run("nft", &["-f", "-"], rules.as_bytes(), search_path, LIMIT).await.map(drop).map_err(network)
}

async fn run(program: &str, arguments: &[&str], search_path: &str) -> Result<Vec<u8>, CommandError> {
    command::run(program, arguments, b"", search_path, LIMIT).await
}

/// Those of this host that a machine can ask, by these files, each of which may be missing.
fn name_servers(files: &[&str]) -> Result<Vec<IpAddr>, Fault> {
    let mut found = Vec::new();
    for file in files {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // None at all would be written into the rules of all machines.
            Err(error) => return Err(Fault::host(format!("read {file}"))(error)),
        };
        for line in String::from_utf8_lossy(&text).lines() {
            let mut words = line.split_whitespace();
            let server = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next()?.parse().ok());
            found.extend(server.filter(|it: &IpAddr| it.is_ipv4() && !it.is_loopback()));
        }
    }
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet::default()
    }

    #[test]
    fn rules_of_all_machines() {
        insta::assert_snapshot!(shared_rules(subnet(), &["10.255.255.53".parse().unwrap()]));
    }

    #[test]
    fn what_one_machine_was_allowed_is_its_own() {
        let words = ["3128".to_owned(), "10.1.2.3:53/udp".to_owned(), "192.168.7.7".to_owned()];
        insta::assert_snapshot!(own_rules(&Lease::new(7, subnet()), &Allowed::parse(&words).unwrap()));
    }

    /// A program of this name before all others on a search path. A shell writes it: what this process has open for writing, another test's
    /// child may have open a moment longer, and then nobody can run it.
    fn fake(program: &str, script: &str) -> (tempfile::TempDir, String) {
        let place = tempfile::tempdir().unwrap();
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2""#;
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", write, "sh", script]).arg(place.path().join(program));
        assert!(shell.status().unwrap().success());
        let search_path = format!("{}:/usr/bin:/bin", place.path().display());
        (place, search_path)
    }

    /// As nft keeps the chains of our table, beside a table of somebody else; what was loaded last is in `loaded`.
    const NFT: &str = r#"
cd "${0%/*}" || exit 2
touch chains
case "$*" in
  "list chains inet")
    printf 'table inet other {\n\tchain v00000000000a {\n\t}\n}\ntable inet navvy-vm {\n\tchain input {\n'
    printf '\t\ttype filter hook input priority filter - 5; policy accept;\n\t}\n\tchain nvy0102_beyond {\n\t}\n'
    while read -r chain; do printf '\tchain %s {\n\t}\n' "$chain"; done <chains
    printf '}\n' ;;
  "list chain inet navvy-vm "*) grep -qx "$5" chains ;;
  "-f -")
    cat >loaded
    while read -r verb kind family table chain; do
      case "$verb $kind $family $table" in
        "add chain inet navvy-vm") grep -qx "$chain" chains || echo "$chain" >>chains ;;
        "delete chain inet navvy-vm")
          grep -qx "$chain" chains || exit 1
          grep -vx "$chain" chains >rest
          mv rest chains ;;
      esac
    done <loaded ;;
  *) exit 2 ;;
esac
"#;

    #[tokio::test]
    async fn rules_that_were_replaced_meanwhile_are_loaded_again() {
        let (place, search_path) = fake("nft", NFT);
        let rules = |server: &str| shared_rules(subnet(), &[server.parse().unwrap()]);
        let (one, other) = (rules("10.255.255.53"), rules("10.255.255.54"));
        let loaded = || fs::read_to_string(place.path().join("loaded")).unwrap_or_default();
        let chains = || fs::read_to_string(place.path().join("chains")).unwrap();
        for now in [&one, &other, &one] {
            make_rules(now.clone(), &search_path).await.unwrap();
            assert!(loaded().starts_with(now), "{}", loaded());
            assert_eq!(chains(), format!("v{}\n", digest(now)));
        }
        // What stands is not loaded again.
        fs::remove_file(place.path().join("loaded")).unwrap();
        make_rules(one.clone(), &search_path).await.unwrap();
        assert_eq!(loaded(), "");
        // An earlier version leaves our marker where it is.
        fs::write(place.path().join("chains"), format!("v{}\nv{}\n", digest(&one), digest(&other))).unwrap();
        make_rules(one.clone(), &search_path).await.unwrap();
        assert!(loaded().starts_with(&one), "{}", loaded());
        assert_eq!(chains(), format!("v{}\n", digest(&one)));
    }

    #[tokio::test]
    async fn only_a_chain_that_is_not_there_is_none_of_docker_s() {
        let rule = |words: &str| format!("-A DOCKER-USER {words}");
        let both =
            [rule("-i navvyvm0 -j ACCEPT"), rule("-o navvyvm0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")];
        let incompatible =
            r#"echo "chain \`DOCKER-USER' in table \`filter' is incompatible, use 'nft' tool." >&2; exit 1"#;
        let one = |all: &str| format!("case \"$4\" in DOCKER-USER) {incompatible} ;; *) printf %b '{all}' ;; esac");
        for (script, is_fine) in [
            ("echo 'iptables: No chain/target/match by that name.' >&2; exit 1".to_owned(), true),
            ("echo 'Another app is currently holding the xtables lock.' >&2; exit 4".to_owned(), false),
            ("echo \"can't initialize iptables table: Permission denied\" >&2; exit 3".to_owned(), false),
            // Others have written there what it cannot show.
            (incompatible.to_owned(), true),
            (one("-P FORWARD ACCEPT\\n-N DOCKER\\n"), true),
            (one(&format!("-P FORWARD ACCEPT\\n-N DOCKER-USER\\n{}\\n{}\\n", both[0], both[1])), true),
            // The other rule is missing, and the chain takes none.
            (one(&format!("-P FORWARD ACCEPT\\n-N DOCKER-USER\\n{}\\n", both[0])), false),
        ] {
            let (_place, search_path) = fake("iptables", &script);
            let passed = pass_docker(&search_path).await;
            assert_eq!(passed.is_ok(), is_fine, "{script}: {passed:?}");
            assert!(matches!(passed, Ok(()) | Err(Fault::Network(_))), "{script}: {passed:?}");
        }
    }

    #[test]
    fn name_servers_that_cannot_be_read_are_not_none() {
        let place = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| place.path().join(name).display().to_string());
        fs::write(&one, b"# \xff\nnameserver 10.0.0.53\nnameserver 127.0.0.53\nnameserver fe80::1\n").unwrap();
        let files = [one.as_str(), other.as_str()];
        assert_eq!(name_servers(&files).unwrap(), ["10.0.0.53".parse::<IpAddr>().unwrap()], "the other is missing");
        fs::create_dir(&other).unwrap();
        let fault = name_servers(&files).unwrap_err();
        assert!(fault.to_string().contains(&other), "{fault}");
    }

    #[test]
    fn addresses_stay_in_the_network_and_differ() {
        let small = Subnet { network: Ipv4Addr::new(10, 1, 2, 0), prefix: 29 };
        for _ in 0..100 {
            let number = free(&MachineId::random(), small).unwrap().number;
            assert!((2..7).contains(&number), "{number}");
        }
        let lease = Lease::new(0x0102, subnet());
        assert_eq!((lease.interface.as_str(), lease.address.to_string()), ("nvy0102", "10.209.1.2".to_owned()));
        assert_eq!(lease.link_address, "52:54:4e:00:01:02");
        assert_eq!(Lease::named("nvy0102", subnet()), Some(lease));
        for name in ["nvy", "nvy102", "nvyzzzz", "eth0", "nvy0102\"", "nvy+102"] {
            assert_eq!(Lease::named(name, subnet()), None, "{name}");
        }
    }

    #[test]
    fn a_network_that_somebody_else_has_is_seen() {
        for (route, is_taken) in [
            ("default via 192.0.2.1 dev eth0", false),
            ("10.209.0.0/16 dev other", true),
            ("10.0.0.0/8 via 1.2.3.4", true),
            ("10.209.4.4 dev x", true),
            ("10.208.0.0/16 dev y", false),
            ("unreachable 10.0.0.0/8", false),
        ] {
            assert_eq!(overlaps(route, subnet()), is_taken, "{route}");
        }
    }
}
