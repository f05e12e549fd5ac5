"""A cart: what a customer wants, and what it costs."""

from shop.money import Money

PRICES = {"barrow": 8900, "lantern": 1575, "spade": 2450}


class Cart:
    def __init__(self, currency):
        self.currency = currency
        self.lines = {}

    def add(self, name, quantity=1):
        if name not in PRICES:
            raise KeyError(f"we do not sell {name!r}")
        if quantity < 1:
            raise ValueError(f"quantity must be at least 1, not {quantity}")
        self.lines[name] = self.lines.get(name, 0) + quantity
        return self

    def total(self):
        return Money(sum(PRICES[name] * quantity for name, quantity in self.lines.items()), self.currency)
