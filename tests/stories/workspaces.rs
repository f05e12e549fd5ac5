//! Workspaces: what a job persists, the jobs behind it see, and no other.

use navvy_tests::{Bench, everywhere};

const CHAIN: &str = r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/base:bookworm}], resource_class: small}
jobs:
  first:
    executor: base
    steps:
      - run: "mkdir -p out/bin out/deep/er; echo first > out/bin/tool; chmod 750 out/bin/tool; echo first > out/same; echo x > out/deep/er/file; echo no > out/left-out; ln -s /etc/passwd out/link"
      - persist_to_workspace: {name: persist, root: out, paths: [bin, same, deep/e*/f?le, link, none*]}
  beside:
    executor: base
    steps:
      - run: "mkdir out && echo beside > out/beside"
      - persist_to_workspace: {name: persist, root: out, paths: [.]}
  second:
    executor: base
    steps:
      - attach_workspace: {name: attach, at: ws}
      - run: {name: look, command: "cd ws; find . -mindepth 1 | sort; cat same"}
      - run: "echo second > ws/same; mkdir more; echo more > more/file"
      - persist_to_workspace: {name: persist, root: ~/project/ws, paths: [same]}
      - persist_to_workspace: {name: again, root: /home/circleci/project, paths: [more]}
  third:
    executor: base
    steps:
      - attach_workspace: {name: attach, at: /tmp/of/mine}
      - run: {name: look, command: "cd /tmp/of/mine; find . -mindepth 1 | sort; cat same bin/tool; stat -c %A bin/tool; readlink link"}
  alone:
    executor: base
    steps:
      - attach_workspace: {name: attach, at: .}
workflows:
  ci:
    jobs:
      - first
      - beside
      - alone
      - second: {requires: [first]}
      - third: {requires: [second]}
"#;

everywhere! {
    fn a_job_sees_what_those_before_it_have_persisted_and_nothing_else(bench: Bench) {
        let done = bench.run_config(CHAIN, &[]);
        done.passes();
        let persisted = done.text("first", "persist");
        assert!(persisted.contains("Warning: none* did not match any files in /home/circleci/project/out\n"), "{persisted}");
        assert!(persisted.contains("Persisted to the workspace: 3 files, 14 B as "), "{persisted}");
        assert_eq!(
            done.text("second", "look"),
            "./bin\n./bin/tool\n./deep\n./deep/er\n./deep/er/file\n./link\n./same\nfirst\n"
        );
        assert_eq!(
            done.text("third", "look"),
            "./bin\n./bin/tool\n./deep\n./deep/er\n./deep/er/file\n./link\n./more\n./more/file\n./same\n\
             second\nfirst\n-rwxr-x---\n/etc/passwd\n"
        );
        let attached = done.text("third", "attach");
        assert!(attached.contains("Applying workspace layers\n  first node 0 step 2\n  second node 0 step 4\n  second node 0 step 5\n"), "{attached}");
        assert_eq!(done.text("alone", "attach"), "There is no workspace yet: no job upstream has persisted anything\n");
        // A run's workspace is of no use to another one.
        let pieces = bench.home().join(".local/share/navvy/store/v1/piece");
        assert_eq!(files(&pieces), 0);
        assert_eq!(files(&bench.home().join(".local/share/navvy/store/v1/body")), 0);
    }
}

fn files(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

const CONCURRENT: &str = r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/base:bookworm}], resource_class: small}
jobs:
  left:
    executor: base
    steps:
      - run: "mkdir -p out/d; echo l > out/both; echo l > out/d/left; echo l > out/d/both"
      - persist_to_workspace: {root: out, paths: ["*"]}
  right:
    executor: base
    steps:
      - run: "mkdir -p out/d; echo r > out/both; echo r > out/d/right; echo r > out/d/both"
      - persist_to_workspace: {root: out, paths: [both, d]}
  nodes:
    executor: base
    parallelism: 2
    steps:
      - run: "mkdir out; echo $CIRCLE_NODE_INDEX > out/node; echo x > out/$CIRCLE_NODE_INDEX"
      - persist_to_workspace: {root: out, paths: [.]}
  joins:
    executor: base
    steps:
      - attach_workspace: {name: attach, at: ws}
      - run: {name: never, command: "true"}
      - run: {name: look, when: always, command: "ls ws 2>/dev/null || echo nothing"}
  counts:
    executor: base
    steps:
      - attach_workspace: {name: attach, at: ws}
