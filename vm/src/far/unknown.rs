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
    for instance in unknown(found, host)? {
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

/// Those of them that no record knows. Looked at after the cloud was asked: a record that was made meanwhile counts.
///
/// Where one record cannot be looked for, none is known to be missing, and nothing is ended.
fn unknown(found: Vec<Instance>, host: &HostPaths) -> Result<Vec<Instance>, Fault> {
    let mut unknown = Vec::new();
    for instance in found {
        let is_there = matches!(instance.stage, Stage::Coming | Stage::Running);
        if is_there && !has_record(&instance, host)? {
            unknown.push(instance);
        }
    }
    Ok(unknown)
}

fn has_record(instance: &Instance, host: &HostPaths) -> Result<bool, Fault> {
    let Some(id) = &instance.machine else { return Ok(false) };
    let is_there = record::directory(&host.state, id).try_exists();
    is_there.map_err(Fault::host(format!("look for the record of machine {}", instance.name)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::machine_id::MachineId;

    #[test]
    fn a_record_that_cannot_be_looked_for_is_not_missing() {
        let state = tempfile::tempdir().unwrap();
        let host = HostPaths {
            state: state.path().to_owned(),
            runtime: None,
            docker_config: None,
            search_path: "/usr/bin:/bin".to_owned(),
            supervisor: None,
        };
        let id = MachineId::random();
        let instance = |machine: Option<MachineId>, stage| Instance {
            name: "i-1".to_owned(),
            machine,
            owner: None,
            stage,
            address: None,
            launched_s: Some(1),
        };
        let (its, nameless) = (instance(Some(id.clone()), Stage::Running), instance(None, Stage::Coming));
        let all = || vec![nameless.clone(), its.clone(), instance(None, Stage::Gone)];
        assert_eq!(unknown(all(), &host).unwrap(), [nameless.clone(), its.clone()]);
        fs::create_dir_all(record::directory(&host.state, &id)).unwrap();
        assert_eq!(unknown(all(), &host).unwrap(), std::slice::from_ref(&nameless));
        fs::remove_dir_all(record::machines(&host.state)).unwrap();
        fs::write(record::machines(&host.state), "").unwrap();
        let fault = unknown(all(), &host).unwrap_err();
        assert!(fault.to_string().contains("look for the record of machine i-1"), "{fault}");
    }
}
