import os
import unittest

from shop.cart import Cart

CURRENCY = os.environ.get("SHOP_CURRENCY", "eur")


class CartTest(unittest.TestCase):
    def test_an_empty_cart_costs_nothing(self):
        self.assertEqual(Cart(CURRENCY).total().hundredths, 0)

    def test_the_same_thing_twice_costs_twice_as_much(self):
        once, twice = Cart(CURRENCY).add("spade"), Cart(CURRENCY).add("spade").add("spade")
        self.assertEqual(twice.total().hundredths, 2 * once.total().hundredths)

    def test_what_we_do_not_sell_is_named(self):
        with self.assertRaisesRegex(KeyError, "unicorn"):
            Cart(CURRENCY).add("unicorn")

    def test_a_quantity_below_one_is_refused(self):
        with self.assertRaises(ValueError):
            Cart(CURRENCY).add("spade", 0)


if __name__ == "__main__":
    unittest.main()
