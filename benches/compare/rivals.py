#!/usr/bin/env python3
"""Libraries that search inside the process, each behind one adapter: `rivals.py NAME build|search …` measures one.

Like `index_load`, our own: `build` reads raw float32 vectors, builds with `--threads` and writes the index; `search` opens
it in a process of its own with one thread, and goes through `--ef` until `--until` is reached. Each prints one JSON object.
A process each, because every library brings threads and memory of its own. `run.py` calls this; `rivals.py list` says
which are installed.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import time

SPACES = {"hnswlib": {"cosine": "cosine", "l2": "l2", "ip": "ip"}, "usearch": {"cosine": "cos", "l2": "l2sq", "ip": "ip"},
          "lance": {"cosine": "cosine", "l2": "l2", "ip": "dot"}, "qdrant": {"cosine": "Cosine", "l2": "Euclid", "ip": "Dot"}}
BATCH = 10_000


class Rival:
    """An index of `m` and `ef_construction` over vectors that `build` gets. The defaults fit a library with one file."""

    # What pip calls it, and what Python does.
    package = module = None

    def __init__(self, metric, m, ef_construction):
        self.metric, self.m, self.ef_construction = metric, m, ef_construction
        self.library = importlib.import_module(self.module)

    def build(self, vectors, threads, path):
        """Builds and writes; the seconds of the building alone, where a library can tell them apart."""
        raise NotImplementedError

    def open(self, path, dimensions):
        raise NotImplementedError

    def search(self, queries, k, effort):
        """n × k positions, nearest first, by one thread."""
        raise NotImplementedError

    def close(self):
        pass


class Hnswlib(Rival):
    package = module = "hnswlib"

    def build(self, vectors, threads, path):
        index = self.library.Index(space=SPACES["hnswlib"][self.metric], dim=vectors.shape[1])
        begun = time.perf_counter()
        index.init_index(max_elements=len(vectors), ef_construction=self.ef_construction, M=self.m)
        index.add_items(vectors, num_threads=threads)
        seconds = time.perf_counter() - begun
        index.save_index(str(path))
        return seconds

    def open(self, path, dimensions):
        self.index = self.library.Index(space=SPACES["hnswlib"][self.metric], dim=dimensions)
        self.index.load_index(str(path))
        self.index.set_num_threads(1)

    def search(self, queries, k, effort):
        self.index.set_ef(effort)
        return self.index.knn_query(queries, k=k, num_threads=1)[0]


class Faiss(Rival):
    package, module = "faiss-cpu", "faiss"

    def build(self, vectors, threads, path):
        self.library.omp_set_num_threads(threads)
        kind = self.library.METRIC_L2 if self.metric == "l2" else self.library.METRIC_INNER_PRODUCT
        index = self.library.IndexHNSWFlat(vectors.shape[1], self.m, kind)
        index.hnsw.efConstruction = self.ef_construction
        begun = time.perf_counter()
        index.add(self.ready(vectors))
        seconds = time.perf_counter() - begun
        self.library.write_index(index, str(path))
        return seconds

    def open(self, path, dimensions):
        self.library.omp_set_num_threads(1)
        self.index = self.library.read_index(str(path))

    def search(self, queries, k, effort):
        self.index.hnsw.efSearch = effort
        return self.index.search(self.ready(queries), k)[1]

    def ready(self, vectors):
        """It has no cosine: the inner product of unit vectors."""
        if self.metric == "cosine":
            vectors = vectors.copy()
            self.library.normalize_L2(vectors)
        return vectors


class Usearch(Rival):
    package = "usearch"
    module = "usearch.index"

    def build(self, vectors, threads, path):
        index = self.library.Index(ndim=vectors.shape[1], metric=SPACES["usearch"][self.metric], dtype="f32",
                                   connectivity=self.m, expansion_add=self.ef_construction)
        begun = time.perf_counter()
        index.add(range_of(len(vectors)), vectors, threads=threads)
        seconds = time.perf_counter() - begun
        index.save(str(path))
        return seconds

    def open(self, path, dimensions):
        self.index = self.library.Index.restore(str(path))

    def search(self, queries, k, effort):
        self.index.expansion_search = effort
        return self.index.search(queries, k, threads=1).keys.reshape(len(queries), k)


class Lance(Rival):
    """IVF_HNSW_SQ in one partition: its HNSW over 8-bit codes, re-ranked from the columns on disk."""

    package, module = "pylance", "lance"
    refine = 2

    def build(self, vectors, threads, path):
        import pyarrow

        dimensions = vectors.shape[1]
        column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), dimensions)
        table = pyarrow.table({"id": range_of(len(vectors)), "vector": column})
        dataset = self.library.write_dataset(table, str(path))
        begun = time.perf_counter()
        dataset.create_index("vector", "IVF_HNSW_SQ", metric=SPACES["lance"][self.metric], num_partitions=1, m=self.m,
                             ef_construction=self.ef_construction)
        return time.perf_counter() - begun

    def open(self, path, dimensions):
        self.dataset = self.library.dataset(str(path))

    def search(self, queries, k, effort):
        return [self.one(query, k, effort) for query in queries]

    def one(self, query, k, effort):
        nearest = {"column": "vector", "q": query, "k": k, "nprobes": 1,
                   # It refuses less than it is to re-rank.
                   "ef": max(effort, k * self.refine), "refine_factor": self.refine}
        return self.dataset.to_table(columns=["id"], nearest=nearest)["id"].to_pylist()


class Qdrant(Rival):
    """Its engine without its server: one shard, one segment, no quantisation, vectors in memory."""

    package, module = "qdrant-edge-py", "qdrant_edge"

    def build(self, vectors, threads, path):
        edge = self.library
        distance = getattr(edge.Distance, SPACES["qdrant"][self.metric])
        parameters = edge.EdgeVectorParams(size=vectors.shape[1], distance=distance)
        kib = vectors.nbytes // 1024 * 4 + 1
        configuration = edge.EdgeConfig(
            vectors=parameters, wal_enabled=False, max_search_threads=1,
            hnsw_config=edge.HnswIndexConfig(m=self.m, ef_construct=self.ef_construction, full_scan_threshold=10,
                                             max_indexing_threads=threads),
            optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, max_segment_size=kib, indexing_threshold=1),
        )
        path.mkdir()
        shard = edge.EdgeShard.create(str(path), configuration)
        for start in range(0, len(vectors), BATCH):
            block = vectors[start : start + BATCH].tolist()
            points = [edge.Point(start + number, vector) for number, vector in enumerate(block)]
            shard.update(edge.UpdateOperation.upsert_points(points))
        # Without the upserts: through Python's lists they are not its speed.
        begun = time.perf_counter()
        while shard.optimize():
            pass
        seconds = time.perf_counter() - begun
        found = shard.info()
        if found.indexed_vectors_count < len(vectors):
            raise RuntimeError(f"{found.indexed_vectors_count} of {len(vectors)} vectors are indexed")
        shard.flush()
        shard.close()
        return seconds

    def open(self, path, dimensions):
        self.shard = self.library.EdgeShard.load(str(path))

    def search(self, queries, k, effort):
        return [self.one(query, k, effort) for query in queries.tolist()]

    def one(self, query, k, effort):
        edge = self.library
        request = edge.SearchRequest(query=edge.Query.Nearest(query), limit=k, params=edge.SearchParams(hnsw_ef=effort))
        return [point.id for point in self.shard.search(request)]

    def close(self):
        self.shard.close()


RIVALS = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch, "lance": Lance, "qdrant": Qdrant}


def range_of(count):
    import numpy

    return numpy.arange(count, dtype="<u8")


def versions():
    """Of those that are installed."""
    found = {}
    for name, rival in RIVALS.items():
        try:
            found[name] = importlib.metadata.version(rival.package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def resident():
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size(path):
    return sum(file.stat().st_size for file in path.rglob("*")) if path.is_dir() else path.stat().st_size


def measured(rival, queries, truth, k, effort, seconds):
    """Recall of one pass, which is the warm-up too; then queries a second of whole passes, and latencies one by one.
    The better rate counts: a pass spares Python's calls where a library takes many queries at once."""
    import numpy

    found = rival.search(queries, k, effort)
    hits = sum(len(set(map(int, ids)) & wanted) for ids, wanted in zip(found, truth))
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        rival.search(queries, k, effort)
        done += len(queries)
    batch = done / (time.perf_counter() - begun)
    times, begun = [], time.perf_counter()
    while time.perf_counter() - begun < seconds:
        at = len(times) % len(queries)
        start = time.perf_counter()
        rival.search(queries[at : at + 1], k, effort)
        times.append(time.perf_counter() - start)
    p50, p99 = numpy.quantile(times, [0.5, 0.99]) * 1e6
    return {"effort": effort, "recall": hits / (k * len(queries)), "per_second": max(batch, len(times) / sum(times)),
            "p50_us": p50, "p99_us": p99}


