//! Output that waits, connections that break, and what it costs.

mod harness;

use harness::{Bench, Story, failure, wait_for};
use navvy_protocol::frame::{self, FrameKind, OutputHeader};
use navvy_protocol::supervisor::{Exit, FailureKind, Reply, Request};

/// More than are counted: a frame may be longer than a stretch.
const CUTS_ASKED: usize = 40;

/// Bytes that look random and that both sides can make.
fn noise(length: usize) -> Vec<u8> {
    let mut seed = 42u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bytes.extend_from_slice(&(seed >> 32).to_le_bytes()[..4]);
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_connection_cut_again_and_again_loses_no_byte_and_repeats_no_step() {
    let bench = Bench::new();
    let wanted = noise(50_000_000);
    let file = bench.path().join("noise");
    let counter = bench.path().join("runs");
    std::fs::write(&file, &wanted).unwrap();
    for pty in [false, true] {
        let wanted = if pty { &wanted[..10_000_000] } else { &wanted[..] };
        let script = format!("echo run >>{}; head -c {} {}", counter.display(), wanted.len(), file.display());
        let step = bench.exec(&script);
        let step = if pty { step.on_pty() } else { step };
        let id = step.exec.id.clone();
        let (received, cuts) = follow_with_cuts(&bench, &id, step.start(), wanted.len());
        assert!(cuts >= 25, "{cuts} cuts");
        assert!(received == wanted);
    }
    assert_eq!(std::fs::read_to_string(&counter).unwrap(), "run\nrun\n");
}

/// Reads, cuts in the middle of a frame (or of anything else), attaches where whole frames ended.
fn follow_with_cuts(
    bench: &Bench,
    id: &str,
    mut conversation: harness::Conversation,
    length: usize,
) -> (Vec<u8>, usize) {
    let (mut received, mut cuts) = (Vec::with_capacity(length), 0);
    loop {
        let stop_at = received.len() + length / CUTS_ASKED;
        match follow_to(&mut conversation, &mut received, stop_at) {
            Some(exited) => {
                assert_eq!(exited.exit, Exit::Code(0));
                assert_eq!(exited.output, length as u64);
                return (received, cuts);
            }
            None => {
                // Half of what was read is given up again: only acknowledged bytes are gone.
                cuts += 1;
                drop(conversation);
                conversation = bench.attach(id, received.len() as u64);
            }
        }
    }
}

fn follow_to(
    conversation: &mut harness::Conversation,
    received: &mut Vec<u8>,
    stop_at: usize,
) -> Option<navvy_protocol::supervisor::Exited> {
    let mut acknowledged = received.len();
    loop {
        match conversation.frame().expect("more") {
            FrameKind::Output => {
                let (header, bytes) = OutputHeader::split(&conversation.buffer).unwrap();
                assert_eq!(header.offset, received.len() as u64);
                received.extend_from_slice(bytes);
                if received.len() - acknowledged > 200_000 {
                    acknowledged = received.len();
                    conversation.acknowledge(acknowledged as u64);
                }
            }
            FrameKind::Hello => {}
            _ => match frame::parse_message(FrameKind::Reply, &conversation.buffer).unwrap() {
                Reply::Started { .. } => {}
                Reply::Exited(exited) => return Some(exited),
                other => panic!("{other:?}"),
            },
        }
        if received.len() >= stop_at {
            return None;
        }
    }
}

#[test]
fn nobody_acknowledges_and_the_step_waits_in_little_memory() {
    let bench = Bench::new();
    let fifo = bench.path().join("after");
    let script = format!("yes | head -c 8000000; echo x >{}", fifo.display());
    let step = bench.exec(&script);
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    // Everything that comes without an acknowledgement: so much must, and then it pauses.
    let mut received = 0;
    conversation.stream.set_read_timeout(Some(harness::LIMIT)).unwrap();
    while let Ok(Some(kind)) = frame::read(&mut conversation.stream, &mut conversation.buffer) {
        if kind == FrameKind::Output {
            received += OutputHeader::split(&conversation.buffer).unwrap().1.len();
        }
        if received >= 500_000 {
            conversation.stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        }
    }
    assert!((500_000..2_000_000).contains(&received), "{received}");
    assert!(!fifo.exists(), "the step went on");
    assert!(bench.resident() < harness::resident_limit(), "{} KB", bench.resident());
    drop(conversation);
    // All of it is still here for whoever comes next.
    let mut story = Story::default();
    bench.attach(&id, 0).follow_into(&mut story);
    assert_eq!(story.all.len(), 8_000_000);
    assert_eq!(story.exit(), Exit::Code(0));
}

#[test]
fn memory_is_given_back() {
    let bench = Bench::new();
    let empty = bench.allocated();
    let script = "head -c 20000000 /dev/zero; exec sleep 1000";
    let mut conversation = bench.exec(script).start();
    let mut story = Story::default();
    while story.all.len() < 20_000_000 {
        conversation.step(&mut story);
    }
    // The step lives on, its megabyte does not.
    wait_for("the ring to rest", || bench.allocated() < empty + 600);
    assert!(bench.resident() < harness::resident_limit(), "{} kB", bench.resident());
}

#[test]
fn an_attach_gets_the_end_again_and_again() {
    let bench = Bench::new();
    let step = bench.exec("echo hello; exit 3");
    let id = step.exec.id.clone();
    // Nothing is acknowledged by this one.
    let mut first = step.start();
    wait_for("the step's end", || {
        let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!() };
        execs[0].ended
    });
    assert_eq!(first.frame(), Some(FrameKind::Output));
    for offset in [0, 2, 6] {
        let mut conversation = bench.attach(&id, offset);
        assert!(matches!(conversation.reply(), Reply::Started { .. }));
        if offset < 6 {
            assert_eq!(conversation.frame(), Some(FrameKind::Output));
            let (header, bytes) = OutputHeader::split(&conversation.buffer).unwrap();
            assert_eq!((header.offset, bytes), (offset, &b"hello\n"[offset as usize..]));
        }
        let Reply::Exited(exited) = conversation.reply() else { panic!() };
        assert_eq!((exited.exit, exited.output), (Exit::Code(3), 6));
        assert_eq!(conversation.reply(), Reply::Ended { output: 6 });
        if offset == 0 {
            assert_eq!(failure(bench.attach(&id, 7).reply()).kind, FailureKind::Invalid);
        }
    }
    // The last attach said by its offset that it has everything; now only the end is left.
    wait_for("the output to be forgotten", || matches!(bench.attach(&id, 0).reply(), Reply::Failed(_)));
    let mut conversation = bench.attach(&id, 6);
    assert!(matches!(conversation.reply(), Reply::Started { .. }));
    assert!(matches!(conversation.reply(), Reply::Exited(_)));
    assert_eq!(conversation.reply(), Reply::Ended { output: 6 });
    assert_eq!(failure(bench.attach("none", 0).reply()).kind, FailureKind::NoSuchExec);
}

