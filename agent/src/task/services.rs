//! Service containers' output: a stream and a log of its own each.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::{Task, Voice};
use crate::environment::docker::{DockerEnvironment, ServiceEnd, ServiceOutput};
use crate::event::Event;
use crate::output::Feed;

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
    while let Some(bytes) = service.rx.recv().await {
        if let Ok(file) = &mut log
            && let Err(error) = file.write_all(&bytes)
        {
            voice.warn(format!("the log of service {} could not be written: {error}", service.name));
            log = Err(error);
        }
        // A flood of a service must never slow the runtime's thread: the view gets it only where it shows all.
        if feed == Feed::All {
            let event =
                Event::Output { task: voice.task.clone(), step: 0, stream: stream.clone(), bytes: bytes.to_vec() };
            let bus = voice.bus.clone();
            tokio::task::spawn_blocking(move || bus.send(event)).await.ok();
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
