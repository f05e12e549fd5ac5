"""Tests that a document names, and that there are none of.

| a document's `code`, or "quoted" | means |
|---|---|
| `neighbours::a_job_cannot…` | a test of that module whose name begins so; without `…`: that is its name |
| `dot_git::tests`, `output::…` | a module with tests |
| `house.rs`, `storage::private` | a file with tests |
| "a link for …" | attacks of `tests/src/hostile.rs` |
"""

import re
from collections import defaultdict

CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[a-z_0-9]+(::[a-z_0-9]+)*::[a-z_0-9]*…?")
FILE = re.compile(r"[a-z_0-9]+\.rs")
QUOTED = re.compile(r'"([^"\n]+)"')
FUNCTION = re.compile(r"\bfn ([a-z_0-9]+)")
ATTACK = re.compile(r'^    "([^"\n]+)": \|it\|', re.M)
COMMENT = re.compile(r"^\s*//.*$", re.M)


class Tests:
    """Every test function by its modules, and every module and file with tests."""

    def __init__(self, root, files):
        self.functions = defaultdict(set)
        self.files = set()
        for file in files:
            text = COMMENT.sub("", file.read_text())
            told = re.search(r"#\[cfg\(test\)\]|#\[(?:tokio::)?test\b|^everywhere! \{|^homes! \{", text, re.M)
            if not told and "tests" not in file.relative_to(root).parts:
                continue
            self.files.add(file.name)
            # What stands behind the first mark of a test is test code.
            names = FUNCTION.findall(text[told.start():] if told else text)
            for module in file.relative_to(root).with_suffix("").parts:
                # A crate's directory may have a dash where its name in Rust has none.
                self.functions[module.replace("-", "_")].update(names)

    def has_path(self, path):
        module, name = path.split("::")[-2:]
        if name == "tests":
            return module in self.functions
        if name == "…":
            return bool(self.functions.get(module))
        known = self.functions.get(module, set())
        if name.endswith("…"):
            return any(function.startswith(name[:-1]) for function in known)
        return name in known or f"{name}.rs" in self.files


def attacks(root):
    return ATTACK.findall((root / "tests/src/hostile.rs").read_text())


def fits(quoted, name):
    return re.fullmatch(".*".join(map(re.escape, quoted.split("…"))), name)


def unknown(document, tests, attacks):
    """What the tables of a document name in their last column, and what does not exist."""
    for line in document.read_text().splitlines():
        if not line.startswith("|") or set(line) <= set("|-: "):
            continue
        cell = line.rstrip().rstrip("|").rsplit("|", 1)[-1]
        for code in CODE.findall(cell):
            if PATH.fullmatch(code) and not tests.has_path(code) or FILE.fullmatch(code) and code not in tests.files:
                yield f"there is no test {code}"
        for quoted in QUOTED.findall(CODE.sub("", cell)):
            if not any(fits(quoted, attack) for attack in attacks):
                yield f"there is no attack {quoted!r} in tests/src/hostile.rs"
