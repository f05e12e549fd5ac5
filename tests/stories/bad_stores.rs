//! Stores on bad days, as a whole run meets them: what fails once is done all the same; what stays bad is said, and nothing
//! of it is left.

use std::collections::HashMap;

use navvy_tests::{Asked, Bench, Fate, Gate, ObjectStore, SmallDisk};

use crate::halfway::look::Store;
use crate::halfway::{SMALL_FILES, makes_files};

/// Where nothing is, a shell leaves the `*` as it is.
const CHECKS: &str = "cd DIR; for f in *; do [ -e $f ] || continue; test $f = $(sha256sum < $f | cut -c1-64) || echo $f is \
                      broken; done; ls -A | wc -l";

/// A config of these jobs on the smallest image, all of them in one workflow.
fn config(jobs: &[(&str, &str, &str)]) -> String {
    let job = |(name, _, steps): &(&str, &str, &str)| {
        let steps = steps.replace("MAKES", &makes_files()).replace("CHECKS", &CHECKS.replace("DIR", "/kept"));
        format!(
            "  {name}:\n    docker: [{{image: navvy/busybox:static}}]\n    resource_class: small\n    steps:\n{steps}"
        )
    };
    let named = |(name, requires, _): &(&str, &str, &str)| format!("{name}: {{requires: [{requires}]}}");
    let all: String = jobs.iter().map(job).collect();
    let names: Vec<String> = jobs.iter().map(named).collect();
    format!("version: 2.1\njobs:\n{all}workflows:\n  ci: {{jobs: [{{{}}}]}}\n", names.join("}, {"))
}

const BUILD: &str = "      - restore_cache: {name: restore, key: k}
      - run: {name: look, command: 'if [ -d /kept ]; then CHECKS; else MAKES; fi'}
      - save_cache: {name: save, key: k, paths: [/kept]}
      - run: {name: results, command: 'mkdir /results; echo \"<testsuite><testcase name=\\\"t\\\"/></testsuite>\" > /results/r.xml'}
      - persist_to_workspace: {name: persist, root: /results, paths: [.]}
      - store_artifacts: {name: artifacts, path: /results}
      - store_test_results: {name: tests, path: /results}
";
const USE: &str = "      - attach_workspace: {name: attach, at: /ws}
      - run: {name: look, command: ls /ws}
";

/// The first request for each purpose meets one of these, in turn, all others pass.
fn each_once(fates: Vec<Fate>) -> impl FnMut(&Asked) -> Fate + Send + 'static {
    let mut seen: HashMap<String, usize> = HashMap::new();
    move |asked| {
        let nth = seen.len();
        let times = seen.entry(asked.purpose()).or_default();
        *times += 1;
        if *times == 1 { fates[nth % fates.len()].clone() } else { Fate::Pass }
    }
}

#[test]
fn a_run_does_all_that_a_store_fails_to_do_once() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    let bench = server.used_through(&gate, Bench::new());
    bench.config(&config(&[("build", "", BUILD), ("use", "build", USE)]));
    let status = |status| Fate::Answer(status, String::new());
    let fates =
        [status(500), Fate::RequestEnds(100), status(503), Fate::AnswerEnds(0), status(429), Fate::AnswerEnds(40)];
    for (turn, restored) in [(0, ""), (1, "25\n"), (2, "25\n")] {
        let mut fates = fates.to_vec();
        fates.rotate_left(turn);
        gate.rule(each_once(fates));
        let done = bench.run(&[]).finish();
        done.passes();
        let asked = gate.asked();
        assert_eq!(done.text("build", "look"), restored);
        assert_eq!(done.text("use", "look"), "r.xml\n");
        let save = done.text("build", "save");
        assert!(save.contains(if turn == 0 { "Stored Cache to k" } else { "cache already exists" }), "{save}");
        assert!(asked.len() > 40, "{} requests", asked.len());
        gate.rule(|_| Fate::Pass);
        let entries = Store::Server(&server).only_whole_entries(&format!("turn {turn}"));
        assert!(!entries.iter().any(|entry| entry.kind == "layer"));
    }
    assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().contains("results/r.xml\n"));
}

/// The first request that fits meets this fate, all others pass.
fn once(fits: fn(&Asked) -> bool, fate: &Fate) -> impl FnMut(&Asked) -> Option<Fate> + Send + 'static {
    let mut fate = Some(fate.clone());
    move |asked| if fits(asked) { fate.take() } else { None }
}

