//! `navvy doctor`: what this machine can do for a run, as data. Each check says what it found and how to mend it;
//! the command line prints.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use navvy_docker::endpoint::{Endpoint, EndpointError};
use navvy_docker::network;
use navvy_docker::proxies::configured;
use navvy_docker::walls::{METADATA_V4, METADATA_V6, Walls};
use navvy_docker::{Engine, EngineError, EngineInfo};
use navvy_environment::HostPaths;
use navvy_environment::allowed::Allowed;
use navvy_environment::authorities;
use navvy_environment::cgroup::{self, Facts};
use navvy_environment::egress::{Egress, host_proxies};
use navvy_environment::{run_dir, supervisor_binary};
use navvy_job::chain::chain;
use navvy_output::mask::public::without_user_info;

/// Below this, pulls and logs soon fail.
const SCARCE_SPACE: u64 = 5 << 30;
/// Below this, nothing works.
const NO_SPACE: u64 = 200 << 20;
/// Ways out of a container that runc had.
const ESCAPES: [Escape; 2] = [
    Escape {
        mended: &[[1, 1, 12]],
        names: "CVE-2024-21626",
        risk: "an image's or a step's working directory can lead out of the container",
    },
    Escape {
        mended: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]],
        names: "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        risk: "an image or a job that races with the start of a container can write to this machine's /proc, and so become \
               root on it",
    },
];
/// The newest API whose every answer has been tried; newer engines speak it, too.
const OLDEST_COMFORTABLE_API: &str = "1.41";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    /// Works, with something missing.
    Warn,
    /// Nothing runs until it is mended.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What a person can do about it.
    pub mend: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), mend: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), mend: Some(mend.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, found: found.into(), mend: Some(mend.into()) }
    }
}

/// How this host reaches the outside, and what jobs are given of it.
#[derive(Debug, Clone, Copy)]
pub struct Outside<'a> {
    /// This process's environment.
    pub variables: &'a BTreeMap<String, String>,
    /// `host-egress` of the user's settings.
    pub host_egress: bool,
    /// `allow-host` of the same.
    pub allowed: &'a Allowed,
}

/// Looks at everything. `machines`: the image of a `machine` job that names none, or why such a job gets no machine here. Makes the network `navvy` if it is not there, and the rules around it, as a run would; changes
/// nothing else.
pub async fn examine(
    endpoint: Result<Endpoint, EndpointError>,
    machines: Result<String, String>,
    host: &HostPaths,
    outside: Outside<'_>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let address = endpoint.as_ref().map(Endpoint::to_string).unwrap_or_default();
    let mut is_closed = false;
    match connect(endpoint).await {
        Ok((engine, info)) => {
            checks.push(Check::ok("docker", format!("{} at {}", info.version, engine.endpoint())));
            checks.push(api(engine.api_version()));
            checks.push(runc(info.runc.as_deref()));
            checks.push(cgroups(&engine, &info));
            checks.push(closed_network(&engine, host).await);
            checks.extend(images_space(&engine, &info));
            is_closed = engine.why_rules_are_not_ours().is_none();
        }
        Err(check) => checks.push(beside_machines(check, machines.is_ok())),
    }
    checks.push(self::machines(machines));
    checks.push(space("state directory", &host.state, "remove old logs below it, or set XDG_STATE_HOME"));
    checks.push(supervisor(host));
    checks.extend(credential_helpers(host));
    checks.extend(proxies(&address, host, outside, is_closed));
    checks.extend(certificates(outside));
    checks
}

/// Who has virtual machines can run jobs without Docker.
fn beside_machines(docker: Check, has_machines: bool) -> Check {
    match has_machines {
        true => {
            let found = format!("{}; only jobs in virtual machines run", docker.found);
            Check { status: docker.status.min(Status::Warn), found, ..docker }
        }
        false => docker,
    }
}

/// Nothing is wrong with a machine that has no others within.
fn machines(image: Result<String, String>) -> Check {
    const NAME: &str = "machines";
    match image {
        Ok(image) => Check::ok(NAME, format!("a `machine` job that names no image gets {image}")),
        Err(why) => Check::ok(NAME, format!("`machine` jobs get none: {why}")),
    }
}

/// The worst of them.
pub fn worst(checks: &[Check]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
}

