"""Rows about a fleet on Nomad: a real Nomad, server and client in one, with the configuration that `navvy host nomad-config` prints."""

import base64
import http.client
import json
import socket
import time
from pathlib import Path
from urllib.parse import quote

from figures import Line
from fleet import Row
from shop import BASE, ROOT, NotMeasured, call, config_of, job, memory_mb

# What stands beside the printed configuration: loopback, no question to clouds; Docker's driver must not remove images, nor
# containers of another Nomad on this machine.
BESIDE = """
bind_addr = "127.0.0.1"
ports {{
  http = {ports[0]}
  rpc  = {ports[1]}
  serf = {ports[2]}
}}
advertise {{
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}}
client {{
  options = {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}
plugin "docker" {{
  config {{
    gc {{
      image = false
      dangling_containers {{
        enabled = false
      }}
    }}
  }}
}}
"""
# Where both write their first byte, below an allocation's directory.
FIRST = "alloc/logs/agent.stdout.0"
STEP = "echo first; sleep 2"


def free_ports(count):
    """All at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


class Nomad:
    """Ends, with all mounts below its directory, by `close`."""

    def __init__(self, shop, room):
        # Its last answer, for errors.
        self.said = ""
        self.data, self.ports = room / "nomad", free_ports(3)
        (self.data / "alloc").mkdir(parents=True)
        program = call([ROOT / "scripts/nomad", "build"])
        printed = call([shop.bin / "navvy", "host", "nomad-config", "--single", "--data-dir", self.data, "--plugin-dir", shop.bin,
                        "--state-dir", room / "driver", "--driver", "docker", "--reserve-cpus", "0.5", "--reserve-memory", "512M"])
        files = {"client.hcl": printed, "beside.hcl": BESIDE.format(ports=self.ports)}
        for name, text in files.items():
            (room / name).write_text(text)
        configs = [word for name in files for word in ("-config", room / name)]
        with open(room / "nomad.log", "wb") as out:
            self.process = shop.start([program, "agent", *configs], stdout=out)
        self.until("both drivers are healthy", self.healthy)

    def until(self, what, look, seconds=120):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := look():
                return found
            time.sleep(0.01)
        raise NotMeasured(f"Nomad: not in {seconds} s: {what}")

    def ask(self, method, path, body=None):
        """`None`: it does not answer, or not with what was asked for."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            self.said = f"{answer.status} {text[:600].decode(errors='replace')}"
            return json.loads(text) if answer.status == 200 else None
        except OSError as error:
            self.said = str(error)
            return None
        finally:
            connection.close()

    def healthy(self):
        for node in self.ask("GET", "/v1/nodes") or []:
            drivers = (self.ask("GET", f"/v1/node/{node['ID']}") or {}).get("Drivers") or {}
            if node["Status"] == "ready" and all(drivers.get(name, {}).get("Healthy") for name in ("navvy", "docker")):
                return True
        return False

    def register(self, name, driver, config, cpu, memory, **task):
        agent = {"Name": "agent", "Driver": driver, "Config": config, "Resources": {"CPU": cpu, "MemoryMB": memory},
                 "KillTimeout": 30_000_000_000, **task}
        group = {"Name": "task", "Count": 1, "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
                 "ReschedulePolicy": {"Attempts": 0, "Unlimited": False}, "Tasks": [agent]}
        body = {"ID": name, "Name": name, "Type": "batch", "Datacenters": ["*"], "TaskGroups": [group],
                "ParameterizedJob": {"Payload": "optional", "MetaOptional": ["task", "processor"]}}
        if not self.ask("PUT", "/v1/jobs", {"Job": body}):
            raise NotMeasured(f"Nomad did not register {name}: {self.said}")

    def dispatch(self, name, token="", **meta):
        """The job, and milliseconds until its first byte is in Nomad's log."""
        known = set((self.data / "alloc").iterdir())
        body = {"Payload": base64.b64encode(token.encode()).decode(), "Meta": meta}
        begun = time.monotonic()
        answer = self.ask("PUT", f"/v1/job/{name}/dispatch", body)
        if not answer:
            raise NotMeasured(f"Nomad did not dispatch {name}: {self.said}")
        while time.monotonic() < begun + 120:
            for place in set((self.data / "alloc").iterdir()) - known:
                first = place / FIRST
                if first.exists() and first.stat().st_size > 0:
                    return answer["DispatchedJobID"], (time.monotonic() - begun) * 1000
            time.sleep(0.001)
        states = (self.allocation(answer["DispatchedJobID"]) or {}).get("TaskStates") or {}
        words = [event["DisplayMessage"] for event in states.get("agent", {}).get("Events", [])]
        raise NotMeasured(f"{name} wrote nothing in 120 s: {'; '.join(words)}")

    def allocation(self, dispatched):
        return next(iter(self.ask("GET", f"/v1/job/{quote(dispatched, safe='')}/allocations") or []), None)

    def ended(self, dispatched, status="complete"):
        def over():
            found = self.allocation(dispatched)
            return found if found and found["ClientStatus"] in ("complete", "failed", "lost") else None

        found = self.until(f"{dispatched} ends", over)
        if status and found["ClientStatus"] != status:
            raise NotMeasured(f"{dispatched} ended as {found['ClientStatus']}: {json.dumps(found['TaskStates'])[-800:]}")

    def stop(self, dispatched):
        self.ask("DELETE", f"/v1/job/{quote(dispatched, safe='')}")
        self.ended(dispatched, None)

    def driver(self):
        """The pid of the plugin that is at work: the newest child of Nomad by that name."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()] if children.exists() else []
        ours = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "navvy-driver"]
        if not ours:
            raise NotMeasured("Nomad has no driver of ours")
        return max(ours)

    def close(self):
        self.process.stop()
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([it for it in mounts if it.startswith(f"{self.data}/")]):
            call(["umount", "--lazy", mount])


class OnNomad(Row):
    """A processor whose tasks we dispatch ourselves, so that what is measured begins with the dispatch."""

    def __init__(self, shop, config, cpu, memory):
        super().__init__(shop)
        self.one = self.fleet("one")
        self.nomad = Nomad(shop, self.one.room)
        self.config = shop.config(self.name, config)
        agents = {"task": "${NOMAD_META_task}", "processor": "${NOMAD_META_processor}", "output": True}
        self.nomad.register("bench-navvy", "navvy", agents, cpu, memory, DispatchPayload={"File": "token"}, KillSignal="SIGTERM")

    def task(self):
        """A queued task and its launch token."""
        task = self.one.task(self.one.submit(self.config))
        return task, json.load(self.one.ask("POST", f"/api/v2/task/{task}/launch"))["token"]

    def begin(self):
        task, token = self.task()
        return self.nomad.dispatch("bench-navvy", token, task=task, processor=f"http://{self.one.agents}")

    def close(self):
        self.nomad.close()
        super().close()


class NomadStart(OnNomad):
    """The image is there; both write into Nomad's own log. Both live on for a moment: Nomad's docker driver loses what a container wrote
    that ends at once."""

    name, rounds, warm_up = "nomad-start", 9, True
    units = {"navvy": "ms", "Nomad's docker driver": "ms"}
    lines = [Line("dispatch → first byte of the first step, in Nomad's log", "navvy", "Nomad's docker driver",
                  bound="≤ 1.3 × Nomad's docker driver", at_most=1.3)]

    def __init__(self, shop):
        step = {"run": {"name": "first", "command": STEP}}
        super().__init__(shop, config_of({"one": job([step], resource_class="small")}), 1000, 2048)
        config = {"image": BASE, "command": "/bin/bash", "args": ["-eo", "pipefail", "-c", STEP]}
        self.nomad.register("bench-docker", "docker", config, 1000, 2048)
        self.sides = [self.navvy, self.docker]

    def navvy(self):
        dispatched, took = self.begin()
        self.nomad.ended(dispatched)
        return {"navvy": took}

    def docker(self):
        dispatched, took = self.nomad.dispatch("bench-docker")
        self.nomad.ended(dispatched)
        return {"Nomad's docker driver": took}


class NomadMemory(OnNomad):
    """The driver's process: idle, and with tasks that run."""

    name, rounds = "nomad-memory", 3
    units = {"idle": "MB", "a task": "MB"}
    lines = [Line("idle driver, Rss", "idle", bound="≤ 10 MB", at_most=10),
             Line("… what each running task adds", "a task", bound="≤ 0.2 MB", at_most=0.2)]

    def __init__(self, shop):
        step = {"run": {"name": "stays", "command": "echo first; sleep 3600"}}
        super().__init__(shop, config_of({"one": job([step], resource_class="small")}), 50, 128)
        self.count = self.size(20, 3)
        self.sides = [self.look]

    def look(self):
        pid = self.nomad.driver()
        # It has looked at the machine once, and waits.
        time.sleep(3)
        idle = memory_mb(pid, "VmRSS")
        dispatched = [self.begin()[0] for _ in range(self.count)]
        time.sleep(3)
        busy = memory_mb(pid, "VmRSS")
        for it in dispatched:
            self.nomad.stop(it)
        if not idle or not busy or self.nomad.driver() != pid:
            raise NotMeasured("nomad-memory: the driver was gone before its memory could be read")
        return {"idle": idle, "a task": max(0.0, busy - idle) / self.count}


ROWS = (NomadStart, NomadMemory)
