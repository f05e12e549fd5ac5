//! Who a step runs as: own reader of `/etc/passwd` and `/etc/group`, since a static binary has no NSS.
//!
//! The files belong to the job: a FIFO, a device, ten gigabytes or one endless line must neither hang nor bloat us.

use std::ffi::CString;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use navvy_protocol::supervisor::{Failure, FailureKind};

use crate::{failure, sys};

/// Far beyond any real file of accounts.
const FILE_CAP: u64 = 4 << 20;
/// A group with thousands of members fits; an endless line does not.
const LINE_CAP: usize = 64 << 10;
/// The kernel's own limit (NGROUPS_MAX).
const GROUPS_CAP: usize = 65536;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: Option<String>,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary ones, the first group excluded.
    pub groups: Vec<u32>,
    pub home: String,
}

impl User {
    /// `~` is the home; a relative path is below it.
    pub fn resolve(&self, path: &str) -> String {
        let home = self.home.trim_end_matches('/');
        match path.strip_prefix('~') {
            Some("") if home.is_empty() => "/".to_owned(),
            Some("") => home.to_owned(),
            Some(rest) if rest.starts_with('/') => format!("{home}{rest}"),
            _ if path.starts_with('/') => path.to_owned(),
            _ if path.is_empty() || path == "." => self.resolve("~"),
            _ => format!("{home}/{path}"),
        }
    }

    pub fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }
}

/// The user of `specification` (an image's `USER`), by the environment's own files.
pub fn look_up(specification: Option<&str>) -> Result<User, Failure> {
    look_up_in(Path::new("/etc"), specification)
}

fn look_up_in(etc: &Path, specification: Option<&str>) -> Result<User, Failure> {
    let specification = specification.filter(|text| !text.is_empty()).unwrap_or("0");
    let (user, group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (specification, None),
    };
    let mut found = find_user(&etc.join("passwd"), if user.is_empty() { "0" } else { user })?;
    let groups = etc.join("group");
    match group {
        Some(group) => found.gid = find_group(&groups, group)?,
        None => found.groups = supplementary(&groups, &found),
    }
    Ok(found)
}

fn find_user(passwd: &Path, wanted: &str) -> Result<User, Failure> {
    let number = wanted.parse::<u32>().ok();
    let mut by_number = None;
    let mut by_name = None;
    let read = each_line(passwd, |line| {
        if let Some(user) = parse_user(line) {
            if user.name.as_deref() == Some(wanted) {
                by_name.get_or_insert(user);
            } else if Some(user.uid) == number {
                by_number.get_or_insert(user);
            }
        }
    });
    if let Some(user) = by_name.or(by_number) {
        return Ok(user);
    }
    match number {
        Some(uid) => Ok(User { name: None, uid, gid: 0, groups: Vec::new(), home: "/".to_owned() }),
        None => Err(no_such_user(passwd, wanted, read)),
    }
}

fn no_such_user(passwd: &Path, wanted: &str, read: io::Result<()>) -> Failure {
    let why = match read {
        Ok(()) => format!("{} has no entry for it", passwd.display()),
        Err(error) => format!("{}: {}", passwd.display(), failure::text(&error)),
    };
    Failure::new(
        FailureKind::NoSuchUser,
        format!("user {wanted:?} does not exist in this environment: {why}. Use a user of the image, or a number"),
    )
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/");
    Some(User { name: Some(name.to_owned()), uid, gid, groups: Vec::new(), home: home.to_owned() })
}

fn find_group(group: &Path, wanted: &str) -> Result<u32, Failure> {
    let number = wanted.parse::<u32>().ok();
    let mut found = None;
    let read = each_line(group, |line| {
        if let Some((name, gid, _)) = parse_group(line)
            && name == wanted
        {
            found.get_or_insert(gid);
        }
    });
    found.or(number).ok_or_else(|| {
        let why = read.err().map_or_else(|| "no entry for it".to_owned(), |error| failure::text(&error));
        Failure::new(
            FailureKind::NoSuchUser,
            format!("group {wanted:?} does not exist in this environment: {}: {why}", group.display()),
        )
    })
}

fn supplementary(group: &Path, user: &User) -> Vec<u32> {
    let mut groups = Vec::new();
    let Some(name) = user.name.as_deref() else { return groups };
    // A file that cannot be read gives no groups; the step then runs with fewer rights, never with more.
    let _ = each_line(group, |line| {
        if let Some((_, gid, members)) = parse_group(line)
            && gid != user.gid
            && groups.len() < GROUPS_CAP
            && members.split(',').any(|member| member == name)
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    });
    groups
}

