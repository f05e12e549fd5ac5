"""Rows about machine jobs: against QEMU alone with the same guest, ssh into it, tar and zstd in it."""

import json
import re
import shutil
import socket
import time

from figures import Line
from guest import Guest, images
from shop import NotMeasured, Shop, call

IMAGE = "debian-12-minimal"
NAVVY, BARE = "navvy", "bare QEMU"
MEMORY = 640
# Bytes that a step writes.
MUCH = 64 << 20
FILES = 20_000


def config_of(steps):
    job = {"machine": {"image": IMAGE}, "steps": steps}
    return json.dumps({"version": 2.1, "jobs": {"vm": job}, "workflows": {"bench": {"jobs": ["vm"]}}}, indent=1)


def step(name, command):
    return {"run": {"name": name, "command": command}}


class Machines:
    """What the rows share: settings of their own."""

    warm_up = True

    def __init__(self, shop, snapshots="off"):
        self.shop = shop
        if not (images() / IMAGE).is_dir():
            raise NotMeasured(f"no image {IMAGE} in {images()}: scripts/vm-image builds it")
        self.home = shop.room / f"config-{self.name}"
        (self.home / "navvy").mkdir(parents=True)
        (self.home / "navvy/settings.toml").write_text(
            f"[vm]\naccelerator = 'tcg'\nsnapshots = '{snapshots}'\ncpus = 1\nmemory = '{MEMORY}M'\n")
        self.environment = shop.environment | {"XDG_CONFIG_HOME": str(self.home), "NAVVY_IMAGES": str(images())}

    def start(self, config, *words):
        return self.shop.start(self.shop.navvy_command(config, *words), cwd=self.shop.project, env=self.environment)

    def run(self, config, *words):
        return self.shop.finished(self.start(config, *words))

    def first_byte(self, config):
        """Seconds from the start of `navvy run` to the first byte in the log of its first step."""
        before = self.shop.run_directory()
        begun = time.monotonic()
        process = self.start(config)
        try:
            while time.monotonic() < begun + 300:
                time.sleep(0.001)
                directory = self.shop.run_directory()
                record = directory / "events.jsonl"
                if directory == before or not record.exists():
                    continue
                started = [it for it in Shop.events_of(record) if it["event"] == "step_started" and it["kind"] == "run"]
                if started and (log := directory / started[0]["log"]).exists() and log.stat().st_size > 0:
                    return time.monotonic() - begun
                if not process.running():
                    raise NotMeasured("navvy run ended without a byte of the step")
            raise NotMeasured("navvy run: no byte of the step in 300 s")
        finally:
            self.shop.finished(process)


class Cold(Machines):
    name, rounds = "vm-cold", 5
    units = {NAVVY: "ms", BARE: "ms"}
    lines = [Line("machine job, cold: to its step's first byte", NAVVY, BARE, bound="≤ 1.15 × bare QEMU to its supervisor's answer",
                  at_most=1.15)]

    def __init__(self, shop):
        super().__init__(shop, "off")
        self.config = shop.config(self.name, config_of([step("says", "echo first")]))
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        return {NAVVY: self.first_byte(self.config) * 1000}

    def peer(self):
        begun = time.monotonic()
        guest = Guest(self.shop, IMAGE, MEMORY)
        try:
            guest.seed()
            guest.run("echo first")
            return {BARE: (time.monotonic() - begun) * 1000}
        finally:
            guest.close()


class Snapshot(Cold):
    name, rounds = "vm-snapshot", 7
    lines = [Line("machine job from a snapshot: to its step's first byte", NAVVY, BARE, bound="≤ 0.25 × bare QEMU, cold", at_most=0.25)]

    def __init__(self, shop):
        super().__init__(shop)
        (self.home / "navvy/settings.toml").write_text(
            f"[vm]\naccelerator = 'tcg'\nsnapshots = 'make'\ncpus = 1\nmemory = '{MEMORY}M'\n")


