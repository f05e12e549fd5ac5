"""Rows about size: programs, memory, and the time that a long config takes."""

import os
import time
from pathlib import Path

from figures import Line
from shop import ROOT, NotMeasured, call, config_of, job, memory_mb


class Memory:
    """While one job's one step sleeps. Rss of a process counts the pages that it has in memory, shared ones in full."""

    name, rounds = "memory", 3
    warm_up = False
    units = {"binary": "MB", "supervisor": "MB", "supervisor, all": "MB", "agent": "MB", "agent's peak": "MB"}
    lines = [
        Line("supervisor's binary", "binary", bound="≤ 3 MB", at_most=3),
        Line("supervisor, Rss of the container's PID 1", "supervisor", bound="≤ 4 MB", at_most=4),
        Line("… Pss of all its processes", "supervisor, all"),
        Line("agent with one job, Rss", "agent", bound="≤ 25 MB", at_most=25),
        Line("… its peak (VmHWM)", "agent's peak", bound="≤ 25 MB", at_most=25),
    ]

    def __init__(self, shop):
        self.shop = shop
        self.config = shop.config("memory", config_of({"one": job([{"run": "sleep 3"}])}))
        self.sides = [self.look]

    def look(self):
        before = self.shop.run_directory()
        process = self.shop.start(self.shop.navvy_command(self.config), cwd=self.shop.project,
                                  env=self.shop.environment)
        init = self.shop.pid_of_job(before)
        # Let what the step's start allocated for a moment be given back.
        time.sleep(1)
        figures = {
            "binary": (self.shop.bin / "navvy-supervisor").stat().st_size / 1e6,
            "supervisor": memory_mb(init, "Rss", "smaps_rollup"),
            "supervisor, all": sum(memory_mb(pid, "Pss", "smaps_rollup") for pid in supervisors(init)),
            "agent": memory_mb(process.pid, "VmRSS"),
            "agent's peak": memory_mb(process.pid, "VmHWM"),
        }
        self.shop.finished(process)
        if not all(figures.values()):
            raise NotMeasured("a process was gone before its memory could be read")
        return figures


def supervisors(init):
    """The container's main process and those below it that run the same program."""
    program = os.readlink(f"/proc/{init}/exe")
    found, todo = [], [init]
    while todo:
        pid = todo.pop()
        try:
            if os.readlink(f"/proc/{pid}/exe") == program:
                found.append(pid)
            # Each thread has children of its own.
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                todo.extend(map(int, children.read_text().split()))
        except OSError:
            continue
    return found


# What it prints: the median of 21 runs in milliseconds.
LIBYAML = """
import statistics, sys, time, yaml
def once(text):
    started = time.perf_counter()
    for event in yaml.parse(text, Loader=yaml.CSafeLoader): pass
    return (time.perf_counter() - started) * 1000
text = open(sys.argv[1]).read()
print(statistics.median(once(text) for _ in range(21)))
"""


class Compile:
    """Nothing else here compiles this language: libyaml, in C, at least reads the same text. What is printed are medians, too."""

    name, rounds = "compile", 5
    warm_up = False
    units = {"time": "ms", "memory": "MB", "libyaml": "ms"}
    lines = [
        Line("compile a config of 5,000 lines", "time", bound="≤ 20 ms", at_most=20),
        Line("… and libyaml's events of the text alone", "libyaml"),
        Line("… peak of the process (VmHWM)", "memory", bound="≤ 50 MB", at_most=50),
    ]

    def __init__(self, shop):
        call(["cargo", "build", "--quiet", "--locked", "--release", "-p", "navvy-config", "--example", "compile_time"],
             cwd=ROOT)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        self.program = target / "release/examples/compile_time"
        self.text = shop.room / "compile.yml"
        self.text.write_text(call([self.program, "text"], cwd=ROOT) + "\n")
        self.sides = [self.ours, self.libyaml]

    def ours(self):
        time, memory = call([self.program], cwd=ROOT).split()
        return {"time": float(time), "memory": float(memory)}

    def libyaml(self):
        return {"libyaml": float(call(["/usr/bin/python3", "-c", LIBYAML, self.text]))}
