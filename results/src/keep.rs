//! Results in the store: a piece for each step that stored some, a few runs of each job.
//!
//! ```text
//! group "tests of JOB"   producer RUN/ATTEMPT   node, step    what one step found, as [`Document`]
//! group "jobs with tests"   producer JOB                      says that there is such a job
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use navvy_storage::{About, Commit, Entry, Piece, PieceKind, Producer, Result, Slot, Store};
use serde::{Deserialize, Serialize};

use super::{Case, Outcome};

/// The version this code writes. A reader passes over a higher one.
const VERSION: u32 = 1;
/// Runs of a job that are kept.
pub const KEPT_RUNS: usize = 20;
/// Bytes of a document that is read.
const DOCUMENT_CAP: u64 = 256 << 20;
const PARALLEL_READS: usize = 4;
const JOBS: &str = "jobs with tests";

/// What a body holds, and a job's `results.json`: the original's form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// 0 is a document of the original's, which has no version.
    #[serde(default)]
    pub version: u32,
    /// In the order of the reports.
    pub tests: Vec<Test>,
}

/// A test case. Times are seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Test {
    /// As the report has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// As the report has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classname: Option<String>,
    /// As the report has it; empty if it has none.
    pub name: String,
    /// `success`, `flaky`, `skipped`, `failure`, `error`.
    pub result: String,
    /// `None` where the report does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_time: Option<f64>,
    /// What it said when it failed, or why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it failed: `spec/cart_spec.rb:12`, or the file alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

const RESULTS: [(Outcome, &str); 5] = [
    (Outcome::Passed, "success"),
    (Outcome::Flaky, "flaky"),
    (Outcome::Skipped, "skipped"),
    (Outcome::Failed, "failure"),
    (Outcome::Errored, "error"),
];

impl From<&Case> for Test {
    fn from(case: &Case) -> Self {
        let result = RESULTS.iter().find(|(outcome, _)| *outcome == case.outcome).map_or("success", |(_, text)| text);
        Self {
            file: case.file.clone(),
            classname: case.class.clone(),
            name: case.name.clone(),
            result: result.to_owned(),
            run_time: case.micros.map(|micros| micros as f64 / 1e6),
            message: case.message.clone(),
            place: case.place.clone(),
        }
    }
}

impl From<Test> for Case {
    fn from(test: Test) -> Self {
        let outcome = RESULTS.iter().find(|(_, text)| *text == test.result).map(|(outcome, _)| *outcome);
        Self {
            file: test.file,
            class: test.classname,
            name: test.name,
            outcome: outcome.unwrap_or_default(),
            micros: test.run_time.map(|seconds| (seconds * 1e6) as u64),
            message: test.message,
            place: test.place,
        }
    }
}

/// Whose results they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whose {
    /// The job's name, by which runs are compared.
    pub job: String,
    /// The pipeline's id.
    pub run: String,
    /// The branch that was built; `None` for a detached HEAD or a tag.
    pub branch: Option<String>,
    /// The task's id.
    pub task: String,
    /// The run's number, if it has one.
    pub build_num: Option<u64>,
    /// Which of the parallel tasks it was, from 0.
    pub node: u32,
    /// The step's number in the task.
    pub step: u32,
    /// Which try at the task it was; a later one's results replace an earlier one's.
    pub attempt: u32,
}

impl Whose {
    fn place(&self) -> Slot {
        Slot::Piece(Piece {
            of: PieceKind::TestResults,
            group: group(&self.job),
            producer: format!("{}/{}", self.run, self.attempt),
            node: self.node,
            step: self.step,
        })
    }

    fn about(&self) -> About {
        let details = [("run", Some(self.run.clone())), ("branch", self.branch.clone())];
        let details = details.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let producer = Producer {
            pipeline: Some(self.run.clone()),
            job: self.job.clone(),
            task: self.task.clone(),
            build_num: self.build_num,
        };
        About { producer, details }
    }
}

fn group(job: &str) -> String {
    format!("tests of {job}")
}

/// What one run of a job left.
#[derive(Debug, Clone)]
pub struct KeptRun {
    /// The pipeline's id.
    pub run: String,
    /// The branch that was built.
    pub branch: Option<String>,
    /// The run's number, if it had one.
    pub build_num: Option<u64>,
    /// Time of the last of its results, by the store's clock.
    pub at: Timestamp,
    entries: Vec<Entry>,
}

/// One project's results in its store.
#[derive(Debug, Clone)]
pub struct Keeper {
    store: Store,
}

