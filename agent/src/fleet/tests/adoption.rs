//! Agents that are killed in the middle of a task, and the one that goes on in their place.

use std::collections::BTreeMap;

use navvy_output::log_ends;

use super::*;
use crate::fleet::carry::go_on;
use crate::fleet::left::{Found, NotTaken, take_over};

impl Bench {
    /// All that another process would find: nothing of the killed one runs on. What is left of it in this process has ended
    /// when its logs are closed, which a killed one would not have done.
    async fn kill(&self, running: JoinHandle<Carried>) {
        running.abort();
        running.await.unwrap_err();
        self.world.hang_up();
        self.wait("the logs' ends", || {
            let ends = log_ends(&self.task_logs()).unwrap();
            ends.iter().all(|end| end.sha256.is_some())
        })
        .await;
    }

    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came; asked: {:#?}", self.world.asked());
            tokio::task::yield_now().await;
        }
    }

    async fn find(&self) -> Result<Found, NotTaken> {
        let task = "0123456789abcdef".parse().unwrap();
        loop {
            match take_over(&self.machine, &self.fake.url(), &task).await {
                // What the killed one had open is closed on threads of this process.
                Err(NotTaken::Busy) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    }

    fn start_again(&self, found: Found) -> JoinHandle<Carried> {
        let processor = Processor::new(&Address { url: self.fake.url(), ..Address::default() }).unwrap();
        let (machine, stop) = (self.machine.clone(), self.stop.subscribe());
        tokio::spawn(async move { go_on(&processor, &machine, found, stop, Box::new(())).await })
    }

    async fn go_on(&self) -> JoinHandle<Carried> {
        let found = self.find().await.unwrap_or_else(|error| panic!("{error}"));
        self.start_again(found)
    }

    async fn until_logged(&self, log: &str, text: &[u8]) {
        self.world.until_asked("prepare").await;
        let path = self.task_logs().join(format!("{log}.log"));
        self.wait("the text", || std::fs::read(&path).is_ok_and(|log| log.ends_with(text))).await;
    }

    /// No event of a step or of the task's states was told twice.
    fn check_events(&self) {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for event in &self.fake.state().events {
            let key = ["event", "step", "attempt", "state"].map(|field| event[field].to_string()).join(" ");
            *seen.entry(key).or_default() += 1;
        }
        let twice =
            seen.iter().filter(|(key, count)| **count > 1 && !key.contains("warning") && !key.contains("report"));
        assert_eq!(twice.count(), 0, "{seen:#?}");
    }
}

fn passed() -> serde_json::Value {
    serde_json::json!({ "verdict": "passed" })
}

#[tokio::test]
async fn a_killed_agents_step_is_gone_on_with_at_its_byte_even_in_the_midst_of_a_secret() {
    let bench = Bench::new([run("build"), run("test")]).await;
    let lines: String = (0..20_000).map(|number| format!("line {number} hunter2hunter2\n")).collect();
    let (first, rest) = lines.split_at(lines.find("line 15000").unwrap() + "line 15000 hunter2hu".len());
    let mut acts: Vec<Act> = writes(first.as_bytes()).collect();
    acts.extend([Act::Waits("more"), says(rest), Act::Waits("end"), exits(0)]);
    bench.world.script("build", acts);
    bench.world.script("test", [says("hunter2hunter2 second\n"), exits(0)]);
    let running = bench.start();
    bench.until_logged("001-1", b"line 15000 ").await;
    bench
        .fake
        .until("its start", |state| {
            state.events.iter().any(|event| event["event"] == "step_started" && event["step"] == 1)
        })
        .await;
    bench.fake.until("a durable beginning", |state| state.segments.iter().any(|segment| segment.log == "001-1")).await;
    bench.kill(running).await;
    let running = bench.go_on().await;
    bench.world.say("more");
    bench.until_logged("001-1", b"line 19999 ****\n").await;
    // Once more, where all but the end is here.
    bench.kill(running).await;
    let running = bench.go_on().await;
    bench.world.say("end");
    assert_eq!((running.await.unwrap(), bench.verdict()), (reported(), passed()));
    assert!(bench.fake.log("001-1") == lines.replace("hunter2hunter2", "****").as_bytes());
    assert_eq!(bench.fake.log("002-1"), b"**** second\n");
    bench.check_logs();
    bench.check_events();
    let count = |line: &str| bench.world.asked().iter().filter(|asked| *asked == line).count();
    assert_eq!((count("prepare"), count("exec 1-1"), count("exec 2-1"), count("destroy")), (1, 1, 1, 1));
    // It did not come all again.
    assert!(!bench.world.asked().contains(&"attach 1-1 from 0".to_owned()), "{:?}", bench.world.asked());
    assert_eq!(bench.spools(), 0);
}

#[tokio::test]
async fn a_task_whose_lease_is_over_is_removed_and_its_spool_stays() {
    let bench = Bench::new([run("build")]).await;
    bench.world.script("build", [says("kept\n"), Act::UntilKilled]);
    let running = bench.start();
    bench.until_logged("001-1", b"kept\n").await;
    bench.kill(running).await;
    let found = bench.find().await.unwrap_or_else(|error| panic!("{error}"));
    bench.fake.state().is_lost = true;
    bench.fake.cut();
    assert!(matches!(bench.start_again(found).await.unwrap(), Carried::Lost { .. }));
    assert_eq!((bench.fake.state().finishes.len(), bench.world.count("remove")), (0, 1));
    assert_eq!(std::fs::read(bench.task_logs().join("001-1.log")).unwrap(), b"kept\n");
    assert!(!navvy_journal::path(&bench.machine.paths.state, &"0123456789abcdef".parse().unwrap()).exists());
}

#[tokio::test]
async fn a_task_that_was_not_allowed_to_begin_asks_again() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().says_state = Some("preparing");
    let running = bench.start();
    bench.fake.until("the beat", |state| state.beats.iter().any(|beat| beat.state == "running")).await;
    bench.kill(running).await;
    let running = bench.go_on().await;
    bench.wait("the environment", || bench.world.count("adopt") == 1).await;
    assert_eq!(bench.world.count("exec"), 0);
    bench.fake.state().says_state = None;
    bench.fake.cut();
    assert_eq!((running.await.unwrap(), bench.verdict()), (reported(), passed()));
    assert_eq!(bench.world.count("exec 1-1"), 1);
    bench.check_events();
}