async fn connect(endpoint: Result<Endpoint, EndpointError>) -> Result<(Engine, EngineInfo), Check> {
    let endpoint =
        endpoint.map_err(|e| Check::fail("docker", e.to_string(), "set DOCKER_HOST, or fix the docker context"))?;
    let failed = |error: EngineError| Check::fail("docker", error.to_string(), mend_engine(&error));
    let engine = Engine::connect(endpoint).await.map_err(failed)?;
    let info = engine.info().await.map_err(failed)?.clone();
    Ok((engine, info))
}

fn mend_engine(error: &EngineError) -> &'static str {
    match error {
        EngineError::SocketMissing { .. } | EngineError::Refused { .. } => {
            "start it: systemctl start docker, or scripts/setup on a bare machine"
        }
        EngineError::Denied { .. } => "usermod -aG docker $USER, then log in again",
        EngineError::TooOld { .. } => "install a newer Docker",
        EngineError::Tls { .. } => "check DOCKER_CERT_PATH: ca.pem, cert.pem and key.pem are needed",
        _ => "check DOCKER_HOST, the docker context, and the engine's own log",
    }
}

fn api(version: &str) -> Check {
    let number = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    if number(version) >= number(OLDEST_COMFORTABLE_API) {
        Check::ok("api version", version)
    } else {
        Check::warn("api version", version, "install Docker 20.10 or newer")
    }
}

fn runc(version: Option<&str>) -> Check {
    const NAME: &str = "runc";
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return Check::ok(NAME, "the engine does not say which");
    };
    let Some(numbers) = runc_numbers(version) else {
        return Check::ok(NAME, format!("{version} (a commit, or a distribution's own name)"));
    };
    let open: Vec<&Escape> =
        ESCAPES.iter().filter(|escape| !escape.is_mended(numbers, version.contains("-rc"))).collect();
    let told = |escape: &&Escape| format!("{}: {} (fixed in {})", escape.names, escape.risk, escape.versions());
    if open.is_empty() {
        return Check::ok(NAME, version);
    }
    let told: Vec<String> = open.iter().map(told).collect();
    Check::warn(
        NAME,
        format!("{version}: {}", told.join("; ")),
        "update runc, and run no strangers' code before; distributions often fix an old version: see its changelog for \
         these names",
    )
}

/// A fault of runc by which a container's processes leave it.
struct Escape {
    /// The first version without it, of each line that was mended; later lines never had it.
    mended: &'static [[u32; 3]],
    names: &'static str,
    risk: &'static str,
}

impl Escape {
    /// A candidate comes before the version that it is to become.
    fn is_mended(&self, version: [u32; 3], is_candidate: bool) -> bool {
        let of_line = self.mended.iter().find(|first| first[..2] == version[..2]);
        let of_line = of_line.or_else(|| self.mended.last().filter(|first| version > **first));
        of_line.is_some_and(|first| version > *first || (version == *first && !is_candidate))
    }

    fn versions(&self) -> String {
        let shown: Vec<String> = self.mended.iter().map(|[a, b, c]| format!("{a}.{b}.{c}")).collect();
        shown.join(", ")
    }
}

/// `1.1.5`, `v1.1.5-0-gabc`, `1.1.5+ds1-1+deb12u1`.
fn runc_numbers(version: &str) -> Option<[u32; 3]> {
    let plain = version.trim_start_matches('v').split(['-', '+', '~']).next()?;
    let mut parts = plain.split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some([next()?, next()?, next()?])
}

fn cgroups(engine: &Engine, info: &EngineInfo) -> Check {
    const NAME: &str = "cgroups";
    let facts = Facts {
        engine_is_local: engine.endpoint().looks_local(),
        uid: run_dir::uid(),
        driver: &info.cgroup_driver,
        version: &info.cgroup_version,
    };
    let found = format!("version {}, driver {}", info.cgroup_version, info.cgroup_driver);
    match cgroup::check(facts) {
        Ok(()) => Check::ok(NAME, format!("{found}: a task's containers share its limits")),
        Err(why) => Check::warn(
            NAME,
            format!("{found}: each container gets its task's whole limits ({why})"),
            "matters only for jobs with service containers; run as root, with the driver cgroupfs or cgroups of version 2, for exact limits",
        ),
    }
}

