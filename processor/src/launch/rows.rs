//! Launches in the database: which agents were to be started for which tasks, and how far that is.

use navvy_job::executor::ExecutorKind;
use navvy_job::resource::{self, Size};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::claims::{FREE, SecretSource};
use crate::settings::Classes;
use crate::state::{State, StateError, hash, int, now_ms, spelled, uint};

/// Tasks that are begun with in one pass.
const AT_ONCE: i64 = 64;

/// Short for what this module returns.
pub type Result<T, E = StateError> = std::result::Result<T, E>;

/// A task in the queue, for which nobody has been asked to start an agent.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub task: String,
    pub class: String,
    pub executor: ExecutorKind,
    /// It asks for a machine beside its containers.
    pub has_machine: bool,
    pub handed: u64,
}

/// A launch, with what stands of its task.
#[derive(Debug, Clone)]
pub struct Launch {
    pub task: String,
    pub attempt: u64,
    pub fence: u64,
    pub token: String,
    pub key_name: String,
    pub parent: String,
    /// The dispatched job, as far as it is known.
    pub job: Option<String>,
    /// From this index on it is in lists.
    pub job_index: u64,
    pub client: Option<String>,
    pub drained: bool,
    pub note: Option<String>,
    pub closed: bool,
    /// `queued`, `claimed`, `ended`; none: there is no such task any more.
    pub state: Option<String>,
    pub handed: u64,
    pub begun: bool,
    pub beats: i64,
    pub canceling: bool,
    pub class: String,
    pub executor: ExecutorKind,
    /// It asks for a machine beside its containers.
    pub has_machine: bool,
    /// With that machine.
    pub size: Size,
    pub node: u64,
    pub number: u64,
    pub slug: String,
    /// Pipeline and job: its nodes share it.
    pub of_job: String,
    /// Its agent has come.
    pub used: bool,
}

const SELECT: &str = "SELECT l.task, l.attempt, l.fence, l.token, l.key_name, l.parent, l.job, l.job_index, l.client, l.drained,
    l.note, l.closed, t.state, COALESCE(t.handed, 0) AS handed, COALESCE(t.begun, 0) AS begun, COALESCE(t.beats, 0) AS beats,
    CASE WHEN t.cancel IS NULL THEN 0 ELSE 1 END AS canceling, COALESCE(t.class, '') AS class,
    COALESCE(t.executor, '') AS executor, COALESCE(t.beside, 0) AS beside,
    COALESCE(t.millicpus, 0) AS millicpus, COALESCE(t.memory, 0) AS memory, COALESCE(t.node, 0) AS node,
    COALESCE(t.number, 0) AS number, COALESCE(p.slug, '') AS slug,
    COALESCE(t.pipeline, '') AS pipeline, COALESCE(t.workflow, 0) AS workflow, COALESCE(t.job, 0) AS of_job,
    CASE WHEN k.used_ms IS NULL THEN 0 ELSE 1 END AS used
    FROM launches l LEFT JOIN tasks t ON t.id = l.task LEFT JOIN projects p ON p.id = t.project
    LEFT JOIN tokens k ON k.hash = l.token";

impl Launch {
    fn read(row: &AnyRow) -> Result<Self> {
        let number = |name| Ok::<u64, StateError>(uint(row.try_get::<i64, _>(name)?));
        let is = |name| Ok::<bool, StateError>(number(name)? != 0);
        Ok(Self {
            task: row.try_get("task")?,
            attempt: number("attempt")?,
            fence: number("fence")?,
            token: row.try_get("token")?,
            key_name: row.try_get("key_name")?,
            parent: row.try_get("parent")?,
            job: row.try_get("job")?,
            job_index: number("job_index")?,
            client: row.try_get("client")?,
            drained: is("drained")?,
            note: row.try_get("note")?,
            closed: is("closed")?,
            state: row.try_get("state")?,
            handed: number("handed")?,
            begun: is("begun")?,
            beats: row.try_get("beats")?,
            canceling: is("canceling")?,
            class: row.try_get("class")?,
            executor: executor(row)?,
            has_machine: is("beside")?,
            size: with_machine(Size { millicpus: number("millicpus")?, memory: number("memory")? }, is("beside")?),
            node: number("node")?,
            number: number("number")?,
            slug: row.try_get("slug")?,
            of_job: format!("{}/{}/{}", row.try_get::<String, _>("pipeline")?, number("workflow")?, number("of_job")?),
            used: is("used")?,
        })
    }
}

