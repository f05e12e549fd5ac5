//! The service and the URLs together with the client that agents have.

mod attacks;
mod homes;
mod pieces;
pub(crate) mod raw;
mod served;
mod trees;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use navvy_granted::Remote;
use navvy_job::claim::TrustScope;
use navvy_storage::suite::{PROJECT, WORKSPACE};
use navvy_storage::{Bucket, Pace, Proxies, Retries, Shape, Store, Transport};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};

use super::Grants;
use crate::state::tests::{Database, databases};
use crate::state::{Scope, State};

/// A processor, as far as the store is concerned: two servers on loopback. They end with this value.
struct Bench {
    state: State,
    grants: Grants,
    channel: Channel,
    /// Where its URLs lead.
    people: String,
    _serving: JoinSet<()>,
    _database: Option<Database>,
}

impl Bench {
    async fn new(bucket: Arc<Bucket>) -> Self {
        Self::of(bucket, databases().await.swap_remove(0)).await
    }

    /// Over PostgreSQL, where there is one.
    async fn of_a_fleet(bucket: Arc<Bucket>) -> Self {
        Self::of(bucket, databases().await.pop().expect("SQLite is always there")).await
    }

    async fn of(bucket: Arc<Bucket>, database: Database) -> Self {
        let state = (*database).clone();
        Self { _database: Some(database), ..Self::over(bucket, state).await }
    }

    /// Another processor over the same database.
    async fn over(bucket: Arc<Bucket>, state: State) -> Self {
        let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agents = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", people.local_addr().unwrap());
        let grants = Grants::new(state.clone(), bucket, &url);
        let endpoint = Endpoint::from_shared(format!("http://{}", agents.local_addr().unwrap())).unwrap();
        let (router, service) = (grants.router(), grants.service());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(people, router).await.unwrap() });
        serving.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(agents)).await.unwrap();
        });
        Self { state, grants, channel: endpoint.connect_lazy(), people: url, _serving: serving, _database: None }
    }

    /// A task that was handed out, and its token.
    async fn task(&self, project: &str, scope: &str, workspace: &str) -> Task {
        task(&self.state, project, scope, workspace).await
    }

    fn remote(&self, token: &str) -> Remote {
        Remote::new(self.channel.clone(), format!("Bearer {token}").parse().unwrap(), Retries::default())
    }

    /// The store, as a task with this token has it.
    fn store(&self, token: &str, shape: Shape) -> Store {
        let transport = Transport::new(None, &Proxies::default(), Pace::default()).unwrap();
        Store::granted(Arc::new(self.remote(token)), transport, Retries::default(), shape)
    }
}

struct Task {
    id: String,
    token: String,
}

async fn task(state: &State, project: &str, scope: &str, workspace: &str) -> Task {
    let scope: TrustScope = scope.parse().unwrap();
    let id = format!("{:016x}", uuid::Uuid::new_v4().as_u64_pair().0);
    let insert = "INSERT INTO tasks (id, pipeline, workflow, job, node, number, workflow_name, job_name, project, scope, \
                  workspace, class, millicpus, memory, claim, contexts, notes, state, queued_ms, handed, begun, beats, events) \
                  VALUES ($1, $2, 0, 0, 0, 1, 'w', 'j', $3, $4, $5, 'c', 1, 1, '', '', '', 'claimed', 0, 1, 0, 0, 0)";
    let query = sqlx::query(insert).bind(&id).bind(format!("pipeline of {id}")).bind(project).bind(scope.to_string());
    query.bind(workspace).execute(state.pool()).await.unwrap();
    let token = state.new_token(&Scope::Task { task: id.clone(), fence: 1 }, "a task").await.unwrap();
    Task { id, token }
}

/// One task of the usual project.
async fn usual(bench: &Bench) -> Task {
    bench.task(PROJECT, "trusted", WORKSPACE).await
}

/// Every file of a store with its content.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => walk(&path, found),
                false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, &mut found);
    found
}
