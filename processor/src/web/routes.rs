//! All routes, in one table: the router, the OpenAPI document and the tests of attacks are made from it.

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use navvy_protocol::api::{
    Approve, Artifact, CancelPipeline, DeployKey, Log, Message, Named, NumberedEvent, Page, Pipeline, PipelineDetail,
    Rerun, Submit, Submitted, Test, Tree, Value,
};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::people::NewToken;
use super::{Web, artifacts, openapi, people, pipelines, results, secrets, streams, trees};
use crate::probes;

/// Whose token a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody's.
    Anyone,
    /// Somebody's who may look.
    Viewer,
    /// Somebody's who may change things.
    Admin,
}

/// Schemas by name, as a type collects them.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// What a body is.
#[derive(Clone)]
pub(super) struct Body {
    pub media: &'static str,
    /// Its type's name, where it has one of its own.
    pub name: Option<String>,
    pub schema: Option<RefOr<Schema>>,
    /// What the type is made of.
    pub parts: Schemas,
}

impl Body {
    fn json<T: ToSchema>() -> Self {
        Self { media: "application/json", ..Self::lines::<T>() }
    }

    /// One value a line.
    fn lines<T: ToSchema>() -> Self {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        Self { media: "application/x-ndjson", name: Some(T::name().into_owned()), schema: Some(T::schema()), parts }
    }

    /// Of a generic type, whose name says too little.
    fn page<T: ToSchema>() -> Self {
        let mut body = Self { name: None, ..Self::json::<Page<T>>() };
        body.parts.push((T::name().into_owned(), T::schema()));
        body
    }

    fn plain(media: &'static str) -> Self {
        Self { media, name: None, schema: None, parts: Vec::new() }
    }
}

/// One of the table's lines.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub who: Who,
    /// In a sentence.
    pub about: &'static str,
    /// Names of what may stand in the query, and what each means.
    pub query: &'static [(&'static str, &'static str)],
    pub takes: Option<Body>,
    pub gives: Body,
    pub handler: MethodRouter<Web>,
}

impl Route {
    fn new<H: Handler<T, Web>, T: 'static>(
        (method, path): (Method, &'static str),
        who: Who,
        handler: H,
        gives: Body,
        about: &'static str,
    ) -> Self {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self { method, path, who, about, query: &[], takes: None, gives, handler: on(filter, handler) }
    }

    fn takes(self, body: Body) -> Self {
        Self { takes: Some(body), ..self }
    }

    fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }
}

