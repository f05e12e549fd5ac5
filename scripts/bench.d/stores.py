"""Rows about the store: artifacts to a distant server, looking keys up, and many savers of one key."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

from figures import Line
from shop import ROOT, NotMeasured, call, config_of, job

FILES, SIZE, AT_ONCE, DELAY_MS = 10_000, 5_000, 32, 20
ENTRIES = 10_000
SAVERS, SAVER_ROUNDS = 20, 100


def program():
    call(["cargo", "build", "--quiet", "--locked", "--release", "-p", "navvy-agent", "--example", "store"], cwd=ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/store"


class Served:
    """A process that says on its first line where it is, and ends with its input."""

    def __init__(self, command, **more):
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
        self.words = self._process.stdout.readline().split()
        if not self.words:
            raise NotMeasured(f"failed to {' '.join(map(str, command))}")

    def end(self):
        """What it said at the end."""
        said, _ = self._process.communicate()
        return said.strip()


class Server:
    """A real S3 server on loopback, signatures on; nearer or farther away."""

    def __init__(self, store):
        # In memory: its disk is nobody's affair here.
        self._served = Served([ROOT / "scripts/store", "serve"], env=os.environ | {"TMPDIR": "/dev/shm"})
        self._store = store
        self.endpoint, self.bucket, self.access, self.secret = self._served.words

    def variables(self, endpoint=None):
        return {"NAVVY_STORE": f"s3://{self.bucket}/bench", "AWS_ENDPOINT": endpoint or self.endpoint, "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}

    def away(self, delay):
        return Away(self, Served([self._store, "delay", self.endpoint.removeprefix("http://"), delay]))

    def end(self):
        self._served.end()


class Away:
    """The server behind a proxy that counts requests and lets each of them wait."""

    def __init__(self, server, served):
        self._served = served
        self.variables = server.variables(f"http://{served.words[0]}")

    def end(self):
        return int(self._served.end())


class Artifacts:
    name, rounds = "artifacts", 5
    warm_up = True
    units = {"navvy": "ms", "32 PUTs at once": "ms", "requests": "", "gets": ""}
    lines = [
        Line(f"{FILES:,} artifacts of {SIZE // 1000} KB to S3, {DELAY_MS} ms away", "32 PUTs at once", "navvy",
             bound="≥ 4 × faster than 32 PUTs at once", at_least=4),
        Line("… requests of the whole run", "requests", bound="≤ 200", at_most=200),
        Line("requests that fetch all of them one by one", "gets"),
    ]

    def __init__(self, shop):
        self.shop, self.store = shop, program()
        self.server = Server(self.store)
        make = ("import os, random\nr = random.Random(1)\nos.mkdir('out')\n"
                f"for n in range({FILES}): open(f'out/{{n}}', 'wb').write(r.randbytes({SIZE // 2}).hex().encode())")
        steps = [{"run": {"name": "make", "shell": "/usr/bin/python3", "command": make}},
                 {"store_artifacts": {"name": "store", "path": "out"}}]
        self.config = shop.config("artifacts", config_of({"one": job(steps)}))
        self.gets = None
        self.sides = [self.navvy, self.peer]

    def close(self):
        self.server.end()

    def navvy(self):
        away = self.server.away(DELAY_MS)
        environment = self.shop.environment | away.variables
        run = self.shop.finished(self.shop.start(self.shop.navvy_command(self.config), cwd=self.shop.project, env=environment))
        requests = away.end()
        if f"Uploaded {FILES} files" not in run.log(run.step("store")).read_text():
            raise NotMeasured(run.log(run.step("store")).read_text()[-600:])
        self.gets = self.gets or self.fetch()
        return {"navvy": float(run.step("store")["duration_ms"]), "requests": requests, "gets": self.gets}

    def fetch(self):
        """All of them, each by itself, and each as it was."""
        away, to = self.server.away(0), self.shop.room / "fetched"
        call([self.shop.bin / "navvy", "artifacts", "get", "--to", to, "-f", self.config], cwd=self.shop.project,
             env=self.shop.environment | away.variables)
        generator = random.Random(1)
        for number in range(FILES):
            if (to / "one/0/out" / str(number)).read_bytes() != generator.randbytes(SIZE // 2).hex().encode():
                raise NotMeasured(f"artifact {number} is not what was stored")
        shutil.rmtree(to)
        return away.end()

    def peer(self):
        away = self.server.away(DELAY_MS)
        took = call([self.store, "puts", FILES, SIZE, AT_ONCE], env=self.shop.environment | away.variables)
        away.end()
        return {"32 PUTs at once": float(took)}


class BothStores:
    """The same on a directory and on a real server."""

    rounds = 1
    warm_up = False

    def __init__(self, shop):
        self.shop, self.store = shop, program()
        self.server = Server(self.store)
        directory = shop.room / f"store-{self.name}"
        self.homes = {"directory": {"NAVVY_STORE": f"file://{directory}"}, "S3": self.server.variables()}
        self.sides = [self.directory, self.s3]

    def close(self):
        self.server.end()

    def ask(self, home, *words):
        return call([self.store, *words], env=self.shop.environment | self.homes[home])


class LookUp(BothStores):
    name, rounds = "look-up", 15
    units = {"directory": "ms", "S3": "ms"}
    lines = [Line(f"look up among {ENTRIES:,} entries, keys of 900 characters: directory", "directory", bound="≤ 100 ms", at_most=100),
             Line("… S3 on loopback", "S3", bound="≤ 100 ms", at_most=100)]

    def __init__(self, shop):
        super().__init__(shop)
        for home in self.homes:
            self.ask(home, "fill", ENTRIES)

    def directory(self):
        return {"directory": float(self.ask("directory", "look-up", ENTRIES))}

    def s3(self):
        return {"S3": float(self.ask("S3", "look-up", ENTRIES))}


class Savers(BothStores):
    name, races = "savers", 0
    units = {f"{home}, {what}": "" for home in ("directory", "S3") for what in ("winners", "orphans")}
    lines = [line for home in ("directory", "S3") for line in (
        Line(f"{SAVERS} savers of one key, {SAVER_ROUNDS} rounds, {home}: winners", f"{home}, winners",
             bound=f"= {SAVER_ROUNDS}", at_least=SAVER_ROUNDS, at_most=SAVER_ROUNDS),
        Line("… objects that nobody committed", f"{home}, orphans", bound="= 0", at_most=0))]

    def directory(self):
        return self.race("directory")

    def s3(self):
        return self.race("S3")

    def race(self, home):
        # Each time in a store of its own: what was saved before would win.
        self.races += 1
        self.homes[home]["NAVVY_STORE"] += f"/{self.races}"
        winners, orphans = map(int, self.ask(home, "savers", SAVERS, SAVER_ROUNDS).split())
        return {f"{home}, winners": winners, f"{home}, orphans": orphans}
