//! What Nomad shows of a task while it runs: one stream for all tasks.

use std::collections::BTreeMap;

use tokio::sync::broadcast;

use crate::directory::Record;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::DriverTaskEvent;

/// Events that a stream has not taken yet.
const MOST_WAITING: usize = 256;
/// Of one event.
const LONGEST: usize = 500;

/// The stream's inner end.
#[derive(Clone)]
pub struct Events(broadcast::Sender<DriverTaskEvent>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(MOST_WAITING))
    }
}

impl Events {
    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<DriverTaskEvent> {
        self.0.subscribe()
    }

    /// Tells something of a task.
    pub fn tell(&self, record: &Record, message: String) {
        let message: String = message.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        let event = DriverTaskEvent {
            task_id: record.id.clone(),
            alloc_id: record.alloc_id.clone(),
            task_name: record.name.clone(),
            timestamp: Some(std::time::SystemTime::now().into()),
            message,
            annotations: BTreeMap::from([("task".to_owned(), record.task.clone())]).into_iter().collect(),
        };
        // Nobody listens between two Nomad agents.
        let _unheard = self.0.send(event);
    }
}
