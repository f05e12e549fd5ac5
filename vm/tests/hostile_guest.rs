//! What a machine must survive of its guest and of QEMU, told with a QEMU that is a part of this program.
//!
//! ```text
//! settings.program = a script ─▶ this test program again, `fake_qemu` alone ─▶ sockets in the machine's directory, as QEMU makes them
//! ```

#![expect(clippy::print_stdout, reason = "who reads the test wants to see what it saw")]
#![expect(
    clippy::print_stderr,
    reason = "who reads the test wants to see what it left out, and a fake writes what QEMU would"
)]

mod bench;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use bench::Bench;
use navvy_job::outcome::Blame;
use navvy_vm::settings::{Accelerator, Snapshots};
use navvy_vm::{Fault, PrepareError};

const MODE: &str = "NAVVY_FAKE_QEMU";

/// Not a test: the QEMU of the others, where they have asked for it.
#[test]
fn fake_qemu() {
    if let Ok(mode) = std::env::var(MODE) {
        play(&mode);
    }
}

fn play(mode: &str) {
    if mode == "abort" {
        eprintln!("qemu: failed to set MSR 0x10a");
        std::process::abort();
    }
    let listen = |name: &str| UnixListener::bind(name).unwrap();
    let (early, console, seed, mux) =
        (listen("early.sock"), listen("console.sock"), listen("seed.sock"), listen("mux.sock"));
    let qmp = listen("qmp.sock");
    let (mut monitor, _) = qmp.accept().unwrap();
    monitor.write_all(b"{\"QMP\": {}}\n").unwrap();
    let lines = BufReader::new(monitor.try_clone().unwrap());
    let mode = mode.to_owned();
    let mut consoles = None;
    for line in lines.lines() {
        let Ok(line) = line else { return };
        if mode == "monitor-garbage" && line.contains("cont") {
            monitor.write_all(&b"x".repeat(4 << 20)).ok();
            thread::sleep(Duration::from_secs(1000));
        }
        monitor.write_all(b"{\"event\": \"X\", \"data\": {}}\n{\"return\": {}}\n").unwrap();
        if line.contains("cont") {
            consoles = Some((early.accept().unwrap().0, console.accept().unwrap().0));
            let (console, seed) = (consoles.as_ref().unwrap().1.try_clone().unwrap(), seed.accept().unwrap().0);
            let (mode, mux) = (mode.clone(), mux.try_clone().unwrap());
            thread::spawn(move || guest(&mode, console, seed, &mux));
        }
    }
    drop(consoles);
}

fn guest(mode: &str, mut console: UnixStream, mut seed: UnixStream, mux: &UnixListener) {
    writeln!(console, "booting\nlast line of the console").unwrap();
    let ready = b"{\"said\":\"ready\",\"version\":1}\n";
    match mode {
        "silent" => {}
        "panic" => {
            writeln!(console, "Kernel panic - not syncing: Attempted to kill init!").unwrap();
            end_well();
        }
        "own-fault" => {
            writeln!(console, "navvy-supervisor: a fault of its own; the machine ends: panicked at guest.rs:1:1")
                .unwrap();
            end_well();
        }
        "console-flood" => {
            thread::spawn(move || while console.write_all(&b"flood\n".repeat(10_000)).is_ok() {});
        }
        "killed" => std::process::abort(),
        "seed-garbage" => seed.write_all(b"\x00\xff{{{ not a message\n").unwrap(),
        "seed-endless" => while seed.write_all(&[b'x'; 65536]).is_ok() {},
        "seed-out-of-turn" => seed.write_all(b"{\"said\":\"seeded\",\"time_ns\":1}\n").unwrap(),
        "seed-other-version" => seed.write_all(b"{\"said\":\"ready\",\"version\":7}\n").unwrap(),
        "seed-refused" => {
            seed.write_all(ready).unwrap();
            BufReader::new(&seed).read_line(&mut String::new()).unwrap();
            seed.write_all(b"{\"said\":\"failed\",\"message\":\"no \\u001b[31mdisk\"}\n").unwrap();
        }
        _ => {
            seed.write_all(ready).unwrap();
            BufReader::new(&seed).read_line(&mut String::new()).unwrap();
            seed.write_all(b"{\"said\":\"seeded\",\"time_ns\":1}\n").unwrap();
            serve_mux(mode, mux);
        }
    }
    thread::sleep(Duration::from_secs(1000));
}

fn serve_mux(mode: &str, mux: &UnixListener) {
    for stream in mux.incoming() {
        let mut stream = stream.unwrap();
        let mut greeting = [0; 24];
        if stream.read_exact(&mut greeting).is_err() {
            continue;
        }
        if mode == "mux-no-answer" {
            while stream.write_all(&[7; 65536]).is_ok() {}
            continue;
        }
        stream.write_all(&[b"navvymx1".as_slice(), &greeting[8..]].concat()).unwrap();
        match mode {
            // An operation that does not exist.
            "mux-garbage" => stream.write_all(&[0xff; 4096]).unwrap(),
            // A payload of four gigabytes.
            "mux-length" => stream.write_all(&[1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]).unwrap(),
            // Frames of a channel that nobody has opened, without an end.
            "mux-endless" => {
                while stream.write_all(&[[9u8, 0, 0, 0, 2, 1, 0, 0, 0].as_slice(), b"x"].concat()).is_ok() {}
            }
            _ => {}
        }
    }
}

