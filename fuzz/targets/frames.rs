//! Everything that crosses the supervisor's wires: what is understood is said again with the same meaning, what is not is an
//! error, and neither costs more memory than its length allows.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, Trickle};
use navvy_protocol::frame::{self, FrameError, FrameKind, HEADER_LENGTH, MAX_LENGTH, OutputHeader};
use navvy_protocol::in_job::{Answer, MAX_LINE, Question};
use navvy_protocol::mux;
use navvy_protocol::supervisor::{Control, Hello, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

const KINDS: [FrameKind; 6] =
    [FrameKind::Hello, FrameKind::Request, FrameKind::Reply, FrameKind::Output, FrameKind::Data, FrameKind::Control];
/// Memory for a message, for each of its bytes. Lists of JSON's shortest values cost the most, 105: first they are
/// kept as values, since the tag may come behind them, then there is room made for as many messages.
const FACTOR: usize = 128;

fuzz_target!(|data: &[u8]| {
    frames(data);
    channels(data);
    output(data);
    message(data);
    let mut feed = Feed::new(data);
    let step = usize::from(feed.byte());
    conversation(&mut feed, step);
});

/// As agent and supervisor read, one frame after the other.
fn frames(wire: &[u8]) {
    let mut reader = wire;
    let mut buffer = Vec::new();
    loop {
        let before = reader;
        let read = within(3 * MAX_LENGTH, || frame::read(&mut reader, &mut buffer));
        assert!(buffer.len() < MAX_LENGTH && buffer.capacity() <= 2 * MAX_LENGTH);
        match read {
            Ok(Some(kind)) => {
                let taken = &before[..before.len() - reader.len()];
                let mut again = Vec::new();
                frame::write(&mut again, kind, &buffer).expect("writing to memory");
                assert!(again == taken, "a frame is written otherwise than it was read");
                payload(kind, &buffer);
            }
            Ok(None) => return assert!(before.is_empty()),
            Err(FrameError::Io(_) | FrameError::Length { .. } | FrameError::Kind { .. }) => return,
            Err(error) => panic!("not an error of a frame: {error:?}"),
        }
    }
}

fn payload(kind: FrameKind, bytes: &[u8]) {
    match kind {
        FrameKind::Hello => parsed::<Hello>(kind, bytes),
        FrameKind::Request => parsed::<Request>(kind, bytes),
        FrameKind::Reply => parsed::<Reply>(kind, bytes),
        FrameKind::Control => parsed::<Control>(kind, bytes),
        FrameKind::Output => output(bytes),
        FrameKind::Data => {}
    }
}

fn output(bytes: &[u8]) {
    match OutputHeader::split(bytes) {
        Ok((header, rest)) => assert!([&header.to_bytes()[..], rest].concat() == bytes),
        Err(_) => assert!(bytes.len() < OutputHeader::LENGTH || !matches!(bytes[0], 1 | 2)),
    }
}

/// The bytes as the JSON of every message there is.
fn message(text: &[u8]) {
    parsed::<Hello>(FrameKind::Hello, text);
    parsed::<Request>(FrameKind::Request, text);
    parsed::<Reply>(FrameKind::Reply, text);
    parsed::<Control>(FrameKind::Control, text);
    let line = &text[..text.len().min(MAX_LINE)];
    parsed::<Question>(FrameKind::Data, line);
    parsed::<Answer>(FrameKind::Data, line);
}

fn parsed<T: DeserializeOwned + Serialize + PartialEq + Debug>(kind: FrameKind, bytes: &[u8]) {
    let room = FACTOR * bytes.len() + (4 << 10);
    let Ok(message) = within(room, || frame::parse_message::<T>(kind, bytes)) else { return };
    let mut wire = Vec::new();
    frame::encode_message(&mut wire, kind, &message).expect("a message that was read fits into a frame");
    let mut payload = Vec::new();
    let read = frame::read(&mut wire.as_slice(), &mut payload).expect("our own frame");
    assert_eq!(read, Some(kind));
    assert_eq!(frame::parse_message::<T>(kind, &payload).expect("our own message"), message);
}

/// The stream of `navvy-supervisor dial`.
fn channels(mut wire: &[u8]) {
    while let Some((header, rest)) = wire.split_first_chunk::<{ mux::HEADER_LENGTH }>() {
        let Ok(parsed) = mux::Header::parse(*header) else { return };
        assert_eq!(parsed.to_bytes(), *header);
        assert!(parsed.length <= mux::MAX_DATA && (parsed.op == mux::Op::Data || parsed.length == 0));
        wire = rest.get(parsed.length..).unwrap_or_default();
    }
}

/// Frames that are written come back as they were, however the wire cuts them; and cut short they are an end or an error.
fn conversation(feed: &mut Feed<'_>, step: usize) {
    let mut wire = Vec::new();
    let mut said = Vec::new();
    while !feed.is_empty() && said.len() < 8 {
        let kind = KINDS[feed.up_to(KINDS.len() - 1)];
        let payload = feed.piece(300);
        frame::write(&mut wire, kind, payload).expect("writing to memory");
        assert_eq!(wire[wire.len() - payload.len()..], *payload);
        said.push((kind, payload, wire.len()));
    }
    let cut = wire.len() - wire.len().min(step / 8);
    let mut reader = Trickle { bytes: &wire[..cut], step };
    let mut buffer = Vec::new();
    for (kind, payload, end) in &said {
        match frame::read(&mut reader, &mut buffer) {
            Ok(Some(read)) => assert!(*end <= cut && read == *kind && buffer == *payload),
            Ok(None) => return assert_eq!(cut, end - payload.len() - HEADER_LENGTH),
            Err(error) => return assert!(cut < *end && error.is_disconnect()),
        }
    }
    assert!(matches!(frame::read(&mut reader, &mut buffer), Ok(None)));
}

/// Runs `work`; it must not hold more than `room` bytes at once beside what there was.
fn within<T>(room: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most <= room, "{most} bytes were allocated where {room} are allowed");
    result
}

/// Counts what Rust code allocates. A target runs on one thread.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; what we gave out came from there.
        unsafe { System.dealloc(place, layout) }
    }
}
