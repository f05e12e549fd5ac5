//! A pool's figures over HTTP: `GET /metrics`, and nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use navvy_vm::pool::keeper::Pool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Who asks does so at once, and again on another connection.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the longest question.
const HEAD: usize = 8 << 10;
/// Who asks at the same time.
const CONNECTIONS: usize = 16;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, pool: Pool) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pool = pool.clone();
                tokio::spawn(async move {
                    converse(stream, pool).await;
                    drop(place);
                });
            }
            // Out of descriptors, say.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse(stream: TcpStream, pool: Pool) {
    let answering = service_fn(move |request: Request<Incoming>| {
        let pool = pool.clone();
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &pool).await) }
    });
    let mut http = http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(LIMIT).max_buf_size(HEAD).keep_alive(false);
    // Who does not listen is not told.
    tokio::time::timeout(LIMIT, http.serve_connection(TokioIo::new(stream), answering)).await.ok();
}

async fn answer(method: &Method, path: &str, pool: &Pool) -> Response<String> {
    match (method, path) {
        (&Method::GET, "/metrics") => match pool.report().await {
            Some(report) => respond(StatusCode::OK, report.prometheus()),
            None => respond(StatusCode::SERVICE_UNAVAILABLE, "the pool ends\n".to_owned()),
        },
        (&Method::GET, _) => respond(StatusCode::NOT_FOUND, "figures are at /metrics\n".to_owned()),
        _ => {
            let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, "figures are read with GET\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            refused
        }
    }
}

fn respond(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use navvy_vm::machine_id::MachineId;
    use navvy_vm::pool::keeper::Keeper;
    use navvy_vm::pool::maker::{Maker, NotMade};
    use navvy_vm::pool::record::Holder;
    use navvy_vm::pool::rules::{Kind, Rules};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A pool that has nothing, and is asked for nothing.
    struct Nobody;

    #[async_trait]
    impl Maker for Nobody {
        async fn make(&self, _: &MachineId, _: &Kind) -> Result<(), NotMade> {
            unreachable!("nothing is wanted")
        }

        async fn hand_over(&self, _: &MachineId, _: &Holder) -> Result<serde_json::Value, String> {
            unreachable!("nothing is wanted")
        }

        async fn remove(&self, _: &MachineId) -> Result<(), String> {
            Ok(())
        }

        async fn survey(&self) -> Result<std::collections::BTreeSet<MachineId>, String> {
            Ok(std::collections::BTreeSet::new())
        }
    }

    async fn asked(at: std::net::SocketAddr, question: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_figures_are_to_be_had() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, pool) = Keeper::open(directory.path(), Rules::default(), Arc::new(Nobody)).unwrap();
        let keeping = tokio::spawn(keeper.run());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, pool));
        for (question, status, words) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "navvy_pool_launches_total 0"),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200 OK", "navvy_pool_launches_total 0"),
            ("GET /metricsx HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", "figures are at /metrics"),
            ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed", "with GET"),
            ("nonsense\r\n\r\n", "400 Bad Request", ""),
        ] {
            let answer = asked(at, question).await;
            let first = answer.lines().next().unwrap_or_default();
            assert!(first.ends_with(status) && answer.contains(words), "{question:?}: {answer}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD));
        assert!(asked(at, &long).await.starts_with("HTTP/1.1 431 "));
        serving.abort();
        keeping.abort();
    }
}
