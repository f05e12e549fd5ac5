//! What opening a stranger's directory does on the host: nothing. Every attack of the generator meets every command.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use navvy_tests::hostile::{ATTACKS, Attack, Hostile, SECRET};
use navvy_tests::{Bench, Finished, Unhindered};

/// The job looks for the host's secret in all that it was given, and prints what it finds.
const CONFIG: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    environment: {SUBJECT: << pipeline.git.commit.subject >>}
    steps:
      - checkout
      - restore_cache: {keys: ['v1-{{ checksum "package.json" }}']}
      - run:
          name: look
          command: |
            # step
            set +e
            env | grep -a 'HOST-SECRE[T]'
            grep -ra 'HOST-SECRE[T]' .
            find . -name .git -type d | while read -r repository; do
              git --git-dir "$repository" cat-file --batch-all-objects --batch --unordered | grep -a 'HOST-SECRE[T]'
            done
            mkdir -p /tmp/kept
            echo looked
      - save_cache: {key: 'v1-{{ checksum "package.json" }}', paths: [/tmp/kept]}
workflows: {ci: {jobs: [build]}}
"#;

/// Every command that looks at a project, as words. The run first: it saves a cache, which others then explain.
const COMMANDS: &[&[&str]] = &[
    &["run", "--json"],
    &["config", "validate"],
    &["config", "process"],
    &["run", "--list"],
    &["run", "--dry-run"],
    &["run", "--graph"],
    &["orb", "list"],
    &["orb", "lock"],
    &["cache", "ls"],
    &["cache", "explain"],
    &["cache", "rm", "none"],
    &["artifacts", "ls"],
    &["tests"],
    &["logs"],
    &["ps"],
    &["prune"],
];

/// None may take longer, a job's start included.
const LIMIT: Duration = Duration::from_secs(10);
/// Of the agent, and of all programs that it runs together.
const MOST_KIB: u64 = 300 << 10;

/// However busy the machine is.
const END: Duration = Duration::from_secs(60);

/// Who carries out a command beside others reads; who wants the machine for itself writes.
static ALONE: RwLock<()> = RwLock::new(());

/// Carries out a command. What hangs hangs again, and a busy machine is only slow: a command that took too long is asked once
/// more, with nothing of this story beside it, and what others keep the processors busy with does not count.
fn carried_out(bench: &Bench, words: &[&str]) -> Option<Finished> {
    let within = |limit| bench.start(words).that_leaves_things().finish_or_hang(limit).ok();
    let beside_others = {
        let _reading = ALONE.read().unwrap_or_else(PoisonError::into_inner);
        within(LIMIT)
    };
    beside_others.or_else(|| {
        let _writing = ALONE.write().unwrap_or_else(PoisonError::into_inner);
        let took = Unhindered::since_now();
        within(END).filter(|_| took.elapsed() <= LIMIT)
    })
}

#[test]
fn a_strangers_directory_reads_nothing_runs_nothing_and_holds_nobody_up() {
    let wanted = std::env::var("NAVVY_ATTACK").unwrap_or_default();
    let attacks: Vec<&Attack> = ATTACKS.iter().filter(|attack| attack.name.contains(&wanted)).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(attack) = attacks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    failed.lock().unwrap().extend(attacked(attack));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} attacks:\n{}", failed.len(), attacks.len(), failed.join("\n"));
}

/// What came of it that must not be.
fn attacked(attack: &Attack) -> Option<String> {
    // Entries of the path that depend on where somebody stands are a way in as well.
    let path = format!(".:bin:{}", std::env::var("PATH").unwrap_or_default());
    let bench = Bench::new().env("PATH", &path);
    let outside = bench.home().join("outside");
    let hostile = Hostile::make(attack, &bench.project(), &outside, CONFIG);
    let mut wrong = Vec::new();
    for words in COMMANDS {
        let Some(done) = carried_out(&bench, words) else {
            wrong.push(format!("{words:?} hangs"));
            continue;
        };
        let events: Vec<String> = done.events.iter().map(|event| format!("{event:?}\n")).collect();
        let told = format!("{}{}{}", done.stdout(), done.stderr, events.concat());
        if told.contains(SECRET) {
            let line = told.lines().find(|line| line.contains(SECRET)).unwrap_or_default();
            let line: String = line.chars().take(300).collect();
            wrong.push(format!("{words:?} tells what the host has: {line}"));
        }
        if words.contains(&"--json") {
            // Either the job runs, or the run has not passed: it was refused, or its checkout was.
            let has_looked = done.events.iter().any(|event| event.is_output_with("looked"));
            if !has_looked && done.exit_code == 0 {
                wrong.push(format!("{words:?} ran no job and passed"));
            }
            // What a cache's key was made of is another file now, and its history is asked for.
            let key = bench.project().join("package.json");
            if key.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                bench.file("package.json", "{\"other\": 1}\n");
            }
        }
        for (who, took) in [("itself", done.peak_kib), ("with its programs", done.programs_peak_kib)] {
            if took > MOST_KIB {
                wrong.push(format!("{words:?} took {} MiB {who}", took >> 10));
            }
        }
        // A panic, or the end by a signal.
        if done.exit_code >= 100 {
            wrong.push(format!("{words:?} ended with {}: {}", done.exit_code, done.stderr));
        }
    }
    let ran = hostile.ran();
    if !ran.is_empty() || bench.project().join("ran").exists() {
        wrong.push(format!("programs were run: {ran}"));
    }
    (!wrong.is_empty()).then(|| format!("- {}: {}", attack.name, wrong.join("; ")))
}
