//! Is a seed one that can be applied? A seed with a fault is refused whole, before anything is touched.

use std::net::Ipv4Addr;

use navvy_protocol::guest::{Network, Seed, SeedFile, Volume};

use crate::kernel::ENTROPY_CAP;

const ENTROPY_LEAST: usize = 32;
const SECRET_LEAST: usize = 16;
const SECRET_CAP: usize = 4096;
const KEY_CAP: usize = 16 << 10;
/// Of lines of `authorized_keys`, name servers, volumes.
const FEW: usize = 64;
/// Of files and variables.
const MANY: usize = 1024;
const PATH_CAP: usize = 1024;

/// A seed whose texts have been read.
pub struct Checked<'a> {
    pub seed: &'a Seed,
    pub entropy: Vec<u8>,
    pub network: Option<CheckedNetwork>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct CheckedNetwork {
    pub link_address: [u8; 6],
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub name_servers: Vec<String>,
}

/// Why a seed is refused, in a sentence without any of its secrets.
pub fn check(seed: &Seed) -> Result<Checked<'_>, String> {
    let entropy = hex(&seed.entropy).filter(|bytes| (ENTROPY_LEAST..=ENTROPY_CAP).contains(&bytes.len()));
    let entropy = entropy
        .ok_or_else(|| format!("its entropy is not {ENTROPY_LEAST} to {ENTROPY_CAP} bytes in hexadecimal digits"))?;
    hold(seed.time_ns >= 1_000_000_000, "its clock is not set")?;
    hold((SECRET_LEAST..=SECRET_CAP).contains(&seed.secret.len()) && is_plain(&seed.secret), "its secret is not one")?;
    hold(is_machine_id(&seed.machine_id), "its machine id is not 32 lower-case hexadecimal digits, not all 0")?;
    hold(is_host_name(&seed.host_name), "its host name is not 1 to 63 letters, digits and hyphens")?;
    hold(seed.host_key.as_deref().is_none_or(is_key), "its host key is not a private key in OpenSSH's format")?;
    hold(seed.authorized_keys.len() <= FEW, "it has too many authorized keys")?;
    hold(
        seed.authorized_keys.iter().all(|line| line.len() <= KEY_CAP && is_plain(line)),
        "one of its authorized keys is not one line",
    )?;
    hold(seed.volumes.len() <= FEW && seed.volumes.iter().all(is_volume), "one of its volumes is not one")?;
    hold(seed.files.len() <= MANY, "it has too many files")?;
    if let Some(file) = seed.files.iter().find(|file| !is_file(file)) {
        return Err(format!(
            "its file {:?} has no absolute path of names, or another mode than permissions",
            shown(&file.path)
        ));
    }
    hold(seed.variables.len() <= MANY && seed.variables.iter().all(is_variable), "one of its variables is not one")?;
    let network = seed.network.as_ref().map(check_network).transpose()?;
    Ok(Checked { seed, entropy, network })
}

fn hold(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn shown(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| &text[..end])
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * ENTROPY_CAP {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// No byte of it can end a line or a text.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_machine_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && id.bytes().any(|b| b != b'0')
}

fn is_host_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_of_name) && !name.starts_with('-') && !name.ends_with('-')
}

fn is_key(key: &str) -> bool {
    key.len() <= KEY_CAP && key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n") && !key.contains('\0')
}

/// Absolute, of names alone: no `.`, no `..`, nothing empty.
fn is_path(path: &str) -> bool {
    let names = path.strip_prefix('/').unwrap_or_default();
    path.len() <= PATH_CAP && is_plain(path) && names.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

fn is_volume(volume: &Volume) -> bool {
    let is_of_serial = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&volume.serial.len()) && volume.serial.bytes().all(is_of_serial) && is_path(&volume.path)
}

fn is_file(file: &SeedFile) -> bool {
    is_path(&file.path) && file.mode & !0o7777 == 0
}

fn is_variable((name, value): &(String, String)) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_of_name) && !name.as_bytes()[0].is_ascii_digit() && is_plain(value)
}

fn check_network(network: &Network) -> Result<CheckedNetwork, String> {
    let link_address = link_address(&network.link_address)
        .ok_or("its link address is not one of a single link, as in 52:54:00:12:34:56")?;
    let (address, prefix) = network
        .address
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)))
        .filter(|(_, prefix)| (1..=32).contains(prefix))
        .ok_or("its address is not an IPv4 address with the length of its prefix, as in 10.53.0.7/16")?;
    let gateway = network
        .gateway
        .as_deref()
        .map(|gateway| gateway.parse().map_err(|_| "its gateway is not an IPv4 address".to_owned()));
    let is_server = |server: &String| server.parse::<std::net::IpAddr>().is_ok();
    hold(
        network.name_servers.len() <= FEW && network.name_servers.iter().all(is_server),
        "a name server is no address",
    )?;
    Ok(CheckedNetwork {
        link_address,
        address,
        prefix,
        gateway: gateway.transpose()?,
        name_servers: network.name_servers.clone(),
    })
}