impl Keeper {
    /// A keeper of results in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Stores what a step found.
    ///
    /// # Errors
    /// The store's; so it is with all of them. Nothing is left then.
    pub async fn put(&self, whose: &Whose, document: Vec<u8>) -> Result<()> {
        self.put_at(whose.place(), whose.about(), document).await?;
        let jobs =
            Piece { of: PieceKind::TestResults, group: JOBS.to_owned(), producer: whose.job.clone(), node: 0, step: 0 };
        if self.store.find(&Slot::Piece(jobs.clone())).await?.is_none() {
            self.put_at(Slot::Piece(jobs), whose.about(), b"{}".to_vec()).await?;
        }
        Ok(())
    }

    async fn put_at(&self, place: Slot, about: About, document: Vec<u8>) -> Result<Commit> {
        let reservation = self.store.reserve(place).await?;
        let bytes = futures_util::stream::once(async move { io::Result::Ok(Bytes::from(document)) });
        match self.store.put(&reservation, bytes).await {
            // What a commit that failed has left is not known: it is a sweep's.
            Ok(body) => self.store.commit(&reservation, &body, about).await,
            Err(error) => {
                self.store.abandon(&reservation).await.ok();
                Err(error)
            }
        }
    }

    /// Removes what is beyond the newest [`KEPT_RUNS`] of a job.
    pub async fn forget_old(&self, job: &str) -> Result<()> {
        for run in self.runs(job).await?.iter().skip(KEPT_RUNS) {
            for entry in &run.entries {
                self.store.remove(entry).await?;
            }
        }
        Ok(())
    }

    /// The jobs that have results, by name.
    pub async fn jobs(&self) -> Result<Vec<String>> {
        let entries = self.store.pieces(PieceKind::TestResults, JOBS, None).await?;
        let mut jobs: Vec<String> = entries.into_iter().map(|entry| entry.record.producer.job).collect();
        jobs.sort();
        Ok(jobs)
    }

    /// The kept runs of a job, newest first.
    pub async fn runs(&self, job: &str) -> Result<Vec<KeptRun>> {
        let mut runs: BTreeMap<String, KeptRun> = BTreeMap::new();
        for entry in self.store.pieces(PieceKind::TestResults, &group(job), None).await? {
            let Some(id) = entry.record.details.get("run") else { continue };
            let run = runs.entry(id.clone()).or_insert_with(|| KeptRun {
                run: id.clone(),
                branch: entry.record.details.get("branch").cloned(),
                build_num: entry.record.producer.build_num,
                at: entry.created,
                entries: Vec::new(),
            });
            run.at = run.at.max(entry.created);
            run.entries.push(entry);
        }
        let mut runs: Vec<KeptRun> = runs.into_values().collect();
        runs.iter_mut().for_each(KeptRun::keep_last_attempts);
        runs.sort_by_key(|run| std::cmp::Reverse((run.at, run.build_num)));
        Ok(runs)
    }

    /// What a run of a job left.
    pub async fn run(&self, job: &str, run: &str) -> Result<Option<KeptRun>> {
        Ok(self.runs(job).await?.into_iter().find(|kept| kept.run == run))
    }

    /// All test cases of a run: of each node and step, those of the last attempt.
    pub async fn cases(&self, run: &KeptRun) -> Result<Vec<Case>> {
        let reads: Vec<_> = run.entries.iter().map(|entry| self.document(entry)).collect();
        let documents: Vec<Document> = futures_util::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
        Ok(documents.into_iter().flat_map(|document| document.tests).map(Case::from).collect())
    }

    /// What cannot be understood is passed over: it is worth a split that is less even, and no more.
    async fn document(&self, entry: &Entry) -> Result<Document> {
        if entry.body().size > DOCUMENT_CAP {
            return Ok(Document::default());
        }
        let mut bytes = Vec::new();
        let mut stream = self.store.get(entry.body());
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) if error.is_damage() => {
                    self.store.quarantine(entry, &error.to_string()).await?;
                    return Ok(Document::default());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Document::read(&bytes).unwrap_or_default())
    }

    /// What the tests of a job took in earlier runs, newest first, those of the same branch before others: of each file (or
    /// class, where there is no file) what the first of them says. `None`: nothing is known.
    pub async fn timings(&self, job: &str, branch: Option<&str>, present_run: &str) -> Result<Option<Vec<u8>>> {
        let mut runs = self.runs(job).await?;
        runs.retain(|run| run.run != present_run);
        // Stable: newest first stays.
        runs.sort_by_key(|run| run.branch.as_deref() != branch);
        let mut known: HashSet<String> = HashSet::new();
        let mut document = Document { version: VERSION, tests: Vec::new() };
        for run in runs.iter().take(RUNS_FOR_TIMINGS) {
            let cases = self.cases(run).await?;
            let timed = cases.iter().filter(|case| case.micros.is_some() && case.outcome != Outcome::Skipped);
            let fresh: Vec<&Case> = timed.filter(|case| !known.contains(unit(case))).collect();
            known.extend(fresh.iter().map(|case| unit(case).to_owned()));
            let bare = |case: &&Case| Test { message: None, place: None, ..Test::from(*case) };
            document.tests.extend(fresh.iter().map(bare));
        }
        Ok((!document.tests.is_empty()).then(|| encode(&document)))
    }
}

