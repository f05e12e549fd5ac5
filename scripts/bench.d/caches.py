"""Rows about saving and restoring: tar and zstd do the same in the same container and directory."""

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import machine
from figures import Line
from shop import BASE, NotMeasured, call, config_of, job, memory_mb
from sizes import supervisors
from trees import LARGE, SMALL

WARM, COLD = "warm", "cold"
USER = "3434"
# Bytes that are to be saved in the row about memory.
MUCH = 5_000_000_000


def run_step(name, command):
    return {"run": {"name": name, "command": command}}


def lines_of(tree):
    # `tar x` and a restore of few large files are both a matter of the disk.
    faster = 1.3 if tree is SMALL else 1.0
    for temperature in (WARM, COLD):
        about = f"{tree.words}, {temperature}"
        yield Line(f"save {about}", f"tar, {temperature}", f"save, {temperature}", bound="≥ 1.25 × faster than tar and zstd -T0 -3",
                   at_least=1.25)
        if temperature == WARM:
            yield Line("… against zstd -b3 -T2 in memory", "speed", "zstd -b3", bound="≥ 0.85 ×", at_least=0.85)
        yield Line(f"restore {about}", f"untar, {temperature}", f"restore, {temperature}",
                   bound=f"≥ {faster} × faster than zstd -dc and tar x", at_least=faster)
    yield Line("size of the archive", "archive", "tar.zst", bound="≤ 1.05 ×", at_most=1.05)


