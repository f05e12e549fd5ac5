//! Which of several processors launches: whoever holds a lock of the database. It goes with the connection, so a processor that
//! dies gives it back. For a moment two may believe they have it: all that is done then is done once all the same, since Nomad knows
//! each dispatch by its token, and the database each change by its fence.

use std::time::Duration;

use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::state::{Dialect, State, StateError};

/// A database that does not answer within this has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// The lock of this database; tests have several databases, each a schema.
const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('navvy launch ' || current_schema(), 0)) AS mine";

/// That this processor launches.
pub struct Lead(Option<AnyConnection>);

impl Lead {
    /// `None`: another processor does.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take(state: &State) -> Result<Option<Self>, StateError> {
        if state.dialect() == Dialect::Sqlite {
            // One file has one processor.
            return Ok(Some(Self(None)));
        }
        // Not one of the pool's any more: it would be handed on with the lock.
        let mut connection = state.pool().acquire().await?.detach();
        let row = sqlx::query(LOCK).fetch_one(&mut connection).await?;
        match row.try_get::<bool, _>("mine")? {
            true => Ok(Some(Self(Some(connection)))),
            false => {
                connection.close().await.ok();
                Ok(None)
            }
        }
    }

    /// Is it still so?
    pub async fn holds(&mut self) -> bool {
        let Some(connection) = &mut self.0 else { return true };
        matches!(tokio::time::timeout(DEADLINE, sqlx::query("SELECT 1").execute(connection)).await, Ok(Ok(_)))
    }
}
