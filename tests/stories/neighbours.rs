//! What a job on the network hears of its neighbours, and reaches of the host: by TCP, by UDP and in raw frames.

use std::io::Write as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use navvy_tests::{Bench, PrivateEngine, Program, Signal, everywhere};

const WAITS: &str = r#"
version: 2.1
jobs:
  waits:
    docker: [{image: navvy/base:bookworm, user: root}]
    resource_class: small
    steps: [{run: {name: wait, command: 'echo it waits; sleep 1000'}}]
workflows:
  ci: {jobs: [waits]}
"#;

/// Takes the neighbour's address on the bridge, and says what it hears of what is sent there.
const POISONS: &str = r#"
version: 2.1
jobs:
  poisons:
    docker: [{image: navvy/base:bookworm, user: root}]
    resource_class: small
    steps:
      - run:
          name: poisons
          shell: python3 -u
          command: |
            import fcntl, os, socket, struct, time
            SOCK_PACKET = 10
            for family, kind, name in [(socket.AF_PACKET, socket.SOCK_RAW, 'frames'), (socket.AF_PACKET, socket.SOCK_DGRAM, 'packets'),
                                       (socket.AF_INET, SOCK_PACKET, 'old frames'), (socket.AF_INET, socket.SOCK_RAW, 'raw IP'),
                                       (socket.AF_INET6, socket.SOCK_RAW, 'raw IPv6')]:
                try:
                    socket.socket(family, kind, socket.htons(3) if family == socket.AF_PACKET else 17).close()
                    print('opens', name)
                except OSError:
                    pass
            print('tried')
            try:
                raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                raw.bind(('eth0', 0))
            except PermissionError:
                raise SystemExit(0)
            mac = raw.getsockname()[4]
            taken = socket.inet_aton(os.environ['NEIGHBOUR'])
            gateway = socket.inet_aton(os.environ['GATEWAY'])
            claim = (b'\xff' * 6 + mac + b'\x08\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, 2)
                     + mac + taken + b'\xff' * 6 + gateway)
            raw.settimeout(0.05)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                raw.send(claim)
                try:
                    frame = raw.recv(2048)
                except TimeoutError:
                    continue
                if frame[12:14] == b'\x08\x00' and b'for the neighbour' in frame:
                    print('hears', frame[frame.index(b'for the'):].decode())
                    break
workflows:
  ci: {jobs: [poisons]}
"#;

/// Address and gateway of a task's primary on the bridge.
fn place(bench: &Bench, task: &str) -> [String; 2] {
    let format = "{{.NetworkSettings.Networks.navvy.IPAddress}} {{.NetworkSettings.Networks.navvy.Gateway}}";
    let told = bench.docker().ask(&["inspect", "--format", format, &format!("navvy-{task}-primary")]).text();
    let (address, gateway) = told.trim().split_once(' ').expect("docker tells both");
    [address.to_owned(), gateway.to_owned()]
}

/// Sends to the address until told to stop: whoever holds it there hears it.
fn calls(bench: &Bench, address: &str, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (stop, address) = (Arc::clone(stop), format!("{address}:9998"));
    bench.network().enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // The neighbour listens nowhere, and says so: no reason to stop.
                socket.send_to(b"for the neighbour", &address).ok();
                thread::sleep(Duration::from_millis(10));
            }
        })
    })
}

everywhere! {
    fn a_job_cannot_take_its_neighbour_s_address_and_hears_nothing_of_it(bench: Bench) {
        bench.config(WAITS);
        let neighbour = bench.run(&[]);
        let task = neighbour.wait_for_output("it waits").task().expect("output is a task's").to_owned();
        let [address, gateway] = place(&bench, &task);
        let stop = Arc::new(AtomicBool::new(false));
        let calling = calls(&bench, &address, &stop);
        bench.config(POISONS);
        let given = [format!("NEIGHBOUR={address}"), format!("GATEWAY={gateway}")];
        let done = bench.run(&["--var", &given[0], "--var", &given[1]]).finish();
        stop.store(true, Ordering::Relaxed);
        calling.join().expect("it only sends");
        done.passes();
        assert_eq!(done.text("poisons", "poisons"), "tried\n");
        neighbour.signal(Signal::Interrupt);
        neighbour.finish().exits_with(130);
    }
}

