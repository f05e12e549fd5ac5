//! Service containers, and the network around a job.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use navvy_tests::{Bench, Finished, Unhindered, eventually, everywhere};

const LIMIT: Duration = Duration::from_secs(60);
/// The agent is never larger, whatever a job writes.
const PEAK_KIB: u64 = 64 << 10;

fn spin_up(done: &Finished, job: &str) -> String {
    done.step(job, "Spin up environment").trailers.join("\n")
}

fn database_answers(bench: &Bench) {
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/base:bookworm
      - image: navvy/postgres:15
        name: db
        environment: {POSTGRES_PASSWORD: secret, POSTGRES_USER: shop, POSTGRES_DB: shop}
    environment: {PGPASSWORD: secret}
    resource_class: small
    steps:
      - run:
          name: waits
          command: until pg_isready -q -h localhost; do sleep 0.1; done
      - run: {name: by localhost, command: 'psql -h localhost -U shop -Atc "create table t (x int); select 6 * 7" shop'}
      - run: {name: by name, command: 'psql -h db -U shop -Atc "insert into t values (1); select count(*) from t" shop'}
      - run: {name: holds, command: 'echo ready to be looked at; until [ -e /tmp/go ]; do sleep 0.1; done'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&[]);
    let looked_at = run.wait_for_output("ready to be looked at");
    let task = looked_at.task().expect("output is a task's").to_owned();
    let volumes = bench.docker().volumes_used_by(&task);
    assert_eq!(volumes.len(), 1, "postgres asks for a volume: {volumes:?}");
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]).succeeded();
    let done = run.finish();
    done.passes();
    assert_eq!(done.text("build", "by localhost"), "CREATE TABLE\n42\n");
    assert_eq!(done.text("build", "by name"), "INSERT 0 1\n1\n");
    assert!(!bench.docker().has_volume(&volumes[0]), "the volume of postgres is still there");
    let log = String::from_utf8_lossy(&done.service_logs("build")[0]).into_owned();
    assert!(log.contains("ready to accept connections"), "{log}");
    assert!(!done.text("build", "waits").contains("ready to accept"));
    done.event("the service's own stream", |event| event.is("output") && event.text("stream") == "service:db");
}

everywhere! {
    fn a_database_answers_by_localhost_and_by_name_and_leaves_no_volume(bench: Bench) {
        database_answers(&bench);
    }
}

#[test]
fn a_primary_may_have_a_main_process_of_its_own_whose_end_fails_the_job() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
executors:
  serves:
    docker: [{image: navvy/busybox:static, command: [/bin/sh, -c, "echo $GREETING > /tmp/main; exec sleep 1000"],
              environment: {GREETING: hello}}]
    resource_class: small
  ends:
    docker: [{image: navvy/busybox:static, entrypoint: [/bin/sh, -c, "until [ -e /tmp/go ]; do sleep 0.1; done; exit 5"]}]
    resource_class: small
jobs:
  good: {executor: serves, steps: [{run: {name: go, command: "until [ -s /tmp/main ]; do sleep 0.1; done; cat /tmp/main"}}]}
  bad:
    executor: ends
    steps: [{run: {name: go, command: touch /tmp/go; sleep 1000}}, {run: {name: after, when: always, command: "true"}}]
workflows:
  ci: {jobs: [good, bad]}
"#,
        &[],
    );
    done.exits_with(1);
    assert_eq!(done.verdict("good"), "passed");
    assert_eq!(done.text("good", "go"), "hello\n");
    assert_eq!(done.verdict("bad"), "failed");
    let told = done.step("bad", "go").trailers.join("\n");
    assert!(told.contains("ended with code 5"), "{}", done.account());
    assert_eq!(done.skipped("bad", "after"), "stopped");
}

#[test]
fn services_that_end_or_flood_do_not_touch_the_job() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
executors:
  with-early-end:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/busybox:static, entrypoint: [/bin/sh, -c], command: ["echo gone at once; exit 3"]}
    resource_class: small
  with-flood:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/busybox:static, name: flood, command: [/usr/bin/yes, "0123456789012345678901234567890123456789"]}
    resource_class: small
jobs:
  ends: {executor: with-early-end, steps: [{run: {name: go, command: "sleep 1; echo untouched"}}]}
  floods: {executor: with-flood, steps: [{run: {name: go, command: "until [ -e /tmp/go ]; do sleep 0.1; done; echo untouched"}}]}
