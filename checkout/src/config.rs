//! Git settings: what the host has, and the few of them that go into a job.
//!
//! The copy's config is written from an allow-list, so nothing unforeseen is in it: no hooks, helpers,
//! headers, includes, rewritten URLs. Two settings are the copy's own, `core.checkStat=minimal` and
//! `core.trustctime=false`: files get new inodes and change times in the job, but keep size and modification time, and
//! those two make the copied index valid as it is, where git would otherwise read and hash every file again.

use super::git::{GitError, Place};
use super::git_dir::TEXT;
use super::repository::Repository;
use super::{CheckoutError, remote};

/// Settings in git's order: later ones win.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<Setting>);

#[derive(Debug, Clone)]
struct Setting {
    /// Settings of this repository (or this worktree of it), includes resolved; not the user's or the system's.
    local: bool,
    /// In lower case, as git gives it.
    section: Vec<u8>,
    subsection: Option<Vec<u8>>,
    /// In lower case.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Settings {
    /// What the repository's own files say. Other files that they include are not read: they may be anywhere.
    pub(super) fn local(repository: &Repository) -> Result<Self, CheckoutError> {
        let bytes = repository.common_dir.read("config", TEXT)?.unwrap_or_default();
        let settings = Self::of_file(repository, bytes.clone())?;
        if !settings.0.iter().any(|setting| setting.is("extensions", "worktreeconfig") && setting.is_true()) {
            return Ok(settings);
        }
        let own = repository.git_dir.read("config.worktree", TEXT)?.unwrap_or_default();
        Self::of_file(repository, [bytes, b"\n".to_vec(), own].concat())
    }

    /// git reads its own language, and nothing but that text.
    fn of_file(repository: &Repository, text: Vec<u8>) -> Result<Self, CheckoutError> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let place = Place { top: &repository.top, git_dir: None, settings: &[], index: 0 };
        let arguments = ["config", "--file", "-", "--no-includes", "--list", "-z"];
        let bytes = place.output(&arguments, Some(text))?;
        let entries = bytes.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        Ok(Self(entries.filter_map(|entry| Setting::of_entry(true, entry)).collect()))
    }

    /// All that git goes by in this place: the user's and the machine's with it.
    pub(super) fn effective(place: Place<'_>) -> Result<Self, GitError> {
        Ok(Self::parse(&place.output(&["config", "--list", "-z", "--show-scope"], None)?))
    }

    /// `scope NUL key LF value NUL …`; a key without a value means true.
    fn parse(bytes: &[u8]) -> Self {
        let mut fields = bytes.split(|byte| *byte == 0);
        let mut settings = Vec::new();
        while let (Some(scope), Some(entry)) = (fields.next(), fields.next()) {
            settings.extend(Setting::of_entry(scope == b"local" || scope == b"worktree", entry));
        }
        Self(settings)
    }

    /// Those of the user that count in a copy, then the repository's.
    pub(super) fn after(self, user: &Self) -> Self {
        let of_user = user.0.iter().filter(|setting| !setting.local).cloned();
        Self(of_user.chain(self.0).collect())
    }

    /// What switches off the programs that these settings would have run on contents of files.
    pub(super) fn programs_off(&self) -> Vec<(String, String)> {
        let mut off = Vec::new();
        for setting in self.0.iter().filter(|setting| setting.section == b"filter") {
            let name = setting.subsection.as_deref().and_then(|name| std::str::from_utf8(name).ok());
            let Some(name) = name else { continue };
            for (key, value) in [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")] {
                off.push((format!("filter.{name}.{key}"), value.to_owned()));
            }
        }
        off.sort();
        off.dedup();
        off
    }

    /// The last value of a setting without subsection.
    pub(super) fn value(&self, section: &str, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().rfind(|setting| setting.is(section, name) && setting.subsection.is_none());
        found.map(|setting| &setting.value[..])
    }

    /// The URL of `origin`, or of the only remote there is.
    pub(super) fn origin_url(&self) -> Option<String> {
        let mut urls = self.0.iter().filter(|setting| setting.is("remote", "url"));
        let first = urls.clone().next()?;
        let origin = urls.clone().find(|setting| setting.subsection.as_deref() == Some(b"origin"));
        let only = urls.all(|setting| setting.subsection == first.subsection).then_some(first);
        origin.or(only).map(|setting| String::from_utf8_lossy(&setting.value).into_owned())
    }

    /// Objects that are not here would be fetched from a remote when needed.
    pub(super) fn is_partial_clone(&self) -> bool {
        self.0.iter().any(|setting| setting.is("remote", "promisor") || setting.is("extensions", "partialclone"))
    }

    /// The config file of the copy.
    pub(super) fn for_copy(&self) -> Vec<u8> {
        let kept: Vec<_> = self.0.iter().filter_map(|setting| Some((setting, setting.for_copy()?))).collect();
        let extended = kept.iter().any(|(setting, _)| setting.section == b"extensions");
        let mut text = format!(
            "[core]\n\trepositoryformatversion = {}\n\tbare = false\n\tcheckstat = minimal\n\ttrustctime = false\n\
             \tuntrackedcache = false\n",
            u8::from(extended)
        )
        .into_bytes();
        for (setting, value) in kept {
            setting.write(&value, &mut text);
        }
        text
    }

    /// The config file that git gets on this machine: how files are compared, and nothing that could make it do something.
    pub(super) fn for_git(&self, reftable: bool, excludes: Option<&[u8]>) -> Vec<u8> {
        let kept: Vec<_> = self.0.iter().filter(|setting| setting.is_for_git()).collect();
        let extended = reftable || kept.iter().any(|setting| setting.section == b"extensions");
        let version = u8::from(extended);
        let mut text = format!("[core]\n\trepositoryformatversion = {version}\n\tbare = false\n").into_bytes();
        for setting in kept {
            setting.write(&setting.value, &mut text);
        }
        if reftable {
            text.extend(b"[extensions]\n\trefstorage = reftable\n");
        }
        if let Some(excludes) = excludes {
            text.extend(b"[core]\n\texcludesfile = \"");
            text.extend(excludes.iter().flat_map(|byte| escape(*byte, true)));
            text.extend(b"\"\n");
        }
        text
    }
}