/// Prints what comes in frames of an experimenter's kind, up to the last.
const HEARS: &str = "import socket\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(0x88b5))\ns.bind(('eth0',0))\n\
    print('hears',flush=True)\nwhile True:\n  said=s.recv(2048)[14:].rstrip(b'\\0').decode()\n  print(said,flush=True)\n  \
    if said=='the last': break";

/// Sends such frames to everybody from the interface that it is told.
const SAYS: &str = "import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind((sys.argv[1],0))\n\
    [s.send(b'\\xff'*6+s.getsockname()[4]+b'\\x88\\xb5'+sys.argv[2].encode().ljust(46,b'\\0')) for _ in range(20)]";

#[test]
fn the_bridge_itself_carries_no_frame_from_one_container_to_another() {
    let bench = Bench::on_this_machine();
    let docker = bench.docker();
    // Whoever may send frames all the same: containers that are no jobs, on the same bridge.
    let [hearer, sayer] = ["hears", "says"].map(|name| format!("navvy-tests-{name}-{}", std::process::id()));
    bench.config(&WAITS.replace("sleep 1000", "true"));
    bench.run(&[]).finish().passes();
    let common = ["--network", "navvy", "--user", "0", "--entrypoint", "python3", "navvy/base:bookworm", "-c"];
    let start = |name: &str, script: &str| {
        docker.ask(&[&["run", "--detach", "--name", name][..], &common[..], &[script]].concat()).succeeded();
    };
    start(&hearer, HEARS);
    start(&sayer, "import time; time.sleep(1000)");
    let heard = || docker.ask(&["logs", &hearer]).stdout();
    navvy_tests::eventually("it listens", Duration::from_secs(20), || heard().contains("hears").then_some(()));
    let done = bench.run(&[]).finish();
    docker.ask(&["exec", &sayer, "python3", "-c", SAYS, "eth0", "a neighbour"]).succeeded();
    // What was sent before comes before: the bridge keeps order.
    Program::new("python3").args(["-c", SAYS, "navvy0", "the last"]).run().succeeded();
    docker.ask(&["wait", &hearer]).succeeded();
    let text = heard();
    docker.ask(&["rm", "--force", &hearer, &sayer]).succeeded();
    assert_eq!(text, "hears\nthe last\n");
    assert!(done.report("waits").contains("ARP between jobs closed"), "{}", done.report("waits"));
}

/// A service of this host at every address of it, by TCP and UDP.
struct Service {
    tcp: u16,
    udp: u16,
}

impl Service {
    fn start() -> Self {
        let tcp = TcpListener::bind("0.0.0.0:0").expect("a port is free");
        let udp = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        let ports = Self {
            tcp: tcp.local_addr().expect("it has one").port(),
            udp: udp.local_addr().expect("it has one").port(),
        };
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                stream.write_all(b"served").ok();
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                udp.send_to(b"served", from).ok();
            }
        });
        ports
    }
}

const KNOCKS: &str = r#"
version: 2.1
jobs:
  knocks:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: knocks
          shell: python3 -u
          command: |
            import os, socket
            def knock(name, kind, address):
                # Where a door should be open, whoever serves has a minute's time.
                for _ in range(20 if f'{address}/{name}' in os.environ['OPEN'].split() else 1):
                    door = socket.socket(socket.AF_INET, kind)
                    door.settimeout(3)
                    try:
                        # An answer by UDP may come from another address of the host.
                        if kind == socket.SOCK_DGRAM: door.sendto(b'?', (address, int(os.environ[name])))
                        else: door.connect((address, int(os.environ[name])))
                        return door.recv(64).decode()
                    except TimeoutError:
                        continue
                    except OSError:
                        break
                return 'walled'
            for address in os.environ['ADDRESSES'].split():
                print(knock('TCP', socket.SOCK_STREAM, address), knock('UDP', socket.SOCK_DGRAM, address))
      - run:
          name: names
          shell: python3 -u
          command: |
            import socket
            print('own' if socket.gethostbyname(socket.gethostname()).startswith('1') else 'none')
            asks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asks.settimeout(10)
            # Docker's own name server answers for its network's containers.
            asks.sendto(b'\x12\x34\x01\0\0\1\0\0\0\0\0\0' + bytes([len(socket.gethostname())]) + socket.gethostname().encode()
                        + b'\0\0\1\0\1', ('127.0.0.11', 53))
            print('answered' if asks.recv(512)[:2] == b'\x12\x34' else 'odd')
      - run: {name: holds, command: 'echo it waits; until [ -e /tmp/go ]; do sleep 0.1; done'}
