//! A step's reports, out of the job's environment.

use super::junit::{Limits, parse};
use super::{Case, summary};
use crate::chain::chain;
use crate::supervisor::{Client, ClientError};

/// Reports of one step. Those of the largest Java projects are a tenth of it.
const MOST_FILES: usize = 50_000;
/// Reports that are named one by one, above what they hold.
const NAMED: usize = 50;

/// What the files of a step hold.
#[derive(Debug, Default)]
pub struct Collected {
    pub cases: Vec<Case>,
    /// Lines of the step.
    pub lines: Vec<String>,
    /// What the run's summary should not be silent about.
    pub warnings: Vec<String>,
    pub files: usize,
}

/// Which files, and as whom they are read.
#[derive(Debug, Clone)]
pub struct Reports {
    /// Absolute: a directory or a file.
    pub path: String,
    pub user: Option<String>,
}

impl Reports {
    /// Finds and reads them. Whatever is wrong with them is told and no error.
    ///
    /// # Errors
    /// The connection's: then nothing is known.
    pub fn collect(&self, client: &Client, limits: Limits) -> Result<Collected, ClientError> {
        let mut collected = Collected::default();
        let names = client.glob(&self.path, &["**/*.[xX][mM][lL]"], self.user.clone()).or_else(of_the_job)?;
        if names.is_empty() {
            self.alone(client, limits, &mut collected)?;
            return Ok(collected);
        }
        let mut paths: Vec<String> = Vec::new();
        for name in &names {
            match std::str::from_utf8(name) {
                Ok(name) => paths.push(format!("{}/{name}", self.path.trim_end_matches('/'))),
                Err(_) => collected.trouble(&String::from_utf8_lossy(name), "its name is not UTF-8, which it must be"),
            }
        }
        if paths.len() > MOST_FILES {
            collected.warnings.push(format!(
                "{} holds {} reports; {MOST_FILES} of them are read",
                self.path,
                paths.len()
            ));
            paths.truncate(MOST_FILES);
        }
        collected.announce(&paths);
        for path in &paths {
            if let Some(failure) = self.read(client, path, limits, &mut collected)? {
                collected.trouble(path, &failure);
            }
        }
        collected.sum_up();
        Ok(collected)
    }

    /// The path may be a report itself.
    fn alone(&self, client: &Client, limits: Limits, collected: &mut Collected) -> Result<(), ClientError> {
        collected.announce(std::slice::from_ref(&self.path));
        match self.read(client, &self.path, limits, collected)? {
            None => collected.sum_up(),
            Some(failure) => {
                *collected = Collected {
                    lines: vec![
                        format!("Unable to save test results from {}", self.path),
                        format!("Error: {failure}"),
                        "Found no path with test results, skipping".to_owned(),
                    ],
                    ..Collected::default()
                };
            }
        }
        Ok(())
    }

    /// Adds a file's cases. What the supervisor said, if it could not be read.
    fn read(
        &self,
        client: &Client,
        path: &str,
        limits: Limits,
        collected: &mut Collected,
    ) -> Result<Option<String>, ClientError> {
        match client.read_as_stream(path, self.user.clone(), |source| parse(source, limits, &mut collected.cases)) {
            Ok(Ok(())) => collected.files += 1,
            Ok(Err(broken)) => {
                collected.files += 1;
                collected.trouble(&format!("{path}:{}", broken.line), &broken.why);
            }
            Err(error) if error.failure().is_some() => return Ok(Some(chain(&error))),
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

/// What the supervisor says of a path is the job's affair.
fn of_the_job(error: ClientError) -> Result<Vec<Vec<u8>>, ClientError> {
    if error.failure().is_some() { Ok(vec![]) } else { Err(error) }
}

impl Collected {
    fn announce(&mut self, paths: &[String]) {
        self.lines.push("Archiving the following test results".to_owned());
        self.lines.extend(paths.iter().take(NAMED).map(|path| format!("  * {path}")));
        if paths.len() > NAMED {
            self.lines.push(format!("  * … and {} more", paths.len() - NAMED));
        }
    }

    fn trouble(&mut self, place: &str, why: &str) {
        let line = format!("{place}: {why}");
        self.lines.push(format!("Warning: {line}"));
        self.warnings.push(format!("test results: {line}"));
    }

    fn sum_up(&mut self) {
        self.lines.extend(summary::lines(&self.cases));
    }
}