class Files:
    """One job saves and one restores, each beside the peer's commands as steps; before each of the steps that count, disks
    are synced and, where it says cold, the page cache is dropped.

    All rounds are one run: ext4 takes minutes until it gives the inodes of removed files to new ones, and until then searches
    past all of them for each file that is made. So nothing is removed before everything is measured."""

    name, tree, rounds = "files", SMALL, 3
    warm_up = False
    units = {f"{what}, {temperature}": unit for temperature in (WARM, COLD) for what, unit in
             [("save", "ms"), ("tar", "ms"), ("restore", "ms"), ("untar", "ms")]
             } | {"speed": "MB/s", "zstd -b3": "MB/s", "archive": "MB", "tar.zst": "MB"}
    lines = list(lines_of(SMALL))

    def __init__(self, shop):
        self.shop = shop
        if os.geteuid() != 0:
            raise NotMeasured("only root can drop the page cache")
        self.store = shop.room / f"store-{self.name}"
        self.images = {which: f"{shop.prefix}-{self.name}-{which}" for which in ("full", "empty")}
        self.figures = None
        self._make_images()
        self.sides = [self.look]

    def close(self):
        for image in self.images.values():
            call([self.shop.docker_program, "rmi", "--force", image])
        shutil.rmtree(self.store, ignore_errors=True)

    def _make_images(self):
        """One with the tree and its plain tar, one with the peer's archive."""
        place, name = self.tree.build(), self.shop.name()
        self.shop.docker("run", "-d", "--user", "0", "--name", name, BASE, "sleep", "86400")
        inside = ["exec", "--user", "0", name, "bash", "-ec"]
        self.shop.docker(*inside, "mkdir /peer /trees")
        self.shop.docker("cp", place, f"{name}:/peer/tree")
        tree = self.tree.name
        self.shop.docker(*inside, f"mv /peer/tree /trees/{tree}; chown -R {USER} /trees; tar c -C /trees {tree} >/peer/plain")
        self.shop.docker("commit", name, self.images["full"])
        # In the next image the tree is gone because it never was there, not because it was removed.
        self.shop.remove(name)
        self.shop.docker("run", "-d", "--user", "0", "--name", name, BASE, "sleep", "86400")
        self.shop.docker(*inside, f"mkdir /peer /trees; chown {USER} /trees")
        theirs = self.shop.room / "tar.zst"
        call(["bash", "-ec", f"tar c -C {place.parent} {tree} | zstd -q -T0 -3 -f -o {theirs}"])
        self.shop.docker("cp", theirs, f"{name}:/peer/tar.zst")
        self.shop.docker("commit", name, self.images["empty"])
        self.shop.remove(name)

    def _config(self):
        save, restore = [], []
        for number in range(self.rounds):
            for temperature in (WARM, COLD):
                save += self._save(number, temperature)
                restore += self._restore(number, temperature)
        jobs = {"save": job(save, [self.images["full"]]), "restore": job(restore, [self.images["empty"]])}
        return self.shop.config(f"caches-{self.name}", sequence_of(jobs))

    def _save(self, number, temperature):
        key = f"{temperature}, {number}"
        # A new file each, as ours is: pages of one that is written anew are still at hand.
        file = f"/tmp/{temperature}-{number}.tar.zst"
        theirs = f"tar c -C /trees {self.tree.name} | zstd -q -T0 -3 -o {file}"
        keep = {"save_cache": {"name": f"save, {key}", "key": key, "paths": [f"/trees/{self.tree.name}"]}}
        speed = f"zstd -b3 -i1 -T2 /peer/plain 2>&1 | tr '\\r' '\\n' | tail -n 2; stat -c %s {file}"
        compared = [run_step(f"zstd -b3, {number}", speed)] if temperature == WARM else []
        warm = run_step("warm", f"tar c -C /trees {self.tree.name} | cat >/dev/null; cat /peer/plain >/dev/null")
        return [warm, *in_turn(number, temperature, [run_step(f"tar, {key}", theirs)], [keep]), *compared]

    def _restore(self, number, temperature):
        key = f"{temperature}, {number}"
        # What was restored gets out of the way by its name.
        away = run_step("away", f"mv /trees/{self.tree.name} /trees/$RANDOM$RANDOM")
        theirs = run_step(f"untar, {key}", "zstd -dcq /peer/tar.zst | tar x -C /trees")
        get = {"restore_cache": {"name": f"restore, {key}", "keys": [key]}}
        warm = run_step("warm", "cat /peer/tar.zst >/dev/null")
        return [warm, *in_turn(number, temperature, [theirs, away], [get, away])]

    def look(self):
        if self.figures is None:
            self.figures = iter(self._measure())
        return next(self.figures)

    def _measure(self):
        """Of each round."""
        run = with_gates(self.shop, self._config(), self.store)
        sizes = {path.stat().st_size for path in (self.store / "v1/body").iterdir()}
        if len(sizes) != 1:
            raise NotMeasured(f"{self.name}: archives of {sizes} bytes")
        archive = {"archive": sizes.pop() / 1e6}
        return [self._round(run, number) | archive for number in range(self.rounds)]

    def _round(self, run, number):
        timed = [name for name, unit in self.units.items() if unit == "ms"]
        figures = {name: float(run.step(f"{name}, {number}")["duration_ms"]) for name in timed}
        for name in ("restore, warm", "restore, cold"):
            log = run.log(run.step(f"{name}, {number}")).read_text()
            if "Cached paths" not in log:
                raise NotMeasured(f"{self.name}: nothing was restored: {log}")
        told = run.log(run.step(f"zstd -b3, {number}")).read_text()
        speed = re.search(r"([\d.]+) MB/s", told)
        if not speed:
            raise NotMeasured(f"{self.name}: zstd said {told!r}")
        figures["speed"] = self.tree.size / 1e3 / figures["save, warm"]
        return figures | {"zstd -b3": float(speed[1]), "tar.zst": int(told.split()[-1]) / 1e6}


def in_turn(number, temperature, theirs, ours):
    """Who is first changes with the round."""
    first, second = (theirs, ours) if number % 2 else (ours, theirs)
    gate = run_step(f"gate, {temperature}", "until [ -e /tmp/open ]; do sleep 0.2; done; rm /tmp/open")
    return [gate, *first, gate, *second]


class BigFiles(Files):
    name, tree = "big-files", LARGE
    lines = list(lines_of(LARGE))


def sequence_of(jobs):
    """One job after the other."""
    names = list(jobs)
    order = [names[0], *({later: {"requires": [earlier]}} for earlier, later in zip(names, names[1:]))]
    return json.dumps({"version": 2.1, "jobs": jobs, "workflows": {"bench": {"jobs": order}}}, indent=1)


