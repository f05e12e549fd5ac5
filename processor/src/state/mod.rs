//! What a processor remembers: SQLite in one file, or PostgreSQL for a fleet. The same statements run on both.
//!
//! ```text
//! pipelines ── happenings (the walk, replayed) ── events (what people see)
//!     └── tasks ── logs ── segments        tokens        secrets
//!           └── launches (agents that a scheduler starts)      offers (what runners ask for)
//! ```
//!
//! Each file of this directory holds the statements about one of them. A number that is given out, a task that is taken and a
//! happening that is written down are each one statement or one transaction, so that several processors may share a database.

mod segments;
mod tokens;

use std::path::Path;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection as _, SqlSafeStr as _};

pub use segments::{Holder, LogState, Segment, SegmentsError, forget_logs_in};
pub use tokens::{Scope, Use, hash, random_text, spelled};

/// Each is applied once, in this order, and never changed afterwards.
const SCHEMAS: [(&str, &str); 4] = [
    ("first", include_str!("schema.sql")),
    ("launches", include_str!("launches.sql")),
    ("executors", include_str!("executors.sql")),
    ("waiting", include_str!("waiting.sql")),
];

/// Why something could not be remembered or recalled.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The URL names neither of the two.
    #[error("{url:?} names no database; use sqlite://PATH or postgres://USER@HOST/DATABASE")]
    Url {
        /// The URL's part before its first `:`.
        url: String,
    },
    /// The database's directory cannot be made.
    #[error("the directory {} cannot be made", path.display())]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The database did not do what it was asked.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// What is stored is not what this version writes.
    #[error("{what} of the database cannot be understood")]
    Form {
        /// Which value.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// PostgreSQL's code for a text that it cannot hold: one with a NUL.
const NO_SUCH_TEXT: &str = "22021";

impl StateError {
    /// Is it about a text that the database cannot hold? Then whoever sent it is told, and does not try again.
    pub fn is_text(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code == NO_SUCH_TEXT)
    }
}

/// Short for what this module returns.
pub type Result<T, E = StateError> = std::result::Result<T, E>;

/// Which database it is, where that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One file, one processor.
    Sqlite,
    /// Many processors.
    Postgres,
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    pool: AnyPool,
    dialect: Dialect,
}

impl State {
    /// Opens a database by URL and brings its schema up to date. A SQLite file is made where it is missing.
    ///
    /// # Errors
    /// The URL is none of ours, the database does not answer, or it was written by a newer version.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let (dialect, connect) = match url.split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.trim_start_matches("//");
                make_parent(Path::new(path))?;
                (Dialect::Sqlite, format!("sqlite://{path}?mode=rwc"))
            }
            Some(("postgres" | "postgresql", _)) => (Dialect::Postgres, url.to_owned()),
            other => {
                let url = other.map_or(url, |(scheme, _)| scheme).to_owned();
                return Err(StateError::Url { url });
            }
        };
        // SQLite has one writer at a time in any case: with one connection, nobody has to wait for a lock and give up.
        let most = if dialect == Dialect::Sqlite { 1 } else { 16 };
        let options = AnyPoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(10));
        let options = options.after_connect(move |connection, _| Box::pin(set_up(connection, dialect)));
        let options = options.before_acquire(|connection, _| Box::pin(std::future::ready(Ok(is_clean(connection)))));
        let pool = options.connect(&connect).await?;
        migrations(dialect).run(&pool).await?;
        Ok(Self { pool, dialect })
    }

    /// Where statements go.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Does it answer?
    ///
    /// # Errors
    /// It does not.
    pub async fn check(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }
}

