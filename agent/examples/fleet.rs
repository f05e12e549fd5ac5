//! `fleet VERB …`: simulated agents of a processor, for scripts/bench. They claim, beat, record, seal and finish as real ones do,
//! and run no job.
//!
//! | verb | does | prints, as JSON |
//! |---|---|---|
//! | `claims URL[,URL…] TOKEN-FILE AT-ONCE` | AT-ONCE agents, spread over the processors, empty the queue, then report all ends | rates, latencies, doubled tasks |
//! | `agents URL TOKEN-FILE COUNT LINES SECONDS` | COUNT agents with a task each, LINES of 80 bytes a second | latencies of claims, each log's length and digest, what was incomplete |

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use navvy_agent::fleet::claiming::{Claimed, Wish, claim};
use navvy_agent::fleet::connection::{Address, Bearer, Processor, Session, unary};
use navvy_agent::fleet::persist::{Loss, Pauses, persist};
use navvy_job::claim::Claim;
use navvy_job::executor::ExecutorKinds;
use navvy_job::outcome::Verdict;
use navvy_job::resource::Size;
use navvy_job::walk::TaskEnd;
use navvy_protocol::processor::v1::{
    Beat, Chunk, CommitSegmentsRequest, FinishRequest, LogEnd, MachineRoom, RecordRequest, Segment, SegmentRequest,
};
use navvy_storage::{Pace, Proxies, Transport};
use object_store::client::HttpService as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http;

/// The one log of each task.
const LOG: &str = "001-1";
const LINE: usize = 80;
/// Live output goes so often, and segments as often as a real agent's.
const LIVE: Duration = Duration::from_millis(100);
const SEAL: Duration = Duration::from_secs(2);
/// As a real agent.
const LEVEL: i32 = 1;
/// Tasks on one connection: a processor takes 256 streams on each, and a task keeps two.
const ON_ONE_CONNECTION: usize = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let figures = match words[..] {
        ["claims", urls, token, at_once] => {
            let fleets = urls.split(',').map(|url| Fleet::new(url, token)).collect::<anyhow::Result<Vec<_>>>()?;
            claims(&fleets, at_once.parse()?).await?
        }
        ["agents", url, token, count, lines, seconds] => {
            let load = Load { lines: lines.parse()?, time: Duration::from_secs(seconds.parse()?) };
            agents(&Fleet::new(url, token)?, count.parse()?, load).await?
        }
        _ => bail!("usage: fleet claims URL[,URL…] TOKEN-FILE AT-ONCE, agents URL TOKEN-FILE COUNT LINES SECONDS"),
    };
    println!("{figures}");
    Ok(())
}

/// The way to a processor.
#[derive(Clone)]
struct Fleet {
    address: Address,
    token: Bearer,
    transport: Transport,
}

impl Fleet {
    fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(token).context("the token's file cannot be read")?;
        Ok(Self {
            address: Address { url: url.to_owned(), plaintext: false, ca: None, identity: None },
            token: Bearer::new(token.trim())?,
            transport: Transport::new(None, &Proxies::default(), Pace::default())?,
        })
    }

    /// A connection of its own.
    fn processor(&self) -> anyhow::Result<Processor> {
        Ok(Processor::new(&self.address)?)
    }

    async fn claim(&self, processor: &Processor, name: &str, wait: Duration) -> anyhow::Result<Option<Claimed>> {
        let wish = Wish::Classes {
            classes: vec!["*".to_owned()],
            room: Size { millicpus: 0, memory: 0 },
            executors: ExecutorKinds::ALL,
            machine_room: MachineRoom::Shared,
        };
        let mut pauses = Pauses::default();
        loop {
            match claim(processor, &self.token, name, &wish, wait).await {
                Err(error) if error.is_passing() => tokio::time::sleep(pauses.another()).await,
                answered => return Ok(answered?),
            }
        }
    }
}

/// Milliseconds at these places of the sorted samples, and the largest.
fn spread(mut samples: Vec<Duration>) -> serde_json::Value {
    samples.sort_unstable();
    let at = |share: usize| samples.get((samples.len() * share / 100).min(samples.len().saturating_sub(1)));
    let ms = |sample: Option<&Duration>| sample.map(|it| it.as_secs_f64() * 1000.0);
    json!({"p50": ms(at(50)), "p99": ms(at(99)), "max": ms(samples.last())})
}

