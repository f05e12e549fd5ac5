#!/usr/bin/python3
"""Checks what no compiler reads: example configs parse and name what exists, links in documents lead somewhere, tests that
docs/security.md names exist."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

import named_tests

ROOT = Path(__file__).resolve().parents[2]
# What scripts/base-image makes: an example that asks for anything else could not run everywhere.
IMAGES = {"navvy/base:bookworm", "navvy/postgres:15", "navvy/busybox:static"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.S | re.M)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def anchors(document):
    """The names GitHub gives to a document's headings."""
    for line in FENCED.sub("", document.read_text()).splitlines():
        if line.startswith("#"):
            yield re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def broken_links(document):
    for target in LINK.findall(CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (document.parent / path).resolve() if path else document
        if not leads_to.exists():
            yield f"link to {target}: there is no {path}"
        elif anchor and leads_to.suffix == ".md" and anchor not in anchors(leads_to):
            yield f"link to {target}: no such heading"


def invocations(workflow):
    for entry in workflow.get("jobs", []):
        if isinstance(entry, str):
            yield entry, {}
        else:
            (name, arguments), = entry.items()
            yield name, arguments or {}


def config_faults(config):
    try:
        text = yaml.safe_load(config.read_text())
    except yaml.YAMLError as error:
        yield f"does not parse: {error}"
        return
    jobs = text.get("jobs", {})
    executors = text.get("executors", {})
    for name, stanza in [*jobs.items(), *executors.items()]:
        for container in stanza.get("docker", []):
            if container["image"] not in IMAGES:
                yield f"{name}: image {container['image']} is none that scripts/base-image makes"
        executor = stanza.get("executor")
        if isinstance(executor, dict):
            executor = executor["name"]
        if executor is not None and executor not in executors:
            yield f"{name}: there is no executor {executor}"
    for workflow in text.get("workflows", {}).values():
        here = {arguments.get("name", name) for name, arguments in invocations(workflow)}
        here |= {name for name, _ in invocations(workflow)}
        for name, arguments in invocations(workflow):
            if name not in jobs and arguments.get("type") != "approval":
                yield f"there is no job {name}"
            for required in arguments.get("requires", []):
                if required not in here:
                    yield f"{name} requires {required}, which is not in the workflow"


def main():
    faults = [(document, fault) for document in tracked("*.md") for fault in broken_links(document)]
    configs = [ROOT / ".circleci/config.yml", *tracked("examples/**/config.yml", "examples/*/.circleci/config.yml")]
    faults += [(config, fault) for config in dict.fromkeys(configs) for fault in config_faults(config)]
    tests = named_tests.Tests(ROOT, tracked("*.rs"))
    security = ROOT / "docs/security.md"
    faults += [(security, fault) for fault in named_tests.unknown(security, tests, named_tests.attacks(ROOT))]
    for file, fault in faults:
        print(f"{file.relative_to(ROOT)}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
