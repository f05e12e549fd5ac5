//! Wrong tokens and wrong words on every route of the table.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request};
use navvy_protocol::api::Problem;
use navvy_storage::Bucket;
use tower::ServiceExt as _;

use super::openapi::names;
use super::routes::{Route, Who, routes};
use super::*;
use crate::claims::Room;
use crate::claims::tests::{claims, secrets, submit};
use crate::conduct::RerunOf;
use crate::disks::Disks;
use crate::grants::Grants;
use crate::grants::tests::files;
use crate::state::Scope;
use crate::state::tests::{Database, databases, dump};

pub(super) const CONFIG: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  main: {jobs: [unit, {hold: {type: approval}}]}
";

pub(super) struct Scene {
    pub(super) database: Database,
    pub(super) directory: tempfile::TempDir,
    router: Router,
    pub(super) pipeline: String,
    pub(super) task: String,
    task_token: String,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) media: String,
    sniffing: Option<String>,
    pub(super) body: Bytes,
}

impl Scene {
    pub(super) async fn new(database: Database) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
        let grants = Grants::new((*database).clone(), bucket, "http://here");
        let claims = claims(&database);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(CONFIG), RerunOf::default(), "me").await.unwrap();
        let taken = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        let mut connection = database.pool().acquire().await.unwrap();
        secrets().set(&mut connection, "context:deploy", "KEY", "hunter2").await.unwrap();
        drop(connection);
        let state = (*database).clone();
        let output = Output::new(state.clone(), Arc::new(grants.objects()));
        let objects = grants.objects();
        let health = probes::Health {
            state,
            output: output.clone(),
            objects,
            disks: Disks::default(),
            launcher: None,
            machines: None,
            draining: false.into(),
        };
        let router = Web::new(claims, output, secrets(), Arc::new(health)).router();
        let (task, task_token) = (taken.claim.task.to_string(), taken.token);
        Self { database, directory, router, pipeline: submitted.id, task, task_token }
    }

    /// The route's path with names of what there is.
    fn path(&self, route: &Route) -> String {
        let id = if route.path.contains("/task/") { &self.task } else { &self.pipeline };
        let known = |name: &str| match name {
            "slug" => "gh%2Facme%2Fshop".to_owned(),
            "id" => id.clone(),
            "job" => "hold".to_owned(),
            "log" => "000-1".to_owned(),
            "name" => "deploy".to_owned(),
            "variable" => "KEY".to_owned(),
            "class" => "medium".to_owned(),
            "number" => "1".to_owned(),
            "artifact" => "0-0".to_owned(),
            other => panic!("say what there is for {other}"),
        };
        names(route.path).fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), &known(name)))
    }

    pub(super) async fn ask(&self, method: &Method, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (media, sniffing) =
            (header(header::CONTENT_TYPE).unwrap_or_default(), header(header::X_CONTENT_TYPE_OPTIONS));
        let status = response.status();
        let body = to_bytes(response.into_body(), 16 << 20).await.unwrap();
        Answer { status, media, sniffing, body }
    }

    /// Does the answer break off?
    pub(super) async fn cut_off(&self, path: &str, token: &str) -> bool {
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        to_bytes(response.into_body(), 1 << 20).await.is_err()
    }

    async fn all(&self) -> (BTreeMap<&'static str, Vec<String>>, BTreeMap<String, Vec<u8>>) {
        (dump(&self.database).await, files(self.directory.path()))
    }

    pub(super) async fn token(&self, scope: Scope) -> String {
        self.database.new_token(&scope, "a test's").await.unwrap()
    }
}

