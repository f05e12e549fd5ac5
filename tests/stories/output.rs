//! Output: every byte, whatever happens on its way.

use std::time::Duration;

use navvy_tests::{Bench, Docker, Proxy, SmallDisk, eventually, sha256};

/// The agent is never larger, whatever a job writes.
const PEAK_KIB: u64 = 64 << 10;
const CUTS: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Hundreds of MB on a busy machine.
const FLOOD_LIMIT: Duration = Duration::from_secs(180);
/// Where the machine's engine listens.
const SOCKET: &str = "/var/run/docker.sock";

fn floods(bench: &Bench, args: &[&str]) {
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: random, command: 'head -c 20000000 /dev/urandom | tee /tmp/random'}
      - run: {name: digest, command: 'sha256sum < /tmp/random'}
      - run: {name: one line, command: "head -c 200000000 /dev/zero | tr '\\0' x"}
      - run: {name: its digest, command: "head -c 200000000 /dev/zero | tr '\\0' x | sha256sum"}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let done = bench.run_for_people(&[&["--quiet"], args].concat()).finish_within(FLOOD_LIMIT);
    done.passes();
    for (flood, digest) in [("random", "digest"), ("one line", "its digest")] {
        let log = sha256(&done.log("build", flood));
        assert_eq!(done.text("build", digest), format!("{log}  -\n"), "{flood}");
        assert_eq!(done.step("build", flood).sha256, log, "{flood}");
    }
    assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
}

#[test]
fn a_flood_is_kept_to_the_byte_and_the_agent_stays_small() {
    floods(&Bench::new(), &[]);
}

#[test]
fn a_flood_through_pipes_is_kept_to_the_byte() {
    floods(&Bench::new(), &["--no-tty"]);
}

#[test]
fn a_flood_from_a_far_engine_is_kept_to_the_byte() {
    floods(&Bench::of(navvy_tests::Setting::FarEngine), &[]);
}

#[test]
fn a_flood_of_odd_bytes_does_not_swell_the_views() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: random, command: 'head -c 20000000 /dev/urandom | tee /tmp/random'}
      - run: {name: one line, command: "head -c 40000000 /dev/zero | tr '\\0' x"}
      - run: {name: digest, command: 'sha256sum < /tmp/random'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let events = bench.run(&[]).finish_within(FLOOD_LIMIT);
    for done in [events, bench.run_for_people(&["--plain"]).finish_within(FLOOD_LIMIT)] {
        done.passes();
        assert_eq!(done.text("build", "digest"), format!("{}  -\n", sha256(&done.log("build", "random"))));
        assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
        assert!(!done.stdout.contains(&0x1b), "an escape of the job reached the view");
    }
}

#[test]
fn a_supervisor_lost_twenty_times_neither_ends_nor_repeats_the_step() {
    let proxy = Proxy::to(SOCKET.as_ref());
    let bench = Bench::new().on(Docker::default(), &proxy.address());
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: counts
          command: |
            echo begun >> /tmp/starts
            i=0
            until [ -e /tmp/enough ]; do i=$((i + 1)); echo "line $i"; sleep 0.01; done
            echo "$i lines"
      - run: {name: starts, command: wc -l < /tmp/starts}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&[]);
    let task = run.wait_for_output("line 1").task().expect("output is a task's").to_owned();
    for cut in 1..=CUTS {
        let before = run.events().iter().filter(|event| event.is("output")).count();
        // The supervisor's connections every time, and the engine's own now and then. The last output may have come
        // before a cut: then the way is open again a moment later.
        eventually("a connection to cut", LIMIT, || {
            let cuts = if cut % 4 == 0 { proxy.cut() } else { proxy.cut_supervisors() };
            (cuts > 0).then_some(())
        });
        let mut outputs = 0;
        let counted = std::cell::RefCell::new(&mut outputs);
        run.wait_for(&format!("output after cut {cut}"), LIMIT, |event| {
            let mut outputs = counted.borrow_mut();
            **outputs += usize::from(event.is("output"));
            **outputs > before + 3
        });
    }
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/enough"]).succeeded();
    let done = run.finish();
    done.passes();
    assert_eq!(done.text("build", "starts"), "1\n");
    let log = done.text("build", "counts");
    let count = log.lines().count() - 1;
    let expected: String = (1..=count).map(|i| format!("line {i}\n")).collect::<String>() + &format!("{count} lines\n");
    assert!(log == expected, "{count} lines, and not each once and in order");
}

#[test]
fn a_full_disk_is_named_and_what_was_written_is_whole() {
    let bench = Bench::new();
    let disk = SmallDisk::mounted_at(&bench.state(), 16);
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: fits, command: echo small}
      - run: {name: too much, command: 'seq 100000000'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let done = bench.run(&["--disk-floor", "0"]).finish();
    assert!([1, 3].contains(&done.exit_code), "{}", done.account());
    assert_eq!(done.text("build", "fits"), "small\n");
    let said = done.step("build", "too much").trailers.join("\n");
    assert!(said.contains("no space") && said.contains("XDG_STATE_HOME"), "{said}");
    let log = done.text("build", "too much");
    assert!(log.len() > 1 << 20, "only {} bytes", log.len());
    let expected: String = (1..).map(|i| format!("{i}\n")).take(log.lines().count()).collect();
    assert!(expected.starts_with(&log), "what was written is not what the step wrote first");
    assert_eq!(done.step("build", "too much").bytes, log.len() as u64);
    let record =
        std::fs::read_to_string(bench.state().join("navvy/latest/events.jsonl")).expect("a record is readable");
    assert!(record.ends_with('\n') && record.lines().all(|line| navvy_tests::Event::parse(line).is_some()), "{record}");
    // Its seal may have found no room: then its end is unsealed, and nothing is damaged.
    let verified = bench.navvy(&["logs", "--verify"]);
    assert!([0, 4].contains(&verified.exit_code), "{}", verified.account());
    drop(disk);
}
