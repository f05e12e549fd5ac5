//! Git settings, as git lists those of a repository that anybody may have made: what we write of them for git and for a job is a
//! config that git reads, holds what was listed and nothing that makes git do something, and no credentials.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_checkout::{Remote, written};
use navvy_fuzz::Feed;

/// What git may know on this machine. Each is a truth, a number or a word that git compares files by.
const FOR_GIT: &[&str] = &[
    "core.repositoryformatversion",
    "core.bare",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.autocrlf",
    "core.eol",
    "core.checkstat",
    "core.trustctime",
    "core.abbrev",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "extensions.objectformat",
];
/// What a job gets; `*` is a name of somebody's choice.
const FOR_COPY: &[&str] = &[
    "core.repositoryformatversion",
    "core.bare",
    "core.checkstat",
    "core.trustctime",
    "core.untrackedcache",
    "core.autocrlf",
    "core.eol",
    "core.filemode",
    "core.symlinks",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "extensions.objectformat",
    "extensions.partialclone",
    "remote.*.url",
    "remote.*.fetch",
    "remote.*.tagopt",
    "remote.*.promisor",
    "remote.*.partialclonefilter",
    "branch.*.merge",
    "branch.*.remote",
    "submodule.*.active",
    "submodule.*.ignore",
    "submodule.*.url",
    "submodule.active",
];
/// Of any scope; the others only if the repository says so.
const ANYBODYS: [&str; 2] = ["core.autocrlf", "core.eol"];
const KEYS: [&str; 40] = [
    "core.filemode",
    "core.autocrlf",
    "core.eol",
    "core.symlinks",
    "core.abbrev",
    "core.hookspath",
    "core.fsmonitor",
    "core.pager",
    "core.sshcommand",
    "core.worktree",
    "core.excludesfile",
    "core.attributesfile",
    "core.x.filemode",
    "include.path",
    "includeif.gitdir:/.path",
    "alias.st",
    "filter.x.clean",
    "filter.x.process",
    "credential.helper",
    "diff.external",
    "diff.x.textconv",
    "http.https://h/.extraheader",
    "url.https://TOKEN@h/.insteadof",
    "user.email",
    "extensions.objectformat",
    "extensions.partialclone",
    "extensions.worktreeconfig",
    "extensions.refstorage",
    "remote.origin.url",
    "remote.origin.fetch",
    "remote.origin.pushurl",
    "remote.origin.vcs",
    "remote.origin.uploadpack",
    "remote.origin.promisor",
    "branch.main.merge",
    "branch.main.remote",
    "branch.main.rebase",
    "submodule.s.url",
    "submodule.s.update",
    "submodule.active",
];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let is_any = feed.byte() % 4 == 0;
    let listed = if is_any { feed.rest().to_vec() } else { listed(&mut feed) };
    let written = written(&listed);
    let mut entries = entries(&listed);
    // As many lines as are ours and of no setting.
    allowed(&written.for_git, FOR_GIT, 2, &entries);
    entries.retain(|entry| entry.is_local || ANYBODYS.contains(&&*entry.shape()));
    allowed(&written.for_copy, FOR_COPY, 5, &entries);
    if is_any {
        return;
    }
    no_credentials(&written.for_copy);
    no_credentials(&written.for_git);
    if let Some(remote) = written.origin.as_deref().and_then(Remote::parse) {
        no_credentials(remote.url.as_bytes());
        remote.web_url().iter().for_each(|url| no_credentials(url.as_bytes()));
    }
});