workflows:
  ci: {jobs: [knocks]}
"#;

/// Addresses of this machine that a container can name.
fn addresses_of_host() -> Vec<String> {
    let shown = Program::new("ip").args(["-4", "-o", "address", "show"]).run().text();
    let all = shown.lines().filter_map(|line| Some(line.split_whitespace().nth(3)?.split_once('/')?.0.to_owned()));
    all.filter(|address| address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())).collect()
}

fn rules() -> String {
    Program::new("iptables").args(["-w", "-S"]).run().text()
}

#[test]
fn services_of_this_host_answer_no_job_but_where_they_are_allowed() {
    let bench = Bench::on_this_machine();
    let service = Service::start();
    let addresses = addresses_of_host();
    assert!(addresses.len() >= 2, "the bridge's gateway at least, and another: {addresses:?}");
    bench.config(KNOCKS);
    let (tcp, udp) = (service.tcp.to_string(), format!("{}/udp", service.udp));
    let given =
        [format!("ADDRESSES={}", addresses.join(" ")), format!("TCP={}", service.tcp), format!("UDP={}", service.udp)];
    let given: Vec<&str> = given.iter().flat_map(|pair| ["--var", pair.as_str()]).collect();
    let knock = |words: &[&str], open: &str, is_killed: bool| {
        let words: Vec<&str> = words.iter().flat_map(|word| ["--allow-host", word]).collect();
        let open = format!("OPEN={open}");
        let run = bench.run(&[&given[..], &["--var", open.as_str()], &words].concat());
        let task = run.wait_for_output("it waits").task().expect("output is a task's").to_owned();
        let allowed = rules().contains(&format!("navvy-task-{task}"));
        assert_eq!(allowed, !words.is_empty(), "{}", rules());
        if is_killed {
            run.signal(Signal::Kill);
            let done = run.that_leaves_things().finish();
            bench.ask(&["prune"]).passes();
            return (task, done);
        }
        bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]).succeeded();
        let done = run.finish();
        done.passes();
        (task, done)
    };

    let (_, done) = knock(&[], "none", false);
    assert_eq!(done.text("knocks", "knocks"), "walled walled\n".repeat(addresses.len()));
    assert_eq!(done.text("knocks", "names"), "own\nanswered\n");
    let report = done.report("knocks");
    assert!(report.contains("metadata addresses closed, this host closed"), "{report}");

    let all: Vec<String> = addresses.iter().map(|address| format!("{address}/TCP {address}/UDP")).collect();
    let (task, done) = knock(&[&tcp, &udp], &all.join(" "), false);
    assert_eq!(done.text("knocks", "knocks"), "served served\n".repeat(addresses.len()));
    assert!(done.report("knocks").contains(&format!("Jobs may reach {tcp}, {udp} (--allow-host)")));
    assert!(!rules().contains(&format!("navvy-task-{task}")), "what a task was allowed goes with it");

    let (_, done) = knock(&[&format!("{}:{tcp}", addresses[0])], &format!("{}/TCP", addresses[0]), false);
    let one = format!("served walled\n{}", "walled walled\n".repeat(addresses.len() - 1));
    assert_eq!(done.text("knocks", "knocks"), one, "at one address and by TCP alone");

    let (task, _) = knock(&[&tcp], "none", true);
    assert!(!rules().contains(&format!("navvy-task-{task}")), "the next start takes back what a dead run was allowed");
    assert_eq!((bench.left_of(&[task]), bench.left_of_runs()), (vec![], vec![]));

    let wrong = bench.run(&["--allow-host", "proxy:3128"]).finish();
    wrong.exits_with(64).complains(&["--allow-host", "proxy:3128", "names are not looked up"]);
    let wrong = bench.run(&["--allow-host", "127.0.0.1:80"]).finish();
    wrong.exits_with(64).complains(&["127.0.0.1", "in a job it is the job itself"]);
}

