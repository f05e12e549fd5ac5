//! The way through the walls for what a run's jobs are allowed to reach.

use navvy_environment::HostPaths;
use navvy_environment::allowed::Allowed;
use navvy_environment::run_dir;
use navvy_job::id::TaskId;

use super::engine::Engine;
use super::network;
use super::walls::{self, Family};

impl Engine {
    /// Lets the task's containers, which have the primary's address, through to what is allowed.
    ///
    /// # Errors
    /// A sentence: the job would not reach what it was promised.
    pub(super) async fn allow(&self, task: &TaskId, allowed: &Allowed, host: &HostPaths) -> Result<(), String> {
        if allowed.is_empty() || self.why_rules_are_not_ours().is_some() {
            return Ok(());
        }
        let inspected = self.docker().inspect_container(&task.primary_name(), None).await;
        let inspected = inspected.map_err(|error| super::fault::describe(&error))?;
        let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let endpoint = networks.get(network::NAME).cloned().unwrap_or_default();
        // Written first: the task's removal takes back what it was allowed.
        let place = run_dir::place(host.runtime.as_deref(), run_dir::uid(), task);
        run_dir::note_allowed(&place).map_err(|error| error.to_string())?;
        for (family, source) in [(Family::v4(), endpoint.ip_address), (Family::v6(), endpoint.global_ipv6_address)] {
            let Some(source) = source.and_then(|text| text.parse().ok()) else { continue };
            let matches = [false, true].map(|is_beyond| allowed.matches(family.is_v6, is_beyond));
            let made = walls::allow(&family, task.as_str(), source, &matches, &host.search_path).await;
            made.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Takes back what a task was allowed. Missing is fine.
pub(super) async fn take_back(task: &TaskId, host: &HostPaths) -> Result<(), String> {
    let place = run_dir::place(host.runtime.as_deref(), run_dir::uid(), task);
    if !run_dir::was_allowed(&place) {
        return Ok(());
    }
    for family in [Family::v4(), Family::v6()] {
        let gone = walls::disallow(&family, task.as_str(), &host.search_path).await;
        gone.map_err(|error| format!("rules of task {task} in {} ({error})", family.program))?;
    }
    run_dir::forget_allowed(&place).map_err(|error| format!("note of rules of task {task} ({error})"))
}
