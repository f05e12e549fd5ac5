"""Many customers, each with a cart that follows from the customer's number: the same result on every run."""

import argparse
import random

from shop.cart import PRICES, Cart


def customer(number):
    choose = random.Random(number)
    cart = Cart("eur")
    for _ in range(choose.randint(1, 5)):
        cart.add(choose.choice(sorted(PRICES)), choose.randint(1, 3))
    return cart


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--customers", type=int, required=True)
    arguments.add_argument("--share", default="0/1", help="INDEX/TOTAL: only this share of the customers")
    arguments = arguments.parse_args()
    index, total = map(int, arguments.share.split("/"))

    ours = range(index, arguments.customers, total)
    revenue = sum(customer(number).total().hundredths for number in ours)
    print(f"{len(ours)} customers of {arguments.customers} spent {revenue / 100:.2f}")


if __name__ == "__main__":
    main()