fn link_address(text: &str) -> Option<[u8; 6]> {
    let part = |part: &str| hex(part).filter(|bytes| bytes.len() == 1).map(|bytes| bytes[0]);
    let parts: Vec<u8> = text.split(':').map(part).collect::<Option<_>>()?;
    // The lowest bit of the first byte is set in addresses of groups.
    parts.try_into().ok().filter(|address: &[u8; 6]| address[0] & 1 == 0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn seed() -> Seed {
        Seed {
            time_ns: 1_800_000_000_000_000_000,
            entropy: "0f".repeat(32),
            secret: "a secret of the task's".to_owned(),
            machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
            host_name: "navvy-1".to_owned(),
            idle_limit_s: 0,
            network: Some(Network {
                link_address: "52:54:00:12:34:56".to_owned(),
                address: "10.53.0.7/16".to_owned(),
                gateway: Some("10.53.0.1".to_owned()),
                name_servers: vec!["1.1.1.1".to_owned(), "::1".to_owned()],
            }),
            host_key: Some("-----BEGIN OPENSSH PRIVATE KEY-----\nb3==\n-----END OPENSSH PRIVATE KEY-----\n".to_owned()),
            authorized_keys: vec!["ssh-ed25519 AAAA someone".to_owned()],
            docker: false,
            volumes: vec![Volume { serial: "layers-1".to_owned(), path: "/var/lib/docker".to_owned() }],
            files: vec![SeedFile { path: "/etc/navvy/x".to_owned(), mode: 0o644, text: "x".to_owned() }],
            variables: vec![("HTTP_PROXY".to_owned(), "http://a b".to_owned())],
        }
    }

    #[test]
    fn a_seed_is_read_whole() {
        let seed = seed();
        let checked = check(&seed).unwrap();
        assert_eq!(checked.entropy, [0x0f; 32]);
        let network = checked.network.unwrap();
        assert_eq!((network.link_address, network.prefix), ([0x52, 0x54, 0, 0x12, 0x34, 0x56], 16));
        assert_eq!((network.address, network.gateway), ([10, 53, 0, 7].into(), Some([10, 53, 0, 1].into())));
    }

    /// Each change alone makes a seed that is refused, with a word of what is wrong and none of its secrets.
    #[test]
    fn seeds_with_one_fault_are_refused() {
        let network = |change: fn(&mut Network)| move |seed: &mut Seed| seed.network.iter_mut().for_each(change);
        type Fault = Box<dyn Fn(&mut Seed)>;
        let faults: Vec<(&str, Fault)> = vec![
            ("entropy", Box::new(|seed| seed.entropy = "0f".repeat(31))),
            ("entropy", Box::new(|seed| seed.entropy = "0f".repeat(1025))),
            ("entropy", Box::new(|seed| seed.entropy = "zz".repeat(32))),
            ("entropy", Box::new(|seed| seed.entropy = format!("{}f", seed.entropy))),
            ("clock", Box::new(|seed| seed.time_ns = 0)),
            ("secret", Box::new(|seed| seed.secret = "short".to_owned())),
            ("secret", Box::new(|seed| seed.secret = "x".repeat(5000))),
            ("secret", Box::new(|seed| seed.secret = format!("{}\n", seed.secret))),
            ("machine id", Box::new(|seed| seed.machine_id = "0".repeat(32))),
            ("machine id", Box::new(|seed| seed.machine_id = seed.machine_id.to_uppercase())),
            ("machine id", Box::new(|seed| seed.machine_id.push('0'))),
            ("host name", Box::new(|seed| seed.host_name = String::new())),
            ("host name", Box::new(|seed| seed.host_name = "-a".to_owned())),
            ("host name", Box::new(|seed| seed.host_name = "a b".to_owned())),
            ("host name", Box::new(|seed| seed.host_name = "a\n127.0.0.1 evil".to_owned())),
            ("host name", Box::new(|seed| seed.host_name = "a".repeat(64))),
            ("host key", Box::new(|seed| seed.host_key = Some("ssh-ed25519 AAAA".to_owned()))),
            ("authorized keys", Box::new(|seed| seed.authorized_keys.push("a\nb".to_owned()))),
            ("authorized keys", Box::new(|seed| seed.authorized_keys = vec![String::new(); 65])),
            ("volumes", Box::new(|seed| seed.volumes[0].serial = "../x".to_owned())),
            ("volumes", Box::new(|seed| seed.volumes[0].path = "relative".to_owned())),
            ("volumes", Box::new(|seed| seed.volumes[0].path = "/".to_owned())),
            ("file", Box::new(|seed| seed.files[0].path = "/etc/../x".to_owned())),
            ("file", Box::new(|seed| seed.files[0].path = "/etc//x".to_owned())),
            ("file", Box::new(|seed| seed.files[0].path = "/".to_owned())),
            ("file", Box::new(|seed| seed.files[0].mode = 0o100_644)),
            ("files", Box::new(|seed| seed.files = vec![seed.files[0].clone(); 1025])),
            ("variables", Box::new(|seed| seed.variables[0].0 = "A=B".to_owned())),
            ("variables", Box::new(|seed| seed.variables[0].0 = "1A".to_owned())),
            ("variables", Box::new(|seed| seed.variables[0].1 = "a\nb".to_owned())),
            ("link address", Box::new(network(|network| network.link_address = "52:54:00:12:34".to_owned()))),
            ("link address", Box::new(network(|network| network.link_address = "53:54:00:12:34:56".to_owned()))),
            ("link address", Box::new(network(|network| network.link_address = "+2:54:00:12:34:56".to_owned()))),
            ("address", Box::new(network(|network| network.address = "10.53.0.7".to_owned()))),
            ("address", Box::new(network(|network| network.address = "10.53.0.7/33".to_owned()))),
            ("address", Box::new(network(|network| network.address = "fd00::1/64".to_owned()))),
            ("gateway", Box::new(network(|network| network.gateway = Some("here".to_owned())))),
            ("name server", Box::new(network(|network| network.name_servers.push("a\nb".to_owned())))),
        ];
        for (word, fault) in faults {
            let mut seed = seed();
            fault(&mut seed);
            let Err(why) = check(&seed) else { panic!("{word}: it was taken") };
            assert!(why.contains(word), "{word}: {why}");
            assert!(!why.contains("secret of the task") && !why.contains("b3=="), "{why}");
        }
    }
}