/// The table.
pub(super) fn routes() -> Vec<Route> {
    [of_pipelines(), of_output(), of_what_is_left(), of_contexts(), of_projects(), of_agents(), of_operators()]
        .into_iter()
        .flatten()
        .collect()
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

const FOLLOW: (&str, &str) = ("follow", "true: wait for more, until there will be none");

fn of_pipelines() -> Vec<Route> {
    let done = Body::json::<Message>;
    let submit = (POST, "/api/v2/project/{slug}/pipeline");
    vec![
        Route::new(submit, Who::Admin, pipelines::submit, Body::json::<Submitted>(), "Submits a config to be run.")
            .takes(Body::json::<Submit>()),
        Route::new(
            (GET, "/api/v2/pipeline"),
            Who::Viewer,
            pipelines::list,
            Body::page::<Pipeline>(),
            "Lists pipelines, the newest first.",
        )
        .query(&[("project", "only those of this slug"), ("page-token", "from the page before")]),
        Route::new(
            (GET, "/api/v2/pipeline/{id}"),
            Who::Viewer,
            pipelines::show,
            Body::json::<PipelineDetail>(),
            "Shows a pipeline with its jobs.",
        ),
        Route::new(
            (POST, "/api/v2/pipeline/{id}/cancel"),
            Who::Admin,
            pipelines::cancel,
            done(),
            "Cancels a pipeline.",
        )
        .takes(Body::json::<CancelPipeline>()),
        Route::new(
            (POST, "/api/v2/pipeline/{id}/rerun"),
            Who::Admin,
            pipelines::rerun,
            Body::json::<Submitted>(),
            "Runs a pipeline again, or what failed of it.",
        )
        .takes(Body::json::<Rerun>()),
        Route::new(
            (POST, "/api/v2/pipeline/{id}/approve/{job}"),
            Who::Admin,
            pipelines::approve,
            done(),
            "Answers an approval.",
        )
        .takes(Body::json::<Approve>()),
    ]
}

fn of_output() -> Vec<Route> {
    vec![
        Route::new(
            (GET, "/api/v2/pipeline/{id}/events"),
            Who::Viewer,
            streams::events,
            Body::lines::<NumberedEvent>(),
            "Reads a pipeline's events, one a line.",
        )
        .query(&[("after", "the number of the last event that was seen"), FOLLOW]),
        Route::new(
            (GET, "/api/v2/task/{id}/logs"),
            Who::Viewer,
            streams::logs,
            Body::page::<Log>(),
            "Lists a task's logs.",
        ),
        Route::new(
            (GET, "/api/v2/task/{id}/log/{log}"),
            Who::Viewer,
            streams::log,
            Body::plain("application/octet-stream"),
            "Reads a log's bytes.",
        )
        .query(&[("offset", "the first byte that is wanted"), FOLLOW]),
    ]
}

const WANTED: &[(&str, &str)] = &[
    ("job", "only those of the job of this name"),
    ("node", "only those of this parallel node, from 0"),
    ("page-token", "from the page before"),
];

fn of_what_is_left() -> Vec<Route> {
    let artifacts = Body::page::<Artifact>;
    let tests = Body::page::<Test>;
    let viewer = Who::Viewer;
    vec![
        Route::new(
            (GET, "/api/v2/pipeline/{id}/artifacts"),
            viewer,
            artifacts::of_pipeline,
            artifacts(),
            "Lists the artifacts of a pipeline's jobs.",
        )
        .query(WANTED),
        Route::new(
            (GET, "/api/v2/project/{slug}/{number}/artifacts"),
            viewer,
            artifacts::of_job,
            artifacts(),
            "Lists the artifacts of a job, by its number.",
        )
        .query(WANTED),
        Route::new(
            (GET, "/api/v2/task/{id}/artifact/{artifact}"),
            viewer,
            artifacts::read,
            Body::plain("application/octet-stream"),
            "Reads an artifact's bytes.",
        )
        .query(&[("offset", "the first byte that is wanted")]),
        Route::new(
            (GET, "/api/v2/pipeline/{id}/tests"),
            viewer,
            results::of_pipeline,
            tests(),
            "Lists the results of the tests that a pipeline's jobs ran.",
        )
        .query(WANTED),
        Route::new(
            (GET, "/api/v2/project/{slug}/{number}/tests"),
            viewer,
            results::of_job,
            tests(),
            "Lists the results of the tests that a job ran, by its number.",
        )
        .query(WANTED),
    ]
}

fn of_contexts() -> Vec<Route> {
    let done = Body::json::<Message>;
    let variable = "/api/v2/context/{name}/environment-variable/{variable}";
    vec![
        Route::new((GET, "/api/v2/context"), Who::Viewer, secrets::contexts, Body::page::<Named>(), "Lists contexts."),
        Route::new(
            (DELETE, "/api/v2/context/{name}"),
            Who::Admin,
            secrets::remove_context,
            done(),
            "Removes a context with its variables.",
        ),
        Route::new(
            (GET, "/api/v2/context/{name}/environment-variable"),
            Who::Viewer,
            secrets::of_context,
            Body::page::<Named>(),
            "Lists the names of a context's variables.",
        ),
        Route::new((PUT, variable), Who::Admin, secrets::set_in_context, done(), "Sets a context's variable.")
            .takes(Body::json::<Value>()),
        Route::new(
            (DELETE, variable),
            Who::Admin,
            secrets::remove_from_context,
            done(),
            "Removes a context's variable.",
        ),
    ]
}

fn of_projects() -> Vec<Route> {
    let done = Body::json::<Message>;
    let variable = "/api/v2/project/{slug}/envvar/{variable}";
    vec![
        Route::new(
            (GET, "/api/v2/project/{slug}/envvar"),
            Who::Viewer,
            secrets::of_project,
            Body::page::<Named>(),
            "Lists the names of a project's variables.",
        ),
        Route::new((PUT, variable), Who::Admin, secrets::set_in_project, done(), "Sets a project's variable.")
            .takes(Body::json::<Value>()),
        Route::new(
            (DELETE, variable),
            Who::Admin,
            secrets::remove_from_project,
            done(),
            "Removes a project's variable.",
        ),
        Route::new(
            (PUT, "/api/v2/project/{slug}/deploy-key"),
            Who::Admin,
            secrets::set_deploy_key,
            done(),
            "Keeps a private key for a project's checkouts.",
        )
        .takes(Body::json::<DeployKey>()),
        tree(),
    ]
}

/// As large as a working tree is; it is streamed into the store.
fn tree() -> Route {
    let about = "Sends a working tree: a tar, compressed with zstd.";
    let route = Route::new((POST, "/api/v2/tree"), Who::Admin, trees::send, Body::json::<Tree>(), about);
    let handler = route.handler.clone().layer(DefaultBodyLimit::disable());
    Route { handler, ..route }.takes(Body::plain("application/zstd"))
}

fn of_agents() -> Vec<Route> {
    let class = "/api/v2/runner/token/{class}";
    let token = Body::json::<NewToken>;
    vec![
        Route::new(
            (POST, class),
            Who::Admin,
            people::new_runner_token,
            token(),
            "Makes a token with which runners take tasks of a resource class.",
        ),
        Route::new(
            (DELETE, class),
            Who::Admin,
            people::revoke_runner_tokens,
            Body::json::<Message>(),
            "Revokes all tokens of a resource class.",
        ),
        Route::new(
            (POST, "/api/v2/task/{id}/launch"),
            Who::Admin,
            people::launch_token,
            token(),
            "Makes a token with which one agent takes one task.",
        ),
    ]
}

fn of_operators() -> Vec<Route> {
    let plain = || Body::plain("text/plain");
    vec![
        Route::new(
            (GET, openapi::PATH),
            Who::Anyone,
            openapi::serve,
            Body::plain("application/json"),
            "This description.",
        ),
        Route::new((GET, "/healthz"), Who::Anyone, probes::alive, plain(), "The process answers."),
        Route::new((GET, "/readyz"), Who::Anyone, probes::ready, plain(), "The processor can do its work."),
        Route::new((GET, "/metrics"), Who::Anyone, probes::metrics, plain(), "Figures for Prometheus."),
    ]
}
