//! Service containers' output: a stream and a log of its own each.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use navvy_environment::request::{ServiceEnd, ServiceOutput};
use navvy_job::event::Event;
use navvy_output::mask::MaskedIn;
use navvy_output::{DiskFloorReached, StepLog};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::environment::Environment;

use super::{Task, last_words};
use crate::step::voice::Voice;
use crate::task::step_sink::{Activity, Feed};

/// From the end of a container, and from its last output on.
const LIMIT: Duration = Duration::from_secs(2);

/// A service whose output is being kept.
pub(super) struct Followed {
    name: String,
    activity: Activity,
    /// Comes when its log is sealed.
    sealed: oneshot::Receiver<()>,
    /// Ends with the service.
    over: JoinHandle<()>,
}

impl Task {
    /// From now on what services write goes to their logs. Ends with the services.
    pub(super) fn follow_services(&mut self, environment: &mut Environment) {
        for (index, service) in environment.take_services().into_iter().enumerate() {
            let log = StepLog::create_service(&self.context.directory, index);
            self.context.bus.send(Event::ServiceStarted {
                task: self.reference.clone(),
                service: index,
                name: service.name.clone(),
                log: StepLog::service_path_for(&self.context.directory, index),
            });
            let log = log.map(|log| log.above(self.context.floor));
            self.services.push(Followed::start(service, log, self.voice.clone(), self.context.feed));
        }
    }

    /// Waits, bounded, until the logs of services that are gone are sealed.
    pub(super) async fn services_are_over(&mut self) {
        let voice = self.voice.clone();
        let endings = self.services.drain(..).map(|followed| followed.end(&voice));
        join_all(endings).await;
    }
}

impl Followed {
    fn start(mut service: ServiceOutput, log: io::Result<StepLog>, voice: Voice, feed: Feed) -> Self {
        let (name, activity) = (service.name.clone(), Activity::after(0));
        let (seal, sealed) = oneshot::channel();
        let came = activity.clone();
        let over = tokio::spawn(async move {
            keep(&mut service, log, &came, &voice, feed).await;
            // Nobody may wait for it yet.
            seal.send(()).ok();
            if let Ok(end) = service.end.await {
                tell_end(&service.name, &end, &voice);
            }
        });
        Self { name, activity, sealed, over }
    }

    async fn end(self, voice: &Voice) {
        let Self { name, activity, sealed, over } = self;
        if let Err(trouble) = last_words::heard(sealed, &activity, LIMIT).await {
            over.abort();
            voice.warn(format!("the output of service {name} is not kept to its end: {trouble}"));
        }
        // How the service ended is told if it is known soon.
        tokio::time::timeout(LIMIT, over).await.ok();
    }
}

/// Keeps all that a service writes. Its log is sealed behind that.
async fn keep(service: &mut ServiceOutput, log: io::Result<StepLog>, came: &Activity, voice: &Voice, feed: Feed) {
    let mut log = log.map_err(|error| tell_loss(&service.name, &error, voice)).ok();
    let stream = format!("service:{}", service.name);
    let place = MaskedIn::of_job(&voice.task.job.job, format!("output of service {}", service.name));
    let mut masks = voice.bus.masks().stream(place);
    loop {
        let piece = service.rx.recv().await;
        came.came(piece.as_ref().map_or(0, Bytes::len));
        let mut bytes = Vec::new();
        match &piece {
            Some(piece) => masks.push(piece, &mut |masked| bytes.extend_from_slice(masked)),
            None => masks.finish(&mut |masked| bytes.extend_from_slice(masked)),
        }
        match log.as_mut().map(|log| log.append_now(&bytes)) {
            Some(Ok(())) => voice.spool.appended(bytes.len()),
            Some(Err(error)) => {
                tell_loss(&service.name, &error, voice);
                // Dropped, it is sealed.
                log = None;
            }
            None => {}
        }
        // A flood of a service must never slow the runtime's thread: the view gets it only where it shows all.
        if feed == Feed::All && !bytes.is_empty() {
            let event = Event::Output { task: voice.task.clone(), step: 0, stream: stream.clone(), bytes };
            let bus = voice.bus.clone();
            tokio::task::spawn_blocking(move || bus.send(event)).await.ok();
        }
        if piece.is_none() {
            break;
        }
    }
}

/// The service lives on without a log.
fn tell_loss(name: &str, error: &io::Error, voice: &Voice) {
    voice.warn(match DiskFloorReached::of(error) {
        Some(reached) => format!("the output of service {name} is no longer kept: {reached}"),
        None => format!("the log of service {name} could not be written, and ends here: {error}"),
    });
}

/// A service that ended before the job is worth a word: steps fail only later, through lost connections.
fn tell_end(name: &str, end: &ServiceEnd, voice: &Voice) {
    if !voice.is_releasing() {
        if let Some(code) = end.exit_code {
            voice.warn(format!("service {name} ended by itself with code {code}"));
        }
        if let Some(trouble) = &end.trouble {
            voice.warn(format!("the output of service {name} is no longer kept: {trouble}"));
        }
    }
    if end.lost > 0 {
        voice.warn(format!("service {name} wrote faster than it could be kept: {} bytes are lost", end.lost));
    }
}
