#!/usr/bin/python3
"""The snapshot of the RustSec advisory database that comes with the project, for machines that cannot reach the live one.

  advisories.py check               every crate of the lock files has been looked up
  advisories.py database DIRECTORY  writes the snapshot as the database that cargo-deny reads; refuses one that is too old
  advisories.py update CLONE        makes the snapshot anew from a clone of https://github.com/RustSec/advisory-db

The snapshot (scripts/advisories/snapshot.toml) holds facts alone: which advisories exist for the crates of our lock files,
and which versions they touch. What an advisory says in words is at rustsec.org.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "scripts/advisories/snapshot.toml"
LOCKS = [ROOT / "Cargo.lock", ROOT / "fuzz/Cargo.lock"]
CONFIG = ROOT / "deny.toml"
# Half a year, also written in deny.toml: there cargo-deny itself refuses an older database. A machine that never reaches
# the live database learns nothing of what was found since. Shorter, and a clone of last season cannot be checked at all;
# longer, and most flaws that are found in a year pass unseen.
MAX_AGE = datetime.timedelta(days=180)
# Where cargo-deny looks for the clone of its default database, below `db-path`: the name holds a hash of the URL.
CLONE_NAME = "advisory-db-3157b0e258782691"
# What an advisory keeps here, in this order; `id`, `package`, `date` and `patched` are always there.
FACTS = ("id", "package", "date", "informational", "withdrawn", "patched", "unaffected", "aliases")
HOW = ("scripts/advisories/README.md says how to update the snapshot: "
       "scripts/lib/advisories.py update CLONE, or by hand where there is no clone of the database")


class Refused(Exception):
    """What is wrong, and then what to do about it."""


def read(path=None):
    # Looked up when called: the tests put another file in its place.
    path = path or SNAPSHOT
    try:
        snapshot = tomllib.loads(path.read_text())
        return {
            "as_of": datetime.date.fromisoformat(str(snapshot["as_of"])),
            "crates": list(snapshot["crates"]),
            "advisories": [{key: advisory[key] for key in FACTS if key in advisory} for advisory in snapshot["advisories"]],
        }
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"{path} is no snapshot: {error!r}", HOW) from error


def locked_crates(lock):
    """The crates of a lock file that come from somewhere else; our own have no source."""
    return {package["name"] for package in tomllib.loads(lock.read_text())["package"] if "source" in package}


def check(snapshot, locks):
    for lock in locks:
        missing = sorted(locked_crates(lock) - set(snapshot["crates"]))
        if missing:
            raise Refused(f"nobody looked for advisories of these crates of {lock}: {', '.join(missing)}", HOW)


def check_age(snapshot, today):
    age = today - snapshot["as_of"]
    if age < datetime.timedelta(0):
        raise Refused(f"the snapshot of advisories is of {snapshot['as_of']}, which has not come yet", HOW)
    if age > MAX_AGE:
        raise Refused(f"the snapshot of advisories is of {snapshot['as_of']}, {age.days} days old; "
                      f"{MAX_AGE.days} are allowed", HOW)


def value(of):
    # JSON's strings and lists of strings are TOML's.
    return json.dumps(of)


def as_file(advisory):
    """An advisory in the database's own form: facts in TOML, then a heading."""
    head = [f"{key} = {value(advisory[key])}" for key in FACTS if key in advisory and key not in ("patched", "unaffected")]
    versions = [f"{key} = {value(advisory[key])}" for key in ("patched", "unaffected") if key in advisory]
    return "\n".join(["```toml", "[advisory]", *head, "", "[versions]", *versions, "```", "",
                      f"# {advisory['package']}: the advisory at rustsec.org says more", ""])


def git(directory, *arguments, date=None):
    # Nothing of the user's own configuration: no signing, no hooks, no templates.
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    if date:
        quiet |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    who = ["-c", "user.name=snapshot", "-c", "user.email=snapshot@localhost"]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", "-C", directory, *who, *arguments], env=clean | quiet, check=True,
                          capture_output=True, text=True).stdout