async fn set_up(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    if dialect == Dialect::Sqlite {
        for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 5000"] {
            sqlx::query(pragma).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

/// Is the connection outside of any transaction? SQLite ends one by itself if its disk is full; sqlx takes that one for open for
/// ever, and all that follows for a part of it: it would be answered as written, and be gone with the process. So such a
/// connection is closed, and another one opened.
fn is_clean(connection: &AnyConnection) -> bool {
    let is_clean = !connection.is_in_transaction();
    if !is_clean {
        tracing::warn!("A transaction ended with an error of the database: its connection is opened anew.");
    }
    is_clean
}

fn migrations(dialect: Dialect) -> Migrator {
    let migration = |(version, (name, sql)): (i64, (&'static str, &str))| {
        // The one type that the two call by different names.
        let sql = match dialect {
            Dialect::Sqlite => sql.to_owned(),
            Dialect::Postgres => sql.replace(" BLOB", " BYTEA"),
        };
        Migration::new(version, name.into(), MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), false)
    };
    let migrations: Vec<Migration> = (1..).zip(SCHEMAS).map(migration).collect();
    Migrator { migrations: migrations.into(), ..Migrator::DEFAULT }
}

fn make_parent(file: &Path) -> Result<()> {
    let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let made = builder.recursive(true).create(parent);
    made.map_err(|source| StateError::Directory { path: parent.to_owned(), source })
}

/// A number of ours as the database has it; it has none that are larger.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of the database's as we have it; it has none that are smaller.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Milliseconds since 1970. For people to read: no decision hangs on it.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use sqlx::Row as _;

    use super::*;

    /// A database of its own for one test.
    pub(crate) struct Database {
        state: State,
        /// Of the database as another processor opens it; SQLite has one processor.
        url: Option<String>,
        _directory: Option<tempfile::TempDir>,
    }

    impl Database {
        /// The same database as another processor has it.
        pub(crate) async fn again(&self) -> State {
            match &self.url {
                Some(url) => State::open(url).await.unwrap(),
                None => self.state.clone(),
            }
        }
    }

    impl std::ops::Deref for Database {
        type Target = State;

        fn deref(&self) -> &State {
            &self.state
        }
    }

    /// A database of each kind that there is here: SQLite, and PostgreSQL where `NAVVY_TEST_POSTGRES` names a server's
    /// database by URL (scripts/postgres). There each is a schema, which stays until the server goes.
    pub(crate) async fn databases() -> Vec<Database> {
        let (directory, state) = sqlite().await;
        let mut databases = vec![Database { state, url: None, _directory: Some(directory) }];
        let server = std::env::var("NAVVY_TEST_POSTGRES").ok().filter(|server| !server.is_empty());
        // What CI calls tested is tested on both.
        assert!(server.is_some() || std::env::var_os("CI").is_none(), "NAVVY_TEST_POSTGRES names no server");
        if let Some(server) = server {
            databases.push(postgres(&server).await);
        }
        databases
    }

    async fn postgres(server: &str) -> Database {
        sqlx::any::install_default_drivers();
        let schema = format!("navvy_{}", uuid::Uuid::new_v4().simple());
        let mut connection = <sqlx::AnyConnection as sqlx::Connection>::connect(server).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        let joined = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joined}options=-csearch_path%3D{schema}");
        Database { state: State::open(&url).await.unwrap(), url: Some(url), _directory: None }
    }

    /// A task that nothing but its row is known of.
    pub(crate) async fn add_task(state: &State, id: &str, stands: &str, handed: u64) {
        let insert = "INSERT INTO tasks (id, pipeline, workflow, job, node, number, workflow_name, job_name, project, scope, \
            workspace, class, millicpus, memory, claim, contexts, notes, state, queued_ms, handed, begun, beats, events) \
            VALUES ($1, $1, 0, 0, 0, 1, 'w', 'j', 'p', 's', 'w', 'c', 1, 1, '', '', '', $2, $3, $4, 0, 0, 0)";
        let query = sqlx::query(insert).bind(id).bind(stands).bind(now_ms()).bind(int(handed));
        query.execute(state.pool()).await.unwrap();
    }

    /// All rows of all tables.
    pub(crate) async fn dump(state: &State) -> BTreeMap<&'static str, Vec<String>> {
        let mut tables = BTreeMap::new();
        for begun in SCHEMAS.iter().flat_map(|(_, sql)| sql.split("CREATE TABLE ").skip(1)) {
            let table = begun.split(' ').next().unwrap();
            let select = AssertSqlSafe(format!("SELECT * FROM {table}"));
            let rows = sqlx::query(select).fetch_all(state.pool()).await.unwrap();
            let mut rows: Vec<String> = rows.iter().map(written).collect();
            rows.sort();
            tables.insert(table, rows);
        }
        tables
    }

    fn written(row: &sqlx::any::AnyRow) -> String {
        let column = |nth| {
            let number = row.try_get::<Option<i64>, _>(nth).map(|number| format!("{number:?}"));
            let text = || row.try_get::<Option<String>, _>(nth).map(|text| format!("{text:?}"));
            let bytes = || row.try_get::<Option<Vec<u8>>, _>(nth).map(|bytes| format!("{bytes:?}"));
            number.or_else(|_| text()).or_else(|_| bytes()).unwrap()
        };
        (0..row.len()).map(column).collect::<Vec<_>>().join(", ")
    }

    pub(crate) async fn sqlite() -> (tempfile::TempDir, State) {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("state/processor.db").display());
        let state = State::open(&url).await.unwrap();
        (directory, state)
    }

    #[tokio::test]
    async fn a_text_that_the_database_cannot_hold_is_not_taken_for_a_database_that_does_not_answer() {
        for state in databases().await {
            let asked = sqlx::query("SELECT 1 FROM tokens WHERE name = $1").bind("a\0b").execute(state.pool()).await;
            match state.dialect() {
                Dialect::Sqlite => assert!(asked.is_ok()),
                Dialect::Postgres => assert!(StateError::from(asked.unwrap_err()).is_text()),
            }
        }
    }

    #[tokio::test]
    async fn what_is_answered_after_a_full_disk_is_written() {
        let (directory, state) = sqlite().await;
        let insert = "INSERT INTO projects (id, slug, created_ms, pipelines, jobs) VALUES ($1, $1, 0, 0, 0)";
        let long = "a".repeat(1 << 20);
        // As on a full disk; the limit is this connection's.
        sqlx::query("PRAGMA max_page_count = 100").execute(state.pool()).await.unwrap();
        let mut full = state.pool().begin().await.unwrap();
        sqlx::query(insert).bind(&*long).execute(&mut *full).await.unwrap_err();
        drop(full);
        // Somebody looks, and has nothing to write.
        drop(state.pool().begin().await.unwrap());
        let mut tx = state.pool().begin().await.unwrap();
        sqlx::query(insert).bind("short").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let url = format!("sqlite://{}", directory.path().join("state/processor.db").display());
        let other = State::open(&url).await.unwrap();
        let row = sqlx::query("SELECT slug FROM projects").fetch_one(other.pool()).await.unwrap();
        assert_eq!(row.try_get::<String, _>(0).unwrap(), "short");
    }

    #[tokio::test]
    async fn a_database_is_made_once_and_opened_again() {
        let (directory, state) = sqlite().await;
        state.check().await.unwrap();
        let url = format!("sqlite://{}", directory.path().join("state/processor.db").display());
        State::open(&url).await.unwrap().check().await.unwrap();
        let error = State::open("mysql://x").await.unwrap_err().to_string();
        assert!(error.contains("\"mysql\"") && error.contains("postgres://"), "{error}");
    }
}