/// As `git config --list -z --show-scope` prints them.
fn listed(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut listed = Vec::new();
    while !feed.is_empty() && listed.len() < 4000 {
        let scope = ["local", "worktree", "global", "system", "command"][feed.up_to(4)];
        let shape = feed.byte();
        let key = match shape % 4 {
            0 => KEYS[feed.up_to(KEYS.len() - 1)].as_bytes().to_vec(),
            // A name of somebody's choice.
            1 => [b"remote.", &*piece(feed, 20), b".url"].concat(),
            2 => [b"branch.", &*piece(feed, 20), b".merge"].concat(),
            _ => piece(feed, 30),
        };
        let is_url = [&b"url"[..], b".remote", b".insteadof", b".extraheader"].iter().any(|end| key.ends_with(end));
        let value = match shape >> 2 & 3 {
            0 if is_url => Some(url(feed)),
            1 => Some(b"\"\n[include]\n\tpath = x\n[a \"".to_vec()),
            2 => None,
            _ => Some(piece(feed, 60)),
        };
        // There is no zero in what git has read, and no line's end in a key.
        let clean =
            |bytes: &[u8], ends: &[u8]| bytes.iter().copied().filter(|byte| !ends.contains(byte)).collect::<Vec<_>>();
        listed.extend_from_slice(scope.as_bytes());
        listed.push(0);
        listed.extend(clean(&key, b"\0\n"));
        listed.extend(value.iter().flat_map(|value| [b"\n", clean(value, b"\0").as_slice()].concat()));
        listed.push(0);
    }
    listed
}

/// With no credentials in it.
fn piece(feed: &mut Feed<'_>, most: usize) -> Vec<u8> {
    feed.piece(most).iter().map(|byte| if *byte == b'T' { b't' } else { *byte }).collect()
}

/// A URL with what must not go on wherever people write it.
fn url(feed: &mut Feed<'_>) -> Vec<u8> {
    let shape = feed.byte();
    let pick = |feed: &mut Feed<'_>, from: &[&'static str]| from[feed.up_to(from.len() - 1)];
    let helper = pick(feed, &["", "", "", "hg::", "hg::svn::", "ext::", "a::ext::"]);
    let scheme = pick(feed, &["https", "http", "HTTPS", "git", "ftp", "ssh", "git+ssh", "ssh+git"]);
    let user = match scheme.contains("ssh") {
        true => pick(feed, &["git:TOKEN@", "git:TO@TOKEN@", "git@", ""]),
        false => pick(
            feed,
            &["TOKEN@", "me:TOKEN@", ":TOKEN@", "me:TO@TOKEN@", "me:TO/TOKEN@", "me:x#TOKEN@", "me:x?TOKEN@", ""],
        ),
    };
    let host = pick(feed, &["h", "github.com:8443", "[::1]:80", "[::1]", "é.example"]);
    let path = pick(feed, &["", "/", "/a/b.git", "/@scope/b", "/a:b/c", "/a b"]);
    let query = if shape & 1 == 0 || scheme.contains("ssh") { "" } else { "?private_token=TOKEN" };
    let fragment = if shape & 2 == 0 || scheme.contains("ssh") { "" } else { "#TOKEN" };
    format!("{helper}{scheme}://{user}{host}{path}{query}{fragment}").into_bytes()
}