#[tokio::test]
async fn what_runs_in_the_background_is_heard_again_and_the_failure_before_counts() {
    let background = |mut step: Step| {
        if let navvy_job::compiled::StepKind::Run(run) = &mut step.kind {
            run.background = true;
        }
        step
    };
    let mut last = run("report");
    last.when = navvy_job::compiled::When::Always;
    let bench = Bench::new([background(run("serve")), run("fails"), last]).await;
    bench.world.script("serve", [says("up\n"), Act::Waits("served"), says("served\n"), Act::UntilStopped]);
    bench.world.script("fails", [exits(4)]);
    bench.world.script("report", [says("begun\n"), Act::Waits("end"), exits(0)]);
    let running = bench.start();
    bench.until_logged("003-1", b"begun\n").await;
    bench.kill(running).await;
    let running = bench.go_on().await;
    bench.wait("the background step", || bench.world.asked().contains(&"attach 1-1 from 0".to_owned())).await;
    bench.world.say("served");
    bench.until_logged("001-1", b"served\n").await;
    bench.world.say("end");
    assert_eq!(running.await.unwrap(), reported());
    assert_eq!(bench.verdict(), serde_json::json!({ "verdict": "failed", "step": 2, "name": "fails" }));
    assert_eq!((bench.fake.log("001-1"), bench.fake.log("003-1")), (b"up\nserved\n".to_vec(), b"begun\n".to_vec()));
    bench.check_logs();
    bench.check_events();
    assert_eq!((1..=3).map(|step| bench.world.count(&format!("exec {step}-"))).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
async fn of_another_processors_task_nothing_is_touched() {
    let bench = Bench::new([run("build")]).await;
    bench.world.script("build", [says("begun\n"), Act::Waits("end"), exits(0)]);
    let running = bench.start();
    bench.until_logged("001-1", b"begun\n").await;
    bench.kill(running).await;
    let task = "0123456789abcdef".parse().unwrap();
    let elsewhere = loop {
        match take_over(&bench.machine, "http://127.0.0.1:1", &task).await {
            Err(NotTaken::Busy) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(matches!(elsewhere, Err(NotTaken::Elsewhere { .. })));
    assert_eq!(bench.world.count("take over"), 0);
    let running = bench.go_on().await;
    bench.world.say("end");
    assert_eq!(running.await.unwrap(), reported());
}

#[tokio::test]
async fn what_cannot_be_understood_is_removed_and_said() {
    let bench = Bench::new([run("build")]).await;
    bench.world.script("build", [says("begun\n"), Act::UntilKilled]);
    let running = bench.start();
    bench.until_logged("001-1", b"begun\n").await;
    bench.kill(running).await;
    bench.world.remember(b"{\"left\":1}");
    let Err(NotTaken::Gone { why, left }) = bench.find().await else { panic!("it was taken") };
    assert!(why.contains("not understood") && left.is_empty(), "{why}");
    assert_eq!(bench.world.count("remove"), 1);
}
