//! Where calls go, and what they say of namespace, region and token: as a stranger on the way sees them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Takes calls: a Nomad, or a proxy before one.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

/// The head of the next call, which is answered with a leader's address.
async fn call(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\n\"127.0.0.1:4647\"";
    stream.write_all(answer).await.unwrap();
    String::from_utf8(head).unwrap()
}

/// What arrives at `listener` when such a Nomad is asked by way of these proxies.
async fn seen(listener: &TcpListener, settings: &NomadSettings, proxies: &Proxies) -> String {
    let nomad = Nomad::new(settings, proxies).unwrap();
    let (head, leader) = tokio::join!(call(listener), nomad.get::<String>("/v1/status/leader"));
    assert_eq!(leader.unwrap(), "127.0.0.1:4647");
    head
}

#[tokio::test]
async fn each_call_names_its_namespace_and_region_and_has_the_token_in_its_header_alone() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "11111111-secret\n").unwrap();
    let (listener, address) = listener().await;
    let settings = NomadSettings {
        namespace: "ci & co".to_owned(),
        region: Some("eu/west".to_owned()),
        token_file: Some(token_file),
        ..settings(&address)
    };
    let head = seen(&listener, &settings, &Proxies::default()).await;
    assert!(head.starts_with("GET /v1/status/leader?namespace=ci%20%26%20co&region=eu%2Fwest HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nx-nomad-token: 11111111-secret\r\n"), "{head}");
    assert_eq!(head.matches("11111111").count(), 1, "{head}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_nomad_that_is_not_excepted() {
    let (proxy, through) = listener().await;
    let (near, address) = listener().await;
    let proxies = Proxies { http: Some(through), https: None, except: Some("127.0.0.1".to_owned()) };
    // A name that nobody has: only the proxy could know it.
    let head = seen(&proxy, &settings("http://nomad.invalid:4646"), &proxies).await;
    assert!(
        head.starts_with("GET http://nomad.invalid:4646/v1/status/leader?namespace=default HTTP/1.1\r\n"),
        "{head}"
    );
    let head = seen(&near, &settings(&address), &proxies).await;
    assert!(head.starts_with("GET /v1/status/leader?namespace=default HTTP/1.1\r\n"), "{head}");
}
