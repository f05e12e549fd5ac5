"""Rows about masking: what it costs, and that a log is the text with `****` in it."""

import hashlib
import random

from figures import Line
from shop import ROOT, config_of, job
from streams import LOG_BYTES, Streams

LINE, EVERY = 80, 1000
# 100 lines with a secret each; a block's end falls elsewhere at each repetition, often into a secret.
PERIOD = LINE * EVERY * 100
MASK = ROOT / "target/release/examples/mask"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def secrets_of(count):
    """Like tokens. Of the first hundred, each third begins with the end of the one before it."""
    generator = random.Random(count)
    values = []
    for number in range(count):
        fresh = "".join(generator.choices(LETTERS, k=32))
        values.append(values[-1][-8:] + fresh[8:] if number % 3 == 2 else fresh)
    return values


def text_of(secrets):
    """A period of the text, and the same with masks."""
    plain, masked = [], []
    filler = "".join(chr(ord("a") + at % 26) for at in range(LINE))
    for number in range(PERIOD // LINE):
        if number % EVERY:
            line = expected = filler[:LINE - 1]
        else:
            which = number // EVERY % len(secrets)
            overlaps = which % 3 == 2
            value = secrets[which - 1] + secrets[which][8:] if overlaps else secrets[which]
            # Some across the blocks' ends.
            place = number * 7 % (LINE - len(value) - 1)
            rest = filler[place + len(value):LINE - 1]
            line, expected = filler[:place] + value + rest, filler[:place] + "****" + rest
        plain.append(line + "\n")
        masked.append(expected + "\n")
    return "".join(plain).encode(), "".join(masked).encode(), [len(line) for line in masked]


class Masked(Streams):
    """A text with secrets, by navvy and by others; the log must be the one that was computed."""

    def __init__(self, shop, count):
        self.shop, self.size = shop, LOG_BYTES
        secrets = secrets_of(count)
        plain, masked, lengths = text_of(secrets)
        (shop.project / "text").write_bytes(plain)
        self.env = shop.room / f"secrets-{count}.env"
        self.env.write_text("".join(f"SECRET_{at}={value}\n" for at, value in enumerate(secrets)))
        self.words = ["repeat", str(LOG_BYTES), "text"]
        steps = ["checkout", {"run": f"./producer {' '.join(self.words)}"}]
        self.config = shop.config(f"{self.name}-{count}", config_of({"one": job(steps)}))
        self.plain, self.expected = self.digests(plain, masked, lengths)
        self.out = shop.room / f"{self.name}.out"

    @staticmethod
    def digests(plain, masked, lengths):
        """Of the text as it is written, and as it is kept; the end cuts a line without a secret, or is one line's."""
        periods, rest = divmod(LOG_BYTES, len(plain))
        lines, cut = divmod(rest, LINE)
        kept = masked * periods + masked[:sum(lengths[:lines])] + plain[lines * LINE:lines * LINE + cut]
        return (hashlib.sha256(plain * periods + plain[:rest]).hexdigest(), hashlib.sha256(kept).hexdigest())

    def masked(self, *words):
        return self.rate(self.navvy("--quiet", "--env-file", self.env, *words))


class Mask(Masked):
    name, rounds, warm_up = "mask", 5, True
    units = {"navvy": "MB/s", "docker exec > file": "MB/s"}
    lines = [Line("200 MB with 100 secrets into the log, --no-tty", "navvy", "docker exec > file",
                  bound="≥ 1.0 × docker exec … > file", at_least=1.0)]

    def __init__(self, shop):
        super().__init__(shop, 100)
        self.container = shop.standing_container()
        shop.docker("cp", shop.project / "text", f"{self.container}:/text")
        self.sides = [lambda: {"navvy": self.masked("--no-tty")}, self.exec]

    def exec(self):
        command = [self.shop.docker_program, "exec", "-w", "/", self.container, "/producer", *self.words]
        kept, self.expected = self.expected, self.plain
        try:
            return {"docker exec > file": self.rate(self.into_file(command))}
        finally:
            self.expected = kept

    def close(self):
        self.shop.remove(self.container)


class MaskTerminal(Masked):
    name, rounds, warm_up = "mask-terminal", 5, True
    units = {"navvy": "MB/s", "bare pty pair and masker": "MB/s"}
    lines = [Line("the same with the default terminal", "navvy", "bare pty pair and masker",
                  bound="≥ 0.8 × a bare pty pair and the same masker", at_least=0.8)]

    def __init__(self, shop):
        super().__init__(shop, 100)
        self.sides = [lambda: {"navvy": self.masked()}, self.bare]

    def bare(self):
        words = [*self.words[:2], self.shop.project / "text"]
        command = [self.shop.room / "pty_copy", "--into", MASK, self.env, self.shop.producer, *words]
        return {"bare pty pair and masker": self.rate(self.into_file(command))}


class MaskCount:
    name, rounds, warm_up = "mask-count", 5, True
    units = {"1": "MB/s", "100": "MB/s", "1,000": "MB/s"}
    lines = [Line(f"{count} secrets, --no-tty", count, "1", bound="within 20 % of one", at_least=0.8)
             for count in ("100", "1,000")]

    def __init__(self, shop):
        self.sides = [self.side(shop, key) for key in self.units]

    @staticmethod
    def side(shop, key):
        counted = Counted(shop, int(key.replace(",", "")))
        return lambda: {key: counted.measured()}


class Counted(Masked):
    name = "mask-count"

    def __init__(self, shop, count):
        super().__init__(shop, count)
        self.text = (shop.project / "text").read_bytes()

    def measured(self):
        (self.shop.project / "text").write_bytes(self.text)
        return self.masked("--no-tty")
