//! Variables that a run is given beside its config, and which of their values are secrets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use navvy_job::compiled::Variables;
use navvy_output::mask::public::{is_public, proxy_secrets};

use super::contexts::Contexts;

/// One variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub value: String,
    /// The user gave it as a value that everybody may see.
    pub is_plain: bool,
}

impl Entry {
    /// Secret ones, or plain ones.
    pub fn all(variables: Variables, is_plain: bool) -> Vec<Self> {
        variables.into_iter().map(|(name, value)| Self { name, value, is_plain }).collect()
    }

    fn pair(&self) -> (String, String) {
        (self.name.clone(), self.value.clone())
    }
}

/// By settings, files and flags. Later ones win.
#[derive(Clone, Default)]
pub struct Given {
    /// Below the contexts: settings and `--env-file`, as the project's own variables.
    pub below: Vec<Entry>,
    /// Above them: `-e` and `--var`.
    pub above: Vec<Entry>,
}

impl Given {
    /// Everything that a job with these contexts is given, the later winning.
    pub fn with_contexts(&self, contexts: Variables) -> Variables {
        let (below, above) = (self.below.iter().map(Entry::pair), self.above.iter().map(Entry::pair));
        below.chain(contexts).chain(above).collect()
    }

    /// The values that are looked for, and the names of those that cannot be secrets.
    pub fn sorted(&self, contexts: &Contexts) -> (Variables, Vec<String>) {
        let contexts = Entry::all(contexts.all().cloned().collect(), false);
        let all = || self.below.iter().chain(&contexts).chain(&self.above);
        let (mut secrets, mut public) = (Variables::new(), Vec::new());
        for entry in all().filter(|entry| !entry.is_plain) {
            if !is_public(&entry.name, &entry.value, &may_be_read_by_all) {
                secrets.push(entry.pair());
            } else if !public.contains(&entry.name) {
                public.push(entry.name.clone());
            }
        }
        // A program shows user and password of its proxy one by one, too.
        secrets.extend(secrets_of_proxies(&all().map(Entry::pair).collect::<Variables>()));
        (secrets, public)
    }
}

/// Users and passwords in proxies' addresses, each by its variable's name.
pub fn secrets_of_proxies<'a>(variables: impl IntoIterator<Item = &'a (String, String)>) -> Variables {
    let of = |(name, value): &(String, String)| {
        proxy_secrets(name, value).into_iter().map(|secret| (name.clone(), secret)).collect::<Variables>()
    };
    variables.into_iter().flat_map(of).collect()
}

/// Is this something of this machine that every user may look at?
fn may_be_read_by_all(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else { return false };
    let allows = |path: &Path, bits| path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & bits == bits);
    allows(&real, 0o004) && real.ancestors().skip(1).all(|directory| allows(directory, 0o001))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_file_is_public_that_every_user_may_read() {
        let scratch = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let (closed, open) = (scratch.path().join("closed"), scratch.path().join("open"));
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(&closed).unwrap();
        fs::write(closed.join("key"), "").unwrap();
        fs::set_permissions(closed.join("key"), Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        assert!(may_be_read_by_all(&open));
        assert!(!may_be_read_by_all(&closed.join("key")) && !may_be_read_by_all(&scratch.path().join("none")));
        fs::set_permissions(&open, Permissions::from_mode(0o600)).unwrap();
        assert!(!may_be_read_by_all(&open));
    }

    #[test]
    fn secrets_are_told_from_values_that_cannot_be_ones() {
        let files = [("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), ("KEY", "hunter2")];
        let words = [("https_proxy", "http://me:word@proxy:3128"), ("DEBUG", "true")];
        let plain = [("STAGE", "hunter3"), ("HTTP_PROXY", "http://token@proxy")];
        let above = [Entry::all(variables(&words), false), Entry::all(variables(&plain), true)].concat();
        let given = Given { below: Entry::all(variables(&files), false), above };
        let (secrets, public) = given.sorted(&Contexts::default());
        assert_eq!(public, ["SSL_CERT_FILE", "DEBUG"]);
        let expected = [
            ("KEY", "hunter2"),
            ("https_proxy", "http://me:word@proxy:3128"),
            ("https_proxy", "me:word"),
            ("https_proxy", "word"),
            ("HTTP_PROXY", "token"),
        ];
        assert_eq!(secrets, variables(&expected));
    }

    #[test]
    fn contexts_stand_above_files_and_below_the_command_line() {
        let above =
            [Entry::all(variables(&[("A", "-e")]), false), Entry::all(variables(&[("B", "--var")]), true)].concat();
        let given = Given { below: Entry::all(variables(&[("A", "file")]), false), above };
        let all = given.with_contexts(variables(&[("A", "context")]));
        assert_eq!(all, variables(&[("A", "file"), ("A", "context"), ("A", "-e"), ("B", "--var")]));
    }
}
