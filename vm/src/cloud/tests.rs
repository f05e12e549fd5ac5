//! What the tests of all clouds need.

use std::sync::Arc;

use super::{Launch, Secret};
use crate::machine_id::MachineId;

/// A client for loopback.
pub(crate) fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// A machine that is wanted.
pub(crate) fn launch(owner: &str) -> Launch {
    Launch {
        id: MachineId::random(),
        owner: owner.to_owned(),
        task: None,
        is_pools: false,
        image: "ami-12c6146b".to_owned(),
        size: "t3a.medium".to_owned(),
        user_data: Secret::new("#cloud-config\n{}\n"),
        is_spot: false,
        disk_gib: 20,
    }
}
