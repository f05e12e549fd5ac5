//! What a job cannot do, and what it may.

use navvy_tests::{Bench, everywhere};

const CALLS_CONTROL: &str = r#"
            import socket
            control = socket.socket(socket.AF_UNIX)
            control.settimeout(15)
            try:
                control.connect('/opt/navvy/run/control.sock')
                control.sendall(b'\0\0\0\4junk' * 1000)
                said = control.recv(65536)
                print('let in' if b'Failed' in said or len(said) > 200 else 'walled')
            except OSError as error:
                print('walled')
"#;

everywhere! {
    fn a_job_is_walled_in_whoever_its_user_is(bench: Bench) {
        let config = r#"
version: 2.1
commands:
  look:
    steps:
      - run:
          name: walls
          command: |
            ls /var/run/docker.sock /run/docker.sock 2>/dev/null || echo no docker socket
            mkdir -p /tmp/m; mount -t tmpfs none /tmp/m 2>/dev/null && echo mounts || echo no mounts
            grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr '\t\n' ' :'; echo
            findmnt -no FSTYPE /mnt/ramdisk; touch /mnt/ramdisk/x /dev/shm/x && echo ram
      - run: {name: sudo, command: 'sudo -n id -u || echo no sudo'}
      - run:
          name: control
          shell: python3 -u
          command: |CALLS_CONTROL
      - run: {name: afterwards, command: echo unharmed}
jobs:
  as-root:
    docker: [{image: navvy/base:bookworm, user: root}]
    resource_class: small
    steps: [look]
  as-user:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps: [look]
workflows:
  ci: {jobs: [as-root, as-user]}
"#;
        let done = bench.run_config(&config.replace("CALLS_CONTROL", CALLS_CONTROL.trim_end()), &[]);
        done.passes();
        let walls = |privileges: &str| {
            format!("no docker socket\nno mounts\nNoNewPrivs: {privileges}:Seccomp: 2:\ntmpfs\nram\n")
        };
        assert_eq!(done.text("as-root", "walls"), walls("1"));
        assert_eq!(done.text("as-user", "walls"), walls("0"));
        assert_eq!(done.text("as-user", "sudo"), "0\n");
        for job in ["as-root", "as-user"] {
            assert_eq!(done.text(job, "control"), "walled\n", "{job}");
            assert_eq!(done.text(job, "afterwards"), "unharmed\n");
        }
    }
}

everywhere! {
    fn what_builds_do_goes_on_working_without_raw_sockets(bench: Bench) {
        let config = r#"
version: 2.1
commands:
  build:
    steps:
      - run:
          name: builds
          command: |
            as=; [ "$(id -u)" = 0 ] || as="sudo -n"
            grep CapBnd /proc/self/status | cut -f 2
            python3 -c '
            import socket, os
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
            s.settimeout(10); s.connect(("127.0.0.1", 0)); s.send(b"\x08\0\0\0\0\0\0\0pong"); print(s.recv(64)[8:].decode())'
            $as cp /bin/true /usr/bin/asks-for-frames; $as setcap cap_net_raw+ep /usr/bin/asks-for-frames
            tries=0; until asks-for-frames 2>/dev/null; do tries=$((tries+1)); [ $tries -lt 20000 ] || exit 9; done; echo starts
            $as cp /bin/cat /usr/bin/binds; $as setcap cap_net_bind_service+ep /usr/bin/binds; /sbin/getcap /usr/bin/binds
            $as su nobody -s /bin/sh -c 'id -un'
            $as mkdir -p /tmp/root/dev; $as mknod /tmp/root/dev/null c 1 3; $as mkdir -p /tmp/root/bin /tmp/root/lib /tmp/root/lib64; $as cp /bin/sh /tmp/root/bin
            $as cp -L $(ldd /bin/sh | grep -o "/lib[^ ]*libc.so.6") /tmp/root/lib; $as cp -L /lib64/ld-linux-x86-64.so.2 /tmp/root/lib64
            $as chroot /tmp/root /bin/sh -c 'echo in a chroot >/dev/null && echo chroot'
            touch /tmp/mine; $as chown 5:6 /tmp/mine; $as chmod 4755 /tmp/mine; stat -c '%u:%g %a' /tmp/mine
            $as python3 -c 'import socket; socket.create_server(("", 80)); print("port 80")'
            $as kill -0 1 && echo signals
jobs:
  as-root: {docker: [{image: navvy/base:bookworm, user: root}], resource_class: small, steps: [build]}
  as-user: {docker: [{image: navvy/base:bookworm}], resource_class: small, steps: [build]}
workflows:
  ci: {jobs: [as-root, as-user]}
"#;
        let done = bench.run_config(config, &[]);
        done.passes();
        for job in ["as-root", "as-user"] {
            assert_eq!(
                done.text(job, "builds"),
                "00000000a80405fb\npong\nstarts\n/usr/bin/binds cap_net_bind_service=ep\nnobody\nchroot\n5:6 4755\nport 80\n\
                 signals\n",
                "{job}"
            );
        }
    }
}

#[test]
fn secrets_reach_the_jobs_that_ask_for_them_and_a_missing_context_is_told() {
    let bench = Bench::new();
    bench.file("deploy.env", "KEY=deploy key\nBOTH=1st\n").file("other.env", "BOTH=2nd\n");
    bench.config(
        r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  show:
    executor: box
    steps: [{run: {name: go, command: 'echo "${KEY-none} ${#KEY} ${BOTH-none} ${OWN-none}"'}}]
workflows:
  ci:
    jobs:
      - show: {name: with, context: [deploy, other, absent]}
      - show: {name: without}
"#,
    );
    let args = ["--context", "deploy=deploy.env", "--context", "other=other.env", "-e", "OWN=own"];
    let done = bench.run(&args).finish();
    done.passes();
    assert_eq!(done.log("without", "go"), b"none 0 none own\n");
    assert_eq!(done.text("with", "go"), "**** 10 2nd own\n");
    assert!(done.warnings().contains("absent") && done.warnings().contains("with"), "{}", done.warnings());
}
