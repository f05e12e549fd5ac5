//! Images: tiny, missing, foreign, from a registry.

use std::path::Path;

use navvy_tests::{Bench, Finished, IllRegistry, Last, Password, Registry, Trap, everywhere};

use crate::kill::ENGINE;

fn spin_up(done: &Finished) -> String {
    done.step("build", "Spin up environment").trailers.join("\n")
}

/// A config with one job of one step in that executor.
fn one_job(docker: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{docker}]\n    resource_class: small\n    \
         steps: [{{run: {{name: go, command: echo hello}}}}]\nworkflows:\n  ci: {{jobs: [build]}}\n"
    )
}

/// How often a run of this config asks the machine's engine to pull. Whatever the setting is: a trap is before that engine alone.
fn pulls(config: &str) -> usize {
    let bench = Bench::on_this_machine();
    let trap = Trap::before(Path::new(ENGINE), Last::Never);
    let run = bench.config(config).run(&["--docker", &trap.address()]);
    trap.arm(run.pid());
    assert_ne!(run.finish().exit_code, 0);
    trap.requests().iter().filter(|line| line.contains("/images/create")).count()
}

everywhere! {
    fn one_static_program_is_image_enough(bench: Bench) {
        let done = bench.run_config(
            r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static, user: "1234:5678"}]
    resource_class: small
    working_directory: /work/place
    steps:
      - checkout
      - run: {name: who, command: "id -u; id -g; pwd; cat .circleci/config.yml | wc -l"}
      - run: {name: env, command: 'echo "$0 $CI"; circleci version >/dev/null && echo cli'}
workflows:
  ci: {jobs: [build]}
"#,
            &[],
        );
        done.passes();
        let lines = std::fs::read_to_string(bench.project().join(".circleci/config.yml")).expect("it is there");
        let lines = lines.lines().count();
        assert_eq!(done.text("build", "who"), format!("1234\n5678\n/work/place\n{lines}\n"));
        assert!(done.text("build", "env").ends_with("true\ncli\n"), "{}", done.text("build", "env"));
        let header = done.event("a step's start", |event| event.is_start_of("who")).text("header").to_owned();
        assert!(header.starts_with("#!/bin/sh -eo pipefail\n"), "{header}");
    }
}

#[test]
fn an_image_that_cannot_be_had_suggests_one_that_is_here() {
    let bench = Bench::new();
    let image = "registry.invalid/acme/base:2024.01";
    let never = bench.run_config(&one_job(&format!("{{image: {image}}}")), &["--pull", "never"]);
    never.exits_with(1);
    let said = spin_up(&never);
    assert!(said.contains(image) && said.contains("--pull never") && said.contains("--image"), "{said}");
    assert!(said.contains("=navvy/base:bookworm"), "the fitting image is not suggested: {said}");

    let missing = bench.run(&[]).finish();
    assert_ne!(missing.exit_code, 0);
    let said = spin_up(&missing);
    assert!(said.contains(image) && said.contains("--image"), "{said}");
    let asked = pulls(&one_job(&format!("{{image: {image}}}")));
    assert_eq!(asked, 1, "a name that does not resolve was retried");

    let replaced = bench.run(&["--image", "registry.invalid/*=navvy/busybox:static"]).finish();
    replaced.passes();
    let summary = replaced.event("the end", |event| event.is("run_ended"));
    assert!(summary.texts("fidelity").iter().any(|note| note.contains(image)), "{}", summary.summary());
}

#[test]
fn what_the_image_does_not_have_is_named() {
    let bench = Bench::new();
    let user = bench.run_config(&one_job("{image: navvy/base:bookworm, user: nobody-such}"), &[]);
    user.exits_with(1);
    assert!(spin_up(&user).contains("nobody-such"), "{}", spin_up(&user));

    let shell = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    shell: /bin/zsh -e
    steps:
      - run: {name: go, command: echo hello}
      - run: {name: cleanup, when: always, shell: /bin/sh, command: echo cleaned}
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    shell.exits_with(1);
    let said = shell.step("build", "go").trailers.join("\n");
    assert!(said.contains("/bin/zsh") && said.contains("shell"), "{said}");
    assert_eq!(shell.text("build", "cleanup"), "cleaned\n");
}

