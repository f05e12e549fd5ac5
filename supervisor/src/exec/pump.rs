//! The owner of one exec: moves its output into the ring and on to its follower, and reports its end.
//!
//! ```text
//!  notes: Exited            drained, Exited is due            notes: Alone / end of file, drained
//! Running ──────▶ Draining ──────────────────────▶ Left behind ──────────────────────────────▶ Ended
//!    reads what comes   reads what was written by then   reads what comes      nothing to read
//!
//! link:  none ◀─ cut ─ following(cursor) ◀─ Attach replaces it
//! ```
//!
//! One thread, one poll. While no agent acknowledges, the ring fills, reading stops, and the step waits in `write`.
//! A drain ends without a clock: what a step had written by its end is at most what its pipe or terminal can hold,
//! and comes first.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameKind};
use navvy_protocol::supervisor::{Control, Exited, Reply, Usage};

use super::keeper::{Kept, Note, Notes};
use super::ring::Ring;
use super::streams::{Input, Source, Streams};
use super::{Attach, Record, exit_of, usage, wrong_offset};
use crate::control::connection::{Arrival, Connection};
use crate::init::Init;
use crate::sys::THREAD_STACK;
use crate::sys::{self, Event, Pid, PollFd};
use crate::{lock, proc};

/// More than a pty holds (its flip buffers and its line discipline); what a step has written is within.
const PTY_DRAIN: usize = 256 << 10;
/// Input that the step does not read; beyond it we stop reading from the agent.
const INPUT_CAP: usize = 256 << 10;
/// Reads from a terminal, about 4 KiB each, before what came is sent on.
const PTY_READS: usize = 16;
/// A terminal's flood is sent on this often, or whenever so much of it is there: the agent, woken for every 4 KiB, would
/// take the processor from the step. What comes after a pause goes at once.
const GATHER: Duration = Duration::from_millis(1);
const GATHER_BYTES: u64 = 128 << 10;
const WATCH_MEMORY: Duration = Duration::from_millis(500);
/// An idle ring gives its pages back after this.
const REST: Duration = Duration::from_secs(1);
/// How often the processes of a killed keeper are looked for.
const LOOK_FOR_LOST: Duration = Duration::from_millis(100);
/// The main thread tells the step's status within this; otherwise the keeper took it along.
const STATUS_COMES: Duration = Duration::from_secs(2);
/// Large enough that the agent is woken for more than one chunk.
const SEND_BUFFER: usize = 1 << 20;

pub struct Pump {
    init: Arc<Init>,
    record: Arc<Record>,
    mail: Arc<Event>,
    keeper: Pid,
    step: Pid,
    notes: Option<Notes>,
    streams: Streams,
    ring: Ring,
    link: Option<Link>,
    input: Pending,
    /// A person types: it ends when they have gone.
    is_person: bool,
    phase: Phase,
    /// `None`: not watched. Otherwise the processes killed before, where the environment can tell.
    kills_before: Option<Option<u64>>,
    lost: Option<Lost>,
}

/// What the agent sent for the step's stdin.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    ended: bool,
}

enum Phase {
    Running,
    /// The step ended; these bytes are still its own, a number a source.
    Draining {
        left: Vec<usize>,
        end: End,
    },
    /// `Exited` belongs behind this position of the ring.
    Left {
        exited: Exited,
        at: u64,
    },
    /// Nothing runs; the last bytes are read.
    Ending {
        left: Vec<usize>,
        exited: Exited,
        at: u64,
    },
    Ended {
        exited: Exited,
        at: u64,
    },
}

#[derive(Clone, Copy)]
struct End {
    status: i32,
    usage: Usage,
    alone: bool,
}

/// The keeper was killed, and some of its processes may still run.
#[derive(Clone, Copy)]
struct Lost {
    looked: Instant,
    /// Since when none was found.
    none_since: Option<Instant>,
}

/// A connection that follows.
struct Link {
    connection: Connection,
    /// Position in the ring of what is sent next.
    cursor: u64,
    told_exit: bool,
    told_end: bool,
    /// The agent may have more to say.
    listens: bool,
    /// When output was last sent.
    sent: Option<Instant>,
}

/// Positions in the poll's array.
const MAIL: usize = 0;
const NOTES: usize = 1;
const LINK: usize = 2;
const INPUT: usize = 3;
const SOURCES: usize = 4;

/// Between TERM and KILL for what a person who has gone was running.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

