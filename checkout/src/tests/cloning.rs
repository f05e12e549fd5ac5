//! `--checkout git`, run by the shell it is meant for.

use navvy_job::claim::RunFacts;
use navvy_job::compiled::{Checkout, CheckoutMethod};

use super::*;
use crate::clone_script;

/// A job's working directory and home.
struct Job {
    home: Dir,
    work: Dir,
    run: RunFacts,
    environment: Vec<(&'static str, String)>,
}

impl Job {
    fn of(origin: &Dir) -> Self {
        let job = Self { home: Dir::empty(), work: Dir::empty(), run: RunFacts::default(), environment: vec![] };
        let url = format!("file://{}", origin.path().display());
        job.with("repository", url)
            .with("revision", origin.git(&["rev-parse", "HEAD"]).trim())
            .with("branch", origin.git(&["branch", "--show-current"]).trim())
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let fact = match name {
            "repository" => &mut self.run.repository,
            "revision" => &mut self.run.revision,
            "branch" => &mut self.run.branch,
            "tag" => &mut self.run.tag,
            other => panic!("{other} is not a fact of a run that matters here"),
        };
        *fact = Some(value.into());
        self
    }

    /// Everything it printed; `Err` if it failed.
    fn run(&self, path: Option<&str>, method: CheckoutMethod) -> Result<String, String> {
        let script = clone_script(&Checkout { path: path.map(str::to_owned), method }, &self.run);
        let output = Command::new("/bin/sh")
            .args(["-e", "-c", &script])
            .current_dir(self.work.path())
            .env_clear()
            .env("PATH", format!("{}/bin:/usr/bin:/bin", self.home.path().display()))
            .env("HOME", self.home.path())
            .envs(self.environment.clone())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }
}

#[test]
fn a_clone_then_a_fetch() {
    let origin = Dir::repository();
    for method in [CheckoutMethod::Full, CheckoutMethod::Blobless, CheckoutMethod::Shallow { depth: 1 }] {
        let job = Job::of(&origin);
        let told = job.run(Some("sub dir"), method).unwrap();
        assert!(told.contains("Cloning git repository") && told.contains("HEAD is now at"), "{told}");
        assert_eq!(job.work.read("sub dir/readme"), origin.read("readme"));
        origin.write("readme", format!("{method:?}\n")).commit("more");
        let job = job.with("revision", origin.git(&["rev-parse", "HEAD"]).trim());
        job.work.write("sub dir/readme", "changed in the job\n");
        let told = job.run(Some("sub dir"), method).unwrap();
        assert!(told.contains("Fetching into existing repository"), "{told}");
        assert_eq!(job.work.read("sub dir/readme"), origin.read("readme"));
        let status = git(&job.work.join("sub dir"), &["status", "--porcelain", "--branch"]);
        assert!(status.starts_with("## main") && status.lines().count() == 1, "{status}");
    }
}

#[test]
fn home_paths_tags_and_detached_heads() {
    let origin = Dir::repository();
    origin.git(&["tag", "-a", "-m", "x", "v1"]);
    let job = Job::of(&origin).with("tag", "v1").with("branch", "");
    job.run(Some("~/tagged"), CheckoutMethod::Full).unwrap();
    assert!(git(&job.home.join("tagged"), &["status"]).starts_with("HEAD detached at v1"));
    let job = job.with("tag", "");
    job.run(None, CheckoutMethod::Full).unwrap();
    assert_eq!(job.work.read("readme"), "hello\n");
}

#[test]
fn hostile_names_stay_names() {
    for name in ["$(touch${IFS}pwned)", "`touch${IFS}pwned`", "a'b\"c", "x;touch${IFS}pwned", "a'$(touch${IFS}pwned)'b"]
    {
        let origin = Dir::repository();
        origin.git(&["checkout", "-q", "-b", name]);
        let job = Job::of(&origin);
        job.run(Some(name), CheckoutMethod::Full).unwrap();
        job.run(Some(name), CheckoutMethod::Full).unwrap();
        let clone = job.work.join(name);
        assert_eq!(git(&clone, &["branch", "--show-current"]).trim(), name);
        assert!(!job.work.has("pwned") && !clone.join("pwned").exists() && !job.home.has("pwned"));
    }
}

#[test]
fn what_cannot_be_cloned_says_why() {
    let origin = Dir::repository();
    let fails = |job: Job| job.run(None, CheckoutMethod::Full).unwrap_err();
    let told = fails(Job::of(&origin).with("repository", ""));
    assert!(told.contains("has no remote to clone from"), "{told}");
    let told = fails(Job::of(&origin).with("revision", ""));
    assert!(told.contains("has no commit yet"), "{told}");
    let told = fails(Job::of(&origin).with("repository", "/nowhere/it's"));
    assert!(told.contains("path /nowhere/it's, which this job's environment does not have"), "{told}");
    let told = fails(Job::of(&origin).with("revision", "1".repeat(40)));
    assert!(told.contains("is not at file://") && told.contains("push it"), "{told}");
    let job = Job::of(&origin);
    job.work.write("in the way", "x");
    let told = fails(job);
    assert!(told.contains("is not empty and is not a git repository"), "{told}");
}

#[test]
fn over_ssh_with_a_key_only() {
    let origin = Dir::repository();
    let ssh_url = format!("git@github.com:{}", origin.path().display());
    let told = Job::of(&origin).with("repository", "git@127.0.0.1:acme/shop").run(None, CheckoutMethod::Full);
    assert!(told.unwrap_err().contains("No checkout key: cloning https://127.0.0.1/acme/shop"));

    let mut job = Job::of(&origin).with("repository", ssh_url);
    job.environment = vec![("CHECKOUT_KEY", "private".to_owned()), ("CHECKOUT_KEY_PUBLIC", "public".to_owned())];
    // An ssh that runs the command here, as the far end would.
    let script = "#!/bin/sh\necho \"$*\" >>\"$HOME/called\"\nfor last; do :; done\nexec sh -c \"$last\"\n";
    job.home.write_program("bin/ssh", script);
    let told = job.run(None, CheckoutMethod::Full).unwrap();
    assert!(!told.contains("private"), "{told}");
    assert_eq!(job.work.read("readme"), "hello\n");
    assert_eq!((job.home.read(".ssh/id_rsa"), job.home.mode(".ssh/id_rsa")), ("private\n".to_owned(), 0o600));
    assert_eq!((job.home.mode(".ssh"), job.home.mode(".ssh/known_hosts")), (0o700, 0o600));
    assert!(job.home.read(".ssh/known_hosts").lines().any(|line| line.starts_with("github.com ssh-ed25519 ")));
    assert!(job.home.read("called").contains("/.ssh/id_rsa -o IdentitiesOnly=yes"));
    assert!(job.home.read(".gitconfig").contains("insteadOf = https://github.com"));
}
