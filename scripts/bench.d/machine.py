"""Whether anyone else is at work on this machine. A figure taken beside other work is none."""

import os
import time

# Of all CPUs together. dockerd's own housekeeping stays well below it.
BUSY_SHARE = 0.10
# Processes that want a CPU, besides the one that asks, on average.
RUNNABLE = 0.5
# How long a look takes, and how long one waits for the machine to become quiet.
LOOK_S = 0.4
PATIENCE_S = 20.0


class Loaded(Exception):
    """The machine did not become quiet."""


def _stat():
    with open("/proc/stat") as file:
        lines = file.read().splitlines()
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, lines[0].split()[1:9])
    runnable = next(int(line.split()[1]) for line in lines if line.startswith("procs_running"))
    # Time that waits for a disk is idle; time that the machine below us takes away is not.
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait, runnable


def look():
    """The share of busy CPU time and the runnable processes, while we do nothing."""
    busy, total, _ = _stat()
    counted, runnable, until = 0, 0, time.monotonic() + LOOK_S
    while time.monotonic() < until:
        time.sleep(0.04)
        counted, runnable = counted + 1, runnable + max(0, _stat()[2] - 1)
    busy_after, total_after, _ = _stat()
    return (busy_after - busy) / max(1, total_after - total), runnable / max(1, counted)


class Watch:
    """Looks before and between rounds, and keeps what it saw."""

    def __init__(self, anyway, patience_s=PATIENCE_S):
        self.anyway = anyway
        self.patience_s = patience_s
        self.looks = 0
        self.loaded = 0
        self.worst = 0.0

    def wait_until_quiet(self):
        self.looks += 1
        until = time.monotonic() + (0 if self.anyway else self.patience_s)
        while True:
            busy, runnable = look()
            if busy <= BUSY_SHARE and runnable <= RUNNABLE:
                return
            if time.monotonic() >= until:
                break
        if not self.anyway:
            raise Loaded("refused, the machine is at work (--anyway measures all the same): "
                         f"{busy:.0%} of the CPUs busy, {runnable:.1f} processes runnable; "
                         f"allowed are {BUSY_SHARE:.0%} and {RUNNABLE}")
        self.loaded += 1
        self.worst = max(self.worst, busy)

    def words(self):
        if not self.loaded:
            return "quiet before each of these rounds"
        return (f"NOT quiet at {self.loaded} of {self.looks} looks (up to {self.worst:.0%} busy): "
                "do not quote these figures")


def words():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    kernel = os.uname()
    return f"{os.cpu_count()} × {models[0] if models else kernel.machine}, {kernel.sysname} {kernel.release}"
