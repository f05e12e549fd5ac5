//! Who is heard of, and who is not any more.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::Row as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::{ClaimError, Claims, Result};
use crate::conduct::{Canceling, from_json};
use crate::state::{int, uint};

/// Between two looks at all tasks that agents have.
const LOOK: Duration = Duration::from_secs(1);

/// What a heartbeat is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beaten {
    /// The task is to be canceled.
    pub cancel: Option<Canceling>,
}

impl Claims {
    /// A heartbeat. `state`: a word of the task's states; from `running` on its steps have begun.
    ///
    /// # Errors
    /// The task is not this agent's any more, or the database does not answer.
    pub async fn beat(&self, task: &str, fence: u64, state: &str) -> Result<Beaten> {
        let begun = i64::from(!matches!(state, "claimed" | "preparing" | ""));
        let update = "UPDATE tasks SET beats = beats + 1, begun = CASE WHEN begun = 1 THEN 1 ELSE $1 END
                      WHERE id = $2 AND handed = $3 AND state = 'claimed' RETURNING cancel";
        let query = sqlx::query(update).bind(begun).bind(task).bind(int(fence));
        let row = query.fetch_optional(self.pool()).await?.ok_or_else(|| ClaimError::Lost(task.to_owned()))?;
        Ok(Beaten { cancel: canceling(row.try_get(0)?)? })
    }

    /// Looks at all tasks that agents have, once.
    pub(super) async fn look_at_leases(&self, seen: &mut HashMap<String, Seen>) -> Result<HashMap<String, Canceling>> {
        let select = "SELECT id, beats, cancel, handed FROM tasks WHERE state = 'claimed'";
        let rows = sqlx::query(select).fetch_all(self.pool()).await?;
        let (mut now_seen, mut cancels) = (HashMap::with_capacity(rows.len()), HashMap::new());
        for row in &rows {
            let (task, beats): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(cancel) = canceling(row.try_get(2)?)? {
                cancels.insert(task.clone(), cancel);
            }
            let fence = uint(row.try_get(3)?);
            let before = seen.remove(&task).filter(|before| (before.fence, before.beats) == (fence, beats));
            now_seen.insert(task, before.unwrap_or_else(|| Seen { fence, beats, since: Instant::now() }));
        }
        *seen = now_seen;
        Ok(cancels)
    }

    /// Those that have not been heard of for longer than this.
    pub(super) async fn lose_the_silent(&self, seen: &HashMap<String, Seen>, after: Duration) -> Result<()> {
        for (task, at) in seen.iter().filter(|(_, seen)| seen.since.elapsed() > after) {
            self.lose(task, at.fence, at.beats, None).await?;
        }
        Ok(())
    }
}

/// The agent that has a task, the heartbeats that it had, and since when it has had no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    fence: u64,
    beats: i64,
    since: Instant,
}

/// Watches over all leases, as long as it is polled, and tells which tasks are to be canceled.
pub async fn watch(claims: Claims, cancels: watch::Sender<HashMap<String, Canceling>>) {
    let mut seen = HashMap::new();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let poked = claims.conductor().signals.cancels.clone();
        tokio::select! {
            _ = tick.tick() => {}
            () = poked.notified() => {}
        }
        let looked = match claims.look_at_leases(&mut seen).await {
            Ok(found) => {
                cancels.send_if_modified(|known| {
                    let differs = *known != found;
                    *known = found;
                    differs
                });
                claims.lose_the_silent(&seen, claims.lease() + claims.patience()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            // While the database does not answer, nobody is lost: agents cannot be heard then.
            seen.clear();
            tracing::warn!("Leases could not be looked at: {}.", navvy_job::chain::chain(&error));
        }
    }
}

fn canceling(text: Option<String>) -> Result<Option<Canceling>> {
    Ok(text.map(|text| from_json("a wish to cancel", &text)).transpose()?)
}
