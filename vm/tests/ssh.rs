//! The way by ssh, against a real server on loopback: started by each test, with a config and a host key of its own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::supervisor::Connect as _;
use navvy_vm::ssh::{Connection, SshFault, SshLink, Target};
use navvy_vm::ssh_key::SshKey;

const SSHD: &str = "/usr/sbin/sshd";
const LIMIT: Duration = Duration::from_secs(60);

/// A server, until this is dropped.
struct Sshd {
    child: Child,
    place: tempfile::TempDir,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

impl Sshd {
    fn start(host_key: &SshKey, authorized: &SshKey) -> Self {
        let place = tempfile::tempdir().unwrap();
        private(&place.path().join("host_key"), host_key.to_openssh().reveal());
        private(&place.path().join("authorized_keys"), authorized.public_line());
        // Another may take it in between; then the server does not start, and the test says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::spawn(place.path(), port);
        Self { child, place, port }
    }

    fn spawn(place: &Path, port: u16) -> Child {
        assert!(Path::new(SSHD).exists(), "{SSHD} is not here: scripts/setup installs openssh-server");
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let at = |name: &str| place.join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPasswordAuthentication no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nStrictModes no\nPidFile none\nAllowStreamLocalForwarding yes\n",
            at("host_key"),
            at("authorized_keys"),
        );
        std::fs::write(place.join("config"), config).unwrap();
        let arguments = ["-D", "-e", "-f", &at("config")].map(str::to_owned);
        let mut command = Command::new(SSHD);
        command.args(arguments).stdin(Stdio::null()).stderr(std::fs::File::create(place.join("log")).unwrap());
        command.spawn().unwrap()
    }

    fn target(&self, host_key: &SshKey, key: &SshKey) -> Target {
        Target {
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: user(),
            key: key.clone(),
            host_key: host_key.public().clone(),
        }
    }
}

/// Who runs the server can come in as no other.
fn user() -> String {
    String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_owned()
}

/// A socket that answers each connection's bytes with the same bytes.
fn echo(place: &Path) -> PathBuf {
    let path = place.join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut answer = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut answer).ok();
                answer.shutdown(std::net::Shutdown::Write).ok();
            });
        }
    });
    path
}

fn exchange(mut stream: UnixStream, bytes: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn activities_flow_side_by_side_and_go_on_after_the_connection_was_lost() {
    let (host_key, key) = (SshKey::generate().unwrap(), SshKey::generate().unwrap());
    let mut server = Sshd::start(&host_key, &key);
    let socket = echo(server.place.path());
    let target = server.target(&host_key, &key);
    let link = SshLink::open(target, socket.to_str().unwrap(), "secret".to_owned(), LIMIT).await.unwrap();
    let link = Arc::new(link);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|nth| (nth % 251) as u8).collect();
    let several: Vec<_> = (0..4)
        .map(|_| {
            let (link, bytes) = (Arc::clone(&link), bytes.clone());
            tokio::task::spawn_blocking(move || assert!(exchange(link.connect().unwrap(), &bytes) == bytes))
        })
        .collect();
    for one in several {
        one.await.unwrap();
    }
    // The whole server goes, with every connection that it had.
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let (place, port) = (server.place.path().to_owned(), server.port);
    server.child = Sshd::spawn(&place, port);
    let again = Arc::clone(&link);
    let back = tokio::task::spawn_blocking(move || exchange(again.connect().unwrap(), b"again")).await.unwrap();
    assert_eq!(back, b"again");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_is_refused_at_once_and_by_name() {
    let (host_key, key) = (SshKey::generate().unwrap(), SshKey::generate().unwrap());
    let server = Sshd::start(&host_key, &key);
    drop(Connection::open(&server.target(&host_key, &key), LIMIT).await.unwrap());
    let pinned = SshKey::generate().unwrap();
    let Err(fault) = Connection::open(&server.target(&pinned, &key), LIMIT).await else { panic!("it was let in") };
    let SshFault::HostKey { shown, pinned: wanted, .. } = &fault else { panic!("{fault}") };
    assert_eq!((shown, wanted), (&host_key.fingerprint(), &pinned.fingerprint()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_knows_and_a_socket_that_is_not_there_have_names() {
    let (host_key, key) = (SshKey::generate().unwrap(), SshKey::generate().unwrap());
    let server = Sshd::start(&host_key, &key);
    let connection = Connection::open(&server.target(&host_key, &key), LIMIT).await.unwrap();
    let fault = connection.to_socket("/nonexistent/control.sock").await.err().unwrap();
    assert!(matches!(fault, SshFault::Channel { .. }), "{fault}");
    connection.close().await;
    let stranger = server.target(&host_key, &SshKey::generate().unwrap());
    let Err(fault) = Connection::open(&stranger, Duration::from_secs(10)).await else { panic!("it was let in") };
    assert!(matches!(fault, SshFault::Refused { .. }), "{fault}");
    let nobody = Target { port: 9, ..server.target(&host_key, &key) };
    let Err(fault) = Connection::open(&nobody, Duration::from_secs(2)).await else { panic!("somebody answered") };
    assert!(matches!(fault, SshFault::Unreachable { .. }), "{fault}");
}