fn parse_group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("")))
}

/// Calls `line` for every line of a file that may be hostile; lines that are no UTF-8 or too long are passed over.
fn each_line(path: &Path, mut line: impl FnMut(&str)) -> io::Result<()> {
    let path: CString = sys::c_string(path)?;
    let mut reader = BufReader::new(sys::open_regular(&path)?.take(FILE_CAP));
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.by_ref().take(LINE_CAP as u64).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        if bytes.last() != Some(&b'\n') && bytes.len() == LINE_CAP {
            reader.skip_until(b'\n')?;
            continue;
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            line(text.trim_end_matches(['\n', '\r']));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        garbage\n\
        broken:x:nan:0::/:\n\
        circleci:x:3434:3434::/home/circleci:/bin/bash\n\
        3434:x:7:7::/home/number:/bin/sh\n\
        odd:x:12:13:::\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:circleci,odd\ndocker:x:999:odd,circleci\ncirclecix:x:5:circlecix\n";

    fn etc() -> tempfile::TempDir {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("passwd"), PASSWD).unwrap();
        std::fs::write(etc.path().join("group"), GROUP).unwrap();
        etc
    }

    fn user(name: Option<&str>, uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User { name: name.map(str::to_owned), uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn users_as_images_name_them() {
        let etc = etc();
        let table = [
            (None, user(Some("root"), 0, 0, &[], "/root")),
            (Some("circleci"), user(Some("circleci"), 3434, 3434, &[27, 999], "/home/circleci")),
            (Some("circleci:sudo"), user(Some("circleci"), 3434, 27, &[], "/home/circleci")),
            (Some("circleci:77"), user(Some("circleci"), 3434, 77, &[], "/home/circleci")),
            (Some("1000"), user(None, 1000, 0, &[], "/")),
            (Some("1000:1000"), user(None, 1000, 1000, &[], "/")),
            // A name made of digits wins over the number.
            (Some("3434"), user(Some("3434"), 7, 7, &[], "/home/number")),
            (Some("7"), user(Some("3434"), 7, 7, &[], "/home/number")),
            (Some("odd"), user(Some("odd"), 12, 13, &[27, 999], "/")),
        ];
        for (specification, wanted) in table {
            assert_eq!(look_up_in(etc.path(), specification).unwrap(), wanted, "{specification:?}");
        }
    }

    #[test]
    fn unknown_ones_are_named() {
        let etc = etc();
        for unknown in ["nobody-here", "circleci:nobody-here", "-1", "4294967296"] {
            let failure = look_up_in(etc.path(), Some(unknown)).unwrap_err();
            assert_eq!(failure.kind, FailureKind::NoSuchUser, "{unknown}");
        }
    }

    #[test]
    fn hostile_files_neither_hang_nor_bloat() {
        let etc = tempfile::tempdir().unwrap();
        let passwd = etc.path().join("passwd");
        let fifo = sys::c_string(&passwd).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&passwd).status().unwrap();
        assert!(made.success());
        assert!(sys::open_regular(&fifo).is_err());
        assert_eq!(look_up_in(etc.path(), Some("5")).unwrap().home, "/");
        assert!(look_up_in(etc.path(), Some("me")).unwrap_err().message.contains("not a regular file"));

        std::fs::remove_file(&passwd).unwrap();
        let long = [&[b'x'; 3 << 20][..], b"\nme:x:8:9::/home/me:/bin/sh\n"].concat();
        std::fs::write(&passwd, long).unwrap();
        assert_eq!(look_up_in(etc.path(), Some("me")).unwrap().uid, 8);
        std::fs::File::create(&passwd).unwrap().set_len(10 << 30).unwrap();
        assert!(look_up_in(etc.path(), Some("me")).is_err());
    }

    #[test]
    fn paths_are_the_homes() {
        let me = user(None, 1, 1, &[], "/home/me");
        let table = [
            ("~", "/home/me"),
            ("~/project", "/home/me/project"),
            ("project", "/home/me/project"),
            (".", "/home/me"),
            ("/work", "/work"),
            ("~other", "/home/me/~other"),
        ];
        for (path, wanted) in table {
            assert_eq!(me.resolve(path), wanted);
        }
        assert_eq!(user(None, 1, 1, &[], "/").resolve("~"), "/");
        assert_eq!(user(None, 1, 1, &[], "/").resolve("~/x"), "/x");
    }
}
