//! What a key's parts become in a job, as far as that is known without the job: from the working tree, git and this
//! machine.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use navvy_checkout::{GitFacts, history};
use navvy_job::compiled::When;
use navvy_storage::template::{Template, What, arch, shown};
use sha2::{Digest as _, Sha256};

use super::compare::{Piece, Value, merged};
use crate::step::{absolute, paths};

/// Stands for a home that only the job knows.
const HOME: &str = "/~";
/// What every run has anew.
pub const OF_THE_RUN: [&str; 9] = [
    "CIRCLE_BUILD_NUM",
    "CIRCLE_BUILD_URL",
    "CIRCLE_NODE_INDEX",
    "CIRCLE_PIPELINE_ID",
    "CIRCLE_WORKFLOW_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "CIRCLE_WORKFLOW_UPSTREAM_JOB_IDS",
    "CIRCLE_WORKFLOW_WORKSPACE_ID",
    "CIRCLE_CONTINUATION_KEY",
];

/// A step's place in its job.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// As written.
    pub working_directory: String,
    /// Where the checkouts before it put the tree; `None` is the working directory.
    pub checkouts: Vec<Option<String>>,
    /// What templates may ask for by `.Environment`, as far as it does not change from run to run.
    pub variables: BTreeMap<String, String>,
}

/// This machine, and what is checked out.
#[derive(Debug, Clone)]
pub struct Here {
    pub facts: GitFacts,
    /// As `{{ arch }}` says it, or why that is not known.
    pub arch: Result<String, String>,
}

impl Here {
    pub fn new(facts: GitFacts) -> Self {
        let cpuinfo = std::fs::read("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo cannot be read: {error}"));
        let arch = cpuinfo.map(|cpuinfo| arch(std::env::consts::ARCH, &String::from_utf8_lossy(&cpuinfo)));
        Self { facts, arch }
    }

    /// A template's parts and what they become.
    pub fn pieces(&self, template: &Template, site: &Site) -> Vec<Piece> {
        merged(template.asked().map(|what| Piece { what: what.clone(), value: self.value(what, site) }).collect())
    }

    fn value(&self, what: &What, site: &Site) -> Value {
        let unknown = |why: &str| Value::Unknown(why.to_owned());
        match what {
            What::Text(text) => Value::Known(text.clone()),
            What::Epoch => unknown("it is another every second"),
            What::Arch => match &self.arch {
                Ok(arch) => Value::Known(arch.clone()),
                Err(why) => unknown(why),
            },
            What::Field("Branch") => Value::Known(site.variables.get("CIRCLE_BRANCH").cloned().unwrap_or_default()),
            What::Field("Revision") => Value::Known(self.facts.head.clone().unwrap_or_default()),
            What::Field("BuildNum") => unknown("every run numbers its tasks again"),
            What::Field(_) => Value::Known(String::new()),
            What::Environment(name) if OF_THE_RUN.contains(&name.as_str()) => unknown("every run has its own"),
            What::Environment(name) => {
                // As Go prints what a map does not have.
                Value::Known(site.variables.get(name).cloned().unwrap_or_else(|| "<no value>".to_owned()))
            }
            What::Checksum(file) => match self.checksum(site, file) {
                Ok(digest) => Value::Known(shown(&digest)),
                Err(why) => Value::Unknown(why),
            },
        }
    }

    /// SHA-256 of a file as the job would see it, or why that is not known.
    fn checksum(&self, site: &Site, file: &str) -> Result<[u8; 32], String> {
        let path = in_tree(site, file)?;
        let top = &self.facts.top;
        let whole = top.join(&path);
        let real = whole.canonicalize().map_err(|_| absent(&path))?;
        if !top.canonicalize().is_ok_and(|top| real.starts_with(top)) {
            return Err(format!("{path} leads out of the working tree"));
        }
        if !real.is_file() {
            return Err(absent(&path));
        }
        // Where git cannot tell, it would not leave it out either.
        if self.facts.is_repo && history::is_ignored(top, self.facts.elsewhere, &path).unwrap_or(false) {
            return Err(format!("git ignores {path}: a job gets no copy of it"));
        }
        sha256(&real).map_err(|error| format!("{path} cannot be read: {error}"))
    }
}

fn absent(path: &str) -> String {
    format!("{path} is not a file of the working tree; a step of the job may make it")
}

