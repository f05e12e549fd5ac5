//! Output: every byte, whatever happens on its way.

use navvy_tests::{Bench, SmallDisk, sha256};

/// The agent is never larger, whatever a job writes.
const PEAK_KIB: u64 = 64 << 10;

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
    let done = bench.run_for_people(&[&["--quiet"], args].concat()).finish();
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
    for done in [bench.run(&[]).finish(), bench.run_for_people(&["--plain"]).finish()] {
        done.passes();
        assert_eq!(done.text("build", "digest"), format!("{}  -\n", sha256(&done.log("build", "random"))));
        assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
        assert!(!done.stdout.contains(&0x1b), "an escape of the job reached the view");
    }
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
    let done = bench.run(&[]).finish();
    assert!([1, 3].contains(&done.exit_code), "{}", done.account());
    assert_eq!(done.text("build", "fits"), "small\n");
    let said = done.step("build", "too much").trailers.join("\n");
    assert!(said.contains("no space") && said.contains("XDG_STATE_HOME"), "{said}");
    let log = done.text("build", "too much");
    assert!(log.len() > 1 << 20, "only {} bytes", log.len());
    let expected: String = (1..).map(|i| format!("{i}\n")).take(log.lines().count()).collect();
    assert!(expected.starts_with(&log), "what was written is not what the step wrote first");
    drop(disk);
}
