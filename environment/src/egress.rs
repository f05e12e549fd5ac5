//! How jobs reach the outside: the proxies and certificates of authorities that they are given.
//!
//! ```text
//! proxies of ~/.docker/config.json ─────────┐           ┌▶ in place of the image's, as `docker run` gives them
//! this host's own, with --host-egress ──────┼─▶ Egress ─┤
//! its CA bundle, with --host-egress ────────┘           └▶ where the image, too, sets nothing
//! ```
//!
//! What config and user set wins over both.
//! ```text
//! --allow-host ─▶ Egress ─▶ what is closed on the way, and open to this run's jobs
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use navvy_job::compiled::Variables;
use navvy_output::mask::public::{proxy_secrets, without_user_info};
use serde::{Deserialize, Serialize};

use super::HostPaths;
use super::allowed::{Allowed, is_closed};
use super::authorities::{self, AuthoritiesError, Bundle};

/// Where the bundle's directory is in a container.
pub const CA_DIR: &str = "/opt/navvy/ca";
/// Variables of proxies, in capitals. Each is given in small letters, too: programs differ in which they read.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// Variables by which Node, pip, Python's requests, OpenSSL, curl and git learn of authorities.
const CA_VARIABLES: [&str; 6] =
    ["NODE_EXTRA_CA_CERTS", "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"];

/// Variables that every container is given where config and user set none, in either case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Docker's config file names them for containers: they go before the image's own.
    #[serde(default)]
    pub over_image: Variables,
    /// Variables of this host: an image that sets one of them keeps its own.
    #[serde(default)]
    pub below_image: Variables,
}

impl Given {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &(String, String)> {
        self.over_image.iter().chain(&self.below_image)
    }

    /// Those that a container is given: `is_set` by config or user, `is_in_image` by its image.
    pub fn lacking(&self, is_set: impl Fn(&str) -> bool, is_in_image: impl Fn(&str) -> bool) -> Variables {
        let over = lacking(&self.over_image, &is_set);
        let below = lacking(&self.below_image, |name| is_set(name) || is_in_image(name));
        over.chain(below).cloned().collect()
    }
}

/// The proxies that docker's config file gives containers of one engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// Which entry it is: an engine's address, or `default`.
    pub entry: String,
    /// Names in capitals.
    pub variables: Vec<(&'static str, String)>,
}

/// What every job is given. A default one is nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Egress {
    proxies: Vec<Proxy>,
    /// The entry of docker's config file that some of them stand in.
    entry: String,
    bundle: Option<Bundle>,
    allowed: Allowed,
}

#[derive(Clone, PartialEq, Eq)]
struct Proxy {
    /// In capitals.
    name: &'static str,
    value: String,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    DockerConfig,
    Host,
}

/// A proxy's address may hold a password.
impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.proxies.iter().map(|proxy| proxy.name).collect();
        f.debug_struct("Egress").field("proxies", &names).field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

impl Egress {
    /// What docker's config file gives containers.
    pub fn of_docker_config(configured: Configured) -> Self {
        let Configured { entry, variables } = configured;
        let proxy = |(name, value)| Proxy { name, value, origin: Origin::DockerConfig };
        Self { proxies: variables.into_iter().map(proxy).collect(), entry, ..Self::default() }
    }

    /// With what this host itself has. What docker's config file says is for containers, and goes before.
    ///
    /// # Errors
    /// The host's authorities cannot be given.
    pub fn with_host(self, variables: &BTreeMap<String, String>, host: &HostPaths) -> Result<Self, AuthoritiesError> {
        let bundle = Some(Bundle::make(variables, &host.state)?);
        Ok(Self { bundle, ..self.with_proxies(variables) })
    }

    /// With this host's proxies, where docker's config file says nothing.
    #[must_use]
    pub fn with_proxies(mut self, variables: &BTreeMap<String, String>) -> Self {
        for (name, value) in host_proxies(variables) {
            if !self.gives(name) {
                self.proxies.push(Proxy { name, value, origin: Origin::Host });
            }
        }
        self
    }