/// Older ones only fill in what the newest lacks: a node that failed before its tests, a file that was left out.
const RUNS_FOR_TIMINGS: usize = 3;

/// What is replaced as a whole by what a newer run says.
fn unit(case: &Case) -> &str {
    case.file.as_deref().or(case.class.as_deref()).unwrap_or(&case.name)
}

impl Document {
    /// Reads what a body holds.
    ///
    /// # Errors
    /// Why it is no document, in words.
    pub fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let document: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match document.version > VERSION {
            true => Err(format!("a newer version of Navvy wrote it (version {})", document.version)),
            false => Ok(document),
        }
    }
}

impl KeptRun {
    /// Where its results are: of each node and step, those of the last attempt.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn keep_last_attempts(&mut self) {
        let mut last: BTreeMap<(u32, u32), (u32, Entry)> = BTreeMap::new();
        for entry in self.entries.drain(..) {
            let Slot::Piece(piece) = &entry.record.place else { continue };
            let attempt = piece.producer.rsplit('/').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let place = (piece.node, piece.step);
            if last.get(&place).is_none_or(|(known, _)| *known <= attempt) {
                last.insert(place, (attempt, entry));
            }
        }
        self.entries = last.into_values().map(|(_, entry)| entry).collect();
    }
}

/// The cases with each of their texts as `mask` gives it. `None`: it changes none of them.
pub fn masked(cases: &[Case], mask: impl Fn(&str) -> Cow<'_, str>) -> Option<Vec<Case>> {
    let mut masked: Option<Vec<Case>> = None;
    for (number, case) in cases.iter().enumerate() {
        let mut safe = case.clone();
        let Case { file, class, name, outcome: _, micros: _, message, place } = &mut safe;
        for text in [file, class, message, place].into_iter().flatten().chain([name]) {
            let changed = match mask(text) {
                Cow::Borrowed(_) => None,
                Cow::Owned(changed) => Some(changed),
            };
            if let Some(changed) = changed {
                *text = changed;
            }
        }
        if safe != *case {
            masked.get_or_insert_with(|| cases.to_vec())[number] = safe;
        }
    }
    masked
}

/// Cases as they are stored.
pub fn document(cases: &[Case]) -> Vec<u8> {
    encode(&Document { version: VERSION, tests: cases.iter().map(Test::from).collect() })
}

