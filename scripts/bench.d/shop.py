"""Where the measuring happens: a temporary directory, Docker, navvy, and the removal of all that was made."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = "navvy/base:bookworm"
BUSYBOX = "navvy/busybox:static"
# How the product runs a step; the peers run the same.
SHELL = ["/bin/bash", "-eo", "pipefail", "-c"]
# Longer than any row takes; a measurement that hangs is one that failed.
LIMIT_S = 600


class NotMeasured(Exception):
    """Something could not be measured, or bytes were not those that were written."""


def call(command, **more):
    """Runs what has to work; its output."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        # What was wrong stands first or last; between them may be a long trace.
        said = said if len(said) <= 1200 else f"{said[:600]} […] {said[-600:]}"
        raise NotMeasured(f"failed to {' '.join(map(str, command))}: {said}")
    return done.stdout.strip()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_bytes(what, path, expected):
    if digest(path) != expected:
        raise NotMeasured(f"{what}: {path} ({os.path.getsize(path)} bytes) does not hold the bytes that were written")


class Run:
    """A finished `navvy run`."""

    def __init__(self, seconds, directory, peak_mb):
        self.seconds = seconds
        # Of the agent; 0 unless that was watched.
        self.peak_mb = peak_mb
        self.directory = directory
        self.events = Shop.events_of(directory / "events.jsonl")

    def steps(self):
        """Ended steps that the config wrote, in order."""
        started = {event["step"] for event in self.of("step_started") if event["kind"] == "run"}
        return [event for event in self.of("step_ended") if event["step"] in started]

    def step(self, name):
        """The end of the one step of this name."""
        ended = [event for event in self.of("step_ended") if event["name"] == name]
        if len(ended) != 1 or ended[0]["outcome"]["outcome"] != "success":
            raise NotMeasured(f"step {name}: {ended}")
        return ended[0]

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]

    def log(self, step):
        started = next(event for event in self.of("step_started")
                       if (event["task"], event["step"]) == (step["task"], step["step"]))
        return self.directory / started["log"]


class Process:
    """Runs a command, measures from start to exit, and watches its memory if asked to."""

    def __init__(self, command, watch_memory=False, stdout=subprocess.DEVNULL, **more):
        self.command = list(map(str, command))
        # The most memory it had resident; 0 unless that was watched.
        self.peak_mb = 0.0
        self._errors = tempfile.TemporaryFile()
        self._started = time.monotonic()
        self._child = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=self._errors, **more)
        self.pid = self._child.pid
        self._watcher = threading.Thread(target=self._watch) if watch_memory else None
        if self._watcher:
            self._watcher.start()

    def _watch(self):
        # The high-water mark only grows: the last look before the end is the peak but for the last few milliseconds.
        while self._child.returncode is None:
            self.peak_mb = max(self.peak_mb, memory_mb(self.pid, "VmHWM"))
            time.sleep(0.01)

    def running(self):
        return self._child.returncode is None

    def seconds(self):
        """Waits for its end."""
        try:
            code = self._child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{' '.join(self.command)}: not over after {LIMIT_S} s") from None
        finally:
            took = time.monotonic() - self._started
            self.stop()
        if code != 0:
            self._errors.seek(0)
            words = self._errors.read()[-800:].decode(errors="replace").strip()
            raise NotMeasured(f"failed to {' '.join(self.command)}: exit code {code}: {words}")
        return took

    def stop(self):
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
            try:
                self._child.wait(30)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._watcher and self._watcher.is_alive():
            self._watcher.join()


def memory_mb(pid, field, file="status"):
    """A field of /proc/PID/status (or smaps_rollup) in units of 1,000,000 bytes; 0 once the process is gone."""
    try:
        with open(f"/proc/{pid}/{file}") as lines:
            return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field + ":")), 0.0)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


