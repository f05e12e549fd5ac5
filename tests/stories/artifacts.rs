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

const ODD: &str = r##"mkdir -p out/d 'out/a b'
printf odd >"out/$(printf '\377\376')"; printf hash >'out/x#1'; printf long >"out/$(printf 'n%.0s' $(seq 255))"
printf space >'out/a b/c'; : >out/d/empty; printf main >out/main.js
ln -s main.js out/latest; ln -s ../latest out/d/up; ln out/main.js out/twin; ln -s d out/dir; ln -s /etc/passwd out/far; ln -s far out/farther
truncate -s 3M out/sparse; printf end >>out/sparse; ln -s out linked"##;

#[test]
fn artifacts_are_listed_and_fetched_whatever_they_are_called() {
    let bench = Bench::new();
    let steps = "      - store_artifacts: {name: odd, path: out, destination: o}
      - store_artifacts: {name: linked, path: linked, destination: l}
      - run: \"printf second > out/main.js\"
      - store_artifacts: {name: again, path: out/main.js, destination: o/main.js}";
    bench.config(&storing(ODD, steps));
    let nothing = bench.ask(&["artifacts", "ls"]).passes().stdout();
    assert!(nothing.starts_with("There are no artifacts of this project. "), "{nothing}");
    let done = bench.run_config(&storing(ODD, steps), &[]);
    done.passes();
    let text = done.text("build", "odd");
    for left_out in ["o/dir", "o/far", "o/farther"] {
        assert!(
            text.contains(&format!("Warning: {left_out} is a link to no file of these, and is left out\n")),
            "{text}"
        );
    }
    assert!(done.text("build", "linked").ends_with("Uploaded 10 files, 3 MiB\n"), "{}", done.text("build", "linked"));
    let json = bench.ask(&["artifacts", "ls", "--json"]).passes().stdout();
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {json}"));
    assert_eq!(lines.len(), 20);
    assert_eq!((&named("o/main.js")["size"], &named("o/main.js")["step"]), (&6.into(), &5.into()));
    assert_eq!(named("o/main.js")["content_type"], "text/plain; charset=utf-8");
    for name in ["o/latest", "o/twin", "o/d/up"] {
        assert_eq!((&named(name)["size"], &named(name)["sha256"]), (&4.into(), &named("l/main.js")["sha256"]));
    }
    assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().contains("  build  4 B    o/x#1\n"));

    let to = bench.home().join("fetched");
    let target = to.display().to_string();
    bench.ask(&["artifacts", "get", "o/x#1", "--to", &target]).passes();
    assert_eq!(std::fs::read(to.join("o/x#1")).unwrap(), b"hash");
    std::fs::create_dir_all(to.join("build/0/o")).unwrap();
    std::fs::write(to.join("build/0/o/main.js"), "mine, and longer").unwrap();
    bench.ask(&["artifacts", "get", "--to", &target, "--job", "build"]).passes();
    let read = |name: &[u8]| {
        use std::os::unix::ffi::OsStrExt as _;
        std::fs::read(to.join("build/0/o").join(std::ffi::OsStr::from_bytes(name))).unwrap()
    };
    assert_eq!(read(b"main.js"), b"second");
    assert_eq!(read(b"latest"), b"main");
    assert_eq!(read(b"\xff\xfe"), b"odd");
    assert_eq!(read(&[b'n'; 255]), b"long");
    assert_eq!(read(b"d/empty"), b"");
    assert_eq!(read(b"sparse").len(), (3 << 20) + 3);
    assert!(read(b"sparse").ends_with(b"\0end"));

    bench.ask(&["artifacts", "get", "o/none"]).exits_with(64).complains(&["has no artifact o/none", "artifacts ls"]);
    bench.ask(&["artifacts", "ls", "--run", "1999"]).exits_with(64).complains(&["no run 1999 has left artifacts"]);
    bench.ask(&["artifacts", "ls", "--job", "tests"]).exits_with(64).complains(&["of a job tests", "build"]);
}