#[test]
fn metadata_of_every_cloud_is_closed_and_the_doctor_says_so() {
    let bench = Bench::on_this_machine();
    bench.config(WAITS);
    let run = bench.run(&[]);
    run.wait_for_output("it waits");
    let rules = rules();
    let chain = |hook: &str, prefix: &str| {
        let jump = rules.lines().find(|line| line.starts_with(&format!("-A {hook} "))).unwrap_or_default();
        let name = jump.rsplit(' ').next().unwrap_or_default();
        assert!(jump.contains("-i navvy0") && name.starts_with(prefix), "first of {hook}: {jump}");
        format!("-A {name} ")
    };
    let out = chain("DOCKER-USER", "NAVVY-OUT-");
    for address in ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"] {
        let closed = rules.lines().any(|line| line.starts_with(&format!("{out}-d {address} -j REJECT")));
        assert!(closed, "{address}: {rules}");
    }
    let host = chain("INPUT", "NAVVY-HOST-");
    let last = rules.lines().rfind(|line| line.starts_with(&host)).unwrap_or_default();
    assert!(last.starts_with(&format!("{host}-j REJECT")), "{last}");
    let v6 = Program::new("ip6tables").args(["-w", "-S"]).run().text();
    assert!(
        v6.lines().any(|line| line.starts_with("-A NAVVY-OUT-") && line.contains("-d fd00:ec2::/32 -j REJECT")),
        "{v6}"
    );
    assert!(v6.contains("-A INPUT -i navvy0 -j NAVVY-HOST-"), "{v6}");
    let told = bench.ask(&["doctor"]).stdout();
    let line = told.lines().find(|line| line.contains("network")).unwrap_or_default();
    for word in ["metadata addresses closed", "this host closed", "169.254.0.0/16", "fd00:ec2::/32", "100.100.100.200"]
    {
        assert!(line.contains(word), "{word}: {line}");
    }
    run.signal(Signal::Interrupt);
    run.finish().exits_with(130);
}

#[test]
fn where_the_rules_are_not_ours_the_doctor_says_what_is_open() {
    let user = Bench::of(navvy_tests::Setting::User);
    let told = user.navvy(&["doctor"]).stdout();
    assert!(told.contains("metadata addresses open, this host open (closing takes root)"), "{told}");
    let far = Bench::of(navvy_tests::Setting::FarEngine);
    let told = far.navvy(&["doctor"]).stdout();
    assert!(told.contains("this host open (the engine is on another machine)"), "{told}");
    // Its socket is here, its bridge is not: rules of this network would close nothing of it.
    let engine = PrivateEngine::near();
    let near = Bench::new().on(engine.docker(), &engine.address());
    let told = near.navvy(&["doctor"]).stdout();
    assert!(told.contains("this host open (the engine has a network of its own)"), "{told}");
}

#[test]
fn a_proxy_at_the_gateway_is_told_with_the_flag_that_opens_it() {
    let bench = Bench::on_this_machine();
    let gateway = addresses_of_host().remove(0);
    bench.home_file(
        ".docker/config.json",
        format!(r#"{{"proxies": {{"default": {{"httpProxy": "http://{gateway}:3128"}}}}}}"#),
    );
    bench.config(&WAITS.replace("sleep 1000", "true"));
    let word = format!("--allow-host {gateway}:3128");
    let done = bench.run(&[]).finish();
    assert!(done.warnings().contains(&word), "{}", done.warnings());
    assert!(bench.navvy(&["doctor"]).stdout().contains(&word));
    let done = bench.run(&["--allow-host", &format!("{gateway}:3128")]).finish();
    assert!(!done.warnings().contains("--allow-host"), "{}", done.warnings());
    bench.config_file("navvy/settings.toml", format!("allow-host = [\"{gateway}:3128\"]\n"));
    let done = bench.run(&[]).finish();
    assert!(!done.warnings().contains("--allow-host"), "{}", done.warnings());
    assert!(!bench.navvy(&["doctor"]).stdout().contains(&word));
}
