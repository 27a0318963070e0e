"""Searching inside one process, without SQL, storage or wire: our index (`index_load`) beside libraries (`rivals.py`).

Each is a command that builds with all processors and writes its index, and one that opens it and searches with one thread.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import data
from arms import GRID
from phases import BARS, talk

RIVALS = pathlib.Path(__file__).with_name("rivals.py")
# Name, the program's own name for it, m, ef_construction.
CANDIDATES = {
    "sepal": ("Sepal", None, None, None),
    "hnswlib-16-64": ("hnswlib 16/64", "hnswlib", 16, 64),
    "hnswlib-24-200": ("hnswlib 24/200", "hnswlib", 24, 200),
    "faiss-16-64": ("FAISS HNSW 16/64", "faiss", 16, 64),
    "faiss-24-200": ("FAISS HNSW 24/200", "faiss", 24, 200),
    "usearch-16-64": ("usearch 16/64", "usearch", 16, 64),
    "lance-16-64": ("Lance IVF_HNSW_SQ 16/64", "lance", 16, 64),
    "qdrant-16-64": ("Qdrant's engine 16/64", "qdrant", 16, 64),
}


class Contestant:
    def __init__(self, options, dataset, key, folder):
        self.options, self.dataset, self.key = options, dataset, key
        self.title, self.name, self.m, self.ef_construction = CANDIDATES[key]
        self.index = folder / key
        self.out = {"title": self.title}

    def command(self, mode):
        if self.name is None:
            return [self.options.index_load]
        return [sys.executable, RIVALS, self.name, mode, "--m", str(self.m), "--ef-construction", str(self.ef_construction)]

    def run(self, mode, threads, *flags):
        common = ["--dim", str(self.dataset.dimensions), "--metric", self.options.metric, "--index", str(self.index),
                  "--vectors", str(self.dataset.vectors_path), "--threads", str(threads)]
        # What libraries' own pools of threads listen to.
        pools = ("OMP_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS")
        environment = os.environ | {name: str(threads) for name in pools}
        done = subprocess.run([*self.command(mode), *common, *flags], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.title}: {done.stderr.strip()[-600:]}")
        return json.loads(done.stdout)

    def build(self):
        if self.index.is_file():
            self.index.unlink()
        return self.run("build", os.cpu_count())

    def search(self, efforts, seconds):
        truth = self.dataset.truths([data.ALL])["all"]
        return self.run("search", 1, "--queries", str(self.dataset.queries_path), "--truth", str(truth), "--k",
                        str(self.options.k), "--ef", ",".join(map(str, efforts)), "--seconds", str(seconds),
                        "--until", str(max(BARS)))


def contestants(options, dataset, folder):
    """Those that are here; what is missing is said."""
    listed = subprocess.run([sys.executable, RIVALS, "list"], capture_output=True, text=True, check=True)
    installed = json.loads(listed.stdout)
    found = []
    for key, (title, name, *_) in CANDIDATES.items():
        if options.rivals and key not in options.rivals:
            continue
        if name is None and not options.index_load.exists():
            talk(f"*** {options.index_load} does not exist: Sepal's index is not measured in-process; "
                 "cargo build --release --bin index_load")
        elif name is not None and name not in installed:
            talk(f"*** {title} is not installed: left out; pip install -r benches/compare/requirements.txt")
        else:
            found.append(Contestant(options, dataset, key, folder))
            found[-1].out["version"] = installed.get(name)
    return found


def measure(options, dataset, work):
    """Key → figures."""
    with tempfile.TemporaryDirectory(prefix="in-process-", dir=work) as folder:
        found = contestants(options, dataset, pathlib.Path(folder))
        for each in list(found):
            try:
                built = [each.build() for _ in range(options.build_repeat)]
            except RuntimeError as error:
                talk(f"*** left out: {error}")
                found.remove(each)
                continue
            seconds = [report["build_s"] for report in built]
            each.out |= {"build_s": statistics.median(seconds), "build_all_s": seconds,
                         "index_bytes": built[-1]["index_bytes"]}
            talk(f"  {each.title:24} build {each.out['build_s']:.1f} s")
        search(options, found)
    return {each.key: each.out for each in found}


def search(options, found):
    """The whole curve once; then, taking turns, the efforts at which the bars are reached."""
    for each in found:
        report = each.search([effort for effort in fine(GRID) if effort >= options.k], min(1, options.seconds))
        each.out |= {"memory_bytes": report["memory_bytes"], "curve": report["efforts"]}
        each.out["effort"] = {str(bar): effort for bar in BARS if (effort := least(each, report["efforts"], bar))}
    runs = {each.key: [] for each in found}
    for _ in range(options.repeat):
        for each in found:
            efforts = sorted(set(each.out["effort"].values()))
            if efforts:
                runs[each.key].append(each.search(efforts, options.seconds)["efforts"])
    for each in found:
        for bar, effort in each.out["effort"].items():
            reports = [point for run in runs[each.key] for point in run if point["effort"] == effort]
            chosen = sorted(reports, key=lambda report: report["per_second"])[len(reports) // 2]
            chosen = {**chosen, "all_per_second": [round(report["per_second"], 1) for report in reports]}
            each.out.setdefault("at", {})[bar] = {"1": chosen}
            talk(f"  {each.title:24} recall >= {bar}: {chosen['per_second']:9.0f}/s, effort {effort}")


def least(each, curve, bar):
    """The least effort that reaches the bar: those between the curve's two points around it are tried, too."""
    enough = [point["effort"] for point in curve if point["recall"] >= bar]
    if not enough:
        return None
    below = [point["effort"] for point in curve if point["effort"] < enough[0]]
    between = list(range(below[-1] + 1, enough[0])) if below else []
    if between:
        tried = each.search(between, 0.2)["efforts"]
        enough = [point["effort"] for point in tried if point["recall"] >= bar] + enough
    return enough[0]


def fine(grid):
    """The grid with two steps more between each two: here a step costs little."""
    out = []
    for low, high in zip(grid, grid[1:]):
        out += [low, low + (high - low) // 3, low + 2 * (high - low) // 3]
    return sorted({*out, grid[-1]})
