//! Tasks launched through a double of Nomad, whose agents are only words.

mod double;
mod stories;
mod tls;
mod way;

use std::future::Future;
use std::time::Duration;

use navvy_job::outcome::Verdict;
use navvy_storage::Proxies;
use sqlx::Row as _;

use super::*;
use crate::claims::tests::{claims, ending, submit};
use crate::claims::{Launched, Taken};
use crate::conduct::RerunOf;
use crate::settings::Classes;
use crate::state::State;
use double::Double;

const ONE_JOB: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows: {main: {jobs: [unit]}}
";

pub(super) fn settings(address: &str) -> NomadSettings {
    NomadSettings {
        address: address.to_owned(),
        token_file: None,
        ca: None,
        identity: None,
        namespace: "default".to_owned(),
        region: None,
        node_class: Some("linux-64bit".to_owned()),
        datacenters: vec!["*".to_owned()],
        classes: Classes::NotOwn,
        processor: None,
    }
}

/// A processor that launches through a double.
struct Bench {
    pub nomad: Double,
    pub state: State,
    pub claims: Claims,
    pub launcher: Arc<Launcher>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Bench {
    async fn new(state: &State) -> Self {
        Self::on(state, Double::start().await).await
    }

    async fn on(state: &State, nomad: Double) -> Self {
        let settings = settings(&nomad.address);
        Self::with(state, nomad, settings)
    }

    fn with(state: &State, nomad: Double, settings: NomadSettings) -> Self {
        let claims = claims(state);
        let launcher =
            Launcher::new(settings, &Proxies::default(), claims.clone(), "http://processor:8585".to_owned()).unwrap();
        let mut launcher = Arc::into_inner(launcher).unwrap();
        launcher.silent = Duration::from_millis(500);
        let launcher = Arc::new(launcher);
        let runs = Arc::clone(&launcher);
        let running = tokio::spawn(async move { runs.run().await });
        Self { nomad, state: state.clone(), claims, launcher, running }
    }

    /// SIGKILL, and another one starts.
    async fn restarted(self) -> Self {
        self.running.abort();
        let (nomad, state) = (self.nomad.clone(), self.state.clone());
        drop(self);
        Self::on(&state, nomad).await
    }

    async fn submit(&self, config: &str) -> String {
        let conductor = self.claims.conductor();
        conductor.submit("gh/acme/shop", submit(config), RerunOf::default(), "me").await.unwrap().id
    }

    /// The jobs that were dispatched, once there are so many.
    async fn dispatched(&self, count: usize) -> Vec<String> {
        until(|| async { Some(self.nomad.dispatched()).filter(|jobs| jobs.len() == count) }).await
    }

    /// What the agent of a job does first.
    async fn claim(&self, job: &str) -> Launched {
        let task = self.nomad.inner().jobs[job]["Meta"]["task"].as_str().unwrap().to_owned();
        self.claims.take_launched(&task, &self.nomad.payload(job), "agent").await.unwrap()
    }

    async fn claimed(&self, job: &str) -> Taken {
        match self.claim(job).await {
            Launched::Taken(taken) => *taken,
            Launched::Waits => panic!("it waits"),
            Launched::Refused => panic!("refused"),
        }
    }

    async fn pass(&self, taken: &Taken) {
        self.claims.finish(taken.claim.task.as_str(), 1, ending(Verdict::Passed)).await.unwrap();
    }

    /// State, and the JSON of the end, of the only task.
    async fn task(&self) -> (String, String) {
        let row = sqlx::query("SELECT state, ended FROM tasks").fetch_one(self.state.pool()).await.unwrap();
        (row.try_get(0).unwrap(), row.try_get::<Option<String>, _>(1).unwrap().unwrap_or_default())
    }

    async fn ended(&self) -> String {
        until(|| async { Some(self.task().await).filter(|(state, _)| state == "ended") }).await.1
    }

    async fn launches(&self) -> i64 {
        let row = sqlx::query("SELECT COUNT(*) FROM launches").fetch_one(self.state.pool()).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// Is it written down which job it became?
    async fn known(&self, job: &str) -> bool {
        let query = sqlx::query("SELECT 1 FROM launches WHERE job = $1").bind(job);
        query.fetch_optional(self.state.pool()).await.unwrap().is_some()
    }

    /// The client that has the only task.
    async fn client(&self) -> Option<String> {
        let row = sqlx::query("SELECT MAX(client) FROM launches").fetch_one(self.state.pool()).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// The only job's state, and why it is so, as people see them.
    async fn shown(&self, pipeline: &str) -> (String, Option<String>) {
        let detail = crate::web::pipelines::detail(self.claims.conductor(), pipeline).await;
        let detail = detail.unwrap_or_else(|_| panic!("it cannot be shown"));
        let job = &detail.workflows[0].jobs[0];
        (job.status.clone(), job.why.clone())
    }

    async fn note(&self) -> Option<String> {
        let row = sqlx::query("SELECT MAX(note) FROM launches").fetch_one(self.state.pool()).await.unwrap();
        row.try_get(0).unwrap()
    }

    /// Nothing is left in Nomad but the classes' jobs, and nothing in the database.
    async fn clean(&self) {
        until(|| async { (self.nomad.dispatched().is_empty() && self.launches().await == 0).then_some(()) }).await;
        assert_eq!(self.nomad.inner().violations, Vec::<String>::new());
    }
}

/// Looks again and again; what never comes fails the test.
async fn until<T, F: Future<Output = Option<T>>>(look: impl Fn() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), looking).await.expect("it never came")
}
