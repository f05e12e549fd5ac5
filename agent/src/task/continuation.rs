//! A setup pipeline's job, and what it continues the pipeline with.

use navvy_environment::supervisor::{Client, ClientError};
use navvy_job::chain::chain;
use navvy_job::claim::CONTINUATION_KEY;

use crate::environment::Environment;

use super::Task;

/// Where a job's tools look for the API, and find its own environment.
const API_HOST: &str = "CIRCLECI_API_HOST";

impl Task {
    /// The key of a task that may continue its pipeline.
    pub(super) fn continuation_key(&self) -> Option<String> {
        self.claim.may_continue.then(|| self.secrets.get(CONTINUATION_KEY).map(str::to_owned)).flatten()
    }

    /// Asks what the job said. It counts even if a later step failed.
    pub(super) async fn take_continuation(&mut self, environment: &Environment, client: &Client) {
        if self.continuation_key().is_none() {
            return;
        }
        let client = client.clone();
        match self.bounds(environment).bounded(move || client.continuation()).await {
            Ok(Ok(continuation)) => self.result.continuation = continuation,
            Ok(Err(error)) => {
                self.warn(format!("what the job continues the pipeline with could not be fetched: {}", chain(&error)));
            }
            // Its verdict says why its environment is gone.
            Err(_) => {}
        }
    }
}

/// Lets the environment take the call. The variable that says where.
pub(super) fn offer(client: &Client, key: &str) -> Result<(String, String), ClientError> {
    let port = client.offer_continuation(key)?;
    Ok((API_HOST.to_owned(), format!("http://127.0.0.1:{port}")))
}