    /// With what of this host, and of what else is closed, jobs may reach.
    #[must_use]
    pub fn with_allowed(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    /// What is opened to jobs with `--allow-host`.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Is there a proxy by this name, in capitals?
    pub fn gives(&self, name: &str) -> bool {
        self.proxies.iter().any(|proxy| proxy.name == name)
    }

    /// The host's CA bundle, if jobs are given it.
    pub fn bundle(&self) -> Option<&Bundle> {
        self.bundle.as_ref()
    }

    /// Variables of proxies, in both cases, and of authorities.
    pub fn variables(&self) -> Given {
        self.given(|_| true)
    }

    /// What may stand where `docker inspect` shows it: no proxy with user and password.
    pub fn visible_variables(&self) -> Given {
        self.given(|proxy| !proxy.has_secret())
    }

    fn given(&self, fits: impl Fn(&Proxy) -> bool) -> Given {
        let of = |origin| self.proxy_variables(|proxy| proxy.origin == origin && fits(proxy)).collect::<Variables>();
        let below_image = of(Origin::Host).into_iter().chain(self.ca_variables()).collect();
        Given { over_image: of(Origin::DockerConfig), below_image }
    }

    fn proxy_variables(&self, fits: impl Fn(&Proxy) -> bool) -> impl Iterator<Item = (String, String)> {
        self.proxies.iter().filter(move |proxy| fits(proxy)).flat_map(|proxy| {
            [proxy.name.to_owned(), proxy.name.to_ascii_lowercase()].map(|name| (name, proxy.value.clone()))
        })
    }

    fn ca_variables(&self) -> impl Iterator<Item = (String, String)> {
        let file = self.bundle.as_ref().map(|_| format!("{CA_DIR}/{}", authorities::FILE));
        file.into_iter().flat_map(|file| CA_VARIABLES.map(|name| (name.to_owned(), file.clone())))
    }

    /// Lines for the report of an environment with or without services.
    pub fn report(&self, has_services: bool) -> Vec<String> {
        let mut lines: Vec<String> = self.gifts().map(|gift| format!("Jobs get {gift}")).collect();
        if !self.allowed.is_empty() {
            lines.push(format!("Jobs may reach {} (--allow-host)", self.allowed));
        }
        let secret: Vec<&str> = self.proxies.iter().filter(|proxy| proxy.has_secret()).map(|it| it.name).collect();
        if has_services && !secret.is_empty() {
            lines.push(format!(
                "Service containers do not get {}: everybody could read its password in `docker inspect`",
                secret.join(", ")
            ));
        }
        lines
    }

    /// What jobs have here, and not on the real service.
    pub fn notes(&self) -> Vec<String> {
        let allowed = (!self.allowed.is_empty()).then(|| format!("jobs might reach {} (--allow-host)", self.allowed));
        self.gifts().map(|gift| format!("jobs got {gift}")).chain(allowed).collect()
    }

    fn gifts(&self) -> impl Iterator<Item = String> {
        let entry = format!("of ~/.docker/config.json ({})", self.entry);
        let from = [(Origin::DockerConfig, entry), (Origin::Host, "of this host (--host-egress)".to_owned())];
        let proxies = from.into_iter().filter_map(|(origin, whose)| {
            let names: Vec<&str> = self.proxies.iter().filter(|it| it.origin == origin).map(|it| it.name).collect();
            (!names.is_empty()).then(|| format!("the proxies {whose}: {}", names.join(", ")))
        });
        let bundle = self.bundle.iter().map(|bundle| {
            let sources: Vec<String> = bundle.sources.iter().map(|path| path.display().to_string()).collect();
            let (count, sources) = (bundle.count, sources.join(", "));
            format!(
                "the CA bundle of this host (--host-egress): {count} certificates of {sources}, as {CA_DIR}/{}",
                authorities::FILE
            )
        });
        proxies.chain(bundle)
    }

    /// Proxies as people may see them.
    pub fn shown(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| format!("{}={}", proxy.name, without_user_info(&proxy.value))).collect()
    }

    /// What cannot work.
    pub fn warnings(&self) -> Vec<String> {
        let leads_back = |proxy: &&Proxy| proxy.name != "NO_PROXY" && leads_to_itself(&proxy.value);
        let warning = |proxy: &Proxy| {
            format!(
                "{} leads to {}, which in a job is the job itself: name the proxy by an address that containers reach, \
                 in `proxies` of ~/.docker/config.json",
                proxy.name,
                without_user_info(&proxy.value)
            )
        };
        self.proxies.iter().filter(leads_back).map(warning).collect()
    }

