"""A guest under bare QEMU, for rows about machines: the image's own files, the plainest command line that boots them, the supervisor's own protocol.

  qemu-img create ─▶ QEMU ─▶ Ready ─▶ Seed ─▶ Seeded ─▶ greeting of the mux port ─▶ one exec ─▶ its first byte
"""

import json
import os
import secrets
import socket
import struct
import subprocess
import time
from pathlib import Path

from shop import NotMeasured, call

LIMIT_S = 120
# protocol::mux and protocol::frame
GREETING, MAGIC = b"navvygr1", b"navvymx1"
OPEN, DATA = 1, 2
HELLO, REQUEST, REPLY, OUTPUT = 1, 2, 3, 4
OUTPUT_HEADER = 17
ARGUMENTS = "console=hvc0 quiet panic=-1 reboot=t net.ifnames=0 random.trust_cpu=on navvy.root=/dev/vda navvy.init=own"
# Program, machine and processor by the image's architecture.
EMULATORS = {"x86_64": ("qemu-system-x86_64", "q35", "max"), "aarch64": ("qemu-system-aarch64", "virt", "max,pauth-impdef=on")}


def images():
    return Path(os.environ.get("NAVVY_IMAGES", "/var/cache/navvy-images"))


class Guest:
    """Ends, with its directory, by `close`."""

    def __init__(self, shop, image, memory=640, forward=None):
        self.place = shop.room / f"guest-{secrets.token_hex(4)}"
        self.place.mkdir()
        directory = images() / image
        try:
            self.manifest = json.loads((directory / "manifest.json").read_text())
        except OSError as error:
            raise NotMeasured(f"no image {image}: {error}; scripts/vm-image builds it") from None
        disk = self.place / "disk.qcow2"
        call(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", directory / "root.qcow2", disk])
        net = "user,id=n0,restrict=on" + (f",hostfwd=tcp:127.0.0.1:{forward}-:22" if forward else "")
        port = lambda name: f"socket,id={name},path={name}.sock,server=on,wait=off"  # noqa: E731
        program, machine, processor = EMULATORS[self.manifest["architecture"]]
        self.process = subprocess.Popen([str(word) for word in (
            program, "-M", machine, "-accel", "tcg,thread=multi", "-cpu", processor, "-smp", 1, "-m", memory, "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", directory / self.manifest["kernel"]["name"],
            "-initrd", directory / self.manifest["initrd"]["name"], "-append", f"{ARGUMENTS} {self.manifest['arguments']}",
            "-drive", f"id=d0,if=none,file={disk},format=qcow2,cache=unsafe", "-device", "virtio-blk-pci,drive=d0",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=4", "-chardev", port("console"),
            "-device", "virtconsole,chardev=console,nr=1", "-chardev", port("seed"),
            "-device", "virtserialport,chardev=seed,name=navvy.seed,nr=2", "-chardev", port("mux"),
            "-device", "virtserialport,chardev=mux,name=navvy.mux,nr=3", "-netdev", net,
            "-device", "virtio-net-pci,netdev=n0,romfile=")],
            cwd=self.place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.place / "qemu.log", "wb"))
        self.mux = None
        self.channel = 0

    def _connect(self, name):
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until and self.process.poll() is None:
            port = socket.socket(socket.AF_UNIX)
            port.settimeout(LIMIT_S)
            try:
                port.connect(str(self.place / f"{name}.sock"))
                return port
            except OSError:
                port.close()
                time.sleep(0.002)
        raise NotMeasured(f"QEMU opened no port {name}: {(self.place / 'qemu.log').read_text()[-400:]}")

    def seed(self, **more):
        """Waits until the guest is ready and has taken its seed."""
        seed = {"time_ns": time.time_ns(), "entropy": secrets.token_hex(32), "secret": secrets.token_hex(16),
                "machine_id": secrets.token_hex(16), "host_name": "bench", "idle_limit_s": 0, **more}
        with self._connect("seed") as port, port.makefile("rwb") as lines:
            self._said(lines, "ready")
            lines.write(json.dumps({"told": "seed", **seed}).encode() + b"\n")
            lines.flush()
            self._said(lines, "seeded")
        self.mux = self._connect("mux")
        nonce = secrets.token_bytes(16)
        self.mux.sendall(GREETING + nonce)
        seen = b""
        while not seen.endswith(MAGIC + nonce):
            seen += self._read(1)

    @staticmethod
    def _said(lines, word):
        said = json.loads(lines.readline(1 << 20) or b"{}")
        if said.get("said") != word:
            raise NotMeasured(f"the guest said {said} where {word} was due")

    def _read(self, count):
        got = b""
        while len(got) < count:
            more = self.mux.recv(count - len(got))
            if not more:
                raise NotMeasured("the guest hung up")
            got += more
        return got

    def run(self, command, to=None):
        """Seconds to the command's first byte, its output's length, and its exit code; `to` gets the output."""
        self.channel += 1
        exec_ = {"request": "exec", "id": f"bench-{self.channel}", "argv": ["/bin/bash", "-c", command], "env": [],
                 "cwd": "/", "user": None, "terminal": {"terminal": "pipes"}, "input": False, "watch_memory": False}
        frames = b"".join(struct.pack("<IB", len(text) + 1, kind) + text for kind, text in (
            (HELLO, json.dumps({"version": 1, "capabilities": []}).encode()), (REQUEST, json.dumps(exec_).encode())))
        begun = time.monotonic()
        for op, payload in ((OPEN, b""), (DATA, frames)):
            self.mux.sendall(struct.pack("<IBI", self.channel, op, len(payload)) + payload)
        received, first, length = bytearray(), None, 0
        while True:
            channel, op, size = struct.unpack("<IBI", self._read(9))
            payload = self._read(size)
            if channel != self.channel:
                continue
            if op != DATA:
                raise NotMeasured(f"the guest ended the channel of {command!r}")
            received += payload
            while len(received) >= 5 and len(received) >= 4 + (whole := struct.unpack_from("<I", received)[0]):
                kind, body = received[4], bytes(received[5:4 + whole])
                del received[:4 + whole]
                if kind == OUTPUT:
                    first = first or time.monotonic() - begun
                    length += len(body) - OUTPUT_HEADER
                    if to:
                        to.write(body[OUTPUT_HEADER:])
                elif kind == REPLY and (reply := json.loads(body)).get("reply") in ("exited", "failed"):
                    if reply["reply"] == "failed":
                        raise NotMeasured(f"{command!r}: {reply}")
                    return first, length, reply

    def close(self):
        if self.mux:
            self.mux.close()
        self.process.kill()
        self.process.wait()
