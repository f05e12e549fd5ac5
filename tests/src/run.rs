//! A run on its way.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::event::Event;
use crate::finished::Finished;
use crate::leaks;
use crate::memory::Peak;
use crate::sys::{self, Signal};

/// No story is longer, unless it says so.
const LIMIT: Duration = Duration::from_secs(60);
/// A process that was told to end twice has this long to clean up.
const ENDING_LIMIT: Duration = Duration::from_secs(15);
const SAMPLE_PAUSE: Duration = Duration::from_millis(20);

/// `navvy run` on its way.
#[must_use = "a run is finished, or it is killed here"]
pub struct Run<'a> {
    bench: &'a Bench,
    child: Child,
    events: Arc<Events>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<String>>,
    memory: Option<JoinHandle<Peak>>,
    over: Arc<AtomicBool>,
    with_events: bool,
    ended: Option<ExitStatus>,
    checked: bool,
}

#[derive(Default)]
struct Events {
    list: Mutex<(Vec<Event>, bool)>,
    news: Condvar,
}

impl<'a> Run<'a> {
    #[track_caller]
    pub(crate) fn start(bench: &'a Bench, mut command: Command, with_events: bool) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let events = Arc::new(Events::default());
        let (stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let over = Arc::new(AtomicBool::new(false));
        let news = Arc::clone(&events);
        Self {
            bench,
            stdout: Some(thread::spawn(move || if with_events { read_events(stdout, &news) } else { read(stdout) })),
            stderr: Some(thread::spawn(move || String::from_utf8_lossy(&read(stderr)).into_owned())),
            memory: Some(watch_memory(child.id(), Arc::clone(&over))),
            child,
            events,
            over,
            with_events,
            ended: None,
            checked: true,
        }
    }

    /// Waits for an event that fits, those of the past included.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, fits: impl Fn(&Event) -> bool) -> Event {
        assert!(self.with_events, "only a run with --json has events while it runs");
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        let mut list = self.events.list.lock().expect("no reader panics");
        loop {
            if let Some(event) = list.0[seen..].iter().find(|event| fits(event)) {
                return event.clone();
            }
            seen = list.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let over = list.1;
            if over || left.is_zero() {
                let why = if over { "the run ended".to_owned() } else { format!("not within {limit:?}") };
                let events: Vec<String> = list.0.iter().rev().take(40).rev().map(Event::summary).collect();
                drop(list);
                panic!("{why}, waiting for: {what}\n{}", events.join("\n"));
            }
            list = self.events.news.wait_timeout(list, left).expect("no reader panics").0;
        }
    }

    /// Waits for a step of that name to start.
    #[track_caller]
    pub fn wait_for_step(&self, name: &str) -> Event {
        self.wait_for(&format!("start of step {name:?}"), LIMIT, |event| event.is_start_of(name))
    }

    /// The same of a run that may end before: it is a matter of who is first.
    pub fn wait_for_step_or_end(&self, name: &str) {
        let deadline = Instant::now() + LIMIT;
        let mut list = self.events.list.lock().expect("no reader panics");
        while !list.1 && !list.0.iter().any(|event| event.is_start_of(name)) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "neither the start of step {name:?} nor the run's end within {LIMIT:?}");
            list = self.events.news.wait_timeout(list, left).expect("no reader panics").0;
        }
    }

    /// Waits for output that holds `text`.
    #[track_caller]
    pub fn wait_for_output(&self, text: &str) -> Event {
        self.wait_for(&format!("output {text:?}"), LIMIT, |event| event.is_output_with(text))
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.list.lock().expect("no reader panics").0.clone()
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            sys::signal(self.child.id(), signal);
        }
    }

    /// For a run that cannot clean up, since its engine is gone or it is killed.
    pub fn that_leaves_things(mut self) -> Self {
        self.checked = false;
        self
    }

    /// Waits for the end, and looks for what must not be left.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    #[track_caller]
    pub fn finish_within(self, limit: Duration) -> Finished {
        match self.finish_or_hang(limit) {
            Ok(finished) => finished,
            Err(events) => panic!("the run did not end within {limit:?}\n{events}"),
        }
    }

    /// The same; an error with the last events if it did not end in time, and was ended.
    #[track_caller]
    pub fn finish_or_hang(mut self, limit: Duration) -> Result<Finished, String> {
        let Some(status) = self.wait(limit) else {
            let events: Vec<String> = self.events().iter().rev().take(40).rev().map(Event::summary).collect();
            return Err(events.join("\n"));
        };
        let stdout = self.stdout.take().expect("finished once").join().expect("a reader does not panic");
        let stderr = self.stderr.take().expect("finished once").join().expect("a reader does not panic");
        let peak = self.memory.take().expect("finished once").join().expect("a reader does not panic");
        let events = if self.with_events { self.events() } else { recorded(self.bench) };
        let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let finished =
            Finished { exit_code, events, stdout, stderr, peak_kib: peak.own, programs_peak_kib: peak.programs };
        if self.checked {
            let left = leaks::of(self.bench, &finished.tasks());
            assert!(left.is_empty(), "left behind: {left:?}; {}", finished.account());
        }
        Ok(finished)
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() && Instant::now() < deadline {
            self.ended = self.child.try_wait().expect("a child can be waited for");
            if self.ended.is_none() {
                // The end of its output is the news to wait for; then its end is near.
                let list = self.events.list.lock().expect("no reader panics");
                drop(self.events.news.wait_timeout(list, SAMPLE_PAUSE).expect("no reader panics"));
            }
        }
        if self.ended.is_some() {
            self.over.store(true, Ordering::Relaxed);
        }
        self.ended
    }
}

impl Drop for Run<'_> {
    /// Also of a story that panicked nothing is left running.
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.signal(Signal::Interrupt);
        thread::sleep(SAMPLE_PAUSE);
        self.signal(Signal::Interrupt);
        if self.wait(ENDING_LIMIT).is_none() {
            self.signal(Signal::Kill);
            self.wait(ENDING_LIMIT);
        }
        self.over.store(true, Ordering::Relaxed);
    }
}

fn read(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is still worth something.
    pipe.read_to_end(&mut bytes).ok();
    bytes
}

/// Returns lines that are no events.
fn read_events(pipe: impl Read, events: &Events) -> Vec<u8> {
    let mut other = Vec::new();
    let mut lines = BufReader::with_capacity(1 << 16, pipe);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        match std::str::from_utf8(&line).ok().and_then(Event::parse) {
            Some(event) => {
                events.list.lock().expect("no reader panics").0.push(event);
                events.news.notify_all();
            }
            None => other.extend_from_slice(&line),
        }
        line.clear();
    }
    events.list.lock().expect("no reader panics").1 = true;
    events.news.notify_all();
    other
}

/// The events of the newest run, output excepted, as the run itself has recorded them.
fn recorded(bench: &Bench) -> Vec<Event> {
    let text = fs::read_to_string(bench.state().join("navvy/latest/events.jsonl")).unwrap_or_default();
    text.lines().filter_map(Event::parse).collect()
}

/// The largest resident sets, looked at until the process is over.
fn watch_memory(pid: u32, over: Arc<AtomicBool>) -> JoinHandle<Peak> {
    thread::spawn(move || {
        let mut peak = Peak::default();
        while !over.load(Ordering::Relaxed) {
            peak.look(pid);
            thread::sleep(SAMPLE_PAUSE);
        }
        peak
    })
}
