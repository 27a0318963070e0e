"""psycopg 3 with pgvector's register_vector: text and binary, prepared, COPY both ways, transactions, errors."""

import datetime
import decimal
import uuid

import numpy
import psycopg
from pgvector import HalfVector, SparseVector, Vector
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import Jsonb


def ok(what):
    print("ok", what, flush=True)


def fails(sqlstate, connection, sql, *arguments):
    try:
        with connection.transaction():
            connection.execute(sql, *arguments)
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, f"{sql}: {error.sqlstate} {error}"
        return error
    raise AssertionError(f"{sql}: no error")


def connect(**more):
    return psycopg.connect("", **more)


def types(connection):
    values = {
        "i2": -3, "i4": 2**31 - 1, "i8": -(2**63), "f4": 1.5, "f8": 0.1, "n": decimal.Decimal("12.340"),
        "t": "täxt 'quoted' \\ back", "v": "vär", "b": True, "y": b"\x00\xff'", "u": uuid.UUID(int=7),
        "d": datetime.date(2024, 2, 29), "ts": datetime.datetime(2024, 2, 29, 23, 59, 59, 123456),
        "tz": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), "j": {"a": [1, None, "x"]},
    }
    connection.execute("""CREATE TABLE py_types (i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision,
        n numeric, t text, v varchar(9), b boolean, y bytea, u uuid, d date, ts timestamp, tz timestamptz, j jsonb)""")
    connection.execute("SET TIME ZONE 'UTC'")
    for binary in (False, True):
        placeholders = ", ".join(["%b" if binary else "%s"] * len(values))
        row = [Jsonb(value) if name == "j" else value for name, value in values.items()]
        connection.execute(f"INSERT INTO py_types VALUES ({placeholders})", row)
    for binary in (False, True):
        rows = connection.cursor(row_factory=dict_row, binary=binary).execute("SELECT * FROM py_types").fetchall()
        assert rows == [values, values], rows
    connection.execute("TRUNCATE py_types")
    connection.execute("INSERT INTO py_types (i4, t, j, u) VALUES (%s, %s, %s, %s)", [None] * 4)
    assert connection.execute("SELECT i4, t, j, u FROM py_types").fetchone() == (None,) * 4
    ok("types in text and binary")


