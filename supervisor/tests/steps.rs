//! Steps as an agent sees them.

mod harness;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::{Bench, wait_for};
use navvy_protocol::supervisor::{Exit, FailureKind, Reply, Request, Terminal};

#[test]
fn exit_codes_and_signals() {
    let bench = Bench::new();
    assert_eq!(bench.exec("exit 0").run().exit(), Exit::Code(0));
    assert_eq!(bench.exec("exit 7").run().exit(), Exit::Code(7));
    assert_eq!(bench.exec("kill -9 $$").run().exit(), Exit::Signal(9));
    assert_eq!(bench.exec("kill -TERM $$").run().exit(), Exit::Signal(15));
    let story = bench.exec("head -c 30000000 /dev/zero | tail -c 1 >/dev/null").run();
    let usage = story.exited.unwrap().usage;
    assert!(usage.max_rss > 100_000, "{usage:?}");
}

#[test]
fn output_comes_in_order_by_stream_before_the_exit() {
    let bench = Bench::new();
    let story = bench.exec("echo out; echo err >&2").run();
    assert_eq!((story.stdout.as_slice(), story.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(story.ended, Some(8));
    let exited = story.exited.unwrap();
    assert_eq!((exited.output, exited.left_running, exited.halted), (8, 0, false));
}

#[test]
fn an_id_is_started_once() {
    let bench = Bench::new();
    let step = bench.exec("echo once");
    let exec = step.exec.clone();
    step.run();
    let again = harness::failure(bench.ask(&Request::Exec(exec.clone())));
    assert_eq!(again.kind, FailureKind::Duplicate);
    let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!() };
    assert_eq!((execs.len(), execs[0].id.as_str(), execs[0].output, execs[0].ended), (1, exec.id.as_str(), 5, true));
}

#[test]
fn nothing_but_the_three_streams_is_inherited() {
    let bench = Bench::new();
    for step in [bench.exec("ls /proc/self/fd"), bench.exec("ls /proc/self/fd").on_pty()] {
        // 3 is ls's own.
        assert_eq!(step.run().text().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
    let signals = bench.exec("grep -E 'Sig(Blk|Ign)' /proc/self/status; umask; cat | wc -c").run().text();
    assert_eq!(
        signals.split_whitespace().collect::<Vec<_>>(),
        ["SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000", "0022", "0"]
    );
}

#[test]
fn a_plain_terminal_adds_nothing_and_controls_nothing() {
    let bench = Bench::new();
    // Opening the terminal by its name, for reading too, does not make it a controlling one either.
    let script = "test -t 1 && test -t 2 && ! test -t 0 && stty size <&1; printf 'a\\nb\\r\\n\\003\\t'; \
        exec 4<>$(readlink /proc/self/fd/2); (: </dev/tty) 2>&1";
    let text = bench.exec(script).on_pty().run().text();
    assert!(text.starts_with("40 120\na\nb\r\n\u{3}\t"), "{text:?}");
    assert!(text.contains("/dev/tty: No such device or address"), "{text:?}");
}

#[test]
fn a_controlling_terminal_is_a_persons() {
    let bench = Bench::new();
    let step = bench.exec("read line </dev/tty; echo got $line; stty size; read size_changed; stty size");
    let step = step.with(|exec| {
        exec.terminal = Terminal::Controlling { columns: 80, rows: 24 };
        exec.input = true;
    });
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.data(b"hello\n");
    conversation.until(&mut story, "24 80");
    conversation.control(&navvy_protocol::supervisor::Control::Resize { columns: 100, rows: 30 });
    conversation.data(b"\n");
    conversation.follow_into(&mut story);
    let text = story.text();
    assert!(text.contains("got hello\r\n"), "{text:?}");
    assert!(text.contains("30 100"), "{text:?}");
}

#[test]
fn input_reaches_stdin_and_ends() {
    let bench = Bench::new();
    let mut conversation = bench.exec("wc -c; echo done").with(|exec| exec.input = true).start();
    let bytes = vec![b'x'; 300_000];
    for chunk in bytes.chunks(100_000) {
        conversation.data(chunk);
    }
    conversation.data(&[]);
    assert_eq!(conversation.follow().text(), "300000\ndone\n");
    // A step that does not care for its input is not held up by it.
    let mut conversation = bench.exec("exec <&-; echo ok").with(|exec| exec.input = true).start();
    conversation.data(b"unread");
    assert_eq!(conversation.follow().text(), "ok\n");
}

#[test]
fn what_a_step_leaves_running_goes_on_telling() {
    let bench = Bench::new();
    for pty in [false, true] {
        let fifo = bench.path().join(format!("go-{pty}"));
        let script = format!(
            "mkfifo {0}; (trap '' HUP; setsid sh -c 'read x <{0}; echo late; echo more'; ) & echo early",
            fifo.display()
        );
        let step = bench.exec(&script);
        let (mut conversation, mut story) = if pty { step.on_pty() } else { step }.run_to_exit();
        assert_eq!(story.text(), "early\n");
        assert!(story.exited.as_ref().unwrap().left_running > 0);
        assert!(story.ended.is_none());
        wait_for("the fifo", || fifo.exists());
        std::fs::write(&fifo, "now\n").unwrap();
        conversation.follow_into(&mut story);
        assert_eq!(story.text(), "early\nlate\nmore\n");
    }
}

/// For tests that measure time or fill the machine: one after another.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn stubborn_processes_are_stopped_and_others_live_on() {
    let _alone = alone();
    let bench = Bench::new();
    let (mut daemon, mut daemon_story) = bench.exec("sleep 1000 & echo daemon").run_to_exit();
    let background = bench.exec("trap '' TERM; echo up; while :; do sleep 0.1; done");
    let background_id = background.exec.id.clone();
    let mut background = background.start();
    background.until(&mut harness::Story::default(), "up");
    let script = "trap '' TERM; i=0; while [ $i -lt 200 ]; do \
        (setsid sh -c 'trap \"\" TERM; (while :; do sleep 1000; done) & sleep 1000' &) ; i=$((i+1)); done; echo up; sleep 1000";
    let step = bench.exec(script);
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    let grace = Duration::from_millis(300);
    let began = Instant::now();
    bench.stop(&id, grace);
    assert!(began.elapsed() < grace + Duration::from_secs(1), "{:?}", began.elapsed());
    conversation.follow_into(&mut story);
    // Or it saw its last sleep killed and just ended before its own turn came.
    assert!(matches!(story.exit(), Exit::Signal(9) | Exit::Code(137)), "{:?}", story.exit());

    let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!() };
    let running = execs.iter().filter(|exec| !exec.ended).count();
    assert_eq!(running, 2);
    bench.stop(&background_id, Duration::ZERO);
    let daemon_id = execs.iter().find(|exec| exec.exited.is_some() && !exec.ended).unwrap().id.clone();
    bench.stop(&daemon_id, Duration::from_secs(10));
    daemon.follow_into(&mut daemon_story);
}

#[test]
fn a_polite_step_ends_within_grace() {
    let bench = Bench::new();
    let step = bench.exec("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    let began = Instant::now();
    bench.stop(&id, Duration::from_secs(30));
    assert!(began.elapsed() < Duration::from_secs(5));
    conversation.follow_into(&mut story);
    // On the other stream the shell may tell that its `sleep` was terminated, before or after.
    assert_eq!(String::from_utf8_lossy(&story.stdout), "up\nbye\n");
    assert_eq!(story.exit(), Exit::Code(3));
}

#[test]
fn a_steps_own_clean_up_may_start_programs() {
    let bench = Bench::new();
    let gate = bench.path().join("gate");
    let script = format!(
        "mkfifo {0}; trap 'echo cleaning; cat {0}; /bin/echo done; exit 3' TERM; echo up; while :; do sleep 0.01; done",
        gate.display()
    );
    let step = bench.exec(&script);
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.stop(&id, harness::LIMIT));
        conversation.until(&mut story, "cleaning");
        // Asked once more, it is left to its clean-up all the same.
        let second = scope.spawn(|| bench.stop(&id, harness::LIMIT));
        // It opens once `cat` reads, and that has time to be found among the processes.
        let mut gate = std::fs::OpenOptions::new().write(true).open(&gate).unwrap();
        wait_for_lists(&bench);
        // Where `cat` was ended nobody reads.
        let _ = std::io::Write::write_all(&mut gate, b"unlocked\n");
        drop(gate);
        first.join().unwrap();
        second.join().unwrap();
    });
    conversation.follow_into(&mut story);
    assert_eq!(String::from_utf8_lossy(&story.stdout), "up\ncleaning\nunlocked\ndone\n");
    assert_eq!(story.exit(), Exit::Code(3));
}