/// Of a task that is gone, or that a newer processor has queued, nothing hangs on it any more.
fn executor(row: &AnyRow) -> Result<ExecutorKind> {
    Ok(ExecutorKind::read(&row.try_get::<String, _>("executor")?).unwrap_or(ExecutorKind::Docker))
}

/// What a task takes of its client.
fn with_machine(size: Size, has_machine: bool) -> Size {
    match resource::machine_class(resource::REMOTE_DOCKER_CLASS) {
        Some(machine) if has_machine => size.plus(machine),
        _ => size,
    }
}

/// Statements about launches.
#[derive(Clone)]
pub struct Rows {
    state: State,
    secrets: SecretSource,
}

impl Rows {
    pub fn new(state: State, secrets: SecretSource) -> Self {
        Self { state, secrets }
    }

    /// The name by which jobs in Nomad are known as this database's.
    pub async fn fleet(&self) -> Result<String> {
        let insert = "INSERT INTO fleet (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
        sqlx::query(insert).bind(uuid::Uuid::new_v4().to_string()).execute(self.state.pool()).await?;
        let row = sqlx::query("SELECT id FROM fleet WHERE one = 1").fetch_one(self.state.pool()).await?;
        Ok(row.try_get(0)?)
    }

    /// All launches that are not forgotten.
    pub async fn all(&self) -> Result<Vec<Launch>> {
        let select = AssertSqlSafe(format!("{SELECT} ORDER BY t.queued_ms, l.task, l.attempt"));
        sqlx::query(select).fetch_all(self.state.pool()).await?.iter().map(Launch::read).collect()
    }

    /// The oldest tasks that wait for somebody to start an agent. Those whose serial group is busy do not yet: their agents would
    /// only take room.
    pub async fn waiting(&self, classes: &Classes) -> Result<Vec<Waiting>> {
        let these = match classes {
            Classes::NotOwn => "t.class NOT LIKE '%/%'".to_owned(),
            Classes::These(these) => {
                let places: Vec<String> = (1..=these.len()).map(|number| format!("${number}")).collect();
                format!("t.class IN ({})", places.join(", "))
            }
        };
        let select = format!(
            "SELECT t.id, t.class, t.handed, t.executor, t.beside FROM tasks t WHERE t.state = 'queued' AND {these} AND {FREE}
             AND NOT EXISTS (SELECT 1 FROM launches l WHERE l.task = t.id AND l.fence = t.handed + 1 AND l.closed = 0)
             ORDER BY t.queued_ms, t.id LIMIT {AT_ONCE}"
        );
        let mut query = sqlx::query(AssertSqlSafe(select));
        if let Classes::These(these) = classes {
            query = these.iter().fold(query, |query, class| query.bind(class.clone()));
        }
        let read = |row: &AnyRow| {
            let (task, class) = (row.try_get(0)?, row.try_get(1)?);
            let has_machine = row.try_get::<i64, _>(4)? != 0;
            Ok(Waiting { task, class, executor: executor(row)?, has_machine, handed: uint(row.try_get(2)?) })
        };
        query.fetch_all(self.state.pool()).await?.iter().map(read).collect()
    }

    /// Writes down that an agent is to be started, and the hash of its token: before anybody is asked to.
    pub async fn open(&self, waiting: &Waiting, parent: &str) -> Result<()> {
        let mut tx = self.state.pool().begin().await?;
        // No number comes twice, even where launches were forgotten: tokens stay.
        let last = "SELECT COUNT(*) FROM tokens WHERE kind = 'launch' AND name = 'nomad' AND subject = $1";
        let last: i64 = sqlx::query(last).bind(&waiting.task).fetch_one(&mut *tx).await?.try_get(0)?;
        let (attempt, key_name) = (uint(last) + 1, self.secrets.newest().to_owned());
        let Some(text) = self.text(&key_name, &waiting.task, attempt) else { return Ok(()) };
        let insert = "INSERT INTO launches
            (task, attempt, fence, token, key_name, parent, job_index, drained, closed) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0)";
        let query = sqlx::query(insert).bind(&waiting.task).bind(int(attempt)).bind(int(waiting.handed + 1));
        query.bind(hash(&text)).bind(&key_name).bind(parent).execute(&mut *tx).await?;
        let insert = "INSERT INTO tokens (hash, name, kind, subject, fence, created_ms) VALUES ($1, 'nomad', 'launch', $2, 0, $3)";
        let query = sqlx::query(insert).bind(hash(&text)).bind(&waiting.task).bind(now_ms());
        query.execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// The launch token's text, the same whenever it is asked for: what a crash forgot is made again. `None`: the key that it
    /// derives from is not here any more.
    pub fn token(&self, launch: &Launch) -> Option<String> {
        let text = self.text(&launch.key_name, &launch.task, launch.attempt)?;
        (hash(&text) == launch.token).then_some(text)
    }