/// A body that the route takes.
fn body(route: &Route) -> &'static str {
    let named = route.takes.as_ref().map(|body| body.name.as_deref().unwrap_or(body.media));
    match named {
        None => "",
        Some("Submit") => {
            r#"{"config": "version: 2.1\njobs: {a: {docker: [{image: i}], steps: [{run: x}]}}\nworkflows: {w: {jobs: [a]}}"}"#
        }
        Some("CancelPipeline" | "Rerun") => "{}",
        Some("Approve") => r#"{"approved": true}"#,
        Some("Value") => r#"{"value": "x"}"#,
        Some("DeployKey") => r#"{"text": "x", "md5": "x", "sha256": "SHA256:x"}"#,
        Some("application/zstd") => "a tree",
        Some(other) => panic!("say what an attacker would send as {other}"),
    }
}

#[tokio::test]
async fn a_wrong_token_does_nothing_on_any_route() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let agents = [Scope::Class("*".into()), Scope::Launch(scene.task.clone())];
        let mut tokens = vec![
            (None, StatusCode::UNAUTHORIZED),
            (Some("navvy_guessed".to_owned()), StatusCode::UNAUTHORIZED),
            (Some(String::new()), StatusCode::UNAUTHORIZED),
            (Some("x".repeat(4096)), StatusCode::UNAUTHORIZED),
            (Some(scene.task_token.clone()), StatusCode::FORBIDDEN),
        ];
        for scope in agents {
            tokens.push((Some(scene.token(scope).await), StatusCode::FORBIDDEN));
        }
        let viewer = scene.token(Scope::Viewer).await;
        let before = scene.all().await;
        for route in routes().iter().filter(|route| route.who != Who::Anyone) {
            let of_viewer = (Some(viewer.clone()), StatusCode::FORBIDDEN);
            let viewers = (route.who == Who::Admin).then_some(of_viewer);
            for (token, expected) in tokens.iter().chain(&viewers) {
                let answer = scene.ask(&route.method, &scene.path(route), token.as_deref(), body(route)).await;
                let what = format!("{} {}, {token:?}", route.method, route.path);
                assert_eq!(answer.status, *expected, "{what}");
                serde_json::from_slice::<Problem>(&answer.body).unwrap();
                assert!(scene.all().await == before, "{what}: something has changed");
            }
        }
    }
}

#[tokio::test]
async fn what_changes_something_needs_an_admin_and_is_done_for_one() {
    for route in routes() {
        let is_read = route.method == Method::GET;
        assert!(is_read || route.who == Who::Admin, "{} {}", route.method, route.path);
        for database in databases().await {
            let scene = Scene::new(database).await;
            let token = scene.token(if is_read { Scope::Viewer } else { Scope::Admin }).await;
            let before = scene.all().await;
            let answer = scene.ask(&route.method, &scene.path(&route), Some(&token), body(&route)).await;
            let what = format!("{} {}: {}, {:?}", route.method, route.path, answer.status, answer.body);
            let after = scene.all().await;
            // A look at the store may leave a mark of its time there.
            let is_same = after.0 == before.0 && (is_read || after.1 == before.1);
            assert_eq!(is_read, is_same, "{what}");
            assert_eq!(answer.sniffing.as_deref(), Some("nosniff"), "{what}");
            assert!(!answer.status.is_server_error(), "{what}");
        }
    }
}

#[tokio::test]
async fn odd_paths_lead_nowhere() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let admin = scene.token(Scope::Admin).await;
        let long = "x".repeat(20_000);
        let before = scene.all().await;
        for odd in ["..%2f..%2fetc%2fpasswd", "%00", "a%00b", "%ff", "%2e%2e", "%3Cscript%3E", "'%20OR%20'1'='1", &long]
        {
            for route in routes().iter().filter(|route| route.path.contains('{')) {
                let path = names(route.path)
                    .fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), odd));
                let answer = scene.ask(&route.method, &path, Some(&admin), body(route)).await;
                let shown: String = path.chars().take(80).collect();
                let makes = matches!(route.path, "/api/v2/runner/token/{class}" | "/api/v2/context/{name}");
                let what = format!("{} {shown}: {}", route.method, answer.status);
                assert!(answer.status.is_client_error() || makes && answer.status.is_success(), "{what}");
                assert!(!answer.media.contains("html"), "{what}");
                assert_eq!(answer.sniffing.as_deref(), Some("nosniff"), "{what}");
            }
        }
        let after = scene.all().await;
        for table in ["pipelines", "tasks", "secrets", "events", "happenings", "projects"] {
            assert_eq!(after.0[table], before.0[table], "{table}");
        }
        assert!(after.1 == before.1, "the store has changed");
    }
}

