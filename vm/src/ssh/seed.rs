//! A far machine's seed: the same words as on a virtio port, over its unix socket of uid 0.

use navvy_protocol::guest::{LINE_CAP, Said, Seed, Told, VERSION};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::qemu::seed::now_ns;

/// What is said on a seed's stream, whatever carries it; the guest's clock is set to this moment. Returns that clock right after, in
/// nanoseconds since 1970.
///
/// # Errors
/// What the guest says, or what is wrong with it.
pub async fn greet(stream: impl AsyncRead + AsyncWrite + Unpin, mut seed: Seed) -> Result<u64, String> {
    let mut stream = BufReader::new(stream);
    ready(&mut stream).await?;
    seed.time_ns = now_ns();
    let mut line = serde_json::to_vec(&Told::Seed(Box::new(seed))).map_err(|error| error.to_string())?;
    line.push(b'\n');
    if line.len() > LINE_CAP {
        return Err(format!("the seed has {} bytes, and at most {LINE_CAP} are allowed", line.len()));
    }
    let sent = async {
        stream.write_all(&line).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| error.to_string())?;
    match hear(&mut stream).await? {
        Said::Seeded { time_ns } => Ok(time_ns),
        said => Err(unexpected(said)),
    }
}

/// Hears that the guest waits for a seed, and gives it none: who comes next meets it as it was.
///
/// # Errors
/// As of [`greet`].
pub async fn hear_ready(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    ready(&mut BufReader::new(stream)).await
}

async fn ready(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<(), String> {
    match hear(stream).await? {
        Said::Ready { version: VERSION } => Ok(()),
        Said::Ready { version } => Err(format!("its supervisor speaks version {version}, and this program {VERSION}")),
        said => Err(unexpected(said)),
    }
}

fn unexpected(said: Said) -> String {
    match said {
        Said::Failed { message } => crate::cloud::call::words(&message),
        _ => "it said something out of turn".to_owned(),
    }
}

/// One line, never longer than it may be.
async fn hear(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<Said, String> {
    let mut line = Vec::new();
    let read = stream.take(LINE_CAP as u64).read_until(b'\n', &mut line).await;
    read.map_err(|error| error.to_string())?;
    if line.pop() != Some(b'\n') {
        return Err("it hung up, or its line has no end".to_owned());
    }
    serde_json::from_slice(&line).map_err(|_| "its line makes no sense".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_seed() -> Seed {
        let seed = serde_json::json!({
            "time_ns": 0, "entropy": "00", "secret": "hidden", "machine_id": "0", "host_name": "navvy-x", "idle_limit_s": 0,
        });
        serde_json::from_value(seed).unwrap()
    }

    /// What comes of a guest that says these lines.
    async fn guest(lines: Vec<u8>) -> Result<u64, String> {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let says = tokio::spawn(async move {
            theirs.write_all(&lines).await.ok();
            theirs.shutdown().await.ok();
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).await.ok();
            rest
        });
        let greeted = greet(ours, some_seed()).await;
        let heard = says.await.unwrap();
        if greeted.is_ok() {
            assert!(
                matches!(serde_json::from_slice(&heard).unwrap(), Told::Seed(seed) if seed.secret == "hidden" && seed.time_ns > 0)
            );
        }
        greeted
    }

    #[tokio::test]
    async fn a_guest_is_seeded_once_it_is_ready() {
        let lines = b"{\"said\":\"ready\",\"version\":1}\n{\"said\":\"seeded\",\"time_ns\":7}\n";
        assert_eq!(guest(lines.to_vec()).await, Ok(7));
    }

    #[tokio::test]
    async fn a_hostile_guest_gets_nothing_and_costs_little() {
        for (lines, word) in [
            (b"".to_vec(), "hung up"),
            (b"\x00\xff\n".to_vec(), "no sense"),
            (b"{\"said\":\"ready\",\"version\":9}\n".to_vec(), "version 9"),
            (b"{\"said\":\"seeded\",\"time_ns\":7}\n".to_vec(), "out of turn"),
            (vec![b'a'; LINE_CAP + 10], "no end"),
            (
                b"{\"said\":\"ready\",\"version\":1}\n{\"said\":\"failed\",\"message\":\"no\\u0007 disk\"}\n".to_vec(),
                "no  disk",
            ),
        ] {
            let error = guest(lines).await.unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
