//! Whose name a pull goes under.

use bollard::auth::DockerCredentials;

pub(super) async fn none() -> Option<DockerCredentials> {
    None
}
