//! Service containers' output: a bounded stream each.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::{AttachContainerOptionsBuilder, WaitContainerOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use navvy_environment::request::{ServiceEnd, ServiceOutput};
use navvy_job::chain::chain;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::engine::Engine;

/// Chunks that wait for the reader; the engine cuts them at 32 KiB.
const QUEUE: usize = 64;
/// A reader that takes nothing for this long loses output, so that no service hangs on its log for ever.
const READER_LIMIT: Duration = Duration::from_secs(10);
/// Between the end of a service's output and the engine knowing its exit code.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

pub(super) type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

impl Engine {
    /// Everything a container writes from its start on: to be called before.
    pub(super) async fn attach(&self, container: &str) -> Result<Output, bollard::errors::Error> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        Ok(self.docker().attach_container(container, Some(options)).await?.output)
    }

    /// Reads an attached service into a stream, in a task of `tasks`.
    pub(super) fn follow_service(
        &self,
        tasks: &mut JoinSet<()>,
        output: Output,
        name: String,
        image: String,
        container: String,
    ) -> ServiceOutput {
        let (sender, rx) = mpsc::channel(QUEUE);
        let (ended, end) = oneshot::channel();
        let (engine, followed) = (self.clone(), container.clone());
        tasks.spawn(async move {
            let Forwarded { lost, broken } = forward(output, sender).await;
            let exit = engine.exit_code(&followed).await;
            let exit_code = exit.as_ref().ok().copied();
            let trouble = broken.or_else(|| exit.err());
            // Nothing waits for it.
            let _unheard = ended.send(ServiceEnd { exit_code, lost, trouble });
        });
        ServiceOutput { name, image, container, rx, end }
    }

    /// Else why it is not known.
    async fn exit_code(&self, container: &str) -> Result<i64, String> {
        match tokio::time::timeout(EXIT_LIMIT, self.wait(container)).await {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(error)) => Err(format!("the engine does not say whether the service ended: {}", chain(&error))),
            Err(_) => Err(format!("the service had not ended {} s after its output", EXIT_LIMIT.as_secs())),
        }
    }

    /// Waits for the end of a container that was started; its exit code.
    pub(super) async fn wait(&self, container: &str) -> Result<i64, bollard::errors::Error> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match self.docker().wait_container(container, Some(options)).boxed().next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // The client library takes every code but 0 for an error.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(error),
            None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// What became of a service's output.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarded {
    /// Bytes that a reader did not take.
    lost: u64,
    /// Why it broke off.
    broken: Option<String>,
}

async fn forward(mut output: Output, sender: mpsc::Sender<Bytes>) -> Forwarded {
    let mut lost = 0;
    while let Some(chunk) = output.next().await {
        let bytes = match chunk {
            Ok(chunk) => chunk.into_bytes(),
            Err(error) => return Forwarded { lost, broken: Some(format!("it broke off: {}", chain(&error))) },
        };
        let length = bytes.len() as u64;
        // Without a reader the output is still read: a service must never block on it.
        match sender.send_timeout(bytes, READER_LIMIT).await {
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => lost += length,
            Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => {}
        }
    }
    Forwarded { lost, broken: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(chunks: usize) -> Output {
        let chunk = |_| Ok(LogOutput::StdOut { message: Bytes::from_static(b"0123456789") });
        Box::pin(futures_util::stream::iter((0..chunks).map(chunk)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_reader_loses_output_but_blocks_nobody() {
        let (sender, rx) = mpsc::channel(4);
        assert_eq!(forward(output(6), sender).await, Forwarded { lost: 20, broken: None });
        drop(rx);
    }

    #[tokio::test]
    async fn output_without_a_reader_is_read_all_the_same() {
        let (sender, rx) = mpsc::channel(1);
        drop(rx);
        assert_eq!(forward(output(100), sender).await, Forwarded::default());
    }

    #[tokio::test]
    async fn output_that_breaks_off_is_not_taken_for_its_end() {
        let (sender, mut rx) = mpsc::channel(4);
        let broken = futures_util::stream::iter([Err(std::io::Error::other("reset by the engine").into())]);
        let forwarded = forward(Box::pin(output(1).chain(broken).chain(output(1))), sender).await;
        let broken = forwarded.broken.unwrap();
        assert!(broken.starts_with("it broke off: ") && broken.contains("reset by the engine"), "{broken}");
        assert_eq!(rx.recv().await.as_deref(), Some(b"0123456789".as_slice()));
        assert_eq!(rx.recv().await, None);
    }
}