/// The queue is emptied, and only then is any task ended: the two have rates of their own.
async fn claims(fleets: &[Fleet], at_once: usize) -> anyhow::Result<serde_json::Value> {
    let begun = Instant::now();
    let mut claiming = JoinSet::new();
    for (number, fleet) in fleets.iter().cycle().take(at_once).enumerate() {
        let (fleet, processor) = (fleet.clone(), fleet.processor()?);
        claiming.spawn(async move {
            let (name, mut taken, mut took) = (format!("agent {number}"), Vec::new(), Vec::new());
            loop {
                let asked = Instant::now();
                let Some(claimed) = fleet.claim(&processor, &name, Duration::ZERO).await? else { break };
                took.push(asked.elapsed());
                taken.push((claimed.name(), claimed.session(&processor)?));
            }
            anyhow::Ok((taken, took))
        });
    }
    let (mut taken, mut took) = (Vec::new(), Vec::new());
    while let Some(done) = claiming.join_next().await {
        let (some, their) = done??;
        taken.extend(some);
        took.extend(their);
    }
    let claimed_s = begun.elapsed().as_secs_f64();
    let different: BTreeSet<&String> = taken.iter().map(|(task, _)| task).collect();
    let (count, doubled) = (taken.len(), taken.len() - different.len());
    let (begun, mut ending, mut left) = (Instant::now(), JoinSet::new(), taken.into_iter());
    ending.spawn(async { anyhow::Ok(()) });
    while let Some(done) = ending.join_next().await {
        done??;
        for (_, session) in left.by_ref().take(at_once.saturating_sub(ending.len())) {
            ending.spawn(async move {
                let told = unary(session.agents().finish(finish(&[], 0)?)).await?;
                anyhow::ensure!(told.complete, "a task without output is incomplete: {}", told.missing.join("; "));
                Ok(())
            });
        }
    }
    let ended_s = begun.elapsed().as_secs_f64();
    Ok(json!({
        "claimed": count, "doubled": doubled, "claims_per_s": count as f64 / claimed_s,
        "ends_per_s": count as f64 / ended_s, "claim_ms": spread(took),
    }))
}

fn finish(logs: &[(u64, [u8; 32])], events: u64) -> anyhow::Result<FinishRequest> {
    let logs =
        logs.iter().map(|(bytes, sha256)| LogEnd { log: LOG.to_owned(), bytes: *bytes, sha256: sha256.to_vec() });
    let end = serde_json::to_vec(&TaskEnd::new(Verdict::Passed))?;
    Ok(FinishRequest { end, logs: logs.collect(), events, ..FinishRequest::default() })
}

/// What each agent's task writes.
#[derive(Clone, Copy)]
struct Load {
    lines: u64,
    time: Duration,
}

/// What became of a task.
struct Ended {
    task: String,
    claim: Duration,
    bytes: u64,
    sha256: [u8; 32],
    missing: Vec<String>,
}

async fn agents(fleet: &Fleet, count: usize, load: Load) -> anyhow::Result<serde_json::Value> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    let mut processor = fleet.processor()?;
    for number in 0..count {
        if number % ON_ONE_CONNECTION == 0 {
            processor = fleet.processor()?;
        }
        let (fleet, processor) = (fleet.clone(), processor.clone());
        // They come over a tenth of the time: no fleet is started at one moment.
        let at = begun + load.time.mul_f64(0.1 * number as f64 / count as f64);
        running.spawn(async move {
            tokio::time::sleep_until(at).await;
            let asked = Instant::now();
            let claimed = fleet.claim(&processor, &format!("agent {number}"), Duration::from_secs(10)).await?;
            let claimed = claimed.context("the queue is empty: queue a task for each agent")?;
            let took = asked.elapsed();
            let session = claimed.session(&processor)?;
            Agent::new(claimed, session, fleet.transport.clone())?.work(load, took).await
        });
    }
    let (mut logs, mut took, mut incomplete) = (BTreeMap::new(), Vec::new(), Vec::new());
    while let Some(done) = running.join_next().await {
        let Ended { task, claim, bytes, sha256, missing } = done??;
        took.push(claim);
        incomplete.extend(missing.into_iter().map(|what| format!("{task}: {what}")));
        let sha256: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        logs.insert(task, json!({"bytes": bytes, "sha256": sha256}));
    }
    Ok(
        json!({"seconds": begun.elapsed().as_secs_f64(), "claim_ms": spread(took), "logs": logs, "incomplete": incomplete}),
    )
}

/// One simulated agent with its task.
struct Agent {
    session: Session,
    /// Never.
    loss: Loss,
    transport: Transport,
    lease: Duration,
    /// `task`, `workflow` and `job`, as events have them.
    reference: serde_json::Value,
    task: String,
    events: u64,
    /// What is in no segment yet, and where it begins.
    open: Vec<u8>,
    sealed: u64,
    shown: u64,
    digest: Sha256,
}

impl Agent {
    fn new(claimed: Claimed, session: Session, transport: Transport) -> anyhow::Result<Self> {
        let claim: Claim = serde_json::from_slice(&claimed.task.claim)?;
        let task = claim.task.to_string();
        let reference = json!({"at_ms": 0, "time": "2026-01-02T03:04:05.500Z", "task": task,
            "workflow": claimed.task.workflow, "job": claim.job_name, "node_index": 0, "node_total": 1, "step": 1});
        let (lease, open, digest) = (claimed.lease(), Vec::new(), Sha256::new());
        let loss = watch::channel(false).1;
        Ok(Self { session, loss, transport, lease, reference, task, events: 0, open, sealed: 0, shown: 0, digest })
    }

