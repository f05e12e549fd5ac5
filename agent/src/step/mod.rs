//! Each step kind to its outcome.
//!
//! - pure: from a `run` step to the process that carries it out ([`Frame`], [`shell`], [`variables`]) and from its end to words
//!   ([`texts`]); workspace layers ([`layers`]), paths ([`paths`]).
//! - [`kinds`]: the steps that the agent carries out itself, functions of a borrowed [`cx::StepCx`].
//! - what those share: output and faults ([`own`]), waiting ([`bounded`]), archives on their way ([`trees`], [`pieces`],
//!   [`manifest`]), what a job is handed ([`handing`]), their trace ([`trace`]), and what is reported of steps ([`voice`]).
//!
//! A task runs its steps in turn and judges what came of them; nothing here knows of a task.

pub mod bounded;
pub mod cached;
pub mod cx;
pub mod handing;
pub mod kinds;
pub mod layers;
pub mod manifest;
pub mod own;
pub mod paths;
pub mod pieces;
pub mod shell;
pub mod texts;
pub mod trace;
pub mod trees;
pub mod variables;
pub mod voice;

use navvy_job::compiled::Run;
use navvy_protocol::supervisor::{Exec, Probe, Terminal};

use shell::{Shell, ShellError};
use variables::Layers;

/// Width of the terminal that steps see.
pub const COLUMNS: u16 = 120;
const ROWS: u16 = 40;

/// What all steps of a task share.
#[derive(Debug, Clone)]
pub struct Frame {
    pub layers: Layers,
    /// The job's `shell`.
    pub shell: Option<String>,
    pub has_bash: bool,
    /// The primary container's image, where it has no shell at all.
    pub shell_less: Option<String>,
    /// Absolute, or starting with `~`.
    pub working_directory: String,
    /// User of the steps; `None` is uid 0.
    pub user: Option<String>,
    pub account: Probe,
    /// What `~` is in paths of the config: what it is to the job's steps.
    pub home: String,
    /// Pipes instead of a terminal.
    pub no_tty: bool,
}

/// A `run` step, ready to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub exec: Exec,
    /// Shown above its output.
    pub header: String,
}

impl Frame {
    /// The process of a `run` step.
    pub fn prepare(&self, run: &Run, id: String) -> Result<Prepared, ShellError> {
        let shell = Shell::resolve(run.shell.as_deref(), self.shell.as_deref(), self.has_bash)?;
        let exec = Exec {
            id,
            argv: shell.argv(&run.command),
            env: self.layers.for_step(&run.environment, !self.no_tty),
            cwd: self.directory(run.working_directory.as_deref()),
            user: self.user.clone(),
            terminal: self.terminal(),
            input: false,
            watch_memory: true,
        };
        Ok(Prepared { exec, header: texts::header(&shell, &run.command) })
    }

    /// A person's shell, or a command of theirs, in the directory and with the variables that the step `run` is given.
    /// What earlier steps put into `$BASH_ENV` counts.
    pub fn person(&self, run: Option<&Run>, command: &[String], terminal: Terminal, id: String) -> Exec {
        let shell = if self.has_bash { "/bin/bash" } else { "/bin/sh" };
        // bash reads $BASH_ENV by itself when it is not interactive, as any shell is here before it becomes another.
        let source = if self.has_bash { "" } else { "[ ! -f \"$BASH_ENV\" ] || . \"$BASH_ENV\"; " };
        let then = if command.is_empty() { format!("exec {shell} -i") } else { "exec \"$@\"".to_owned() };
        let mut argv = vec![shell.to_owned(), "-c".to_owned(), format!("{source}{then}"), shell.to_owned()];
        argv.extend_from_slice(command);
        let own = run.map(|run| run.environment.clone()).unwrap_or_default();
        Exec {
            id,
            argv,
            env: self.layers.for_step(&own, !matches!(terminal, Terminal::Pipes)),
            cwd: self.directory(run.and_then(|run| run.working_directory.as_deref())),
            user: self.user.clone(),
            terminal,
            input: true,
            watch_memory: false,
        }
    }

