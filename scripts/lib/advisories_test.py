#!/usr/bin/python3
"""Tests of the advisories gate: that it sees what it is there to see, with the cargo-deny that scripts/check runs."""

import datetime
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import advisories

ROOT = advisories.ROOT


def lock_file(directory, *names):
    lock = directory / "Cargo.lock"
    lock.write_text("version = 4\n" + "".join(
        f'[[package]]\nname = "{name}"\nversion = "1.0.0"\nsource = "registry+https://example.org/index"\n' for name in names)
        + '[[package]]\nname = "our-own"\nversion = "0.1.0"\n')
    return lock


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        self.snapshot = advisories.read()

    def put_aside(self, name, value):
        before = getattr(advisories, name)
        setattr(advisories, name, value)
        self.addCleanup(setattr, advisories, name, before)


class Snapshot(Scratch):
    def test_a_crate_that_nobody_looked_up_is_named(self):
        lock = lock_file(self.directory, "tar", "never-heard-of")
        with self.assertRaises(advisories.Refused) as refused:
            advisories.check(self.snapshot, [lock])
        message, hint = refused.exception.args
        self.assertIn(f"of {lock}: never-heard-of", message)
        self.assertIn("README.md", hint)
        self.assertTrue((ROOT / hint.split()[0]).exists())

    def test_only_our_own_crates_need_no_look(self):
        advisories.check(self.snapshot, [lock_file(self.directory, "tar")])

    def test_it_lasts_for_180_days_and_not_one_more(self):
        last = self.snapshot["as_of"] + datetime.timedelta(days=180)
        advisories.check_age(self.snapshot, last)
        for wrong in (last + datetime.timedelta(days=1), self.snapshot["as_of"] - datetime.timedelta(days=1)):
            with self.assertRaisesRegex(advisories.Refused, str(self.snapshot["as_of"])):
                advisories.check_age(self.snapshot, wrong)
        self.assertIn(f'maximum-db-staleness = "P{advisories.MAX_AGE.days}D"\n', advisories.CONFIG.read_text())

    def test_a_file_that_is_no_snapshot_is_an_error(self):
        for text in ("", "as_of = 2026-10-02\ncrates = []\n", 'as_of = "soon"\ncrates = []\nadvisories = []\n', "]"):
            broken = self.directory / "snapshot.toml"
            broken.write_text(text)
            with self.assertRaisesRegex(advisories.Refused, "is no snapshot"):
                advisories.read(broken)

    def test_an_update_from_a_clone_has_every_fact(self):
        advisories.write_database(self.snapshot, self.directory)
        self.put_aside("SNAPSHOT", self.directory / "snapshot.toml")
        advisories.update(self.directory / advisories.CLONE_NAME, [lock_file(self.directory, *self.snapshot["crates"])])
        self.assertEqual(advisories.read(), self.snapshot)

    def test_an_update_from_another_directory_is_refused(self):
        with self.assertRaisesRegex(advisories.Refused, "is no clone"):
            advisories.update(self.directory, advisories.LOCKS)


class CargoDeny(Scratch):
    """What cargo-deny says of our own tree, changed in one place, against the snapshot."""

    @classmethod
    def setUpClass(cls):
        cls.metadata = subprocess.run(
            ["cargo", "metadata", "--quiet", "--locked", "--all-features", "--format-version", "1"],
            cwd=ROOT, check=True, capture_output=True, text=True).stdout

    def verdict(self, metadata, age=0):
        self.snapshot["as_of"] = datetime.date.today() - datetime.timedelta(days=age)
        advisories.write_database(self.snapshot, self.directory)
        advisories.write_config(self.directory)
        tree = self.directory / "metadata.json"
        tree.write_text(metadata)
        ran = subprocess.run(
            ["cargo", "deny", "--color", "never", "--offline", "--config", self.directory / "deny.toml",
             "--metadata-path", tree, "check", "advisories"], cwd=ROOT, capture_output=True, text=True)
        return ran.returncode, ran.stderr + ran.stdout

    def with_version(self, crate, version):
        tree = json.loads(self.metadata)
        package = next(one for one in tree["packages"] if one["name"] == crate)
        text = self.metadata.replace(package["id"], f"{package['id'].split('#')[0]}#{crate}@{version}")
        tree = json.loads(text)
        next(one for one in tree["packages"] if one["name"] == crate)["version"] = version
        return json.dumps(tree)

    def test_a_version_with_a_known_flaw_fails(self):
        code, said = self.verdict(self.with_version("tar", "0.4.44"))
        self.assertNotEqual(code, 0, said)
        for advisory in ("RUSTSEC-2026-0067", "RUSTSEC-2026-0068"):
            self.assertIn(advisory, said)

    def test_an_unsound_crate_deep_in_the_tree_fails(self):
        code, said = self.verdict(self.with_version("bumpalo", "3.11.0"))
        self.assertNotEqual(code, 0, said)
        self.assertIn("RUSTSEC-2022-0078", said)

    def test_cargo_deny_itself_refuses_an_old_snapshot(self):
        code, said = self.verdict(self.metadata, age=182)
        self.assertNotEqual(code, 0, said)
        self.assertIn("stale", said)


if __name__ == "__main__":
    unittest.main(verbosity=0, argv=[sys.argv[0], *sys.argv[1:]])