fn is_part(asked: &Asked) -> bool {
    asked.is("PUT", "partNumber=1&")
}

fn is_read(asked: &Asked) -> bool {
    asked.is("GET", "/v1/body/")
}

const SAVES: &str = "      - run: 'MAKES'
      - save_cache: {name: save, key: another, paths: [/kept]}
      - run: {name: after, command: echo went on}
";
const READS: &str = "      - restore_cache: {name: restore, key: k}
      - run: {name: look, command: 'if [ -d /kept ]; then CHECKS; else echo nothing; fi'}
";

/// A bench with one cache, `k`, in a real store.
fn saved(server: &ObjectStore, gate: &Gate) -> Bench {
    let bench = server.used_through(gate, Bench::new());
    bench.run_config(&config(&[("saves", "", &SAVES.replace("another", "k"))]), &[]).passes();
    bench.config(&config(&[("saves", "", SAVES), ("reads", "", READS)]));
    bench
}

#[test]
fn ten_kilobytes_a_second_either_way_are_a_stall_and_another_connection_is_as_good() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    let bench = saved(&server, &gate);
    let mut takes = once(is_part, &Fate::RequestTrickles(10_000));
    let mut gives = once(is_read, &Fate::AnswerTrickles(10_000));
    gate.rule(move |asked| takes(asked).or_else(|| gives(asked)).unwrap_or(Fate::Pass));
    let done = bench.run(&[]).finish();
    done.passes();
    let asked = gate.asked();
    assert_eq!(asked.iter().filter(|asked| is_part(asked)).count(), 2);
    assert_eq!(asked.iter().filter(|asked| is_read(asked)).count(), 5, "four parts, one twice");
    assert!(done.text("saves", "save").contains("Stored Cache to another"));
    assert_eq!(done.text("reads", "look"), format!("{}\n", SMALL_FILES + 1));
    Store::Server(&server).only_whole_entries("slow");
}

#[test]
fn a_store_that_stays_bad_is_told_and_the_job_goes_on() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    let bench = saved(&server, &gate);
    let before = Store::Server(&server).look();
    gate.rule(|asked| match asked {
        asked if is_part(asked) => Fate::Answer(503, String::new()),
        asked if is_read(asked) => Fate::AnswerEnds(40),
        _ => Fate::Pass,
    });
    let done = bench.run(&[]).finish_within(std::time::Duration::from_secs(150));
    done.passes();
    let why = |job: &str, name: &str| {
        let step = done.step(job, name);
        assert_eq!(step.outcome, "error", "{job}");
        step.trailers.join("\n")
    };
    let (saving, reading) = (why("saves", "save"), why("reads", "restore"));
    assert!(saving.contains("s3://navvy/of-a-story") && saving.contains("503"), "{saving}");
    assert!(reading.contains("s3://navvy/of-a-story: failed to read"), "{reading}");
    assert_eq!(done.text("saves", "after"), "went on\n");
    assert_eq!(done.text("reads", "look"), "nothing\n");
    assert!(done.warnings().contains("the job goes on"), "{}", done.warnings());
    // What is there already cannot be damaged by an answer that breaks off.
    assert_eq!(Store::Server(&server).look(), before);
}

const SKEWED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>RequestTimeTooSkewed</Code><Message>The difference \
                      between the request time and the current time is too large.</Message><RequestTime>20261121T120000Z\
                      </RequestTime><ServerTime>2026-11-20T12:00:00Z</ServerTime><MaxAllowedSkewMilliseconds>900000\
                      </MaxAllowedSkewMilliseconds><RequestId>1</RequestId></Error>";

#[test]
fn a_store_whose_clock_is_another_says_so() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    gate.rule(|_| Fate::Answer(403, SKEWED.to_owned()));
    let bench = server.used_through(&gate, Bench::new());
    let done = bench.run_config(&config(&[("build", "", &format!("{READS}{SAVES}{STORES}"))]), &[]);
    done.exits_with(1);
    for name in ["restore", "save", "artifacts"] {
        let step = done.step("build", name);
        assert_eq!(step.outcome, "error", "{name}");
        let why = step.trailers.join("\n");
        let wanted = "store s3://navvy/of-a-story refuses requests because its clock and this machine's differ: it is \
                      2026-11-20T12:00:00Z there and 20261121T120000Z here. Set this machine's clock, or the store's";
        assert!(why.contains(wanted), "{name}: {why}");
    }
    // To ask again would change nothing.
    let asked = gate.asked();
    assert!(asked.len() <= 4, "{asked:#?}");
    bench.ask(&["prune"]).exits_with(3).complains(&["its clock and this machine's differ"]);
}