    async fn work(mut self, load: Load, claim: Duration) -> anyhow::Result<Ended> {
        let (beats, stream) = mpsc::channel(4);
        beats.try_send(Beat { state: "running".to_owned(), spooled: 0 })?;
        let mut words = self.session.agents().attend(ReceiverStream::new(stream)).await?.into_inner();
        let (chunks, stream) = mpsc::channel(16);
        let mut readers = self.session.agents().live(ReceiverStream::new(stream)).await?.into_inner();
        self.record("step_started").await?;
        let begun = Instant::now();
        let mut ticks = [interval(LIVE), interval(SEAL), interval(self.lease / 3)];
        ticks.iter_mut().for_each(|tick| tick.set_missed_tick_behavior(MissedTickBehavior::Delay));
        let [live, seal, beat] = &mut ticks;
        let mut lines = 0;
        while begun.elapsed() < load.time {
            tokio::select! {
                _ = live.tick() => {
                    let due = (begun.elapsed().as_secs_f64() * load.lines as f64) as u64;
                    (lines..due).for_each(|number| self.write(number));
                    lines = due.max(lines);
                    self.show(&chunks);
                }
                _ = seal.tick() => self.deliver().await?,
                _ = beat.tick() => drop(beats.try_send(Beat { state: "running".to_owned(), spooled: self.open.len() as u64 })),
                word = words.message() => { word?.context("the processor ended the lease's stream")?; }
                word = readers.message() => { word?.context("the processor ended the live stream")?; }
            }
        }
        self.deliver().await?;
        self.record("step_ended").await?;
        let sha256 = self.digest.clone().finalize().into();
        let report = finish(&[(self.sealed, sha256)], self.events)?;
        let call = || {
            let (mut agents, report) = (self.session.agents(), report.clone());
            async move { unary(agents.finish(report)).await }
        };
        let answer = persist(&self.session, &self.loss, call).await?;
        Ok(Ended { task: self.task, claim, bytes: self.sealed, sha256, missing: answer.missing })
    }

    fn write(&mut self, number: u64) {
        let line = format!("{} {number:010} {:a<width$}\n", self.task, "", width = LINE - 13 - self.task.len());
        self.digest.update(&line);
        self.open.extend_from_slice(line.as_bytes());
    }

    /// What nobody was shown. A way that is full loses it: readers have the segments.
    fn show(&mut self, chunks: &mpsc::Sender<Chunk>) {
        let from = usize::try_from(self.shown.saturating_sub(self.sealed)).unwrap_or_default();
        let bytes = Bytes::copy_from_slice(self.open.get(from..).unwrap_or_default());
        if bytes.is_empty() {
            return;
        }
        let chunk = Chunk { log: LOG.to_owned(), offset: self.sealed + from as u64, bytes, stream: 0 };
        self.shown = chunk.offset + chunk.bytes.len() as u64;
        chunks.try_send(chunk).ok();
    }

    async fn record(&mut self, kind: &str) -> anyhow::Result<()> {
        let mut event = self.reference.clone();
        event["event"] = kind.into();
        let request = RecordRequest { first: self.events, events: vec![serde_json::to_vec(&event)?] };
        let call = || {
            let (mut agents, request) = (self.session.agents(), request.clone());
            async move { unary(agents.record(request)).await }
        };
        self.events = persist(&self.session, &self.loss, call).await?.next;
        Ok(())
    }

    /// What there is becomes a segment, and is durable then.
    async fn deliver(&mut self) -> anyhow::Result<()> {
        let plain = std::mem::take(&mut self.open);
        if plain.is_empty() {
            return Ok(());
        }
        let mut object = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
        zstd_safe::compress(&mut object, &plain, LEVEL)
            .map_err(|code| anyhow::anyhow!(zstd_safe::get_error_name(code)))?;
        let segment = Segment {
            log: LOG.to_owned(),
            offset: self.sealed,
            length: u32::try_from(plain.len())?,
            stored: u32::try_from(object.len())?,
            sha256: Sha256::digest(&plain).to_vec(),
            object: String::new(),
        };
        let object = self.put(&segment, object.into()).await?;
        let segments = vec![Segment { object, ..segment }];
        let call = || {
            let (mut agents, request) = (self.session.agents(), CommitSegmentsRequest { segments: segments.clone() });
            async move { unary(agents.commit_segments(request)).await }
        };
        persist(&self.session, &self.loss, call).await?;
        self.sealed += plain.len() as u64;
        Ok(())
    }

    /// Until the store has it: it may be away for a while. Its name.
    async fn put(&self, segment: &Segment, object: Bytes) -> anyhow::Result<String> {
        let mut pauses = Pauses::default();
        loop {
            let call = || {
                let (mut agents, request) = (self.session.agents(), SegmentRequest { segment: Some(segment.clone()) });
                async move { unary(agents.grant_segment(request)).await }
            };
            let grant = persist(&self.session, &self.loss, call).await?;
            let put = http::Request::builder().method(http::Method::PUT).uri(grant.url);
            let put = put.header(http::header::CONTENT_LENGTH, object.len()).body(object.clone().into())?;
            match self.transport.call(put).await {
                Ok(answered) if answered.status().is_success() => return Ok(grant.object),
                _ => tokio::time::sleep(pauses.another()).await,
            }
        }
    }
}
