//! What a supervisor keeps for an agent that goes on where another was killed.

mod harness;

use harness::{Bench, Conversation};
use navvy_protocol::frame::{FrameKind, OutputHeader};
use navvy_protocol::supervisor::{ACK_NOTE_CAP, Acknowledged, Control, FailureKind, Reply, Request};

fn acknowledged(bench: &Bench, exec: &str) -> Option<Acknowledged> {
    let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!("no list") };
    execs.into_iter().find(|status| status.id == exec).expect("the exec is listed").acknowledged
}

/// What was acknowledged, once it is this.
fn until_acknowledged(bench: &Bench, exec: &str, wanted: &Acknowledged) {
    let begun = std::time::Instant::now();
    while acknowledged(bench, exec).as_ref() != Some(wanted) {
        assert!(begun.elapsed().as_secs() < 30, "{:?}", acknowledged(bench, exec));
        std::thread::yield_now();
    }
}

/// The next bytes. Acknowledges nothing.
fn output(conversation: &mut Conversation) -> Vec<u8> {
    while conversation.frame().expect("more comes") != FrameKind::Output {}
    OutputHeader::split(&conversation.buffer).unwrap().1.to_vec()
}

#[test]
fn a_note_is_remembered_without_a_hold_and_one_that_is_held_goes_first() {
    let bench = Bench::new();
    assert!(
        matches!(bench.open(&Request::Recall).receive().1, Reply::Failed(failure) if failure.kind == FailureKind::Other)
    );
    for note in [&b"first"[..], &[7; 3 << 20]] {
        assert_eq!(bench.open(&Request::Remember).send_all(note), Reply::Done);
        assert_eq!(bench.open(&Request::Recall).receive(), (note.to_vec(), Reply::Done));
    }
    assert_eq!(bench.open(&Request::Keep { for_ms: 600_000 }).send_all(b"held"), Reply::Done);
    assert_eq!(bench.open(&Request::Recall).receive().0, b"held");
}

#[test]
fn what_was_acknowledged_is_told_with_its_note_and_the_rest_comes_again() {
    let bench = Bench::new();
    let step = bench.exec("printf abc; sleep 1000");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    assert_eq!(output(&mut conversation), b"abc");
    assert_eq!(acknowledged(&bench, &id), None);
    let ack = |offset, note: &str| Control::Ack { offset, note: Some(note.to_owned()) };
    conversation.control(&ack(2, "at two"));
    until_acknowledged(&bench, &id, &Acknowledged { offset: 2, note: Some("at two".to_owned()) });
    // The agent is gone; what it had not acknowledged is here still, as often as somebody asks.
    drop(conversation);
    for _ in 0..2 {
        let note = Some("again".to_owned());
        let mut next = bench.open(&Request::Attach { exec: id.clone(), offset: 2, note: note.clone() });
        assert_eq!(output(&mut next), b"c");
        until_acknowledged(&bench, &id, &Acknowledged { offset: 2, note });
    }
    // Nothing that is not there can be acknowledged, and a note that is too long is none.
    let mut last = bench.attach(&id, 2);
    last.control(&ack(u64::MAX, &"x".repeat(ACK_NOTE_CAP + 1)));
    until_acknowledged(&bench, &id, &Acknowledged { offset: 3, note: None });
    bench.stop(&id, std::time::Duration::ZERO);
}