#[test]
fn a_newer_follower_replaces_the_older() {
    let bench = Bench::new();
    let fifo = bench.path().join("go");
    let step = bench.exec(&format!("mkfifo {0}; echo one; read x <{0}; echo two", fifo.display()));
    let id = step.exec.id.clone();
    let mut first = step.start();
    let mut story = Story::default();
    first.until(&mut story, "one\n");
    let mut second = bench.attach(&id, 4);
    assert!(matches!(second.reply(), Reply::Started { .. }));
    assert_eq!(first.frame(), None);
    std::fs::write(&fifo, "\n").unwrap();
    second.follow_into(&mut story);
    assert_eq!(story.text(), "one\ntwo\n");
}

#[test]
fn late_output_is_told_behind_the_exit_after_a_cut_too() {
    let bench = Bench::new();
    let fifo = bench.path().join("go");
    let step = bench.exec(&format!("mkfifo {0}; (read x <{0}; echo late) & echo early", fifo.display()));
    let id = step.exec.id.clone();
    let (conversation, story) = step.run_to_exit();
    assert_eq!(story.text(), "early\n");
    drop(conversation);
    wait_for("the fifo", || fifo.exists());
    std::fs::write(&fifo, "\n").unwrap();
    wait_for("its end", || {
        let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!() };
        execs[0].ended
    });
    let mut conversation = bench.attach(&id, 6);
    assert!(matches!(conversation.reply(), Reply::Started { .. }));
    let Reply::Exited(exited) = conversation.reply() else { panic!() };
    assert_eq!((exited.output, exited.left_running > 0), (6, true));
    assert_eq!(conversation.frame(), Some(FrameKind::Output));
    assert_eq!(conversation.reply(), Reply::Ended { output: 11 });
    // In the middle of the late output, Exited still comes first.
    let mut conversation = bench.attach(&id, 8);
    assert!(matches!(conversation.reply(), Reply::Started { .. }));
    assert!(matches!(conversation.reply(), Reply::Exited(_)));
    assert_eq!(conversation.frame(), Some(FrameKind::Output));
    let (header, bytes) = OutputHeader::split(&conversation.buffer).unwrap();
    assert_eq!((header.offset, bytes), (8, &b"te\n"[..]));
}