def write_database(snapshot, directory):
    """A git repository as a fetch would have left it on the day of the snapshot: cargo-deny reads its age off FETCH_HEAD."""
    clone = directory / CLONE_NAME
    shutil.rmtree(clone, ignore_errors=True)
    for advisory in snapshot["advisories"]:
        path = clone / "crates" / advisory["package"] / f"{advisory['id']}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_file(advisory))
    git(clone, "init", "--quiet", "--initial-branch", "main")
    git(clone, "add", "--all")
    day = datetime.datetime.combine(snapshot["as_of"], datetime.time(), datetime.UTC)
    git(clone, "commit", "--quiet", "--message", "snapshot", date=day.isoformat())
    fetched = clone / ".git/FETCH_HEAD"
    fetched.touch()
    os.utime(fetched, (day.timestamp(), day.timestamp()))


def write_config(directory):
    """Our rules, with the snapshot for a database."""
    rules = CONFIG.read_text()
    section = "[advisories]\n"
    if rules.count(section) != 1:
        raise Refused(f"{CONFIG} has no section [advisories] of its own", "write it as one table")
    (directory / "deny.toml").write_text(rules.replace(section, f"{section}db-path = {value(str(directory.resolve()))}\n"))


def front_matter(path):
    text = path.read_text()
    start = text.index("```toml\n") + len("```toml\n")
    return tomllib.loads(text[start:text.index("\n```", start)])


def advisories_of(crate, clone):
    for path in sorted((clone / "crates" / crate).glob("RUSTSEC-*.md")):
        entry = front_matter(path)
        facts = {**entry["advisory"], **entry["versions"]}
        yield {key: str(facts[key]) if key in ("date", "withdrawn") else facts[key]
               for key in FACTS if facts.get(key) not in (None, []) or key == "patched"}


def render(snapshot):
    crates = "".join(f"  {value(crate)},\n" for crate in sorted(snapshot["crates"]))
    lines = []
    for advisory in sorted(snapshot["advisories"], key=lambda one: (one["package"], one["id"])):
        facts = ", ".join(f"{key} = {value(advisory[key])}" for key in FACTS if key in advisory)
        lines.append(f"  {{ {facts} }},\n")
    return (f"# Facts of the RustSec advisory database (CC0); README.md beside this file says how it is made.\n"
            f"# The day up to which the database was seen.\nas_of = {snapshot['as_of']}\n"
            f"# Every crate that was looked up.\ncrates = [\n{crates}]\n"
            f"# All that the database has of them.\nadvisories = [\n{''.join(lines)}]\n")


def update(clone, locks):
    crates = sorted(set().union(*map(locked_crates, locks)))
    if not (clone / "crates").is_dir():
        raise Refused(f"{clone} is no clone of the advisory database: it has no directory crates",
                      "git clone https://github.com/RustSec/advisory-db")
    as_of = git(clone, "show", "--no-patch", "--format=%cs", "HEAD").strip()
    advisories = [advisory for crate in crates for advisory in advisories_of(crate, clone)]
    SNAPSHOT.write_text(render({"as_of": as_of, "crates": crates, "advisories": advisories}))
    return f"{len(crates)} crates, {len(advisories)} advisories, as of {as_of}"


def main(arguments):
    try:
        match arguments:
            case ["check"]:
                check(read(), LOCKS)
            case ["database", directory]:
                snapshot, directory = read(), Path(directory)
                check_age(snapshot, datetime.date.today())
                directory.mkdir(parents=True, exist_ok=True)
                write_database(snapshot, directory)
                write_config(directory)
                print(snapshot["as_of"])
            case ["update", clone]:
                print(update(Path(clone), LOCKS))
            case _:
                sys.exit(__doc__)
    except Refused as refused:
        message, hint = refused.args
        sys.exit(f"advisories: error: {message}\n  hint: {hint}")


if __name__ == "__main__":
    main(sys.argv[1:])
