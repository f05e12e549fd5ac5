//! A PostgreSQL of a story's own, which may fail in its middle: what `scripts/postgres` starts.

use std::path::Path;

use tempfile::TempDir;

use crate::program::{Answer, Program};

/// Ends when dropped.
#[derive(Debug)]
pub struct Postgres {
    record: TempDir,
    url: String,
}

impl Postgres {
    #[track_caller]
    pub fn start() -> Self {
        let record = tempfile::tempdir().expect("a temporary directory can be made");
        script(&record, "start").succeeded();
        let url = script(&record, "url").text().trim().to_owned();
        Self { record, url }
    }

    /// With the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As a power cut does it: its connections end, and nothing is tidied up.
    #[track_caller]
    pub fn crash(&self) {
        script(&self.record, "crash").succeeded();
    }

    /// Starts it again where it was.
    #[track_caller]
    pub fn restart(&self) {
        script(&self.record, "restart").succeeded();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _stopped = script(&self.record, "stop");
    }
}

#[track_caller]
fn script(record: &TempDir, verb: &str) -> Answer {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
    Program::new(script).args([verb]).env("NAVVY_POSTGRES_RECORD", record.path().join("postgres")).run()
}