/// Until the supervisor has looked for processes a few times: another step that ignores TERM is stopped meanwhile.
fn wait_for_lists(bench: &Bench) {
    let step = bench.exec("trap '' TERM; echo up; while :; do sleep 0.01; done");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    bench.stop(&id, Duration::from_millis(200));
    conversation.follow_into(&mut story);
}

#[test]
fn what_was_there_is_asked_to_end_whatever_group_it_is_in() {
    let bench = Bench::new();
    let polite = |name: &str| format!("trap 'echo {name} ends; exit' TERM; echo {name}; while :; do sleep 0.01; done");
    let script = format!("(setsid sh -c \"{}\") & {}", polite("other"), polite("own"));
    let step = bench.exec(&script);
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "own\n");
    while !story.text().contains("other\n") {
        conversation.step(&mut story);
    }
    bench.stop(&id, harness::LIMIT);
    conversation.follow_into(&mut story);
    assert!(story.text().contains("own ends") && story.text().contains("other ends"), "{}", story.text());
}

#[test]
fn a_growing_crowd_of_processes_is_stopped() {
    let _alone = alone();
    let bench = Bench::new();
    // Grows while it is being stopped, to 511 processes at most: a real fork bomb would take the machine with it.
    let step =
        bench.exec("trap '' TERM; echo up; f() { [ $1 -gt 0 ] && { f $(($1-1)) & f $(($1-1)) & }; sleep 60; }; f 8");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    conversation.until(&mut harness::Story::default(), "up");
    bench.stop(&id, Duration::from_millis(100));
    let Reply::Execs { execs } = bench.ask(&Request::List) else { panic!() };
    assert!(execs[0].exited.is_some() || execs[0].ended);
}

