//! The end of a machine that is elsewhere: its supervisor answers no more, and whoever has the machine is asked why.
//!
//! ```text
//! supervisor asked, every 10 s ─▶ it answers: all is well
//!                                 it does not ─▶ its provider says that it is gone ─▶ ended
//!                                                nobody knows: it may come back     ─▶ ended after two minutes of silence
//! ```

use std::sync::Arc;
use std::time::Duration;

use navvy_environment::request::Died;
use navvy_environment::supervisor::{Client, Connect};
use navvy_job::chain::chain;
use tokio::sync::watch;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(10);
/// A network that fails for a minute ends no task: steps go on, and their output waits for us.
const SILENCE: Duration = Duration::from_secs(120);

/// Learns of the end of a machine; `gone` asks its provider what became of it. Within a Tokio runtime only.
pub(crate) fn of(link: Option<Arc<dyn Connect>>, name: String, gone: impl Gone) -> watch::Receiver<Option<Died>> {
    let (sender, died) = watch::channel(None);
    tokio::spawn(async move {
        let message = tokio::select! {
            message = silence(link, &name, gone) => message,
            () = sender.closed() => return,
        };
        sender.send_replace(Some(Died::EngineLost { message }));
        // Kept, so that a later caller still learns of it.
        sender.closed().await;
    });
    died
}

/// Asks what became of a machine. `None`: it is there, or nobody says.
pub(crate) trait Gone: Send + 'static {
    /// Asks once.
    fn ask(&self) -> impl Future<Output = Option<String>> + Send;
}

/// Nobody can be asked.
pub(crate) struct Nobody;

impl Gone for Nobody {
    async fn ask(&self) -> Option<String> {
        None
    }
}

async fn silence(link: Option<Arc<dyn Connect>>, name: &str, gone: impl Gone) -> String {
    let Some(link) = link else { return format!("{name} has no supervisor that could be asked") };
    let client = Client::new(link);
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let asked = client.clone();
        let answered = tokio::task::spawn_blocking(move || asked.ask_for_life()).await;
        let why = match answered {
            Ok(Ok(())) => {
                since = None;
                continue;
            }
            Ok(Err(error)) => chain(&error),
            Err(error) => error.to_string(),
        };
        if let Some(words) = gone.ask().await {
            return format!("{name} is gone: {words}");
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= SILENCE {
            return format!("the supervisor of {name} has not answered for {} s: {why}", SILENCE.as_secs());
        }
    }
}
