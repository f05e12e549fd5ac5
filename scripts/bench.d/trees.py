"""The trees that are saved and restored, cut from what is on this machine: made once, kept in target/bench."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from shop import ROOT, NotMeasured

SOURCES = {"small": ["~/.cargo/registry/src", "/usr/share/doc", "/usr/share/perl", "/usr/lib/python3", "/usr/share"],
           "large": ["/usr/bin", "/usr/lib"]}


@dataclass(frozen=True)
class Tree:
    name: str
    files: int
    size: int
    # The largest file, in mean sizes.
    spread: int

    @property
    def words(self):
        return f"{self.files:,} files, {self.size // 10**6} MB"

    def build(self):
        """Its directory. Another run finds it there."""
        place = ROOT / "target/bench/trees" / self.name
        if not place.exists():
            scratch = place.with_name(f".{self.name}-{os.getpid()}")
            self._fill(scratch)
            scratch.rename(place)
        return place

    def _fill(self, place):
        lengths, pool = self._lengths(), content(SOURCES[self.name])
        for number, length in enumerate(lengths):
            path = place / f"{number % 37}/{number // 37 % 29}/{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pool.take(length))

    def _lengths(self):
        """Many short ones, few long ones."""
        generator, mean = random.Random(self.name), self.size / self.files
        lengths = [int(generator.random() ** (self.spread - 1) * mean * self.spread) for _ in range(self.files)]
        lengths[0] += self.size - sum(lengths)
        return lengths


SMALL = Tree("small", 20_000, 230_000_000, 4)
LARGE = Tree("large", 89, 540_000_000, 3)


class Pool:
    """Files one behind the other."""

    def __init__(self, paths):
        self.paths, self.bytes = paths, bytearray()

    def take(self, length):
        while len(self.bytes) < length:
            path = next(self.paths, None)
            if path is None:
                raise NotMeasured("this machine has too few files to make a tree of")
            try:
                self.bytes += path.read_bytes()
            except OSError:
                continue
        taken = bytes(self.bytes[:length])
        del self.bytes[:length]
        return taken


def content(sources):
    places = [Path(source).expanduser() for source in sources]
    return Pool(path for place in places for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink())