#[tokio::test]
async fn bodies_that_are_too_long_or_no_json_of_ours_are_refused() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let admin = scene.token(Scope::Admin).await;
        let before = scene.all().await;
        let long = Bytes::from(vec![b' '; MOST_BODY + 1]);
        for route in routes().iter().filter(|route| route.takes.as_ref().is_some_and(|body| body.name.is_some())) {
            let wrong = [
                (long.clone(), StatusCode::PAYLOAD_TOO_LARGE),
                (Bytes::from_static(b""), StatusCode::BAD_REQUEST),
                (Bytes::from_static(b"{"), StatusCode::BAD_REQUEST),
                (Bytes::from_static(b"\xff\xfe"), StatusCode::BAD_REQUEST),
                (Bytes::from_static(b"[7]"), StatusCode::UNPROCESSABLE_ENTITY),
                (Bytes::from_static(br#"{"value": "a\u0000b"}"#), StatusCode::BAD_REQUEST),
                (Bytes::from_static(br#"{"no such field": 7}"#), StatusCode::UNPROCESSABLE_ENTITY),
            ];
            for (body, expected) in wrong {
                let shown: Vec<u8> = body.iter().take(20).copied().collect();
                let answer = scene.ask(&route.method, &scene.path(route), Some(&admin), body).await;
                let what = format!("{} {}, {}", route.method, route.path, String::from_utf8_lossy(&shown));
                assert_eq!(answer.status, expected, "{what}: {:?}", answer.body);
                assert!(serde_json::from_slice::<Problem>(&answer.body).is_ok(), "{what}: {:?}", answer.body);
                assert!(scene.all().await == before, "{what}: something has changed");
            }
        }
    }
}

#[tokio::test]
async fn queries_that_nobody_understands_are_refused_in_words() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let admin = scene.token(Scope::Admin).await;
        for route in routes().iter().filter(|route| !route.query.is_empty()) {
            let number = |name: &str| matches!(name, "after" | "offset" | "node" | "page-token");
            let wrong = route.query.iter().filter(|(name, _)| number(name)).map(|(name, _)| format!("{name}=x"));
            for query in wrong.chain(["no-such-thing=1".to_owned()]) {
                let path = format!("{}?{query}", scene.path(route));
                let answer = scene.ask(&route.method, &path, Some(&admin), "").await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
                assert!(serde_json::from_slice::<Problem>(&answer.body).is_ok(), "{path}: {:?}", answer.body);
            }
        }
    }
}

#[tokio::test]
async fn names_with_markup_come_back_as_json() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let admin = scene.token(Scope::Admin).await;
        let context = "/api/v2/context/%3Cscript%3E/environment-variable/KEY";
        let done = scene.ask(&Method::PUT, context, Some(&admin), r#"{"value": "hunter2"}"#).await;
        assert_eq!(done.status, StatusCode::OK);
        let listed = scene.ask(&Method::GET, "/api/v2/context", Some(&admin), "").await;
        assert!(String::from_utf8_lossy(&listed.body).contains("<script>"));
        let refused = scene.ask(&Method::GET, "/api/v2/project/%3Cscript%3E/envvar", Some(&admin), "").await;
        let nowhere = scene.ask(&Method::GET, "/%3Cscript%3E", None, "").await;
        for answer in [done, listed, refused, nowhere] {
            assert_eq!(answer.media, "application/json");
            assert_eq!(answer.sniffing.as_deref(), Some("nosniff"));
            assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
        }
    }
}
