//! From an agent's request to something that can be executed, and from a fault back to words.

use std::ffi::CString;
use std::path::Path;

use navvy_protocol::supervisor::{Exec, Failure, FailureKind, Terminal};

use super::keeper::{self, Ends, Fault, Kept, Launch, Stage, Strings};
use crate::users::User;
use crate::{failure, files, sys};

/// Where programs are looked for when the environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a step is set apart from us.
#[derive(Debug, Clone, Copy, Default)]
pub struct Apart<'a> {
    /// What its score is set back to.
    pub oom_score: Option<i32>,
    /// The list of its cgroup's processes.
    pub group: Option<&'a Path>,
}

/// Starts the step. A working directory that is missing is made first.
pub fn start(exec: &Exec, user: &User, ends: &Ends, apart: Apart<'_>) -> Result<Kept, Failure> {
    let directory = home(exec, user).resolve(&exec.cwd);
    let launch = prepare(exec, user, &directory, apart)?;
    match keeper::start(&launch, ends) {
        Err(Fault { stage: Stage::Directory, error }) if error.raw_os_error() == Some(libc::ENOENT) => {
            files::make_directory_now(&directory, user)?;
            keeper::start(&launch, ends)
        }
        other => other,
    }
    .map_err(|fault| explain(&fault, exec, user, &directory))
}

/// The user, at home where its program will be.
fn home(exec: &Exec, user: &User) -> User {
    let said = exec.env.iter().rfind(|(name, value)| name == "HOME" && value.starts_with('/'));
    User { home: said.map_or_else(|| user.home.clone(), |(_, home)| home.clone()), ..user.clone() }
}

fn prepare(exec: &Exec, user: &User, directory: &str, apart: Apart<'_>) -> Result<Launch, Failure> {
    let Some(program) = exec.argv.first().filter(|program| !program.is_empty()) else {
        return Err(failure::invalid("nothing to execute: the argument list is empty"));
    };
    Ok(Launch {
        argv: strings(exec.argv.iter().cloned(), "an argument")?,
        env: strings(environment(exec, user), "an environment variable")?,
        programs: candidates(program, exec)?,
        directory: text(directory, "the working directory")?,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        controlling: matches!(exec.terminal, Terminal::Controlling { .. }),
        oom_score: apart.oom_score.map(|score| text(&score.to_string(), "a number")).transpose()?,
        group: apart.group.map(|path| text(&path.to_string_lossy(), "a path")).transpose()?,
    })
}

fn text(text: &str, what: &str) -> Result<CString, Failure> {
    sys::c_string(text).map_err(|_| failure::invalid(format!("{what} holds a NUL byte")))
}

fn strings(texts: impl Iterator<Item = String>, what: &str) -> Result<Strings, Failure> {
    texts.map(|each| text(&each, what)).collect::<Result<_, _>>().map(Strings::new)
}

fn environment<'a>(exec: &'a Exec, user: &'a User) -> impl Iterator<Item = String> + 'a {
    let has = |name: &str| exec.env.iter().any(|(key, _)| key == name);
    let home = (!has("HOME")).then(|| format!("HOME={}", user.home));
    let name = (!has("USER")).then(|| format!("USER={}", user.shown()));
    exec.env.iter().map(|(key, value)| format!("{key}={value}")).chain(home).chain(name)
}

fn candidates(program: &str, exec: &Exec) -> Result<Vec<CString>, Failure> {
    let path = exec.env.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    on_path(program, path).map(|candidate| text(&candidate, "the program's path")).collect()
}

/// A path stands for itself; a name is below every directory of the path.
fn on_path<'a>(program: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    let itself = program.contains('/').then(|| program.to_owned());
    let directories = if itself.is_some() { "" } else { path };
    let searched = directories.split(':').filter(|directory| !directory.is_empty());
    itself.into_iter().chain(searched.map(move |directory| format!("{directory}/{program}")))
}

/// Where a program is, as a step with this path would find it.
pub fn find_program(program: &str, path: &str) -> Option<String> {
    on_path(program, path).find(|candidate| is_executable(Path::new(candidate)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn explain(fault: &Fault, exec: &Exec, user: &User, directory: &str) -> Failure {
    let why = failure::text(&fault.error);
    let who = user.shown();
    match fault.stage {
        Stage::Process => failure::no_process(&fault.error),
        Stage::Directory => failure::of(&fault.error, format_args!("enter {directory:?} as user {who}")),
        Stage::Program => explain_program(fault, exec, user),
        Stage::Groups | Stage::Group | Stage::User => Failure::new(
            FailureKind::NotPermitted,
            format!("cannot become user {who} (uid {}, gid {}): {why}", user.uid, user.gid),
        ),
        Stage::Session | Stage::Terminal | Stage::Streams => {
            Failure::new(FailureKind::Other, format!("cannot set up the step's streams: {why}"))
        }
    }
}

fn explain_program(fault: &Fault, exec: &Exec, user: &User) -> Failure {
    let program = exec.argv.first().map_or("", String::as_str);
    let who = user.shown();
    let (kind, message) = match fault.error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) if Path::new(program).is_absolute() && Path::new(program).exists() => (
            FailureKind::NotExecutable,
            format!("{program} exists, but what it needs to run (its #! interpreter or dynamic loader) does not"),
        ),
        Some(libc::ENOENT | libc::ENOTDIR) => (
            FailureKind::NoSuchProgram,
            format!(
                "{program} does not exist in this environment; choose a shell that the image has, or another image"
            ),
        ),
        Some(libc::EACCES | libc::EPERM) => (
            FailureKind::NotPermitted,
            format!("user {who} may not execute {program}; check its mode, the mount and the step's user"),
        ),
        Some(libc::ENOEXEC) => (
            FailureKind::NotExecutable,
            format!("{program} is not a program for {}; check the image's architecture", sys::architecture()),
        ),
        Some(libc::E2BIG) => (
            FailureKind::Invalid,
            format!("cannot execute {program}: {}; drop what the step does not need", size_of_environment(exec)),
        ),
        _ => (FailureKind::Other, format!("cannot execute {program} as user {who}: {}", failure::text(&fault.error))),
    };
    Failure::new(kind, message)
}

fn size_of_environment(exec: &Exec) -> String {
    let variables = exec.env.iter().map(|(name, value)| (name.as_str(), name.len() + value.len() + 2));
    let bytes: usize = variables.clone().map(|(_, bytes)| bytes).sum();
    let largest = variables.max_by_key(|(_, bytes)| *bytes);
    let largest = largest.map_or_else(String::new, |(name, bytes)| format!(", the largest being {name} with {bytes}"));
    format!("its {} variables take {bytes} bytes{largest}, more than the kernel hands on", exec.env.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_and_paths_are_not() {
        let all = |program, path| on_path(program, path).collect::<Vec<_>>();
        assert_eq!(all("sh", "/a::/b"), ["/a/sh", "/b/sh"]);
        assert_eq!(all("./sh", "/a:/b"), ["./sh"]);
        assert_eq!(find_program("sh", "/nowhere:/bin").as_deref(), Some("/bin/sh"));
        assert_eq!(find_program("/bin/sh", "").as_deref(), Some("/bin/sh"));
        assert_eq!(find_program("/etc", ""), None);
    }
}
