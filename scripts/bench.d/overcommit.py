"""The row about processors that are given out more than once: what it gains jobs that wait, and costs jobs that compute."""

from figures import Line
from shop import config_of, job

# Two processes that compute, as a build with `-j2` has, for a second or two of a processor each.
COMPUTES = "for each in 1 2; do (i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done) & done; wait"
# Stands for a download: time passes, and no processor is used.
WAITS = "sleep 4"
TIMES = ("1", "2", "4")


class Overcommit:
    """Four jobs of the default class, which has two CPUs. `mixed` are two that wait and two that compute, in turn."""

    name, rounds = "overcommit", 3
    warm_up = False
    kinds = {"waits": [WAITS] * 4, "computes": [COMPUTES] * 4, "mixed": [WAITS, COMPUTES] * 2}
    units = {f"{kind} {times}": "ms" for kind in kinds for times in TIMES} | {
        f"{kind} {times}, slowest": "ms" for kind in kinds for times in TIMES}
    lines = [Line(f"4 jobs, {kind}, --overcommit {times}", f"{kind} {times}", f"{kind} 1")
             for kind in kinds for times in TIMES[1:]] + [
        Line(f"… slowest job, {kind}, --overcommit {times}", f"{kind} {times}, slowest", f"{kind} 1, slowest")
        for kind in kinds for times in TIMES[1:]]

    def __init__(self, shop):
        self.shop = shop
        self.configs = {kind: shop.config(f"overcommit-{kind}", config_of(
            {f"job{number}": job([{"run": command}], resource_class="medium") for number, command in enumerate(commands)}))
            for kind, commands in self.kinds.items()}
        self.sides = [lambda kind=kind, times=times: self.run(kind, times) for kind in self.kinds for times in TIMES]

    def run(self, kind, times):
        done = self.shop.navvy(self.configs[kind], "--quiet", "--overcommit", times)
        slowest = max(event["duration_ms"] for event in done.events if event["event"] == "task_ended")
        return {f"{kind} {times}": done.seconds * 1000, f"{kind} {times}, slowest": slowest}
