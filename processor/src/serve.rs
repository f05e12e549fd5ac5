//! The program: its parts put together, served until it is asked to end.
//!
//! ```text
//!            agents ─▶ gRPC :8585 ─┐                      ┌─ state (SQLite, PostgreSQL)
//!                                  ├─▶ claims, conduct ───┤
//!            people ─▶ HTTP :8080 ─┘   output, grants ────┴─ store (directory, S3, …)
//!                                  leases are watched beside
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_protocol::processor::{KEEP_ALIVE, MAX_MESSAGE, v1};
use navvy_storage::Location;
use navvy_vm::pool::host::this_host;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::audit::{
    self,
    grants::{Carrier, GrantLog},
};
use crate::claims::{self, Claims};
use crate::conduct::{Canceling, Conductor};
use crate::disks::Disks;
use crate::door::{Door, serve_people};
use crate::grants::Grants;
use crate::grpc::AgentsService;
use crate::keep::Keep;
use crate::keys;
use crate::known;
use crate::launch::Launcher;
use crate::machines::service::MachinesService;
use crate::machines::{self, Here, Machines, Parts, Reach};
use crate::output::Output;
use crate::probes::Health;
use crate::settings::{MachinePool, Settings};
use crate::state::{Scope, State};
use crate::telemetry::{otlp, statsd};
use crate::tls::{self, Certificates};
use crate::web::Web;

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// What was put and never committed is removed after this: every URL for it is dead by then.
const ORPHANS: Duration = Duration::from_secs(24 * 3600);
/// Connections that wait to be accepted. Beyond it the kernel lets those of others wait for seconds.
const WAITING: u32 = 4096;
/// Of `data`: records and keys of machines that are lent, and the pool's own beside them.
const LENT: &str = "lent";

