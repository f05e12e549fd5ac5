//! Service containers' output: a stream and a log of its own each.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::{Task, Voice};
use crate::environment::docker::{DockerEnvironment, ServiceEnd, ServiceOutput};
use crate::event::Event;
use crate::output::Feed;
use crate::output::mask::Place;

impl Task {
    /// From now on what services write goes to their logs. Ends with the services.
    pub(super) fn follow_services(&self, environment: &mut DockerEnvironment) {
        for (index, service) in environment.take_services().into_iter().enumerate() {
            let path = self.context.directory.join(format!("service-{index}.log"));
            tokio::spawn(follow(service, path, self.voice.clone(), self.context.feed));
        }
    }
}

async fn follow(mut service: ServiceOutput, path: PathBuf, voice: Voice, feed: Feed) {
    let mut log = File::options().create(true).append(true).mode(0o600).open(&path);
    let stream = format!("service:{}", service.name);
    let place = Place::of_job(&voice.task.job.job, format!("output of service {}", service.name));
    let mut masks = voice.bus.masks().stream(place);
    loop {
        let piece = service.rx.recv().await;
        let mut bytes = Vec::new();
        match &piece {
            Some(piece) => masks.push(piece, &mut |masked| bytes.extend_from_slice(masked)),
            None => masks.finish(&mut |masked| bytes.extend_from_slice(masked)),
        }
        if let Ok(file) = &mut log
            && let Err(error) = file.write_all(&bytes)
        {
            voice.warn(format!("the log of service {} could not be written: {error}", service.name));
            log = Err(error);
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
    if let Ok(end) = service.end.await {
        tell_end(&service.name, &end, &voice);
    }
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
