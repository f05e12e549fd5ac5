//! `navvy cache explain`: why a step finds no cache, and what one is made of.

use navvy_tests::{Bench, Finished};

const SAVES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - restore_cache:
          name: restore
          keys:
            - deps-v1-{{ .Branch }}-{{ checksum "Cargo.lock" }}
            - deps-v1-{{ .Branch }}-FALLBACK
      - run: |
          mkdir -p ~/.deps/large ~/.deps/small
          head -c 300000 /dev/urandom > ~/.deps/large/one
          for number in $(seq 1200); do echo $number > ~/.deps/small/$number; done
      - save_cache:
          name: save
          key: deps-v1-{{ .Branch }}-{{ checksum "Cargo.lock" }}
          paths: [~/.deps]
workflows:
  ci: {jobs: [build]}
"#;

/// A bench in which a run has saved a cache for the first lock file.
fn saved(config: &str, words: &[&str]) -> Bench {
    let bench = Bench::new();
    bench.config(config).file("Cargo.lock", "one\ntwo\n").commit("Lock it");
    let done = bench.run(words).finish();
    done.passes();
    assert!(done.text("build", "save").contains("Stored Cache to "), "{}", done.text("build", "save"));
    bench
}

#[track_caller]
fn explained(bench: &Bench, words: &[&str]) -> String {
    let done = bench.navvy(&[&["cache", "explain"], words].concat());
    done.passes();
    done.stdout()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

fn json(bench: &Bench, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&explained(bench, &[words, &["--json"]].concat())).expect("an object a line")
}

#[test]
fn a_changed_lock_file_is_named_with_its_commits_and_lines() {
    let bench = saved(SAVES, &[]);
    // What was just saved is a hit.
    let text = explained(&bench, &[]);
    has(
        &text,
        &["build of ci: step 2 \"restore\" at .circleci/config.yml:9 (scope local)\n", "  hit     deps-v1-main-"],
    );

    bench.file("Cargo.lock", "one\nzwei\ndrei\n").commit("Update the dependencies");
    bench.file("Cargo.lock", "one\nzwei\ndrei\nvier\n");
    let text = explained(&bench, &["build"]);
    has(
        &text,
        &[
            "  miss    deps-v1-main-",
            "    nearest: deps-v1-main-",
            " by job build (build 1), scope local, ",
            "      same     {{ .Branch }}                main\n",
            "      differs  {{ checksum \"Cargo.lock\" }}  then ",
            "  Cargo.lock changed since ",
            " Story: Lock it (+3 -1 lines)\n",
            " Story: Update the dependencies\n",
            "    and it has changes that are not committed\n",
            "  save_cache at .circleci/config.yml:18 of job build writes deps-v1-{{ .Branch }}-{{ checksum \"Cargo.lock\" }}, if no \
             step before it failed.\n",
        ],
    );
    let told = json(&bench, &[]);
    assert_eq!((&told["outcome"], &told["job"], &told["step"]), (&"miss".into(), &"build".into(), &2.into()), "{told}");
    assert_eq!(told["keys"][0]["nearest"][0]["parts"][3]["verdict"], "differs", "{told}");
    let file = &told["files"][0];
    assert_eq!((&file["file"], &file["added"], &file["removed"]), (&"Cargo.lock".into(), &3.into(), &1.into()));
    assert_eq!(file["since"][0]["subject"], "Update the dependencies");
    assert_eq!(file["since"][0]["id"], bench.git(&["rev-parse", "HEAD"]).stdout().trim());
    assert_eq!(file["is_uncommitted"], true);

    // The same by a key out of a log.
    let key = told["keys"][0]["key"].as_str().expect("a key").to_owned();
    let text = explained(&bench, &["--key", &key]);
    has(
        &text,
        &["A key by itself", &format!("  miss    {key}\n"), "differs  {{ checksum \"Cargo.lock\" }}", "Lock it"],
    );
}

#[test]
fn a_hit_tells_what_makes_it_slow() {
    let bench = saved(&SAVES.replace("FALLBACK", ""), &[]);
    let text = explained(&bench, &[]);
    has(
        &text,
        &[
            "  found: deps-v1-main-",
            " of 1201 files, ",
            "; packing and uploading took ",
            "    Slow for its many small files: 1200 have less than 16 KiB.\n",
            " KiB  /home/circleci/.deps/large/one  (1 file)\n",
        ],
    );
    // By its beginning, when the lock file is another.
    bench.file("Cargo.lock", "other\n");
    let text = explained(&bench, &[]);
    has(
        &text,
        &[
            "  miss    deps-v1-main-",
            "differs  {{ checksum",
            "  hit     deps-v1-main-\n",
            "found by its beginning, the newest: ",
        ],
    );
    let told = json(&bench, &[]);
    assert_eq!((&told["outcome"], &told["hit"]["is_exact"]), (&"hit".into(), &false.into()), "{told}");
    let archive = &told["hit"]["archive"];
    assert_eq!((&archive["files"], &archive["small_files"]), (&1201.into(), &1200.into()), "{archive}");
    assert_eq!(archive["heaviest"][0]["bytes"], 300_000, "{archive}");
    assert!(archive["save_millis"].is_u64() && archive["trouble"].is_null(), "{archive}");
    // A body that is gone.
    std::fs::remove_dir_all(bench.home().join(".local/share/navvy/store/v1/body")).expect("bodies");
    has(&explained(&bench, &[]), &["Its archive cannot be read: ", "would put it aside"]);
}

