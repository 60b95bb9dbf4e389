import asyncio
import json
import ssl

import asyncpg
from facts import *

ONE = "SELECT email FROM customers WHERE id = $1"


def tls(ca):
    return ssl.create_default_context(cafile=ca)


async def connect(**more):
    return await asyncpg.connect(host=ENV["PGHOST"], ssl=tls(ENV["PGSSLROOTCERT"]), **more)


async def report():
    try:
        await asyncpg.connect(host=ENV["PGHOST"], ssl=tls(ENV["WRONG_CA"]))
    except ssl.SSLCertVerificationError:
        fact("wrong-ca", "refused")
    c = await connect()
    regions(await c.fetch(REGIONS))

    statement = await c.prepare("SELECT id FROM orders WHERE id = $1")
    ids = [await statement.fetchval(i) for i in range(1, 21)]
    fact("prepared", f"{len(ids)} rows, {sum(ids)}")
    fact("parameters", await c.fetchval(
        "SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2::text IS NULL OR status = $2)", [1, 2, 3], None))

    # Without parameters, and in one message, the server answers in text; else in binary.
    await c.execute(MASKED)
    fact("masked.binary", " ".join(await c.fetchrow(MASKED)))
    fact("nulls", tuple(await c.fetchrow(NULLS)))

    async with c.transaction():
        n = 0
        async for _ in c.cursor(ALL_ORDERS, prefetch=50):
            n += 1
        fact("stream", n)
    copied = []

    async def lines(b):
        copied.extend(b.split())

    await c.copy_from_query(ALL_ORDERS, output=lines)
    fact("copy", len(copied))

    transaction = c.transaction()
    await transaction.start()
    await c.execute("SELECT 1")
    try:
        await c.fetch(REFUSED)
    except asyncpg.InsufficientPrivilegeError as e:
        refused(e.sqlstate, e.message, e.detail, e.hint)
    try:
        await c.fetch("SELECT 1")
    except asyncpg.PostgresError as e:
        fact("failed-transaction", e.sqlstate)
    await transaction.rollback()
    fact("after-rollback", await c.fetchval("SELECT count(*) FROM regions"))
    try:
        await c.fetch(FAILS)
    except asyncpg.PostgresError as e:
        fact("server-error", e.sqlstate)

    # The driver sends a cancel request when time is over; the connection stays good.
    try:
        await c.fetchval(ENDLESS, timeout=0.3)
    except asyncio.TimeoutError:
        fact("cancelled", await c.fetchval("SELECT 'on time'"))

    await c.fetchval(ONE, 900001)
    change_policy()
    fact("changed", await c.fetchval(ONE, 900001))  # the driver prepares it again
    await c.close()


async def shop():
    pool = await asyncpg.create_pool(
        host=ENV["PGHOST"], ssl=tls(ENV["PGSSLROOTCERT"]), user=ENV["SHOP_USER"], database="shop", min_size=1, max_size=2)
    for i in range(3):  # each return to the pool resets the session
        async with pool.acquire() as c:
            await c.execute("SET statement_timeout = 5000")
    async with pool.acquire() as c:
        fact("pool", await c.fetchval("SHOW statement_timeout"))
        await c.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        for name, i, want in (("types.binary", 1, THINGS), ("types.null.binary", 2, NOTHING)):
            row = dict(await c.fetchrow(f"SELECT {COLUMNS} FROM things WHERE id = $1", i))
            things(name, {k: str(v) if k == "key" and v else v for k, v in row.items()},
                   {k: str(v) if k == "key" and v else v for k, v in want.items()})
        fact("enums", await c.fetchval("SELECT moods FROM things WHERE id = 1"))

        rows = [("asyncpg", n, f"note {n}") for n in range(10)]
        insert = "INSERT INTO notes (driver, n, body) VALUES ($1, $2, $3)"
        transaction = c.transaction()
        await transaction.start()
        await c.executemany(insert, rows)
        inserted = await c.fetchval("SELECT count(*) FROM notes WHERE driver = 'asyncpg'")
        await transaction.rollback()
        await c.copy_records_to_table("notes", records=rows, columns=["driver", "n", "body"])
        updated = await c.fetch("UPDATE notes SET body = $1 WHERE driver = $2 AND n < 5 RETURNING n", None, "asyncpg")
        deleted = await c.execute("DELETE FROM notes WHERE driver = 'asyncpg'")
        fact("write", f"{inserted} {len(updated)} {deleted.removeprefix('DELETE ')}")
        async with c.transaction(isolation="serializable", readonly=True):
            fact("isolation", await c.fetchval("SHOW transaction_isolation"))
    await pool.close()


asyncio.run(report())
asyncio.run(shop())
