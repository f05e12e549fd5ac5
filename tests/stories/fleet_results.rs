//! What the jobs of a fleet left: artifacts, results of tests, caches; read from elsewhere, used by the next pipeline, and gone when
//! their time is over.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_tests::{Bench, Fate, Fleet, ObjectStore, eventually, sha256};

const LIMIT: Duration = Duration::from_secs(120);

const SHARED: &str = r#"
version: 2.1
jobs:
  test:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    parallelism: 2
    steps:
      - run: {name: make, command: "mkdir t; for test in a b c d e f; do echo $test >t/$test.sh; done"}
      - run: {name: share, command: 'circleci tests glob "t/*.sh" | circleci tests split --split-by=timings'}
      - run:
          name: test
          command: |
            mkdir out
            {
              echo '<testsuites><testsuite>'
              for file in $(circleci tests glob "t/*.sh" | circleci tests split --split-by=timings); do
                time=1; [ $file != t/a.sh ] || time=1,000.5
                echo "<testcase classname='shop' name='runs $file' file='$file' time='$time'/>"
              done
              echo '</testsuite></testsuites>'
            } >out/junit.xml
      - store_test_results: {path: out}
      - store_artifacts: {path: out}
workflows:
  ci: {jobs: [test]}
"#;

/// What each node was given, in no order of theirs.
fn shares(fleet: &Fleet<'_>, pipeline: &str) -> Vec<Vec<String>> {
    let job = fleet.job(pipeline, "test");
    let tasks = job["tasks"].as_array().expect("tasks").iter();
    let share = |task: &serde_json::Value| {
        let log = String::from_utf8_lossy(&fleet.log(task["id"].as_str().expect("an id"), "002-1")).into_owned();
        log.lines().filter(|line| line.starts_with("t/")).map(|line| line.trim().to_owned()).collect()
    };
    let mut shares: Vec<Vec<String>> = tasks.map(share).collect();
    shares.sort();
    shares
}

#[test]
fn the_second_pipeline_shares_its_tests_by_what_they_took_in_the_first() {
    let bench = Bench::on_this_machine();
    bench.config(SHARED).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&["--concurrency", "2"]);
    let first = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&first, LIMIT), "success");
    assert_eq!(shares(&fleet, &first), [["t/a.sh", "t/c.sh", "t/e.sh"], ["t/b.sh", "t/d.sh", "t/f.sh"]]);
    let second = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&second, LIMIT), "success");
    let by_time = [vec!["t/a.sh"], vec!["t/b.sh", "t/c.sh", "t/d.sh", "t/e.sh", "t/f.sh"]];
    assert_eq!(shares(&fleet, &second), by_time);

    let text = fleet.navvy(&["tests", "--remote"]).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("test  (") && lines[0].ends_with(", branch main)"), "{text}");
    assert_eq!(lines[1], "  6 tests in 16m 46s: 6 passed", "{text}");
    assert!(lines[3].ends_with("shop runs t/a.sh (t/a.sh)"), "{text}");
    let json = fleet.navvy(&["tests", "test", "--remote", "--run", &first, "--json"]).text();
    let line: serde_json::Value = serde_json::from_str(json.trim()).expect("a line of JSON");
    assert_eq!((&line["passed"], &line["runs"], &line["run"]), (&6.into(), &1.into(), &first.as_str().into()));
    fleet.navvy(&["tests", "lint", "--remote"]).ends(64, &["no test results are kept of a job lint", "test"]);
    fleet.navvy(&["tests", "--run", &first]).ends(64, &["--remote"]);

    // Words of the published API.
    let number = fleet.job(&second, "test")["job_number"].as_u64().expect("a number");
    let slug = fleet.show(&second)["project_slug"].as_str().expect("a slug").replace('/', "%2F");
    let said = fleet.get(&format!("/api/v2/project/{slug}/{number}/tests")).expect("it answers");
    let page: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
    let test = page["items"].as_array().expect("items").iter().find(|it| it["file"] == "t/a.sh").expect("its test");
    assert_eq!((&test["classname"], &test["name"]), (&"shop".into(), &"runs t/a.sh".into()));
    assert_eq!((&test["result"], &test["run_time"]), (&"success".into(), &1000.5.into()));
    let said = fleet.get(&format!("/api/v2/project/{slug}/{number}/artifacts")).expect("it answers");
    let page: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
    let mut nodes: Vec<u64> =
        page["items"].as_array().expect("items").iter().map(|it| it["node_index"].as_u64().expect("a node")).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [0, 1], "{page}");
}

const LEAVES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: make
          command: |
            mkdir -p out/deep; head -c 20000000 /dev/zero | tr '\0' x >out/large; printf deep >out/deep/b.html
            printf odd >"out/$(printf 'c\nd\033[31m')"; printf bytes >"out/$(printf '\377')"; ln -s /etc/passwd out/link
      - store_artifacts: {path: out}
      - store_artifacts: {path: out/deep, destination: "../../../up"}
workflows:
  ci: {jobs: [build]}
"#;