#[test]
fn a_cache_of_another_scope_and_one_that_was_put_aside_are_named() {
    let bench = saved(SAVES, &["--scope", "fork:alice"]);
    let text = explained(&bench, &[]);
    has(&text, &["  Scope fork:alice has deps-v1-main-", "; scope local does not read what fork:alice writes.\n"]);
    has(&text, &["No cache with a similar key is in the store"]);
    has(&explained(&bench, &["--scope", "fork:alice"]), &["  hit     "]);
    bench.navvy(&["cache", "explain", "--scope", "alice"]).exits_with(64);

    // A run in that scope finds it damaged.
    std::fs::remove_dir_all(bench.home().join(".local/share/navvy/store/v1/body")).expect("bodies");
    bench
        .run_config(&SAVES.replace("save_cache:", "save_cache:\n          when: on_fail"), &["--scope", "fork:alice"])
        .passes();
    let text = explained(&bench, &["--scope", "fork:alice"]);
    has(&text, &[" was damaged, and put aside ", "only if a step before it failed"]);
}

#[test]
fn templates_that_disagree_are_both_named() {
    let config = SAVES.replace("key: deps-v1-{{ .Branch }}-{{ checksum", "key: deps-v1-{{ arch }}-{{ checksum");
    let bench = saved(&config, &[]);
    let text = explained(&bench, &[]);
    has(
        &text,
        &[
            "      differs  {{ .Branch }}  it was saved with {{ arch }} here\n",
            "  No save_cache of the config writes a key that begins so.\n",
            "  The most similar: save_cache at .circleci/config.yml:18 of job build writes deps-v1-{{ arch }}-{{ checksum",
        ],
    );
}

const SECRET: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - restore_cache: {name: restore, key: 'v1-{{ .Environment.CIRCLE_TOKEN }}-{{ .BuildNum }}'}
      - restore_cache: {name: other, key: 'v1-{{ .Environment.CIRCLE_TOKEN }}-{{ checksum "none" }}'}
      - restore_cache: {name: broken, key: 'v1-{{ .Brnch }}'}
      - run: mkdir ~/d && echo x > ~/d/x
      - save_cache: {name: save, key: 'v1-{{ .Environment.CIRCLE_TOKEN }}-end', paths: [~/d]}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn what_only_the_job_knows_is_said_and_secrets_are_not() {
    let bench = saved(SECRET, &["-e", "CIRCLE_TOKEN=hunter2hunter2"]);
    let same = (["-e", "CIRCLE_TOKEN=hunter2hunter2"], "      same     ", "unknown");
    let other = (["-e", "CIRCLE_TOKEN=other-secret"], "      differs  ", "miss   ");
    for (words, verdict, outcome) in [same, other] {
        let text = explained(&bench, &words);
        has(
            &text,
            &[
                &format!("{verdict}{{{{ .Environment.CIRCLE_TOKEN }}}}"),
                &format!("  {outcome} v1-****-{{{{ .BuildNum }}}}\n"),
                "nearest: v1-****-end, saved ",
                "(hidden)",
            ],
        );
        has(
            &text,
            &[
                "{{ .BuildNum }} is not known outside of the job: every run numbers its tasks again",
                "no checkout comes before this step",
            ],
        );
        has(
            &text,
            &["  broken  v1-{{ .Brnch }}\n", "did you mean Branch?", "The step fails with that, and the job goes on"],
        );
        let all = text + &explained(&bench, &[&words[..], &["--json"]].concat());
        assert!(!all.contains("hunter2") && !all.contains("other-secret"), "{all}");
    }
}

#[test]
fn a_workflow_that_would_not_run_repeats_nothing() {
    let bench = Bench::new();
    let twice = r#"
version: 2.1
jobs:
  build: {docker: [{image: x}], steps: [{restore_cache: {keys: [v1-x]}}]}
workflows:
  nightly: {when: false, jobs: [build]}
  ci: {jobs: [build]}
  weekly: {when: false, jobs: [build]}
"#;
    bench.config(twice).commit("first");
    let told = |words: &[&str]| explained(&bench, words).matches("v1-x\n").count();
    assert_eq!((told(&["build"]), told(&[])), (1, 1));
    // One that runs nowhere is told once.
    bench.config(&twice.replace("ci: {jobs", "ci: {when: false, jobs"));
    assert_eq!(told(&["build"]), 1);
}

#[test]
fn errors_say_what_to_do() {
    let bench = Bench::new();
    let asked = |words: &[&str]| -> Finished { bench.navvy(&[&["cache", "explain"], words].concat()) };
    asked(&[]).exits_with(2).complains(&["there is no .circleci/config.yml", "-f FILE"]);
    let without =
        "version: 2.1\njobs:\n  build: {docker: [{image: x}], steps: [checkout]}\nworkflows: {ci: {jobs: [build]}}\n";
    bench.config(without).commit("first");
    asked(&[]).exits_with(2).complains(&["no job that runs has a restore_cache step", "--key KEY"]);
    asked(&["build"]).exits_with(2).complains(&["job build, which has no restore_cache step"]);
    asked(&["biuld"]).exits_with(2).complains(&["there is no job `biuld` (did you mean `build`?)"]);
    asked(&["--store", "ftp://x"]).exits_with(2);
    has(&explained(&bench, &["--key", "none"]), &["  miss    none\n", "No cache with a similar key is in the store"]);
}