#[test]
fn an_image_for_another_architecture_is_refused() {
    let bench = Bench::new();
    let docker = bench.docker();
    let image = "navvy-story/foreign:arm64";
    docker.load_as_foreign("navvy/busybox:static", image, "arm64");
    let done = bench.run_config(&one_job(&format!("{{image: {image}}}")), &[]);
    docker.ask(&["image", "rm", image]).succeeded();
    done.exits_with(1);
    let said = spin_up(&done);
    assert!(said.contains("arm64") && said.contains("amd64"), "{said}");
}

#[test]
fn an_image_comes_from_a_registry_without_a_password() {
    let bench = Bench::new();
    let registry = Registry::start(&bench, Password::None);
    let image = registry.offer("navvy/busybox:static", "acme/box:1");
    let done = bench.run_config(&one_job(&format!("{{image: \"{image}\"}}")), &[]);
    let again = bench.run(&["--pull", "always"]).finish();
    let nothing = bench.run_config(&one_job(&format!("{{image: \"{}/acme/none:1\"}}", registry.host())), &[]);
    registry.forget(&image);
    done.passes();
    assert!(done.report("build").contains("sha256:"), "{}", done.report("build"));
    again.passes();
    nothing.exits_with(1);
    assert!(spin_up(&nothing).contains("acme/none:1"), "{}", spin_up(&nothing));
}

#[test]
fn a_password_comes_from_the_config_or_from_the_users_own_file() {
    let bench = Bench::new();
    let registry = Registry::start(&bench, Password::Needed);
    let image = registry.offer("navvy/busybox:static", "acme/secret:1");
    let plain = one_job(&format!("{{image: \"{image}\"}}"));
    let by_auth = one_job(&format!("{{image: \"{image}\", auth: {{username: story, password: $REGISTRY_PASSWORD}}}}"));
    let right = format!("REGISTRY_PASSWORD={}", navvy_tests::Registry::PASSWORD);

    let none = bench.run_config(&plain, &[]);
    none.exits_with(1);
    assert!(spin_up(&none).contains("refused access"), "{}", spin_up(&none));

    let wrong = bench.run_config(&by_auth, &["-e", "REGISTRY_PASSWORD=wrong guess"]);
    wrong.exits_with(1);
    assert!(spin_up(&wrong).contains("refused access"), "{}", spin_up(&wrong));
    assert!(!wrong.account().contains("wrong guess"), "the password is told");

    let good = bench.run_config(&by_auth, &["-e", &right]);
    registry.forget(&image);
    good.passes();

    bench.home_file(".docker/config.json", registry.credentials(Registry::PASSWORD));
    let own = bench.run_config(&plain, &[]);
    registry.forget(&image);
    own.passes();

    // A variable that is not set warns, and the user's own credentials are tried.
    let missing = bench.run_config(&by_auth, &[]);
    registry.forget(&image);
    missing.passes();
    assert!(missing.warnings().contains("REGISTRY_PASSWORD"), "{}", missing.warnings());
}

#[test]
fn an_ill_registry_is_asked_again_and_one_that_is_not_there_is_not() {
    let bench = Bench::new();
    let registry = IllRegistry::start(&bench);
    let done = bench.run_config(&one_job(&format!("{{image: \"{}/acme/box:1\"}}", registry.host())), &[]);
    assert_ne!(done.exit_code, 0);
    assert!(spin_up(&done).contains("503"), "{}", spin_up(&done));
    assert!(registry.asked() >= 4, "asked {} times only", registry.asked());

    let nobody = registry.host();
    drop(registry);
    let done = bench.run_config(&one_job(&format!("{{image: \"{nobody}/acme/box:1\"}}")), &[]);
    assert_ne!(done.exit_code, 0);
    assert!(spin_up(&done).contains("nothing listens"), "{}", spin_up(&done));
    // Nobody is given so low a port meanwhile.
    assert_eq!(pulls(&one_job("{image: \"127.0.0.1:1/acme/box:1\"}")), 1, "a refused connection was tried again");
}