const STORES: &str = "      - store_artifacts: {name: artifacts, path: /kept}
";

#[test]
fn a_store_on_a_full_disk_says_so_and_keeps_nothing_of_what_did_not_fit() {
    let bench = Bench::on_this_machine();
    let at = bench.home().join(".local/share/navvy/store");
    std::fs::create_dir_all(&at).expect("a directory can be made");
    let disk = SmallDisk::mounted_at(&at, 12);
    let fits = "      - run: 'head -c 100000 /dev/urandom > /small'
      - save_cache: {name: fits, key: small, paths: [/small]}
";
    let done = bench.run_config(&config(&[("build", "", &format!("{SAVES}{fits}{STORES}"))]), &[]);
    done.exits_with(1);
    for name in ["save", "artifacts"] {
        let step = done.step("build", name);
        let why = step.trailers.join("\n");
        assert_eq!(step.outcome, "error", "{name}");
        assert!(why.contains(&format!("store file://{}", at.display())), "{why}");
        assert!(why.contains("No space left on device"), "{why}");
    }
    assert_eq!(done.text("build", "after"), "went on\n");
    assert!(done.text("build", "fits").contains("Stored Cache to small"), "{}", done.text("build", "fits"));
    let entries = Store::of(&bench).only_whole_entries("full");
    assert_eq!(entries.len(), 1, "{entries:?}");

    // Not even a mark fits.
    std::fs::write(at.join("fill"), vec![1; 16 << 20]).expect_err("it is full now");
    let done = bench.run_config(&config(&[("build", "", SAVES)]), &[]);
    done.passes();
    assert!(done.step("build", "save").trailers.join("\n").contains("No space left on device"));
    Store::of(&bench).only_whole_entries("fuller");
    drop(disk);
}

const FILLS: &str = "      - run: 'dd if=/dev/zero of=/dev/shm/fill bs=1M \
                     count=$(($(df -k /dev/shm | tail -n 1 | tr -s \" \" | cut -d \" \" -f 4) / 1024 - 10)) 2> /dev/null'
";

#[test]
fn a_job_whose_disk_is_full_says_so_and_no_half_file_has_its_name() {
    let bench = Bench::new();
    let makes = makes_files().replace("/kept", "/dev/shm/kept");
    let checks = CHECKS.replace("DIR", "/dev/shm/kept");
    let restores = format!(
        "      - run: '{makes}'
      - save_cache: {{name: save, key: k, paths: [/dev/shm/kept]}}
      - persist_to_workspace: {{root: /dev/shm/kept, paths: [.]}}
      - run: 'rm -r /dev/shm/kept'
{FILLS}      - restore_cache: {{name: restore to nothing, key: k}}
      - run: {{name: look for anything, command: ls -A /dev/shm}}
      - run: mkdir /dev/shm/kept
      - restore_cache: {{name: restore, key: k}}
      - run: {{name: look, command: '{checks}'}}
"
    );
    let attaches = format!(
        "{FILLS}      - attach_workspace: {{name: attach, at: /dev/shm/kept}}
      - run: {{name: look, when: always, command: '{checks}'}}
"
    );
    bench.config(&config(&[("restores", "", &restores), ("attaches", "restores", &attaches)]));
    // Twice a GiB of memory is written: beside other work that takes its time.
    let done = bench.run(&[]).finish_within(std::time::Duration::from_secs(300));
    done.exits_with(1);
    assert_eq!((done.verdict("restores"), done.verdict("attaches")), ("passed".into(), "failed".into()));
    assert_eq!(done.text("restores", "look for anything"), "fill\n", "a missing directory comes whole or not at all");
    for (job, name) in [("restores", "restore to nothing"), ("restores", "restore"), ("attaches", "attach")] {
        let step = done.step(job, name);
        assert_eq!(step.outcome, "error", "{job}");
        let why = step.trailers.join("\n");
        assert!(why.contains("write the file: no space left on device"), "{why}");
    }
    for job in ["restores", "attaches"] {
        // What fitted is whole, and nothing else is there. It may be nothing at all: which file comes first is chance, and the large
        // one alone fills the disk.
        let count: usize =
            done.text(job, "look").trim().parse().unwrap_or_else(|_| panic!("{}", done.text(job, "look")));
        assert!(count < SMALL_FILES + 1, "{count} files");
    }
}