fn files(beneath: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(beneath).into_iter().flatten().flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

#[test]
fn artifacts_of_a_pipeline_are_listed_and_fetched_and_lead_nowhere() {
    let bench = Bench::on_this_machine();
    bench.config(LEAVES).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    assert!(fleet.navvy(&["artifacts", "ls", "--remote"]).text().starts_with("There are no artifacts of this project"));
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let text = fleet.navvy(&["artifacts", "ls", "--remote"]).text();
    assert!(text.contains("out/deep/b.html") && !text.contains('\u{1b}'), "{text:?}");
    let json = fleet.navvy(&["artifacts", "ls", "--remote", "--run", &pipeline, "--json"]).text();
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let large = lines.iter().find(|line| line["name"] == "out/large").expect("the large one");
    assert_eq!((&large["size"], &large["job"], &large["node"]), (&20_000_000.into(), &"build".into(), &0.into()));

    let to = bench.state().join("fetched");
    let word = to.to_str().expect("a path of ours");
    fleet.navvy(&["artifacts", "get", "--remote", "--to", word]).succeeded();
    let fetched = files(&to);
    assert_eq!(fetched.len(), lines.len(), "{fetched:?}");
    assert!(fetched.iter().all(|file| file.starts_with(to.join("build/0"))), "{fetched:?}");
    assert!(fetched.iter().any(|file| file.ends_with("up/b.html")), "{fetched:?}");
    let odd = std::ffi::OsStr::from_bytes(b"build/0/out/\xff");
    assert_eq!(fs::read(to.join(odd)).expect("it was fetched"), b"bytes");
    let whole = fs::read(to.join("build/0/out/large")).expect("it was fetched");
    assert!(whole.len() == 20_000_000 && whole.iter().all(|byte| *byte == b'x'));

    let one = bench.state().join("one");
    let word = one.to_str().expect("a path of ours");
    fleet.navvy(&["artifacts", "get", "out/deep/b.html", "--remote", "--run", &pipeline, "--to", word]).succeeded();
    assert_eq!(fs::read(one.join("out/deep/b.html")).expect("it was fetched"), b"deep");
    let get = |args: &[&str]| fleet.navvy(&[&["artifacts", "get", "--remote"], args].concat());
    get(&["nothing"]).ends(64, &["has no artifact nothing"]);
    get(&["--job", "other"]).ends(64, &["no artifacts of a job other", "build"]);
    get(&["--run", "00000000-0000-0000-0000-000000000000"]).ends(64, &["there is no pipeline"]);
    get(&["--store", "file:///tmp/x"]).ends(64, &["--store"]);
}

const CACHES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - restore_cache: {name: restore, keys: [deps]}
      - run: {name: make, command: "mkdir -p deps; date >deps/built"}
      - save_cache: {key: deps, paths: [deps]}
      - store_artifacts: {path: deps}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn caches_go_when_their_time_is_over_and_the_rest_stays() {
    let bench = Bench::on_this_machine();
    bench.config(CACHES).commit("a project");
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_KEEP_CACHES", "1s")]);
    let _runner = fleet.runner(&[]);
    let first = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&first, LIMIT), "success");
    let caches = fleet.data().join("store/v1/cache");
    assert_eq!(files(&caches).len(), 1);
    // A processor that starts sweeps.
    eventually("the end of the cache", LIMIT, || {
        fleet.crash_and_restart();
        let gone = || files(&caches).is_empty().then_some(());
        (0..20).find_map(|_| gone().or_else(|| fleet.get("/readyz").ok().and(None)))
    });
    let second = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&second, LIMIT), "success");
    let restored = fleet.log(&fleet.task(&second, "build"), "001-1");
    assert!(String::from_utf8_lossy(&restored).contains("No cache is found"), "{}", String::from_utf8_lossy(&restored));
    for pipeline in [&first, &second] {
        let listed = fleet.navvy(&["artifacts", "ls", "--remote", "--run", pipeline]).text();
        assert!(listed.contains("deps/built"), "{listed}");
    }
}

const MUCH: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - run: {name: prints, command: "cat noise"}
      - store_artifacts: {path: noise}
workflows:
  ci: {jobs: [build]}
"#;

/// Text of which no two places look alike.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(state >> 58) as usize]
    };
    (0..length).map(|at| if at % 80 == 79 { b'\n' } else { next() }).collect()
}

#[test]
fn over_a_slow_object_store_output_and_artifacts_are_whole_and_no_upload_stays_open() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    let noise = noise(9 << 20);
    bench.config(MUCH).file("noise", &noise).commit("a project");
    let gate = store.gate();
    let settings = store.of_a_processor(&gate);
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut fleet = Fleet::with(&bench, &settings);
    let _runner = fleet.runner(&[]);
    // Segments alone: they are printed much faster than the store takes them.
    gate.rule(|asked| match asked.is("PUT", "/v1/log/") {
        true => Fate::RequestDawdles(1 << 20),
        false => Fate::Pass,
    });
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let task = fleet.task(&pipeline, "build");
    assert_eq!(sha256(&fleet.log(&task, "002-1")), sha256(&noise));
    assert_eq!(fleet.job(&pipeline, "build")["tasks"][0]["output"], "complete");
    let to = bench.state().join("fetched");
    let word = to.to_str().expect("a path of ours");
    fleet.navvy(&["artifacts", "get", "noise", "--remote", "--to", word]).succeeded();
    assert_eq!(sha256(&fs::read(to.join("noise")).expect("it was fetched")), sha256(&noise));
    assert_eq!(store.open_uploads(), Vec::<String>::new());
    let trees: Vec<String> = store.objects().into_iter().filter(|key| key.contains("/v1/tree/")).collect();
    assert!(trees.len() == 1 && trees[0].ends_with(".tar.zst"), "no mark is left: {trees:?}");
}
