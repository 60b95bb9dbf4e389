import threading

import psycopg
from facts import *
from psycopg.rows import dict_row
from psycopg.types.enum import EnumInfo

ONE = "SELECT email FROM customers WHERE id = %s"


def report():
    wrong_ca(lambda ca: psycopg.connect("", sslrootcert=ca))
    c = psycopg.connect("")
    regions(c.execute(REGIONS).fetchall())

    ids = []
    for i in range(1, 21):  # prepared by the driver from the sixth on
        ids += c.execute("SELECT id FROM orders WHERE id = %s", (i,)).fetchone()
    fact("prepared", f"{len(ids)} rows, {sum(ids)}")
    cur = c.execute(
        "SELECT count(*) FROM orders WHERE id = ANY(%s) AND (%s::text IS NULL OR status = %s)", ([1, 2, 3], None, None)
    )
    fact("parameters", cur.fetchone()[0])

    fact("masked.text", " ".join(c.execute(MASKED).fetchone()))
    binary = c.cursor(binary=True)
    fact("masked.binary", " ".join(binary.execute(MASKED).fetchone()))
    fact("nulls", binary.execute(NULLS).fetchone())

    with c.cursor("every order") as named:
        named.itersize = 50
        fact("stream", sum(1 for _ in named.execute(ALL_ORDERS)))
    fact("stream.single-row", sum(1 for _ in c.cursor().stream(ALL_ORDERS)))
    with c.cursor().copy(f"COPY ({ALL_ORDERS}) TO STDOUT") as copy:
        fact("copy", sum(1 for _ in copy.rows()))
    with c.cursor().copy(f"COPY ({ALL_ORDERS}) TO STDOUT (FORMAT BINARY)") as copy:
        copy.set_types(["int4"])
        rows = list(copy.rows())
        fact("copy.binary", f"{len(rows)} {rows[0]}")
    c.commit()

    c.execute("SELECT 1")
    try:
        c.execute(REFUSED)
    except psycopg.errors.InsufficientPrivilege as e:
        refused(e.sqlstate, e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)
    try:
        c.execute("SELECT 1")
    except psycopg.Error as e:
        fact("failed-transaction", e.sqlstate)
    c.rollback()
    fact("after-rollback", c.execute("SELECT count(*) FROM regions").fetchone()[0])
    try:
        with c.transaction():  # a savepoint, because a transaction is open
            c.execute(FAILS)
    except psycopg.Error as e:
        fact("server-error", e.sqlstate)
    fact("after-savepoint", c.execute("SELECT count(*) FROM regions").fetchone()[0])
    try:
        with c.transaction():
            c.execute(REFUSED)
    except psycopg.Error as e:
        fact("refused-in-savepoint", e.sqlstate)
    fact("after-refused-savepoint", c.execute("SELECT count(*) FROM regions").fetchone()[0])

    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    try:
        c.execute(ENDLESS)
    except psycopg.Error as e:
        fact("cancelled", e.sqlstate)
    timer.join()
    c.rollback()

    with c.pipeline():
        cursors = [c.execute("SELECT id FROM orders WHERE id = %s", (i,)) for i in range(1, 21)]
    fact("pipeline", sum(cur.fetchone()[0] for cur in cursors))
    try:
        with c.pipeline():
            for text in ("SELECT 1", REFUSED, "SELECT 2"):
                c.execute(text)
    except psycopg.Error as e:
        fact("pipeline.refused", e.sqlstate)
    c.rollback()

    changed(c)
    c.close()


def changed(c):
    """As with a table whose columns changed: an error that ROLLBACK cures."""
    c.autocommit = False
    for _ in range(8):
        c.execute(ONE, (900001,))
    c.commit()
    change_policy()
    try:
        c.execute(ONE, (900001,))
    except psycopg.errors.FeatureNotSupported as e:
        fact("changed.error", f"{e.sqlstate} {e.diag.message_primary}")
    c.rollback()
    fact("changed", c.execute(ONE, (900001,)).fetchone()[0])


def shop():
    c = psycopg.connect("", user=ENV["SHOP_USER"], dbname="shop")
    info = EnumInfo.fetch(c, "mood")
    fact("enum", " ".join(info.labels))
    for format in ("", ".binary"):
        cur = c.cursor(row_factory=dict_row, binary=bool(format))
        # The driver leaves an enum that it was not told of as it comes.
        first = THINGS | ({"mood": b"glad"} if format else {})
        for name, i, want in (("types", 1, first), ("types.null", 2, NOTHING)):
            things(name + format, cur.execute(f"SELECT {COLUMNS} FROM things WHERE id = %s", (i,)).fetchone(), want)

    cur = c.cursor()
    rows = [("psycopg", n, f"note {n}") for n in range(10)]
    insert = "INSERT INTO notes (driver, n, body) VALUES (%s, %s, %s)"
    cur.executemany(insert, rows)
    inserted = cur.rowcount
    c.rollback()
    with cur.copy("COPY notes (driver, n, body) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    c.commit()
    cur.execute("UPDATE notes SET body = %s WHERE driver = %s AND n < 5 RETURNING n", (None, "psycopg"))
    updated = len(cur.fetchall())
    cur.execute("DELETE FROM notes WHERE driver = 'psycopg'")
    fact("write", f"{inserted} {updated} {cur.rowcount}")
    c.commit()
    c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    c.read_only = True
    fact("isolation", c.execute("SHOW transaction_isolation").fetchone()[0])
    c.close()


report()
shop()