impl Pump {
    pub(super) fn new(
        init: Arc<Init>,
        record: Arc<Record>,
        mail: Arc<Event>,
        streams: Streams,
        kept: Kept,
        kills_before: Option<Option<u64>>,
    ) -> Self {
        Self {
            init,
            record,
            mail,
            keeper: kept.keeper,
            step: kept.step,
            notes: Some(kept.notes),
            is_person: streams.input.is_some(),
            streams,
            ring: Ring::new(),
            link: None,
            input: Pending::default(),
            phase: Phase::Running,
            kills_before,
            lost: None,
        }
    }

    pub fn run(mut self, connection: Connection) {
        self.begin_link(connection, 0);
        while !self.retire() {
            let ready = self.wait();
            // Before mail: it may bring another link, of which this poll knows nothing.
            self.hear(&ready);
            self.take_input(&ready);
            self.take_mail(&ready);
            self.take_note(&ready);
            self.read_sources(&ready);
            self.tick();
            self.advance();
            self.send();
        }
    }

    // ---- waiting ----

    fn wait(&mut self) -> [PollFd; 6] {
        let reads = self.ring.has_room() && self.reads_as_it_comes();
        let source = |index: usize| self.streams.sources.get(index).map(|source| source.file.as_fd());
        let notes = self.notes.as_ref().map(|notes| notes.0.as_fd());
        let input = self.streams.input.as_ref().map(|input| input.file.as_fd());
        let mut entries = [
            sys::poll_entry(Some(self.mail.as_fd()), libc::POLLIN, true),
            sys::poll_entry(notes, libc::POLLIN, true),
            sys::poll_entry(self.link.as_ref().map(|link| link.connection.as_fd()), self.link_events(), true),
            sys::poll_entry(input, libc::POLLOUT, !self.input.bytes.is_empty()),
            sys::poll_entry(source(0), libc::POLLIN, reads),
            sys::poll_entry(source(1), libc::POLLIN, reads),
        ];
        sys::poll(&mut entries, self.patience());
        if self.ring.is_bloated() && entries.iter().all(|entry| entry.revents == 0) {
            self.ring.rest();
        }
        entries
    }

