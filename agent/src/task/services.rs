//! Service containers' output: a stream and a log of its own each.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::Task;
use crate::bus::Bus;
use crate::environment::docker::{DockerEnvironment, ServiceEnd, ServiceOutput};
use crate::event::{Event, TaskRef};
use crate::output::Feed;

impl Task {
    /// From now on what services write goes to their logs. Ends with the services.
    pub(super) fn follow_services(&self, environment: &mut DockerEnvironment) {
        for (index, service) in environment.take_services().into_iter().enumerate() {
            let path = self.context.directory.join(format!("service-{index}.log"));
            let (bus, task, feed) = (self.context.bus.clone(), self.reference.clone(), self.context.feed);
            tokio::spawn(follow(service, path, bus, task, feed));
        }
    }
}

async fn follow(mut service: ServiceOutput, path: PathBuf, bus: Bus, task: TaskRef, feed: Feed) {
    let mut log = File::options().write(true).create(true).append(true).mode(0o600).open(&path);
    let stream = format!("service:{}", service.name);
    while let Some(bytes) = service.rx.recv().await {
        if let Ok(file) = &mut log
            && let Err(error) = file.write_all(&bytes)
        {
            let message = format!("the log of service {} could not be written: {error}", service.name);
            bus.send(Event::Warning { task: Some(task.clone()), message });
            log = Err(error);
        }
        // A flood of a service must never slow the runtime's thread: the view gets it only where it shows all.
        if feed == Feed::All {
            let (bus, task, stream) = (bus.clone(), task.clone(), stream.clone());
            let event = Event::Output { task, step: 0, stream, bytes: bytes.to_vec() };
            tokio::task::spawn_blocking(move || bus.send(event)).await.ok();
        }
    }
    if let Ok(end) = service.end.await {
        tell_end(&service.name, &end, &bus, &task);
    }
}

/// A service that ended before the job is worth a word: steps fail only later, through lost connections.
fn tell_end(name: &str, end: &ServiceEnd, bus: &Bus, task: &TaskRef) {
    if let Some(code) = end.exit_code {
        let message = format!("service {name} ended by itself with code {code}");
        bus.send(Event::Warning { task: Some(task.clone()), message });
    }
    if end.lost > 0 {
        let message = format!("service {name} wrote faster than it could be kept: {} bytes are lost", end.lost);
        bus.send(Event::Warning { task: Some(task.clone()), message });
    }
}
