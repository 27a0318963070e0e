#!/usr/bin/env python3
"""Sepal and a plain PostgreSQL side by side over the wire, as stores of rows: COPY BINARY, commits per second, TPC-B.

See README.md. Both with fsync on and their data on the same disk; nothing is left running.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile

import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
POSTGRES = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1:]

# pgbench's own script ("TPC-B (sort of)") without the random placement of rows that only fills tables.
TPCB = """\\set aid random(1, 100000 * :scale)
\\set bid random(1, 1 * :scale)
\\set tid random(1, 10 * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""


class PostgreSQL(servers.PgVector):
    name = "PostgreSQL"
    setup, settled = [], []

    def launch(self, binaries, work, transport):
        # The same launch; `vector` need not be there.
        try:
            super().launch(binaries, work, transport)
        except RuntimeError:
            pass
        self.version = f"PostgreSQL {self.value('SHOW server_version')}"


def arguments():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000, help="of the COPY")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--scale", type=int, default=1, help="of TPC-B: branches, on each of which all its clients meet")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sepal", type=pathlib.Path, default=target / "sepal")
    parser.add_argument("--wire-load", type=pathlib.Path, default=target / "wire_load")
    parser.add_argument("--postgres", type=pathlib.Path, default=POSTGRES[0] if POSTGRES else None,
                        help="the folder with initdb, postgres and pgbench")
    parser.add_argument("--only", choices=("copy", "insert", "tpcb"))
    parser.add_argument("--work", type=pathlib.Path, help="an empty directory on the disk to measure")
    return parser.parse_args()


def pgcopy(path, rows):
    """id int8, kind text, amount float8, at timestamptz, body text: about 150 bytes a row."""
    with open(path, "wb") as out:
        out.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
        for number in range(rows):
            kind = (b"order", b"refund", b"shipment", b"note")[number % 4]
            body = f"row {number} {number * 2654435761 % 2**32:08x} ".encode() * 5
            out.write(struct.pack("!hiqi", 5, 8, number, len(kind)) + kind)
            out.write(struct.pack("!idiq", 8, number * 0.25, 8, 800_000_000_000_000 + number * 1_000_000))
            out.write(struct.pack("!i", len(body)) + body)
        out.write(struct.pack("!h", -1))


class Bench:
    def __init__(self, options, server):
        self.options, self.server = options, server

    def environment(self):
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | self.server.variables

    def load(self, mode, **flags):
        command = [self.options.wire_load, mode]
        for name, value in flags.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.server.name}: wire_load {mode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def sql(self, text):
        return self.load("run", sql=text)

    def copy(self, keyed, path):
        """Seconds of one COPY into a new table."""
        self.sql("DROP TABLE IF EXISTS loaded")
        key = " PRIMARY KEY" if keyed else ""
        self.sql(f"CREATE TABLE loaded (id bigint{key}, kind text, amount float8, at timestamptz, body text)")
        return self.load("copy", sql="COPY loaded FROM STDIN (FORMAT binary)", file=path)["seconds"]

    def inserts(self, clients):
        """Committed single-row INSERTs a second."""
        self.sql("DROP TABLE IF EXISTS events")
        self.sql("CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text, body text)")
        sql = "INSERT INTO events (kind, body) VALUES ('order', 'somebody bought something, and this is what we know of it')"
        report = self.load("ping", sql=sql, clients=clients, seconds=self.options.seconds)
        return report["per_second"], report["p99_us"]

    def prepare_tpcb(self):
        for table in ("accounts", "branches", "tellers", "history"):
            self.sql(f"DROP TABLE IF EXISTS pgbench_{table}")
        scale = self.options.scale
        self.sql("CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler text)")
        self.sql("CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler text)")
        self.sql("CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler text)")
        self.sql("CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler text)")
        self.sql(f"INSERT INTO pgbench_branches SELECT g, 0, '' FROM generate_series(1, {scale}) g")
        self.sql(f"INSERT INTO pgbench_tellers SELECT g, 1, 0, '' FROM generate_series(1, {10 * scale}) g")
        self.sql(f"INSERT INTO pgbench_accounts SELECT g, 1, 0, repeat('x', 84) FROM generate_series(1, {100_000 * scale}) g")

    def tpcb(self, script):
        command = [self.options.postgres / "pgbench", "-n", "-f", script, "-c", str(self.options.clients), "-j", "2",
                   "-T", str(self.options.seconds), "-D", f"scale={self.options.scale}", "-M", "prepared"]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True)
        rate = re.search(r"tps = ([0-9.]+)", done.stdout)
        failed = re.search(r"failed transactions: (\d+)", done.stdout)
        if done.returncode or not rate:
            raise RuntimeError(f"{self.server.name}: pgbench: {done.stderr.strip()[-600:]}")
        return float(rate.group(1)), int(failed.group(1)) if failed else 0


def line(label, unit, ours, theirs, better, bar):
    ratio = ours / theirs
    print(f"{label:44}{unit:>7}{ours:>12,.2f}{theirs:>12,.2f}{ratio:>8.2f}   {better} {bar}", flush=True)


def in_turns(options, benches, measure):
    """The median of each server's figures, the servers taking turns."""
    found = [[] for _ in benches]
    for _ in range(options.repeat):
        for bench, list_ in zip(benches, found):
            list_.append(measure(bench))
    return [statistics.median(list_) for list_ in found]


def main():
    options = arguments()
    if options.postgres is None:
        sys.exit("no PostgreSQL in /usr/lib/postgresql: give --postgres DIR")
    with contextlib.ExitStack() as stack:
        work = options.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sepal-engine-")))
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o711)
        benches = []
        for server, binary in ((servers.Sepal(), options.sepal), (PostgreSQL(), options.postgres)):
            stack.callback(server.stop)
            server.launch(binary, work, "plain")
            print(f"{server.name}: {server.version}", file=sys.stderr)
            benches.append(Bench(options, server))
        print(f"{'':44}{'':>7}{'Sepal':>12}{'PostgreSQL':>12}{'ratio':>8}   bar (of the ratio)")
        if options.only in (None, "copy"):
            path = work / "rows.pgcopy"
            pgcopy(path, options.rows)
            for keyed in (False, True):
                ours, theirs = in_turns(options, benches, lambda bench: bench.copy(keyed, path))
                what = f"COPY BINARY, {options.rows:,} rows{', primary key' if keyed else ''}"
                line(what, "s", ours, theirs, "<=", 1.5)
        if options.only in (None, "insert"):
            for clients in (1, 8, options.clients):
                ours, theirs = in_turns(options, benches, lambda bench: bench.inserts(clients)[0])
                line(f"INSERT of a row, {clients} sessions", "/s", ours, theirs, ">=", 1 if clients == options.clients else "-")
        if options.only in (None, "tpcb"):
            script = work / "tpcb.sql"
            script.write_text(TPCB)
            failures = []
            for bench in benches:
                bench.prepare_tpcb()

            def tpcb(bench):
                rate, failed = bench.tpcb(script)
                failures.append((bench.server.name, failed))
                return rate

            ours, theirs = in_turns(options, benches, tpcb)
            line(f"TPC-B, {options.clients} sessions, scale {options.scale}", "/s", ours, theirs, ">=", "-")
            for name, failed in failures:
                if failed:
                    print(f"  {name}: {failed} transactions failed")


if __name__ == "__main__":
    main()
