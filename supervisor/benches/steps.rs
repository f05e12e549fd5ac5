//! What a step costs: latency of `/bin/true`, throughput with pipes and with a terminal, memory.
//!
//! `cargo bench -p navvy-supervisor`, or with `NAVVY_TEST_SUPERVISOR=PATH` for another build.
#![allow(clippy::print_stdout, unsafe_code, reason = "a benchmark prints its table and opens a bare pty")]

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::io::{BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use harness::{Bench, Step};
use navvy_protocol::frame::{self, FrameKind, OutputHeader};
use navvy_protocol::supervisor::{Control, Reply};

const BYTES: usize = 200_000_000;

fn main() {
    // The file's pages must be in memory, or the disk is measured.
    let mut lines = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let line = format!("{}\n", "x".repeat(79));
    lines.write_all(line.repeat(BYTES / 80).as_bytes()).unwrap();
    let bench = Bench::new();
    latency(&bench);
    let script = format!("dd if={} bs=64k status=none", lines.path().display());
    for _ in 0..3 {
        throughput("200 MB, pipes", || bench.exec(&script));
    }
    for _ in 0..5 {
        throughput("200 MB, terminal", || bench.exec(&script).on_pty());
        bare_pty(&script);
    }
    println!("{:24} {:8} KB", "resident after all this", bench.resident());
}

/// Interleaved, so that all see the same machine.
fn latency(bench: &Bench) {
    let mut plain = Vec::new();
    let mut kept = [Vec::new(), Vec::new()];
    for _ in 0..300 {
        let began = Instant::now();
        std::process::Command::new("/bin/true").status().unwrap();
        plain.push(began.elapsed());
        for (pty, times) in kept.iter_mut().enumerate() {
            let step = bench.exec("").with(|exec| exec.argv = vec!["/bin/true".to_owned()]);
            let step = if pty == 1 { step.on_pty() } else { step };
            let began = Instant::now();
            let (mut conversation, mut story) = step.run_to_exit();
            times.push(began.elapsed());
            conversation.follow_into(&mut story);
        }
    }
    let [pipes, terminal] = kept;
    for (name, mut times) in [("spawn and wait alone", plain), ("true, pipes", pipes), ("true, terminal", terminal)] {
        times.sort();
        let micro = |index: usize| times[index].as_micros();
        println!("{name:24} {:8} µs median, {} least, {} at 90 %", micro(150), micro(0), micro(270));
    }
}

fn throughput<'a>(name: &str, step: impl FnOnce() -> Step<'a>) {
    let began = Instant::now();
    let conversation = step().start();
    let mut stream = &conversation.stream;
    let mut reader = BufReader::with_capacity(512 << 10, stream);
    let (mut payload, mut bytes, mut acknowledged) = (Vec::new(), 0u64, 0u64);
    let mut taken = None;
    loop {
        match frame::read(&mut reader, &mut payload).unwrap().expect("more") {
            FrameKind::Output => {
                bytes += OutputHeader::split(&payload).unwrap().1.len() as u64;
                if bytes - acknowledged >= 128 << 10 {
                    acknowledged = bytes;
                    frame::write_message(&mut stream, FrameKind::Control, &Control::Ack { offset: bytes, note: None })
                        .unwrap();
                }
            }
            FrameKind::Reply => match frame::parse_message(FrameKind::Reply, &payload).unwrap() {
                Reply::Exited(_) => {
                    taken = Some(began.elapsed());
                    // With nothing left to acknowledge the supervisor may have gone.
                    frame::write_message(&mut stream, FrameKind::Control, &Control::Ack { offset: bytes, note: None })
                        .ok();
                }
                Reply::Ended { .. } => break,
                _ => {}
            },
            _ => {}
        }
    }
    println!("{name:24} {:8.0} MB/s", bytes as f64 / 1e6 / taken.unwrap().as_secs_f64());
    assert_eq!(bytes, BYTES as u64);
}

/// The kernel's own limit: the same producer on a pty pair that is only read.
fn bare_pty(script: &str) {
    let (mut master, mut slave) = (0, 0);
    let began = Instant::now();
    // SAFETY: openpty stores two descriptors; the rest may be null.
    let made = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
    };
    assert_eq!(made, 0);
    // SAFETY: both are open and ours alone.
    let (mut master, slave) = unsafe {
        use std::os::fd::FromRawFd as _;
        (std::fs::File::from_raw_fd(master), std::fs::File::from_raw_fd(slave))
    };
    assert!(slave.as_raw_fd() > 2);
    let raw = std::process::Command::new("stty").arg("raw").stdin(slave.try_clone().unwrap()).status().unwrap();
    assert!(raw.success());
    let mut child = std::process::Command::new("sh").args(["-c", script]).stdout(slave).spawn().unwrap();
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    while bytes < BYTES {
        bytes += master.read(&mut buffer).unwrap();
    }
    child.wait().unwrap();
    println!("{:24} {:8.0} MB/s", "a bare pty pair", bytes as f64 / 1e6 / began.elapsed().as_secs_f64());
}