/// What we write ourselves always has a spelling.
fn encode(document: &Document) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use navvy_storage::{Bucket, StorageSettings};

    fn keeper(directory: &std::path::Path, scope: &str) -> Keeper {
        let bucket = Bucket::directory(directory).unwrap();
        let shape = StorageSettings::directory(directory).shape;
        Keeper::new(Store::direct(Arc::new(bucket), "shop", scope.parse().unwrap(), shape))
    }

    fn case(file: &str, name: &str, seconds: u64) -> Case {
        Case {
            file: Some(file.to_owned()),
            name: name.to_owned(),
            micros: Some(seconds * 1_000_000),
            message: Some("words".to_owned()),
            ..Case::default()
        }
    }

    #[test]
    fn every_text_of_a_case_is_masked() {
        fn mask(text: &str) -> Cow<'_, str> {
            match text.contains("secret") {
                true => Cow::Owned(text.replace("secret", "****")),
                false => Cow::Borrowed(text),
            }
        }
        let fine = case("a.rb", "adds", 1);
        assert_eq!(masked(std::slice::from_ref(&fine), mask), None);
        let text = |before: &str| Some(format!("{before} secret"));
        let name = "n secret".to_owned();
        let (file, class, message, place) = (text("f"), text("c"), text("m"), text("p"));
        let leaky = Case { file, class, name, message, place, ..Case::default() };
        let safe = masked(&[fine.clone(), leaky], mask).unwrap();
        assert_eq!(safe[0], fine);
        let document = String::from_utf8(document(&safe)).unwrap();
        assert_eq!((document.matches("****").count(), document.contains("secret")), (5, false), "{document}");
    }

    fn whose(run: &str, node: u32, attempt: u32) -> Whose {
        let branch = Some(if run.starts_with("other") { "other" } else { "main" }.to_owned());
        // Of two that the store took at the same moment the later build is the newer.
        let build_num = Some(if run == "one" { 1 } else { 2 });
        let job = "test".to_owned();
        Whose { job, run: run.to_owned(), branch, node, attempt, step: 3, build_num, ..Whose::default() }
    }

    async fn timings(keeper: &Keeper, present: &str) -> Vec<(String, f64)> {
        let Some(bytes) = keeper.timings("test", Some("main"), present).await.unwrap() else { return vec![] };
        let document: Document = serde_json::from_slice(&bytes).unwrap();
        assert!(document.tests.iter().all(|test| test.message.is_none()));
        document.tests.into_iter().map(|test| (test.name, test.run_time.unwrap())).collect()
    }

    #[test]
    fn a_case_comes_back_as_it_was() {
        for (outcome, _) in RESULTS {
            let case = Case { outcome, class: Some("C".into()), place: Some("a:1".into()), ..case("a", "x", 2) };
            assert_eq!(Case::from(Test::from(&case)), case);
        }
        let bytes = document(&[case("a", "x", 2)]);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"tests":[{"file":"a","name":"x","result":"success","run_time":2.0,"message":"words"}]}"#
        );
    }

    #[tokio::test]
    async fn the_next_run_knows_what_the_last_one_took() {
        let room = tempfile::tempdir().unwrap();
        let keeper = keeper(room.path(), "local");
        assert_eq!(timings(&keeper, "one").await, []);
        keeper.put(&whose("one", 0, 1), document(&[case("a", "a1", 1), case("b", "b1", 2)])).await.unwrap();
        keeper.put(&whose("one", 1, 1), document(&[case("c", "c1", 3)])).await.unwrap();
        assert_eq!(timings(&keeper, "one").await, [], "what is told does not change within a run");
        assert_eq!(timings(&keeper, "two").await, [("a1".into(), 1.0), ("b1".into(), 2.0), ("c1".into(), 3.0)]);
        assert_eq!(keeper.jobs().await.unwrap(), ["test"]);
        assert!(keeper.timings("lint", None, "two").await.unwrap().is_none());
        assert!(super::tests::keeper(room.path(), "fork:a").runs("test").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn newer_results_replace_a_file_and_older_ones_fill_in() {
        let room = tempfile::tempdir().unwrap();
        let keeper = keeper(room.path(), "local");
        keeper.put(&whose("one", 0, 1), document(&[case("a", "gone", 9), case("b", "b1", 2)])).await.unwrap();
        keeper.put(&whose("two", 0, 1), document(&[case("a", "a1", 1)])).await.unwrap();
        keeper.put(&whose("other", 0, 1), document(&[case("a", "theirs", 7), case("d", "d1", 4)])).await.unwrap();
        assert_eq!(timings(&keeper, "x").await, [("a1".into(), 1.0), ("b1".into(), 2.0), ("d1".into(), 4.0)]);
    }

    #[tokio::test]
    async fn the_last_attempt_at_a_step_counts() {
        let room = tempfile::tempdir().unwrap();
        let keeper = keeper(room.path(), "local");
        keeper.put(&whose("one", 0, 1), document(&[case("a", "first", 1)])).await.unwrap();
        keeper.put(&whose("one", 0, 10), document(&[case("a", "tenth", 1)])).await.unwrap();
        keeper.put(&whose("one", 0, 9), document(&[case("a", "ninth", 1)])).await.unwrap();
        let runs = keeper.runs("test").await.unwrap();
        let names: Vec<String> = keeper.cases(&runs[0]).await.unwrap().into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["tenth"]);
    }

    #[tokio::test]
    async fn only_some_runs_are_kept() {
        let room = tempfile::tempdir().unwrap();
        let keeper = keeper(room.path(), "local");
        for run in 0..KEPT_RUNS + 3 {
            keeper.put(&whose(&format!("run{run:02}"), 0, 1), document(&[])).await.unwrap();
        }
        keeper.forget_old("test").await.unwrap();
        let runs = keeper.runs("test").await.unwrap();
        assert_eq!(runs.len(), KEPT_RUNS);
    }
}
