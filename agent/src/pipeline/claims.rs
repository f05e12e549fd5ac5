//! From a job of the graph to the claims of its tasks.

use std::path::Path;
use std::time::Duration;

use navvy_job::claim::{self, Claim, Limits, ReportTo, RunFacts, TrustScope};
use navvy_job::compiled::Variables;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;

use super::availability::Local;

/// One task's claim: what is known of its run, and the `CIRCLE_*` variables that derive from it.
pub fn claim(
    job_name: &str,
    local: &Local,
    size: Size,
    node: (u32, u32),
    job_limit: Duration,
    (run, builtin_variables): (RunFacts, Variables),
) -> Claim {
    Claim {
        version: claim::VERSION,
        task: TaskId::from_uuid(uuid::Uuid::new_v4().into_bytes()),
        job_name: job_name.to_owned(),
        job: local.job.clone(),
        node_index: node.0,
        node_total: node.1,
        attempt: 1,
        limits: Limits::new(size, job_limit),
        trust: TrustScope::Local,
        run,
        builtin_variables,
        report_to: ReportTo::Local,
        may_continue: false,
        upstream: Vec::new(),
    }
}

/// A local file as a URL, for `CIRCLE_BUILD_URL`.
pub fn file_url(path: &Path) -> String {
    let mut url = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(*byte)),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_urls() {
        assert_eq!(file_url(Path::new("/a b/ü")), "file:///a%20b/%C3%BC");
    }
}