    fn reads_as_it_comes(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Left { .. })
    }

    fn link_events(&self) -> libc::c_short {
        let Some(link) = &self.link else { return 0 };
        let listens = link.listens && self.input.bytes.len() < INPUT_CAP;
        let speaks = link.connection.has_outbox() || (link.cursor < self.ring.tail() && self.gathering().is_none());
        (if listens { libc::POLLIN } else { 0 }) | (if speaks { libc::POLLOUT } else { 0 })
    }

    fn patience(&self) -> Option<Duration> {
        if let Some(rest) = self.gathering() {
            Some(rest)
        } else if self.lost.is_some() {
            Some(LOOK_FOR_LOST)
        } else if self.kills_before.is_some() && matches!(self.phase, Phase::Running) {
            Some(WATCH_MEMORY)
        } else {
            self.ring.is_bloated().then_some(REST)
        }
    }

    /// How much longer what is there waits for more.
    fn gathering(&self) -> Option<Duration> {
        let link = self.link.as_ref()?;
        let unsent = self.ring.tail().saturating_sub(link.cursor);
        let gathers = matches!(self.phase, Phase::Running)
            && self.streams.sources.iter().any(|source| source.is_pty)
            && (1..GATHER_BYTES).contains(&unsent);
        let rest = GATHER.checked_sub(link.sent?.elapsed())?;
        (gathers && !rest.is_zero()).then_some(rest)
    }

    fn tick(&mut self) {
        if self.kills_before.is_some() {
            self.init.memory.watch();
        }
        if let Some(lost) = self.lost.filter(|lost| lost.looked.elapsed() >= LOOK_FOR_LOST) {
            self.look_for_lost(lost);
        }
    }

    // ---- followers ----

    fn take_mail(&mut self, ready: &[PollFd]) {
        if ready[MAIL].revents == 0 {
            return;
        }
        self.mail.clear();
        let mut state = lock(&self.record.state);
        let (attaches, orphan) = (std::mem::take(&mut state.attaches), state.orphan.take());
        drop(state);
        for attach in attaches {
            self.follow(attach);
        }
        if let Some(status) = orphan {
            self.step_ended(End { status, usage: Usage::default(), alone: false });
        }
    }

    /// A new follower replaces the one before. Output before its offset is not sent again.
    fn follow(&mut self, attach: Attach) {
        let Attach { connection, offset, note } = attach;
        if self.begin_link(connection, offset) {
            self.record.acknowledge(offset, note);
        }
    }

    /// False: output from there on is not here, and the connection was told so.
    fn begin_link(&mut self, mut connection: Connection, offset: u64) -> bool {
        let Some(resume) = self.ring.resume(offset) else {
            connection.answer(&Reply::Failed(wrong_offset(offset, self.ring.output())));
            return false;
        };
        if connection.stream().set_nonblocking(true).is_err() {
            return false;
        }
        sys::enlarge_send_buffer(connection.stream(), SEND_BUFFER);
        connection.push(FrameKind::Reply, &Reply::Started { pid: self.step as u32 });
        let mut told_exit = false;
        if let Phase::Left { exited, at } | Phase::Ending { exited, at, .. } | Phase::Ended { exited, at } = &self.phase
            && resume.cursor > *at
        {
            connection.push(FrameKind::Reply, &Reply::Exited(exited.clone()));
            told_exit = true;
        }
        connection.push_bytes(&resume.header);
        self.link =
            Some(Link { connection, cursor: resume.cursor, told_exit, told_end: false, listens: true, sent: None });
        self.ring.acknowledge(offset, resume.cursor);
        self.send();
        true
    }

    /// What the agent says.
    fn hear(&mut self, ready: &[PollFd]) {
        let events = ready[LINK].revents;
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        let hung_up = events & (libc::POLLHUP | libc::POLLERR) != 0;
        let heard = self.listen();
        let Some(link) = &mut self.link else { return };
        match heard {
            Ok(Arrival::Bytes) => {}
            Ok(Arrival::Nothing) if !hung_up => {}
            Ok(Arrival::End) if !hung_up => link.listens = false,
            _ => {
                self.link = None;
                self.hang_up();
            }
        }
    }

    /// The person at the terminal has gone: what they ran ends, as with any terminal that hangs up.
    fn hang_up(&self) {
        if !self.is_person || !matches!(self.phase, Phase::Running) {
            return;
        }
        let record = Arc::clone(&self.record);
        // Without a thread to spare it goes on to its own end.
        let _ = std::thread::Builder::new().stack_size(THREAD_STACK).spawn(move || super::stop(&record, HANG_UP_GRACE));
    }

    fn listen(&mut self) -> io::Result<Arrival> {
        let Some(link) = &mut self.link else { return Ok(Arrival::Nothing) };
        let arrival = if link.listens { link.connection.receive()? } else { Arrival::End };
        while let Some(link) = &mut self.link
            && let Some((kind, place)) = link.connection.next_frame().map_err(io::Error::other)?
        {
            match kind {
                FrameKind::Control => {
                    let control = frame::parse_message(kind, link.connection.payload(place));
                    self.control(control.map_err(io::Error::other)?);
                }
                FrameKind::Data => {
                    let bytes = link.connection.payload(place);
                    self.input.ended |= bytes.is_empty();
                    self.input.bytes.extend_from_slice(bytes);
                    self.feed();
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(arrival)
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Resize { columns, rows } => self.streams.resize(columns, rows),
            Control::Ack { offset, note } => {
                let (cursor, output) = (self.cursor(), self.ring.output());
                self.ring.acknowledge(offset, cursor);
                self.record.acknowledge(offset.min(output), note);
            }
        }
    }

    /// Sends as much as the connection takes.
    fn send(&mut self) {
        if self.gathering().is_some() && !self.link.as_ref().is_some_and(|link| link.connection.has_outbox()) {
            return;
        }
        while let Some(link) = &mut self.link {
            let limit = link.say_what_is_due(&self.phase, &self.ring);
            if link.cursor >= limit && !link.connection.has_outbox() {
                return;
            }
            match link.connection.send_with(self.ring.slices(link.cursor, limit.max(link.cursor))) {
                Ok(0) => {}
                Ok(sent) => {
                    link.cursor += sent as u64;
                    link.sent = Some(Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.link = None,
            }
        }
    }

    // ---- input ----

    fn take_input(&mut self, ready: &[PollFd]) {
        if ready[INPUT].revents != 0 {
            self.feed();
        }
    }

    /// Writes to the step's stdin what it takes; closes it when that was all.
    fn feed(&mut self) {
        let Some(input) = &self.streams.input else {
            self.input.bytes.clear();
            return;
        };
        match write_some(input, &self.input.bytes) {
            Ok(written) => drop(self.input.bytes.drain(..written)),
            // The step has closed its stdin, or ended.
            Err(_) => {
                self.input.bytes.clear();
                self.streams.input = None;
                return;
            }
        }
        if self.input.ended && self.input.bytes.is_empty() {
            self.input.ended = false;
            match input.farewell() {
                Some(farewell) => drop(write_some(input, farewell)),
                None => self.streams.input = None,
            }
        }
    }

    // ---- output ----

    fn read_sources(&mut self, ready: &[PollFd]) {
        let cursor = self.cursor();
        let mut ended = [false; 2];
        for (index, source) in self.streams.sources.iter().enumerate().take(2) {
            if ready[SOURCES + index].revents != 0 {
                ended[index] = read_batch(&mut self.ring, source, cursor);
            }
        }
        // After the poll's positions were used.
        if ended.contains(&true) {
            let mut index = 0;
            self.streams.sources.retain(|_| {
                index += 1;
                !ended[index - 1]
            });
        }
    }

    /// Offset in the output: the bytes behind it were not sent to a follower that is still here.
    fn cursor(&self) -> u64 {
        self.link.as_ref().map_or(0, |link| link.cursor)
    }

    /// What each source holds at this moment and will give before anything later.
    fn held(&self) -> Vec<usize> {
        let held = |source: &Source| if source.is_pty { PTY_DRAIN } else { sys::available(&source.file) };
        self.streams.sources.iter().map(held).collect()
    }

    // ---- the end ----

    fn take_note(&mut self, ready: &[PollFd]) {
        if ready[NOTES].revents == 0 {
            return;
        }
        match self.notes.as_ref().and_then(Notes::read) {
            Some(Note::Exited { status, user_us, system_us, max_rss, alone }) => {
                self.step_ended(End { status, usage: usage(user_us, system_us, max_rss), alone });
                if alone {
                    self.all_gone();
                }
            }
            Some(Note::Alone) => self.all_gone(),
            Some(_) => {}
            None => self.keeper_lost(),
        }
    }

    fn step_ended(&mut self, end: End) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Draining { left: self.held(), end };
        }
    }

    /// No process is left; whether all its output was read is another matter.
    fn all_gone(&mut self) {
        self.notes = None;
        self.lost = None;
        lock(&self.record.state).gone = true;
        self.record.changed.notify_all();
    }

    /// The keeper ended without a word: a process with its rights killed it. Its children are ours now.
    fn keeper_lost(&mut self) {
        self.notes = None;
        self.lost = Some(Lost { looked: Instant::now(), none_since: None });
        if let Some(status) = self.init.execs.recent_orphan(self.step) {
            self.step_ended(End { status, usage: Usage::default(), alone: false });
        }
    }

    fn look_for_lost(&mut self, lost: Lost) {
        let now = Instant::now();
        // While they cannot be listed, some may run: they are looked for again.
        if !proc::all().is_ok_and(|entries| proc::below(&entries, self.keeper).is_empty()) {
            self.lost = Some(Lost { looked: now, none_since: None });
            return;
        }
        let since = lost.none_since.unwrap_or(now);
        let status = match &self.phase {
            Phase::Running => self.init.execs.recent_orphan(self.step),
            _ => Some(0),
        };
        if status.is_none() && since.elapsed() < STATUS_COMES {
            self.lost = Some(Lost { looked: now, none_since: Some(since) });
            return;
        }
        self.step_ended(End { status: status.unwrap_or(libc::SIGKILL), usage: Usage::default(), alone: true });
        self.all_gone();
    }

    /// Moves on from phase to phase as far as the ring has room.
    fn advance(&mut self) {
        loop {
            let phase = std::mem::replace(&mut self.phase, Phase::Running);
            let (phase, again) = self.next_phase(phase);
            self.phase = phase;
            if !again {
                break;
            }
        }
        lock(&self.record.state).output = self.ring.output();
    }

    fn next_phase(&mut self, phase: Phase) -> (Phase, bool) {
        match phase {
            Phase::Running => (Phase::Running, false),
            Phase::Draining { mut left, end } => match self.drain(&mut left) {
                false => (Phase::Draining { left, end }, false),
                true => (self.exited(end), true),
            },
            Phase::Left { exited, at } => match self.record.is_gone() {
                false => (Phase::Left { exited, at }, false),
                true => (Phase::Ending { left: self.held(), exited, at }, true),
            },
            Phase::Ending { mut left, exited, at } => match self.drain(&mut left) {
                false => (Phase::Ending { left, exited, at }, false),
                true => (self.ended(exited, at), true),
            },
            Phase::Ended { exited, at } => (Phase::Ended { exited, at }, false),
        }
    }

    /// Reads what is left of each source. True when nothing is.
    fn drain(&mut self, left: &mut [usize]) -> bool {
        let cursor = self.cursor();
        for (source, left) in self.streams.sources.iter().zip(left) {
            while *left > 0 {
                if !self.ring.has_room() {
                    return false;
                }
                match read_once(&mut self.ring, source, *left, cursor) {
                    Read::Bytes(count) => *left -= count.min(*left),
                    Read::Nothing | Read::End => *left = 0,
                }
            }
        }
        true
    }

    fn exited(&mut self, end: End) -> Phase {
        // It is not alone: where nobody can count, there is one at least.
        let counted = || proc::all().map_or(1, |entries| proc::below(&entries, self.keeper).len() as u32);
        let left_running = if end.alone { 0 } else { counted() };
        let exited = Exited {
            exit: exit_of(end.status),
            output: self.ring.output(),
            usage: end.usage,
            out_of_memory: self.kills_before.and_then(|before| self.init.memory.killed_since(before)),
            halted: self.init.halted.load(Ordering::Acquire),
            lacks: lock(&self.init.lacks).clone(),
            main_ended: *crate::lock(&self.init.main_ended),
            left_running,
        };
        self.kills_before = None;
        self.ring.seal();
        let mut state = lock(&self.record.state);
        state.exited = Some(exited.clone());
        state.output = exited.output;
        Phase::Left { exited, at: self.ring.tail() }
    }

    fn ended(&mut self, exited: Exited, at: u64) -> Phase {
        self.streams.sources.clear();
        self.streams.input = None;
        lock(&self.record.state).ended = true;
        Phase::Ended { exited, at }
    }

    /// True when this thread is not needed any more.
    fn retire(&mut self) -> bool {
        let told = |link: &Link| link.told_end && !link.connection.has_outbox();
        if !matches!(self.phase, Phase::Ended { .. }) || !self.ring.is_empty() || !self.link.as_ref().is_none_or(told) {
            return false;
        }
        let mut state = lock(&self.record.state);
        if state.attaches.is_empty() {
            state.owner = None;
        }
        state.owner.is_none()
    }
}

impl Link {
    /// Queues `Exited` and `Ended` at their places; how far output may be sent now.
    fn say_what_is_due(&mut self, phase: &Phase, ring: &Ring) -> u64 {
        let (exited, at) = match phase {
            Phase::Running | Phase::Draining { .. } => return ring.tail(),
            Phase::Left { exited, at } | Phase::Ending { exited, at, .. } | Phase::Ended { exited, at } => {
                (exited, *at)
            }
        };
        if !self.told_exit && self.cursor < at {
            return at;
        }
        if !self.told_exit {
            self.told_exit = true;
            self.connection.push(FrameKind::Reply, &Reply::Exited(exited.clone()));
        }
        if matches!(phase, Phase::Ended { .. }) && !self.told_end && self.cursor == ring.tail() {
            self.told_end = true;
            self.connection.push(FrameKind::Reply, &Reply::Ended { output: ring.output() });
        }
        ring.tail()
    }
}

enum Read {
    Bytes(usize),
    Nothing,
    End,
}

/// Pipes give much at once; a terminal gives little, so several reads share a frame and a wake-up of the agent. True at
/// the end of the stream.
fn read_batch(ring: &mut Ring, source: &Source, cursor: u64) -> bool {
    for _ in 0..if source.is_pty { PTY_READS } else { 1 } {
        match read_once(ring, source, usize::MAX, cursor) {
            Read::Bytes(_) => {}
            Read::Nothing => return false,
            Read::End => return true,
        }
    }
    false
}

fn read_once(ring: &mut Ring, source: &Source, limit: usize, cursor: u64) -> Read {
    match ring.fill(source.stream, &source.file, limit, cursor) {
        Ok(0) => Read::End,
        Ok(count) => Read::Bytes(count),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Read::Nothing,
        Err(_) => Read::End,
    }
}

fn write_some(input: &Input, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match (&input.file).write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
