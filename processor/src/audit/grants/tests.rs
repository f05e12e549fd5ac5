use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;

#[derive(Default)]
struct Kept {
    objects: Mutex<BTreeMap<String, Bytes>>,
    fails: Mutex<bool>,
}

#[async_trait]
impl AuditStore for Kept {
    async fn put(&self, name: &str, lines: Bytes) -> Result<(), navvy_storage::StorageError> {
        if *self.fails.lock().unwrap() {
            return Err(navvy_storage::StorageError::IgnoresConditions { store: "broken".to_owned() });
        }
        self.objects.lock().unwrap().insert(name.to_owned(), lines);
        Ok(())
    }
}

impl Kept {
    /// `WHO VERB OBJECT` of every grant that the store has a line of, in order.
    fn grants(&self) -> Vec<String> {
        let mut grants = Vec::new();
        for lines in self.objects.lock().unwrap().values() {
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line).unwrap();
                assert_eq!((&line["action"], &line["version"]), (&json!("object.grant"), &json!(1)));
                let payload = &line["payload"];
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                for grant in payload["grants"].as_array().unwrap() {
                    let object = text(&payload["beneath"]) + &text(&grant["object"]);
                    grants.push(format!("{} {} {object}", text(&line["actor"]["name"]), text(&payload["verb"])));
                }
            }
        }
        grants.sort();
        grants
    }
}

fn access(task: &str) -> TaskAccess {
    TaskAccess {
        task: task.into(),
        fence: 1,
        pipeline: "p".into(),
        project: "shop".into(),
        scope: "local".parse().unwrap(),
        workspace: "w".into(),
    }
}

async fn three(log: &GrantLog) {
    log.note(By::Task(&access("t1")), Verb::Put, "v1/log/p/t1/003-1/0-aa").await.unwrap();
    log.note(By::Task(&access("t1")), Verb::Put, "v1/log/p/t1/003-1/9-bb").await.unwrap();
    log.note(By::Person { actor: "me", project: "shop" }, Verb::Get, "v1/body/x").await.unwrap();
}

const THREE: [&str; 3] = ["me get v1/body/x", "t1 put v1/log/p/t1/003-1/0-aa", "t1 put v1/log/p/t1/003-1/9-bb"];

#[tokio::test]
async fn two_processors_on_one_directory_carry_each_other_s_grants_and_go_on_noting() {
    let directory = tempfile::tempdir().unwrap();
    let kept = Kept::default();
    let (one, ones) = GrantLog::open(directory.path()).unwrap();
    three(&one).await;
    let (other, others) = GrantLog::open(directory.path()).unwrap();
    // The first one closes its file and cannot carry it.
    *kept.fails.lock().unwrap() = true;
    assert!(ones.carry_all(&kept).await.is_err());
    *kept.fails.lock().unwrap() = false;
    others.carry_all(&kept).await.unwrap();
    assert_eq!(kept.grants(), THREE);
    ones.carry_all(&kept).await.unwrap();
    for (log, carrier) in [(&one, &ones), (&other, &others)] {
        assert_eq!(carrier.waiting.load(Ordering::Relaxed), 0);
        log.note(By::Person { actor: "me", project: "shop" }, Verb::Get, "v1/body/y").await.unwrap();
    }
}

#[tokio::test]
async fn grants_are_in_the_store_once_however_often_they_are_carried() {
    let directory = tempfile::tempdir().unwrap();
    let (log, carrier) = GrantLog::open(directory.path()).unwrap();
    three(&log).await;
    let kept = Kept::default();
    *kept.fails.lock().unwrap() = true;
    assert!(carrier.carry_all(&kept).await.is_err());
    *kept.fails.lock().unwrap() = false;
    let file = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    carrier.carry_all(&kept).await.unwrap();
    assert_eq!(kept.grants(), THREE);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // Killed behind the put, before the file was removed.
    fs::write(&file, bytes).unwrap();
    carrier.waiting.store(1 << 20, Ordering::Relaxed);
    carrier.carry_all(&kept).await.unwrap();
    assert_eq!(kept.grants(), THREE);
}

#[tokio::test]
async fn what_a_killed_processor_noted_the_next_one_carries_but_not_what_another_still_writes() {
    let directory = tempfile::tempdir().unwrap();
    let (log, carrier) = GrantLog::open(directory.path()).unwrap();
    three(&log).await;
    // Another one in the same directory leaves the file that is written alone.
    let kept = Kept::default();
    let (_log, beside) = GrantLog::open(directory.path()).unwrap();
    beside.carry_all(&kept).await.unwrap();
    assert_eq!(kept.grants(), [""; 0]);
    // A kill: nothing is closed or carried. The lock is gone with the thread's file.
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut torn = fs::read(&left[0]).unwrap();
    torn.extend(b"{\"at_ms\":1,\"ki");
    drop((log, carrier, beside));
    let after = tempfile::tempdir().unwrap();
    fs::write(after.path().join(left[0].file_name().unwrap()), torn).unwrap();
    let (_log, carrier) = GrantLog::open(after.path()).unwrap();
    carrier.carry_all(&kept).await.unwrap();
    assert_eq!(kept.grants(), THREE);
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_granted() {
    let directory = tempfile::tempdir().unwrap();
    let (log, carrier) = GrantLog::open(directory.path()).unwrap();
    carrier.waiting.store(MOST_WAITING + 1, Ordering::Relaxed);
    let refused = log.note(By::Task(&access("t1")), Verb::Put, "v1/body/x").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    carrier.waiting.store(0, Ordering::Relaxed);
    fs::remove_dir_all(directory.path()).unwrap();
    assert!(log.note(By::Task(&access("t1")), Verb::Put, "v1/body/x").await.is_err());
}