    /// Proxies at addresses that are closed to jobs where the rules of the network are this process's to make, with the
    /// word that opens each.
    pub fn closed_proxies(&self) -> Vec<String> {
        let proxies = self.proxies.iter().filter(|proxy| proxy.name != "NO_PROXY");
        let closed = proxies.filter_map(|proxy| {
            let (host, port) = place(&proxy.value);
            let address: IpAddr = host.parse().ok().filter(|address: &IpAddr| !address.is_loopback())?;
            (is_closed(address) && !self.allowed.permits(address, port)).then(|| {
                let word = if address.is_ipv6() { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
                format!(
                    "{} leads to {word}, which is closed to jobs: `--allow-host {word}`, or `allow-host = [\"{word}\"]` in \
                     ~/.config/navvy/settings.toml, opens it",
                    proxy.name
                )
            })
        });
        closed.collect()
    }
}

impl Proxy {
    fn has_secret(&self) -> bool {
        !proxy_secrets(self.name, &self.value).is_empty()
    }
}

/// This host's own proxies, by their names in capitals. Small letters go first, as everybody does it.
pub fn host_proxies(variables: &BTreeMap<String, String>) -> Vec<(&'static str, String)> {
    let value = |name: &'static str| {
        let value = variables.get(&name.to_ascii_lowercase()).or_else(|| variables.get(name));
        value.filter(|value| !value.is_empty()).map(|value| (name, value.clone()))
    };
    PROXIES.into_iter().filter_map(value).collect()
}

/// Those of `variables` that nothing else sets, in either case: a program that reads the other case must not get ours
/// in place of the user's.
fn lacking<'a>(
    variables: &'a Variables,
    is_set: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a (String, String)> {
    variables.iter().filter(move |(name, _)| {
        ![name.clone(), name.to_ascii_uppercase(), name.to_ascii_lowercase()].iter().any(|name| is_set(name))
    })
}

/// Host and port of a proxy's address. Without a port it is that of its scheme, as curl reads it.
fn place(value: &str) -> (&str, u16) {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let usual = if scheme.eq_ignore_ascii_case("https") { 443 } else { 1080 };
    (host, port.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(usual))
}

