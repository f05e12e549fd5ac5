"""Rows about what a step writes: how fast it reaches the log, and that it is the same there."""

import os

from figures import Line
from shop import BASE, NotMeasured, config_of, digest, job, same_bytes

# 200 MB in whole blocks.
LOG_BYTES = 3052 * 65536
LONG_LINE_BYTES = 1 << 30
RANDOM_BYTES = 1 << 28


def producing(kind, size):
    return job(["checkout", {"run": f"./producer {kind} {size}"}])


class Streams:
    """What the three rows share."""

    def __init__(self, shop, kind, size):
        self.shop, self.kind, self.size = shop, kind, size
        self.words = [kind, str(size)]
        self.config = shop.config(f"{self.name}-{kind}", config_of({"one": producing(kind, size)}))
        self.out = shop.room / f"{self.name}.out"
        with open(self.out, "wb") as out:
            shop.time([shop.producer, *self.words], stdout=out)
        self.expected = digest(self.out)
        self.out.unlink()

    def rate(self, seconds):
        return self.size / 1e6 / seconds

    def navvy(self, *words, **more):
        """A run whose last step wrote; checked."""
        # What others wrote goes to the disk on their time, not on ours.
        os.sync()
        run = self.shop.navvy(self.config, *words, **more)
        step = run.steps()[-1]
        if step["sha256"] != self.expected:
            raise NotMeasured(f"{self.name}: the event's sha256 is not that of the bytes written")
        same_bytes(f"navvy, {self.name}", run.log(step), self.expected)
        self.shop.forget(run)
        self.peak_mb = run.peak_mb
        return step["duration_ms"] / 1000

    def into_file(self, command, clean=None):
        """Seconds of a command whose stdout is a file; checked."""
        os.sync()
        with open(self.out, "wb") as out:
            seconds = self.shop.time(command, stdout=out)
        if clean:
            clean(self.out)
        same_bytes(f"{command[0]} {command[1]}, {self.name}", self.out, self.expected)
        self.out.unlink()
        return seconds

    def docker_run(self, *flags, clean=None):
        """`docker run` of the producer, its log path included."""
        name = self.shop.name()
        self.shop.docker("create", *flags, "--name", name, BASE, "/producer", *self.words)
        self.shop.docker("cp", self.shop.producer, f"{name}:/producer")
        try:
            return self.into_file([self.shop.docker_program, "start", "--attach", name], clean)
        finally:
            self.shop.remove(name)


class Log(Streams):
    name, rounds = "log", 5
    warm_up = True
    units = {"navvy": "MB/s", "docker exec > file": "MB/s", "docker run > file": "MB/s"}
    lines = [
        Line("200 MB of lines into the log, --no-tty", "navvy", "docker exec > file",
             bound="≥ 1.2 × docker exec … > file", at_least=1.2),
        Line("… and docker run's log path", "navvy", "docker run > file"),
    ]

    def __init__(self, shop):
        super().__init__(shop, "lines", LOG_BYTES)
        self.container = shop.standing_container()
        self.sides = [self.ours, self.exec, self.run]

    def ours(self):
        return {"navvy": self.rate(self.navvy("--quiet", "--no-tty"))}

    def exec(self):
        command = [self.shop.docker_program, "exec", self.container, "/producer", *self.words]
        return {"docker exec > file": self.rate(self.into_file(command))}

    def run(self):
        return {"docker run > file": self.rate(self.docker_run())}

    def close(self):
        self.shop.remove(self.container)


def without_returns(path):
    """Docker's terminal writes a carriage return before each newline; ours does not."""
    plain = path.with_suffix(".plain")
    with open(path, "rb") as source, open(plain, "wb") as target:
        held = b""
        while block := source.read(1 << 20):
            block = held + block
            held = block[-1:] if block.endswith(b"\r") else b""
            target.write(block[:len(block) - len(held)].replace(b"\r\n", b"\n"))
        target.write(held)
    plain.replace(path)


class Terminal(Streams):
    name, rounds = "terminal", 5
    warm_up = True
    units = {"navvy": "MB/s", "bare pty pair": "MB/s", "docker run -t": "MB/s"}
    lines = [
        Line("the same with the default terminal", "navvy", "bare pty pair",
             bound="≥ 0.8 × a bare pty pair", at_least=0.8),
        Line("… and docker run -t", "navvy", "docker run -t", bound="≥ 2 × docker run -t", at_least=2),
    ]

    def __init__(self, shop):
        super().__init__(shop, "lines", LOG_BYTES)
        self.sides = [self.ours, self.bare, self.run]

    def ours(self):
        return {"navvy": self.rate(self.navvy("--quiet"))}

    def bare(self):
        command = [self.shop.room / "pty_copy", self.shop.producer, *self.words]
        return {"bare pty pair": self.rate(self.into_file(command))}

    def run(self):
        return {"docker run -t": self.rate(self.docker_run("--tty", clean=without_returns))}


class Bytes:
    """Not a timing: bytes, and how much memory they cost the agent."""

    name, rounds = "bytes", 1
    warm_up = False
    units = {"flat": "MB", "random": "MB"}
    lines = [
        Line("agent's peak, 1 GiB with no newline", "flat", bound="log identical, ≤ 64 MB", at_most=64),
        Line("agent's peak, 256 MiB of random bytes", "random", bound="log identical, ≤ 64 MB", at_most=64),
    ]

    def __init__(self, shop):
        self.shop = shop
        self.flat = Kind(shop, "flat", LONG_LINE_BYTES)
        self.random = Kind(shop, "random", RANDOM_BYTES)
        self.sides = [self.both]

    def both(self):
        return {"flat": self.flat.peak(), "random": self.random.peak()}


class Kind(Streams):
    name = "bytes"

    def peak(self):
        """Megabytes that the agent had resident at most, while its view gets every byte, too."""
        self.navvy("--plain", watch_memory=True)
        return self.peak_mb
