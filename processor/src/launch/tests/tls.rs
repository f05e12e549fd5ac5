//! A Nomad that speaks TLS, and wants to see a certificate.

use std::sync::Arc;

use navvy_storage::Identity;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::Files;
use crate::tls::tests::make;

/// Answers every call with a leader's address.
async fn serve(listener: TcpListener, files: Files, ca: std::path::PathBuf) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let _request = stream.read(&mut [0; 4096]).await.unwrap_or_default();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n\"127.0.0.1:4647\"";
        stream.write_all(answer).await.ok();
        stream.shutdown().await.ok();
    }
}

#[tokio::test]
async fn nomad_is_believed_by_its_authority_and_shown_our_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (make(directory.path(), "ours"), make(directory.path(), "theirs"));
    let ca = directory.path().join("ours-ca.pem");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(listener, ours.clone(), ca.clone()));
    let identity = |files: &Files| Some(Identity { certificate: files.certificate.clone(), key: files.key.clone() });
    for (ca, identity, is_served) in [
        (Some(ca.clone()), identity(&ours), true),
        (Some(ca.clone()), identity(&theirs), false),
        (Some(ca.clone()), None, false),
        (None, identity(&ours), false),
    ] {
        let settings = NomadSettings { ca, identity, ..settings(&address) };
        let leader = Nomad::new(&settings, &Proxies::default()).unwrap().get::<String>("/v1/status/leader").await;
        assert_eq!(leader.is_ok(), is_served, "{leader:?}");
    }
    serving.abort();
    let mixed = Identity { certificate: ours.certificate.clone(), key: theirs.key.clone() };
    for (identity, told) in [
        (mixed, "ours.pem"),
        (Identity { certificate: "/nowhere.pem".into(), key: ours.key.clone() }, "/nowhere.pem"),
        (Identity { certificate: ours.certificate.clone(), key: ca }, "ours-ca.pem"),
    ] {
        let settings = NomadSettings { identity: Some(identity), ..settings(&address) };
        let error = Nomad::new(&settings, &Proxies::default()).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