impl Setting {
    /// `key LF value`; a key without a value means true.
    fn of_entry(local: bool, entry: &[u8]) -> Option<Self> {
        let split = entry.iter().position(|byte| *byte == b'\n');
        let (key, value) = split.map_or((entry, &b"true"[..]), |at| (&entry[..at], &entry[at + 1..]));
        Self::new(local, key, value)
    }

    fn is_true(&self) -> bool {
        [&b"true"[..], b"yes", b"on", b"1"].iter().any(|word| self.value.eq_ignore_ascii_case(word))
    }

    /// May git know it on this machine?
    fn is_for_git(&self) -> bool {
        let name = std::str::from_utf8(&self.name).unwrap_or_default();
        let section = std::str::from_utf8(&self.section).unwrap_or_default();
        self.subsection.is_none()
            && matches!(
                (section, name),
                (
                    "core",
                    "filemode"
                        | "symlinks"
                        | "ignorecase"
                        | "precomposeunicode"
                        | "autocrlf"
                        | "eol"
                        | "checkstat"
                        | "trustctime"
                        | "abbrev"
                        | "sparsecheckout"
                        | "sparsecheckoutcone"
                ) | ("extensions", "objectformat")
            )
    }

    fn new(local: bool, key: &[u8], value: &[u8]) -> Option<Self> {
        let first = key.iter().position(|byte| *byte == b'.')?;
        let last = key.iter().rposition(|byte| *byte == b'.')?;
        let subsection = (first < last).then(|| key[first + 1..last].to_vec());
        let (section, name) = (key[..first].to_vec(), key[last + 1..].to_vec());
        Some(Self { local, section, subsection, name, value: value.to_vec() })
    }

    fn is(&self, section: &str, name: &str) -> bool {
        self.section == section.as_bytes() && self.name == name.as_bytes()
    }

    /// Its value in the copy; `None` keeps it out.
    fn for_copy(&self) -> Option<Vec<u8>> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap_or_default().to_owned();
        let key = (text(&self.section), self.subsection.is_some(), text(&self.name));
        match (key.0.as_str(), key.1, key.2.as_str()) {
            // How files are compared; the user's own setting counts as well.
            ("core", false, "autocrlf" | "eol") => Some(self.value.clone()),
            _ if !self.local => None,
            ("core", false, "filemode" | "symlinks" | "sparsecheckout" | "sparsecheckoutcone")
            | ("extensions", false, "objectformat" | "partialclone")
            | ("remote", true, "fetch" | "tagopt" | "promisor" | "partialclonefilter")
            | ("branch", true, "merge")
            | ("submodule", true, "active" | "ignore")
            | ("submodule", false, "active") => Some(self.value.clone()),
            ("remote" | "submodule", true, "url") => clean_url(&self.value),
            // Usually a remote's name, but a URL will do for git.
            ("branch", true, "remote") => clean_url(&self.value),
            _ => None,
        }
    }

    fn write(&self, value: &[u8], text: &mut Vec<u8>) {
        text.push(b'[');
        text.extend_from_slice(&self.section);
        if let Some(subsection) = &self.subsection {
            text.extend_from_slice(b" \"");
            text.extend(subsection.iter().flat_map(|byte| escape(*byte, false)));
            text.push(b'"');
        }
        text.extend_from_slice(b"]\n\t");
        text.extend_from_slice(&self.name);
        text.extend_from_slice(b" = \"");
        text.extend(value.iter().flat_map(|byte| escape(*byte, true)));
        text.extend_from_slice(b"\"\n");
    }
}

fn clean_url(value: &[u8]) -> Option<Vec<u8>> {
    match std::str::from_utf8(value) {
        Ok(url) => remote::without_credentials(url).map(String::into_bytes),
        // A local path; a URL with credentials is text.
        Err(_) => (!value.contains(&b'@')).then(|| value.to_vec()),
    }
}

