//! A task's containers, alive: the way in, what their services write, their end.
//!
//! ```text
//! prepare ─▶ DockerEnvironment ── primary_died() ─▶ Died::{Exited, DiskFloor, EngineLost}
//!               │ end: the supervisor is asked to end, services are killed; nothing runs any more
//!               │ destroy: all that is there is removed by force
//!               ▼
//!            nothing
//! ```

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::query_parameters::KillContainerOptions;
use futures_util::future::join_all;
use navvy_environment::HostPaths;
use navvy_environment::egress::Given;
use navvy_environment::request::Died;
use navvy_environment::request::ServiceOutput;
use navvy_environment::supervisor::Connect;
use navvy_job::id::TaskId;
use navvy_protocol::frame::{self, FrameKind};
use navvy_protocol::supervisor::{Hello, Request};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::fault;
use super::services::Output;

/// An engine that does not answer for this long is gone; between two looks.
const ENGINE_LOST_AFTER: Duration = Duration::from_secs(5);
const ENGINE_LOOK: Duration = Duration::from_millis(100);
/// From asking a supervisor to end to the end of its container.
const END_LIMIT: Duration = Duration::from_secs(2);
/// A primary's last words, for an error.
const LAST_WORDS: usize = 2 << 10;
/// A supervisor's answers to all this are some hundred bytes.
const ANSWER_LIMIT: u64 = 64 << 10;

/// A task's containers, alive. Destroy it; dropping it leaves everything running.
pub struct DockerEnvironment {
    pub(super) engine: Engine,
    pub(super) task: TaskId,
    pub(super) host: HostPaths,
    pub(super) names: Vec<String>,
    pub(super) link: Arc<dyn Connect>,
    pub(super) image_env: Vec<(String, String)>,
    pub(super) step_user: Option<String>,
    pub(super) egress: Given,
    pub(super) idle_limit: Duration,
    pub(super) services: Vec<ServiceOutput>,
    pub(super) died: watch::Receiver<Option<Died>>,
    /// The engine does not answer at the moment.
    pub(super) away: watch::Receiver<bool>,
    /// Followers of services and of the primary; aborted when this is dropped.
    pub(super) _tasks: JoinSet<()>,
}

impl DockerEnvironment {
    /// The way to the supervisor.
    pub fn link(&self) -> Arc<dyn Connect> {
        Arc::clone(&self.link)
    }

    /// As whom steps run: the config's user, else the image's. `None` is uid 0.
    pub fn step_user(&self) -> Option<&str> {
        self.step_user.as_deref()
    }

    /// Ends when the primary container does. May be asked for again and again.
    pub fn primary_died(&self) -> impl Future<Output = Died> + Send + use<> {
        let mut died = self.died.clone();
        async move {
            match died.wait_for(Option::is_some).await.map(|seen| (*seen).clone()) {
                Ok(Some(died)) => died,
                // The environment was dropped: nothing more will be known.
                _ => std::future::pending().await,
            }
        }
    }

    /// Waits until an engine that is away is back, or given up. `Some` if the primary ended with it: one that comes back
    /// ends the containers that it finds. Returns at once while the engine is there.
    pub async fn ended_with_engine(&self) -> Option<Died> {
        let mut away = self.away.clone();
        if !*away.borrow() {
            return None;
        }
        tokio::select! {
            biased;
            died = self.primary_died() => Some(died),
            _ = away.wait_for(|away| !away) => None,
        }
    }

    /// The services' output; the second call returns none.
    pub fn take_services(&mut self) -> Vec<ServiceOutput> {
        std::mem::take(&mut self.services)
    }

    /// Ends all that runs in it, within `limit`, and removes nothing: that may take much longer. Whatever cannot be ended like
    /// this is ended by its removal.
    pub async fn end(&self, limit: Duration) {
        let services = self.names.get(1..).unwrap_or_default();
        tokio::join!(self.end_by_itself(limit), self.engine.kill_all(services, limit));
    }

    /// Removes everything within `limit`. Returns what is left, by name.
    pub async fn destroy(self, limit: Duration) -> Vec<String> {
        let begun = Instant::now();
        let (primary, services) = self.names.split_at(1);
        let services = self.engine.remove_containers(&self.task, services, limit);
        let ((), mut left) = tokio::join!(self.end_by_itself(limit), services);
        let rest = limit.saturating_sub(begun.elapsed());
        left.extend(self.engine.remove_named(&self.task, primary, &self.host, rest).await);
        left
    }

    /// Has the supervisor end its container. The engine would start runc to kill it, which costs more than all the
    /// rest; a supervisor that does not is killed that way.
    async fn end_by_itself(&self, limit: Duration) {
        // Where it is reached through the engine, asking costs as much as killing.
        if self.link.secret().is_some() || self.died.borrow().is_some() {
            return;
        }
        let link = Arc::clone(&self.link);
        // Whatever it does meanwhile, it is not waited for: its connection ends with its container.
        let asked = tokio::time::timeout(END_LIMIT, tokio::task::spawn_blocking(move || ask_to_end(&*link))).await;
        if matches!(asked, Ok(Ok(Ok(())))) {
            let _killed_if_not = tokio::time::timeout(END_LIMIT.min(limit / 2), self.primary_died()).await;
        }
    }
}

