//! Programs that are run to their end.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program to run to its end.
#[derive(Debug)]
pub struct Program {
    command: Command,
    input: Vec<u8>,
    output: Option<Stdio>,
}

/// What came of it.
#[must_use]
#[derive(Debug)]
pub struct Answer {
    pub exit_code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    line: String,
}

impl Program {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: Vec::new(), output: None }
    }

    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sends its standard output there.
    #[must_use]
    pub fn output(mut self, to: impl Into<Stdio>) -> Self {
        self.output = Some(to.into());
        self
    }

    #[track_caller]
    pub fn run(mut self) -> Answer {
        let line = format!("{:?}", self.command);
        let output = self.output.unwrap_or_else(Stdio::piped);
        let spawned = self.command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let input = self.input;
        // A program that does not read all of its input is no failure of the story.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{line}: {error}"));
        writer.join().expect("writing input does not panic");
        Answer {
            exit_code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            line,
        }
    }
}

impl Answer {
    /// Standard output as text, of a program that must have succeeded.
    #[track_caller]
    pub fn text(&self) -> String {
        assert_eq!(self.exit_code, Some(0), "{}: {}{}", self.line, self.stderr, String::from_utf8_lossy(&self.stdout));
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[track_caller]
    pub fn succeeded(&self) {
        self.text();
    }

    /// It ended so, and standard error holds all of these.
    #[track_caller]
    pub fn ends(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.exit_code, Some(code), "{}: {}{}", self.line, self.stderr, self.stdout());
        for part in parts {
            assert!(self.stderr.contains(part), "{}: no {part:?} in: {}", self.line, self.stderr);
        }
        self
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
