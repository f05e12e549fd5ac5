//! Service containers' output: a stream and a log of its own each.

use std::time::Duration;

use navvy_environment::request::{ServiceEnd, ServiceOutput};
use navvy_job::event::Event;
use navvy_output::mask::MaskedIn;
use navvy_output::{DiskFloorReached, StepLog};

use crate::environment::Environment;

use super::Task;
use crate::step::voice::Voice;
use crate::task::step_sink::Feed;

/// The last output of a container that was ended comes within this.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// A service whose output is being kept; ends with the service.
pub(super) type Followed = tokio::task::JoinHandle<()>;

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
            let following = follow(service, log, self.voice.clone(), self.context.feed);
            self.services.push(tokio::spawn(following));
        }
    }

    /// Waits, bounded, until the logs of services that are gone are sealed.
    pub(super) async fn services_are_over(&mut self) {
        let deadline = tokio::time::Instant::now() + LAST_WORDS_LIMIT;
        for following in self.services.drain(..) {
            tokio::time::timeout_at(deadline, following).await.ok();
        }
    }
}

async fn follow(mut service: ServiceOutput, log: std::io::Result<StepLog>, voice: Voice, feed: Feed) {
    let mut log = log.map_err(|error| tell_loss(&service.name, &error, &voice)).ok();
    let stream = format!("service:{}", service.name);
    let place = MaskedIn::of_job(&voice.task.job.job, format!("output of service {}", service.name));
    let mut masks = voice.bus.masks().stream(place);
    loop {
        let piece = service.rx.recv().await;
        let mut bytes = Vec::new();
        match &piece {
            Some(piece) => masks.push(piece, &mut |masked| bytes.extend_from_slice(masked)),
            None => masks.finish(&mut |masked| bytes.extend_from_slice(masked)),
        }
        match log.as_mut().map(|log| log.append_now(&bytes)) {
            Some(Ok(())) => voice.spool.appended(bytes.len()),
            Some(Err(error)) => {
                tell_loss(&service.name, &error, &voice);
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
    drop(log);
    if let Ok(end) = service.end.await {
        tell_end(&service.name, &end, &voice);
    }
}

/// The service lives on without a log.
fn tell_loss(name: &str, error: &std::io::Error, voice: &Voice) {
    voice.warn(match DiskFloorReached::of(error) {
        Some(reached) => format!("the output of service {name} is no longer kept: {reached}"),
        None => format!("the log of service {name} could not be written, and ends here: {error}"),
    });
}

/// A service that ended before the job is worth a word: steps fail only later, through lost connections.
fn tell_end(name: &str, end: &ServiceEnd, voice: &Voice) {
    if let (Some(code), false) = (end.exit_code, voice.is_releasing()) {
        voice.warn(format!("service {name} ended by itself with code {code}"));
    }
    if end.lost > 0 {
        voice.warn(format!("service {name} wrote faster than it could be kept: {} bytes are lost", end.lost));
    }
}
