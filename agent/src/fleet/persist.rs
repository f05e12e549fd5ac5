//! Calls that are repeated until they are answered: a processor that restarts is waited for as long as the lease holds.

use std::time::Duration;

use tokio::sync::watch;
use tonic::{Code, Status};

use super::connection::{CallError, Session, is_passing};

/// The first pause between two attempts, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Why a call will never be answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Halt {
    /// The task is not ours any more.
    #[error("the task is no longer this agent's")]
    Lost,
    /// The processor says that the call itself is wrong.
    #[error(transparent)]
    Refused(#[from] CallError),
    /// What was to be handed over cannot be read.
    #[error("{0}")]
    Spool(String),
}

/// Growing pauses, each with some chance in it: agents that failed together do not come back together.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// The next pause.
    pub fn another(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(LONGEST);
        let chance = uuid::Uuid::new_v4().as_bytes()[0];
        whole / 2 + whole / 2 * u32::from(chance) / 255
    }
}

/// True once the task is not ours any more.
pub type Loss = watch::Receiver<bool>;

/// Waits for the loss; never ends if there can be none any more.
pub async fn lost(loss: &mut Loss) {
    if loss.wait_for(|lost| *lost).await.is_err() {
        std::future::pending().await
    }
}

/// Repeats `call` until it is answered, refused, or the task is lost.
pub async fn persist<T, F>(session: &Session, loss: &Loss, mut call: impl FnMut() -> F) -> Result<T, Halt>
where
    F: Future<Output = Result<T, Status>>,
{
    let (mut loss, mut pauses) = (loss.clone(), Pauses::default());
    loop {
        let status = tokio::select! {
            biased;
            () = lost(&mut loss) => return Err(Halt::Lost),
            answered = call() => match answered {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            },
        };
        match status.code() {
            Code::FailedPrecondition | Code::Unauthenticated => return Err(Halt::Lost),
            _ if is_passing(&status) => {
                tracing::debug!("A call is tried again: {}.", session.processor.explain(&status));
                tokio::select! {
                    () = lost(&mut loss) => return Err(Halt::Lost),
                    () = tokio::time::sleep(pauses.another()) => {}
                }
            }
            _ => return Err(session.processor.explain(&status).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut pauses = Pauses::default();
        let lengths: Vec<_> = (0..20).map(|_| pauses.another()).collect();
        assert!(lengths.iter().all(|pause| *pause >= FIRST / 2 && *pause <= LONGEST), "{lengths:?}");
        assert!(lengths[19] >= LONGEST / 2, "{lengths:?}");
    }
}
