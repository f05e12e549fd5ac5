//! What a hostile job does to its supervisor, to the agent and to the machine: as uid 0, and as the image's user.
//!
//! `docs/security.md` names each threat with its story.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use navvy_tests::{Bench, Run, eventually, everywhere};

/// The agent is never larger, whatever a job does.
const PEAK_KIB: u64 = 64 << 10;

/// A job as uid 0 and one as the image's user, with these steps.
fn as_root_and_as_user(steps: &str) -> String {
    format!(
        r#"
version: 2.1
commands:
  attack:
    steps:
{steps}
jobs:
  as-root: {{docker: [{{image: navvy/base:bookworm, user: root}}], resource_class: small, steps: [attack]}}
  as-user: {{docker: [{{image: navvy/base:bookworm}}], resource_class: small, steps: [attack]}}
workflows:
  ci: {{jobs: [as-root, as-user]}}
"#
    )
}

/// Lets the step `holds` go on, whatever is left of its environment's sockets.
fn let_go(bench: &Bench, task: &str) {
    bench.docker().ask(&["exec", "-u", "0", &primary(task), "touch", "/tmp/go"]).succeeded();
}

fn primary(task: &str) -> String {
    format!("navvy-{task}-primary")
}

#[track_caller]
fn task_of(run: &Run<'_>, said: &str) -> String {
    run.wait_for_output(said).task().expect("output is a task's").to_owned()
}

const SOILS: &str = r#"
      - run:
          name: soils
          command: |
            as=; [ "$(id -u)" = 0 ] || as="sudo -n"
            cd /opt/navvy/run
            $as cp /bin/sh suid; $as chmod 4755 suid
            $as mknod device c 1 3; $as chmod 666 device
            $as mkfifo fifo secret; $as mkdir -p deep/er; $as ln -s /etc/passwd passwd; $as ln -s / deep/er/root
            $as rm -f control.sock job.sock; $as ln -s "$VICTIM" control.sock; $as ln -s "$VICTIM" job.sock
            $as dd if=/dev/zero of=full bs=64k count=100 2>/dev/null || true
            for i in $(seq 100); do $as touch "many-$i" 2>/dev/null || break; done
            ls -l control.sock | grep -c "$VICTIM"
      - run: {name: holds, command: 'echo "soiled: it waits"; until [ -e /tmp/go ]; do sleep 0.1; done'}
      - run:
          name: listens itself
          background: true
          shell: python3 -u
          command: |
            import os, socket
            impostor = socket.socket(socket.AF_UNIX)
            if os.getuid() == 0:
                os.unlink('/opt/navvy/run/control.sock')
                impostor.bind('/opt/navvy/run/control.sock')
                impostor.listen(10)
                print('listening')
            open('/tmp/listens', 'w')
            if os.getuid() == 0:
                impostor.accept()
                print('called')
      - run: {name: works, command: 'until [ -e /tmp/listens ]; do sleep 0.05; done; echo works'}
      - run: {name: works still, command: echo works}
"#;

everywhere! {
    fn nothing_in_the_shared_directory_is_followed_executed_or_left(bench: Bench) {
        let victim = bench.project().join("victim.sock");
        let listener = UnixListener::bind(&victim).expect("a socket can be made");
        listener.set_nonblocking(true).expect("it can be made so");
        bench.config(&as_root_and_as_user(SOILS));
        let run = bench.run(&["-e", &format!("VICTIM={}", victim.display())]);
        for job in ["as-root", "as-user"] {
            let held = run.wait_for("the directory is soiled", Duration::from_secs(40), |event| {
                event.job() == job && event.is_output_with("soiled: it waits")
            });
            let_go(&bench, held.task().expect("output is a task's"));
        }
        let done = run.finish();
        done.passes();
        for job in ["as-root", "as-user"] {
            assert_eq!(done.text(job, "soils"), "1\n", "{job}");
            assert_eq!(done.text(job, "works"), "works\n", "{job}");
            assert_eq!(done.text(job, "works still"), "works\n", "{job}");
        }
        // Its own socket under the name has heard of nobody.
        assert_eq!(done.text("as-root", "listens itself"), "listening\n");
        assert!(listener.accept().is_err(), "something followed the job's link to a socket of this machine");
        assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
    }
}

/// The mount at a task's run directory, as the kernel tells it: path, type and options.
fn mount_of(task: &str) -> Option<(PathBuf, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the kernel tells its mounts");
    let line = mounts.lines().find(|line| line.split(' ').nth(1).is_some_and(|path| path.ends_with(task)))?.to_owned();
    Some((line.split(' ').nth(1)?.into(), line))
}

