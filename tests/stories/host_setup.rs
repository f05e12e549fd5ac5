//! `packaging/host-setup`: walls around jobs, in a network of the story's own, and Docker's settings below a directory of its own.
//! Nothing of this machine is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use navvy_tests::{Answer, Program};
use serde_json::{Value, json};

/// In place of Docker's client: knows one network, once it was made.
const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
"network inspect"*) [ -e "$here/network" ] && cat "$here/network" ;;
"network create"*) echo "bridge ci-privileged" >"$here/network" ;;
"network rm"*) rm "$here/network" ;;
info*) cat "$here/info" ;;
*) exit 9 ;;
esac
"#;

/// A machine: its files below a directory, its firewall in a network of its own.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new(daemon_json: Option<&str>, conf: &str) -> Self {
        let machine = Self { root: tempfile::tempdir().expect("a directory can be made") };
        machine.write("etc/navvy/host.conf", conf);
        machine.write("etc/resolv.conf", "nameserver 127.0.0.53\nnameserver 10.0.0.2\n");
        machine.program("bin/docker", DOCKER);
        machine.write("bin/info", "cgroupfs [\"name=seccomp\",\"name=userns\"]\n");
        if let Some(text) = daemon_json {
            machine.write("etc/docker/daemon.json", text);
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// In a program's place.
    fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory can be made");
        fs::write(path, text).expect("a file can be written");
    }

    fn daemon_json(&self) -> Value {
        let text = fs::read_to_string(self.path("etc/docker/daemon.json")).expect("daemon.json is there");
        serde_json::from_str(&text).expect("daemon.json is JSON")
    }

    /// Runs this in a network with Docker's chain in its firewall. `$setup` is the script, for this machine.
    fn run(&self, script: &str) -> Answer {
        let chain = "ip link set lo up; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER";
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/host-setup");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("a PATH"));
        Program::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc"])
            .args([format!("{chain}\n{script}")])
            .env("PATH", path)
            .env("setup", format!("{} --root {}", setup.display(), self.root.path().display()))
            .run()
    }
}

