//! Machines of a cloud that carry this host's name and that no record knows: a record was lost with its disk, or its machine came
//! to light after it was looked for in vain.

use std::time::{SystemTime, UNIX_EPOCH};

use navvy_environment::HostPaths;

use super::cloud::Cloud;
use super::identity;
use crate::cloud::{Instance, Stage};
use crate::error::Fault;
use crate::record;

/// Ends them once they are older than the setting: a record stands on disk before its machine is asked for, so nothing that is on its way
/// is ever unknown. Returns what is left.
pub(crate) async fn reap(cloud: &Cloud, host: &HostPaths) -> Vec<String> {
    match look(cloud, host).await {
        Ok(left) => left,
        Err(fault) => vec![format!(
            "machines of {} that no record knows, if there are any ({})",
            cloud.name(),
            navvy_job::chain::chain(&fault)
        )],
    }
}

async fn look(cloud: &Cloud, host: &HostPaths) -> Result<Vec<String>, Fault> {
    let state = host.state.clone();
    let owner = tokio::task::spawn_blocking(move || identity::of(&state)).await;
    let owner = owner.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let owner = owner.map_err(Fault::host("find this host's name for its machines"))?;
    let found = cloud.api.list(&owner).await?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut left = Vec::new();
    for instance in found.into_iter().filter(|it| is_unknown(it, host)) {
        let Some(launched_s) = instance.launched_s else {
            left.push(format!(
                "machine {} of {} (no record knows it, and its age is not told)",
                instance.name,
                cloud.name()
            ));
            continue;
        };
        if now_s.saturating_sub(launched_s) < cloud.terms.unknown_after.as_secs() {
            continue;
        }
        tracing::warn!(machine = %instance.name, "A machine that no record knows is ended.");
        if let Err(fault) = cloud.api.terminate(&instance.name).await {
            left.push(format!("machine {} of {}, which no record knows ({fault})", instance.name, cloud.name()));
        }
    }
    Ok(left)
}

/// Looked at after the cloud was asked: a record that was made meanwhile counts.
fn is_unknown(instance: &Instance, host: &HostPaths) -> bool {
    let is_there = matches!(instance.stage, Stage::Coming | Stage::Running);
    let has_record = instance.machine.as_ref().is_some_and(|id| record::directory(&host.state, id).exists());
    is_there && !has_record
}