fn ask_to_end(link: &dyn Connect) -> io::Result<()> {
    let mut frames = Vec::new();
    frame::encode_message(&mut frames, FrameKind::Hello, &Hello::new(None))?;
    frame::encode_message(&mut frames, FrameKind::Request, &Request::Shutdown { grace_ms: 0 })?;
    let mut stream = link.connect()?;
    stream.set_write_timeout(Some(END_LIMIT))?;
    stream.set_read_timeout(Some(END_LIMIT))?;
    stream.write_all(&frames)?;
    // Closing the connection would take the request back; its end is the container's.
    let _until_the_end = io::copy(&mut stream.take(ANSWER_LIMIT), &mut io::sink());
    Ok(())
}

pub(super) async fn keep_last_words(mut output: Output, words: watch::Sender<String>) {
    use futures_util::StreamExt as _;
    while let Some(Ok(chunk)) = output.next().await {
        words.send_modify(|text| {
            text.push_str(&String::from_utf8_lossy(chunk.as_ref()));
            let surplus = text.len().saturating_sub(LAST_WORDS);
            let cut = (surplus..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.drain(..cut);
        });
    }
}

impl Engine {
    /// Learns of the primary's end and of the engine's absences, in a task of `tasks`. `full` ends with why and which
    /// containers must end for the disk's sake.
    pub(super) fn watch_primary(
        &self,
        tasks: &mut JoinSet<()>,
        name: String,
        words: watch::Receiver<String>,
        full: impl Future<Output = (String, Vec<String>)> + Send + 'static,
    ) -> (watch::Receiver<Option<Died>>, watch::Receiver<bool>) {
        let (sender, died) = watch::channel(None);
        let (absence, away) = watch::channel(false);
        let engine = self.clone();
        tasks.spawn(async move {
            let (end, condemned) = tokio::select! {
                (message, containers) = full => (Died::DiskFloor { message }, containers),
                end = engine.end_of(&name, &words, &absence) => (end, Vec::new()),
            };
            // Reported first: the end of a container that is killed would say less.
            sender.send_replace(Some(end));
            engine.kill_all(&condemned, END_LIMIT).await;
            // Kept, so that a later caller still learns of it.
            sender.closed().await;
        });
        (died, away)
    }

    async fn end_of(&self, name: &str, words: &watch::Receiver<String>, absence: &watch::Sender<bool>) -> Died {
        loop {
            match self.wait(name).await {
                Ok(code) => {
                    let looked = self.docker().inspect_container(name, None).await;
                    if let Err(error) = &looked
                        && fault::is_disconnect(error)
                    {
                        // An engine that ends takes its containers with it: not the job's doing.
                        return Died::EngineLost { message: fault::describe(error) };
                    }
                    let state = looked.ok().and_then(|found| found.state);
                    let out_of_memory = state.and_then(|state| state.oom_killed).unwrap_or(false);
                    return Died::Exited { code, out_of_memory, last_words: words.borrow().clone() };
                }
                // A cut connection says nothing about the container.
                Err(error) if fault::is_disconnect(&error) => {
                    absence.send_replace(true);
                    if let Some(message) = self.lost_with(name).await {
                        return Died::EngineLost { message };
                    }
                    absence.send_replace(false);
                }
                Err(error) => return Died::EngineLost { message: fault::describe(&error) },
            }
        }
    }

    /// Waits for an engine that went away. `None`: it is back, and the container runs.
    async fn lost_with(&self, name: &str) -> Option<String> {
        let since = Instant::now();
        loop {
            match self.is_running(name).await {
                Ok(true) => return None,
                Ok(false) => return Some("it went away, and when it was back the container had ended".to_owned()),
                Err(error) if !fault::is_disconnect(&error) || since.elapsed() > ENGINE_LOST_AFTER => {
                    return Some(fault::describe(&error));
                }
                Err(_) => tokio::time::sleep(ENGINE_LOOK).await,
            }
        }
    }

    async fn is_running(&self, name: &str) -> Result<bool, bollard::errors::Error> {
        let found = self.docker().inspect_container(name, None).await?;
        Ok(found.state.and_then(|state| state.running).unwrap_or(false))
    }

    /// Kills containers, as far as they run.
    async fn kill_all(&self, names: &[String], limit: Duration) {
        let kill = |name| self.docker().kill_container(name, None::<KillContainerOptions>);
        // One that has ended by itself, or is gone, is an error to the engine: the removal finds out.
        let killed = join_all(names.iter().map(|name| kill(name)));
        let _whoever_lives_is_removed_by_force = tokio::time::timeout(limit, killed).await;
    }

    /// Removes containers and nothing else.
    pub(super) async fn remove_containers(&self, task: &TaskId, names: &[String], limit: Duration) -> Vec<String> {
        self.shared.creating.settle(task).await;
        self.remove_all(names, tokio::time::Instant::now() + limit).await.left
    }
}
