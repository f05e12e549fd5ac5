//! The driver service: tasks.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::{Stream, StreamExt as _};
use navvy_cgroup::MOUNTINFO;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

use super::host::Answers;
use super::{Plugin, begin, signals};
use crate::cgroup::Mounts;
use crate::directory::Ended;
use crate::log::{info, warning};
use crate::node::Node;
use crate::proto::hashicorp::nomad::plugins::drivers::proto as nomad;
use crate::stats::{self, Meter};
use crate::task::Task;
use crate::{exec, schema};

/// Nomad waits for the first fingerprint while it starts.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// Without one of Nomad's.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// "No time" of Go: the first second of the year 1.
const NO_TIME: prost_types::Timestamp = prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// `Driver`.
pub struct Driver(pub Arc<Plugin>);

#[tonic::async_trait]
impl nomad::driver_server::Driver for Driver {
    async fn init(&self, _: Request<nomad::InitRequest>) -> Result<Response<nomad::InitResponse>, Status> {
        Ok(Response::new(nomad::InitResponse {}))
    }

    /// Nomad says good-bye; tasks go on.
    async fn shutdown(&self, _: Request<nomad::ShutdownRequest>) -> Result<Response<nomad::ShutdownResponse>, Status> {
        Ok(Response::new(nomad::ShutdownResponse {}))
    }

    async fn task_config_schema(
        &self,
        _: Request<nomad::TaskConfigSchemaRequest>,
    ) -> Result<Response<nomad::TaskConfigSchemaResponse>, Status> {
        Ok(Response::new(nomad::TaskConfigSchemaResponse { spec: Some(schema::task()) }))
    }

    async fn capabilities(
        &self,
        _: Request<nomad::CapabilitiesRequest>,
    ) -> Result<Response<nomad::CapabilitiesResponse>, Status> {
        use nomad::driver_capabilities::{FsIsolation, MountConfigs};
        let capabilities = nomad::DriverCapabilities {
            send_signals: true,
            exec: true,
            // What a command of `nomad alloc exec` sees are the files of the job's image. An agent has no use for the host's
            // environment, which Nomad then leaves out.
            fs_isolation: FsIsolation::Image.into(),
            network_isolation_modes: vec![nomad::network_isolation_spec::NetworkIsolationMode::Host.into()],
            must_create_network: false,
            // A job's volumes are its config's business; what Nomad would mount reaches no container.
            mount_configs: MountConfigs::NoMounts.into(),
            disable_log_collection: false,
            dynamic_workload_users: false,
        };
        Ok(Response::new(nomad::CapabilitiesResponse { capabilities: Some(capabilities) }))
    }

    type FingerprintStream = Answers<nomad::FingerprintResponse>;

    async fn fingerprint(
        &self,
        _: Request<nomad::FingerprintRequest>,
    ) -> Result<Response<Self::FingerprintStream>, Status> {
        let mut health = self.0.fingerprint.subscribe();
        let first = health.borrow().clone();
        // What is known before the first look is only that nothing is known.
        if first == crate::fingerprint::Fingerprint::default().now() {
            let _in_time = tokio::time::timeout(FIRST_LOOK, health.changed()).await;
        }
        health.mark_changed();
        let responses = WatchStream::from_changes(health).map(|health| Ok(health.response()));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn recover_task(
        &self,
        request: Request<nomad::RecoverTaskRequest>,
    ) -> Result<Response<nomad::RecoverTaskResponse>, Status> {
        let handle = request.into_inner().handle.ok_or_else(|| Status::invalid_argument("a handle is missing"))?;
        begin::recover(&self.0, &handle)?;
        Ok(Response::new(nomad::RecoverTaskResponse {}))
    }

    async fn start_task(
        &self,
        request: Request<nomad::StartTaskRequest>,
    ) -> Result<Response<nomad::StartTaskResponse>, Status> {
        let config =
            request.into_inner().task.ok_or_else(|| Status::invalid_argument("the task's configuration is missing"))?;
        let task = begin::start(&self.0, &config).await?;
        let handle = begin::handle(config, &task)?;
        Ok(Response::new(nomad::StartTaskResponse {
            result: nomad::start_task_response::Result::Success.into(),
            driver_error_msg: String::new(),
            handle: Some(handle),
            network_override: None,
        }))
    }

    async fn wait_task(
        &self,
        request: Request<nomad::WaitTaskRequest>,
    ) -> Result<Response<nomad::WaitTaskResponse>, Status> {
        let ended = self.0.known(&request.into_inner().task_id)?.wait().await;
        Ok(Response::new(nomad::WaitTaskResponse { result: Some(result(Some(&ended))), err: ended.error }))
    }

    async fn stop_task(
        &self,
        request: Request<nomad::StopTaskRequest>,
    ) -> Result<Response<nomad::StopTaskResponse>, Status> {
        let request = request.into_inner();
        if let Some(task) = self.0.task(&request.task_id) {
            let wanted = if request.signal.is_empty() { Some(Signal::TERM) } else { signals::signal(&request.signal) };
            // A signal that does not exist must not keep a task from being stopped.
            let signal = wanted.unwrap_or(Signal::TERM);
            let within = request.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).unwrap_or(STOP_LIMIT);
            info!("Task {} is to end within {} s.", task.record().task, within.as_secs());
            done(tokio::spawn(async move { task.stop(signal, within).await })).await?;
        }
        Ok(Response::new(nomad::StopTaskResponse {}))
    }