#[test]
fn with_the_rights_the_shared_directory_is_a_small_file_system_that_goes_with_its_task_or_its_reaper() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    bench.config(&as_root_and_as_user(
        r#"
      - run: {name: holds, command: 'echo it waits; until [ -e /tmp/go ]; do sleep 0.1; done'}
"#,
    ));
    let run = bench.run(&["--job", "as-root"]);
    let task = task_of(&run, "it waits");
    let (path, options) = mount_of(&task).expect("root mounts");
    for option in ["tmpfs", "nosuid", "nodev", "noexec", "size=1024k", "nr_inodes=64"] {
        assert!(options.contains(option), "{option} is not among {options}");
    }
    let socket = fs::symlink_metadata(path.join("sockets/control.sock")).expect("the socket is there");
    assert!(socket.file_type().is_socket());
    run.signal(navvy_tests::Signal::Kill);
    let killed = run.that_leaves_things().finish();
    assert_eq!(killed.exit_code, 137);
    assert!(mount_of(&task).is_some(), "a killed agent cannot unmount");
    let next = bench.run(&["--job", "as-root"]);
    let other = task_of(&next, "it waits");
    eventually("the reaper has unmounted what the dead agent left", Duration::from_secs(20), || {
        mount_of(&task).is_none().then_some(())
    });
    let_go(&bench, &other);
    next.finish().passes();
    assert!(mount_of(&other).is_none() && !path.exists());
    assert!(bench.left_of(&[task]).is_empty());
}

const KNOCKS: &str = r#"
      - run:
          name: knocks
          shell: python3 -u
          command: |
            import json, socket, struct
            def frame(kind, message):
                text = json.dumps(message).encode()
                return struct.pack('<IB', len(text) + 1, kind) + text
            for secret in [None, '', 'secret', 'x' * 64]:
                hello = {'version': 1, 'capabilities': []}
                if secret is not None: hello['secret'] = secret
                door = socket.socket(socket.AF_UNIX)
                door.settimeout(20)
                try:
                    door.connect('/opt/navvy/run/control.sock')
                    door.sendall(frame(1, hello) + frame(2, {'request': 'shutdown', 'grace_ms': 0}))
                    said = door.recv(65536)
                    print('refused' if b'"refused"' in said else repr(said))
                except OSError as error:
                    print('refused' if isinstance(error, PermissionError) else repr(error))
      - run: {name: afterwards, command: echo unharmed}
"#;

const STRIKES: &str = r#"
      - run:
          name: strikes
          command: |
            as=; [ "$(id -u)" = 0 ] || as="sudo -n"
            for signal in KILL STOP TSTP QUIT HUP ILL ABRT SEGV BUS FPE PIPE ALRM USR1 USR2 CHLD CONT WINCH RTMIN; do
              $as kill -s "$signal" 1 || true
            done
            for file in environ maps mem stack; do $as head -c 1 "/proc/1/$file" >/dev/null 2>&1 && echo "reads $file"; done
            $as sh -c 'readlink /proc/1/exe /proc/1/cwd /proc/1/root /proc/1/fd/*' 2>/dev/null && echo "sees what it has open"
            for file in environ mem; do
              $as head -c 1 "/proc/$PPID/$file" >/dev/null 2>&1 && echo "reads $file of the keeper"
            done
            $as sh -c ': >> /opt/navvy/bin/navvy-supervisor' 2>/dev/null && echo overwrites
            $as mount -o remount,rw /opt/navvy/bin 2>/dev/null && echo remounts
            echo struck
      - run:
          name: traces
          shell: python3 -u
          command: |
            import ctypes, os
            libc = ctypes.CDLL(None, use_errno=True)
            for pid in [1, os.getppid()]:
                traced = libc.ptrace(16, pid, 0, 0)
                print('traces' if traced == 0 else os.strerror(ctypes.get_errno()))
      - run: {name: afterwards, command: echo unharmed}
"#;

everywhere! {
    fn the_control_socket_is_closed_to_the_job(bench: Bench) {
        let done = bench.run_config(&as_root_and_as_user(KNOCKS), &[]);
        done.passes();
        for job in ["as-root", "as-user"] {
            assert_eq!(done.text(job, "knocks"), "refused\n".repeat(4), "{job}");
            assert_eq!(done.text(job, "afterwards"), "unharmed\n");
        }
    }

    fn a_job_can_neither_kill_nor_stop_nor_read_nor_overwrite_its_supervisor(bench: Bench) {
        let done = bench.run_config(&as_root_and_as_user(STRIKES), &[]);
        done.passes();
        for job in ["as-root", "as-user"] {
            assert_eq!(done.text(job, "strikes"), "struck\n", "{job}");
            assert_eq!(done.text(job, "traces"), "Operation not permitted\n".repeat(2), "{job}");
            assert_eq!(done.text(job, "afterwards"), "unharmed\n", "{job}");
        }
    }
}

const WAITS: &str = r#"
      - run: {name: waits, command: echo it waits; sleep 1000}
      - run: {name: after, when: always, command: echo never}