#[test]
fn nothing_is_fetched_to_outside_the_directory() {
    let bench = Bench::new();
    let steps = "      - store_artifacts: {path: out}\n      - store_artifacts: {path: out/x, destination: out/link/../../../up}";
    bench.run_config(&storing("mkdir -p out/link; printf x >out/link/x; printf y >out/x", steps), &[]).passes();
    let (to, outside) = (bench.home().join("fetched"), bench.home().join("outside"));
    std::fs::create_dir_all(to.join("out")).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, to.join("out/link")).unwrap();
    let target = to.display().to_string();
    let refused = bench.ask(&["artifacts", "get", "out/link/x", "--to", &target]);
    assert_ne!(refused.exit_code, 0);
    refused.complains(&["link is in the way: it is not a directory"]);
    bench.ask(&["artifacts", "get", "up", "--to", &target]).passes();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(std::fs::read(to.join("up")).unwrap(), b"y");
}

const LEAKS: &str = "mkdir out; echo fine >out/a; { head -c 9000000 /dev/zero; printf '%s' \"$TOKEN\"; head -c 9000000 /dev/zero; } >out/big
printf '%s' \"$TOKEN\" | base64 >out/encoded; echo fine >out/z";
const SECRET: [&str; 2] = ["-e", "TOKEN=hunter2hunter2"];

#[test]
fn artifacts_that_hold_a_secret_are_refused_with_file_and_name() {
    let bench = Bench::new();
    let config = storing(LEAKS, "      - store_artifacts: {name: store, path: out}");
    let done = bench.run_config(&config, &SECRET);
    done.exits_with(1);
    let text = done.text("build", "store");
    assert!(text.contains("out/big holds the value of TOKEN\nout/encoded holds the value of TOKEN\n"), "{text}");
    let reason = done.step("build", "store").event.get("outcome").to_string();
    assert!(
        reason.contains("nothing is stored: out/big holds the value of TOKEN, and 1 more file holds a secret"),
        "{reason}"
    );
    assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().starts_with("There are no artifacts"));
    let store = bench.home().join(".local/share/navvy/store/v1");
    let left = |of: &str| std::fs::read_dir(store.join(of)).map_or(0, |files| files.flatten().count());
    assert_eq!((left("body"), left("reserved")), (0, 0));
}

#[test]
fn secrets_in_artifacts_are_masked_or_allowed_when_asked() {
    let bench = Bench::new();
    // Masked is what is text.
    let leaks = LEAKS.replace("/dev/zero", "/dev/zero | tr '\\0' a");
    let config = storing(&leaks, "      - store_artifacts: {name: store, path: out}");
    for (rule, size, start) in [("mask", 18_000_004, "****"), ("allow", 18_000_014, "hunter2hunter2")] {
        let done = bench.run_config(&config, &[SECRET[0], SECRET[1], "--secrets-in-artifacts", rule]);
        done.passes();
        let to = bench.home().join(rule);
        bench.ask(&["artifacts", "get", "out/big", "--to", &to.display().to_string()]).passes();
        let big = std::fs::read(to.join("out/big")).unwrap();
        assert_eq!(big.len(), size, "{rule}");
        assert!(big[9_000_000..].starts_with(start.as_bytes()), "{rule}");
        let is_told = done.warnings().contains("artifact out/big held the value of TOKEN");
        assert_eq!(is_told, rule == "mask", "{}", done.warnings());
    }
}