    async fn destroy_task(
        &self,
        request: Request<nomad::DestroyTaskRequest>,
    ) -> Result<Response<nomad::DestroyTaskResponse>, Status> {
        let request = request.into_inner();
        let Some(task) = self.0.task(&request.task_id) else {
            let plugin = self.0.clone();
            let begun = tokio::spawn(async move { begin::destroy_unknown(&plugin, &request.task_id).await });
            done(begun).await??;
            return Ok(Response::new(nomad::DestroyTaskResponse {}));
        };
        if task.ended().is_none() && !request.force {
            return Err(Status::failed_precondition("the task runs; it is destroyed by force alone"));
        }
        let plugin = self.0.clone();
        done(tokio::spawn(async move {
            task.stop(Signal::KILL, Duration::ZERO).await;
            if task.ended().is_some() {
                task.destroy().await;
                plugin.tasks().remove(&request.task_id);
            }
        }))
        .await?;
        Ok(Response::new(nomad::DestroyTaskResponse {}))
    }

    async fn inspect_task(
        &self,
        request: Request<nomad::InspectTaskRequest>,
    ) -> Result<Response<nomad::InspectTaskResponse>, Status> {
        let task = self.0.known(&request.into_inner().task_id)?;
        let record = task.record();
        let moment = |ms: u64| (UNIX_EPOCH + Duration::from_millis(ms)).into();
        let state = if record.ended.is_some() { nomad::TaskState::Exited } else { nomad::TaskState::Running };
        let status = nomad::TaskStatus {
            id: record.id.clone(),
            name: record.name.clone(),
            state: state.into(),
            started_at: Some(moment(record.started_ms)),
            completed_at: Some(record.ended.as_ref().map_or(NO_TIME, |ended| moment(ended.at_ms))),
            result: Some(result(record.ended.as_ref())),
        };
        let pid = record.agent.map_or(0, |agent| agent.pid);
        let attributes = [("task", record.task), ("pid", pid.to_string())];
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Response::new(nomad::InspectTaskResponse {
            task: Some(status),
            driver: Some(nomad::TaskDriverStatus { attributes }),
            network_override: None,
        }))
    }

    type TaskStatsStream = Answers<nomad::TaskStatsResponse>;

    async fn task_stats(
        &self,
        request: Request<nomad::TaskStatsRequest>,
    ) -> Result<Response<Self::TaskStatsStream>, Status> {
        let request = request.into_inner();
        let task = self.0.known(&request.task_id)?;
        let interval = request.collection_interval.and_then(|interval| Duration::try_from(interval).ok());
        let interval = interval.filter(|interval| !interval.is_zero()).unwrap_or(STATS_INTERVAL);
        Ok(Response::new(Box::pin(self.stats(task, interval))))
    }

    type TaskEventsStream = Answers<nomad::DriverTaskEvent>;

    async fn task_events(
        &self,
        _: Request<nomad::TaskEventsRequest>,
    ) -> Result<Response<Self::TaskEventsStream>, Status> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        // Events that were too many are gone; the next ones matter.
        let events = events.filter_map(|event| async {
            match event {
                Ok(event) => Some(Ok(event)),
                Err(BroadcastStreamRecvError::Lagged(_)) => None,
            }
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn signal_task(
        &self,
        request: Request<nomad::SignalTaskRequest>,
    ) -> Result<Response<nomad::SignalTaskResponse>, Status> {
        let request = request.into_inner();
        let task = self.0.known(&request.task_id)?;
        let Some(signal) = signals::signal(&request.signal) else {
            return Err(Status::invalid_argument(format!("{:?} is no signal", request.signal)));
        };
        task.signal(signal).map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(nomad::SignalTaskResponse {}))
    }

    async fn exec_task(
        &self,
        request: Request<nomad::ExecTaskRequest>,
    ) -> Result<Response<nomad::ExecTaskResponse>, Status> {
        let request = request.into_inner();
        let task = self.running(&request.task_id)?;
        named(&request.command)?;
        let limit = request.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
        exec::run(&task.record(), &request.command, limit).await.map(Response::new)
    }

    type ExecTaskStreamingStream = Answers<nomad::ExecTaskStreamingResponse>;

    async fn exec_task_streaming(
        &self,
        request: Request<Streaming<nomad::ExecTaskStreamingRequest>>,
    ) -> Result<Response<Self::ExecTaskStreamingStream>, Status> {
        let mut input = request.into_inner();
        let first = input.message().await?;
        let Some(setup) = first.and_then(|first| first.setup) else {
            return Err(Status::invalid_argument("the first message says which command to run"));
        };
        let record = self.running(&setup.task_id)?.record();
        named(&setup.command)?;
        let (answers, taken) = mpsc::channel(exec::MOST_WAITING);
        tokio::spawn(exec::stream(record, setup, input, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(taken))))
    }

    async fn create_network(
        &self,
        _: Request<nomad::CreateNetworkRequest>,
    ) -> Result<Response<nomad::CreateNetworkResponse>, Status> {
        Err(Status::unimplemented("this driver makes no networks: a job's containers have those of their environment"))
    }

    async fn destroy_network(
        &self,
        _: Request<nomad::DestroyNetworkRequest>,
    ) -> Result<Response<nomad::DestroyNetworkResponse>, Status> {
        Ok(Response::new(nomad::DestroyNetworkResponse {}))
    }
}

