//! What a machine reaches, and what it does not. As root, where there is an image and QEMU.

#![expect(
    clippy::print_stderr,
    reason = "who reads the test wants to see what it left out, and a fake writes what QEMU would"
)]

mod bench;

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bench::Bench;
use navvy_environment::allowed::Allowed;
use navvy_environment::egress::Egress;
use navvy_environment::run_dir;
use navvy_vm::MachineEnvironment;
use navvy_vm::record::Fact;

/// A service of this host on all its addresses, as operators forget them.
fn host_service() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.and_then(|mut stream| stream.write_all(b"secret of the host")));
        }
    });
    port
}

/// What comes from there. A guest on a busy host may be slow to ask: only what is not to come is given up soon.
async fn fetched(environment: &MachineEnvironment, address: &str, port: u16, patience: u32) -> String {
    let script = format!("timeout {patience} bash -c 'cat </dev/tcp/{address}/{port}' 2>/dev/null; echo .");
    bench::run(environment, &script).await
}

/// Addresses of this host that are not loopback.
async fn own_addresses() -> Vec<String> {
    let listed = tokio::process::Command::new("ip").args(["-4", "-o", "addr", "show"]).output().await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let addresses =
        listed.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned));
    addresses.filter(|address| !address.starts_with("127.")).collect()
}

#[tokio::test]
async fn a_machine_reaches_the_outside_and_neither_this_host_nor_another_machine() {
    if run_dir::uid() != 0 {
        eprintln!("SKIPPED: only root gives machines a network");
        return;
    }
    let Some(mut open) = Bench::open() else { return };
    let port = host_service();
    let closed = open.sibling();
    open.egress = Arc::new(Egress::default().with_allowed(Allowed::parse(&[port.to_string()]).unwrap()));
    let machines = open.machines();
    machines.warm(Some("test"), open.size, &open.host, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    let one = open.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    let other = closed.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    let own = own_addresses().await;
    assert!(own.len() > 1, "{own:?}");
    for address in &own {
        // Who was allowed gets an answer, so that the other one's silence means something.
        assert!(fetched(&one, address, port, 60).await.starts_with("secret"), "{address}");
        assert_eq!(fetched(&other, address, port, 3).await, ".\n", "{address}");
    }
    assert_eq!(fetched(&one, "169.254.169.254", 80, 3).await, ".\n");
    let listening = "(perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(LocalPort => 7777, Listen => 5) or die; \
                     while (my $c = $l->accept) { print $c \"from a machine\"; close $c }' >/dev/null 2>&1 &) ; \
                     for i in $(seq 100); do (cat </dev/tcp/127.0.0.1/7777) 2>/dev/null && break; sleep 0.1; done";
    assert_eq!(bench::run(&other, listening).await, "from a machine");
    let addresses = open.facts().into_iter().filter_map(|fact| match fact {
        Fact::Tap { address, .. } => Some(address),
        _ => None,
    });
    for address in addresses {
        let from_itself = fetched(&other, &address, 7777, 3).await;
        let from_sibling = fetched(&one, &address, 7777, 3).await;
        assert_eq!(from_sibling, ".\n", "{address}");
        assert!(from_itself == ".\n" || from_itself.starts_with("from a machine"), "{from_itself}");
    }
    if let Ok(mirror) = std::env::var("NAVVY_TEST_MIRROR").or_else(|_| reachable("deb.debian.org")) {
        let said =
            bench::run(&other, &format!("curl -sS -m 60 -o /dev/null -w '%{{http_code}}' http://{mirror}/debian/"))
                .await;
        assert_eq!(said, "200", "{mirror}");
    }
    for environment in [one, other] {
        assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    }
    open.assert_nothing_left();
    closed.assert_nothing_left();
}

/// A machine cannot reach what this host does not.
fn reachable(name: &str) -> Result<String, std::env::VarError> {
    use std::net::{TcpStream, ToSocketAddrs as _};
    let address = (name, 80).to_socket_addrs().ok().and_then(|mut addresses| addresses.find(|it| it.is_ipv4()));
    let is_there = address.is_some_and(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok());
    if !is_there {
        eprintln!("SKIPPED a part: this host does not reach {name}");
    }
    is_there.then(|| name.to_owned()).ok_or(std::env::VarError::NotPresent)
}
