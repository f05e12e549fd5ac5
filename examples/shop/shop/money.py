"""Money: hundredths and a currency, never a float."""

from dataclasses import dataclass

# How many digits follow the point when an amount is written.
DIGITS = {"eur": 2, "usd": 2, "jpy": 0}


@dataclass(frozen=True)
class Money:
    hundredths: int
    currency: str

    def __post_init__(self):
        if self.currency not in DIGITS:
            raise ValueError(f"unknown currency {self.currency!r}")

    def __str__(self):
        whole, rest = divmod(self.hundredths, 100)
        if DIGITS[self.currency] == 0:
            return str(whole + (rest >= 50))
        return f"{whole}.{rest:02}"
