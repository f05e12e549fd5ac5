import os
import unittest

from shop.money import Money

CURRENCY = os.environ.get("SHOP_CURRENCY", "eur")
WRITTEN = {"eur": "24.50", "usd": "24.50", "jpy": "25"}


class MoneyTest(unittest.TestCase):
    def test_it_is_written_as_its_currency_is(self):
        self.assertEqual(str(Money(2450, CURRENCY)), WRITTEN[CURRENCY])

    def test_an_unknown_currency_is_refused(self):
        with self.assertRaisesRegex(ValueError, "shells"):
            Money(1, "shells")


if __name__ == "__main__":
    unittest.main()
