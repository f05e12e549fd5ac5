//! `add_ssh_keys`: who gets which key, and that nobody sees it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use navvy_tests::{Bench, everywhere};

/// A key for these tests, made anew; its MD5 fingerprint.
fn key(bench: &Bench, name: &str) -> (PathBuf, String) {
    bench.file(".gitignore", "*.key*\n");
    let file = bench.project().join(format!("{name}.key"));
    let path = file.to_str().expect("a plain path");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", path]).status();
    assert!(made.expect("ssh-keygen is here").success());
    let asked = Command::new("ssh-keygen").args(["-l", "-E", "md5", "-f", path]).output().expect("ssh-keygen is here");
    let said = String::from_utf8(asked.stdout).expect("it is text");
    let md5 = said.split(' ').nth(1).expect("the fingerprint comes second").trim_start_matches("MD5:").to_owned();
    (file, md5)
}

pub fn yaml(steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{{image: navvy/base:bookworm}}]\n    resource_class: small\n    \
         steps:\n{steps}"
    )
}

const LOOK: &str = r#"
      - run:
          name: look
          command: |
            cd ~/.ssh; stat -c '%a %U %n' . * | sed "s/$(id -un)/me/"; cat config
            for key in id_rsa_*; do sha256sum < "$key"; cat "$key"; done
"#;

fn sum(file: &PathBuf) -> String {
    let asked = Command::new("sha256sum").stdin(fs::File::open(file).expect("a key can be read")).output();
    String::from_utf8(asked.expect("sha256sum is here").stdout).expect("it is text").trim().to_owned()
}

#[track_caller]
fn shows_no_line_of(text: &str, file: &PathBuf) {
    let key = fs::read_to_string(file).expect("a key can be read");
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!text.contains(line), "{line} in {text}");
    }
}

everywhere! {
    fn a_job_gets_the_keys_that_were_given(bench: Bench) {
        let ((ours, ours_md5), (git, git_md5)) = (key(&bench, "ours"), key(&bench, "git"));
        let git_word = format!("git.example={}", git.display());
        let steps = format!("      - run: 'mkdir -p ~/.ssh; printf \"Host old\" > ~/.ssh/config'\n      - add_ssh_keys{LOOK}");
        let args = ["--ssh-key", ours.to_str().expect("a plain path"), "--ssh-key", &git_word];
        let done = bench.run_config(&yaml(&steps), &args);
        done.passes();
        let said = done.text("build", "look");
        let (ours_file, git_file) =
            (format!("id_rsa_{}", ours_md5.replace(':', "")), format!("id_rsa_{}", git_md5.replace(':', "")));
        for file in [&ours_file, &git_file] {
            assert!(said.contains(&format!("600 me {file}")), "{said}");
        }
        assert!(said.contains("700 me .\n") && said.contains("600 me config\n"), "{said}");
        assert!(said.contains("Host old\nHost *\n  IdentitiesOnly no\n  IdentityFile /"), "{said}");
        assert!(said.contains("Host git.example\n") && said.contains(&git_file), "{said}");
        assert!(said.contains(&sum(&ours)) && said.contains(&sum(&git)), "{said}");
        shows_no_line_of(&said, &ours);
        shows_no_line_of(&said, &git);
        assert!(done.text("build", "Installing additional ssh keys").contains(&git_md5));
    }
}

#[test]
fn a_job_gets_only_the_keys_that_it_names_and_a_missing_one_is_a_warning() {
    let bench = Bench::new();
    let ((ours, ours_md5), (other, other_md5)) = (key(&bench, "ours"), key(&bench, "other"));
    let steps = format!("      - add_ssh_keys: {{fingerprints: ['{ours_md5}', 'aa:bb']}}{LOOK}");
    let words = [ours.to_str().expect("a plain path"), other.to_str().expect("a plain path")];
    let done = bench.run_config(&yaml(&steps), &["--ssh-key", words[0], "--ssh-key", words[1]]);
    done.passes();
    assert!(done.text("build", "look").contains(&ours_md5.replace(':', "")));
    assert!(!done.text("build", "look").contains(&other_md5.replace(':', "")));
    let warning = done.event("a warning", |event| event.is("warning"));
    assert!(
        warning.text("message").contains("no SSH key with the fingerprint aa:bb is here; give it with"),
        "{warning:?}"
    );
}

#[test]
fn a_retry_installs_the_key_again_and_a_run_without_one_goes_on() {
    let bench = Bench::new();
    let (ours, md5) = key(&bench, "ours");
    let steps = "      - add_ssh_keys\n      - run: {name: check, command: 'grep -c IdentityFile ~/.ssh/config; test -e ~/go'}\n";
    let word = ours.to_str().expect("a plain path");
    bench.config(&yaml(steps)).run(&["--ssh-key", word, "--keep-on-fail"]).that_leaves_things().finish().exits_with(1);
    bench.ask(&["shell", "build", "--", "sh", "-c", "touch ~/go"]).passes();
    let again = bench.start(&["retry", "build", "--from", "1", "--json"]).finish();
    again.passes();
    assert!(again.text("build", "check").contains("1\n"), "{}", again.account());
    assert!(again.text("build", "Installing additional ssh keys").contains(&md5));
    let without = bench.run(&["--job", "build"]).finish();
    without.exits_with(1);
    assert!(without.account().contains("no SSH key is here"), "{}", without.account());
}

#[test]
fn what_is_no_key_is_refused_before_anything_runs() {
    let bench = Bench::new();
    let (ours, _) = key(&bench, "ours");
    bench.config(&yaml("      - add_ssh_keys\n"));
    let public = format!("h={}.pub", ours.display());
    bench.navvy(&["run", "--ssh-key", &public]).exits_with(2).complains(&["--ssh-key", "this is a public key"]);
    bench.navvy(&["run", "--ssh-key", "/nowhere"]).exits_with(2).complains(&["could not read /nowhere"]);
}

#[test]
fn keys_lie_where_the_steps_home_is_and_where_ssh_looks() {
    let bench = Bench::new();
    let (ours, md5) = key(&bench, "ours");
    let steps = r#"      - add_ssh_keys
      - run: {name: look, command: 'ls -1 ~/.ssh "$(getent passwd "$(id -u)" | cut -d: -f6)/.ssh"; cat ~/.ssh/config'}
"#;
    let config = yaml(steps).replace("    resource_class", "    environment: {HOME: /tmp/own}\n    resource_class");
    let done = bench.run_config(&config, &["--ssh-key", ours.to_str().expect("a plain path")]);
    done.passes();
    let (said, file) = (done.text("build", "look"), format!("id_rsa_{}", md5.replace(':', "")));
    let listed = |home: &str| format!("{home}/.ssh:\nconfig\n{file}\n");
    let both = said.contains(&listed("/tmp/own")) && said.contains(&listed("/home/circleci"));
    assert!(both && said.contains(&format!("IdentityFile /tmp/own/.ssh/{file}")), "{said}");
}