/// Whoever a job could reach: each `NAME ADDRESS PORT` is tried from a container's place, and from this machine's own.
const REACHES: &str = r#"
listen() { python3 -c '
import socket, sys, threading
def serve(s):
    while True: s.accept()[0].close()
sockets = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]
print("up", flush=True)
threads = [threading.Thread(target=serve, args=[s], daemon=True) for s in sockets]
[t.start() for t in threads]; [t.join() for t in threads]' "$@"; }
inside() { nsenter --net=/proc/$1/ns/net "${@:2}"; }
unshare --net sleep infinity & container=$!
unshare --net sleep infinity & world=$!
until [ "$(readlink /proc/$container/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
until [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do :; done
ip link add docker0 type bridge; ip address add 172.30.0.1/24 dev docker0; ip link set docker0 up
ip link add c0 type veth peer name eth0 netns $container; ip link set c0 master docker0 up
ip link add w0 type veth peer name eth0 netns $world; ip address add 198.51.100.254/24 dev w0; ip link set w0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
inside $container ip address add 172.30.0.2/24 dev eth0; inside $container ip link set eth0 up
inside $container ip route add default via 172.30.0.1
inside $world ip link set lo up; inside $world ip link set eth0 up
for address in 198.51.100.1/24 169.254.169.254/32 10.1.2.3/32 10.0.0.2/32; do inside $world ip address add $address dev eth0; done
inside $world ip route add default via 198.51.100.254
for address in 169.254.169.254 10.1.2.3 10.0.0.2; do ip route add $address dev w0; done
exec 3< <(nsenter --net=/proc/$world/ns/net bash -c "$(declare -f listen); listen 0.0.0.0 80 53"); read -r _ <&3
exec 4< <(listen 0.0.0.0 4646 8000); read -r _ <&4
exec 5< <(nsenter --net=/proc/$container/ns/net bash -c "$(declare -f listen); listen 0.0.0.0 80"); read -r _ <&5
# A wall refuses at once: the limit is for a machine that is busy.
try() { if inside $1 timeout 60 bash -c "exec 9<>/dev/tcp/$3/$4" 2>/dev/null; then echo "$2 yes"; else echo "$2 no"; fi; }
look() {
  try $container web 198.51.100.1 80; try $container metadata 169.254.169.254 80; try $container internal 10.1.2.3 80
  try $container dns 10.0.0.2 53; try $container dns-web 10.0.0.2 80; try $container nomad 172.30.0.1 4646; try $container host 172.30.0.1 8000
  try $world published 172.30.0.2 80
}
"#;

#[test]
fn a_job_reaches_the_world_and_neither_metadata_nor_what_is_blocked_nor_nomad() {
    let machine = Machine::new(None, "blocked = 10.0.0.0/8\n");
    let script = format!("{REACHES}\nlook; echo --; $setup; look; echo --; $setup --undo; look");
    let answer = machine.run(&script).text();
    let told: Vec<&str> = answer.split("--\n").collect();
    let open = "web yes\nmetadata yes\ninternal yes\ndns yes\ndns-web yes\nnomad yes\nhost yes\npublished yes\n";
    // Else the story would show nothing.
    assert_eq!(told[0], open, "without walls");
    let walled = "web yes\nmetadata no\ninternal no\ndns yes\ndns-web no\nnomad no\nhost yes\npublished yes\n";
    assert_eq!(told[1], walled, "with walls");
    assert_eq!(told[2], open, "after --undo");
}

#[test]
fn it_does_what_is_missing_and_takes_back_what_it_made_and_nothing_else() {
    let before = r#"{"log-driver": "local", "exec-opts": ["isolation=default"], "default-address-pools": [{"base": "10.99.0.0/16", "size": 25}]}"#;
    let machine = Machine::new(Some(before), "# none\nblocked = 10.0.0.0/8, fd00:1::/64\n");
    let answer = machine.run(
        r#"
        # An empty table is told of once something was asked of it.
        plain() { { iptables-save; ip6tables-save; } | grep -E '^-A |^:(NAVVY|DOCKER)' | sed 's/ \[.*\]//'; }
        before=$(plain)
        code=0; $setup --check || code=$?; echo "check $code"
        [ "$(plain)" = "$before" ] && echo "looking changes nothing"
        $setup; made=$(plain)
        $setup; [ "$(plain)" = "$made" ] && echo "twice is once"
        $setup --check; echo "check $?"
        # As a reboot, or a person, would take it away.
        iptables -F NAVVY-FLEET; code=0; $setup --check || code=$?; echo "without rules $code"
        iptables -I DOCKER-USER -i br-x -j ACCEPT; $setup --boot; iptables -D DOCKER-USER -i br-x -j ACCEPT
        [ "$(plain)" = "$made" ] && echo "boot brings them back"
        iptables -D INPUT -i docker+ -j NAVVY-FLEET-HOST; code=0; $setup --check || code=$?; echo "without a jump $code"
        cat "${setup##* }/etc/docker/daemon.json" >"${setup##* }/made.json"
        $setup --undo; $setup --undo; [ "$(plain)" = "$before" ] && echo "undone"
        "#,
    );
    let expected = "check 1\nlooking changes nothing\ntwice is once\ncheck 0\nwithout rules 1\nboot brings them back\nwithout a jump 1\nundone\n";
    assert_eq!(answer.text(), expected, "{}", answer.stderr);
    let made: Value = serde_json::from_slice(&fs::read(machine.path("made.json")).expect("a file")).expect("JSON");
    let expected = json!({
        "log-driver": "local", "userns-remap": "default",
        "exec-opts": ["isolation=default", "native.cgroupdriver=cgroupfs"],
        "default-address-pools": [{"base": "10.99.0.0/16", "size": 25}],
    });
    assert_eq!(made, expected);
    assert_eq!(machine.daemon_json(), serde_json::from_str::<Value>(before).expect("JSON"));
    assert!(
        !machine.path("var/lib/navvy/host").exists() && !machine.path("etc/docker/daemon.json.before-navvy").exists()
    );
    assert!(!machine.path("bin/network").exists(), "the network is gone");
}

/// A table that does not answer is not one that needs no rules.
#[test]
fn where_a_table_does_not_answer_that_is_told_and_no_machine_is_without_walls_in_silence() {
    let machine = Machine::new(None, "");
    machine.program("bin/ip6tables", "#!/bin/sh\necho 'another app holds the lock' >&2\nexit 4\n");
    for verb in ["--boot", "--check", "--undo"] {
        machine
            .run(&format!("$setup {verb}"))
            .ends(2, &["ip6tables does not say which rules there are for IPv6: another app holds the lock"]);
    }
    // A kernel without IPv6 needs none.
    machine.run("mount -t tmpfs none /proc; $setup --boot; iptables -S NAVVY-FLEET").succeeded();
    // Nor are jumps to our rules overlooked, which would then be there twice.
    let machine = Machine::new(None, "");
    let fails = "#!/bin/sh\ncase \"$*\" in *'-S INPUT') echo 'no room' >&2; exit 4 ;; esac\nPATH=${PATH#*:} exec iptables \"$@\"\n";
    machine.program("bin/iptables", fails);
    for verb in ["--boot", "--check", "--undo"] {
        machine
            .run(&format!("$setup {verb}"))
            .ends(2, &["iptables does not say which rules there are for IPv4: no room"]);
    }
}

#[test]
fn an_image_gets_dockers_settings_and_its_machine_the_rest() {
    let machine = Machine::new(None, "");
    let answer = machine.run(
        r#"
        rules() { iptables -w -S; ip6tables -w -S; }
        before=$(rules); $setup --image; [ "$(rules)" = "$before" ] && echo "no rules yet"
        $setup --boot; $setup --check; echo "check $?"
        "#,
    );
    assert_eq!(answer.text(), "no rules yet\ncheck 0\n", "{}", answer.stderr);
    assert_eq!(machine.daemon_json()["exec-opts"], json!(["native.cgroupdriver=cgroupfs"]));
}

#[test]
fn where_docker_had_no_settings_none_are_left() {
    let machine = Machine::new(None, "");
    machine.run("$setup").succeeded();
    assert_eq!(machine.daemon_json()["default-address-pools"], json!([{"base": "10.10.0.0/16", "size": 24}]));
    // What a person has added since stays.
    machine.run("$setup --undo").succeeded();
    assert!(!machine.path("etc/docker/daemon.json").exists());
    machine.run("$setup").succeeded();
    let mut changed = machine.daemon_json();
    changed["debug"] = json!(true);
    changed["userns-remap"] = json!("ann");
    machine.write("etc/docker/daemon.json", &changed.to_string());
    machine.run("$setup --undo").succeeded();
    assert_eq!(machine.daemon_json(), json!({"debug": true, "userns-remap": "ann"}));
}

#[test]
fn what_it_does_not_understand_it_refuses_and_leaves_alone() {
    let refused = [
        (Some("{\"debug\": tru"), "", "no JSON object"),
        (Some("[]"), "", "no JSON object"),
        (Some(r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#), "", "native.cgroupdriver=systemd"),
        (Some(r#"{"exec-opts": "x"}"#), "", "no list"),
        (Some(r#"{"userns-remap": ""}"#), "", "change one of them"),
        (None, "blockd = 10.0.0.0/8\n", "no setting `blockd`"),
        (None, "blocked = 10.0.0.0/33\n", "is no network"),
        (None, "blocked = everything\n", "is no network"),
        (None, "blocked = 0.0.0.0/0\n", "is no network"),
        (None, "name_servers = ns.example.com\n", "is no address"),
        (None, "cgroup_driver = cgroup2\n", "neither cgroupfs nor systemd"),
        (None, "blocked 10.0.0.0/8\n", "host.conf:1 is no line"),
        (None, "privileged_network = a_name_that_is_too_long\n", "no name of a bridge"),
    ];
    for (daemon_json, conf, why) in refused {
        let machine = Machine::new(daemon_json, conf);
        let answer = machine.run("before=$(iptables-save | grep -v '^#'); code=0; $setup || code=$?; [ \"$before\" = \"$(iptables-save | grep -v '^#')\" ] && exit $code");
        answer.ends(2, &[why]);
        let path = machine.path("etc/docker/daemon.json");
        assert_eq!(fs::read_to_string(path).ok().as_deref(), daemon_json, "{why}");
    }
    let machine = Machine::new(None, "");
    machine
        .run("iptables -D FORWARD -j DOCKER-USER; iptables -F DOCKER-USER; iptables -X DOCKER-USER; $setup")
        .ends(2, &["no chain DOCKER-USER"]);
    machine.write("bin/network", "macvlan eth0\n");
    machine.run("$setup").ends(2, &["a network ci-privileged of another kind"]);
    let linked = Machine::new(None, "");
    fs::create_dir_all(linked.path("etc/docker")).expect("a directory can be made");
    std::os::unix::fs::symlink("/elsewhere", linked.path("etc/docker/daemon.json")).expect("a link can be made");
    linked.run("$setup").ends(2, &["is a link to /elsewhere"]);
}
