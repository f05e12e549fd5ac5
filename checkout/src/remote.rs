//! URLs of remotes: credentials taken out, host, owner and name read from them.

/// Where a repository comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// As git has it, without credentials.
    pub url: String,
    /// `None` for a local path.
    pub host: Option<String>,
    /// Everything before the name, `group/subgroup` included; for a local path empty.
    pub owner: String,
    /// Without `.git`.
    pub name: String,
}

/// What a URL's text is, as far as git cares.
enum Form<'a> {
    /// `scheme://authority/path`
    Url {
        scheme: &'a str,
        authority: &'a str,
        path: &'a str,
    },
    /// `[user@]host:path`
    Scp {
        host: &'a str,
        path: &'a str,
    },
    Path(&'a str),
}

impl Remote {
    /// `None` for a URL that may be nothing but a command (`ext::`) or that is empty.
    pub fn parse(url: &str) -> Option<Self> {
        let url = without_credentials(url)?;
        let (host, path) = match form(&url) {
            Form::Url { scheme: "file", path, .. } | Form::Path(path) => (None, path),
            Form::Url { authority, path, .. } => (Some(host_of(authority)), path),
            Form::Scp { host, path } => (Some(host_of(host)), path),
        };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
        let (owner, name) = path.rsplit_once('/').unwrap_or(("", path));
        let owner = if host.is_some() { owner.to_owned() } else { String::new() };
        let (host, name) = (host.map(str::to_owned), name.to_owned());
        Some(Self { url, host, owner, name })
    }

    /// The path on this machine that it names, if it is one.
    pub fn local_path(&self) -> Option<&str> {
        match form(&self.url) {
            Form::Path(path) | Form::Url { scheme: "file", path, .. } => Some(path),
            _ => None,
        }
    }

    /// Is it reached over ssh?
    pub fn is_ssh(&self) -> bool {
        match form(&self.url) {
            Form::Url { scheme, .. } => scheme.contains("ssh"),
            Form::Scp { .. } => true,
            Form::Path(_) => false,
        }
    }

    /// `https://host/owner/name`: how a person opens it.
    pub fn web_url(&self) -> Option<String> {
        if matches!(form(&self.url), Form::Url { scheme: "http" | "https", .. }) {
            let url = self.url.trim_end_matches('/');
            return Some(url.strip_suffix(".git").unwrap_or(url).to_owned());
        }
        let host = self.host.as_deref()?;
        let slash = if self.owner.is_empty() { "" } else { "/" };
        Some(format!("https://{host}/{}{slash}{}", self.owner, self.name))
    }

    /// The hosting's name as pipeline values have it.
    pub fn vcs_type(&self) -> &'static str {
        match self.host.as_deref() {
            Some("bitbucket.org") => "bitbucket",
            Some(host) if host.contains("gitlab") => "gitlab",
            _ => "github",
        }
    }

    /// The short form that slugs begin with.
    pub fn vcs_slug(&self) -> &'static str {
        match self.vcs_type() {
            "bitbucket" => "bb",
            "gitlab" => "gl",
            _ => "gh",
        }
    }
}

/// The URL with nothing secret in it: no password anywhere, no user name but ssh's, no query.
pub(super) fn without_credentials(url: &str) -> Option<String> {
    // Helpers may stand before each other, as many as a config has room for.
    let mut address = url;
    while let Some((helper, rest)) = address.split_once("::").filter(|(helper, _)| is_word(helper)) {
        // `ext::` is a command line; which part of it is secret cannot be known.
        if helper == "ext" {
            return None;
        }
        address = rest;
    }
    let helpers = &url[..url.len() - address.len()];
    match form(address) {
        Form::Path("") => None,
        Form::Path(_) | Form::Scp { .. } | Form::Url { scheme: "file", .. } => Some(url.to_owned()),
        Form::Url { scheme, authority, path } => {
            let (authority, path) = repair(authority, path);
            Some(format!("{helpers}{scheme}://{}{}", clean_authority(scheme, authority), clean_path(scheme, path)))
        }
    }
}

/// `user:pa/ss@host/…` is not a URL, but people write it: if the port is not a number, the host begins after the last `@`.
fn repair<'a>(authority: &'a str, path: &'a str) -> (&'a str, &'a str) {
    let bad_port = host_part(authority)
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit()));
    match path.rsplit_once('@') {
        Some((_, rest)) if bad_port => split_authority(rest),
        _ => (authority, path),
    }
}

