"""asyncpg, which speaks binary only and reads the catalogs for every type it does not know, with pgvector."""

import asyncio
import datetime
import decimal
import json
import os
import ssl
import uuid

import asyncpg
import numpy
from pgvector.asyncpg import register_vector


def ok(what):
    print("ok", what, flush=True)


async def connect():
    # asyncpg reads PGSSLMODE and PGSSLROOTCERT itself, but only newer versions for every mode.
    authority = os.environ.get("PGSSLROOTCERT")
    context = ssl.create_default_context(cafile=authority) if authority else False
    return await asyncpg.connect(ssl=context)


async def fails(sqlstate, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        assert error.sqlstate == sqlstate, f"{error.sqlstate} {error}"
        return error
    raise AssertionError(f"no {sqlstate}")


async def types(connection):
    await connection.execute("""CREATE TABLE ap_types (i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision,
        n numeric, t text, v varchar(9), b boolean, y bytea, u uuid, d date, ts timestamp, tz timestamptz, j jsonb)""")
    values = [
        -3, 2**31 - 1, -(2**63), 1.5, 0.1, decimal.Decimal("12.340"), "täxt", "vär", True, b"\x00\xff",
        uuid.UUID(int=7), datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
        datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), json.dumps({"a": [1, None]}),
    ]
    places = ", ".join(f"${n + 1}" for n in range(len(values)))
    await connection.execute(f"INSERT INTO ap_types VALUES ({places})", *values)
    row = await connection.fetchrow("SELECT * FROM ap_types")
    assert list(row.values())[:-1] == values[:-1], row
    assert json.loads(row["j"]) == {"a": [1, None]}
    await connection.execute("INSERT INTO ap_types (i4, t, u) VALUES ($1, $2, $3)", None, None, None)
    assert await connection.fetchval("SELECT count(*) FROM ap_types WHERE t IS NULL") == 1
    ok("types in binary")


def as_array(value):
    """pgvector-python returns arrays before 0.5 and Vector objects since."""
    return value.to_numpy() if hasattr(value, "to_numpy") else numpy.asarray(value)


async def vectors(connection):
    await connection.execute("CREATE TABLE ap_items (id bigserial PRIMARY KEY, label text, embedding vector(3))")
    embeddings = [numpy.array(v, dtype=numpy.float32) for v in ([1, 1, 1], [2, 2, 2], [1, 1, 2])]
    await connection.executemany("INSERT INTO ap_items (label, embedding) VALUES ($1, $2)",
                                 [(f"l{n}", e) for n, e in enumerate(embeddings)])
    query = numpy.array([1, 1, 1.2], dtype=numpy.float32)
    rows = await connection.fetch("SELECT id, embedding FROM ap_items ORDER BY embedding <-> $1 LIMIT $2", query, 2)
    assert [row["id"] for row in rows] == [1, 3], rows
    assert (as_array(rows[0]["embedding"]) == embeddings[0]).all()
    distance = await connection.fetchval("SELECT embedding <=> $1 FROM ap_items WHERE id = 2", embeddings[0])
    assert abs(distance) < 1e-6
    ok("register_vector, insert, search")
    records = [(n, f"r{n}", numpy.array([n, 0, 1], dtype=numpy.float32)) for n in range(100, 1100)]
    tag = await connection.copy_records_to_table("ap_items", records=records, columns=["id", "label", "embedding"])
    assert tag == "COPY 1000", tag
    assert await connection.fetchval("SELECT count(*) FROM ap_items") == 1003
    await connection.execute("CREATE INDEX ON ap_items USING hnsw (embedding vector_l2_ops)")
    rows = await connection.fetch("SELECT id FROM ap_items ORDER BY embedding <-> $1 LIMIT 5", records[500][2])
    assert rows[0]["id"] == 600 and len(rows) == 5
    ok("copy_records_to_table, index")


async def statements(connection):
    statement = await connection.prepare("SELECT id FROM ap_items WHERE label = $1 ORDER BY embedding <-> $2 LIMIT $3")
    assert [parameter.name for parameter in statement.get_parameters()] == ["text", "vector", "int8"]
    assert [attribute.name for attribute in statement.get_attributes()] == ["id"]
    for n in (150, 250):
        assert await statement.fetchval(f"r{n}", numpy.zeros(3, dtype=numpy.float32), 1) == n
    assert await connection.fetch("SELECT id FROM ap_items WHERE id = ANY($1::int8[]) ORDER BY id", [2, 1, 9999]) == [(1,), (2,)]
    async with connection.transaction():
        seen = 0
        async for row in connection.cursor("SELECT id FROM ap_items ORDER BY id", prefetch=100):
            seen += 1
        assert seen == 1003
        cursor = await connection.cursor("SELECT id FROM ap_items ORDER BY id")
        assert len(await cursor.fetch(10)) == 10 and (await cursor.fetchrow())["id"] > 3
        # MOVE of a portal, before it has run and after.
        cursor = await connection.cursor("SELECT id FROM ap_items WHERE id > $1 ORDER BY id", 100)
        assert await cursor.forward(10) == 10
        assert [row["id"] for row in await cursor.fetch(2)] == [111, 112]
        assert await cursor.forward(10) == 10 and (await cursor.fetchrow())["id"] == 123
        assert await cursor.forward(5000) < 1003 and await cursor.fetchrow() is None
    ok("prepared statements, cursors")


async def transactions(connection):
    await connection.execute("CREATE TABLE ap_tx (id int PRIMARY KEY)")
    async with connection.transaction():
        await connection.execute("INSERT INTO ap_tx VALUES (1)")
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO ap_tx VALUES (2)")
            raise RuntimeError("undo")
    except RuntimeError:
        pass
    assert await connection.fetchval("SELECT count(*) FROM ap_tx") == 1
    await fails("23505", connection.execute("INSERT INTO ap_tx VALUES (1)"))
    error = await fails("42703", connection.execute("SELECT nope FROM ap_tx"))
    assert error.position == "8"
    await fails("22000", connection.execute("INSERT INTO ap_items (embedding) VALUES ('[1,2]')"))
    await fails("22P02", connection.fetch("SELECT '[1,x]'::vector"))
    try:
        await connection.fetch("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b", timeout=0.3)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("a timeout cancels the statement")
    assert await connection.fetchval("SELECT 1") == 1
    ok("transactions, errors, timeout")


async def pool():
    authority = os.environ.get("PGSSLROOTCERT")
    context = ssl.create_default_context(cafile=authority) if authority else False
    # A pool resets each connection when it comes back: RESET ALL, UNLISTEN *, CLOSE ALL, advisory unlock.
    async with asyncpg.create_pool(min_size=2, max_size=4, init=register_vector, ssl=context) as connections:
        async def one(n):
            async with connections.acquire() as connection:
                await connection.execute(f"SET application_name = 'p{n}'")
                return await connection.fetchval("SELECT $1::int + 1", n)

        assert await asyncio.gather(*(one(n) for n in range(20))) == list(range(1, 21))
        async with connections.acquire() as connection:
            assert not (await connection.fetchval("SHOW application_name")).startswith("p")
    ok("pool")


async def clean(connection):
    for name in ("types", "items", "tx"):
        await connection.execute(f"DROP TABLE IF EXISTS ap_{name}")


async def main():
    connection = await connect()
    await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    await clean(connection)
    await register_vector(connection)
    for step in (types, vectors, statements, transactions):
        await step(connection)
    await pool()
    await clean(connection)
    await connection.close()
    ok("asyncpg " + asyncpg.__version__)


if __name__ == "__main__":
    asyncio.run(main())