#[test]
fn a_program_that_holds_a_secret_is_never_stored_with_stars_in_it() {
    let bench = Bench::new();
    let command = "mkdir out; echo \"log of $TOKEN\" >out/a.log; { cat /bin/true; printf '%s' \"$TOKEN\"; } >out/tool
echo fine >out/z";
    let config = storing(command, "      - store_artifacts: {name: store, path: out}");
    let done = bench.run_config(&config, &[SECRET[0], SECRET[1], "--secrets-in-artifacts=mask"]);
    done.exits_with(1);
    let reason = done.step("build", "store").event.get("outcome").to_string();
    for part in
        ["nothing is stored: out/tool holds the value of TOKEN", "is not text", "--var", "--secrets-in-artifacts=allow"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().starts_with("There are no artifacts"));
    bench.run_config(&config, &["--var", SECRET[1]]).passes();
    let to = bench.home().join("fetched");
    bench.ask(&["artifacts", "get", "out/tool", "--to", &to.display().to_string()]).passes();
    assert!(
        std::fs::read(to.join("out/tool")).unwrap().ends_with(b"hunter2hunter2"),
        "a plain variable is not looked for"
    );
}

const PACKED: &str = "mkdir -p out conf; { seq 2000; echo \"password = $TOKEN\"; seq 2000; } >conf/app
tar czf out/logs conf; echo fine | gzip >out/fine.gz
python3 -c 'import sys, zipfile as z; a = z.ZipFile(\"out/app.whl\", \"w\", z.ZIP_DEFLATED); a.writestr(\"fine\", \"fine\"); a.write(\"conf/app\")'
python3 -m zipfile -c out/inner.zip conf; echo \"$TOKEN\" | zstd -q >out/z";

#[test]
fn a_secret_that_is_packed_in_an_artifact_is_refused_as_in_a_plain_one() {
    let bench = Bench::new();
    let config = storing(PACKED, "      - store_artifacts: {name: store, path: out}");
    for rule in ["refuse", "mask"] {
        let done = bench.run_config(&config, &[SECRET[0], SECRET[1], "--secrets-in-artifacts", rule]);
        done.exits_with(1);
        let text = done.text("build", "store");
        for line in [
            "out/app.whl holds the value of TOKEN, in its member conf/app\n",
            "out/inner.zip holds the value of TOKEN",
            "out/logs holds the value of TOKEN, packed in it\n",
            "out/z holds the value of TOKEN, packed in it\n",
        ] {
            assert!(text.contains(line), "{rule}: {line}: {text}");
        }
        assert!(!text.contains("fine"), "{rule}: {text}");
        let reason = done.step("build", "store").event.get("outcome").to_string();
        assert!(reason.contains("nothing is stored: out/app.whl holds the value of TOKEN"), "{rule}: {reason}");
        assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().starts_with("There are no artifacts"), "{rule}");
    }
    bench.run_config(&config, &[SECRET[0], SECRET[1], "--secrets-in-artifacts=allow"]).passes();
    assert!(bench.ask(&["artifacts", "ls"]).passes().stdout().contains("out/app.whl"));
}

#[test]
fn what_is_packed_and_not_looked_into_is_named() {
    let bench = Bench::new();
    let command =
        "mkdir -p out cached; echo fine | xz >out/data; echo fine | gzip | gzip | gzip >out/deep; echo fine >out/text
cp out/data cached/data";
    let steps = "      - store_artifacts: {name: store, path: out}
      - save_cache: {name: save, key: k, paths: [cached]}";
    let done = bench.run_config(&storing(command, steps), &SECRET);
    done.passes();
    let text = done.text("build", "store");
    for line in [
        "Not looked into for secrets: out/data is packed by xz, which Navvy does not unpack\n",
        "Not looked into for secrets: out/deep holds what is packed more than 2 times over\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("secrets: out/text"), "{text}");
    assert!(done.warnings().contains("not looked into for secrets: out/"), "{}", done.warnings());
    let text = done.text("build", "save");
    let line = "Not looked into for secrets: /home/circleci/project/cached/data is packed by xz";
    assert!(text.contains(line), "{text}");
    let without = bench.run_config(&storing(command, steps), &[]);
    without.passes();
    assert!(!without.text("build", "store").contains("Not looked into"), "there are no secrets to look for");
}