workflows:
  ci:
    jobs:
      - left
      - right
      - nodes
      - joins: {requires: [left, right]}
      - counts: {requires: [nodes]}
"#;

#[test]
fn what_two_jobs_persist_side_by_side_is_named_file_by_file_before_anything_is_unpacked() {
    let bench = Bench::new();
    let done = bench.run_config(CONCURRENT, &[]);
    done.exits_with(1);
    let attached = done.text("joins", "attach");
    let wanted = "Concurrent upstream jobs persisted the same file(s) into the workspace:\n  - both (left, right)\n  \
                  - d/both (left, right)\n";
    assert!(attached.ends_with(wanted), "{attached}");
    let step = done.step("joins", "attach");
    assert_eq!(step.outcome, "error");
    assert!(
        step.trailers.join("\n").starts_with("Error applying workspace layer for job left: "),
        "{:?}",
        step.trailers
    );
    assert_eq!(done.text("joins", "look"), "nothing\n");
    assert_eq!(done.skipped("joins", "never"), "job_failed");
    let nodes = done.text("counts", "attach");
    assert!(nodes.ends_with("  - node (nodes node 0, nodes node 1)\n"), "{nodes}");
}

const TROUBLES: &str = r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/base:bookworm}], resource_class: small}
jobs:
  no_root: {executor: base, steps: [persist_to_workspace: {name: persist, root: /nowhere, paths: [x]}]}
  no_match: {executor: base, steps: [persist_to_workspace: {name: persist, root: ., paths: ["*.none", x/y]}]}
  bad_pattern: {executor: base, steps: [persist_to_workspace: {name: persist, root: ., paths: ["a["]}]}
  leads_out: {executor: base, steps: [persist_to_workspace: {name: persist, root: ., paths: [../x]}]}
workflows:
  ci: {jobs: [no_root, no_match, bad_pattern, leads_out]}
"#;

#[test]
fn what_cannot_be_persisted_fails_the_job_and_says_why() {
    let bench = Bench::new();
    let done = bench.run_config(TROUBLES, &[]);
    done.exits_with(1);
    let why = |job: &str| {
        assert_eq!(done.verdict(job), "failed", "{job}");
        done.step(job, "persist").trailers.join("\n")
    };
    let directory = "/home/circleci/project";
    assert_eq!(why("no_root"), "Error locating workspace root directory: stat /nowhere: no such file or directory");
    assert_eq!(why("no_match"), format!("The specified paths did not match any files in {directory}"));
    assert!(why("bad_pattern").contains("cannot look for \"a[\": it is not a pattern"), "{}", why("bad_pattern"));
    assert!(why("leads_out").contains("`..` leads out of the root"), "{}", why("leads_out"));
}

const AGAIN: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: make, command: "mkdir out; echo x > out/file"}
      - persist_to_workspace: {name: persist, root: out, paths: [file]}
      - run: {name: second time only, command: "echo x >> ~/times; test $(wc -l < ~/times) -eq 2"}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn a_retry_persists_in_place_of_what_it_persisted_before() {
    let bench = Bench::new();
    let done = bench.config(AGAIN).run(&["--keep-on-fail"]).that_leaves_things().finish();
    done.exits_with(1);
    // Whoever goes on may need it.
    let bodies = bench.home().join(".local/share/navvy/store/v1/body");
    assert_eq!(files(&bodies), 1);
    let again = bench.start(&["retry", "build", "--from", "persist", "--json"]).finish();
    again.passes();
    assert!(again.text("build", "persist").starts_with("Replacing the layer of an earlier attempt\n"));
    assert_eq!(files(&bodies), 1);
}