async fn closed_network(engine: &Engine, host: &HostPaths) -> Check {
    const NAME: &str = "network";
    match engine.network(&host.search_path).await {
        Ok(walls) => judge_walls(walls),
        Err(error) => Check::fail(NAME, error.to_string(), "docker network rm navvy, then try again"),
    }
}

/// What jobs reach of this host and its cloud.
fn judge_walls(walls: &Walls) -> Check {
    const NAME: &str = "network";
    let addresses = [&METADATA_V4[..], &METADATA_V6].concat().join(", ");
    let servers: Vec<String> = walls.name_servers.iter().map(ToString::to_string).collect();
    let dns = match &servers[..] {
        [] => String::new(),
        servers => format!("; name servers open at port 53: {}", servers.join(", ")),
    };
    let found = format!("{} is there; {} (metadata addresses: {addresses}){dns}", network::NAME, walls.told());
    match walls.are_whole() {
        true => Check::ok(NAME, found),
        false => Check::warn(
            NAME,
            found,
            "where jobs of strangers run: run navvy as root on the engine's machine, with iptables and ip6tables; \
             else close them by hand (docs/docker.md)",
        ),
    }
}

/// The engine's own directory, where it can be seen from here.
fn images_space(engine: &Engine, info: &EngineInfo) -> Option<Check> {
    let root = info.root_directory.as_deref().filter(|_| engine.endpoint().looks_local())?;
    root.exists().then(|| space("docker directory", root, "docker system prune"))
}

fn space(name: &'static str, path: &Path, mend: &str) -> Check {
    // A directory that a run would make lies on its parent's disk.
    let Some(there) = path.ancestors().find(|directory| directory.exists()) else {
        return Check::warn(name, format!("{} does not exist", path.display()), mend);
    };
    match free_space(there) {
        Err(error) => Check::warn(name, format!("{}: {error}", there.display()), mend),
        Ok(free) => {
            let found = format!("{:.1} GiB free at {}", free as f64 / f64::from(1 << 30), path.display());
            match free {
                0..NO_SPACE => Check::fail(name, found, mend),
                NO_SPACE..SCARCE_SPACE => Check::warn(name, found, mend),
                _ => Check::ok(name, found),
            }
        }
    }
}

