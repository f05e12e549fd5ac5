"""A row about test splitting: how long a node takes to find its share, and how even the shares are."""

import json
import math
import random
import subprocess

from figures import Line
from shop import NotMeasured

TESTS, NODES = 50_000, 16


def timings():
    """Log-normal, in seconds; none takes more than a hundredth of all of them."""
    generator = random.Random(TESTS)
    times = [math.exp(generator.gauss(0, 1.5)) for _ in range(TESTS)]
    most = sum(times) / 100
    return [round(min(time, most), 6) for time in times]


class Split:
    name, rounds = "split", 9
    warm_up = True
    units = {"time": "ms", "over": "%"}
    lines = [
        Line(f"{TESTS:,} tests split by timings over {NODES} nodes", "time", bound="≤ 300 ms", at_most=300),
        Line("… the heaviest node, over the mean", "over", bound="≤ 3 %", at_most=3),
    ]

    def __init__(self, shop):
        self.shop = shop
        self.times = {f"spec/area_{at % 97}/thing_{at}_spec.rb": time for at, time in enumerate(timings())}
        tests = [{"file": file, "classname": f"Thing{at}", "name": f"does what thing {at} is for", "run_time": time}
                 for at, (file, time) in enumerate(self.times.items())]
        self.results = shop.room / "results.json"
        self.results.write_text(json.dumps({"tests": tests}))
        self.list = shop.room / "tests.list"
        self.list.write_text("\n".join(self.times) + "\n")
        self.over = {"over": self.heaviest()}
        self.sides = [self.split]

    def command(self, node):
        return [self.shop.bin / "navvy-supervisor", "cli", "tests", "split", "--split-by=timings",
                f"--timings-file={self.results}", f"--index={node}", f"--total={NODES}", self.list]

    def share(self, node):
        done = subprocess.run(self.command(node), capture_output=True, text=True)
        if done.returncode != 0 or done.stderr:
            raise NotMeasured(f"circleci tests split: {done.stderr.strip()[-600:]}")
        return done.stdout.split()

    def heaviest(self):
        """In percent over the mean; every test must be in one share and no more."""
        shares = [self.share(node) for node in range(NODES)]
        if sorted(name for share in shares for name in share) != sorted(self.times):
            raise NotMeasured("the shares together are not the list")
        loads = [sum(self.times[name] for name in share) for share in shares]
        return 100 * (max(loads) * NODES / sum(loads) - 1)

    def split(self):
        return {"time": self.shop.time(self.command(0)) * 1000} | self.over