    fn text(&self, key_name: &str, task: &str, attempt: u64) -> Option<String> {
        Some(spelled(self.secrets.derived(key_name, &format!("launch {task} {attempt}"))?))
    }

    /// The job that it became in Nomad; `None`: none is known any more.
    pub async fn dispatched(&self, launch: &Launch, job: Option<&str>, index: u64) -> Result<()> {
        let update = "UPDATE launches SET job = $1, job_index = $2 WHERE task = $3 AND attempt = $4";
        let query = sqlx::query(update).bind(job).bind(int(index)).bind(&launch.task).bind(int(launch.attempt));
        query.execute(self.state.pool()).await?;
        Ok(())
    }

    /// The client that has it.
    pub async fn placed(&self, launch: &Launch, client: &str) -> Result<()> {
        let update = "UPDATE launches SET client = $1 WHERE task = $2 AND attempt = $3";
        let query = sqlx::query(update).bind(client).bind(&launch.task).bind(int(launch.attempt));
        query.execute(self.state.pool()).await?;
        Ok(())
    }

    /// That client is drained, or is not any more.
    pub async fn drained(&self, launch: &Launch, drained: bool) -> Result<()> {
        let update = "UPDATE launches SET drained = $1 WHERE task = $2 AND attempt = $3";
        let query = sqlx::query(update).bind(i64::from(drained)).bind(&launch.task).bind(int(launch.attempt));
        query.execute(self.state.pool()).await?;
        Ok(())
    }

    /// Why it waits, for people.
    pub async fn noted(&self, launch: &Launch, note: Option<&str>) -> Result<()> {
        let update = "UPDATE launches SET note = $1 WHERE task = $2 AND attempt = $3";
        let query = sqlx::query(update).bind(note).bind(&launch.task).bind(int(launch.attempt));
        query.execute(self.state.pool()).await?;
        Ok(())
    }

    /// Nobody waits for this agent any more, and it gets nothing if it comes. `false`: it has come.
    pub async fn close(&self, launch: &Launch) -> Result<bool> {
        let mut tx = self.state.pool().begin().await?;
        let revoke = "UPDATE tokens SET revoked_ms = $1 WHERE hash = $2 AND used_ms IS NULL";
        let revoked = sqlx::query(revoke).bind(now_ms()).bind(&launch.token).execute(&mut *tx).await?;
        if revoked.rows_affected() != 1 {
            return Ok(false);
        }
        let update = "UPDATE launches SET closed = 1, note = NULL WHERE task = $1 AND attempt = $2";
        sqlx::query(update).bind(&launch.task).bind(int(launch.attempt)).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Nothing is left of it in Nomad.
    pub async fn forget(&self, launch: &Launch) -> Result<()> {
        let mut tx = self.state.pool().begin().await?;
        let revoke = "UPDATE tokens SET revoked_ms = $1 WHERE hash = $2 AND used_ms IS NULL AND revoked_ms IS NULL";
        sqlx::query(revoke).bind(now_ms()).bind(&launch.token).execute(&mut *tx).await?;
        let delete = "DELETE FROM launches WHERE task = $1 AND attempt = $2";
        sqlx::query(delete).bind(&launch.task).bind(int(launch.attempt)).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    /// The launch of the agent that has or had a task by this fence.
    pub async fn of(&self, task: &str, fence: u64) -> Result<Option<Launch>> {
        let select = format!("{SELECT} WHERE l.task = $1 AND l.fence = $2 ORDER BY l.attempt DESC LIMIT 1");
        let query = sqlx::query(AssertSqlSafe(select)).bind(task).bind(int(fence));
        query.fetch_optional(self.state.pool()).await?.as_ref().map(Launch::read).transpose()
    }
}
