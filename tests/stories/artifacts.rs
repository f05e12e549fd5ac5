//! Artifacts: what a job leaves for people, under which names, and how they get it.

use navvy_tests::{Bench, everywhere};

/// One job that runs `command`, which may fail, and stores what `steps` say.
fn storing(command: &str, steps: &str) -> String {
    let command = command.replace('\n', "\n            ");
    format!(
        r#"
version: 2.1
jobs:
  build:
    docker: [{{image: navvy/base:bookworm}}]
    resource_class: small
    steps:
      - run:
          name: make
          command: |
            {command}
{steps}
workflows:
  ci: {{jobs: [build]}}
"#
    )
}

everywhere! {
    fn files_and_directories_are_stored_under_their_names_also_after_a_failure(bench: Bench) {
        let steps = "      - store_artifacts: {name: directory, path: out}
      - store_artifacts: {name: file, path: /tmp/one.log}
      - store_artifacts: {name: elsewhere, path: ~/project/out/deep, destination: /report/}
      - store_artifacts: {name: renamed, path: out/a.txt, destination: named/b}
      - store_artifacts: {name: missing, path: nowhere}
      - store_artifacts: {name: empty, path: nothing}
      - store_artifacts: {name: not-now, path: out, when: on_success}";
        let command = "mkdir -p out/deep nothing; printf 12345 >out/a.txt; printf deep >out/deep/b.html
echo log >/tmp/one.log; exit 3";
        let done = bench.run_config(&storing(command, steps), &[]);
        done.exits_with(1);
        assert_eq!(
            done.text("build", "directory"),
            "Uploading /home/circleci/project/out to out\n  * out/a.txt (5 B)\n  * out/deep/b.html (4 B)\n\
             Uploaded 2 files, 9 B\n"
        );
        assert_eq!(
            done.text("build", "file"),
            "Uploading /tmp/one.log to tmp/one.log\n  * tmp/one.log (4 B)\nUploaded 1 file, 4 B\n"
        );
        assert_eq!(
            done.text("build", "elsewhere"),
            "Uploading /home/circleci/project/out/deep to report\n  * report/b.html (4 B)\nUploaded 1 file, 4 B\n"
        );
        assert_eq!(
            done.text("build", "renamed"),
            "Uploading /home/circleci/project/out/a.txt to named/b\n  * named/b (5 B)\nUploaded 1 file, 5 B\n"
        );
        for (step, place) in [("missing", "nowhere"), ("empty", "nothing")] {
            assert_eq!(done.step("build", step).outcome, "success");
            let at = format!("/home/circleci/project/{place}");
            let text = format!("Uploading {at} to {place}\nNo artifact files found at {at}\n");
            assert_eq!(done.text("build", step), text);
        }
        assert_eq!(done.skipped("build", "not-now"), "job_failed");
    }
}
