//! `navvy vm-pool`: machines that are ready before a job of this host wants one, here or elsewhere.
//!
//! ```text
//! serve   settings ─▶ keeper (STATE/vm-pool/, one process) ─┬─ door: STATE/vm-pool/pool.sock     jobs, `report`, `empty`
//!                                                           └─ http://ADDR/metrics              Prometheus
//! SIGTERM, SIGINT ─▶ ends; what is ready stays for the next start        with --empty-on-exit, or by `empty`: it goes first
//! ```

mod metrics;
mod rules;
mod show;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_job::outcome::Blame;
use navvy_journal::owner::Owner;
use navvy_vm::Machines;
use navvy_vm::pool::door::{Answer, Ask, AskError, Door, ask};
use navvy_vm::pool::figures::Report;
use navvy_vm::pool::keeper::{Keeper, Pool};
use navvy_vm::pool::rules::Rules;
use navvy_vm::pool::shelf::ShelfError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::CliError;
use super::args::vm_pool::{VmPoolArgs, VmPoolCommand, VmPoolServeArgs};
use super::host;
use super::out::print;
use crate::settings::Settings;

/// The pool's socket, in its directory.
const SOCKET: &str = "pool.sock";
/// A report comes at once.
const ANSWER: Duration = Duration::from_secs(30);
/// What dead processes have left is removed within this.
const REAP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(200);
/// Machines that are ready go within this, those that are being made when they are.
const EMPTY_LIMIT: Duration = Duration::from_secs(900);

pub fn run(settings: &Settings, arguments: VmPoolArgs) -> Result<u8, CliError> {
    let place = place(settings);
    host::finish(host::runtime()?, async {
        match arguments.command {
            None => serve(settings, &place, &arguments.serve).await,
            Some(VmPoolCommand::Serve(arguments)) => serve(settings, &place, &arguments).await,
            Some(VmPoolCommand::Report(arguments)) => {
                let report = report(&place).await.map_err(asked)?;
                print(&if arguments.json { show::json(&report)? } else { show::text(&report) })?;
                Ok(exit_code::PASSED)
            }
            Some(VmPoolCommand::Empty) => empty(settings, &place).await,
        }
    })
}

/// Where a pool of this host keeps what it knows.
fn place(settings: &Settings) -> PathBuf {
    settings.paths.state.join("vm-pool")
}

/// The socket of the pool that this user has, if it has one.
pub fn socket(settings: &Settings) -> PathBuf {
    place(settings).join(SOCKET)
}

async fn report(place: &Path) -> Result<Report, AskError> {
    let path = place.join(SOCKET);
    let no_answer = |why: String| AskError::NoAnswer { path: path.clone(), why };
    match ask(&path, &Ask::Report, ANSWER).await? {
        Answer::Report { report } => serde_json::from_value(report).map_err(|error| no_answer(error.to_string())),
        _ => Err(no_answer("its answer is to another question".to_owned())),
    }
}

fn asked(error: AskError) -> CliError {
    let told = CliError::infra_text(chain(&error));
    match error {
        AskError::NoPool { .. } => told.hint("XDG_STATE_HOME says where a pool keeps its socket: is it the same here?"),
        _ => told,
    }
}

fn kept(error: ShelfError) -> CliError {
    match error {
        ShelfError::Taken { .. } => CliError::new(Blame::Usage, chain(&error))
            .hint("`navvy vm-pool report` shows what it has, `navvy vm-pool empty` ends it."),
        error => CliError::infra(&error),
    }
}

async fn serve(settings: &Settings, place: &Path, arguments: &VmPoolServeArgs) -> Result<u8, CliError> {
    let machines = host::machines_without_pool(settings)?;
    let rules = rules::read(arguments.settings.as_deref(), &machines)?;
    let available = machines.availability(&settings.paths).await;
    available.map_err(|fault| CliError::new(fault.blame(), chain(&fault)).hint("docs/vm.md says what is needed."))?;
    let listener = match arguments.metrics {
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| no_listener(address, &error))?),
        None => None,
    };
    let (keeper, pool) = open(settings, &machines, place, rules)?;
    let path = place.join(SOCKET);
    let door = Door::open(&path).map_err(|error| no_door(&path, &error))?;
    let mut beside = JoinSet::new();
    beside.spawn(door.serve(pool.clone()));
    if let Some(listener) = listener {
        tracing::info!(at = %listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string()), "Figures are shown.");
        beside.spawn(metrics::serve(listener, pool.clone()));
    }
    let mut keeping = tokio::spawn(keeper.run());
    tracing::info!(pool = %place.display(), "The pool has begun.");
    // Whoever asks is answered meanwhile.
    for left in reap(settings, &machines).await? {
        tracing::warn!("What a dead process has left is still there: {left}.");
    }
    let ended = until_the_end(&pool, &mut keeping, arguments.empty_on_exit).await;
    // Who asks from here on is told that there is no pool.
    std::fs::remove_file(&path).ok();
    tracing::info!("The pool has ended.");
    ended.map(|()| exit_code::PASSED)
}