fn clean_authority(scheme: &str, authority: &str) -> String {
    let host = host_part(authority);
    let user = authority.strip_suffix(host).and_then(|user| user.strip_suffix('@')).unwrap_or("");
    let user = user.split(':').next().unwrap_or("");
    // ssh needs its user, and its name is not a secret; elsewhere the "user" is often the token itself.
    if scheme.contains("ssh") && !user.is_empty() { format!("{user}@{host}") } else { host.to_owned() }
}

fn clean_path<'a>(scheme: &str, path: &'a str) -> &'a str {
    if scheme.contains("ssh") { path } else { path.split(['?', '#']).next().unwrap_or("") }
}

fn form(url: &str) -> Form<'_> {
    if let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
        let (authority, path) = split_authority(rest);
        return Form::Url { scheme, authority, path };
    }
    match url.split_once(':') {
        // A slash before the colon makes it a path, as in git.
        Some((host, path)) if !host.contains('/') && !host.is_empty() => Form::Scp { host, path },
        _ => Form::Path(url),
    }
}

fn split_authority(rest: &str) -> (&str, &str) {
    rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at))
}

fn host_part(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Host without user and port.
fn host_of(authority: &str) -> &str {
    let host = host_part(authority);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, Option<String>, String, String) {
        let remote = Remote::parse(url).unwrap();
        (remote.url, remote.host, remote.owner, remote.name)
    }

    fn expect(url: &str, clean: &str, host: Option<&str>, owner: &str, name: &str) {
        assert_eq!(parts(url), (clean.into(), host.map(str::to_owned), owner.into(), name.into()), "{url}");
    }

    #[test]
    fn forms_git_knows() {
        let github = Some("github.com");
        expect("git@github.com:acme/shop.git", "git@github.com:acme/shop.git", github, "acme", "shop");
        expect("https://github.com/acme/shop", "https://github.com/acme/shop", github, "acme", "shop");
        expect(
            "ssh://git@github.com:22/acme/shop.git/",
            "ssh://git@github.com:22/acme/shop.git/",
            github,
            "acme",
            "shop",
        );
        expect("https://gitlab.com/a/b/c.git", "https://gitlab.com/a/b/c.git", Some("gitlab.com"), "a/b", "c");
        expect("/srv/git/shop.git", "/srv/git/shop.git", None, "", "shop");
        expect("file:///srv/git/shop", "file:///srv/git/shop", None, "", "shop");
        expect("../shop", "../shop", None, "", "shop");
    }

    #[test]
    fn how_a_person_opens_it() {
        let web = |url: &str| Remote::parse(url).unwrap().web_url();
        assert_eq!(web("git@github.com:acme/shop.git").as_deref(), Some("https://github.com/acme/shop"));
        assert_eq!(web("ssh://git@host:2222/a/b/c").as_deref(), Some("https://host/a/b/c"));
        assert_eq!(web("http://me:x@host:8080/a/b.git/").as_deref(), Some("http://host:8080/a/b"));
        assert_eq!(web("/srv/shop"), None);
    }

    /// As long as a config may be: neither a call within a call for each, nor the rest copied for each.
    #[test]
    fn helpers_may_stand_before_each_other_without_end() {
        let helpers = "hg::".repeat(4 << 20);
        assert_eq!(
            without_credentials(&format!("{helpers}https://me:TOKEN@host/a")),
            Some(format!("{helpers}https://host/a"))
        );
        assert_eq!(without_credentials(&format!("{helpers}ext::sh -c 'TOKEN'")), None);
        assert_eq!(without_credentials(&helpers), None);
    }

    #[test]
    fn credentials_go() {
        let clean = |url: &str| without_credentials(url).unwrap();
        assert_eq!(clean("https://TOKEN@github.com/a/b.git"), "https://github.com/a/b.git");
        assert_eq!(clean("https://me:TOKEN@github.com:8443/a/b"), "https://github.com:8443/a/b");
        assert_eq!(clean("https://me:TO@KEN@github.com/a/b"), "https://github.com/a/b");
        assert_eq!(clean("https://me:TO/KEN@github.com/a/b"), "https://github.com/a/b");
        assert_eq!(clean("https://github.com/a/b?private_token=TOKEN"), "https://github.com/a/b");
        assert_eq!(clean("ssh://git:TOKEN@host/a/b"), "ssh://git@host/a/b");
        assert_eq!(clean("hg::https://me:TOKEN@host/a"), "hg::https://host/a");
        assert_eq!(clean("https://[::1]:8080/@scope/b"), "https://[::1]:8080/@scope/b");
        assert_eq!(without_credentials("ext::sh -c 'TOKEN'"), None);
        assert_eq!(without_credentials(""), None);
    }
}