#[test]
fn a_killed_keeper_loses_nothing_but_the_usage() {
    let bench = Bench::new();
    // The step kills its own parent, then goes on.
    let story = bench.exec("kill -9 $PPID; echo still here; exit 5").run();
    assert_eq!((story.text().as_str(), story.exit()), ("still here\n", Exit::Code(5)));
    let step = bench.exec("sleep 1000 & kill -9 $PPID; echo up; sleep 1000");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    bench.stop(&id, Duration::ZERO);
    conversation.follow_into(&mut story);
    // Without grace KILL is right behind TERM.
    assert!(matches!(story.exit(), Exit::Signal(9 | 15)), "{:?}", story.exit());
}

#[test]
fn signals_reach_a_steps_processes() {
    let bench = Bench::new();
    let step = bench.exec("trap 'echo usr1; exit' USR1; echo up; while :; do sleep 0.01; done");
    let id = step.exec.id.clone();
    let mut conversation = step.start();
    let mut story = harness::Story::default();
    conversation.until(&mut story, "up");
    assert_eq!(bench.ask(&Request::Signal { exec: id.clone(), signal: libc::SIGUSR1 }), Reply::Done);
    conversation.follow_into(&mut story);
    assert!(story.text().contains("usr1\n"), "{:?}", story.text());
    let unknown = harness::failure(bench.ask(&Request::Signal { exec: "none".into(), signal: 1 }));
    assert_eq!(unknown.kind, FailureKind::NoSuchExec);
    let invalid = harness::failure(bench.ask(&Request::Signal { exec: id, signal: 99 }));
    assert_eq!(invalid.kind, FailureKind::Invalid);
}

