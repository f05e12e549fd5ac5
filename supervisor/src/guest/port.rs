//! The agent's channels on the machine's own port: each is one connection, and the agent's, since nobody else can open the
//! port's other end.
//!
//! ```text
//! Deaf ── GREETING, nonce ─▶ answered, Open ── messages ─▶ channels ─▶ a pair of sockets ─▶ [`crate::control`]
//!  ▲                           │   ▲ GREETING again: all channels dropped, half messages forgotten
//!  ├── the host hangs up ──────┤   └─┘
//!  └── what is no message ─────┘
//! ```
//!
//! What an exec has written is lost with no channel: its ring keeps it until it is acknowledged.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use navvy_protocol::mux::{GREETING, MAGIC, MAX_DATA, NONCE_LENGTH};

use crate::mux::{Channels, Queue};
use crate::sys;

/// While no host is there. The kernel wakes nobody when one comes: it would have to be asked for a signal, which comes with
/// every byte, too.
pub const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that are read ahead while a channel is stuck, so that a greeting gets through.
const AHEAD: usize = 1 << 20;

/// From a greeting to a port that shows its host: the kernel hears of both in turns of their own, and a guest on a busy host takes its time.
const OPENING: Duration = Duration::from_secs(2);

/// Serves the port for ever. `is_told`: nothing is under way to the host.
pub fn serve(file: File, agents: mpsc::Sender<UnixStream>, is_told: &AtomicBool) {
    let (greetings, channels, opening) = (Greetings::default(), Channels::default(), Opening::default());
    let mut port = Port { file, greetings, channels, is_open: false, opening, agents };
    loop {
        port.turn();
        is_told.store(port.channels.is_empty() && port.channels.out.len() == 0, Ordering::Release);
    }
}

struct Port {
    file: File,
    greetings: Greetings,
    channels: Channels,
    /// A host has greeted, and all since then made sense.
    is_open: bool,
    opening: Opening,
    /// Where connections of the agent's are served.
    agents: mpsc::Sender<UnixStream>,
}

impl Port {
    fn turn(&mut self) {
        let stuck = self.channels.is_stuck();
        let reads = if self.channels.waiting() < AHEAD { libc::POLLIN } else { 0 };
        let writes = if self.channels.out.len() > 0 { libc::POLLOUT } else { 0 };
        let mut entries = vec![sys::poll_entry(Some(self.file.as_fd()), reads | writes, true)];
        let (numbers, of_channels) = self.channels.poll_entries();
        entries.extend(of_channels);
        sys::poll(&mut entries, stuck.then_some(Duration::from_secs(1)));
        let events = entries[0].revents;
        if self.opening.is_gone(events & (libc::POLLHUP | libc::POLLERR) != 0, Instant::now()) {
            self.be_deaf();
        }
        self.channels.serve_all(&numbers, &entries[1..]);
        let is_quiet = !self.read();
        self.take_messages();
        // Where it cannot be written, a hang-up follows, or has come.
        if self.channels.out.write_to(&self.file).is_err() {
            self.channels.out = Queue::default();
        }
        if is_quiet && events & (libc::POLLHUP | libc::POLLERR) != 0 {
            std::thread::sleep(PAUSE);
        }
    }

    /// Whoever comes next begins with a greeting.
    fn be_deaf(&mut self) {
        self.is_open = false;
        self.channels.drop_all();
        self.channels.out = Queue::default();
    }

    /// True when something was read.
    fn read(&mut self) -> bool {
        if self.channels.waiting() >= AHEAD {
            return false;
        }
        let mut buffer = vec![0; MAX_DATA];
        // A host that is gone shows as an end or as an error; poll says so again.
        let Ok(count @ 1..) = (&self.file).read(&mut buffer) else { return false };
        let mut greetings = std::mem::take(&mut self.greetings);
        greetings.hear(&buffer[..count], &mut |heard| self.hear(heard));
        self.greetings = greetings;
        true
    }

    fn hear(&mut self, heard: Heard<'_>) {
        match heard {
            Heard::Begun => self.be_deaf(),
            Heard::Greeting(nonce) => {
                self.is_open = true;
                self.opening.begins(Instant::now());
                self.channels.out.push(MAGIC);
                self.channels.out.push(&nonce);
            }
            Heard::Bytes(bytes) if self.is_open => self.channels.push_received(bytes),
            Heard::Bytes(_) => {}
        }
    }

    fn take_messages(&mut self) {
        if self.channels.is_stuck() {
            return;
        }
        let agents = &self.agents;
        let mut connect = || -> io::Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair()?;
            agents.send(theirs).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(ours)
        };
        if self.channels.take_messages(&mut connect).is_err() {
            self.be_deaf();
        }
    }
}