fn leads_to_itself(value: &str) -> bool {
    let (host, _) = place(value);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What docker's config file says under `default`.
    fn docker(variables: &[(&'static str, &str)]) -> Egress {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Egress::of_docker_config(Configured { entry: "default".to_owned(), variables })
    }

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn get<'a>(given: &'a Given, name: &str) -> Option<&'a str> {
        given.all().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn one() -> Egress {
        docker(&[("HTTPS_PROXY", "http://me:hunter2@docker:1"), ("NO_PROXY", "a")])
    }

    #[test]
    fn proxies_of_docker_s_config_are_given_in_both_cases() {
        let egress = one();
        let given = egress.variables();
        let names: Vec<&str> = given.all().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"]);
        assert_eq!(get(&given, "https_proxy"), Some("http://me:hunter2@docker:1"));
        let visible = egress.visible_variables();
        assert_eq!((get(&visible, "HTTPS_PROXY"), get(&visible, "no_proxy")), (None, Some("a")));
        let told =
            [egress.report(true), egress.notes(), egress.shown(), vec![format!("{egress:?}")]].concat().join("\n");
        assert!(told.contains("HTTPS_PROXY, NO_PROXY") && !told.contains("hunter2"), "{told}");
        assert!(told.contains("Service containers do not get HTTPS_PROXY"), "{told}");
        assert!(told.contains("HTTPS_PROXY=http://****@docker:1"), "{told}");
        assert!(Egress::default().report(true).is_empty() && Egress::default().variables() == Given::default());
    }

    #[test]
    fn the_host_s_own_fill_in_what_docker_s_config_does_not_say() {
        let egress = one().with_proxies(&variables(&[
            ("HTTPS_PROXY", "http://host:2"),
            ("http_proxy", "http://host:3"),
            ("HTTP_PROXY", "http://host:4"),
            ("ALL_PROXY", ""),
        ]));
        let given = egress.variables();
        assert_eq!(get(&given, "HTTPS_PROXY"), Some("http://me:hunter2@docker:1"));
        assert_eq!(
            (get(&given, "HTTP_PROXY"), get(&given, "http_proxy")),
            (Some("http://host:3"), Some("http://host:3"))
        );
        assert_eq!(get(&given, "ALL_PROXY"), None);
        let over: Vec<&str> = given.over_image.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(over, ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"]);
        assert!(egress.notes().iter().any(|note| note.contains("of this host (--host-egress): HTTP_PROXY")));
    }

    #[test]
    fn authorities_come_with_the_six_variables() {
        let home = tempfile::tempdir().unwrap();
        let host = HostPaths::new(&BTreeMap::new(), Some(home.path()));
        let ca = home.path().join("ca.pem");
        std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
        let variables = variables(&[("SSL_CERT_FILE", &ca.display().to_string())]);
        let egress = Egress::default().with_host(&variables, &host).unwrap();
        for name in CA_VARIABLES {
            assert_eq!(get(&egress.variables(), name), Some("/opt/navvy/ca/bundle.pem"), "{name}");
        }
        assert!(egress.bundle().is_some_and(|bundle| bundle.directory.starts_with(&host.state)));
        let missing = BTreeMap::from([("SSL_CERT_FILE".to_owned(), "/nonexistent".to_owned())]);
        assert!(Egress::default().with_host(&missing, &host).is_err());
    }

    #[test]
    fn what_is_set_in_either_case_is_left() {
        let ours: Variables = [("HTTP_PROXY", "x"), ("http_proxy", "x"), ("PIP_CERT", "y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let left = |set: &'static str| {
            lacking(&ours, move |name| name == set).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(left("OTHER"), ["HTTP_PROXY", "http_proxy", "PIP_CERT"]);
        assert_eq!(left("http_proxy"), ["PIP_CERT"]);
        assert_eq!(left("HTTP_PROXY"), ["PIP_CERT"]);
        assert_eq!(left("PIP_CERT"), ["HTTP_PROXY", "http_proxy"]);
    }

    #[test]
    fn docker_s_config_goes_before_the_image_and_this_host_behind_it() {
        let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let given = Given { over_image: one("HTTP_PROXY", "docker's"), below_image: one("HTTPS_PROXY", "host's") };
        let left = |set: &'static str, image: &'static str| {
            let left = given.lacking(|name| name == set, |name| name == image);
            left.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(left("", ""), ["HTTP_PROXY", "HTTPS_PROXY"]);
        assert_eq!(left("", "HTTP_PROXY"), ["HTTP_PROXY", "HTTPS_PROXY"]);
        assert_eq!(left("", "https_proxy"), ["HTTP_PROXY"]);
        assert_eq!(left("http_proxy", ""), ["HTTPS_PROXY"]);
    }

    #[test]
    fn a_proxy_at_an_address_that_is_closed_is_told_with_the_word_that_opens_it() {
        let docker = |value: &str| docker(&[("HTTP_PROXY", value), ("NO_PROXY", "169.254.1.1")]);
        let closed = docker("http://me:hunter2@169.254.1.1:3128/").closed_proxies();
        assert_eq!(closed.len(), 1);
        assert!(closed[0].starts_with("HTTP_PROXY leads to 169.254.1.1:3128, which is closed to jobs"), "{closed:?}");
        assert!(closed[0].contains("`--allow-host 169.254.1.1:3128`") && !closed[0].contains("hunter2"), "{closed:?}");
        assert!(docker("169.254.1.1").closed_proxies()[0].contains("--allow-host 169.254.1.1:1080"));
        assert!(docker("https://[fd00:ec2::1]").closed_proxies()[0].contains("--allow-host [fd00:ec2::1]:443"));
        for open in ["http://proxy:3128", "http://203.0.113.7:3128", "http://127.0.0.1:3128"] {
            assert_eq!(docker(open).closed_proxies(), Vec::<String>::new(), "{open}");
        }
        let allowed = Allowed::parse(&["169.254.1.1:3128".to_owned()]).unwrap();
        let opened = docker("http://169.254.1.1:3128").with_allowed(allowed);
        assert_eq!(opened.closed_proxies(), Vec::<String>::new());
        assert!(opened.report(false).contains(&"Jobs may reach 169.254.1.1:3128 (--allow-host)".to_owned()));
    }

    #[test]
    fn a_proxy_on_this_host_s_loopback_is_told() {
        for value in ["http://127.0.0.1:3128", "localhost:3128", "http://me:pw@LOCALHOST/", "socks5://[::1]:1080"] {
            assert!(leads_to_itself(value), "{value}");
        }
        for value in ["http://proxy:3128", "http://127.example:1", "http://[fd00::1]:3128", "http://172.17.0.1:3128"] {
            assert!(!leads_to_itself(value), "{value}");
        }
        let egress = Egress::default()
            .with_proxies(&variables(&[("https_proxy", "http://me:hunter2@localhost:1"), ("no_proxy", "localhost")]));
        let told = egress.warnings().join("\n");
        assert!(told.contains("HTTPS_PROXY leads to http://****@localhost:1") && !told.contains("NO_PROXY"), "{told}");
    }
}