class Shop:
    def __init__(self, anyway=False, quick=False):
        # Measured although the machine is not quiet.
        self.anyway = anyway
        # Small sizes: to see that a row works.
        self.quick = quick
        self.docker_program = os.environ.get("NAVVY_DOCKER", "/usr/bin/docker")
        if not os.access(self.docker_program, os.X_OK):
            self.docker_program = "docker"
        self.prefix = f"navvy-bench-{os.getpid()}"
        self.room = Path(tempfile.mkdtemp(prefix="navvy-bench-"))
        self.bin = ROOT / "target/bin"
        self.project = self._project()
        self.environment = os.environ | {"XDG_STATE_HOME": str(self.room / "state"), "NO_COLOR": "1"}
        self._containers = 0
        self._running = []

    def _project(self):
        """A project is a git repository; one commit is enough of it."""
        project = self.room / "project"
        project.mkdir()
        # Containers run as another user.
        self.room.chmod(0o755)
        build = ["gcc", "-O2", "-static", "-Wall", "-Werror", "-o"]
        sources = Path(__file__).parent
        call([*build, project / "producer", sources / "producer.c"])
        call([*build, self.room / "pty_copy", sources / "pty_copy.c"])
        git = ["git", "-C", project, "-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
        call([*git, "init", "--quiet", "--initial-branch=main"])
        call([*git, "add", "--all"])
        call([*git, "-c", "commit.gpgsign=false", "commit", "--quiet", "-m", "A project to measure"])
        return project

    @property
    def producer(self):
        return self.project / "producer"

    # Docker

    def docker(self, *words):
        return call([self.docker_program, *words])

    def start(self, command, **more):
        """Starts a command that is ended with the bench."""
        process = Process(command, **more)
        self._running.append(process)
        return process

    def time(self, command, **more):
        return self.start(command, **more).seconds()

    def time_docker(self, *words, **more):
        return self.time([self.docker_program, *words], **more)

    def name(self):
        self._containers += 1
        return f"{self.prefix}-{self._containers}"

    def docker_run(self, image=BASE, command=(*SHELL, "true")):
        """The words of a `docker run --rm` of one command."""
        return [self.docker_program, "run", "--rm", "--name", self.name(), image, *command]

    def standing_container(self):
        """One that waits, with the producer in it."""
        name = self.name()
        self.docker("run", "-d", "--name", name, BASE, "sleep", "86400")
        self.docker("cp", self.producer, f"{name}:/producer")
        return name

    def remove(self, name):
        self.docker("rm", "-f", "-v", name)

    # Navvy

    def config(self, name, text):
        path = self.project / f"{name}.yml"
        path.write_text(text)
        return path

    def navvy_command(self, config, *words):
        return [self.bin / "navvy", "run", "-f", config, *(words or ("--quiet",))]

    def navvy(self, config, *words, **more):
        """Runs a config; everything that it made must be gone and its logs must be there."""
        process = self.start(self.navvy_command(config, *words), cwd=self.project, env=self.environment, **more)
        return self.finished(process)

    def finished(self, process, patience=0):
        """`patience`: seconds that the engine may still need to remove what a run has handed to it."""
        seconds = process.seconds()
        run = Run(seconds, self.run_directory(), process.peak_mb)
        until = time.monotonic() + patience
        for task in {event["task"] for event in run.of("task_started")}:
            while left := self.docker("ps", "--all", "--quiet", "--filter", f"label=dev.navvy.task={task}"):
                if time.monotonic() >= until:
                    raise NotMeasured(f"navvy left containers of task {task} behind: {left}")
                time.sleep(1)
        for step in run.steps():
            if run.log(step).stat().st_size != step["bytes"]:
                raise NotMeasured(f"{run.log(step)} is not {step['bytes']} bytes long")
        return run

    def pid_of_job(self, before):
        """The main process of the job that was started after `before` was the newest run, once its last step runs."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            time.sleep(0.02)
            record = self.run_directory() / "events.jsonl"
            if self.run_directory() == before or not record.exists():
                continue
            events = self.events_of(record)
            task = next((event for event in events if event["event"] == "task_started"), None)
            started = [event for event in events if event["event"] == "step_started"]
            if task and started and started[-1]["name"] == task["steps"][-1]:
                labels = ["--filter", f"label=dev.navvy.task={task['task']}"]
                return int(self.docker("inspect", "-f", "{{.State.Pid}}", self.docker("ps", "--quiet", *labels)))
        raise NotMeasured("navvy: no step was started within 30 s")

    @staticmethod
    def events_of(record):
        """Of a run that may go on: its last line may be half written."""
        return [json.loads(line) for line in record.read_text().split("\n")[:-1]]

    def run_directory(self):
        return (self.room / "state/navvy/latest").resolve()

    def forget(self, run):
        """Logs of hundreds of megabytes are not kept until the end."""
        shutil.rmtree(run.directory)

    # The end

    def close(self):
        for process in self._running:
            process.stop()
        left = self.docker("ps", "--all", "--quiet", "--filter", f"name=^{self.prefix}-").split()
        if left:
            self.docker("rm", "-f", "-v", *left)
        shutil.rmtree(self.room)


def job(steps, containers=(BASE,), **keys):
    """A job's stanza in JSON, which YAML is a superset of."""
    docker = [{"image": it} if isinstance(it, str) else it for it in containers]
    return {"docker": docker, "steps": steps, **keys}


def config_of(jobs):
    """A config whose one workflow runs these jobs, none after another."""
    return json.dumps({"version": 2.1, "jobs": jobs, "workflows": {"bench": {"jobs": list(jobs)}}}, indent=1)