    /// Where a path of the config is: absolute or below `~` as written, else below the working directory.
    pub fn directory(&self, path: Option<&str>) -> String {
        match path {
            None | Some("" | ".") => self.working_directory.clone(),
            Some(path) if is_anchored(path) => path.to_owned(),
            Some(path) => format!("{}/{path}", self.working_directory.trim_end_matches('/')),
        }
    }

    fn terminal(&self) -> Terminal {
        if self.no_tty { Terminal::Pipes } else { Terminal::Plain { columns: COLUMNS, rows: ROWS } }
    }
}

fn is_anchored(path: &str) -> bool {
    path.starts_with('/') || path == "~" || path.starts_with("~/")
}

/// Expands a leading `~`, and puts a bare relative path below the home, as the original does.
pub fn absolute(path: &str, home: &str) -> String {
    let home = home.trim_end_matches('/');
    match path.strip_prefix('~') {
        Some("") => {
            if home.is_empty() {
                "/".to_owned()
            } else {
                home.to_owned()
            }
        }
        Some(rest) if rest.starts_with('/') => format!("{home}{rest}"),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("{home}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            layers: Layers::default(),
            shell: None,
            has_bash: true,
            shell_less: None,
            working_directory: "/home/circleci/project".into(),
            user: Some("circleci".into()),
            account: Probe {
                name: Some("circleci".into()),
                uid: 3434,
                gid: 3434,
                groups: vec![],
                home: "/home/circleci".into(),
                programs: vec![],
                architecture: "x86_64".into(),
            },
            home: "/home/circleci".into(),
            no_tty: false,
        }
    }

    #[test]
    fn a_run_step_is_its_shell_with_the_command_as_one_argument() {
        let prepared = frame().prepare(&Run::new("echo 'a b'"), "1-1".into()).unwrap();
        assert_eq!(prepared.exec.argv, ["/bin/bash", "-eo", "pipefail", "-c", "echo 'a b'"]);
        assert_eq!(prepared.header, "#!/bin/bash -eo pipefail\necho 'a b'");
        assert_eq!(prepared.exec.cwd, "/home/circleci/project");
    }

    #[test]
    fn a_person_gets_what_the_step_gets() {
        let mut run = Run::new("make");
        run.environment = vec![("A".into(), "b".into())];
        run.working_directory = Some("web".into());
        let shell = frame().person(Some(&run), &[], Terminal::Controlling { columns: 80, rows: 24 }, "p".into());
        assert_eq!(shell.argv[..3], ["/bin/bash", "-c", "exec /bin/bash -i"]);
        assert_eq!((shell.cwd.as_str(), shell.user.as_deref()), ("/home/circleci/project/web", Some("circleci")));
        assert!(shell.env.contains(&("A".into(), "b".into())));
        let command = frame().person(None, &["ls".into(), "a b".into()], Terminal::Pipes, "p".into());
        assert_eq!(command.argv, ["/bin/bash", "-c", "exec \"$@\"", "/bin/bash", "ls", "a b"]);
    }

    #[test]
    fn step_directories_are_below_the_jobs() {
        let frame = frame();
        assert_eq!(frame.directory(Some("web")), "/home/circleci/project/web");
        assert_eq!(frame.directory(Some("/srv")), "/srv");
        assert_eq!(frame.directory(Some("~/x")), "~/x");
        assert_eq!(frame.directory(Some(".")), "/home/circleci/project");
    }

    #[test]
    fn a_tilde_is_the_home_of_the_jobs_user() {
        assert_eq!(absolute("~/project", "/root"), "/root/project");
        assert_eq!(absolute("~", "/"), "/");
        assert_eq!(absolute("~/project", "/"), "/project");
        assert_eq!(absolute("work", "/home/u"), "/home/u/work");
        assert_eq!(absolute("~other/x", "/root"), "/root/~other/x");
    }
}
