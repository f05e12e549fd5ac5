//! From plan to engine: the only place that knows both.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use navvy_environment::plan::{ContainerPlan, Network};
use navvy_job::id::TaskId;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::engine::Engine;

/// Creates on their way, by task. A request to create a container cannot be taken back: the removal of a task waits
/// for its creates first.
#[derive(Default)]
pub(super) struct Creating(Mutex<HashMap<TaskId, Vec<JoinHandle<()>>>>);

impl Creating {
    fn add(&self, task: &TaskId, handle: JoinHandle<()>) {
        let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        map.entry(task.clone()).or_default().push(handle);
    }

    /// Waits until none is on its way.
    pub async fn settle(&self, task: &TaskId) {
        let handles = {
            let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            map.remove(task).unwrap_or_default()
        };
        for handle in handles {
            // Its result went to the caller; only its end matters here.
            let _ended = handle.await;
        }
    }
}

impl Engine {
    /// Creates a container; goes on to its end even when the caller is dropped.
    pub(super) fn create(
        &self,
        task: &TaskId,
        plan: &ContainerPlan,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let (sender, receiver) = oneshot::channel();
        let options = CreateContainerOptionsBuilder::new().name(&plan.name).build();
        let body = request(plan);
        let shared = Arc::clone(&self.shared);
        let handle = tokio::spawn(async move {
            let answer = shared.docker.create_container(Some(options), body).await;
            // Nothing receives it when prepare was cancelled.
            let _unheard = sender.send(answer.map(drop));
        });
        self.shared.creating.add(task, handle);
        async move { receiver.await.unwrap_or(Err(Error::RequestTimeoutError)) }
    }
}

fn request(plan: &ContainerPlan) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(plan.image.clone()),
        entrypoint: plan.entrypoint.clone(),
        cmd: plan.command.clone(),
        env: Some(plan.env.clone()),
        user: plan.user.clone(),
        working_dir: plan.working_directory.clone(),
        labels: Some(plan.labels.clone().into_iter().collect()),
        // Its verdict is not used, and each check costs as much as a `docker exec`.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host_config(plan)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(plan: &ContainerPlan) -> HostConfig {
    let memory = i64::try_from(plan.limits.memory).unwrap_or(i64::MAX);
    let network = match &plan.network {
        Network::Named(name) => name.clone(),
        Network::Of(container) => format!("container:{container}"),
    };
    HostConfig {
        network_mode: Some(network),
        extra_hosts: (!plan.hosts.is_empty()).then(|| plan.hosts.clone()),
        mounts: Some(plan.mounts.iter().map(mount).chain(volumes(plan)).collect()),
        tmpfs: (!plan.tmpfs.is_empty()).then(|| plan.tmpfs.clone().into_iter().collect()),
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(i64::try_from(plan.limits.nano_cpus).unwrap_or(i64::MAX)),
        pids_limit: Some(i64::from(plan.limits.pids)),
        cgroup_parent: plan.cgroup_parent.clone(),
        shm_size: Some(i64::try_from(plan.shm_size).unwrap_or(i64::MAX)),
        security_opt: plan.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        cap_drop: Some(plan.dropped_capabilities.clone()),
        sysctls: (!plan.sysctls.is_empty()).then(|| plan.sysctls.clone().into_iter().collect()),
        privileged: Some(false),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

/// Nameless volumes, which go with their container, and carry its labels.
fn volumes(plan: &ContainerPlan) -> impl Iterator<Item = Mount> {
    plan.volumes.iter().map(|target| Mount {
        typ: Some(MountType::VOLUME),
        target: Some(target.clone()),
        volume_options: Some(MountVolumeOptions {
            labels: Some(plan.labels.clone().into_iter().collect()),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    })
}

/// A mount, not a bind: where the source is missing, an engine refuses the former and makes an empty directory for
/// the latter.
fn mount(mount: &navvy_environment::plan::Mount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}
