//! The kinds of steps that the agent carries out itself: each to what came of it.

pub mod artifacts;
pub mod caches;
pub mod checkout;
pub mod handed;
pub mod remote_docker;
pub mod ssh_keys;
pub mod test_results;
pub mod workspaces;

use navvy_job::compiled::StepKind;

use super::cx::StepCx;
use super::handing::{Handed, Opened};
use super::own::{StepError, StepOutput};
use crate::environment::machine::Machine;

/// What a step leaves to its task when it has done its work.
#[derive(Default)]
pub struct Done {
    /// What the job has been handed.
    pub handed: Option<(Handed, Opened)>,
    /// A machine that was made for the job, and that ends with it.
    pub machine: Option<Machine>,
    /// What would differ on the real service.
    pub fidelity: Option<String>,
}

/// Carries out a step of a kind that is the agent's own.
///
/// # Errors
/// Also for a kind that is not: its task runs or skips it.
pub async fn carry_out(cx: &StepCx<'_>, output: &mut StepOutput, kind: &StepKind) -> Result<Done, StepError> {
    match kind {
        StepKind::Checkout(checkout) => checkout::checkout(cx, output, checkout).await?,
        StepKind::SaveCache { key, paths } => caches::save_cache(cx, output, key, paths).await?,
        StepKind::RestoreCache { keys } => caches::restore_cache(cx, output, keys).await?,
        StepKind::PersistToWorkspace { root, paths } => {
            workspaces::persist_to_workspace(cx, output, root, paths).await?;
        }
        StepKind::AttachWorkspace { at } => workspaces::attach_workspace(cx, output, at).await?,
        StepKind::StoreArtifacts { path, destination } => {
            artifacts::store_artifacts(cx, output, path, destination.as_deref()).await?;
        }
        StepKind::StoreTestResults { path } => test_results::store_test_results(cx, output, path).await?,
        StepKind::AddSshKeys { fingerprints } => return ssh_keys::add_ssh_keys(cx, output, fingerprints).await,
        StepKind::SetupRemoteDocker { version, docker_layer_caching } => {
            if !cx.handing.docker || cx.ground.is_machine {
                return remote_docker::set_up(cx, output, version.as_deref(), *docker_layer_caching).await;
            }
            let names_another = version.is_some() || *docker_layer_caching;
            return handed::hand_over_docker(cx, output, names_another).await;
        }
        StepKind::Run(_) | StepKind::InstallSigningBundle | StepKind::OrbCommand { .. } => {
            return Err(format!("`{}` is not a step that the agent carries out itself", kind.key()).into());
        }
    }
    Ok(Done::default())
}
