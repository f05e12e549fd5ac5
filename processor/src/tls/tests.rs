use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::door::FIRST_WORD;
use crate::door::tests::served_with;

/// Makes `NAME-ca.pem`, and `NAME.pem` with `NAME.key` that it signed for 127.0.0.1.
pub(crate) fn make(directory: &Path, name: &str) -> Files {
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        let done = command.args(words.split(' ')).current_dir(directory).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "openssl {words}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 -days 2 -subj /CN={name}-authority -keyout {name}-ca.key -out {name}-ca.pem {key}"));
    openssl(&format!("req -subj /CN=127.0.0.1 -keyout {name}.key -out {name}.csr {key}"));
    std::fs::write(directory.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let by = format!("-CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial");
    openssl(&format!("x509 -req -days 2 {by} -extfile ext -in {name}.csr -out {name}.pem"));
    let file = |end: &str| directory.join(format!("{name}{end}"));
    Files { certificate: file(".pem"), key: file(".key"), client_ca: None }
}

/// What a client is told at `/` that trusts this authority and shows this certificate.
async fn ask(address: SocketAddr, ca: &Path, shows: Option<&Files>) -> io::Result<String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots(ca).unwrap());
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = certificates(File::Certificate, &files.certificate).unwrap();
            builder.with_client_auth_cert(chain, key(&files.key).unwrap()).unwrap()
        }
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn greeting(files: Files, port: For) -> (Arc<Certificates>, Greeting) {
    let certificates = Arc::new(Certificates::read(files).unwrap());
    (Arc::clone(&certificates), Greeting::new(certificates, port))
}

#[tokio::test]
async fn who_trusts_the_authority_is_served_and_a_new_certificate_counts_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (make(directory.path(), "first"), make(directory.path(), "second"));
    let (certificates, greeting) = greeting(first.clone(), For::People);
    let (address, _stop) = served_with(4, FIRST_WORD, Some(greeting)).await;
    let [first_ca, second_ca] = ["first", "second"].map(|name| directory.path().join(format!("{name}-ca.pem")));
    assert!(ask(address, &first_ca, None).await.unwrap().ends_with("here"));
    assert!(ask(address, &second_ca, None).await.is_err());

    // The key of another certificate: all stays as it was.
    std::fs::copy(&second.key, &first.key).unwrap();
    let wrong = certificates.read_again().unwrap_err();
    assert_eq!(wrong, [Wrong { file: File::Key, why: "is not the key of the certificate".into() }]);
    assert!(ask(address, &first_ca, None).await.unwrap().ends_with("here"));
    std::fs::copy(&second.certificate, &first.certificate).unwrap();
    certificates.read_again().unwrap();
    assert!(ask(address, &second_ca, None).await.unwrap().ends_with("here"));
    assert!(ask(address, &first_ca, None).await.is_err());
}

#[tokio::test]
async fn agents_must_show_a_certificate_where_an_authority_is_named_and_people_need_not() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (make(directory.path(), "ours"), make(directory.path(), "theirs"));
    let ca = directory.path().join("ours-ca.pem");
    let files = Files { client_ca: Some(ca.clone()), ..ours.clone() };
    // Both ports over HTTP/1.1: which protocol goes on behind the handshake does not matter here.
    let (certificates, for_agents) = greeting(files, For::Agents);
    let (agents, _stop) = served_with(4, FIRST_WORD, Some(for_agents)).await;
    let (people, _stop) = served_with(4, FIRST_WORD, Some(Greeting::new(certificates, For::People))).await;
    assert!(ask(agents, &ca, Some(&ours)).await.unwrap().ends_with("here"));
    assert!(ask(agents, &ca, Some(&theirs)).await.is_err());
    assert!(ask(agents, &ca, None).await.is_err());
    assert!(ask(people, &ca, None).await.unwrap().ends_with("here"));
}

#[tokio::test]
async fn a_handshake_that_stands_still_and_words_without_tls_lose_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let (_, greeting) = greeting(make(directory.path(), "first"), For::People);
    let (address, _stop) = served_with(2, Duration::from_millis(100), Some(greeting)).await;
    // The begin of a ClientHello, and what is none.
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(&[22, 3, 1, 1, 0]).await.unwrap();
    assert_eq!(stuck.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let ca = directory.path().join("first-ca.pem");
    assert!(ask(address, &ca, None).await.unwrap().ends_with("here"));
}

#[test]
fn all_that_is_wrong_is_told_and_nothing_of_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let good = make(directory.path(), "first");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let damaged = file("damaged.key", "-----BEGIN PRIVATE KEY-----\nhunter2!!\n-----END PRIVATE KEY-----\n");
    let cases = [
        (
            Files { certificate: "/nowhere.pem".into(), key: damaged, client_ca: Some(file("empty.pem", "x\n")) },
            vec![
                (File::Certificate, "cannot be read"),
                (File::Key, "is damaged"),
                (File::ClientCa, "holds no certificate"),
            ],
        ),
        (Files { certificate: good.key.clone(), ..good.clone() }, vec![(File::Certificate, "holds no certificate")]),
        (Files { key: good.certificate.clone(), ..good.clone() }, vec![(File::Key, "holds no private key")]),
    ];
    for (files, expected) in cases {
        let wrong = Certificates::read(files).unwrap_err();
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, (file, why)) in wrong.iter().zip(expected) {
            assert!(wrong.file == file && wrong.why.contains(why) && !wrong.why.contains("hunter2"), "{wrong:?}");
        }
    }
}