fn open(settings: &Settings, machines: &Machines, place: &Path, rules: Rules) -> Result<(Keeper, Pool), CliError> {
    let maker = machines.maker(place.to_owned(), &settings.paths);
    Keeper::open(place, rules, Arc::clone(&maker)).map_err(kept)
}

/// Removes what a pool that was killed was about to make a snapshot of, and what else is nobody's.
async fn reap(settings: &Settings, machines: &Machines) -> Result<Vec<String>, CliError> {
    let here = Owner::this_process().map_err(|error| CliError::infra(&error))?;
    Ok(machines.reap(&here, &settings.paths, REAP_LIMIT).await.left)
}

fn no_listener(address: std::net::SocketAddr, error: &io::Error) -> CliError {
    CliError::usage(format!("--metrics {address}: cannot listen there: {error}"))
        .hint("Give an address of this host with a port that is free, as in 127.0.0.1:9101.")
}

fn no_door(path: &Path, error: &io::Error) -> CliError {
    CliError::infra_text(format!("the pool's socket {} cannot be made: {error}", path.display()))
}

type Keeping = tokio::task::JoinHandle<Result<(), ShelfError>>;

/// Until a signal, the disk, or somebody who empties the pool ends it.
async fn until_the_end(pool: &Pool, keeping: &mut Keeping, empties: bool) -> Result<(), CliError> {
    let signals = |kind| signal(kind).map_err(|error| CliError::infra(&error));
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut look = tokio::time::interval(LOOK);
    let mut is_ending = false;
    loop {
        tokio::select! {
            done = &mut *keeping => return ended(done),
            _ = terminate.recv() => match empties && !is_ending {
                true => is_ending = true,
                false => return Ok(()),
            },
            _ = interrupt.recv() => match empties && !is_ending {
                true => is_ending = true,
                false => return Ok(()),
            },
            _ = look.tick() => {
                if is_ending {
                    pool.empty().await;
                }
                if pool.report().await.is_some_and(|report| report.is_emptied && report.has_none_of_its_own()) {
                    return Ok(());
                }
            }
        }
    }
}

fn ended(done: Result<Result<(), ShelfError>, tokio::task::JoinError>) -> Result<(), CliError> {
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(CliError::infra(&error).hint("The pool goes on from what its disk has when it starts again."))
        }
        Err(error) => Err(CliError::infra_text(format!("the pool ended by a bug of Navvy: {error}"))),
    }
}

/// By the pool that runs, or in its place.
async fn empty(settings: &Settings, place: &Path) -> Result<u8, CliError> {
    let machines = host::machines_without_pool(settings)?;
    match ask(&place.join(SOCKET), &Ask::Empty, ANSWER).await {
        Ok(_) => until_it_has_ended(place).await?,
        Err(AskError::NoPool { .. }) => {
            let (keeper, pool) = open(settings, &machines, place, Rules::default())?;
            let mut keeping = tokio::spawn(keeper.run());
            pool.empty().await;
            let ending = until_the_end(&pool, &mut keeping, false);
            tokio::time::timeout(EMPTY_LIMIT, ending).await.map_err(|_| not_empty())??;
        }
        Err(error) => return Err(asked(error)),
    }
    let left = reap(settings, &machines).await?;
    if !left.is_empty() {
        return Err(CliError::infra_text(format!("still there: {}", left.join(", "))));
    }
    print("The pool has no machine any more that nobody has.\n")?;
    Ok(exit_code::PASSED)
}

async fn until_it_has_ended(place: &Path) -> Result<(), CliError> {
    let waiting = async {
        // It ends when it is empty: nobody answers then.
        while report(place).await.is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(EMPTY_LIMIT, waiting).await.map_err(|_| not_empty())
}

fn not_empty() -> CliError {
    CliError::infra_text(format!("the pool is not empty after {} s", EMPTY_LIMIT.as_secs()))
        .hint("`navvy vm-pool report` says what it has; its log says what could not be removed.")
}