#[expect(unsafe_code, reason = "the standard library does not ask a file system for its free space")]
fn free_space(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends in NUL and lives through the call; the kernel fills the struct, which is read only when
    // the call says so.
    let answer = unsafe {
        if libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        answer.assume_init()
    };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

fn supervisor(host: &HostPaths) -> Check {
    const NAME: &str = "supervisor";
    let found = supervisor_binary::find(host.supervisor.as_deref());
    match found.and_then(|path| supervisor_binary::read_static(&path).map(|bytes| (path, bytes.len()))) {
        Ok((path, length)) => Check::ok(NAME, format!("static, {} KiB, {}", length >> 10, path.display())),
        Err(error) => Check::fail(NAME, error.to_string(), "scripts/build"),
    }
}

/// How jobs get what this host has.
const GIVE_EGRESS: &str = "`navvy run --host-egress`, or `host-egress = true` in ~/.config/navvy/settings.toml";

/// Which proxies jobs get, and which this host has that they do not.
fn proxies(address: &str, host: &HostPaths, outside: Outside<'_>, is_closed: bool) -> Vec<Check> {
    const NAME: &str = "proxies";
    let egress = match configured(host, address) {
        Ok(configured) => Egress::of_docker_config(configured),
        Err(why) => return vec![Check::warn(NAME, format!("jobs get none of docker's: {why}"), "fix that file")],
    };
    let egress = if outside.host_egress { egress.with_proxies(outside.variables) } else { egress };
    let lacking: Vec<String> = host_proxies(outside.variables)
        .into_iter()
        .filter(|(name, _)| !egress.gives(name))
        .map(|(name, value)| format!("{name}={}", without_user_info(&value)))
        .collect();
    let shown = egress.shown();
    let jobs = if shown.is_empty() { "jobs get none".to_owned() } else { format!("jobs get {}", shown.join(", ")) };
    let mut checks = vec![match lacking.is_empty() {
        true => Check::ok(NAME, jobs),
        false => Check::warn(
            NAME,
            format!("{jobs}; this host has {}, which jobs do not get", lacking.join(", ")),
            format!("behind that proxy: {GIVE_EGRESS}; or `proxies` in ~/.docker/config.json"),
        ),
    }];
    checks.extend(egress.warnings().into_iter().map(|warning| Check::warn(NAME, warning, "fix the address")));
    if is_closed {
        let closed = egress.with_allowed(outside.allowed.clone()).closed_proxies();
        checks.extend(closed.into_iter().map(|warning| Check::warn(NAME, warning, "open it, or name another proxy")));
    }
    checks
}

/// Authorities of this host's own, which no image has.
fn certificates(outside: Outside<'_>) -> Option<Check> {
    const NAME: &str = "CA certificates";
    let own = authorities::own_of_host(outside.variables);
    if outside.host_egress {
        let mend = "fix what the variable names, or set `host-egress = false`";
        return Some(match authorities::look(outside.variables) {
            Ok(count) => Check::ok(NAME, format!("jobs get the {count} of this host")),
            Err(error) => Check::fail(NAME, format!("jobs cannot get this host's: {}", chain(&error)), mend),
        });
    }
    (!own.is_empty()).then(|| {
        let found = format!("this host trusts authorities of its own ({}), which jobs do not", own.join(", "));
        Check::warn(NAME, found, format!("behind a proxy that inspects TLS: {GIVE_EGRESS}"))
    })
}

fn credential_helpers(host: &HostPaths) -> Vec<Check> {
    const NAME: &str = "docker logins";
    match navvy_docker::missing_credential_helpers(host) {
        Err(error) => vec![Check::warn(NAME, chain(&error), "fix or remove the file")],
        Ok(missing) => missing.into_iter().map(|program| missing_helper(NAME, &program)).collect(),
    }
}

fn missing_helper(name: &'static str, program: &str) -> Check {
    let config: PathBuf = Path::new("~/.docker/config.json").into();
    Check::warn(
        name,
        format!("{program} is not on PATH, and {} asks for it", config.display()),
        "install it, or remove its line; only private images need it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_runcs_are_told_apart() {
        assert_eq!(runc(Some("1.1.5+ds1-1+deb12u1")).status, Status::Warn);
        let (of_2024, of_2025) = ("CVE-2024-21626", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881");
        for (version, has) in [
            ("1.1.5+ds1-1+deb12u1", [true, true]),
            ("v1.1.12-0-g51d5e94", [false, true]),
            ("1.2.7", [false, true]),
            ("1.2.8", [false, false]),
            ("1.3.0", [false, true]),
            ("v1.3.3", [false, false]),
            ("1.4.0-rc.2", [false, true]),
            ("1.4.0", [false, false]),
            ("1.5.0", [false, false]),
            ("2.0.0", [false, false]),
        ] {
            let check = runc(Some(version));
            assert_eq!([of_2024, of_2025].map(|names| check.found.contains(names)), has, "{version}: {check:?}");
            assert_eq!(check.status == Status::Warn, has.contains(&true), "{version}");
        }
        assert!(runc(Some("1.3.2")).found.contains("fixed in 1.2.8, 1.3.3, 1.4.0"));
        assert_eq!(runc(Some("51d5e946")).status, Status::Ok);
        assert_eq!(runc(None).status, Status::Ok);
    }

    #[test]
    fn space_is_asked_where_a_directory_would_be() {
        let scratch = tempfile::tempdir().unwrap();
        let check = space("state", &scratch.path().join("a/b"), "mend");
        assert!(check.found.contains("GiB free"), "{}", check.found);
    }

    #[test]
    fn api_versions_are_compared_as_numbers() {
        assert_eq!(api("1.41").status, Status::Ok);
        assert_eq!(api("1.100").status, Status::Ok);
        assert_eq!(api("1.40").status, Status::Warn);
    }

    #[tokio::test]
    async fn without_docker_the_rest_is_still_looked_at() {
        let scratch = tempfile::tempdir().unwrap();
        let mut host = HostPaths::new(&std::collections::BTreeMap::new(), Some(scratch.path()));
        host.supervisor = Some(scratch.path().join("none"));
        let error = EndpointError::NoEndpoint { name: "x".into() };
        let checks = examine(Err(error), Err("no QEMU".into()), &host, outside(&BTreeMap::new(), false)).await;
        let names: Vec<_> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names[..5], ["docker", "machines", "state directory", "supervisor", "proxies"]);
        assert_eq!(worst(&checks), Status::Fail);
        assert!(checks[1].found.ends_with("get none: no QEMU"), "{}", checks[1].found);
    }

    #[tokio::test]
    async fn a_host_with_machines_needs_no_docker() {
        let host = HostPaths::new(&BTreeMap::new(), None);
        let error = EndpointError::NoEndpoint { name: "x".into() };
        let checks = examine(Err(error), Ok("debian".into()), &host, outside(&BTreeMap::new(), false)).await;
        assert_eq!((checks[0].name, checks[0].status), ("docker", Status::Warn));
        assert!(checks[0].found.ends_with("only jobs in virtual machines run"), "{}", checks[0].found);
        assert!(checks[1].found.ends_with("gets debian"), "{}", checks[1].found);
    }

    static NOTHING: std::sync::LazyLock<Allowed> = std::sync::LazyLock::new(Allowed::default);

    fn outside(variables: &BTreeMap<String, String>, host_egress: bool) -> Outside<'_> {
        Outside { variables, host_egress, allowed: &NOTHING }
    }

    /// With this docker config and these variables of the host.
    fn looked(docker: &str, pairs: &[(&str, &str)], host_egress: bool) -> Vec<Check> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), docker).unwrap();
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let host = HostPaths::new(&BTreeMap::new(), Some(home.path()));
        let mut checks = proxies("unix:///x", &host, outside(&variables, host_egress), true);
        checks.extend(certificates(outside(&variables, host_egress)).filter(|_| pairs[0].0.contains("CERT")));
        checks
    }

    #[test]
    fn the_proxies_that_jobs_get_are_told_and_those_that_they_do_not() {
        let host = [("https_proxy", "http://me:hunter2@proxy:3128")];
        let checks = looked("{}", &host, false);
        assert_eq!((checks.len(), checks[0].status), (1, Status::Warn));
        assert_eq!(
            checks[0].found,
            "jobs get none; this host has HTTPS_PROXY=http://****@proxy:3128, which jobs do not get"
        );
        assert!(checks[0].mend.as_ref().unwrap().contains("--host-egress"), "{checks:?}");
        let docker = r#"{"proxies": {"default": {"httpsProxy": "http://d:1"}}}"#;
        for (docker, host_egress, found) in [
            (docker, false, "jobs get HTTPS_PROXY=http://d:1"),
            ("{}", true, "jobs get HTTPS_PROXY=http://****@proxy:3128"),
        ] {
            let checks = looked(docker, &host, host_egress);
            assert_eq!((checks[0].status, &*checks[0].found), (Status::Ok, found));
        }
        let none = looked("{}", &[("A", "b")], false);
        assert_eq!((none[0].status, &*none[0].found), (Status::Ok, "jobs get none"));
        let wrong = looked(r#"{"proxies": {"default": 1}}"#, &host, false);
        assert!(
            wrong[0].status == Status::Warn && wrong[0].found.contains("proxies.default is not an object"),
            "{wrong:?}"
        );
        let back = looked("{}", &[("http_proxy", "localhost:1")], true);
        assert!(back[1].found.contains("in a job is the job itself"), "{back:?}");
    }

    #[test]
    fn authorities_that_jobs_do_not_get_are_told() {
        let scratch = tempfile::tempdir().unwrap();
        let ca = scratch.path().join("ca.pem");
        std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
        let named = ca.display().to_string();
        let checks = looked("{}", &[("SSL_CERT_FILE", &named)], false);
        assert!(checks[1].found.contains("SSL_CERT_FILE") && checks[1].status == Status::Warn, "{checks:?}");
        let checks = looked("{}", &[("SSL_CERT_FILE", &named)], true);
        assert_eq!((checks[1].status, &*checks[1].found), (Status::Ok, "jobs get the 1 of this host"));
        let checks = looked("{}", &[("SSL_CERT_FILE", "/nonexistent")], true);
        assert!(checks[1].status == Status::Fail && checks[1].found.contains("/nonexistent"), "{checks:?}");
    }
}