"#;

everywhere! {
    fn a_supervisor_that_is_stopped_or_killed_from_outside_is_an_infra_fault_soon(bench: Bench) {
        bench.config(&as_root_and_as_user(WAITS));
        let run = bench.run(&[]);
        for (job, signal) in [("as-root", "STOP"), ("as-user", "KILL")] {
            let waits = run.wait_for("the step waits", Duration::from_secs(40), |event| {
                event.job() == job && event.is_output_with("it waits")
            });
            let task = waits.task().expect("output is a task's");
            bench.docker().ask(&["kill", "--signal", signal, &primary(task)]).succeeded();
        }
        let done = run.finish_within(Duration::from_secs(90));
        done.exits_with(3);
        for job in ["as-root", "as-user"] {
            assert_eq!(done.verdict(job), "infra", "{job}; {}", done.account());
            assert_eq!(done.skipped(job, "after"), "stopped", "{job}");
        }
        let said = done.step("as-root", "waits").trailers.join("\n");
        assert!(said.contains("did not answer") || done.account().contains("did not answer"), "{}", done.account());
    }
}

#[test]
fn a_job_that_stops_what_unpacks_its_checkout_holds_up_nobody_who_interrupts() {
    let bench = Bench::new();
    bench.file("large", vec![b'x'; 64 << 20]).commit("a project");
    bench.config(&as_root_and_as_user(
        r#"
      - run:
          name: lurks
          background: true
          shell: python3 -u
          command: |
            import os, signal, time
            # The start of the step that waits is not what is to be caught.
            while not os.path.exists('/tmp/waits'): time.sleep(0.01)
            open('/tmp/looks', 'w')
            caught = False
            while not caught:
                for pid in filter(str.isdigit, os.listdir('/proc')):
                    try:
                        stat = open(f'/proc/{pid}/stat').read()
                        name, fields = stat[stat.index('(') + 1:stat.rindex(')')], stat[stat.rindex(')') + 2:].split()
                        if name.startswith('navvy-superv') and fields[1] == '1' and pid != '1':
                            os.kill(int(pid), signal.SIGSTOP)
                            caught = True
                    except OSError:
                        pass
            print('caught it')
      - run: {name: waits until it looks, command: 'touch /tmp/waits; until [ -e /tmp/looks ]; do sleep 0.05; done'}
      - checkout
"#,
    ));
    for job in ["as-root", "as-user"] {
        let run = bench.run(&["--job", job]);
        run.wait_for_output("caught it");
        run.signal(navvy_tests::Signal::Interrupt);
        run.finish_within(Duration::from_secs(40)).exits_with(130);
    }
}

const FILLS_THE_DISK: &str = r#"
version: 2.1
jobs:
  fills:
    docker: [{image: navvy/base:bookworm, user: root}]
    resource_class: small
    steps:
      - run: {name: fills, command: 'echo fills soon; until [ -e /tmp/go ]; do sleep 0.1; done; fallocate -l "$MUCH" /full; sleep 1000'}
      - run: {name: never, command: echo never}
  neighbour:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: goes on, command: 'echo waits; until [ -e /tmp/go ]; do sleep 0.1; done; echo goes on'}
workflows:
  ci: {jobs: [fills, neighbour]}
"#;

#[test]
fn a_job_that_fills_the_engines_disk_is_ended_by_name_and_its_neighbour_goes_on() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    let root = bench.docker().ask(&["info", "--format", "{{.DockerRootDir}}"]).stdout().trim().to_owned();
    let disk = rustix::fs::statvfs(&root).expect("the engine's directory is one of this machine");
    let free = disk.f_bavail * disk.f_frsize;
    bench.config(FILLS_THE_DISK);
    // Half of what is free is taken, and a quarter is too much: nobody else is in danger.
    let floor = format!("{}M", (free >> 20) * 3 / 4);
    let run = bench.run(&["--disk-floor", &floor, "-e", &format!("MUCH={}", free / 2)]);
    let (neighbour, fills) = (task_of(&run, "waits"), task_of(&run, "fills soon"));
    let_go(&bench, &fills);
    run.wait_for("the job is ended", Duration::from_secs(60), |event| {
        event.job() == "fills" && event.is_end_of("fills")
    });
    let_go(&bench, &neighbour);
    let done = run.finish();
    done.exits_with(1);
    assert_eq!(done.verdict("fills"), "failed", "{}", done.account());
    let step = done.step("fills", "fills");
    let said = format!("{} {}", step.event.get("outcome"), step.trailers.join("\n"));
    for part in ["disk floor:", &root, "this job has written", "--disk-floor"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert_eq!(done.text("neighbour", "goes on"), "waits\ngoes on\n");
    let report = done.text("neighbour", "Spin up environment");
    assert!(report.contains(&format!("Disk: {root}")), "{report}");
}