def with_gates(shop, config, store, watch=None):
    """A run whose steps `gate, …` are opened from outside."""
    before = shop.run_directory()
    process = shop.start(shop.navvy_command(config, "--quiet", "--store", f"file://{store}"), cwd=shop.project,
                         env=shop.environment, watch_memory=True)
    faults = []
    keeper = threading.Thread(target=keep_gates, args=(shop, process, before, store, watch, faults))
    keeper.start()
    try:
        # Removing a hundred thousand files takes a slow disk longer than a run waits for it.
        return shop.finished(process, patience=900)
    except NotMeasured as fault:
        raise NotMeasured("; ".join([*faults, str(fault)])) from None
    finally:
        keeper.join()


def keep_gates(shop, process, before, store, watch, faults):
    """A gate that cannot be opened ends the run."""
    try:
        watch_gates(shop, process, before, store, watch)
    except (NotMeasured, machine.Loaded, OSError) as fault:
        faults.append(str(fault))
        process.stop()


def watch_gates(shop, process, before, store, watch):
    seen = 0
    while process.running():
        time.sleep(0.05)
        record = shop.run_directory() / "events.jsonl"
        if shop.run_directory() == before or not record.exists():
            continue
        events = shop.events_of(record)
        for event in events[seen:]:
            if event["event"] == "step_started":
                if event["name"].startswith("gate, "):
                    open_gate(shop, event, store)
                if watch:
                    watch(event)
        seen = len(events)


def open_gate(shop, event, store):
    call(["sync"])
    # What was written just now goes on for a while.
    machine.Watch(shop.anyway, patience_s=120).wait_until_quiet()
    if event["name"].endswith(COLD):
        Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        # The job warms what the peer reads; this is what we read.
        for path in (store / "v1/body").glob("*"):
            call(["cksum", path])
    labels = ["--filter", f"label=dev.navvy.task={event['task']}"]
    shop.docker("exec", "--user", USER, shop.docker("ps", "--quiet", *labels), "touch", "/tmp/open")


class SaveMemory:
    """The same large tree many times over. All processes of the supervisor together, shared pages counted each time."""

    name, rounds = "save-memory", 1
    warm_up = False
    units = {"supervisor": "MB", "agent": "MB"}
    lines = [Line(f"supervisor while {MUCH // 10**9} GB are saved, Rss of its processes", "supervisor", bound="≤ 150 MB", at_most=150),
             Line("… agent (VmHWM)", "agent", bound="≤ 64 MB", at_most=64)]

    def __init__(self, shop):
        self.shop = shop
        self.store = shop.room / "store-memory"
        self.image = f"{shop.prefix}-memory"
        name = shop.name()
        shop.docker("run", "-d", "--user", "0", "--name", name, BASE, "sleep", "86400")
        shop.docker("cp", LARGE.build(), f"{name}:/tree")
        shop.docker("exec", "--user", "0", name, "chown", "-R", USER, "/tree")
        shop.docker("commit", name, self.image)
        shop.remove(name)
        self.most = 0.0
        self.sides = [self.look]

    def close(self):
        call([self.shop.docker_program, "rmi", "--force", self.image])
        shutil.rmtree(self.store, ignore_errors=True)

    def look(self):
        copies = -(-MUCH // LARGE.size)
        fill = run_step("fill", f"mkdir /tmp/much; for n in $(seq {copies}); do cp -r /tree /tmp/much/$n; done")
        save = {"save_cache": {"name": "save", "key": "much", "paths": ["/tmp/much"]}}
        config = self.shop.config("save-memory", config_of({"one": job([fill, save], [self.image])}))
        self.most = 0.0
        run = with_gates(self.shop, config, self.store, self.watch)
        if "Stored Cache to much" not in run.log(run.step("save")).read_text():
            raise NotMeasured(run.log(run.step("save")).read_text())
        shutil.rmtree(self.store)
        return {"supervisor": self.most, "agent": run.peak_mb}

    def watch(self, event):
        """Until the container is gone."""
        if event["name"] != "save":
            return
        labels = ["--filter", f"label=dev.navvy.task={event['task']}"]
        init = int(self.shop.docker("inspect", "-f", "{{.State.Pid}}", self.shop.docker("ps", "--quiet", *labels)))
        while Path(f"/proc/{init}/exe").exists():
            try:
                processes = supervisors(init)
            except OSError:
                return
            self.most = max(self.most, sum(memory_mb(pid, "VmRSS") for pid in processes))
            time.sleep(0.02)
