//! What jobs may reach although it is closed to them (`--allow-host`): ports of this host, and addresses.

use std::fmt;
use std::net::{IpAddr, UdpSocket};

/// What one word of the user opens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opening {
    /// `None` is this host, at any of its addresses.
    address: Option<IpAddr>,
    /// `None` is every port of every protocol.
    port: Option<(u16, Protocol)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// Everything that a run's jobs may reach. A default one is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Opening>);

/// Why a word opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// The word has another shape than a port or an address.
    #[error(
        "{0:?} is neither a port of this host nor an address: PORT, ADDRESS or ADDRESS:PORT is (`3128`, `53/udp`, \
         `172.17.0.1:3128`, `[fd00::1]:53`); names are not looked up"
    )]
    Shape(String),
    /// Loopback or the unspecified address: each network namespace has its own.
    #[error(
        "{0} cannot be opened: in a job it is the job itself; let the service listen on another address of this host, \
         and name its port alone"
    )]
    Itself(IpAddr),
}

impl Allowed {
    /// # Errors
    /// A word is no port and no address.
    pub fn parse(words: &[String]) -> Result<Self, AllowError> {
        words.iter().map(|word| Opening::parse(word)).collect::<Result<_, _>>().map(Self)
    }

    /// Is nothing opened? Then the firewall needs no rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// May jobs reach that TCP port of that address, which may be one of this host's?
    pub fn permits(&self, address: IpAddr, port: u16) -> bool {
        let fits = |opening: &Opening| {
            let there = opening.address.map_or_else(|| is_of_this_host(address), |allowed| allowed == address);
            there && opening.port.is_none_or(|allowed| allowed == (port, Protocol::Tcp))
        };
        self.0.iter().any(fits)
    }

    /// What the firewall compares, for what goes to this host, or beyond it.
    pub fn matches(&self, is_v6: bool, is_beyond: bool) -> Vec<String> {
        let fits = |opening: &&Opening| match opening.address {
            Some(address) => address.is_ipv6() == is_v6,
            None => !is_beyond,
        };
        self.0.iter().filter(fits).map(Opening::to_match).collect()
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(Opening::to_string).collect();
        f.write_str(&words.join(", "))
    }
}

impl Opening {
    fn parse(word: &str) -> Result<Self, AllowError> {
        let wrong = || AllowError::Shape(word.to_owned());
        let (rest, protocol) = match word.split_once('/') {
            None => (word, None),
            Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
            Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
            Some(_) => return Err(wrong()),
        };
        let (address, port) = address_and_port(rest).ok_or_else(wrong)?;
        if port.is_none() && protocol.is_some() {
            return Err(wrong());
        }
        if let Some(address) = address.filter(|it| it.is_loopback() || it.is_unspecified()) {
            return Err(AllowError::Itself(address));
        }
        Ok(Self { address, port: port.map(|port| (port, protocol.unwrap_or(Protocol::Tcp))) })
    }

    fn to_match(&self) -> String {
        let address = self.address.map(|address| format!("-d {address}"));
        let port = self.port.map(|(port, protocol)| format!("-p {} --dport {port}", protocol.name()));
        [address, port].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |protocol| if protocol == Protocol::Udp { "/udp" } else { "" };
        match (self.address, self.port) {
            (Some(address), None) => write!(f, "{address}"),
            (Some(IpAddr::V6(address)), Some((port, kind))) => write!(f, "[{address}]:{port}{}", suffix(kind)),
            (Some(address), Some((port, kind))) => write!(f, "{address}:{port}{}", suffix(kind)),
            (None, Some((port, kind))) => write!(f, "{port}{}", suffix(kind)),
            (None, None) => Ok(()),
        }
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `3128`, `172.17.0.1`, `172.17.0.1:3128`, `fd00::1`, `[fd00::1]`, `[fd00::1]:53`.
fn address_and_port(text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|b| b.is_ascii_digit()));
    if let Some(port) = port(text) {
        return Some((None, Some(port)));
    }
    if let Ok(address) = text.parse() {
        return Some((Some(address), None));
    }
    if let Some(bracketed) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return bracketed.parse().ok().map(|address| (Some(IpAddr::V6(address)), None));
    }
    let (address, last) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(inner) => IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(address.parse().ok()?),
    };
    Some((Some(address), Some(port(last)?)))
}

/// Is it closed to jobs unless it is allowed?
pub fn is_closed(address: IpAddr) -> bool {
    is_metadata(address) || is_of_this_host(address)
}

fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || matches!(v4.octets(), [168, 63, 129, 16] | [100, 100, 100, 200]),
        IpAddr::V6(v6) => v6.segments()[..2] == [0xfd00, 0x0ec2],
    }
}

/// Only a host's own addresses can be bound to.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str) -> Result<String, AllowError> {
        Allowed::parse(&[word.to_owned()]).map(|allowed| allowed.to_string())
    }

    #[test]
    fn ports_and_addresses_are_opened_and_nothing_else() {
        for word in ["3128", "53/udp", "172.17.0.1", "172.17.0.1:3128", "fd00::1", "[fd00::1]:53/udp"] {
            assert_eq!(parsed(word).as_deref(), Ok(word), "{word}");
        }
        assert_eq!(parsed("3128/tcp").as_deref(), Ok("3128"));
        assert_eq!(parsed("[fd00::1]").as_deref(), Ok("fd00::1"));
        for word in
            ["", "0", "65536", "+80", "host", "host:80", "1.2.3.4:", "1.2.3.4/8", "1.2.3.4/udp", "fd00::1:x", "*"]
        {
            assert_eq!(parsed(word), Err(AllowError::Shape(word.to_owned())), "{word}");
        }
        for word in ["127.0.0.1:80", "0.0.0.0", "[::1]:80", "::"] {
            assert!(matches!(parsed(word), Err(AllowError::Itself(_))), "{word}");
        }
    }

    #[test]
    fn a_port_of_this_host_opens_nothing_beyond_it() {
        let allowed = Allowed::parse(&["80".into(), "169.254.170.2:80".into(), "fd00:ec2::254".into()]).unwrap();
        assert_eq!(allowed.matches(false, false), ["-p tcp --dport 80", "-d 169.254.170.2 -p tcp --dport 80"]);
        assert_eq!(allowed.matches(false, true), ["-d 169.254.170.2 -p tcp --dport 80"]);
        assert_eq!(allowed.matches(true, true), ["-d fd00:ec2::254"]);
        let metadata: IpAddr = "169.254.169.254".parse().unwrap();
        assert!(!allowed.permits(metadata, 80) && allowed.permits("169.254.170.2".parse().unwrap(), 80));
        assert!(allowed.permits("127.0.0.1".parse().unwrap(), 80) && !allowed.permits(metadata, 81));
    }

    #[test]
    fn metadata_and_this_host_are_closed() {
        let closed = |text: &str| is_closed(text.parse().unwrap());
        for address in ["169.254.0.1", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "127.0.0.1"] {
            assert!(closed(address), "{address}");
        }
        for address in ["168.63.129.17", "100.100.100.201", "fd00:ec3::1", "203.0.113.7"] {
            assert!(!closed(address), "{address}");
        }
    }
}
