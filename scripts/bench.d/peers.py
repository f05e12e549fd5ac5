"""The same small work given to act, and to Docker by hand: the comparison of the README."""

import json
import os

from figures import Series, table
from shop import BASE, ROOT, SHELL, NotMeasured, call, config_of, job

ACT = "github.com/nektos/act@latest"
MORE_STEPS = 10
OUTPUT_BYTES = 50_000_000
# 50 MB of lines of 80 bytes by what every image has; it makes more than 1 GB a second.
PRODUCE = f"yes {'x' * 79} | head -c {OUTPUT_BYTES}"
ROUNDS = 5


def ensure_act():
    program = ROOT / "target/bench/bin/act"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        call(["go", "install", ACT], env=os.environ | {"GOBIN": str(program.parent)})
    return program


class Tool:
    """One runner and the three jobs it is given."""

    def __init__(self, shop):
        self.shop = shop
        self.out = shop.room / "peer.out"
        self.series = {key: Series(unit) for key, unit in
                       [("job", "ms"), ("step", "ms"), ("output", "MB/s"), ("memory", "MB")]}

    def round(self):
        one, _ = self.measure("one")
        many, _ = self.measure("many")
        lines, memory = self.measure("lines")
        self.add(one * 1000, (many - one) * 1000 / MORE_STEPS, OUTPUT_BYTES / 1e6 / (lines - one), memory)

    def add(self, *figures):
        for series, figure in zip(self.series.values(), figures, strict=True):
            series.samples.append(figure)

    def measure(self, which):
        """Seconds and peak megabytes of a run whose lines go into a file."""
        with open(self.out, "wb") as out:
            process = self.shop.start(self.command(which), stdout=out, watch_memory=True, cwd=self.shop.project,
                                      env=self.environment())
            seconds = process.seconds()
        self.check(which)
        return seconds, process.peak_mb

    def check(self, which):
        """A runner that loses output is not fast."""
        if which != "lines":
            return
        with open(self.out, "rb") as out:
            seen = sum(line.count(b"x" * 79) for line in out)
        if seen < OUTPUT_BYTES // 80:
            raise NotMeasured(f"{self.title}: {seen} of {OUTPUT_BYTES // 80} lines came through")

    def environment(self):
        return self.shop.environment

    def close(self):
        pass


class Navvy(Tool):
    title = "navvy, lines to a pipe or file"

    def __init__(self, shop):
        super().__init__(shop)
        steps = {"one": ["true"], "many": ["true"] * (MORE_STEPS + 1), "lines": [PRODUCE]}
        # `head` ends `yes`, which `pipefail` would call a failure.
        self.configs = {
            which: shop.config(f"peers-{which}", config_of({"one": job([
                {"run": {"command": command, "shell": "/bin/bash -e"}} for command in commands])}))
            for which, commands in steps.items()}

    def command(self, which):
        return self.shop.navvy_command(self.configs[which], "--plain")


class Act(Tool):
    title = "act"

    def __init__(self, shop, program):
        super().__init__(shop)
        self.program = program
        self.home = shop.room / "act"
        (self.home / ".config/act").mkdir(parents=True)
        # Without this file it asks which images to take.
        (self.home / ".config/act/actrc").write_text(f"-P ubuntu-latest={BASE}\n--pull=false\n--no-cache-server\n")
        steps = {"one": ["true"], "many": ["true"] * (MORE_STEPS + 1), "lines": [PRODUCE]}
        for which, commands in steps.items():
            stanza = {"runs-on": "ubuntu-latest", "steps": [{"run": command} for command in commands]}
            text = json.dumps({"name": f"bench-{os.getpid()}", "on": "push", "jobs": {which: stanza}})
            (self.home / f"{which}.yml").write_text(text)
        self.had_cache = self.cache()
        self.title = call([program, "--version"], env=self.environment()).replace(" version", "")

    def environment(self):
        home = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config"),
                "XDG_CACHE_HOME": str(self.home / ".cache")}
        return os.environ | home | {"NO_COLOR": "1"}

    def command(self, which):
        return [self.program, "push", "--rm", "-W", self.home / f"{which}.yml"]

    def cache(self):
        """A volume that it makes once and keeps."""
        return self.shop.docker("volume", "ls", "--quiet", "--filter", "name=^act-toolcache$")

    def close(self):
        if not self.had_cache and (made := self.cache()):
            self.shop.docker("volume", "rm", made)


class Docker(Tool):
    title = "docker run, docker exec by hand"

    def __init__(self, shop):
        super().__init__(shop)
        self.container = shop.standing_container()

    def round(self):
        one, memory = self.measure("one")
        step = self.shop.time_docker("exec", self.container, *SHELL, "true")
        lines, lines_memory = self.measure("lines")
        self.add(one * 1000, step * 1000, OUTPUT_BYTES / 1e6 / (lines - one), max(memory, lines_memory))

    def command(self, which):
        command = {"one": "true", "lines": PRODUCE}[which]
        return self.shop.docker_run(command=["/bin/bash", "-e", "-c", command])


def measure(shop, watch, rounds, say):
    """The comparison as Markdown, and its raw samples."""
    say("peers: act" if (ROOT / "target/bench/bin/act").exists() else "peers: building act (about a minute)")
    tools = [Navvy(shop), Act(shop, ensure_act()), Docker(shop)]
    try:
        interleave(tools, rounds or ROUNDS, watch, say)
    finally:
        for tool in tools:
            tool.close()
    rows = [[tool.title, *(series.words() for series in tool.series.values())] for tool in tools]
    head = ["", "job with one `true` step", "each further step", "50 MB of lines", "peak memory of the program itself"]
    raw = {tool.title: {key: series.samples for key, series in tool.series.items()} for tool in tools}
    return table(rows, head), raw


def interleave(tools, rounds, watch, say):
    for tool in tools:
        # What is made once (caches, a copy of the supervisor) is not the subject.
        tool.measure("one")
    for number in range(rounds):
        say(f"peers: round {number + 1} of {rounds}")
        watch.wait_until_quiet()
        for tool in tools:
            tool.round()