fn sha256(path: &Path) -> std::io::Result<[u8; 32]> {
    let (mut file, mut hasher, mut piece) = (navvy_plain_file::open(path)?, Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// The file's path from the top of what is checked out.
///
/// # Errors
/// Why there is no such file, for a person.
pub fn in_tree(site: &Site, file: &str) -> Result<String, String> {
    if site.checkouts.is_empty() {
        return Err("no checkout comes before this step".to_owned());
    }
    let working = paths::clean(&absolute(&site.working_directory, HOME));
    let place = |path: &str| {
        let is_anchored = path.starts_with('/') || path == "~" || path.starts_with("~/");
        let path = if is_anchored { path.to_owned() } else { format!("{working}/{path}") };
        paths::clean(&absolute(&path, HOME))
    };
    let file_place = place(file);
    let below = |checkout: &Option<String>| {
        let root = checkout.as_deref().map_or_else(|| working.clone(), place);
        let path = file_place.strip_prefix(&format!("{}/", root.trim_end_matches('/')))?;
        (!path.is_empty()).then(|| path.to_owned())
    };
    site.checkouts.iter().rev().find_map(below).ok_or_else(|| format!("{file} is not a file of the checkout"))
}

/// A restore step, or a key by itself.
#[derive(Debug, Clone)]
pub struct Ask {
    pub workflow: String,
    pub job: String,
    /// From 1; 0 for a key by itself.
    pub step: usize,
    pub name: String,
    /// `FILE:LINE`.
    pub place: String,
    pub keys: Vec<String>,
    pub site: Site,
}

/// A `save_cache` step of the config.
#[derive(Debug, Clone)]
pub struct Saver {
    pub job: String,
    pub place: String,
    pub template: String,
    pub when: When,
    pub site: Site,
    /// Why its job does not run.
    pub left: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(working_directory: &str, checkouts: &[Option<&str>]) -> Site {
        Site {
            working_directory: working_directory.to_owned(),
            checkouts: checkouts.iter().map(|path| path.map(str::to_owned)).collect(),
            variables: BTreeMap::from([("CIRCLE_BRANCH".to_owned(), "main".to_owned())]),
        }
    }

    #[test]
    fn a_file_of_the_job_is_one_of_the_checkout_or_not() {
        let found = |site: &Site, file: &str| in_tree(site, file).unwrap_or_else(|why| format!("! {why}"));
        let plain = site("~/project", &[None]);
        for (file, wanted) in [
            ("go.sum", "go.sum"),
            ("./web/../web/yarn.lock", "web/yarn.lock"),
            ("~/project/go.sum", "go.sum"),
            ("/tmp/sums", "! /tmp/sums is not a file of the checkout"),
            ("../go.sum", "! ../go.sum is not a file of the checkout"),
            (".", "! . is not a file of the checkout"),
        ] {
            assert_eq!(found(&plain, file), wanted);
        }
        assert_eq!(found(&site("~/project/web", &[Some("~/project")]), "yarn.lock"), "web/yarn.lock");
        assert_eq!(found(&site("/srv", &[Some("src")]), "src/a"), "a");
        assert_eq!(found(&site("/", &[None]), "/a"), "a");
        assert_eq!(found(&site("~/project", &[]), "a"), "! no checkout comes before this step");
    }

    #[test]
    fn what_can_be_told_is_told_and_the_rest_says_why() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("lock"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", top.path().join("out")).unwrap();
        let facts = GitFacts { top: top.path().to_owned(), head: Some("abc".to_owned()), ..GitFacts::default() };
        let here = Here { facts, arch: Ok("linux-amd64-6_85".to_owned()) };
        let told = |text: &str| {
            let pieces = here.pieces(&Template::parse(text).unwrap(), &site("~/project", &[None]));
            let value = |piece: &Piece| match &piece.value {
                Value::Known(value) => value.clone(),
                Value::Unknown(why) => format!("! {why}"),
            };
            pieces.iter().map(value).collect::<Vec<_>>().join(" ")
        };
        let digest: [u8; 32] = Sha256::digest("x").into();
        assert_eq!(told("{{ checksum \"lock\" }}"), shown(&digest));
        assert_eq!(told("{{ .Branch }}-{{ .Revision }}-{{ arch }}"), "main - abc - linux-amd64-6_85");
        assert_eq!(told("{{ .Environment.NONE }}{{ .CheckoutKey }}"), "<no value> ");
        for (text, why) in [
            ("{{ checksum \"none\" }}", "none is not a file of the working tree"),
            ("{{ checksum \"out\" }}", "leads out of the working tree"),
            ("{{ epoch }}", "every second"),
            ("{{ .BuildNum }}", "numbers its tasks again"),
            ("{{ .Environment.CIRCLE_PIPELINE_ID }}", "its own"),
        ] {
            assert!(told(text).starts_with('!') && told(text).contains(why), "{}", told(text));
        }
    }
}
