"""Samples, bounds and the table."""

import statistics

UNITS = {
    "ms": lambda value: f"{value:,.0f} ms" if value >= 20 else f"{value:,.2f} ms",
    "MB/s": lambda value: f"{value:,.0f} MB/s",
    "%": lambda value: f"{value:,.2g} %",
    "MB": lambda value: f"{value:,.1f} MB",
    "/s": lambda value: f"{value:,.0f} /s",
    # A count.
    "": lambda value: f"{value:,.0f}",
}


class Series:
    """What one side gave, round after round."""

    def __init__(self, unit):
        self.unit = unit
        self.samples = []

    @property
    def median(self):
        return statistics.median(self.samples)

    def words(self):
        show = UNITS[self.unit]
        if len(self.samples) == 1 or min(self.samples) == max(self.samples):
            return show(self.median)
        low, high = (show(value).rsplit(" ", 1)[0] for value in (min(self.samples), max(self.samples)))
        return f"{show(self.median)} ({low}–{high})"


class Line:
    """One line of the table: our figure, whose it is held against, and the bound of the issue."""

    def __init__(self, title, ours, theirs=None, *, bound="", factor=None, at_most=None, at_least=None, as_fast=False):
        self.title, self.ours, self.theirs, self.bound = title, ours, theirs, bound
        # What `theirs` is multiplied with before it is compared: two at once, say.
        self.factor = factor or 1
        self.at_most, self.at_least = at_most, at_least
        # Of times: how many times as fast ours is.
        self.as_fast = as_fast

    def measured(self, series):
        ours = series[self.ours].median
        if self.as_fast:
            return series[self.theirs].median * self.factor / ours
        return ours / (series[self.theirs].median * self.factor) if self.theirs else ours

    def met(self, series):
        measured = self.measured(series)
        return ((self.at_most is None or measured <= self.at_most)
                and (self.at_least is None or measured >= self.at_least))

    def cells(self, series):
        measured = self.measured(series)
        words = f"× {measured:.2f}" if self.theirs else UNITS[series[self.ours].unit](measured)
        theirs = f"{self.theirs} {series[self.theirs].words()}" if self.theirs else "–"
        verdict = ("met" if self.met(series) else "**short**") if self.bound else "–"
        return [self.title, series[self.ours].words(), theirs, self.bound or "–", words, verdict]


HEAD = ["figure", "navvy", "against", "bound", "measured", ""]


def table(rows, head=None):
    """Markdown that reads well as it is."""
    rows = [head or HEAD, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
