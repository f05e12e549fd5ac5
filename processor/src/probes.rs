//! What operators' machines ask: is it alive, is it ready, how is it doing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sqlx::Row as _;

use navvy_storage::Objects;

use crate::disks::Disks;
use crate::figures;
use crate::launch::Launcher;
use crate::launch::figures::{Figure, figures as launch_figures, prometheus};
use crate::machines::Machines;
use crate::output::Output;
use crate::state::State;

/// What is looked at.
pub struct Health {
    /// The database.
    pub state: State,
    /// Logs.
    pub output: Output,
    /// The store.
    pub objects: Objects,
    /// What is embedded lies on them.
    pub disks: Disks,
    /// What launches tasks, if anything does.
    pub launcher: Option<Arc<Launcher>>,
    /// The pool of machines, if there is one. Whatever is wrong with it, the processor can do the rest of its work.
    pub machines: Option<Machines>,
    /// It takes no new connections.
    pub draining: AtomicBool,
}

impl Health {
    /// Figures of Nomad's cluster; none where nothing is launched.
    pub fn of_nomad(&self) -> Vec<Figure> {
        let standing = self.launcher.as_ref().map(|launcher| launcher.standing());
        standing
            .map(|standing| launch_figures(!standing.troubles().is_empty(), standing.cluster().as_ref()))
            .unwrap_or_default()
    }
}

/// `GET /healthz`: the process answers.
pub async fn alive() -> &'static str {
    "alive\n"
}

/// `GET /readyz`: it can do its work.
pub async fn ready(Extract(health): Extract<Arc<Health>>) -> Response {
    let mut troubles = Vec::new();
    if health.draining.load(Ordering::Relaxed) {
        troubles.push("it is draining".to_owned());
    }
    if let Err(error) = health.state.check().await {
        troubles.push(format!("database: {}", navvy_job::chain::chain(&error)));
    }
    // Whoever asks this has no token: nothing is written for it.
    if let Err(error) = health.objects.list("v1/log/ready").await {
        troubles.push(format!("store: {}", navvy_job::chain::chain(&error)));
    }
    troubles.extend(health.disks.troubles());
    // Nothing is lost meanwhile, but nothing is started either.
    troubles.extend(health.launcher.iter().flat_map(|launcher| launcher.standing().troubles()));
    match troubles.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response(),
    }
}

/// `GET /metrics`: for Prometheus.
pub async fn metrics(Extract(health): Extract<Arc<Health>>) -> Response {
    match text(&health).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!("{}.", navvy_job::chain::chain(&error));
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
        }
    }
}

/// What there is to be done now.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Tasks that have not ended: class, state, how many.
    pub tasks: Vec<(String, String, i64)>,
    /// Bytes of live output that are held.
    pub live_bytes: usize,
}

/// As the database has it.
///
/// # Errors
/// It does not answer.
pub async fn load(health: &Health) -> Result<Load, sqlx::Error> {
    let select = "SELECT class, state, COUNT(*) FROM tasks WHERE state <> 'ended' GROUP BY class, state ORDER BY class";
    let rows = sqlx::query(select).fetch_all(health.state.pool()).await?;
    let tasks = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
    let tasks = tasks.collect::<Result<_, sqlx::Error>>()?;
    Ok(Load { tasks, live_bytes: health.output.hub().held() })
}

async fn text(health: &Health) -> Result<String, sqlx::Error> {
    let mut text = String::from("# TYPE navvy_tasks gauge\n");
    let Load { tasks, live_bytes } = load(health).await?;
    for (class, state, count) in tasks {
        let class = class.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        writeln!(text, "navvy_tasks{{class=\"{class}\",state=\"{state}\"}} {count}").ok();
    }
    for counter in figures::ALL {
        let (name, help) = (counter.name, counter.help);
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", counter.value()).ok();
    }
    writeln!(text, "# TYPE navvy_live_bytes gauge\nnavvy_live_bytes {live_bytes}").ok();
    text.push_str(&prometheus(&health.of_nomad()));
    if let Some(machines) = &health.machines {
        text.push_str(&machines.figures().await);
    }
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use navvy_storage::Bucket;

    use super::*;
    use crate::grants::Grants;

    /// A processor's parts that are looked at, over an empty database and an empty store.
    pub(crate) async fn health() -> (tempfile::TempDir, Health) {
        let (directory, state) = crate::state::tests::sqlite().await;
        let store = directory.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let bucket = Arc::new(Bucket::directory(&store).unwrap());
        let objects = Grants::new(state.clone(), bucket, "http://here").objects();
        let output = Output::new(state.clone(), Arc::new(objects.clone()));
        (
            directory,
            Health {
                state,
                output,
                objects,
                disks: Disks::of([]),
                launcher: None,
                machines: None,
                draining: false.into(),
            },
        )
    }
}
