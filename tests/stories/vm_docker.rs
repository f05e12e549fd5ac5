//! Docker for jobs: in their machine, and in one of their own beside their containers.

use std::time::Duration;

use navvy_tests::Bench;

/// A Docker engine starts in the emulated machine, too.
const LIMIT: Duration = Duration::from_secs(420);

fn job(setup: &str, steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{{image: navvy/docker:bookworm}}]\n    resource_class: small\n    \
         steps:\n      - {setup}\n{steps}\nworkflows:\n  ci: {{jobs: [build]}}\n"
    )
}

fn step(name: &str, command: &str) -> String {
    format!(
        "      - run:\n          name: {name}\n          command: |\n            {}\n",
        command.replace('\n', "\n            ")
    )
}

/// An image that needs no registry.
const BUILD: &str = "mkdir -p image
echo payload > image/data
printf 'FROM scratch\\nCOPY data /data\\nLABEL one=two\\n' > image/Dockerfile
docker build -t mine image
docker image inspect mine --format '{{.Id}}' | cut -c1-7";

/// A shell and what it is linked with, as an image that needs no registry; then a container of it.
const RUN: &str = "mkdir root
cp -L --parents /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*') root
tar -C root -c . | docker import - small >/dev/null
echo typed | docker run --rm -i small /bin/sh -c 'read line; echo $line in $WHERE; exit 3' || echo ended with $?
docker run --rm -e WHERE='another one' small /bin/sh -c 'echo in $WHERE'
docker ps --all --quiet | wc -l";

#[test]
fn a_job_in_containers_gets_a_docker_engine_of_its_own() {
    let bench = Bench::with_machines();
    let looks = "echo $DOCKER_HOST $DOCKER_TLS_VERIFY; stat -c '%a %U' $DOCKER_CERT_PATH/*.pem; docker version --format '{{.Server.Version}}'";
    let refused = "cd /tmp; if curl -sk https://localhost:2376/_ping; then echo let in; exit 1; fi; echo refused";
    let ssh = "ssh remote-docker 'id -un; hostname'";
    let composes = "printf 'services: {one: {image: mine, command: /data}}' > docker-compose.yml; docker-compose config -q && echo understood";
    let steps = [
        ("looks", looks),
        ("is refused", refused),
        ("builds", BUILD),
        ("runs", RUN),
        ("composes", composes),
        ("logs in", ssh),
    ];
    let steps: String = steps.map(|(name, command)| step(name, command)).concat();
    bench.config(&job("setup_remote_docker", &steps));
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    let looked = done.text("build", "looks");
    let lines: Vec<&str> = looked.lines().collect();
    assert_eq!(lines[0], "tcp://localhost:2376 1");
    assert_eq!(lines[1..4], ["600 circleci"; 3], "{looked}");
    assert!(lines[4].starts_with("20."), "{looked}");
    assert_eq!(done.text("build", "is refused"), "refused\n");
    assert!(done.text("build", "builds").ends_with("sha256:\n"), "{}", done.text("build", "builds"));
    assert_eq!(done.text("build", "runs"), "typed in\nended with 3\nin another one\n0\n");
    assert_eq!(done.text("build", "composes"), "understood\n");
    assert!(done.text("build", "logs in").starts_with("circleci\n"), "{}", done.text("build", "logs in"));
    assert_eq!(bench.left_of(&done.tasks()), Vec::<String>::new());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_version_that_is_not_here_is_refused_with_what_there_is() {
    let bench = Bench::with_machines();
    bench.config(&job("setup_remote_docker: {version: docker99}", &step("never", "true")));
    let done = bench.run(&[]).finish_within(LIMIT);
    done.exits_with(1);
    let told = done.text("build", "Setup a remote Docker engine") + &done.account();
    assert!(
        told.contains("version docker99 of Docker is not here") && told.contains("debian-12-docker has 20."),
        "{told}"
    );
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_machine_job_has_docker_already() {
    let bench = Bench::with_machines();
    // The step waits for the engine, which starts beside the job's first ones.
    let steps = step("asks", "docker version --format '{{.Server.Version}}'");
    bench.config(
        &job("setup_remote_docker", &steps)
            .replace("docker: [{image: navvy/docker:bookworm}]\n    resource_class: small", "machine: true"),
    );
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    assert!(done.text("build", "asks").starts_with("20."), "{}", done.text("build", "asks"));
}

#[test]
fn a_machine_job_s_first_step_may_use_docker() {
    let bench = Bench::with_machines();
    // Its engine may be starting still: then the step waits for it.
    bench.config(
        &job(
            "checkout",
            &step("asks", "docker version --format '{{.Server.Version}}'; stat -c '%a %U %G' /run/docker.sock"),
        )
        .replace("docker: [{image: navvy/docker:bookworm}]\n    resource_class: small", "machine: true")
        .replace("      - checkout\n", ""),
    );
    let done = bench.run(&[]).finish_within(LIMIT);
    done.passes();
    let asked = done.text("build", "asks");
    assert!(asked.starts_with("20.") && asked.ends_with("\n660 root docker\n"), "{asked}");
}

#[test]
fn the_second_job_with_layer_caching_builds_nothing_again() {
    let bench = Bench::with_machines();
    bench.config(&job("setup_remote_docker: {docker_layer_caching: true}", &step("builds", BUILD)));
    let first = bench.run(&[]).finish_within(LIMIT);
    first.passes();
    assert!(!first.text("build", "builds").contains("Using cache"), "{}", first.text("build", "builds"));
    let second = bench.run(&[]).finish_within(LIMIT);
    second.passes();
    assert!(second.text("build", "builds").contains("Using cache"), "{}{}", first.account(), second.account());
    let kept = bench.navvy(&["prune"]).stdout();
    assert!(kept.contains("Kept Docker layers: 1 volumes, 0 of them in use"), "{kept}");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
