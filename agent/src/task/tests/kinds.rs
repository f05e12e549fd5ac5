//! Steps that the agent carries out itself, with a store in a directory.

use std::sync::Arc;

use navvy_checkout::{CheckoutSource, Elsewhere, WorkingTree};
use navvy_environment::request::Died;
use navvy_job::claim::Upstream;
use navvy_job::compiled::Checkout;
use navvy_job::outcome::Verdict;
use navvy_protocol::supervisor::{Failure, FailureKind};

use super::bench::LIMIT;
use super::*;
use crate::environment::fake::{Act, exits, says};

const PROJECT: &str = "/home/fake/project";

fn save(key: &str, paths: &[&str]) -> Step {
    step("save", StepKind::SaveCache { key: key.to_owned(), paths: texts(paths) })
}

fn restore(keys: &[&str]) -> Step {
    step("restore", StepKind::RestoreCache { keys: texts(keys) })
}

fn persist(root: &str, paths: &[&str]) -> Step {
    step("persist", StepKind::PersistToWorkspace { root: root.to_owned(), paths: texts(paths) })
}

fn attach(at: &str) -> Step {
    step("attach", StepKind::AttachWorkspace { at: at.to_owned() })
}

fn artifacts(path: &str) -> Step {
    step("artifacts", StepKind::StoreArtifacts { path: path.to_owned(), destination: None })
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn read(bench: &Bench, path: &str) -> String {
    std::fs::read_to_string(bench.world.place(path)).unwrap_or_else(|error| error.to_string())
}

fn has_line(log: &str, line: &str) -> bool {
    log.lines().any(|found| found == line)
}

// ---- caches ----

#[tokio::test(start_paused = true)]
async fn what_a_cache_saved_is_there_again_after_it_is_restored() {
    let key = "deps-{{ checksum \"lock\" }}";
    let mut bench = Bench::new([save(key, &["~/deps", "~/missing"]), run("wipe"), restore(&["other-", key])]);
    bench.world.write("/home/fake/project/lock", "1");
    bench.world.write("/home/fake/deps/a/b", "cached");
    bench.world.script("wipe", [Act::Waits("wiped")]);
    let running = bench.start();
    bench.world.until_asked("exec 2-1").await;
    std::fs::remove_dir_all(bench.world.place("/home/fake/deps")).unwrap();
    bench.world.say("wiped");
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    let (saved, restored) = (bench.log(1, 1), bench.log(3, 1));
    assert!(has_line(&saved, "Warning: could not archive /home/fake/missing - Not found"), "{saved}");
    assert!(saved.contains("Stored Cache to deps-"), "{saved}");
    assert!(has_line(&restored, "No cache is found for key: other-"), "{restored}");
    assert!(has_line(&restored, "  * /home/fake/deps") && !restored.contains("missing"), "{restored}");
    assert_eq!(read(&bench, "/home/fake/deps/a/b"), "cached");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_there_is_not_saved_again_and_one_that_is_empty_never() {
    let mut bench =
        Bench::new([save("k", &["~/deps"]), save("k", &["~/deps"]), save("none", &["~/missing"]), restore(&["none"])]);
    bench.world.write("/home/fake/deps/a", "cached");
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert!(bench.log(2, 1).starts_with("Skipping cache generation, cache already exists for key: k\n"));
    assert!(has_line(&bench.log(3, 1), "Skipping cache generation, none of its paths exist"));
    assert_eq!(bench.log(4, 1), "No cache is found for key: none\n");
    assert_eq!(bench.world.count("pack"), 2, "what is there is not packed");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_is_told_and_the_job_goes_on() {
    let mut bench = Bench::new([save("k", &["~/deps"]), restore(&["{{ nonsense }}"]), run("build")]);
    bench.world.write("/home/fake/deps/a", "cached");
    bench.world.refuse("pack", Failure::new(FailureKind::Other, "the disk broke"));
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    let warnings = bench.told_of("warning ");
    assert_eq!(warnings[0], "step 1 (save) failed and the job goes on: the disk broke");
    assert!(warnings[1].starts_with("step 2 (restore) failed and the job goes on: "), "{warnings:?}");
    assert_eq!(bench.world.count("exec 3-1"), 1);
}

// ---- workspaces ----

#[tokio::test(start_paused = true)]
async fn a_workspace_goes_from_job_to_job() {
    let mut first = Bench::new([persist(".", &["out", "nothing"])]);
    first.world.write("/home/fake/project/out/a", "built");
    assert_eq!(first.run().await.verdict, Verdict::Passed);
    let log = first.log(1, 1);
    assert!(has_line(&log, "Warning: nothing did not match any files in /home/fake/project"), "{log}");

    let mut second = Bench::new([attach("/work")]);
    second.context.store = first.context.store.clone();
    second.claim.task = "fedcba9876543210".parse().unwrap();
    second.claim.upstream = vec![Upstream { job: "build".to_owned(), after: vec![] }];
    second.claim.job_name = "test".to_owned();
    assert_eq!(second.run().await.verdict, Verdict::Passed);
    assert_eq!(read(&second, "/work/out/a"), "built");
}

#[tokio::test(start_paused = true)]
async fn nothing_to_persist_fails_and_nothing_to_attach_does_not() {
    let mut bench = Bench::new([attach("/work"), persist("/work", &["out"])]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Failed { step: 2, name: "persist".to_owned() });
    assert_eq!(bench.log(1, 1), "There is no workspace yet: no job upstream has persisted anything\n");
    assert!(bench.world.place("/work").is_dir());
    let ends = bench.told_of("end 2-1 ");
    assert_eq!(ends, ["Error { reason: \"The specified paths did not match any files in /work\" }"]);

    let mut bench = Bench::new([persist("/none", &["out"])]);
    bench.run().await;
    let ends = bench.told_of("end 1-1 ");
    assert!(
        ends[0].contains("Error locating workspace root directory: stat /none: no such file or directory"),
        "{ends:?}"
    );
}

// ---- what is kept for people ----

#[tokio::test(start_paused = true)]
async fn artifacts_are_stored_and_a_missing_path_is_told() {
    let mut bench = Bench::new([artifacts("out"), artifacts("missing")]);
    bench.world.write("/home/fake/project/out/a.txt", "text");
    bench.world.write("/home/fake/project/out/sub/b.txt", "more");
    let result = bench.run().await;
    let (stored, missing) = (bench.log(1, 1), bench.log(2, 1));
    assert!(stored.starts_with("Uploading /home/fake/project/out to out\n") && stored.contains("a.txt"), "{stored}");
    assert_eq!(result.verdict, Verdict::Passed, "{missing}");
    assert!(missing.contains("missing"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn test_results_are_read_and_a_report_that_is_none_is_told() {
    let results = step("results", StepKind::StoreTestResults { path: "results".to_owned() });
    let mut bench = Bench::new([results]);
    let report = "<testsuite><testcase name='one'/><testcase name='two'><failure message='no'/></testcase></testsuite>";
    bench.world.write("/home/fake/project/results/sub/junit.xml", report);
    bench.world.write("/home/fake/project/results/broken.xml", "<testsuite><testcase");
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    let log = bench.log(1, 1);
    assert!(log.contains("two"), "{log}");
    let warnings = bench.told_of("warning ");
    assert!(warnings.iter().any(|warning| warning.contains("broken.xml")), "{warnings:?}");
}

// ---- checkout, and what is not here ----

fn checkout() -> Step {
    step("checkout", StepKind::Checkout(Checkout::default()))
}

#[tokio::test(start_paused = true)]
async fn a_checkout_copies_the_tree_and_refuses_a_directory_that_is_in_use() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), "mine").unwrap();
    let source = CheckoutSource::WorkingTree(Arc::new(WorkingTree::open(tree.path(), Elsewhere::Refused).unwrap()));
    let mut bench = Bench::new([checkout()]);
    bench.context.checkout = source.clone();
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert_eq!(read(&bench, &format!("{PROJECT}/file")), "mine");

    let mut bench = Bench::new([checkout()]);
    bench.context.checkout = source;
    bench.world.write("/home/fake/project/there", "before");
    assert_eq!(bench.run().await.verdict, Verdict::Failed { step: 1, name: "checkout".to_owned() });
    let ends = bench.told_of("end 1-1 ");
    assert!(ends[0].contains("/home/fake/project is not empty and is not a git repository"), "{ends:?}");
    assert_eq!(bench.world.count("unpack"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_here_is_skipped_counted_and_told() {
    let docker = StepKind::SetupRemoteDocker { docker_layer_caching: false, version: None };
    let orb = StepKind::OrbCommand { orb: "aws".to_owned(), command: "push".to_owned() };
    let mut bench = Bench::new([step("docker", docker), step("orb", orb), run("use")]);
    bench.world.script("use", [says("Cannot connect to the Docker daemon\n"), exits(1)]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Failed { step: 3, name: "use".to_owned() });
    assert_eq!(bench.told_of("skip "), ["1 NotAvailable", "2 OrbMissing"]);
    assert_eq!((result.skipped.len(), result.warnings), (2, 2));
    assert!(result.fidelity[0].starts_with("step 3 (use) failed. No Docker daemon was found"), "{:?}", result.fidelity);
}

// ---- what is lost ----

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_its_environment_in_a_step_of_the_agents_has_failed() {
    let mut bench = Bench::new([save("k", &["~/deps"]), run("next").when(When::Always)]);
    bench.world.write("/home/fake/deps/a", "cached");
    bench.world.die_at("pack", Died::Exited { code: 1, out_of_memory: false, last_words: String::new() });
    assert_eq!(bench.run().await.verdict, Verdict::Failed { step: 1, name: "save".to_owned() });
    let why = "the primary container ended with code 1 while the step ran";
    assert_eq!(bench.told_of("end 1-1 "), [format!("Error {{ reason: {why:?} }}")]);
    assert_eq!(bench.told_of("skip "), ["2 Stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_lost_in_a_step_of_the_agents_is_a_fault_of_ours() {
    let mut bench = Bench::new([save("k", &["~/deps"]), run("next").when(When::Always)]);
    bench.world.write("/home/fake/deps/a", "cached");
    bench.world.break_at("pack");
    // Time passes while threads are at work: not the job's.
    bench.claim.limits.job = LIMIT * 100_000;
    let running = bench.start();
    bench.until_told("start 1-1 save").await;
    bench.pass_until_told("skip 2 Stopped").await;
    assert!(matches!(bench.end(running).await.verdict, Verdict::Infra { fault } if fault.contains("supervisor")));
}
