"""Rows about the cost of a job and of a step: nothing in them but `true`."""

import subprocess
import time

from figures import Line
from shop import BASE, BUSYBOX, SHELL, NotMeasured, config_of, job

TRUE = {"run": "true"}


def at_once(shop, commands):
    """Milliseconds until the last of commands started together is over."""
    started = time.monotonic()
    for process in [shop.start(command) for command in commands]:
        process.seconds()
    return (time.monotonic() - started) * 1000


class Job:
    name, rounds = "job", 15
    warm_up = True
    units = {"navvy": "ms", "docker run --rm": "ms"}
    lines = [Line("one `true` step, process start to exit", "navvy", "docker run --rm",
                  bound="≤ 1.25 × docker run --rm", at_most=1.25)]

    def __init__(self, shop):
        self.shop = shop
        self.config = shop.config("job", config_of({"one": job([TRUE])}))
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        return {"navvy": self.shop.navvy(self.config).seconds * 1000}

    def peer(self):
        return {"docker run --rm": self.shop.time(self.shop.docker_run()) * 1000}


class Service:
    name, rounds = "service", 11
    warm_up = True
    units = {"navvy": "ms", "two docker run --rm": "ms"}
    lines = [Line("the same with a service container", "navvy", "two docker run --rm",
                  bound="≤ 1.25 × two docker run --rm at once", at_most=1.25)]

    def __init__(self, shop):
        self.shop = shop
        service = {"image": BUSYBOX, "command": ["sleep", "86400"]}
        self.config = shop.config("service", config_of({"one": job([TRUE], (BASE, service))}))
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        return {"navvy": self.shop.navvy(self.config).seconds * 1000}

    def peer(self):
        commands = [self.shop.docker_run(), self.shop.docker_run(BUSYBOX, ["true"])]
        return {"two docker run --rm": at_once(self.shop, commands)}


class Parallel:
    """Steps run while the sum of their tasks' classes fits the machine, and the smallest class has one CPU: on two CPUs
    `navvy` runs the steps of two of the four at a time. The environments of the others are made ahead."""

    name, rounds = "parallel", 9
    warm_up = True
    units = {"navvy": "ms", "four docker run --rm": "ms"}
    lines = [Line("4 jobs side by side", "navvy", "four docker run --rm",
                  bound="≤ 1.1 × four docker run --rm at once", at_most=1.1)]

    def __init__(self, shop):
        self.shop = shop
        jobs = {f"job{number}": job([TRUE], resource_class="small") for number in range(4)}
        self.config = shop.config("parallel", config_of(jobs))
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        return {"navvy": self.shop.navvy(self.config).seconds * 1000}

    def peer(self):
        return {"four docker run --rm": at_once(self.shop, [self.shop.docker_run() for _ in range(4)])}


class Step:
    name, rounds = "step", 9
    warm_up = True
    more, execs = 100, 5
    units = {"navvy": "ms", "navvy (events)": "ms", "docker exec": "ms"}
    lines = [
        Line("a `true` step with shell, log, event", "navvy", bound="≤ 3.5 ms", at_most=3.5),
        Line("how many times less than `docker exec`", "docker exec", "navvy",
             bound="≥ 15 × less than docker exec", at_least=15),
        Line("a `true` step, by the events' times", "navvy (events)"),
    ]

    def __init__(self, shop):
        self.shop = shop
        self.one = shop.config("step-1", config_of({"one": job([TRUE])}))
        self.many = shop.config("step-101", config_of({"one": job([TRUE] * (self.more + 1))}))
        self.container = shop.standing_container()
        self.sides = [self.navvy, self.peer]

    def navvy(self):
        one = self.shop.navvy(self.one)
        many = self.shop.navvy(self.many)
        steps = many.steps()
        return {"navvy": (many.seconds - one.seconds) * 1000 / self.more,
                "navvy (events)": (steps[-1]["at_ms"] - steps[0]["at_ms"]) / self.more}

    def peer(self):
        took = [self.shop.time_docker("exec", self.container, *SHELL, "true") for _ in range(self.execs)]
        return {"docker exec": sum(took) * 1000 / self.execs}

    def close(self):
        self.shop.remove(self.container)


class Retry:
    """A held job goes on: from the start of `navvy retry` to the first byte that the step wrote. It fails again each
    time, so that it is held for the next."""

    name, rounds = "retry", 15
    warm_up = True
    units = {"navvy": "ms"}
    lines = [Line("`navvy retry` to the step's first byte", "navvy", bound="≤ 50 ms", at_most=50)]
    WORD = "the first word of the step"

    def __init__(self, shop):
        self.shop = shop
        config = shop.config("retry", config_of({"one": job([{"run": f"echo {self.WORD}; false"}])}))
        words = [shop.bin / "navvy", "run", "--quiet", "--keep-on-fail", "-f", config]
        held = subprocess.run(words, cwd=shop.project, env=shop.environment, stdin=subprocess.DEVNULL, capture_output=True)
        if held.returncode != 1:
            raise NotMeasured(f"a failing job ended with {held.returncode}: {held.stderr.decode(errors='replace')}")
        self.sides = [self.navvy]

    def navvy(self):
        words = [self.shop.bin / "navvy", "retry", "one", "--json"]
        started = time.monotonic()
        with subprocess.Popen(words, cwd=self.shop.project, env=self.shop.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE) as process:
            wanted = f'"bytes":"{self.WORD}'.encode()
            if not any(wanted in line for line in process.stdout):
                raise NotMeasured("a retried step wrote nothing")
            took = time.monotonic() - started
            process.stdout.read()
        return {"navvy": took * 1000}

    def close(self):
        subprocess.run([self.shop.bin / "navvy", "rm", "one"], cwd=self.shop.project, env=self.shop.environment,
                       stdin=subprocess.DEVNULL, capture_output=True)