workflows:
  ci: {jobs: [ends, floods]}
"#,
    );
    let run = bench.run_for_people(&["--quiet"]);
    let is_flooded = |task: &Path| fs::metadata(task.join("service-0.log")).is_ok_and(|log| log.len() > 1 << 20);
    let flooded = eventually("a step beside a flood of more than a MiB", LIMIT, || {
        let mut tasks = fs::read_dir(bench.state().join("navvy/latest")).ok()?.flatten().map(|entry| entry.path());
        tasks.find(|task| is_flooded(task) && task.join("001-1.log").exists())
    });
    // A task's directory has its id for a name.
    let primary = format!("navvy-{}-primary", flooded.file_name().expect("it has one").display());
    let since = Unhindered::since_now();
    bench.docker().ask(&["exec", &primary, "touch", "/tmp/go"]).succeeded();
    eventually("the step's word", LIMIT, || {
        fs::read(flooded.join("001-1.log")).is_ok_and(|log| log == b"untouched\n").then_some(())
    });
    assert!(since.elapsed() < Duration::from_secs(6), "the flood held the step up");
    let done = run.finish();
    done.passes();
    assert_eq!(done.service_logs("ends"), [b"gone at once\n"]);
    assert_eq!(done.text("ends", "go"), "untouched\n");
    assert_eq!(done.text("floods", "go"), "untouched\n");
    let flood = &done.service_logs("floods")[0];
    assert!(flood.len() > 1 << 20, "only {} bytes of a flood", flood.len());
    let line = b"0123456789012345678901234567890123456789\n";
    assert!(flood.chunks_exact(line.len()).all(|chunk| chunk == line), "the flood's log is not what it wrote");
    assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
}

#[test]
fn services_that_cannot_be_are_refused_before_they_start() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  clash:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/postgres:15, name: one}
      - {image: navvy/postgres:15, name: two}
    resource_class: small
    steps: [{run: "true"}]
  broken:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/busybox:static, name: broken, entrypoint: [/no/such/program]}
    resource_class: small
    steps: [{run: "true"}]
workflows:
  ci: {jobs: [clash, broken]}
"#,
        &[],
    );
    done.exits_with(1);
    let said = spin_up(&done, "clash");
    for part in ["one", "two", "5432"] {
        assert!(said.contains(part), "{said}");
    }
    let said = spin_up(&done, "broken");
    assert!(said.contains("/no/such/program"), "{said}");
}

#[test]
fn a_job_reaches_neither_another_job_nor_the_clouds_metadata() {
    let (server, client) = (Bench::new(), Bench::new());
    server.config(
        r#"
version: 2.1
jobs:
  serves:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: listens, command: 'echo ready; python3 -m http.server 9999 >/dev/null 2>&1'}
workflows:
  ci: {jobs: [serves]}
"#,
    );
    let serving = server.run(&[]);
    let task = serving.wait_for_output("ready").task().expect("output is a task's").to_owned();
    let format = "{{.NetworkSettings.Networks.navvy.IPAddress}}";
    let ip = server.docker().ask(&["inspect", "--format", format, &format!("navvy-{task}-primary")]).text();
    let address: SocketAddr = format!("{}:9999", ip.trim()).parse().expect("docker tells an address");
    // From the engine's machine it can be reached: so what fails below is the wall between jobs.
    server.network().enter(|| {
        eventually("the server listens", LIMIT, || TcpStream::connect(address).ok());
    });

    let done = client.run_config(
        r#"
version: 2.1
jobs:
  calls:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: neighbour, command: 'nc -z -w 2 "$NEIGHBOUR" 9999 && echo reached || echo walled'}
      - run: {name: metadata, command: 'nc -z -w 2 169.254.169.254 80 && echo reached || echo walled'}
workflows:
  ci: {jobs: [calls]}
"#,
        &["-e", &format!("NEIGHBOUR={}", ip.trim())],
    );
    done.passes();
    assert_eq!(done.text("calls", "neighbour"), "walled\n");
    assert_eq!(done.text("calls", "metadata"), "walled\n");
    // Rules of another machine, or without root's rights, are not ours to make: then the report says so.
    let open = done.report("calls").contains("metadata addresses open");
    let ours_to_make = client.is_near() && !client.is_of_a_user();
    assert_eq!(open, !ours_to_make, "{}", done.report("calls"));
    serving.signal(navvy_tests::Signal::Interrupt);
    serving.finish().exits_with(130);
}