/// How long the end waits for the store to take the last lines of the audit log.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Why the processor does not serve.
#[derive(Debug)]
pub struct ServeError {
    what: String,
    why: String,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

fn failed<E: std::error::Error>(what: impl Into<String>) -> impl FnOnce(E) -> ServeError {
    move |error| ServeError { what: what.into(), why: chain(&error) }
}

/// Serves until SIGTERM or SIGINT, and then drains.
///
/// # Errors
/// It cannot begin: what is missing, and why.
pub async fn serve(settings: Settings) -> Result<(), ServeError> {
    make_private(&settings.data)?;
    raise_files();
    let state = State::open(&settings.database).await.map_err(failed("the database"))?;
    let secrets = keys::open(settings.secrets_key.as_deref(), &settings.data).map_err(failed("the keys of secrets"))?;
    let bucket = settings.store.open().map_err(failed(format!("the store {}", settings.store.location)))?;
    let agents = listen(settings.listen_agents)?;
    let people = listen(settings.listen)?;
    let listens = |listener: &TcpListener| listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
    let (agents_at, people_at) = (listens(&agents), listens(&people));
    let [for_people, for_agents] = [settings.greeting_of_people(), settings.greeting_of_agents()];
    let scheme = |greeting: &Option<_>| if greeting.is_some() { "https" } else { "http" };
    let listens_at = format!("{}://{people_at}", scheme(&for_people));
    let public_url = settings.public_url.clone().unwrap_or_else(|| listens_at.clone());
    let (log, carrier) = grant_log(&settings)?;
    let grants = Grants::new(state.clone(), Arc::new(bucket), &public_url).noting(log.clone());
    let output = Output::new(state.clone(), Arc::new(grants.objects())).noting(log);
    let conductor = conductor(&settings, &state, &public_url);
    let claims = Claims::new(conductor, secrets.clone(), output.hub().clone()).with_lease(settings.lease);
    let launcher = launcher(&settings, &claims, (&public_url, scheme(&for_agents)), &agents)?;
    let machines = machines(&settings, &state)?;
    let health = Arc::new(Health {
        state: state.clone(),
        output: output.clone(),
        objects: grants.objects(),
        disks: disks(&settings),
        launcher: launcher.clone(),
        machines: machines.clone(),
        draining: AtomicBool::new(false),
    });
    let (cancels_sender, cancels) = watch::channel(HashMap::new());
    let mut beside = beside(&settings, &health, &claims, cancels_sender)?;
    let (tidying, objects) = (grants.clone(), grants.objects());
    tell(&state, &settings, &agents_at, &public_url).await?;

    let (stop, stopped) = watch::channel(false);
    tracing::info!("Agents are served at {}://{agents_at}, people at {listens_at}.", scheme(&for_agents));
    let agents_service = AgentsService::new(claims.clone(), output.clone(), cancels).launched_by(launcher);
    let agents_service = agents_service.with_pool(machines.is_some());
    let pooled = MachinesService::new(state.clone(), machines, stopped.clone());
    let web = Web::new(claims, output, secrets, Arc::clone(&health)).keeping(settings.keep);
    let router = web.router().merge(grants.router());
    let people = tokio::spawn(serve_people(Door::new(people, for_people), router, stopped.clone()));
    let agents =
        tokio::spawn(serve_agents(Door::new(agents, for_agents).of_http2(), agents_service, (grants, pooled), stopped));

    tokio::select! {
        stopped = wait_for_stop() => stopped?,
        () = tidying.keep_clean(settings.keep) => {}
        () = carrier.carry(&objects) => {}
    }
    tracing::info!("Asked to end: no new connections are taken.");
    health.draining.store(true, Ordering::Relaxed);
    stop.send_replace(true);
    if tokio::time::timeout(settings.drain_timeout, async { tokio::join!(agents, people) }).await.is_err() {
        // Agents and readers come again with their cursors: nothing of theirs is lost.
        tracing::info!("Streams that are still open are cut.");
    }
    beside.abort_all();
    // What is left, the next start carries.
    tokio::time::timeout(LAST_WORDS, carrier.carry_all(&objects)).await.ok();
    state.pool().close().await;
    Ok(())
}

/// What is done beside serving, until the set is ended.
fn beside(
    settings: &Settings,
    health: &Arc<Health>,
    claims: &Claims,
    cancels: watch::Sender<HashMap<String, Canceling>>,
) -> Result<JoinSet<()>, ServeError> {
    let mut beside = JoinSet::new();
    beside.spawn(claims::watch(claims.clone(), cancels));
    beside.spawn(claims::tell_of_waiting(claims.clone()));
    beside.spawn(keep_clean(health.output.clone(), settings.keep));
    beside.spawn(audit::flush(health.state.clone(), health.objects.clone()));
    beside.spawn(launch(health.launcher.clone()));
    beside.spawn(keep_machines(health.machines.clone()));
    beside.spawn(tidy_lent(settings.machine_pool.clone(), settings.data.join(LENT)));
    beside.spawn(tell_others(settings, Arc::clone(health), claims));
    beside.spawn(reread(settings.tls.clone())?);
    Ok(beside)
}

fn serve_agents(
    door: Door,
    agents: AgentsService,
    (grants, machines): (Grants, MachinesService),
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + use<> {
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(256)
        .http2_max_header_list_size(16 << 10);
    let state = agents.state().clone();
    let agents = v1::agents_server::AgentsServer::new(agents)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let routes =
        Routes::new(agents).add_service(grants.service()).add_service(machines.into_server()).into_axum_router();
    let routes = routes.layer(axum::middleware::from_fn_with_state(state, known::check));
    server.add_routes(Routes::from(routes)).serve_with_incoming_shutdown(Box::pin(door.connections()), ended(stopped))
}

/// Conducts pipelines, and knows for whose agents nobody else is waited for.
fn conductor(settings: &Settings, state: &State, public_url: &str) -> Conductor {
    let launched = settings.nomad.as_ref().map(|nomad| nomad.classes.clone());
    Conductor::new(state.clone(), public_url).with_launched(launched)
}

/// What launches tasks, if anything is to.
fn launcher(
    settings: &Settings,
    claims: &Claims,
    (public_url, scheme): (&str, &str),
    agents: &TcpListener,
) -> Result<Option<Arc<Launcher>>, ServeError> {
    let Some(nomad) = settings.nomad.clone() else { return Ok(None) };
    let what = "launching through Nomad";
    let port = agents.local_addr().map_err(failed(what))?.port();
    let processor = nomad.processor.clone().unwrap_or_else(|| {
        let rest = public_url.split_once("://").map_or(public_url, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        // An IPv6 address has colons of its own, within brackets.
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        format!("{scheme}://{host}:{port}")
    });
    if processor.contains("://0.0.0.0:") || processor.contains("://[::]:") {
        let why = format!("agents would be told to find this processor at {processor}; give --nomad-processor URL");
        return Err(ServeError { what: what.to_owned(), why });
    }
    Launcher::new(nomad, &settings.proxies, claims.clone(), processor).map(Some).map_err(failed(what))
}

/// Launches, as long as it is polled.
async fn launch(launcher: Option<Arc<Launcher>>) {
    if let Some(launcher) = launcher {
        launcher.run().await;
    }
}

/// The pool of machines, if there is to be one. Nothing of it is touched yet.
fn machines(settings: &Settings, state: &State) -> Result<Option<Machines>, ServeError> {
    let Some(MachinePool { rules, made, mut host, .. }) = settings.machine_pool.clone() else { return Ok(None) };
    // A place for each: to the one, the other's machines would be machines that are gone.
    let (place, maker, reach) = if made.are_here() {
        let place = settings.data.join("machine-pool");
        let this_host = this_host().map_err(failed("the pool of machines"))?;
        let maker = made.maker(place.clone(), &host);
        (place, maker, Reach::Host(Here { host: this_host, state: host.state }))
    } else {
        let place = settings.data.join(LENT).join("pool");
        // Their records and keys are the processor's alone.
        host.state = settings.data.join(LENT);
        let maker = made.lender(place.clone(), &host).map_err(failed("the pool of machines"))?;
        (place, maker, Reach::Lent(Box::new(made)))
    };
    Ok(Some(Machines::new(Parts { place, rules, maker, reach }, state.clone())))
}

/// Looks after what lent machines have left at their cloud, as long as it is polled.
async fn tidy_lent(settings: Option<MachinePool>, state: PathBuf) {
    match settings {
        Some(MachinePool { made, mut host, .. }) if !made.are_here() => {
            host.state = state;
            machines::tidy(made, host).await;
        }
        // Nothing in these settings says how they are ended.
        _ => {
            let is_empty = navvy_vm::record::all(&state).is_ok_and(|left| left.is_empty());
            if !is_empty {
                tracing::error!(
                    "Machines of a cloud that were lent before may be there yet, and these settings lend none: give [machine_pool] its \
                     provider back, without prescale, until {} is empty.",
                    navvy_vm::record::machines(&state).display()
                );
            }
        }
    }
}

/// Keeps the pool of machines, as long as it is polled. Its machines stay, for the next start.
async fn keep_machines(machines: Option<Machines>) {
    if let Some(machines) = machines {
        machines.keep().await;
    }
}

/// Where grants are noted on this machine, and what carries them to the store.
fn grant_log(settings: &Settings) -> Result<(GrantLog, Carrier), ServeError> {
    let noted = settings.data.join("audit");
    GrantLog::open(&noted).map_err(failed(format!("the audit log's directory {}", noted.display())))
}

/// Tells other machines what they were set up for, as long as it is polled.
fn tell_others(settings: &Settings, health: Arc<Health>, claims: &Claims) -> impl Future<Output = ()> + use<> {
    let figures = settings.dogstatsd.map(|to| statsd::send(to, Arc::clone(&health)));
    let ended = claims.conductor().signals.ended.subscribe();
    let (proxies, state) = (settings.proxies.clone(), health.state.clone());
    let spans = settings.otlp.clone().map(|endpoint| otlp::export(endpoint, proxies, state, ended));
    async move {
        tokio::join!(
            async {
                if let Some(figures) = figures {
                    figures.await
                }
            },
            async {
                if let Some(spans) = spans {
                    spans.await
                }
            }
        );
    }
}

/// Reads certificates again when a hangup says so. Without any, a hangup ends the program, as everywhere.
fn reread(certificates: Option<Arc<Certificates>>) -> Result<impl Future<Output = ()>, ServeError> {
    let hangups = certificates.is_some().then(|| signal(SignalKind::hangup())).transpose();
    let both = certificates.zip(hangups.map_err(failed("signals"))?);
    Ok(async move {
        if let Some((certificates, hangups)) = both {
            tls::follow(certificates, hangups).await;
        }
    })
}

/// Removes what was never committed, and logs that are too old, as long as it is polled.
async fn keep_clean(output: Output, keep: Keep) {
    // At once, too: a processor that is started again more often than that sweeps all the same.
    let mut due = tokio::time::interval(SWEEP_EVERY);
    loop {
        due.tick().await;
        match output.sweep(ORPHANS, keep.logs.unwrap_or(Duration::MAX)).await {
            Ok(swept) => tracing::debug!(?swept, "Logs were swept."),
            Err(error) => tracing::warn!("Logs could not be swept: {}.", chain(&error)),
        }
    }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    stopped.wait_for(|stopped| *stopped).await.ok();
}

async fn wait_for_stop() -> Result<(), ServeError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(failed("signals"))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(failed("signals"))?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(())
}

fn listen(at: std::net::SocketAddr) -> Result<TcpListener, ServeError> {
    let listening = || -> std::io::Result<TcpListener> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(WAITING)
    };
    listening().map_err(failed(format!("listening at {at}")))
}

/// Where it serves, and at the very first start the first token: it is shown once and kept nowhere.
async fn tell(state: &State, settings: &Settings, agents_at: &str, public_url: &str) -> Result<(), ServeError> {
    let failed_state = || failed("the database");
    let mut text = format!("Processor: {public_url}\nAgents:    {agents_at}\nData:      {}\n", settings.data.display());
    if !state.has_token(&Scope::Admin).await.map_err(failed_state())? {
        let token = state.new_token(&Scope::Admin, "first").await.map_err(failed_state())?;
        text.push_str(&format!(
            "Token:     {token}\nThis first token may do everything, and is shown this once. `navvy login {public_url}` keeps it.\n"
        ));
    }
    // Who started it may have closed its output: then nobody is to be told.
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    std::io::stdout().lock().flush().ok();
    Ok(())
}

/// Where it writes on this machine.
fn disks(settings: &Settings) -> Disks {
    let store = match &settings.store.location {
        Location::Directory(directory) => Some(directory.clone()),
        Location::Cloud { .. } => None,
    };
    let database = settings.database.strip_prefix("sqlite:").map(|path| Path::new(path.trim_start_matches("//")));
    let database = database.and_then(Path::parent).map(Path::to_owned);
    Disks::of([settings.data.clone()].into_iter().chain(database).chain(store))
}

/// Each connection is a file: as many as the system allows.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "The number of open files could not be raised.");
    }
}

fn make_private(data: &Path) -> Result<(), ServeError> {
    if data.exists() && !data.is_dir() {
        let what = format!("the data directory {}", data.display());
        return Err(ServeError { what, why: "it is no directory; name another one with --data".to_owned() });
    }
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(data).map_err(failed(format!("the data directory {}", data.display())))
}
