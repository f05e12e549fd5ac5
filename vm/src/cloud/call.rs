//! One call of a cloud: bounded, with a deadline, and again after a pause where that may help.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, StatusCode};

use super::Fault;

/// Bytes of the longest answer that is read: a page of a thousand machines is shorter.
const LONGEST: usize = 8 << 20;
/// Characters of a cloud's own words that are shown.
const WORDS: usize = 300;
/// Longest pause that a cloud may ask for within one call.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How calls are tried.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One try.
    pub limit: Duration,
    /// How often.
    pub tries: u32,
    /// The first pause; each one doubles it, and some of it is chance.
    pub pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { limit: Duration::from_secs(30), tries: 5, pause: Duration::from_millis(500) }
    }
}

/// What a cloud answered.
#[derive(Debug)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Its body, whole.
    pub body: Vec<u8>,
    /// How long the cloud wants to be left alone.
    pub wait: Option<Duration>,
}

/// Sends a request once.
///
/// # Errors
/// No whole answer came within the limit. What the answer says is the caller's to judge.
pub async fn send(
    client: &Client,
    request: Request,
    (cloud, call): (&'static str, &'static str),
    limit: Duration,
) -> Result<Answer, Fault> {
    let done = tokio::time::timeout(limit, exchange(client, request, (cloud, call))).await;
    done.unwrap_or(Err(Fault::Late { cloud, call, limit }))
}

async fn exchange(
    client: &Client,
    request: Request,
    (cloud, call): (&'static str, &'static str),
) -> Result<Answer, Fault> {
    // An error's URL could hold a signature.
    let unreachable =
        |error: reqwest::Error| Fault::Unreachable { cloud, message: navvy_job::chain::chain(&error.without_url()) };
    let mut response = client.execute(request).await.map_err(unreachable)?;
    let (status, wait) = (response.status(), retry_after(response.headers()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > LONGEST {
            let message = format!("the answer is longer than {LONGEST} bytes");
            return Err(Fault::Nonsense { cloud, call, message });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body, wait })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Makes a call until it is answered for good, with pauses that grow and of which some is chance, so that many who were turned
/// away together do not come back together.
///
/// # Errors
/// The last one.
pub async fn patiently<T, F: Future<Output = Result<T, Fault>>>(pace: Pace, call: impl Fn() -> F) -> Result<T, Fault> {
    let mut pause = pace.pause;
    for _ in 1..pace.tries {
        match call().await {
            Err(fault) if fault.is_passing() => {
                let asked = fault.wait().unwrap_or_default().min(LONGEST_PAUSE);
                tracing::info!(fault = fault.word(), "A call of a cloud is tried again.");
                tokio::time::sleep(asked + pause.mul_f64(0.5 + chance() / 2.0)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answered => return answered,
        }
    }
    call().await
}

/// Between 0 and 1.
fn chance() -> f64 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    f64::from(u16::from_be_bytes([bytes[0], bytes[1]])) / f64::from(u16::MAX)
}

/// A cloud's own words, so that they can be shown: bounded, and on one line.
pub fn words(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let words: String = printable.take(WORDS).collect();
    words.trim().to_owned()
}
