use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

fn opened() -> (Desk, u16) {
    let desk = Desk::default();
    let Ok(Reply::Listening { port }) = offer(&desk, "the-key") else { panic!("not listening") };
    (desk, port)
}

fn taken(desk: &Desk) -> Option<Continuation> {
    lock(&desk.0).as_ref().and_then(|offer| lock(&offer.shared.taken).as_deref().cloned())
}

/// Sends the bytes and gives the status and the body of the answer.
fn send(port: u16, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.rsplit_once("\r\n\r\n").unwrap();
    let status = head.rsplit("HTTP/1.1 ").next().unwrap().split(' ').next().unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn post(port: u16, path: &str, body: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    send(port, format!("{head}{body}").as_bytes())
}

const GOOD: &str = r#"{"continuation-key":"the-key","configuration":"version: 2.1\n","parameters":{"n":3}}"#;

#[test]
fn a_call_with_the_key_is_taken_once() {
    let (desk, port) = opened();
    assert_eq!(post(port, PATH, GOOD).0, 200);
    let found = taken(&desk).unwrap();
    assert_eq!((found.configuration.as_str(), found.parameters["n"].as_i64()), ("version: 2.1\n", Some(3)));
    let (status, message) = post(port, PATH, &GOOD.replace("2.1", "2"));
    assert!(status == 400 && message.contains("continued already"), "{status} {message}");
    assert_eq!(taken(&desk).unwrap(), found);
}

#[test]
fn what_is_no_call_is_told_so_and_changes_nothing() {
    let (desk, port) = opened();
    let cases = [
        (PATH, GOOD.replace("the-key", "another"), 401, "CIRCLE_CONTINUATION_KEY"),
        (PATH, r#"{"configuration":"x"}"#.to_owned(), 400, "continuation-key"),
        (PATH, GOOD.replace(r#"{"n":3}"#, "[1]"), 400, "not a valid call"),
        (PATH, "not json".to_owned(), 400, "not a valid call"),
        ("/api/v2/me", GOOD.to_owned(), 404, PATH),
    ];
    for (path, body, status, words) in cases {
        let (found, message) = post(port, path, &body);
        assert!(found == status && message.contains(words), "{body}: {found} {message}");
    }
    assert_eq!(send(port, format!("GET {PATH} HTTP/1.1\r\n\r\n").as_bytes()).0, 405);
    assert_eq!(send(port, format!("POST {PATH} HTTP/1.1\r\n\r\n").as_bytes()).0, 411);
    assert_eq!(send(port, b"\x16\x03\x01 a TLS hello, say\r\n\r\n").0, 400);
    assert_eq!(taken(&desk), None);
}

#[test]
fn what_is_too_long_is_refused_before_it_is_read() {
    let (desk, port) = opened();
    let endless = format!("POST {PATH} HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{{");
    assert_eq!(send(port, endless.as_bytes()).0, 413);
    let head = format!("POST {PATH} HTTP/1.1\r\nX: {}", "x".repeat(20 << 10));
    assert_eq!(send(port, head.as_bytes()).0, 400);
    let large = GOOD.replace("version", &"v".repeat(MAX_CONFIGURATION));
    assert_eq!(post(port, PATH, &large).0, 413);
    assert_eq!(taken(&desk), None);
}

#[test]
fn a_caller_that_asks_first_is_told_to_go_on() {
    let (desk, port) = opened();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "POST {PATH} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", GOOD.len()).unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(GOOD.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(taken(&desk).is_some());
}

#[test]
fn it_is_offered_once() {
    let (desk, port) = opened();
    assert!(matches!(offer(&desk, "the-key"), Ok(Reply::Listening { port: same }) if same == port));
    assert!(offer(&desk, "another").is_err());
}