/// Inside double quotes; a subsection knows no escapes but these two, and cannot hold a newline.
fn escape(byte: u8, value: bool) -> Vec<u8> {
    match byte {
        b'"' | b'\\' => vec![b'\\', byte],
        b'\n' if value => b"\\n".to_vec(),
        b'\t' if value => b"\\t".to_vec(),
        _ => vec![byte],
    }
}

/// For fuzzing: the two config files that we make of settings, listed as git lists them, with their scopes.
#[doc(hidden)]
pub fn written(listed: &[u8]) -> Written {
    let settings = Settings::parse(listed);
    Written { for_copy: settings.for_copy(), for_git: settings.for_git(false, None), origin: settings.origin_url() }
}

#[doc(hidden)]
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    pub for_copy: Vec<u8>,
    pub for_git: Vec<u8>,
    pub origin: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str, &str)]) -> Settings {
        let text: String = entries.iter().map(|(scope, key, value)| format!("{scope}\0{key}\n{value}\0")).collect();
        Settings::parse(text.as_bytes())
    }

    #[test]
    fn only_what_is_allowed_goes_into_the_copy() {
        let host = settings(&[
            ("global", "user.email", "me@example.com"),
            ("global", "url.https://TOKEN@github.com/.insteadof", "https://github.com/"),
            ("global", "core.autocrlf", "input"),
            ("local", "core.hookspath", "/TOKEN"),
            ("local", "core.filemode", "true"),
            ("local", "include.path", "TOKEN"),
            ("local", "http.https://github.com/.extraheader", "AUTHORIZATION: basic TOKEN"),
            ("local", "credential.helper", "store --file TOKEN"),
            ("local", "remote.origin.url", "https://x:TOKEN@github.com/acme/shop.git"),
            ("local", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            ("local", "remote.origin.pushurl", "https://TOKEN@github.com/acme/shop.git"),
            ("local", "branch.a \"b\\.merge", "refs/heads/a"),
            ("local", "branch.x.remote", "https://TOKEN@github.com/acme/shop.git"),
        ]);
        insta::assert_snapshot!(String::from_utf8(host.for_copy()).unwrap(), @r#"
        [core]
        	repositoryformatversion = 0
        	bare = false
        	checkstat = minimal
        	trustctime = false
        	untrackedcache = false
        [core]
        	autocrlf = "input"
        [core]
        	filemode = "true"
        [remote "origin"]
        	url = "https://github.com/acme/shop.git"
        [remote "origin"]
        	fetch = "+refs/heads/*:refs/remotes/origin/*"
        [branch "a \"b\\"]
        	merge = "refs/heads/a"
        [branch "x"]
        	remote = "https://github.com/acme/shop.git"
        "#);
    }

    /// git itself says what stands in the files that we write.
    #[test]
    fn git_reads_what_was_written() {
        let values = [
            "",
            " a ",
            "a # b ; c",
            "\"",
            "\\",
            "a\\\nb\n",
            "\ttab\u{8}",
            "\r",
            "a\r\nb",
            "[include]\n\tpath = x",
            "ü",
            "${x}",
        ];
        let names = ["origin", "", "a.b", "a \"b\\", "]", "#", " a ", "\r", "\t", "A"];
        let of_names = names.map(|name| (format!("branch.{name}.merge"), "refs/heads/main".to_owned()));
        let of_values = values.map(|value| ("extensions.objectformat".to_owned(), value.to_owned()));
        let entries: Vec<_> = of_names.into_iter().chain(of_values).collect();
        let listed: String = entries.iter().map(|(key, value)| format!("local\0{key}\n{value}\0")).collect();
        let settings = Settings::parse(listed.as_bytes());
        let place = Place { top: std::path::Path::new("/"), git_dir: None, settings: &[], index: 0 };
        let read = |text: Vec<u8>| {
            let bytes = place.output(&["config", "--file", "-", "--list", "-z"], Some(text)).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let entry = |entry: &str| entry.split_once('\n').map(|(key, value)| (key.to_owned(), value.to_owned()));
            text.split('\0').filter_map(entry).collect::<Vec<_>>()
        };
        // Behind the lines that are ours.
        assert_eq!(read(settings.for_copy())[5..], entries);
        assert_eq!(read(settings.for_git(false, None))[2..], entries[names.len()..]);
    }

    #[test]
    fn origin_is_the_remote_of_that_name_or_the_only_one() {
        let url = |entries: &[(&str, &str, &str)]| settings(entries).origin_url();
        let origin = ("local", "remote.origin.url", "o");
        let upstream = ("local", "remote.upstream.url", "u");
        let fork = ("local", "remote.fork.url", "f");
        assert_eq!(url(&[upstream, origin]).as_deref(), Some("o"));
        assert_eq!(url(&[upstream]).as_deref(), Some("u"));
        assert_eq!(url(&[upstream, fork]), None);
        assert_eq!(url(&[]), None);
    }

    #[test]
    fn extensions_raise_the_format_version() {
        let copy = settings(&[("local", "extensions.objectformat", "sha256")]).for_copy();
        let copy = String::from_utf8(copy).unwrap();
        assert!(copy.contains("repositoryformatversion = 1"), "{copy}");
    }
}