/// Whether what looks like a hang-up is one: a host's first bytes can be read before the port shows that a host is there.
#[derive(Default)]
struct Opening {
    /// Since when a host has greeted that the port has not shown.
    since: Option<Instant>,
}

impl Opening {
    /// A host has greeted.
    fn begins(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// `is_shut`: the port shows no host. True when there is none.
    fn is_gone(&mut self, is_shut: bool, now: Instant) -> bool {
        if !is_shut {
            self.since = None;
            return false;
        }
        self.since.is_none_or(|since| now.duration_since(since) >= OPENING)
    }
}

/// Finds greetings in a stream, wherever they are in it.
#[derive(Default)]
struct Greetings {
    /// So many bytes of a greeting have come.
    matched: usize,
    /// Those of the nonce behind a greeting.
    nonce: Option<Vec<u8>>,
}

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
enum Heard<'a> {
    /// Of messages; also the first bytes of a greeting. Those in front of a whole greeting may be left out: it drops them.
    Bytes(&'a [u8]),
    /// A greeting begins: what came before is over.
    Begun,
    /// It is whole.
    Greeting([u8; NONCE_LENGTH]),
}

impl Greetings {
    fn hear<'a>(&mut self, bytes: &'a [u8], on: &mut dyn FnMut(Heard<'a>)) {
        let mut told = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(nonce) = &mut self.nonce {
                nonce.push(*byte);
                told = at + 1;
                if let Ok(whole) = <[u8; NONCE_LENGTH]>::try_from(nonce.as_slice()) {
                    self.nonce = None;
                    on(Heard::Greeting(whole));
                }
            }
            // Its first byte stands nowhere else in it.
            self.matched = match *byte {
                byte if byte == GREETING[self.matched] => self.matched + 1,
                byte => usize::from(byte == GREETING[0]),
            };
            if self.matched == GREETING.len() {
                self.matched = 0;
                self.nonce = Some(Vec::with_capacity(NONCE_LENGTH));
                told = at + 1;
                on(Heard::Begun);
            }
        }
        if told < bytes.len() {
            on(Heard::Bytes(&bytes[told..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use navvy_protocol::mux::{HEADER_LENGTH, Header, Op};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn greeting(nonce: u8) -> Vec<u8> {
        [&GREETING[..], &[nonce; NONCE_LENGTH]].concat()
    }

    fn answer(nonce: u8) -> Vec<u8> {
        [&MAGIC[..], &[nonce; NONCE_LENGTH]].concat()
    }

    fn message(channel: u32, op: Op, payload: &[u8]) -> Vec<u8> {
        [&Header { channel, op, length: payload.len() }.to_bytes()[..], payload].concat()
    }

    /// The stream as it is taken: a greeting's nonce in front of what follows it.
    fn heard(pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut greetings = Greetings::default();
        let mut all = vec![(0, Vec::new())];
        for piece in pieces {
            greetings.hear(piece, &mut |heard| match heard {
                Heard::Begun => {}
                Heard::Greeting(nonce) => all.push((nonce[0], Vec::new())),
                Heard::Bytes(bytes) => all.last_mut().unwrap().1.extend(bytes),
            });
        }
        all
    }

    #[test]
    fn greetings_are_found_however_the_stream_is_cut() {
        let stream = [b"junk nav".to_vec(), greeting(7), b"one".to_vec(), greeting(8), b"two".to_vec()].concat();
        for first in 0..stream.len() {
            for second in [first, (first + 5).min(stream.len())] {
                let all = heard(&[&stream[..first], &stream[first..second], &stream[second..]]);
                let told: Vec<u8> = all.iter().map(|(nonce, _)| *nonce).collect();
                assert_eq!(told, [0, 7, 8], "{first} {second}");
                assert_eq!(all[2].1, b"two", "{first} {second}");
            }
        }
    }

    #[test]
    fn a_greeting_in_a_nonce_begins_anew() {
        let stream = [&greeting(7)[..12], &greeting(8), b"x"].concat();
        assert_eq!(heard(&[&stream]), [(0, vec![]), (8, b"x".to_vec())]);
    }

    #[test]
    fn a_greeting_that_comes_before_its_host_is_shown_is_answered_and_a_hang_up_ends_it() {
        let (start, mut opening) = (Instant::now(), Opening::default());
        assert!(opening.is_gone(true, start), "nobody has come yet");
        opening.begins(start);
        let soon = start + OPENING / 2;
        assert!(!opening.is_gone(true, soon), "what was answered would be dropped");
        assert!(opening.is_gone(true, start + OPENING), "a host that left before it was shown");
        opening.begins(soon);
        assert!(!opening.is_gone(false, soon));
        assert!(opening.is_gone(true, soon), "a host that was shown, and has hung up");
    }

    struct Bench {
        host: UnixStream,
        agents: mpsc::Receiver<UnixStream>,
    }

    fn bench() -> Bench {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        host.set_read_timeout(Some(LIMIT)).unwrap();
        let (sender, agents) = mpsc::channel();
        std::thread::spawn(move || serve(OwnedFd::from(guest).into(), sender, &AtomicBool::new(true)));
        Bench { host, agents }
    }

    impl Bench {
        fn say(&mut self, bytes: &[u8]) {
            self.host.write_all(bytes).unwrap();
        }

        fn expect(&mut self, bytes: &[u8]) {
            let mut got = vec![0; bytes.len()];
            self.host.read_exact(&mut got).unwrap();
            assert_eq!(got, bytes);
        }

        fn agent(&self) -> UnixStream {
            let agent = self.agents.recv_timeout(LIMIT).unwrap();
            agent.set_read_timeout(Some(LIMIT)).unwrap();
            agent
        }
    }

    fn read_exactly(agent: &mut UnixStream, count: usize) -> Vec<u8> {
        let mut got = vec![0; count];
        agent.read_exact(&mut got).unwrap();
        got
    }

    #[test]
    fn nothing_is_taken_before_a_greeting_and_channels_are_the_agents() {
        let mut bench = bench();
        bench.say(&message(1, Op::Open, b""));
        bench.say(b"\xff garbage ");
        bench.say(&greeting(1));
        bench.expect(&answer(1));
        assert!(bench.agents.try_recv().is_err(), "a channel of before the greeting");
        bench.say(&message(2, Op::Open, b""));
        bench.say(&message(2, Op::Data, b"hello"));
        let mut agent = bench.agent();
        assert_eq!(read_exactly(&mut agent, 5), b"hello");
        agent.write_all(b"answer").unwrap();
        bench.expect(&message(2, Op::Data, b"answer"));
        drop(agent);
        bench.expect(&message(2, Op::Close, b""));
    }

    #[test]
    fn a_new_greeting_drops_channels_and_half_messages() {
        let mut bench = bench();
        bench.say(&greeting(1));
        bench.expect(&answer(1));
        bench.say(&message(1, Op::Open, b""));
        let mut agent = bench.agent();
        // A host that dies in the midst of a payload, and in the midst of a header.
        for (nonce, cut) in [(2, HEADER_LENGTH + 4), (3, 4), (4, 7), (5, 0)] {
            let half = message(1, Op::Data, &[b'x'; 60_000]);
            bench.say(&half[..cut]);
            bench.say(&greeting(nonce));
            bench.expect(&answer(nonce));
            assert_eq!(agent.read(&mut [0; 100]).unwrap(), 0, "the channel of before is still open");
            bench.say(&message(1, Op::Open, b""));
            bench.say(&message(1, Op::Data, b"fresh"));
            agent = bench.agent();
            assert_eq!(read_exactly(&mut agent, 5), b"fresh");
        }
    }

    #[test]
    fn garbage_ends_all_channels_and_the_next_greeting_is_answered() {
        let mut bench = bench();
        for (nonce, garbage) in [
            (1, &b"\0\0\0\0\x09\0\0\0\0"[..]),
            // A length beyond all limits, and one where there is none.
            (2, b"\x01\0\0\0\x02\xff\xff\xff\xff"),
            (3, b"\x01\0\0\0\x01\x01\0\0\0"),
        ] {
            bench.say(&greeting(nonce));
            bench.expect(&answer(nonce));
            bench.say(&message(1, Op::Open, b""));
            let mut agent = bench.agent();
            bench.say(garbage);
            assert_eq!(agent.read(&mut [0]).unwrap(), 0);
            bench.say(&message(1, Op::Open, b""));
        }
        bench.say(&greeting(9));
        bench.expect(&answer(9));
        assert!(bench.agents.try_recv().is_err(), "a channel was opened by a host that had not greeted");
    }

    /// A channel that nobody reads does not keep the next host out.
    #[test]
    fn a_greeting_gets_past_a_stuck_channel() {
        let mut bench = bench();
        bench.say(&greeting(1));
        bench.expect(&answer(1));
        bench.say(&message(1, Op::Open, b""));
        let agent = bench.agent();
        let begun = Instant::now();
        for _ in 0..14 {
            bench.say(&message(1, Op::Data, &[b'x'; MAX_DATA]));
        }
        bench.say(&greeting(2));
        bench.expect(&answer(2));
        assert!(begun.elapsed() < Duration::from_secs(25), "it waited for the channel's limit");
        drop(agent);
    }
}
