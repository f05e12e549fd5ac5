//! An authority of one's own: the real server behind TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::super::suite::server::server;
use super::super::*;

/// An authority, `ca.pem`, and what it signed for 127.0.0.1: `server.pem`, `server.key`.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        let done = command.args(arguments).current_dir(directory).stderr(Stdio::null()).status().unwrap();
        assert!(done.success(), "openssl {arguments:?}");
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=our authority", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&ca[..], &key].concat());
    openssl(&[&["req", "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"][..], &key].concat());
    std::fs::write(directory.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let sign =
        ["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext"];
    openssl(&[&sign[..], &["-in", "server.csr", "-out", "server.pem"]].concat());
}

fn acceptor(directory: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, upstream: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A client that does not trust us ends here.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let mut store = TcpStream::connect(upstream).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut store).await.map(drop).unwrap_or_default();
        });
    }
}

#[tokio::test]
async fn a_store_of_our_own_authority_is_trusted_when_its_certificate_is_named() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let upstream = server().endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, acceptor(directory.path()), upstream));

    let mut settings = server().settings(&endpoint);
    settings.retries.most = 0;
    let place = Slot::Cache { key: "k".into() };
    let store = |settings: &StorageSettings| {
        Store::direct(Arc::new(settings.open().unwrap()), "project", TrustScope::Trusted, Shape::default())
    };
    let error = store(&settings).find(&place).await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
    settings.ca = Some(directory.path().join("ca.pem"));
    assert_eq!(store(&settings).find(&place).await.unwrap(), None);
}