/// As QEMU does when its guest has ended.
fn end_well() {
    // A moment for what was written: a socket that is closed keeps it for its reader.
    let own = rustix::process::getpid();
    drop(std::fs::write("ended", own.as_raw_nonzero().to_string()));
    std::thread::sleep(Duration::from_millis(50));
    #[expect(clippy::disallowed_methods, clippy::exit, reason = "this process plays another program")]
    std::process::exit(0);
}

fn bench(mode: &str) -> Option<Bench> {
    let mut bench = Bench::open()?;
    let script = bench.scratch.path().join("qemu");
    let own = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'QEMU emulator version 7.2.99 (fake)'; exit; fi\n\
         export {MODE}={mode}\nexec {} --exact fake_qemu --nocapture --test-threads 1 >/dev/null\n",
        own.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    bench.settings.program = Some(script);
    bench.settings.accelerator = Accelerator::Tcg;
    bench.settings.snapshots = Snapshots::Off;
    bench.settings.answer_limit = Duration::from_secs(10);
    Some(bench)
}

/// Why there is no machine, and that nothing of it is left.
async fn refused(mode: &str) -> Option<PrepareError> {
    let bench = bench(mode)?;
    let error = bench.prepare().await.map(drop).expect_err(mode);
    assert_eq!(error.leftovers, Vec::<String>::new(), "{mode}");
    assert_eq!(error.blame(), Blame::Infra, "{mode}");
    bench.assert_nothing_left();
    println!("{mode}: {error}");
    Some(error)
}

macro_rules! faults {
    ($($name:ident: $mode:literal => $fault:pat,)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let Some(error) = refused($mode).await else { return };
                assert!(matches!(&error.fault, $fault), "{:?}", error.fault);
            }
        )*
    };
}

faults! {
    a_qemu_that_aborts_is_named: "abort" => Fault::Ended { doing: "started", .. },
    a_guest_that_panics_is_named: "panic" => Fault::Panicked { .. },
    a_supervisor_that_panics_is_named: "own-fault" => Fault::OwnFault { .. },
    a_qemu_that_dies_while_it_boots_is_named: "killed" => Fault::Ended { doing: "booting", .. },
    a_monitor_that_floods_is_given_up: "monitor-garbage" => Fault::Monitor { .. },
    a_first_word_that_is_none_is_named: "seed-garbage" => Fault::Hostile { .. },
    a_line_without_an_end_is_named: "seed-endless" => Fault::Hostile { .. },
    a_word_out_of_turn_is_named: "seed-out-of-turn" => Fault::Hostile { .. },
    another_version_is_named: "seed-other-version" => Fault::Seed(_),
    a_seed_that_is_refused_is_named: "seed-refused" => Fault::Seed(_),
    a_mux_that_never_answers_is_named: "mux-no-answer" => Fault::Hostile { .. },
}

#[tokio::test]
async fn a_supervisor_that_never_comes_ends_in_the_consoles_last_lines() {
    let Some(error) = refused("silent").await else { return };
    assert!(matches!(error.fault, Fault::NoAnswer { .. }), "{:?}", error.fault);
    assert!(error.to_string().ends_with("last line of the console"), "{error}");
}

#[tokio::test]
async fn a_console_that_floods_is_no_more_than_its_end() {
    let Some(error) = refused("console-flood").await else { return };
    assert!(error.console.len() <= 4 << 10 && error.console.lines().count() <= 20, "{}", error.console);
    assert!(error.console.contains("flood\nflood"), "{}", error.console);
}

#[tokio::test]
async fn a_panic_shows_its_words() {
    let Some(error) = refused("panic").await else { return };
    assert!(error.console.contains("Attempted to kill init"), "{error}");
    let Some(error) = refused("own-fault").await else { return };
    assert!(error.to_string().ends_with("panicked at guest.rs:1:1"), "{error}");
}

#[tokio::test]
async fn a_guest_s_words_do_not_reach_a_terminal_as_they_are() {
    let Some(error) = refused("seed-refused").await else { return };
    assert!(error.to_string().contains("no [31mdisk") && !error.to_string().contains('\u{1b}'), "{error:?}");
}

#[tokio::test]
async fn a_guest_that_sends_frames_that_are_none_loses_its_channels_and_nothing_else() {
    for mode in ["mux-garbage", "mux-length", "mux-endless"] {
        let Some(bench) = bench(mode) else { return };
        let environment = bench.prepare().await.unwrap_or_else(|e| panic!("{mode}: {e}"));
        let link = environment.link();
        let begun = Instant::now();
        let client = navvy_environment::supervisor::Client::new(link);
        let asked = tokio::task::spawn_blocking(move || client.ask_for_life()).await.unwrap();
        assert!(asked.is_err(), "{mode}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{mode}: {:?}", begun.elapsed());
        assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new(), "{mode}");
        bench.assert_nothing_left();
    }
}
