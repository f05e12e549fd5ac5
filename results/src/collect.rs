//! A step's reports, out of the job's environment.

use std::io::Read;
use std::time::Duration;

use navvy_environment::supervisor::{Client, ClientError, Found};
use navvy_job::chain::chain;

use super::Case;
use super::junit::{Broken, Limits, parse};
use super::summary::{self, without_line_ends};

/// Reports of one step. Those of the largest Java projects are a tenth of it.
const MOST_FILES: usize = 50_000;
/// Reports that are named one by one, above what they hold.
const NAMED: usize = 50;
/// The original's words.
const NOTHING: &str = "Found no path with test results, skipping";

/// A report that is cut off is looked at again after this: `bats`, for one, writes it in the background.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// One that grows is looked at again and again, but no more often than this.
const LOOKS: usize = 30;

/// What the files of a step hold.
#[derive(Debug, Default)]
pub struct Collected {
    /// What the reports hold, file by file.
    pub cases: Vec<Case>,
    /// Lines of the step.
    pub lines: Vec<String>,
    /// What the run's summary should not be silent about.
    pub warnings: Vec<String>,
    /// Reports that are passed over, as the original does.
    pub ignored: Option<String>,
    /// Files that were found, readable or not.
    pub files: usize,
}

/// Which files, and as whom they are read.
#[derive(Debug, Clone)]
pub struct Reports {
    /// Absolute: a directory or a file.
    pub path: String,
    /// As whom they are read: `None` is uid 0.
    pub user: Option<String>,
}

