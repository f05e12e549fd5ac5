//! What runners ask for: kept for people alone, who want to know why a task waits. No task is handed out or withheld by it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use navvy_job::executor::ExecutorKinds;
use sqlx::Row as _;

use super::{Claims, Result};
use crate::conduct::Conductor;
use crate::state::{StateError, int, now_ms};

/// The same offer is written down again after this.
const AGAIN: Duration = Duration::from_secs(20);
/// A runner that has not asked for so long, and has no task, is not there any more: it asks at least once a minute.
const STANDS: Duration = Duration::from_secs(180);
/// Offers of more runners than this are not remembered in memory, and so written down each time.
const MOST_REMEMBERED: usize = 4096;

/// What a runner has asked for, by its name and class, and when that was written down.
type Words = HashMap<(String, String), (ExecutorKinds, Instant)>;

/// The last word of each runner that is written down already. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<Mutex<Words>>);

impl Written {
    /// Is this news? It is remembered as written.
    fn is_news(&self, agent: &str, class: &str, executors: ExecutorKinds) -> bool {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, (_, at)| at.elapsed() < AGAIN);
        let key = (agent.to_owned(), class.to_owned());
        if written.get(&key).is_some_and(|(known, _)| *known == executors) {
            return false;
        }
        if written.len() < MOST_REMEMBERED {
            written.insert(key, (executors, Instant::now()));
        }
        true
    }
}

impl Claims {
    /// A runner asks for tasks of this class (`*`: any) that one of these executors can carry out.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn offered(&self, agent: &str, class: &str, executors: ExecutorKinds) -> Result<()> {
        if !self.written.is_news(agent, class, executors) {
            return Ok(());
        }
        let now = now_ms();
        let mut tx = self.pool().begin().await?;
        let delete = "DELETE FROM offers WHERE (agent = $1 AND class = $2) OR (seen_ms < $3
                      AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.state = 'claimed' AND t.agent = offers.agent))";
        let query = sqlx::query(delete).bind(agent).bind(class).bind(now - millis(STANDS));
        query.execute(&mut *tx).await?;
        for kind in executors.iter() {
            let insert = "INSERT INTO offers (agent, class, executor, seen_ms) VALUES ($1, $2, $3, $4)
                          ON CONFLICT (agent, class, executor) DO UPDATE SET seen_ms = EXCLUDED.seen_ms";
            let query = sqlx::query(insert).bind(agent).bind(class).bind(kind.word()).bind(now);
            query.execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// What is offered now: executors by class.
pub(crate) struct Offers(BTreeSet<(String, String)>);

impl Offers {
    /// By runners that asked lately, or that are busy with a task.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn now(conductor: &Conductor) -> Result<Self, StateError> {
        let select = "SELECT DISTINCT o.class, o.executor FROM offers o WHERE o.seen_ms >= $1
                      OR EXISTS (SELECT 1 FROM tasks t WHERE t.state = 'claimed' AND t.agent = o.agent)";
        let rows = sqlx::query(select).bind(now_ms() - millis(STANDS)).fetch_all(conductor.state().pool()).await?;
        let offered = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self(offered.collect::<Result<_, sqlx::Error>>()?))
    }

    /// Why a task of this class and executor (a word) is not taken, where nobody would.
    pub(crate) fn why_not(&self, class: &str, executor: &str) -> Option<String> {
        let is_there = ["*", class].iter().any(|class| self.0.contains(&((*class).to_owned(), executor.to_owned())));
        (!is_there).then(|| format!("no agent offers the executor {executor} for class {class}"))
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    int(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
