//! Git settings: what the host has, and the few of them that go into a job.
//!
//! The copy's config is written from an allow-list, so nothing is in it that nobody thought of: no hooks, helpers,
//! headers, includes, rewritten URLs. Two settings are the copy's own, `core.checkStat=minimal` and
//! `core.trustctime=false`: files get new inodes and change times in the job, but keep size and modification time, and
//! those two make the copied index valid as it is, where git would otherwise read and hash every file again.

use std::path::Path;

use super::{GitError, git, remote};

/// Settings in git's order: later ones win.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<Setting>);

#[derive(Debug)]
struct Setting {
    /// Of this repository (or this worktree of it), includes resolved; not the user's or the system's.
    local: bool,
    /// In lower case, as git gives it.
    section: Vec<u8>,
    subsection: Option<Vec<u8>>,
    /// In lower case.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Settings {
    pub(super) fn read(directory: &Path) -> Result<Self, GitError> {
        let bytes = git::output(directory, &["config", "--list", "-z", "--show-scope"])?;
        Ok(Self::parse(&bytes))
    }

    /// `scope NUL key LF value NUL …`; a key without a value means true.
    fn parse(bytes: &[u8]) -> Self {
        let mut fields = bytes.split(|byte| *byte == 0);
        let mut settings = Vec::new();
        while let (Some(scope), Some(entry)) = (fields.next(), fields.next()) {
            let split = entry.iter().position(|byte| *byte == b'\n');
            let (key, value) = split.map_or((entry, &b"true"[..]), |at| (&entry[..at], &entry[at + 1..]));
            settings.extend(Setting::new(scope == b"local" || scope == b"worktree", key, value));
        }
        Self(settings)
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
}

impl Setting {
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