impl Driver {
    fn running(&self, id: &str) -> Result<Arc<Task>, Status> {
        let task = self.0.known(id)?;
        match task.ended() {
            None => Ok(task),
            Some(_) => Err(Status::failed_precondition("the task has ended")),
        }
    }

    /// Figures until the task ends. Where there are none, nothing is sent, and nothing ends: Nomad would ask again and again.
    fn stats(
        &self,
        task: Arc<Task>,
        interval: Duration,
    ) -> impl Stream<Item = Result<nomad::TaskStatsResponse, Status>> + use<> {
        let (id, cgroup, node) = (task.record().id, task.record().cgroup, self.0.node());
        let (answers, taken) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut meter = cgroup.and_then(|name| meter_of(&id, name, node));
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = task.wait() => return,
                    () = answers.closed() => return,
                }
                let read = meter.as_mut().and_then(|meter| meter.read(&id));
                let Some(stats) = read else { continue };
                if answers.send(Ok(nomad::TaskStatsResponse { stats: Some(stats) })).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(taken)
    }
}

/// `None`: there are no figures of a task's cgroup.
fn meter_of(id: &str, name: String, node: Node) -> Option<Meter> {
    match Mounts::here() {
        Ok(mounts) => stats::is_there(&mounts, &name).then(|| Meter::new(mounts, name, node)),
        Err(error) => {
            warning!("There are no figures of task {id}: {MOUNTINFO} could not be read: {error}");
            None
        }
    }
}

/// Nomad may hang up: what was begun goes on to its end.
async fn done<T>(begun: JoinHandle<T>) -> Result<T, Status> {
    begun.await.map_err(|error| Status::internal(format!("a bug of the driver ended it: {error}")))
}

/// Without a command a shell of the job would be started, which nobody asked for.
fn named(command: &[String]) -> Result<(), Status> {
    match command.first().is_some_and(|program| !program.is_empty()) {
        true => Ok(()),
        false => Err(Status::invalid_argument("no command is named")),
    }
}

fn result(ended: Option<&Ended>) -> nomad::ExitResult {
    ended.map_or_else(nomad::ExitResult::default, |ended| nomad::ExitResult {
        exit_code: ended.code,
        signal: ended.signal,
        oom_killed: ended.oom_killed,
    })
}
