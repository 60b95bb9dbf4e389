import threading

import psycopg2
import psycopg2.extras
from facts import *

ONE = "SELECT email FROM customers WHERE id = %s"


def cancel_soon(connection):
    timer = threading.Timer(0.3, connection.cancel)
    timer.start()
    return timer


def report():
    wrong_ca(lambda ca: psycopg2.connect("", sslrootcert=ca))
    c = psycopg2.connect("")
    cur = c.cursor()
    cur.execute(REGIONS)
    regions(cur.fetchall())

    ids = []
    for i in range(1, 21):
        cur.execute("SELECT id FROM orders WHERE id = %s", (i,))
        ids += cur.fetchone()
    fact("prepared", f"{len(ids)} rows, {sum(ids)}")
    cur.execute(
        "SELECT count(*) FROM orders WHERE id = ANY(%s) AND (%s::text IS NULL OR status = %s)", ([1, 2, 3], None, None)
    )
    fact("parameters", cur.fetchone()[0])

    cur.execute(MASKED)
    fact("masked.text", " ".join(cur.fetchone()))
    cur.execute(NULLS)
    fact("nulls", cur.fetchone())

    named = c.cursor("every order")
    named.itersize = 50
    named.execute(ALL_ORDERS)
    fact("stream", sum(1 for _ in named))
    named.close()
    copied = []

    class Lines:
        def write(self, b):
            copied.extend(b.split())

    cur.copy_expert(f"COPY ({ALL_ORDERS}) TO STDOUT", Lines())
    fact("copy", len(copied))
    c.commit()

    cur.execute("SELECT 1")
    try:
        cur.execute(REFUSED)
    except psycopg2.errors.InsufficientPrivilege as e:
        refused(e.pgcode, e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)
    try:
        cur.execute("SELECT 1")
    except psycopg2.Error as e:
        fact("failed-transaction", e.pgcode)
    c.rollback()
    cur.execute("SELECT count(*) FROM regions")
    fact("after-rollback", cur.fetchone()[0])
    try:
        cur.execute(FAILS)
    except psycopg2.Error as e:
        fact("server-error", e.pgcode)
    c.rollback()

    timer = cancel_soon(c)
    try:
        cur.execute(ENDLESS)
    except psycopg2.Error as e:
        fact("cancelled", e.pgcode)
    timer.join()
    c.rollback()

    c.autocommit = True
    cur.execute(ONE, (900001,))
    change_policy()
    cur.execute(ONE, (900001,))
    fact("changed", cur.fetchone()[0])
    c.close()


def shop():
    c = psycopg2.connect("", user=ENV["SHOP_USER"], dbname="shop")
    psycopg2.extras.register_uuid()
    cur = c.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    for name, i, want in (("types", 1, THINGS), ("types.null", 2, NOTHING)):
        cur.execute(f"SELECT {COLUMNS} FROM things WHERE id = %s", (i,))
        things(name, cur.fetchone(), want)

    cur = c.cursor()
    rows = [("psycopg2", n, f"note {n}") for n in range(10)]
    psycopg2.extras.execute_values(cur, "INSERT INTO notes (driver, n, body) VALUES %s", rows)
    inserted = cur.rowcount
    c.rollback()
    psycopg2.extras.execute_batch(cur, "INSERT INTO notes (driver, n, body) VALUES (%s, %s, %s)", rows)
    c.commit()
    cur.execute("UPDATE notes SET body = %s WHERE driver = %s AND n < 5 RETURNING n", (None, "psycopg2"))
    updated = len(cur.fetchall())
    cur.execute("DELETE FROM notes WHERE driver = 'psycopg2'")
    fact("write", f"{inserted} {updated} {cur.rowcount}")
    c.commit()

    c.set_session(isolation_level="SERIALIZABLE", readonly=True)
    cur.execute("SHOW transaction_isolation")
    fact("isolation", cur.fetchone()[0])
    c.close()


report()
shop()
