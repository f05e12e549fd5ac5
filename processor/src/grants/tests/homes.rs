//! The store's own tests ([`navvy_storage::suite`]) over a processor.

use std::collections::HashMap;

use navvy_storage::suite::Home;
use navvy_storage::suite::server::server;

use super::*;

/// Who the suite's tests are. It asks for their stores where it cannot wait.
const SCOPES: [&str; 4] = ["trusted", "fork:alice", "fork:bob", "local"];
const WORKSPACES: [&str; 2] = [WORKSPACE, "another"];

/// Every scope in every workspace is a task of its own.
async fn over(bench: Bench, bucket: Arc<Bucket>, shape: Shape, holds: Box<dyn std::any::Any + Send>) -> Home {
    let mut stores = HashMap::new();
    for (scope, workspace) in SCOPES.into_iter().flat_map(|scope| WORKSPACES.map(|workspace| (scope, workspace))) {
        let token = bench.task(PROJECT, scope, workspace).await.token;
        stores.insert((scope, workspace), bench.store(&token, shape));
    }
    let open = move |scope: &str, workspace: &str| stores[&(scope, workspace)].clone();
    Home { bucket, shape, open: Box::new(open), holds: Box::new((holds, bench)) }
}

/// Served by the processor itself, all of it embedded.
async fn directory() -> Home {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(Bucket::directory(&directory.path().join("a store")).unwrap());
    // Parts are small, but not so small that a list of files has thousands.
    over(Bench::new(bucket.clone()).await, bucket, Shape { part: 2000, parallel: 3 }, Box::new(directory)).await
}

/// By URLs of the server's own, with the database of a fleet.
async fn server_s() -> Home {
    let settings = server().settings(&server().endpoint);
    let bucket = Arc::new(settings.open().unwrap());
    over(Bench::of_a_fleet(bucket.clone()).await, bucket, Shape { part: 5 << 20, parallel: 3 }, Box::new(())).await
}

navvy_storage::told_by_every_home! {
    over_a_directory: directory(),
    over_a_server: server_s(),
}