def vectors(connection):
    connection.execute("CREATE TABLE py_items (id bigserial PRIMARY KEY, label text, embedding vector(3))")
    embeddings = numpy.array([[1, 1, 1], [2, 2, 2], [1, 1, 2]], dtype=numpy.float32)
    for number, embedding in enumerate(embeddings):
        row = connection.execute(
            "INSERT INTO py_items (label, embedding) VALUES (%s, %s) RETURNING id", (f"l{number}", embedding)
        ).fetchone()
        assert row == (number + 1,), row
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        query = numpy.array([1, 1, 1.5], dtype=numpy.float32)
        rows = cursor.execute(
            "SELECT id, embedding, embedding <-> %s AS distance FROM py_items ORDER BY embedding <-> %s LIMIT %s",
            (query, query, 2),
        ).fetchall()
        assert sorted(row[0] for row in rows) == [1, 3], rows
        assert all(isinstance(row[1], numpy.ndarray) and row[1].dtype == numpy.float32 for row in rows)
        assert all(abs(row[2] - 0.5) < 1e-6 for row in rows)
    row = connection.execute("SELECT embedding FROM py_items WHERE id = 2").fetchone()
    assert (row[0] == embeddings[1]).all()
    row = connection.execute("SELECT %s::vector <=> %s", (Vector([1, 0]), Vector([0, 1]))).fetchone()
    assert row == (1.0,)
    ok("register_vector, insert, search")
    for operator, opclass in (("<->", "l2"), ("<=>", "cosine"), ("<#>", "ip"), ("<+>", "l1")):
        connection.execute(f"CREATE INDEX ON py_items USING hnsw (embedding vector_{opclass}_ops)")
        rows = connection.execute(f"SELECT id FROM py_items ORDER BY embedding {operator} '[3,1,2]' LIMIT 5").fetchall()
        assert len(rows) == 3, rows
    ok("an index per metric")
    connection.execute("CREATE TABLE py_halves (id int PRIMARY KEY, h halfvec(3))")
    for number, embedding in enumerate(embeddings):
        connection.execute("INSERT INTO py_halves VALUES (%s, %s)", (number, HalfVector(embedding)))
    for binary in (False, True):
        rows = connection.cursor(binary=binary).execute(
            "SELECT id, h FROM py_halves ORDER BY h <-> %s LIMIT 1", (HalfVector([2, 2, 1.9]),)
        ).fetchall()
        assert rows == [(1, HalfVector([2, 2, 2]))], rows
    ok("halfvec")
    connection.execute("CREATE TABLE py_sparse (id int PRIMARY KEY, s sparsevec(5))")
    sparse = [SparseVector({0: 1.5, 2: 2}, 5), SparseVector({}, 5), SparseVector({4: -1}, 5)]
    for number, embedding in enumerate(sparse):
        placeholder = "%b" if number == 0 else "%s"
        connection.execute(f"INSERT INTO py_sparse VALUES (%s, {placeholder})", (number, embedding))
    for binary in (False, True):
        rows = connection.cursor(binary=binary).execute(
            "SELECT id, s, s <-> %s FROM py_sparse ORDER BY s <-> %s LIMIT 2", (sparse[0], sparse[0])
        ).fetchall()
        assert rows == [(0, sparse[0], 0.0), (1, sparse[1], 2.5)], rows
    fails("22000", connection, "INSERT INTO py_sparse VALUES (9, %s)", (SparseVector({0: 1}, 4),))
    with connection.cursor() as cursor:
        with cursor.copy("COPY py_sparse FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "sparsevec"])
            copy.write_row((7, SparseVector({1: 3}, 5)))
    assert connection.execute("SELECT s FROM py_sparse WHERE id = 7").fetchone() == (SparseVector({1: 3}, 5),)
    ok("sparsevec")


def prepared(connection):
    connection.execute("CREATE TABLE py_prepared (id int PRIMARY KEY, v vector(2))")
    connection.cursor().executemany(
        "INSERT INTO py_prepared VALUES (%s, %s)", [(n, numpy.array([n, 0], dtype=numpy.float32)) for n in range(100)]
    )
    cursor = connection.cursor(binary=True)
    for n in range(20):
        # As ann-benchmarks does: binary, prepared, the limit a parameter.
        rows = cursor.execute(
            "SELECT id FROM py_prepared ORDER BY v <-> %s LIMIT %s",
            (numpy.array([n + 0.1, 0], dtype=numpy.float32), 3), binary=True, prepare=True,
        ).fetchall()
        assert rows[0] == (n,) and len(rows) == 3, rows
    for n in range(10):
        row = connection.execute("SELECT v FROM py_prepared WHERE id = %s", (n,), prepare=True).fetchone()
        assert row[0][0] == n
    assert connection.execute("SELECT 1 WHERE %s = ANY(%s)", (2, [1, 2, 3])).fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM py_prepared WHERE id = ANY(%s)", ([1, 2, 500],)).fetchone() == (2,)
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::int * 2", (n,)) for n in range(50)]
        assert [cursor.fetchone()[0] for cursor in cursors] == [2 * n for n in range(50)]
    ok("prepared statements, executemany, pipeline")


def arrays(connection):
    """psycopg leaves the type of a list of texts open, as it does that of a text."""
    connection.execute("CREATE TABLE py_arrays (id int PRIMARY KEY, tags text[])")
    connection.execute("INSERT INTO py_arrays VALUES (1, %s), (2, %s), (3, NULL)", (["a"], []))
    connection.execute("UPDATE py_arrays SET tags = tags || %s WHERE id = %s", (["k", "l,m"], 1))
    connection.execute("UPDATE py_arrays SET tags = %s || tags WHERE id = 1", (["z"],))
    assert connection.execute("SELECT tags FROM py_arrays WHERE id = 1").fetchone() == (["z", "a", "k", "l,m"],)
    for condition, value, found in [
        ("tags && %s", ["k", "q"], [1]), ("tags @> %s", ["a", "k"], [1]), ("tags <@ %s", ["a"], [2]),
        ("%s = ANY(tags)", "k", [1]), ("tags = coalesce(tags, %s)", ["q"], [1, 2]), ("id = ANY(%s)", [1, 3], [1, 3]),
        ("NOT id = ANY(%s)", [1, 3], [2]), ("coalesce(tags, %s) = '{q}'", ["q"], [3]), ("id::text <> ALL(%s)", ["1"], [2, 3]),
        ("tags[1] LIKE ANY(%s)", ["z%", "x"], [1]), ("array_cat(tags, %s) @> '{q}'", ["q"], [1, 2, 3]),
    ]:
        rows = connection.execute(f"SELECT id FROM py_arrays WHERE {condition} ORDER BY id", (value,))
        assert [row[0] for row in rows] == found, condition
    rows = connection.execute("WITH w AS (SELECT id AS n FROM py_arrays) SELECT n FROM w WHERE n = ANY(%s)", ("{2,9}",))
    assert rows.fetchall() == [(2,)]
    connection.execute("UPDATE py_arrays SET tags = CASE WHEN id = ANY(%s) THEN tags ELSE %s END", ("{1,2}", ["n"]))
    assert connection.execute("SELECT tags FROM py_arrays WHERE id = 3").fetchone() == (["n"],)
    ok("arrays beside parameters")


def copies(connection):
    connection.execute("CREATE TABLE py_copy (id int, note text, embedding vector(3))")
    data = [(n, None if n % 7 == 0 else f"note\t{n}\n\\", numpy.array([n, n / 2, -n], dtype=numpy.float32)) for n in range(1000)]
    for options, binary in (("", False), ("WITH (FORMAT BINARY)", True)):
        connection.execute("TRUNCATE py_copy")
        with connection.cursor().copy(f"COPY py_copy (id, note, embedding) FROM STDIN {options}") as copy:
            if binary:
                copy.set_types(["int4", "text", "vector"])
            for row in data:
                copy.write_row(row)
        assert connection.execute("SELECT count(*) FROM py_copy").fetchone() == (1000,)
        with connection.cursor().copy(f"COPY (SELECT * FROM py_copy ORDER BY id) TO STDOUT {options}") as copy:
            copy.set_types(["int4", "text", "vector"])
            rows = list(copy.rows())
        assert len(rows) == 1000
        for (number, note, embedding), row in zip(data, rows):
            assert row[0] == number and row[1] == note and (row[2] == embedding).all(), row
    connection.execute("TRUNCATE py_copy")
    csv = b'id,note,embedding\n1,"quoted ""text"", with comma","[1,2,3]"\n2,,\n3,"",\n'
    with connection.cursor().copy("COPY py_copy FROM STDIN WITH (FORMAT csv, HEADER true)") as copy:
        copy.write(csv)
    rows = connection.execute("SELECT id, note, embedding IS NULL FROM py_copy ORDER BY id").fetchall()
    assert rows == [(1, 'quoted "text", with comma', False), (2, None, True), (3, "", True)], rows
    with connection.cursor().copy("COPY py_copy TO STDOUT WITH (FORMAT csv, HEADER)") as copy:
        out = b"".join(bytes(block) for block in copy)
    assert out == csv, out
    ok("COPY both ways in text, binary and csv")
    try:
        with connection.transaction(), connection.cursor().copy("COPY py_copy (id, embedding) FROM STDIN") as copy:
            copy.write("10\t[1,2,3]\n11\t[1,2]\n")
    except psycopg.errors.DataException as error:
        assert error.diag.message_primary == "expected 3 dimensions, not 2", error
    else:
        raise AssertionError("a vector of the wrong length was copied")
    try:
        with connection.transaction(), connection.cursor().copy("COPY py_copy (id) FROM STDIN") as copy:
            copy.write("10\n")
            raise RuntimeError("the application gives up")
    except RuntimeError:
        pass
    assert connection.execute("SELECT count(*) FROM py_copy").fetchone() == (3,)
    ok("a COPY that fails has no effect")


def transactions(connection):
    connection.execute("CREATE TABLE py_tx (id int PRIMARY KEY)")
    with connection.transaction():
        connection.execute("INSERT INTO py_tx VALUES (1)")
    try:
        with connection.transaction():
            connection.execute("INSERT INTO py_tx VALUES (2)")
            raise RuntimeError("undo")
    except RuntimeError:
        pass
    assert connection.execute("SELECT id FROM py_tx").fetchall() == [(1,)]
    with connect() as other:
        # The driver's default: a transaction begins with the first statement.
        other.execute("INSERT INTO py_tx VALUES (3)")
        assert connection.execute("SELECT count(*) FROM py_tx").fetchone() == (1,)
        other.commit()
        assert connection.execute("SELECT count(*) FROM py_tx").fetchone() == (2,)
        try:
            other.execute("INSERT INTO py_tx VALUES (3)")
        except psycopg.errors.UniqueViolation:
            assert other.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
            try:
                other.execute("SELECT 1")
            except psycopg.errors.InFailedSqlTransaction:
                other.rollback()
        assert other.execute("SELECT 1").fetchone() == (1,)
    ok("transactions")


def errors(connection):
    connection.execute("CREATE TABLE py_errors (id int PRIMARY KEY, n int NOT NULL, v vector(2))")
    connection.execute("INSERT INTO py_errors VALUES (1, 1, '[1,2]')")
    for sqlstate, sql in (
        ("42P01", "SELECT * FROM nowhere"), ("42703", "SELECT nope FROM py_errors"), ("42601", "SELEC 1"),
        ("42883", "SELECT nope(1)"), ("23505", "INSERT INTO py_errors VALUES (1, 1)"),
        ("23502", "INSERT INTO py_errors VALUES (2, NULL)"), ("22012", "SELECT 1/0"), ("22P02", "SELECT 'x'::int"),
        ("22003", "SELECT 99999::smallint"), ("22000", "INSERT INTO py_errors VALUES (3, 3, '[1,2,3]')"),
        ("22P02", "SELECT '[1,'::vector"), ("42704", "SET nope = 1"), ("42P07", "CREATE TABLE py_errors (a int)"),
    ):
        fails(sqlstate, connection, sql)
    error = fails("42703", connection, "SELECT nope FROM py_errors")
    assert error.diag.statement_position == "8" and error.diag.severity_nonlocalized == "ERROR"
    error = fails("22P02", connection, "SELECT %s::int", ("x",))
    assert isinstance(error, psycopg.errors.InvalidTextRepresentation)
    ok("errors have their SQLSTATE")


def sessions(connection):
    info = connection.info
    assert info.server_version >= 150000, info.server_version
    assert info.encoding == "utf-8"
    assert info.parameter_status("standard_conforming_strings") == "on"
    assert connection.execute("SELECT current_setting('server_version')").fetchone()[0]
    notices = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    connection.execute("DROP TABLE IF EXISTS py_never_was")
    assert notices == ['table "py_never_was" does not exist, skipping'], notices
    row = connection.cursor(row_factory=namedtuple_row).execute("SELECT 1 AS one, 'x' AS two").fetchone()
    assert (row.one, row.two) == (1, "x")
    cursor = connection.execute("SELECT 1; SELECT 2")
    assert cursor.fetchone() == (1,) and cursor.nextset() and cursor.fetchone() == (2,)
    connection.execute("SET statement_timeout = 200")
    fails("57014", connection, "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b")
    connection.execute("RESET statement_timeout")
    rows = 0
    for _ in connection.cursor().stream("SELECT x FROM generate_series(1, 10000) AS s(x)"):
        rows += 1
    assert rows == 10000
    ok("session, notices, timeout, stream")


def cursors(connection):
    """Named cursors, which psycopg declares with parameters, describes as portals, and reads with FETCH."""
    connection.execute("CREATE TABLE py_cursors (n int)")
    connection.execute("INSERT INTO py_cursors SELECT n FROM generate_series(1, 5000) AS s(n)")
    for binary in (False, True):
        with connection.transaction(), connection.cursor("py c", binary=binary) as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT n, 'r' || n::text AS t FROM py_cursors WHERE n > %s ORDER BY n", (10,))
            assert [column.name for column in cursor.description] == ["n", "t"], cursor.description
            assert cursor.fetchone() == (11, "r11")
            assert [row[0] for row in cursor.fetchmany(3)] == [12, 13, 14]
            cursor.scroll(10)
            assert [row[0] for row in cursor] == list(range(25, 5001))
            assert cursor.fetchone() is None
    with connection.cursor("py_held", scrollable=True, withhold=True) as cursor:
        cursor.execute("SELECT n FROM py_cursors ORDER BY n")
        assert cursor.fetchmany(2) == [(1,), (2,)]
        cursor.scroll(4999, mode="absolute")
        assert cursor.fetchone() == (5000,)
        cursor.scroll(-2)
        assert cursor.fetchone() == (4999,)
    fails("34000", connection, "FETCH 1 FROM py_held")
    fails("34000", connection, "FETCH 1 FROM \"py c\"")
    connection.execute("PREPARE py_by_name (int) AS SELECT n FROM py_cursors WHERE n = $1")
    assert connection.execute("EXECUTE py_by_name (7)").fetchone() == (7,)
    connection.execute("DEALLOCATE py_by_name")
    fails("26000", connection, "EXECUTE py_by_name (7)")
    ok("named cursors, PREPARE and EXECUTE")


def clean(connection):
    for name in ("types", "items", "prepared", "arrays", "copy", "tx", "errors", "cursors"):
        connection.execute(f"DROP TABLE IF EXISTS py_{name}")


def main():
    with connect(autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        clean(connection)
        register_vector(connection)
        for step in (types, vectors, prepared, arrays, copies, transactions, errors, sessions, cursors, clean):
            step(connection)
    ok("psycopg " + psycopg.__version__)


if __name__ == "__main__":
    main()
