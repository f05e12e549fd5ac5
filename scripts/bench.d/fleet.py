"""Rows about a fleet: a processor and a runner on loopback, and simulated agents in place of runners."""

import calendar
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import quote

from figures import Line
from masks import secrets_of, text_of
from shop import ROOT, NotMeasured, call, config_of, job, memory_mb
from stores import Server

CONTEXT = "secrets"
LINE = 80
# Longer than any pipeline here takes.
PIPELINE_S = 600


def agents_program():
    """Simulated agents: the dev build, which costs more than a real one, beside a processor that is what operators get."""
    call(["cargo", "build", "--quiet", "--locked", "--workspace", "--example", "fleet"], cwd=ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples/fleet"


def percentile(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


class Fleet:
    """A processor with all that is its own in one directory, and its runner. One beside another shares its database and keys."""

    def __init__(self, shop, name, variables=None, cpu=None, beside=None):
        self.shop, self.room = shop, shop.room / f"fleet-{name}"
        self.room.mkdir(mode=0o700)
        self.environment = shop.environment | {f"XDG_{kind}_HOME": str(self.room / kind.lower())
                                               for kind in ("CONFIG", "STATE", "DATA")}
        self.said, self.runner_process = self.room / "processor.out", None
        command = [shop.bin / "navvy-processor", "serve", "--data", self.room / "data",
                   "--listen", "127.0.0.1:0", "--listen-agents", "127.0.0.1:0"]
        if cpu is not None:
            command = ["taskset", "--cpu-list", str(cpu), *command]
        with open(self.said, "wb") as out:
            self.processor = shop.start(command, stdout=out, env=self.environment | (variables or {}))
        self.url, self.agents = self.word("Processor"), self.word("Agents")
        # The first one to see a database makes its first token.
        self.token = beside.token if beside else self.word("Token")
        self.host = self.url.removeprefix("http://")
        self.navvy("login", self.url, "--token-file", self.private("admin", self.token))

    def word(self, name):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if found := re.search(rf"^{name}: *(\S+)$", self.said.read_text(), re.MULTILINE):
                return found[1]
            time.sleep(0.01)
        raise NotMeasured(f"navvy-processor did not say its {name} within 30 s")

    def private(self, name, text):
        path = self.room / f"{name}.token"
        path.touch(0o600)
        path.write_text(text)
        return path

    def navvy(self, *words, **more):
        return call([self.shop.bin / "navvy", *words], cwd=self.shop.project, env=self.environment, **more)

    def runner_token(self):
        return self.private("runner", self.navvy("runner-token", "*"))

    def runner(self, *words):
        """One that takes a task at a time."""
        command = [self.shop.bin / "navvy", "runner", "--processor", f"http://{self.agents}", "--token-file", self.runner_token(),
                   "--class", "*", "--reserve-cpus", "0", "--reserve-memory", "0", *words]
        self.runner_process = self.shop.start(command, env=self.environment)
        return self.runner_process

    # HTTP

    def connection(self):
        return http.client.HTTPConnection(self.host, timeout=60)

    def ask(self, method, path, body=None, connection=None):
        own = connection or self.connection()
        headers = {"authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["content-type"] = "application/json"
        own.request(method, path, None if body is None else json.dumps(body), headers)
        answer = own.getresponse()
        if answer.status != 200:
            raise NotMeasured(f"{method} {path}: {answer.status} {answer.read(600).decode(errors='replace')}")
        return answer

    def get(self, path, connection=None):
        return json.load(self.ask("GET", path, connection=connection))

    def set_context(self, values):
        connection = self.connection()
        for name, value in values.items():
            path = f"/api/v2/context/{CONTEXT}/environment-variable/{name}"
            self.ask("PUT", path, {"value": value}, connection).read()
        connection.close()

    # Pipelines

    def submit(self, config, *words):
        said = self.navvy("submit", "--json", "--tree", "-f", config, *words)
        return next(json.loads(line)["id"] for line in said.splitlines() if line.startswith("{"))

    def queue(self, count):
        """So many tasks, by pipelines of at most 100 nodes each: what is measured are claims, not compilations."""
        left = count
        while left > 0:
            nodes = min(left, 100)
            text = config_of({"one": job([{"run": "true"}], parallelism=nodes)})
            path = f"/api/v2/project/{quote('gh/acme/bench', safe='')}/pipeline"
            self.ask("POST", path, {"config": text, "vcs": {"branch": "main"}}).read()
            left -= nodes

    def task(self, pipeline):
        """The one task of a pipeline, once it is there."""
        connection, until = self.connection(), time.monotonic() + 60
        while time.monotonic() < until:
            shown = self.get(f"/api/v2/pipeline/{pipeline}", connection)
            if tasks := [task["id"] for flow in shown["workflows"] for its in flow["jobs"] for task in its["tasks"]]:
                return tasks[0]
            time.sleep(0.01)
        raise NotMeasured(f"pipeline {pipeline} has no task after 60 s")

    def events(self, pipeline, connection=None):
        """Each as it comes, and when we had it."""
        answer = self.ask("GET", f"/api/v2/pipeline/{pipeline}/events?follow=true", connection=connection)
        for line in answer:
            event = json.loads(line)["event"]
            yield time.time(), event
            if event["event"] == "run_ended":
                return

    def step_over(self, pipeline, name):
        """The end of a step, as soon as it is told of."""
        for _, event in self.events(pipeline):
            if event["event"] == "step_ended" and event["name"] == name:
                return event
        raise NotMeasured(f"pipeline {pipeline} ended before its step {name} did")

    def log_when_begun(self, pipeline, name):
        """The log of the step of this name, once it has started, and its step_started."""
        for _, event in self.events(pipeline):
            if event["event"] == "step_started" and event["name"] == name:
                return Path(event["log"]).stem, event
        raise NotMeasured(f"pipeline {pipeline} ended before its step {name} began")

    def ended(self, pipeline):
        """The pipeline's events; it must have passed, its output must be whole, and nothing may be left of it."""
        events = [event for _, event in self.events(pipeline)]
        shown = self.get(f"/api/v2/pipeline/{pipeline}")
        tasks = [task for flow in shown["workflows"] for its in flow["jobs"] for task in its["tasks"]]
        if shown["state"] != "success" or any(task["output"] != "complete" for task in tasks):
            raise NotMeasured(f"pipeline {pipeline}: {json.dumps(shown)[:600]}")
        for task in tasks:
            if left := self.shop.docker("ps", "--all", "--quiet", "--filter", f"label=dev.navvy.task={task['id']}"):
                raise NotMeasured(f"the runner left containers of task {task['id']} behind: {left}")
        return events

    def step(self, events, name):
        return next(event for event in events if event["event"] == "step_ended" and event["name"] == name)

    def read(self, task, log, query=""):
        return self.ask("GET", f"/api/v2/task/{task}/log/{log}{query}")

    def digest(self, task, log):
        """Of what the processor gives to whoever reads a log."""
        sha256, answer = hashlib.sha256(), self.read(task, log)
        while block := answer.read(1 << 20):
            sha256.update(block)
        return sha256.hexdigest()

    def durable_at(self, task, log, size):
        """When all of a log was durable, by our clock."""
        connection, until = self.connection(), time.monotonic() + PIPELINE_S
        while time.monotonic() < until:
            for known in self.get(f"/api/v2/task/{task}/logs", connection)["items"]:
                if known["log"] == log and known["durable"] >= size:
                    return time.time()
            time.sleep(0.01)
        raise NotMeasured(f"{size} bytes of log {log} were not durable within {PIPELINE_S} s")

    def close(self):
        for process in (self.runner_process, self.processor):
            if process:
                process.stop()
        shutil.rmtree(self.room, ignore_errors=True)


def moment(event):
    """Of an event, in seconds since 1970."""
    whole, fraction = event["time"].rstrip("Z").split(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


class Row:
    """What the rows share: small sizes under --quick, and fleets that end with their row."""

    rounds, warm_up = 1, False

    def __init__(self, shop):
        self.shop, self.fleets, self.servers = shop, [], []

    def fleet(self, name, variables=None, **more):
        self.fleets.append(Fleet(self.shop, f"{self.name}-{name}", variables, **more))
        return self.fleets[-1]

    def size(self, whole, quick):
        return quick if self.shop.quick else whole

    def close(self):
        for it in self.fleets:
            it.close()
        for server in self.servers:
            server.end()


class FleetLog(Row):
    """200 MB with 100 secrets, by `navvy run`, and through agent and processor until all of it is durable."""

    name, rounds = "fleet-log", 5
    warm_up = True
    units = {"until durable, directory": "MB/s", "until durable, S3": "MB/s", "step, directory": "ms", "step, S3": "ms",
             "navvy run": "ms"}

    def __init__(self, shop):
        super().__init__(shop)
        self.bytes = self.size(3052, 763) * 65536
        self.lines = [
            Line(f"a step's {self.bytes / 1e6:.0f} MB, 100 secrets, no terminal, until durable in S3 on loopback",
                 "until durable, S3", bound="≥ 100 MB/s", at_least=100),
            Line("… the step's time", "step, S3", "navvy run", bound="≤ 1.05 × navvy run", at_most=1.05),
            Line("… until durable in a directory that the processor serves", "until durable, directory"),
            Line("… the step's time", "step, directory", "navvy run", bound="≤ 1.05 × navvy run", at_most=1.05),
        ]
        secrets = secrets_of(100)
        plain, masked, lengths = text_of(secrets)
        (shop.project / "text").write_bytes(plain)
        values = {f"SECRET_{at}": value for at, value in enumerate(secrets)}
        self.env = shop.room / "fleet-log.env"
        self.env.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        self.expected, self.kept = self.masked(plain, masked, lengths)
        step = {"run": {"name": "writes", "command": f"./producer repeat {self.bytes} text"}}
        self.config = shop.config("fleet-log", config_of({"one": job(["checkout", step])}))
        self.servers = [Server(None)]
        homes = {"directory": {}, "S3": self.servers[0].variables()}
        self.sides = [self.run]
        for home, variables in homes.items():
            if "NAVVY_STORE" in variables:
                variables["NAVVY_PROCESSOR_STORE"] = variables.pop("NAVVY_STORE")
            fleet = self.fleet(home, variables)
            fleet.set_context(values)
            fleet.runner("--no-tty")
            self.sides.append(lambda home=home, fleet=fleet: self.through(home, fleet))

    def masked(self, plain, masked, lengths):
        """Digest and length of the text as it is kept."""
        periods, rest = divmod(self.bytes, len(plain))
        lines, cut = divmod(rest, LINE)
        tail = masked[:sum(lengths[:lines])] + plain[lines * LINE:lines * LINE + cut]
        sha256 = hashlib.sha256()
        for _ in range(periods):
            sha256.update(masked)
        sha256.update(tail)
        return sha256.hexdigest(), periods * len(masked) + len(tail)

    def run(self):
        os.sync()
        run = self.shop.navvy(self.config, "--quiet", "--no-tty", "--env-file", self.env)
        step = run.step("writes")
        if step["sha256"] != self.expected:
            raise NotMeasured("fleet-log: navvy run kept other bytes than were written")
        self.shop.forget(run)
        return {"navvy run": float(step["duration_ms"])}

    def through(self, home, fleet):
        os.sync()
        pipeline = fleet.submit(self.config, "--context", CONTEXT)
        task = fleet.task(pipeline)
        log, started = fleet.log_when_begun(pipeline, "writes")
        # Asking costs processors that the step is measured with: the log's end is durable no sooner than the step is over.
        fleet.step_over(pipeline, "writes")
        durable = fleet.durable_at(task, log, self.kept)
        step = fleet.step(fleet.ended(pipeline), "writes")
        if step["sha256"] != self.expected or fleet.digest(task, log) != self.expected:
            raise NotMeasured(f"fleet-log: {home} gives other bytes than were written")
        return {f"until durable, {home}": self.kept / 1e6 / (durable - moment(started)),
                f"step, {home}": float(step["duration_ms"])}


class FleetLive(Row):
    """A line that carries its own moment, each tenth of a second, while another step floods the same agent and processor."""

    name, rounds = "fleet-live", 1
    units = {"p50": "ms", "p99": "ms"}
    lines = [Line("line printed → seen by a reader over HTTP, beside 20 MB/s of other output: p50", "p50"),
             Line("… p99", "p99", bound="≤ 50 ms", at_most=50)]

    def __init__(self, shop):
        super().__init__(shop)
        self.seconds = self.size(60, 15)
        # 20 MB/s: 2 MB each tenth of a second, of lines of 80 bytes.
        floods = ("import sys, time\nblock = (b'x' * 79 + b'\\n') * 25000\nbegun = time.monotonic()\n"
                  f"for n in range({self.seconds + 2} * 10):\n    sys.stdout.buffer.write(block)\n"
                  "    sys.stdout.flush()\n    time.sleep(max(0, begun + (n + 1) / 10 - time.monotonic()))")
        tells = (f"import time\nfor n in range({self.seconds} * 10):\n    print('at', time.time(), flush=True)\n    time.sleep(0.1)")
        python = "/usr/bin/python3"
        jobs = {name: job([{"run": {"name": name, "shell": python, "command": command}}], resource_class="small")
                for name, command in (("floods", floods), ("tells", tells))}
        self.config = shop.config("fleet-live", config_of(jobs))
        self.fleet_here = self.fleet("one")
        self.fleet_here.runner("--concurrency", "2", "--no-tty")
        self.sides = [self.look]

    def look(self):
        fleet, lags = self.fleet_here, []
        pipeline = fleet.submit(self.config)
        log, started = fleet.log_when_begun(pipeline, "tells")
        answer = fleet.read(started["task"], log, "?follow=true")
        rest = b""
        while piece := answer.read1(65536):
            now = time.time()
            *whole, rest = (rest + piece).split(b"\n")
            lags += [(now - float(line.split()[1])) * 1000 for line in whole if line.startswith(b"at ")]
        fleet.ended(pipeline)
        if len(lags) != self.seconds * 10:
            raise NotMeasured(f"fleet-live: {len(lags)} of {self.seconds * 10} lines were seen")
        # The first lines may come before the reader.
        lags = lags[20:]
        return {"p50": percentile(lags, 50), "p99": percentile(lags, 99)}


class FleetClaims(Row):
    name = "fleet-claims"
    units = {"claims": "/s", "ends": "/s", "p99": "ms", "doubled": ""}
    AT_ONCE = 16

    def __init__(self, shop):
        super().__init__(shop)
        self.count = self.size(20_000, 1_000)
        self.lines = [
            Line(f"claims from a queue of {self.count:,}, SQLite, {self.AT_ONCE} at once", "claims", bound="≥ 200/s", at_least=200),
            Line("… p99 of a claim", "p99"), Line("… ends, by Finish", "ends"),
            Line("… tasks that two agents got", "doubled", bound="= 0", at_most=0)]
        self.program = agents_program()
        # Nobody beats here.
        self.one = self.fleet("one", {"NAVVY_PROCESSOR_LEASE": "1h"})
        self.sides = [self.empty]

    def empty(self):
        self.one.queue(self.count)
        said = json.loads(call([self.program, "claims", f"http://{self.one.agents}", self.one.runner_token(), self.AT_ONCE]))
        if said["claimed"] < self.count:
            raise NotMeasured(f"fleet-claims: {said['claimed']} of {self.count} tasks were claimed")
        return {"claims": said["claims_per_s"], "ends": said["ends_per_s"], "p99": said["claim_ms"]["p99"],
                "doubled": said["doubled"]}


class FleetPostgres(Row):
    """The same queue in a PostgreSQL that waits for its disk, emptied through two processors."""

    name = "fleet-postgres"
    units = FleetClaims.units

    def __init__(self, shop):
        super().__init__(shop)
        self.count = self.size(20_000, 1_000)
        self.lines = [
            Line(f"claims from a queue of {self.count:,}, PostgreSQL, two processors, {FleetClaims.AT_ONCE} at once", "claims",
                 bound="≥ 1,000/s", at_least=1000),
            Line("… p99 of a claim", "p99"), Line("… ends, by Finish", "ends"),
            Line("… tasks that two agents got", "doubled", bound="= 0", at_most=0)]
        self.program = agents_program()
        self.postgres = os.environ | {"NAVVY_POSTGRES_RECORD": str(shop.room / "postgres"), "NAVVY_POSTGRES_FSYNC": "on"}
        call([ROOT / "scripts/postgres", "start"], env=self.postgres)
        database = call([ROOT / "scripts/postgres", "url"], env=self.postgres).strip()
        keys = shop.room / "postgres.keys"
        keys.touch(0o600)
        keys.write_text(f"bench:{os.urandom(32).hex()}\n")
        shared = {"NAVVY_PROCESSOR_DATABASE": database, "NAVVY_PROCESSOR_SECRETS_KEY": str(keys),
                  "NAVVY_PROCESSOR_STORE": f"file://{shop.room}/postgres-store", "NAVVY_PROCESSOR_LEASE": "1h"}
        first = self.fleet("first", shared)
        self.two = [first, self.fleet("second", shared, beside=first)]
        self.sides = [self.empty]

    def empty(self):
        self.two[0].queue(self.count)
        urls = ",".join(f"http://{it.agents}" for it in self.two)
        said = json.loads(call([self.program, "claims", urls, self.two[0].runner_token(), FleetClaims.AT_ONCE]))
        if said["claimed"] < self.count:
            raise NotMeasured(f"fleet-postgres: {said['claimed']} of {self.count} tasks were claimed")
        return {"claims": said["claims_per_s"], "ends": said["ends_per_s"], "p99": said["claim_ms"]["p99"],
                "doubled": said["doubled"]}

    def close(self):
        super().close()
        call([ROOT / "scripts/postgres", "stop"], env=self.postgres)


class FleetCost(Row):
    """The processor's own time for a task that writes ten lines a second, from its claim to its end."""

    name = "fleet-cost"
    RATE = 10

    def __init__(self, shop):
        super().__init__(shop)
        self.counts, self.seconds = self.size([10, 100, 1000], [10, 100]), self.size(60, 15)
        self.units = {str(count): "ms" for count in self.counts}
        few, *more = self.counts
        self.lines = [Line(f"processor's time a task of {self.seconds} s, {few} running", str(few))] + [
            Line(f"… {count:,} running", str(count), str(few), bound=f"≤ 1.1 × that of {few}", at_most=1.1) for count in more]
        self.program = agents_program()
        self.one = self.fleet("one")
        self.sides = [lambda count=count: self.cost(count) for count in self.counts]

    def cost(self, count):
        fleet = self.one
        fleet.queue(count)
        before = cpu_ms(fleet.processor.pid)
        said = json.loads(call([self.program, "agents", f"http://{fleet.agents}", fleet.runner_token(), count, self.RATE, self.seconds]))
        took = cpu_ms(fleet.processor.pid) - before
        if said["incomplete"] or len(said["logs"]) != count:
            raise NotMeasured(f"fleet-cost: {len(said['logs'])} of {count} tasks ended; incomplete: {said['incomplete'][:3]}")
        return {str(count): took / count}


def cpu_ms(pid):
    """What a process has used of processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


class FleetAgents(Row):
    """Simulated agents, the processor on one core; the agents take what is left."""

    name = "fleet-agents"
    units = {"wrong": "", "claim p99": "ms", "peak": "MB", "growth": "MB"}

    def __init__(self, shop):
        super().__init__(shop)
        self.count, self.rate, self.seconds = self.size(500, 50), 100, self.size(600, 30)
        self.lines = [
            Line(f"{self.count} simulated agents, {self.rate} lines/s each, {self.seconds} s, processor on one core: logs that are not whole",
                 "wrong", bound="= 0", at_most=0),
            Line("… claim p99", "claim p99", bound="≤ 100 ms", at_most=100),
            Line("… processor's peak (VmHWM)", "peak", bound="≤ 300 MB", at_most=300),
            Line("… its growth in the second half (VmRSS)", "growth", bound="flat: ≤ 30 MB", at_most=30)]
        self.program = agents_program()
        self.one = self.fleet("one", cpu=0)
        self.sides = [self.load]

    def load(self):
        fleet = self.one
        fleet.queue(self.count)
        pid, resident, over = fleet.processor.pid, [], threading.Event()

        def watch():
            while not over.wait(0.5):
                resident.append(memory_mb(pid, "VmRSS"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            said = json.loads(call([self.program, "agents", f"http://{fleet.agents}", fleet.runner_token(),
                                    self.count, self.rate, self.seconds]))
        finally:
            over.set()
            watcher.join()
        peak = memory_mb(pid, "VmHWM")
        wrong = [task for task, log in said["logs"].items() if fleet.digest(task, "001-1") != log["sha256"]]
        half = resident[len(resident) // 2:]
        return {"wrong": len(wrong) + len(said["incomplete"]) + self.count - len(said["logs"]),
                "claim p99": said["claim_ms"]["p99"], "peak": peak, "growth": max(half) - half[0]}


class FleetStart(Row):
    """Submit (or `navvy run`) until the first byte of the first step; the runner is idle and the image is there."""

    name, rounds = "fleet-start", 9
    warm_up = True
    units = {"submit": "ms", "navvy run": "ms"}
    lines = [Line("submit → first byte of the first step, by a reader", "submit", "navvy run", bound="≤ 1.3 × navvy run", at_most=1.3)]

    def __init__(self, shop):
        super().__init__(shop)
        self.config = shop.config("fleet-start", config_of({"one": job([{"run": {"name": "first", "command": "echo first"}}])}))
        self.one = self.fleet("one")
        self.one.runner()
        self.sides = [self.submit, self.run]

    def submit(self):
        return self.until_first(self.one.environment, ["submit", "--follow", "--json", "-f", self.config])

    def run(self):
        return self.until_first(self.shop.environment, ["run", "--json", "-f", self.config])

    def until_first(self, environment, words):
        begun, first = time.monotonic(), None
        process = subprocess.Popen([self.shop.bin / "navvy", *words], cwd=self.shop.project, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with process:
            for line in process.stdout:
                if first is None and b'"event":"output"' in line and b"first" in line:
                    first = (time.monotonic() - begun) * 1000
        if process.returncode != 0 or first is None:
            raise NotMeasured(f"navvy {' '.join(map(str, words))}: exit code {process.returncode}, output seen: {first is not None}")
        return {("submit" if words[0] == "submit" else "navvy run"): first}


class FleetLate(Row):
    """A reader that comes when all is over, and wants the last screen."""

    name, rounds = "fleet-late", 5
    units = {"last screen": "ms", "growth": "MB"}
    SCREEN = 50 * LINE

    def __init__(self, shop):
        super().__init__(shop)
        self.bytes = self.size(15259, 1526) * 65536
        self.lines = [
            Line(f"a late reader of a log of {self.bytes / 1e6:,.0f} MB asks for its last screen", "last screen", bound="≤ 100 ms", at_most=100),
            Line("… what the processor's peak grew by (VmHWM)", "growth", bound="≤ 64 MB", at_most=64)]
        config = shop.config("fleet-late", config_of({"one": job(["checkout", {"run": {
            "name": "writes", "command": f"./producer lines {self.bytes}"}}])}))
        self.one = self.fleet("one")
        self.one.runner("--no-tty")
        pipeline = self.one.submit(config)
        self.task, (self.log, _) = self.one.task(pipeline), self.one.log_when_begun(pipeline, "writes")
        self.step = self.one.step(self.one.ended(pipeline), "writes")
        self.sides = [self.ask]

    def ask(self):
        pid = self.one.processor.pid
        # The mark is set back to what is resident now.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, begun = memory_mb(pid, "VmRSS"), time.monotonic()
        screen = self.one.read(self.task, self.log, f"?offset={self.step['bytes'] - self.SCREEN}").read()
        took = (time.monotonic() - begun) * 1000
        if len(screen) != self.SCREEN:
            raise NotMeasured(f"fleet-late: {len(screen)} bytes came of a screen of {self.SCREEN}")
        return {"last screen": took, "growth": max(0.0, memory_mb(pid, "VmHWM") - before)}


class FleetMemory(Row):
    name, rounds = "fleet-memory", 3
    units = {"runner": "MB", "processor": "MB"}
    lines = [Line("idle runner, Rss", "runner", bound="≤ 12 MB", at_most=12),
             Line("idle processor, Rss", "processor", bound="≤ 40 MB", at_most=40)]

    def __init__(self, shop):
        super().__init__(shop)
        self.sides = [self.look]

    def look(self):
        fleet = self.fleet(str(len(self.fleets)))
        runner = fleet.runner()
        # Both have begun, and wait for each other.
        time.sleep(3)
        figures = {"runner": memory_mb(runner.pid, "VmRSS"), "processor": memory_mb(fleet.processor.pid, "VmRSS")}
        fleet.close()
        if not all(figures.values()):
            raise NotMeasured("fleet-memory: a process was gone before its memory could be read")
        return figures


ROWS = (FleetLog, FleetLive, FleetClaims, FleetPostgres, FleetAgents, FleetCost, FleetStart, FleetLate, FleetMemory)