def search(rival, options):
    import numpy

    queries = numpy.fromfile(options.queries, "<f4").reshape(-1, options.dim)
    truth = [set(ids[: options.k].tolist()) for ids in numpy.fromfile(options.truth, "<i8").reshape(len(queries), -1)]
    before = resident()
    rival.open(options.index, options.dim)
    rival.search(queries[:1], options.k, options.k)
    out, memory = [], resident() - before
    for effort in (int(word) for word in options.ef.split(",")):
        out.append(measured(rival, queries, truth, options.k, effort, options.seconds))
        if out[-1]["recall"] >= options.until:
            break
    rival.close()
    return {"memory_bytes": memory, "efforts": out}


def build(rival, options):
    import numpy

    vectors = numpy.fromfile(options.vectors, "<f4").reshape(-1, options.dim)
    if options.index.is_dir():
        shutil.rmtree(options.index)
    return {"build_s": rival.build(vectors, options.threads, options.index), "index_bytes": size(options.index)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*RIVALS, "list"])
    parser.add_argument("mode", choices=("build", "search"), nargs="?")
    parser.add_argument("--vectors", type=pathlib.Path)
    parser.add_argument("--queries", type=pathlib.Path)
    parser.add_argument("--truth", type=pathlib.Path)
    parser.add_argument("--index", type=pathlib.Path)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--metric", choices=("cosine", "l2", "ip"), default="cosine")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ef", default="10,20,40,80,160,320")
    parser.add_argument("--until", type=float, default=1.0, help="no more effort once this recall is reached")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    if options.name == "list":
        print(json.dumps(versions()))
        return
    rival = RIVALS[options.name](options.metric, options.m, options.ef_construction)
    report = build(rival, options) if options.mode == "build" else search(rival, options)
    print(json.dumps({"name": options.name, "version": importlib.metadata.version(rival.package), **report}))
    # Threads that a library left behind must not hold up the end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