#[test]
fn what_cannot_be_started_says_why() {
    let bench = Bench::new();
    let directory = bench.path().join("files");
    std::fs::create_dir(&directory).unwrap();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("plain"), "#!/bin/sh\n").unwrap();
    std::fs::write(path("orphan"), "#!/no/such/shell\n").unwrap();
    std::fs::write(path("noise"), [0u8, 1, 2, 3]).unwrap();
    for name in ["orphan", "noise"] {
        std::fs::set_permissions(path(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let table = [
        ("/no/such/bash".to_owned(), FailureKind::NoSuchProgram),
        ("nosuchprogram".to_owned(), FailureKind::NoSuchProgram),
        (path("plain"), FailureKind::NotPermitted),
        (path("orphan"), FailureKind::NotExecutable),
        (path("noise"), FailureKind::NotExecutable),
        (String::new(), FailureKind::Invalid),
    ];
    for (program, kind) in table {
        let failure = bench.exec("").with(|exec| exec.argv = vec![program.clone()]).refused();
        assert_eq!(failure.kind, kind, "{program}: {failure}");
        assert!(failure.message.contains(&program));
    }
    let failure = bench.exec("").with(|exec| exec.user = Some("no-such-user".into())).refused();
    assert_eq!(failure.kind, FailureKind::NoSuchUser);
    let large = ("LARGE".to_owned(), "x".repeat(200 << 10));
    let failure = bench.exec("").with(|exec| exec.env = vec![large.clone()]).refused();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure}");
    assert!(failure.message.contains("LARGE with 204807"), "{failure}");
    // What was not started may be tried again under the same id.
    let step = bench.exec("true").with(|exec| exec.argv = vec!["/none".into()]);
    let mut exec = step.exec.clone();
    step.refused();
    exec.argv = vec!["/bin/true".into()];
    assert!(matches!(bench.ask(&Request::Exec(exec)), Reply::Started { .. }));
}

#[test]
fn users_homes_and_directories() {
    let bench = Bench::new();
    let story = bench.exec("id -u; id -g; echo $HOME $USER").with(|exec| exec.user = Some("nobody".into())).run();
    assert_eq!(story.text(), "65534\n65534\n/nonexistent nobody\n");
    let story = bench.exec("id -u; id -g; id -G; pwd; echo $HOME").with(|exec| {
        exec.user = Some("12345:54321".into());
        exec.cwd = "~".into();
    });
    assert_eq!(story.run().text(), "12345\n54321\n54321\n/\n/\n");
    // A home that the environment says is the one.
    let home = bench.path().join("home");
    let story = bench.exec("pwd; cd ~; pwd").with(|exec| {
        exec.cwd = "~/work".into();
        exec.env.push(("HOME".into(), home.to_str().unwrap().into()));
    });
    assert_eq!(story.run().text(), format!("{0}/work\n{0}\n", home.display()));
    // A directory that only uid 0 can make belongs to the user.
    let directory = bench.path().join("work/deep");
    let story = bench.exec("pwd; touch mine; stat -c %u . ..").with(|exec| {
        exec.user = Some("nobody".into());
        exec.cwd = directory.to_str().unwrap().into();
    });
    assert_eq!(story.run().text(), format!("{}\n65534\n65534\n", directory.display()));
    let story = bench.exec("echo x >/dev/stdout").on_pty().with(|exec| exec.user = Some("nobody".into()));
    assert_eq!(story.run().text(), "x\n");
}

#[test]
fn many_steps_at_once_leave_nothing_behind() {
    let bench = Bench::new();
    bench.exec("true").run();
    let before = bench.open_descriptors();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..25 {
                    let step = bench.exec("echo a; echo b >&2; exit 4");
                    let story = if round % 2 == 0 { step.on_pty() } else { step }.run();
                    assert_eq!((story.all.len(), story.exit()), (4, Exit::Code(4)));
                }
            });
        }
    });
    wait_for("descriptors to be closed", || bench.open_descriptors() <= before);
    assert!(bench.resident() < harness::resident_limit(), "{} KB", bench.resident());
}