class Pool(Machines):
    """A pool of three and thirty jobs, and the same jobs without it."""

    name, rounds = "vm-pool", 1
    warm_up = False
    waited, took, alone = "wait for a machine", "start with a pool", "start without"
    units = {waited: "ms", took: "ms", alone: "ms"}
    lines = [Line("wait for a machine of a warm pool of 3, p50 of 30 jobs", waited, None, bound="≤ 1 s", at_most=1000),
             Line("start of a machine, p50 of 30 jobs: with a pool of 3", took, alone)]

    def __init__(self, shop):
        super().__init__(shop, "make")
        self.count = 6 if shop.quick else 30
        self.config = shop.config(self.name, config_of([step("says", "cat /etc/machine-id")]))
        self.settings = shop.room / "vm-pool.toml"
        self.settings.write_text(
            f"[pool]\nquota = 8\n[[pool.prescale]]\nclass = 'medium'\nimage = '{IMAGE}'\ncount = 3\n")
        self.sides = [self.with_pool, self.without]

    def program(self, *words):
        return [self.shop.navvy_command(self.config)[0], "vm-pool", *words]

    def with_pool(self):
        pool = self.shop.start(self.program("--settings", self.settings), cwd=self.shop.project, env=self.environment)
        try:
            runs = []
            for _ in range(self.count):
                self._until_warm()
                runs.append(self._job())
            if len({machine for machine, _, _ in runs}) != self.count:
                raise NotMeasured("a machine was used twice")
            if any(waited is None for _, waited, _ in runs):
                raise NotMeasured("a job had no machine of the pool")
            return {self.waited: self._p50([waited for _, waited, _ in runs]), self.took: self._p50([took for _, _, took in runs])}
        finally:
            # The pool ends with it.
            call(self.program("empty"), cwd=self.shop.project, env=self.environment)
            pool.stop()

    def without(self):
        return {self.alone: self._p50([self._job()[2] for _ in range(self.count)])}

    def _until_warm(self):
        """A job that comes when nothing is ready measures how machines are made, not the pool."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            try:
                report = json.loads(call(self.program("report", "--json"), cwd=self.shop.project, env=self.environment))
            except (NotMeasured, ValueError):
                report = {"kinds": []}
            if sum(kind["warm"] for kind in report["kinds"]) >= 1:
                return
            time.sleep(0.2)
        raise NotMeasured("no machine was ready in 300 s")

    def _job(self):
        """Its machine, how long it waited for one (None: it made its own), and how long its start took."""
        run = self.run(self.config)
        machine = run.log(run.step("says")).read_text().strip()
        report = "\n".join(event["line"] for event in run.of("report"))
        waited = re.search(r"Machine: from the pool, waited ([0-9.]+) s", report)
        took = re.search(r"Time to start the machine: ([0-9.]+) s", report)
        self.shop.forget(run)
        return machine, float(waited[1]) * 1000 if waited else None, float(took[1]) * 1000

    @staticmethod
    def _p50(values):
        return sorted(values)[len(values) // 2]


class Output(Machines):
    name, rounds = "vm-output", 5
    warm_up = False
    ssh = "ssh guest cat"
    units = {NAVVY: "MB/s", ssh: "MB/s"}
    lines = [Line("output of a machine's step", NAVVY, ssh, bound="≥ 2 × ssh guest cat", at_least=2)]

    def __init__(self, shop):
        super().__init__(shop)
        make = f"head -c {MUCH} /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null | base64 -w 99 >/tmp/much"
        if shop.quick:
            make = make.replace(str(MUCH), str(MUCH // 16))
        self.make = f"{make}; sha256sum </tmp/much | cut -c1-64; stat -c %s /tmp/much"
        self.config = shop.config(self.name, config_of([step("make", self.make), step("write", "cat /tmp/much")]))
        self.guest, self.keys = None, shop.room / "ssh"
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        # As ssh does it without being asked for one: no terminal.
        run = self.run(self.config, "--quiet", "--no-tty")
        digest, length = (run.log(run.step("make"))).read_text().split()
        written = run.step("write")
        if call(["sha256sum", run.log(written)]).split()[0] != digest:
            raise NotMeasured("the log does not hold the bytes that the step wrote")
        self.shop.forget(run)
        return {NAVVY: int(length) / 1000 / written["duration_ms"]}

    def peer(self):
        if not self.guest:
            self._boot()
        begun = time.monotonic()
        got = self.shop.room / "got"
        with open(got, "wb") as out:
            process = self.shop.start([*self.command, "cat /tmp/much"], stdout=out)
            process.seconds()
        seconds = time.monotonic() - begun
        if call(["sha256sum", got]).split()[0] != self.digest:
            raise NotMeasured("ssh brought other bytes")
        return {self.ssh: int(self.length) / 1e6 / seconds}

    def _boot(self):
        self.keys.mkdir()
        for name in ("host", "user"):
            call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / name])
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.guest = Guest(self.shop, IMAGE, MEMORY, forward=port)
        network = {"link_address": "52:54:00:12:34:56", "address": "10.0.2.15/24", "gateway": "10.0.2.2", "name_servers": []}
        self.guest.seed(network=network, host_key=(self.keys / "host").read_text(),
                        authorized_keys=[(self.keys / "user.pub").read_text().strip()])
        host = (self.keys / "host.pub").read_text().split()
        (self.keys / "known").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
        self.command = ["ssh", "-p", port, "-i", self.keys / "user", "-o", f"UserKnownHostsFile={self.keys / 'known'}",
                        "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ConnectionAttempts=20", "circleci@127.0.0.1"]
        # The server starts beside everything else; until then the forwarded port closes what it takes.
        until = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > until:
                raise NotMeasured("the guest's ssh server did not answer in 60 s")
        self.digest, self.length = call([*self.command, self.make]).split()

    def _answers(self):
        try:
            return call([*self.command, "echo here"]) == "here"
        except NotMeasured:
            time.sleep(0.2)
            return False

    def close(self):
        if self.guest:
            self.guest.close()


class Files(Machines):
    name, rounds = "vm-files", 3
    warm_up = False
    units = {"save": "ms", "tar | zstd": "ms", "restore": "ms", "zstd -d | tar x": "ms"}
    lines = [Line("save of 20,000 files in a machine", "save", "tar | zstd", bound="≥ 0.8 × as fast as tar and zstd in it", at_least=0.8,
                  as_fast=True),
             Line("restore of them", "restore", "zstd -d | tar x", bound="≥ 0.8 × as fast", at_least=0.8, as_fast=True)]

    def __init__(self, shop):
        super().__init__(shop)
        count = FILES // 10 if shop.quick else FILES
        make = (f"mkdir -p /home/circleci/t; cd /home/circleci/t; for d in $(seq 1 {count // 100}); do mkdir $d; "
                "for f in $(seq 1 100); do echo \"$d $f $RANDOM$RANDOM$RANDOM\" >$d/$f; done; done; sync")
        # A key that is there is not saved again.
        save = {"save_cache": {"name": "save", "key": "KEY", "paths": ["/home/circleci/t"]}}
        restore = {"restore_cache": {"name": "restore", "key": "KEY"}}
        tar = step("tar | zstd", "cd /home/circleci; tar c t | zstd -q -T0 -3 -o /tmp/t.zst; sync")
        untar = step("zstd -d | tar x", "cd /home/circleci; zstd -q -dc /tmp/t.zst | tar x; sync")
        gone = step("gone", "mv /home/circleci/t /home/circleci/t.$RANDOM; sync")
        steps = [step("make", make), step("warm", "tar c /home/circleci/t 2>/dev/null | cat >/dev/null"), tar, save, gone, untar,
                 step("gone again", "mv /home/circleci/t /home/circleci/t.$RANDOM; sync"), restore,
                 step("count", f"test $(find /home/circleci/t -type f | wc -l) = {count // 100 * 100}")]
        self.text, self.turn = config_of(steps), 0
        self.sides = [self.both]

    def both(self):
        self.turn += 1
        run = self.run(self.shop.config(self.name, self.text.replace("KEY", f"turn-{self.turn}")))
        return {name: run.step(name)["duration_ms"] for name in self.units}

    def close(self):
        shutil.rmtree(self.home, ignore_errors=True)


ROWS = [Cold, Snapshot, Pool, Output, Files]