impl Reports {
    /// Finds and reads them. What is wrong with a report is a line of the step, not an error.
    ///
    /// # Errors
    /// The connection's: then nothing is known.
    pub fn collect(&self, client: &Client, limits: Limits) -> Result<Collected, ClientError> {
        let mut collected = Collected::default();
        let found = match client.glob(&self.path, &["**/*.[xX][mM][lL]"], self.user.clone()) {
            Ok(found) => found,
            // Not a directory, or not a readable one: reading it says what is wrong.
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
        let look = |path: &String, cases: &mut Vec<Case>| self.look(client, path, limits, cases);
        for (path, failure) in read_all(paths, &mut collected, look, || std::thread::sleep(SECOND_LOOK))? {
            collected.trouble(&path, &failure);
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
        let look = |path: &String, cases: &mut Vec<Case>| self.look(client, path, limits, cases);
        let paths = vec![self.path.clone()];
        match read_all(paths, collected, look, || std::thread::sleep(SECOND_LOOK))?.pop() {
            None => collected.sum_up(),
            Some((_, failure)) => {
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

    fn look(&self, client: &Client, path: &str, limits: Limits, cases: &mut Vec<Case>) -> Result<Look, ClientError> {
        let mut size = 0;
        let read = client.read_as_stream(path, self.user.clone(), |source| {
            parse(Counted { source, size: &mut size }, limits, cases)
        });
        match read {
            Ok(Ok(())) => Ok(Look::Whole),
            Ok(Err(broken)) => Ok(Look::Broken { broken, size }),
            Err(error) if error.failure().is_some() => Ok(Look::Unreadable(chain(&error))),
            Err(error) => Err(error),
        }
    }
}

/// What came of reading a file.
enum Look {
    Whole,
    /// After so many bytes.
    Broken {
        broken: Broken,
        size: u64,
    },
    /// What the supervisor said.
    Unreadable(String),
}

/// A report that was cut off when it was last looked at.
struct Growing {
    path: String,
    broken: Broken,
    size: u64,
    /// What it held.
    cases: Vec<Case>,
}

/// Adds what the files hold. One that is cut off has another look, after a pause that all of them share, and further ones for
/// as long as it grows. Returns what could not be read, and why.
fn read_all<E>(
    paths: Vec<String>,
    collected: &mut Collected,
    mut look: impl FnMut(&String, &mut Vec<Case>) -> Result<Look, E>,
    mut pause: impl FnMut(),
) -> Result<Vec<(String, String)>, E> {
    let (mut unreadable, mut growing) = (Vec::new(), Vec::new());
    for path in paths {
        let known = collected.cases.len();
        match look(&path, &mut collected.cases)? {
            Look::Whole => collected.files += 1,
            Look::Broken { broken, size } if broken.is_cut_off => {
                let cases = collected.cases.split_off(known);
                growing.push(Growing { path, broken, size, cases });
            }
            Look::Broken { broken, .. } => collected.broken(&path, &broken),
            Look::Unreadable(why) => unreadable.push((path, why)),
        }
    }
    for nth in 1..=LOOKS {
        if growing.is_empty() {
            break;
        }
        pause();
        for was in std::mem::take(&mut growing) {
            let mut cases = Vec::new();
            match look(&was.path, &mut cases)? {
                Look::Whole => collected.take(cases),
                Look::Broken { broken, size } if broken.is_cut_off && size != was.size && nth < LOOKS => {
                    growing.push(Growing { path: was.path, broken, size, cases });
                }
                Look::Broken { broken, .. } => {
                    collected.cases.append(&mut cases);
                    collected.broken(&was.path, &broken);
                }
                // It is gone: what was seen of it counts.
                Look::Unreadable(_) => {
                    collected.cases.extend(was.cases);
                    collected.broken(&was.path, &was.broken);
                }
            }
        }
    }
    Ok(unreadable)
}

/// Counts what is read.
struct Counted<'a> {
    source: &'a mut dyn Read,
    size: &'a mut u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        *self.size += count as u64;
        Ok(count)
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
        self.lines.extend(paths.iter().take(NAMED).map(|path| without_line_ends(&format!("  * {path}"))));
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
        let why = without_line_ends(&format!(
            "{first}{are} ignored, as on the real service: no test results are read in a directory whose name begins with a \
             dot; write them to another"
        ));
        self.lines.push(format!("Warning: {why}"));
        self.ignored = Some(format!("test results: {why}"));
    }

    /// A file whose cases are these.
    fn take(&mut self, mut cases: Vec<Case>) {
        self.files += 1;
        self.cases.append(&mut cases);
    }

    /// A file whose cases are known as far as they go.
    fn broken(&mut self, path: &str, broken: &Broken) {
        self.files += 1;
        self.trouble(&format!("{path}:{}", broken.line), &broken.why);
    }

    fn trouble(&mut self, place: &str, why: &str) {
        let line = without_line_ends(&format!("{place}: {why}"));
        self.lines.push(format!("Warning: {line}"));
        self.warnings.push(format!("test results: {line}"));
    }

    fn sum_up(&mut self) {
        self.lines.extend(summary::lines(&self.cases));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

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

    /// Files with what they hold at each look; the last stays.
    fn collect(files: &[(&str, &[&str])]) -> (Collected, usize) {
        let files: BTreeMap<&str, &[&str]> = files.iter().copied().collect();
        let mut looks: BTreeMap<String, usize> = BTreeMap::new();
        let mut collected = Collected::default();
        let mut pauses = 0;
        let look = |path: &String, cases: &mut Vec<Case>| {
            let nth = looks.entry(path.clone()).or_default();
            let contents = files[path.as_str()];
            let text = contents[(*nth).min(contents.len() - 1)];
            *nth += 1;
            Ok::<_, Infallible>(match parse(text.as_bytes(), Limits::default(), cases) {
                Ok(()) => Look::Whole,
                Err(broken) => Look::Broken { broken, size: text.len() as u64 },
            })
        };
        let paths = files.keys().map(|path| (*path).to_owned()).collect();
        let Ok(unreadable) = read_all(paths, &mut collected, look, || pauses += 1);
        assert!(unreadable.is_empty());
        (collected, pauses)
    }

    /// A job names its files as it likes: a name begins no line of the step's own.
    #[test]
    fn a_name_with_a_line_end_is_a_line_all_the_same() {
        let mut collected = Collected::default();
        let name = "out/a\n9 tests in 1s: 9 passed\r.xml";
        collected.announce(&[name.to_owned()]);
        collected.trouble(name, "why");
        collected.pass_over("/out", &[".a\u{85}\nb/c.xml".as_bytes().to_vec()]);
        assert_eq!(collected.lines[1], "  * out/a 9 tests in 1s: 9 passed .xml");
        assert_eq!(collected.lines[2], "Warning: out/a 9 tests in 1s: 9 passed .xml: why");
        let is_line = |line: &String| !line.contains(['\n', '\r', '\u{85}']);
        let told = collected.warnings.iter().chain(&collected.ignored);
        assert!(collected.lines.iter().chain(told).all(is_line), "{collected:?}");
    }

    const WHOLE: &str = "<testsuite><testcase name='a'/><testcase name='b'/></testsuite>";
    const HALF: &str = "<testsuite><testcase name='a'/><testc";

    #[test]
    fn a_report_that_is_still_being_written_is_looked_at_again() {
        let (collected, pauses) = collect(&[("bats.xml", &["", HALF, WHOLE]), ("other.xml", &[WHOLE])]);
        assert_eq!((collected.cases.len(), collected.files, pauses), (4, 2, 2));
        assert!(collected.warnings.is_empty(), "{:?}", collected.warnings);
    }

    #[test]
    fn one_that_grows_no_more_is_told_once_and_what_it_holds_counts() {
        let (collected, pauses) = collect(&[("cut.xml", &[HALF]), ("empty.xml", &[""])]);
        assert_eq!((collected.cases.len(), collected.files, pauses), (1, 2, 1));
        assert_eq!(collected.warnings.len(), 2, "{:?}", collected.warnings);
    }

    #[test]
    fn one_that_is_wrong_is_waited_for_by_nobody() {
        let (collected, pauses) = collect(&[("wrong.xml", &["<testsuite></testcase>", WHOLE])]);
        assert_eq!((collected.files, collected.warnings.len(), pauses), (1, 1, 0));
    }
}
