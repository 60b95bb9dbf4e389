"""What the Python programs share: they print facts, one a line, and the test compares."""

import os
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

ENV = os.environ
REGIONS = "SELECT code, name FROM regions ORDER BY code"
MASKED = "SELECT email, card FROM customers WHERE id = 900001"
NULLS = "SELECT card, country FROM customers WHERE id = 900002"
REFUSED = "SELECT salary FROM hr.salaries"
FAILS = "SELECT 1 / (id - id) FROM orders WHERE id = 1"
ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000)"
ALL_ORDERS = "SELECT id FROM orders ORDER BY id"

# The first row of the shop's table "things"; in the second everything is NULL, of which
# what is redacted does not tell.
THINGS = {
    "mood": "glad", "cents": 250, "flag": True, "big": 1 << 40, "small": -7, "ratio": 0.25,
    "price": Decimal("12.50"), "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "day": date(2026, 1, 2),
    "span": timedelta(days=1, hours=2), "doc": {"a": [1, 2]}, "key": UUID("6f1c6a0e-0f4b-4c53-9c1e-3f8f6a3a2b11"),
    "raw": b"\x00\x01\xff", "tags": ["a", 'b"c', None], "secret": "***", "salary": None,
}
NOTHING = dict.fromkeys(THINGS) | {"secret": "***"}
COLUMNS = ", ".join(THINGS)


def fact(name, value):
    print(f"{name}\t{value}", flush=True)


def regions(rows):
    fact("simple", " ".join(f"{code}={name}" for code, name in rows))


def wrong_ca(connect):
    """connect takes the file of a CA that did not sign the node's certificate."""
    try:
        connect(ENV["WRONG_CA"])
    except Exception as e:
        fact("wrong-ca", "refused" if "certificate" in str(e).lower() else repr(e))
    else:
        fact("wrong-ca", "connected")


def refused(state, message, detail, hint):
    for name, value in (("state", state), ("message", message), ("detail", detail), ("hint", hint)):
        fact("refused." + name, value)


def things(name, row, want):
    """Tell which columns of a row are not what they should be."""
    wrong = [f"{column} is {value!r}" for (column, value) in row.items() if not same(value, want[column])]
    fact(name, "; ".join(wrong) or f"{len(row)} equal")


def same(value, want):
    if isinstance(value, memoryview):
        value = bytes(value)
    return type(value) is type(want) and value == want


def change_policy():
    """Ask the test for a change of policy, and wait until it is in force."""
    print("change-policy\t", flush=True)
    if not sys.stdin.readline():
        sys.exit("the test has gone")
