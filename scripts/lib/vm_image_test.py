#!/usr/bin/python3
"""Boots an image under emulation: Ready, Seed, Seeded, then steps through the supervisor's own protocol.

  vm_image_test.py IMAGES/NAME
"""

import io
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench.d"))

# What each image has to have.
EVERYWHERE = [
    ("id -un", "root"),
    ("sudo -u circleci sudo -n id -un", "root"),
    ("stat -c %U /home/circleci/project", "circleci"),
    ("cat /etc/hostname /proc/sys/kernel/hostname | sort -u", "bench"),
    ("ls /etc/ssh | grep -c ssh_host_ || true", "0"),
    ("/usr/sbin/sshd -V 2>&1 | grep -qi openssh; git --version | cut -d' ' -f1", "git"),
    ("command -v circleci && circleci version >/dev/null 2>&1; readlink -f /usr/local/bin/circleci", "/opt/navvy/bin/navvy-supervisor"),
    ("for need in curl gzip ip kmod less ps sudo tar unzip xz zstd; do command -v $need >/dev/null || echo no $need; done", ""),
    ("df --output=size -B1G / | tail -n1 | tr -d ' ' | awk '{ print ($1 > 20) }'", "1"),
]
# Debian says behind a plus what it has left out.
DOCKER = [("docker version --format '{{.Server.Version}}' | cut -d+ -f1", None), ("docker compose version --short", "1.29.2")]
SYSTEMD = [("systemctl is-active navvy-supervisor", "active"), ("cat /proc/1/comm", "systemd"), ("gcc --version | head -c 3", "gcc")]
# Of the Docker engine under emulation, from its seed on.
ENGINE_S = 300


def said(guest, command):
    output = io.BytesIO()
    _, _, reply = guest.run(f"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; {command}", output)
    return output.getvalue().decode(errors="replace").strip(), reply


def check(guest, command, expected):
    answer, reply = said(guest, command)
    if expected is None:
        expected = guest.manifest["docker"]
    ending = answer.splitlines()[-1] if answer else ""
    if ending != expected or answer.startswith("no "):
        sys.exit(f"`{command}` said {answer!r}, and {expected!r} was due: {reply}")


def wait_for_engine(guest):
    until = time.monotonic() + ENGINE_S
    while said(guest, "timeout 60 docker version >/dev/null 2>&1 && echo up || sleep 1")[0] != "up":
        if time.monotonic() > until:
            sys.exit(f"no Docker engine answers within {ENGINE_S} s")


def main():
    image = Path(sys.argv[1])
    os.environ["NAVVY_IMAGES"] = str(image.parent)
    from guest import Guest
    from shop import NotMeasured
    with tempfile.TemporaryDirectory(dir="/var/tmp") as room:
        begun = time.monotonic()
        try:
            guest = Guest(SimpleNamespace(room=Path(room)), image.name, memory=1024)
        except NotMeasured as error:
            sys.exit(str(error))
        try:
            guest.seed(docker=guest.manifest["docker"] is not None)
            print(f"{image.name}: seeded after {time.monotonic() - begun:.1f} s")
            rows = EVERYWHERE + (SYSTEMD if guest.manifest["init"] == "systemd" else [])
            for command, expected in rows:
                check(guest, command, expected)
            if guest.manifest["docker"]:
                wait_for_engine(guest)
                for command, expected in DOCKER:
                    check(guest, command, expected)
            print(f"{image.name}: {len(rows)} checks passed after {time.monotonic() - begun:.1f} s")
        except NotMeasured as error:
            sys.exit(str(error))
        except TimeoutError:
            sys.exit(f"{image.name}: the guest did not answer in time")
        finally:
            guest.close()


main()