#[derive(Debug, PartialEq)]
struct Entry {
    is_local: bool,
    section: Vec<u8>,
    subsection: Option<Vec<u8>>,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Entry {
    /// With a star in place of the subsection.
    fn shape(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let star = if self.subsection.is_some() { ".*" } else { "" };
        format!("{}{star}.{}", text(&self.section), text(&self.name))
    }

    fn has_key_of(&self, other: &Self) -> bool {
        (&self.section, &self.subsection, &self.name) == (&other.section, &other.subsection, &other.name)
    }
}

fn entries(listed: &[u8]) -> Vec<Entry> {
    let fields: Vec<&[u8]> = listed.split(|byte| *byte == 0).collect();
    fields.chunks_exact(2).filter_map(|pair| entry(pair[0], pair[1])).collect()
}

fn entry(scope: &[u8], text: &[u8]) -> Option<Entry> {
    let mut halves = text.splitn(2, |byte| *byte == b'\n');
    let parts: Vec<&[u8]> = halves.next()?.split(|byte| *byte == b'.').collect();
    let value = halves.next().unwrap_or(b"true").to_vec();
    let [section, subsection @ .., name] = parts.as_slice() else { return None };
    let subsection = (!subsection.is_empty()).then(|| subsection.join(&b'.'));
    let is_local = matches!(scope, b"local" | b"worktree");
    Some(Entry { is_local, section: section.to_vec(), subsection, name: name.to_vec(), value })
}

/// Every setting of a text is one that is allowed and one that was listed.
fn allowed(text: &[u8], allowed: &[&str], ours: usize, listed: &[Entry]) {
    let Some(settings) = read(text) else { panic!("git cannot read {}", text.escape_ascii()) };
    for (number, setting) in settings.iter().enumerate() {
        assert!(allowed.contains(&&*setting.shape()), "{setting:?} is let through");
        let is_ours = number < ours;
        let is_url = matches!(setting.name.as_slice(), b"url" | b"remote");
        let is_listed =
            listed.iter().any(|entry| setting.has_key_of(entry) && (is_url || setting.value == entry.value));
        assert!(is_ours || is_listed, "{setting:?} was never listed");
    }
}

/// A config file as git's `config.c` reads it; `None` where git ends with an error.
fn read(text: &[u8]) -> Option<Vec<Entry>> {
    let mut file = File { rest: text };
    let (mut section, mut subsection) = (Vec::new(), None);
    let mut settings = Vec::new();
    while let Some(byte) = file.next() {
        match byte {
            b'#' | b';' => while !matches!(file.next(), None | Some(b'\n')) {},
            b'[' => (section, subsection) = file.section()?,
            byte if byte.is_ascii_whitespace() => {}
            byte if byte.is_ascii_alphabetic() => {
                let (name, value) = file.setting(byte)?;
                let (section, subsection) = (section.clone(), subsection.clone());
                settings.push(Entry { is_local: true, section, subsection, name, value });
            }
            _ => return None,
        }
    }
    Some(settings)
}

struct File<'a> {
    rest: &'a [u8],
}

impl File<'_> {
    /// A line may end with a carriage return, too.
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        let skips = *first == b'\r' && rest.first() == Some(&b'\n');
        self.rest = if skips { &rest[1..] } else { rest };
        Some(if skips { b'\n' } else { *first })
    }

    fn section(&mut self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut section = Vec::new();
        loop {
            match self.next()? {
                b']' => return Some((section, None)),
                byte if byte.is_ascii_whitespace() && byte != b'\n' => break,
                byte if byte.is_ascii_alphanumeric() || b"-.".contains(&byte) => {
                    section.push(byte.to_ascii_lowercase())
                }
                _ => return None,
            }
        }
        if self.next()? != b'"' {
            return None;
        }
        let mut subsection = Vec::new();
        loop {
            match self.next()? {
                b'\n' => return None,
                b'"' => break,
                b'\\' => subsection.push(self.next().filter(|byte| *byte != b'\n')?),
                byte => subsection.push(byte),
            }
        }
        (self.next()? == b']').then_some((section, Some(subsection)))
    }

    fn setting(&mut self, first: u8) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut name = vec![first.to_ascii_lowercase()];
        loop {
            match self.next() {
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' => name.push(byte.to_ascii_lowercase()),
                Some(b' ' | b'\t') => {}
                Some(b'=') => break,
                Some(b'\n') | None => return Some((name, b"true".to_vec())),
                Some(_) => return None,
            }
        }
        Some((name, self.value()?))
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        // Blanks at the end count where they were quoted.
        let (mut value, mut length, mut quoted) = (Vec::new(), 0, false);
        loop {
            match self.next() {
                None | Some(b'\n') if quoted => return None,
                None | Some(b'\n') => break,
                Some(b'#' | b';') if !quoted => while !matches!(self.next(), None | Some(b'\n')) {},
                Some(byte) if byte.is_ascii_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(byte);
                    }
                    continue;
                }
                Some(b'"') => quoted = !quoted,
                Some(b'\\') => match self.next()? {
                    b'\n' => {}
                    b'n' => value.push(b'\n'),
                    b't' => value.push(b'\t'),
                    b'b' => value.push(8),
                    byte @ (b'"' | b'\\') => value.push(byte),
                    _ => return None,
                },
                Some(byte) => value.push(byte),
            }
            length = value.len();
        }
        value.truncate(length);
        Some(value)
    }
}

fn no_credentials(text: &[u8]) {
    let told = text.windows(5).any(|window| window == b"TOKEN");
    assert!(!told, "credentials are let through: {}", text.escape_ascii());
}
