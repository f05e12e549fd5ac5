//! A step's reports, out of the job's environment.

use super::junit::{Limits, parse};
use super::{Case, summary};
use crate::chain::chain;
use crate::supervisor::{Client, ClientError, Found};

/// Reports of one step. Those of the largest Java projects are a tenth of it.
const MOST_FILES: usize = 50_000;
/// Reports that are named one by one, above what they hold.
const NAMED: usize = 50;
/// The original's words.
const NOTHING: &str = "Found no path with test results, skipping";

/// What the files of a step hold.
#[derive(Debug, Default)]
pub struct Collected {
    pub cases: Vec<Case>,
    /// Lines of the step.
    pub lines: Vec<String>,
    /// What the run's summary should not be silent about.
    pub warnings: Vec<String>,
    /// Reports that are passed over, as the original does.
    pub ignored: Option<String>,
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
        let found = match client.glob(&self.path, &["**/*.[xX][mM][lL]"], self.user.clone()) {
            Ok(found) => found,
            // No directory, or none that can be read: what is wrong with it is told by reading it.
            Err(error) if error.failure().is_some() => {
                self.alone(client, limits, &mut collected)?;
                return Ok(collected);
            }
            Err(error) => return Err(error),
        };
        collected.could_not_look(&self.path, &found);
        let (hidden, names): (Vec<_>, Vec<_>) = found.paths.into_iter().partition(|name| is_hidden(&self.path, name));
        collected.pass_over(&self.path, &hidden);
        let paths = self.paths(&names, &mut collected);
        if paths.is_empty() {
            collected.lines.push(format!("No test results were found in {}", self.path));
            collected.lines.push(NOTHING.to_owned());
            return Ok(collected);
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

    /// Those that are read.
    fn paths(&self, names: &[Vec<u8>], collected: &mut Collected) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for name in names {
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
        paths
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
                        NOTHING.to_owned(),
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

/// In a directory whose name begins with a dot: the reports' own directory, or one in it.
fn is_hidden(root: &str, name: &[u8]) -> bool {
    let root = root.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let mut names = name.split(|byte| *byte == b'/');
    // The report's own name.
    names.next_back();
    root.starts_with('.') || names.any(|name| name.starts_with(b"."))
}

impl Collected {
    fn announce(&mut self, paths: &[String]) {
        self.lines.push("Archiving the following test results".to_owned());
        self.lines.extend(paths.iter().take(NAMED).map(|path| format!("  * {path}")));
        if paths.len() > NAMED {
            self.lines.push(format!("  * … and {} more", paths.len() - NAMED));
        }
    }

    fn could_not_look(&mut self, root: &str, found: &Found) {
        for unread in &found.unread {
            self.trouble(&format!("{}/{unread}", root.trim_end_matches('/')), "reports in it are not read");
        }
        if found.more_unread > 0 {
            self.trouble(root, &format!("{} more places in it could not be looked at", found.more_unread));
        }
    }

    /// The original reads nothing in hidden directories.
    fn pass_over(&mut self, root: &str, hidden: &[Vec<u8>]) {
        let Some(first) = hidden.first() else { return };
        let first = format!("{}/{}", root.trim_end_matches('/'), String::from_utf8_lossy(first));
        let others = match hidden.len() - 1 {
            0 => String::new(),
            1 => " and 1 other are".to_owned(),
            more => format!(" and {more} others are"),
        };
        let are = if others.is_empty() { " is" } else { &others };
        let why = format!(
            "{first}{are} ignored, as on the real service: no test results are read in a directory whose name begins with a \
             dot; write them to another"
        );
        self.lines.push(format!("Warning: {why}"));
        self.ignored = Some(format!("test results: {why}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_hidden_by_their_directories_alone() {
        let table = [
            ("/home/u/out", "a.xml", false),
            ("/home/u/out", "deep/.a.xml", false),
            ("/home/u/out", ".a/b.xml", true),
            ("/home/u/out", "deep/.a/er/b.xml", true),
            ("/home/u/.out", "b.xml", true),
            ("/home/u/.out/", "b.xml", true),
            ("/home/.u/out", "b.xml", false),
            ("/", "b.xml", false),
        ];
        for (root, name, wanted) in table {
            assert_eq!(is_hidden(root, name.as_bytes()), wanted, "{root} {name}");
        }
    }
}
