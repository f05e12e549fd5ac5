//! `circleci tests …`: lists of tests and each node's share of them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn binary() -> String {
    std::env::var("NAVVY_TEST_SUPERVISOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_navvy-supervisor").to_owned())
}

/// What `circleci tests …` said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn names(&self) -> Vec<&str> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.lines().collect()
    }
}

struct Job {
    room: tempfile::TempDir,
    total: usize,
}

impl Job {
    fn of(total: usize) -> Self {
        Self { room: tempfile::tempdir().unwrap(), total }
    }

    fn path(&self) -> &Path {
        self.room.path()
    }

    /// A file below the job's directory; `circle-test-results/results.json` holds its timings.
    fn with(self, path: &str, text: &str) -> Self {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn tests(&self, node: usize, arguments: &[&str], input: &str) -> Said {
        self.said(Command::new(binary()), node, arguments, input)
    }

    /// As a user for whom modes count.
    fn as_nobody(&self, arguments: &[&str]) -> Said {
        use std::os::unix::process::CommandExt as _;
        // Where that user may go, and written by a process of its own: what is open for writing cannot be run.
        let program = self.path().join(".program");
        if !program.exists() {
            let copied = Command::new("install").args(["-m", "755", &binary()]).arg(&program).status();
            assert!(copied.unwrap().success());
        }
        let mut command = Command::new(program);
        command.uid(65534).gid(65534);
        self.said(command, 0, arguments, "")
    }

    fn said(&self, mut command: Command, node: usize, arguments: &[&str], input: &str) -> Said {
        let mut child = command
            .args(["cli", "tests"])
            .args(arguments)
            .current_dir(self.path())
            .env("CIRCLE_NODE_INDEX", node.to_string())
            .env("CIRCLE_NODE_TOTAL", self.total.to_string())
            .env("CIRCLE_INTERNAL_TASK_DATA", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Those that read no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The shares of all nodes, in their order.
    fn shares(&self, arguments: &[&str], input: &str) -> Vec<Vec<String>> {
        let share = |node| {
            let words: Vec<&str> = ["split"].iter().chain(arguments).copied().collect();
            self.tests(node, &words, input).names().into_iter().map(str::to_owned).collect()
        };
        (0..self.total).map(share).collect()
    }
}

#[test]
fn globs_find_files_across_directories() {
    let job = Job::of(1).with("test/a_test.py", "").with("test/deep/b_test.py", "").with("test/c.rb", "");
    let found = |patterns: &[&str]| {
        let said = job.tests(0, &[&["glob"], patterns].concat(), "");
        said.names().join(" ")
    };
    assert_eq!(found(&["test/**/*_test.py"]), "test/a_test.py test/deep/b_test.py");
    assert_eq!(found(&["test/*.rb", "test/*.{py,rb}"]), "test/a_test.py test/c.rb");
    assert_eq!(found(&["test/*"]), "test/a_test.py test/c.rb", "directories are no tests");
    assert_eq!(found(&["nothing/**"]), "");
    assert_eq!(job.tests(0, &["glob"], "").code, 64);
}

#[test]
fn globs_may_begin_with_a_wild_card() {
    let job = Job::of(1).with("a_test.py", "").with("deep/er/b_test.py", "").with("x/c.go", "").with("d.go", "");
    let found = |patterns: &[&str]| {
        let said = job.tests(0, &[&["glob"], patterns].concat(), "");
        assert_eq!(said.err, "", "{patterns:?}");
        said.names().join(" ")
    };
    assert_eq!(found(&["**/*_test.py"]), "a_test.py deep/er/b_test.py");
    assert_eq!(found(&["./**/*.py"]), "a_test.py deep/er/b_test.py");
    assert_eq!(found(&["*.go"]), "d.go");
    assert_eq!(found(&["*/c.go"]), "x/c.go");
    assert_eq!(found(&["?.go", "[a-c]*.py"]), "a_test.py d.go");
    assert_eq!(found(&["{x,nowhere}/*.go"]), "x/c.go");
    assert_eq!(found(&["**"]), "a_test.py d.go deep/er/b_test.py x/c.go");
    let absolute = format!("{}/*.go", job.path().display());
    assert_eq!(found(&[&absolute]), format!("{}/d.go", job.path().display()));
}

#[test]
fn a_glob_that_matches_nothing_warns() {
    let job = Job::of(1).with("a.py", "").with("spec/b.rb", "");
    let said = job.tests(0, &["glob", "*.py", "**/*.tset.py", "nowhere/*", "spe*"], "");
    assert_eq!(said.names(), ["a.py"]);
    let warnings: Vec<&str> = said.err.lines().collect();
    let [tset, nowhere, spec] = warnings[..] else { panic!("{warnings:?}") };
    assert!(tset.starts_with("WARN: circleci tests glob: nothing matches \"**/*.tset.py\" below /"), "{tset}");
    assert!(nowhere.contains("nothing matches \"nowhere/*\""), "{nowhere}");
    assert!(spec.contains("\"spe*\" matches directories alone"), "{spec}");
}

#[test]
fn a_glob_tells_where_it_could_not_look() {
    let job = Job::of(1).with("a.py", "").with("closed/b.py", "").with("closed/deep/c.py", "");
    let closed = job.path().join("closed");
    for path in [job.path().to_owned(), closed.join("deep"), closed.clone()] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mode = |mode| std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    // Not to be listed, and not even to be entered.
    for closed in [0o311, 0o000] {
        mode(closed);
        let said = job.as_nobody(&["glob", "**/*.py"]);
        assert_eq!(said.names(), ["a.py"]);
        assert!(
            said.err.contains("WARN: circleci tests glob: cannot look into closed: permission denied"),
            "{}",
            said.err
        );
        let said = job.as_nobody(&["glob", "closed/*.py"]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
        assert!(said.err.contains("closed: permission denied"), "{}", said.err);
    }
    let said = job.as_nobody(&["glob", "closed/b.py"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
    assert!(said.err.contains("closed/b.py: permission denied"), "{}", said.err);
    mode(0o311);
    assert_eq!(job.as_nobody(&["glob", "closed/b.py"]).names(), ["closed/b.py"], "a name may be known");
}

#[test]
fn by_name_the_nodes_take_turns() {
    let job = Job::of(3);
    assert_eq!(job.shares(&[], "d b\n\n c\te\n a\r\n"), [vec!["a", "d"], vec!["b", "e"], vec!["c"]]);
    assert_eq!(job.shares(&[], "only\n"), [vec!["only"], vec![], vec![]]);
    assert_eq!(job.shares(&[], ""), [vec![] as Vec<&str>, vec![], vec![]]);
    let job = job.with("list", "x y");
    assert_eq!(job.shares(&["list"], "ignored"), [vec!["x"], vec!["y"], vec![]]);
    let missing = job.tests(0, &["split", "nowhere"], "");
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("from nowhere"), "{}", missing.err);
}

const TIMINGS: &str = r#"{"tests": [{"file": "t10", "run_time": 10}, {"file": "t6", "run_time": 6},
    {"file": "t5", "run_time": 5}, {"file": "t4", "run_time": 4}, {"file": "t3", "run_time": 3}, {"file": "t2", "run_time": 2}]}"#;

#[test]
fn by_timings_the_nodes_take_the_same_time_whatever_the_order_of_the_list() {
    let job = Job::of(3).with("circle-test-results/results.json", TIMINGS);
    let expected = [vec!["t10"], vec!["t2", "t3", "t6"], vec!["t4", "t5"]];
    assert_eq!(job.shares(&["--split-by=timings"], "t2 t3 t4 t5 t6 t10"), expected);
    assert_eq!(job.shares(&["--split-by=timings"], "t10 t6 t5 t4 t3 t2"), expected);
    let counted = job.tests(0, &["split", "--split-by=timings", "--show-counts"], "t2 t3 t4 t5 t6 t10");
    assert_eq!(counted.err, "6 tests over 3 nodes: 1 3 2; this is node 0 with 1\n");
}

#[test]
fn without_timings_it_goes_by_name() {
    let job = Job::of(2);
    let said = job.tests(0, &["split", "--split-by=timings"], "a b c");
    assert_eq!(said.names(), ["a", "c"]);
    assert!(said.err.starts_with("Error reading historical timing data: file does not exist\n"), "{}", said.err);
    let job = job.with("circle-test-results/results.json", "{\"tests\":");
    let said = job.tests(0, &["split", "--split-by=timings"], "a b c");
    assert_eq!(said.names(), ["a", "c"]);
    assert!(said.err.contains("Falling back to weighting by name."), "{}", said.err);
}

#[test]
fn by_file_size_the_nodes_read_the_same_amount() {
    let job = Job::of(2).with("big", &"x".repeat(100)).with("half", &"x".repeat(60)).with("rest", &"x".repeat(50));
    assert_eq!(job.shares(&["--split-by=filesize"], "rest half big"), [vec!["big"], vec!["half", "rest"]]);
}

#[test]
fn a_file_whose_size_cannot_be_had_is_told_with_the_reason() {
    let job = Job::of(1).with("big", "xxx");
    std::os::unix::fs::symlink("loop", job.path().join("loop")).unwrap();
    let said = job.tests(0, &["split", "--split-by=filesize"], "big loop none");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("The size of \"loop\" is not known: Too many levels of symbolic links"), "{}", said.err);
    assert!(said.err.contains("No file found for \"none\"") && !said.err.contains("for \"loop\""), "{}", said.err);
}

#[test]
fn a_command_runs_with_the_share_on_its_stdin() {
    let job = Job::of(2);
    let said = job.tests(1, &["run", "--command", "xargs -n1 echo test", "--verbose"], "a b c d");
    assert_eq!((said.code, said.out.as_str()), (0, "test b\ntest d\n"));
    assert!(said.err.contains("2 of 4 tests go to: xargs"), "{}", said.err);
    assert_eq!(job.tests(0, &["run", "--command=cat"], "a b c").out, "a c\n");
    assert_eq!(job.tests(0, &["run", "--command=exit 7"], "a b").code, 7);
    assert_eq!(job.tests(0, &["run", "--command=false | true"], "a b").code, 1, "as in a step");
    assert_eq!(job.tests(0, &["run", "--command=kill -9 $$"], "a b").code, 137);
    // It may leave its input unread.
    assert_eq!(job.tests(0, &["run", "--command=true"], &"name ".repeat(100_000)).code, 0);
}

#[test]
fn a_node_with_nothing_to_do_runs_nothing() {
    let job = Job::of(2);
    let idle = job.tests(1, &["run", "--command=echo never"], "one");
    assert_eq!((idle.code, idle.out.as_str()), (0, ""));
    assert!(idle.err.contains("Nothing is left for node 1 of 2"), "{}", idle.err);
    let nothing = job.tests(0, &["run", "--command=echo never"], " \n");
    assert_eq!((nothing.code, nothing.out.as_str()), (0, ""));
    assert!(nothing.err.contains("no test names were given"), "{}", nothing.err);
}

#[test]
fn mistakes_are_named_and_help_is_given() {
    let job = Job::of(1);
    let wrong = job.tests(0, &["split", "--split-by=speed"], "a");
    assert_eq!(wrong.code, 64);
    assert!(wrong.err.contains("circleci tests split: --split-by=speed: expected name"), "{}", wrong.err);
    assert_eq!(job.tests(0, &["run"], "a").code, 64);
    let help = job.tests(0, &["split", "--help"], "");
    assert!(help.names().iter().any(|line| line.contains("--timings-type")));
    let near = job.tests(0, &["spilt"], "");
    assert!(near.err.contains("Did you mean \"circleci tests split\"?"), "{}", near.err);
}
