#!/usr/bin/env python3
"""The arrows between our crates: what `cargo metadata` says against the drawing in docs/architecture.md.

  scripts/lib/arrows.py    ends with 1 where a crate imports one that the drawing does not let it import, where the drawing has
                           an arrow or a crate that there is none of, where an arrow runs back up, and where a program is imported
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DRAWING = re.compile(r"^```arrows\n(.*?)^```$", re.M | re.S)
LINE = re.compile(r"([a-z-]+) +─► ([a-z-]+(?:, [a-z-]+)*)")
OURS = "navvy-"
# They are started, never imported.
PROGRAMS = {"agent", "supervisor"}


def drawn(text):
    """Crate to the crates that it may import, in the order of the page."""
    blocks = DRAWING.findall(text)
    if len(blocks) != 1:
        raise ValueError(f"one block of arrows was expected, there are {len(blocks)}")
    arrows = {}
    for line in blocks[0].splitlines():
        found = LINE.fullmatch(line.strip())
        if not found:
            raise ValueError(f"this line is not `crate ─► crate, crate`: {line!r}")
        if found[1] in arrows:
            raise ValueError(f"{found[1]} stands there twice")
        arrows[found[1]] = found[2].split(", ")
    return arrows


def imported(metadata):
    """Crate to the crates that it, its build script or its tests import."""
    return {
        package["name"].removeprefix(OURS): sorted(
            {
                name.removeprefix(OURS)
                for name in (dependency["name"] for dependency in package["dependencies"])
                if name.startswith(OURS) and name != package["name"]
            }
        )
        for package in metadata["packages"]
    }


def faults(drawing, imports):
    """What is wrong, a sentence each."""
    for crate, others in imports.items():
        for other in others:
            if other not in drawing.get(crate, []):
                yield f"{crate} imports {other}, and the drawing has no such arrow"
            if other in PROGRAMS:
                yield f"{crate} imports {other}, which is a program"
    for crate, others in drawing.items():
        if crate not in imports:
            yield f"the drawing has a crate {crate}, and there is none"
            continue
        for other in others:
            if other not in imports[crate]:
                yield f"the drawing lets {crate} import {other}, which it does not: take the arrow out"
    order = list(drawing)
    for crate, others in drawing.items():
        for other in others:
            if other in order and order.index(other) <= order.index(crate):
                yield f"{crate} ─► {other} runs back up: a crate stands above all that it imports"


def metadata(manifest):
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked", "--manifest-path", manifest]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def main():
    page = ROOT / "docs/architecture.md"
    try:
        drawing = drawn(page.read_text())
    except ValueError as error:
        sys.exit(f"docs/architecture.md: {error}")
    imports = imported(metadata("Cargo.toml")) | imported(metadata("fuzz/Cargo.toml"))
    found = list(faults(drawing, imports))
    for fault in found:
        print(f"docs/architecture.md: {fault}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
