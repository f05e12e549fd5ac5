//! A step that prints for some seconds, so that something can break in its middle.

use std::time::Duration;

use crate::{Fleet, eventually};

const LIMIT: Duration = Duration::from_secs(120);

/// One job, `slow`, whose one step prints numbered lines, and then how often it has run in its container. It rests near its end, so
/// that its middle is long also for a story that is slow to see it.
pub const SLOW: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: counts, command: "for i in $(seq 1 3000); do echo line $i; [ $i = 2900 ] && sleep 6; [ $((i % 100)) = 0 ] && sleep 0.2; done; echo once >>/tmp/ran; wc -l </tmp/ran"}
workflows:
  ci: {jobs: [slow]}
"#;

/// The log of that step.
pub const SLOW_LOG: &str = "001-1";

/// What the step prints if it runs once and to its end.
pub fn printed_by_slow() -> Vec<u8> {
    let lines: String = (1..=3000).map(|i| format!("line {i}\n")).collect();
    format!("{lines}1\n").into_bytes()
}

impl Fleet<'_> {
    /// The project, whose job `slow` prints lines, is submitted, and in the middle of its step. Pipeline and task.
    #[track_caller]
    pub fn in_the_middle(&self) -> (String, String) {
        let pipeline = self.submit(&["--tree"]);
        let task = self.task(&pipeline, "slow");
        self.has_shown(&task, SLOW_LOG, "line 100\n");
        (pipeline, task)
    }

    /// Waits until a log has this in it.
    #[track_caller]
    pub fn has_shown(&self, task: &str, log: &str, mark: &str) {
        eventually(&format!("{mark:?} in log {log}"), LIMIT, || {
            let so_far = self.log_so_far(task, log);
            so_far.windows(mark.len()).any(|window| window == mark.as_bytes()).then_some(())
        });
    }
}
