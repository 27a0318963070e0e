"""Data sets as flat files: vectors and queries in float32, three columns to filter by, and the exact answers.

`run.py` calls `open_parquet` or `open_clustered`. Everything lies in one folder under names that say what it is made of
(rows, dimensions, and the seed or a checksum), so that a second run finds it there. A row's id is its position.

| column      | what it holds                                                                                      |
| label       | 0 … : the part of speech if the file has one, else ten classes by turns                             |
| scattered   | 0 … 999, by chance: `scattered < 10` is 1 % of the rows from everywhere                             |
| region      | 0 … 999, by cluster: `region < 10` is 1 % of the rows, all from one corner of the space             |
"""

import dataclasses
import pathlib
import sys
import zlib

import numpy

import clustered
import truth

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "pgwire-server" / "demo"
DATA = SAMPLE / "wordnet-sample.parquet"
QUERIES = SAMPLE / "wordnet-sample-queries.parquet"
# Values of `scattered` and `region`: what a filter can tell apart.
STEPS = 1000
LABELS = 10
SEED = 1
# k-means of sets whose clusters nobody knows: enough for regions, which need not be good clusters.
MEANS = 64
MEANS_ROWS = 20_000
MEANS_ROUNDS = 10


@dataclasses.dataclass(eq=False)
class Rows:
    """Some of the rows: a condition in SQL, and the same as a mask. `None` as a mask: all of them."""

    name: str
    condition: str
    mask: numpy.ndarray | None

    @property
    def share(self):
        return 1.0 if self.mask is None else float(self.mask.mean())


ALL = Rows("all", "true", None)


class Dataset:
    """`vectors` (rows × dimensions, a memory map) and `queries` (float32), and files of both."""

    def __init__(self, folder, name, metric, clusters_of):
        self.folder, self.name, self.metric = folder, name, metric
        self.vectors_path, self.queries_path = folder / f"{name}.f32", folder / f"{name}-queries.f32"
        shape = name.split("-")[-2].split("x")
        self.rows, self.dimensions = int(shape[0]), int(shape[1])
        self.vectors = numpy.memmap(self.vectors_path, "<f4", "r", shape=(self.rows, self.dimensions))
        self.queries = numpy.fromfile(self.queries_path, "<f4").reshape(-1, self.dimensions)
        self.scattered = in_steps(numpy.random.default_rng([SEED, self.rows]).permutation(self.rows))
        self.region = cached(folder / f"{name}-region.i16", lambda: regions(*clusters_of(self)), "<i2")
        labels = folder / f"{name}-label.i16"
        self.label = (numpy.fromfile(labels, "<i2") if labels.exists()
                      else (numpy.arange(self.rows) % LABELS).astype("<i2"))

    def below(self, column, value):
        """Rows with less than `value` thousandths in `scattered` or `region`."""
        return Rows(f"{column}-{value}", f"{column} < {value}", getattr(self, column) < value)

    def least_common_label(self):
        """The least common one that still fills any LIMIT."""
        counts = numpy.bincount(self.label)
        enough = [label for label in range(len(counts)) if counts[label] >= min(1000, counts.max())]
        chosen = min(enough, key=lambda label: counts[label])
        return Rows(f"label-{chosen}", f"label = {chosen}", self.label == chosen)

    def truths(self, wanted):
        """Files with the exact answers among these Rows, by their names; queries × NEIGHBOURS ids, or as many as there
        are. What is missing is found in one pass over the vectors."""
        paths = {rows.name: self.folder / f"{self.name}-{self.metric}-{rows.name}.i64" for rows in wanted}
        missing = [rows for rows in wanted if not paths[rows.name].exists()]
        if missing:
            talk(f"exact answers of {self.name}: {', '.join(rows.name for rows in missing)}")
            answers = truth.exact(self.vectors, self.queries, self.metric, [rows.mask for rows in missing])
            for rows, ids in zip(missing, answers):
                save(paths[rows.name], ids)
        return paths


def open_parquet(folder, data, queries, metric):
    """Columns `embedding` and, if there is one, `pos`; the queries' `embedding`. Lists or binary, float16 or float32."""
    import pyarrow.parquet

    table, asked = pyarrow.parquet.read_table(data), pyarrow.parquet.read_table(queries, columns=["embedding"])
    vectors, points = embeddings(table["embedding"]), embeddings(asked["embedding"])
    checksum = zlib.crc32(points.tobytes(), zlib.crc32(vectors.tobytes()))
    name = f"{pathlib.Path(data).stem}-{vectors.shape[0]}x{vectors.shape[1]}-{checksum:08x}"
    save_once(folder / f"{name}.f32", vectors)
    save_once(folder / f"{name}-queries.f32", points)
    if "pos" in table.column_names:
        values = table["pos"].combine_chunks().dictionary_encode()
        save_once(folder / f"{name}-label.i16", values.indices.to_numpy().astype("<i2"))
    return Dataset(folder, name, metric, means)


def open_clustered(folder, rows, dimensions, seed, queries, metric):
    """The made-up set: see clustered.py."""
    name = f"clustered-{rows}x{dimensions}-seed{seed}"
    if not (folder / f"{name}.f32").exists():
        talk(f"making {name}")
        clustered.write(folder / f"{name}.f32", folder / f"{name}-cluster.i16", rows, dimensions, seed)
    save_once(folder / f"{name}-queries.f32", clustered.queries(queries, dimensions, seed))

    def clusters_of(_):
        return numpy.fromfile(folder / f"{name}-cluster.i16", "<i2"), clustered.Model(dimensions, seed).centres

    return Dataset(folder, name, metric, clusters_of)


def embeddings(column):
    """n × dim float32, whatever list or binary type holds it; float16 is widened exactly."""
    import pyarrow

    column = column.combine_chunks()
    if pyarrow.types.is_fixed_size_binary(column.type):
        # The sample: little-endian float16.
        buffer = b"".join(column.to_pylist())
        return numpy.frombuffer(buffer, "<f2").reshape(len(column), -1).astype("<f4")
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1).astype("<f4")


def means(dataset):
    """Which cluster each row is in, and the clusters' centres, by a short k-means over some of the rows."""
    random = numpy.random.default_rng([SEED, dataset.rows, dataset.dimensions])
    chosen = numpy.sort(random.choice(dataset.rows, min(dataset.rows, MEANS_ROWS), replace=False))
    sample = truth.unit(numpy.array(dataset.vectors[chosen]))
    centres = sample[: min(MEANS, len(sample))].copy()
    for _ in range(MEANS_ROUNDS):
        nearest = (sample @ centres.T).argmax(axis=1)
        for cluster in range(len(centres)):
            members = sample[nearest == cluster]
            if len(members):
                centres[cluster] = members.mean(axis=0)
        centres = truth.unit(centres)
    clusters = [(truth.unit(block) @ centres.T).argmax(axis=1) for _, block in truth.blocks(dataset.vectors)]
    return numpy.concatenate(clusters), centres


def regions(clusters, centres):
    """Thousandths of the rows, cluster after cluster, those first that are nearest to the first one."""
    units = truth.unit(centres.astype("<f4"))
    rank = numpy.empty(len(units), dtype=numpy.int64)
    rank[numpy.argsort(-(units @ units[0]), kind="stable")] = numpy.arange(len(units))
    places = numpy.empty(len(clusters), dtype=numpy.int64)
    places[numpy.argsort(rank[clusters], kind="stable")] = numpy.arange(len(clusters))
    return in_steps(places)


def in_steps(places):
    return (places * STEPS // len(places)).astype("<i2")


def cached(path, make, kind):
    if not path.exists():
        save(path, make().astype(kind))
    return numpy.fromfile(path, kind)


def save_once(path, array):
    if not path.exists():
        save(path, array)


def save(path, array):
    """Under its name only once it is whole: an interrupted run leaves nothing that the next one would believe."""
    part = path.with_suffix(".part")
    numpy.ascontiguousarray(array).tofile(part)
    part.rename(path)


def talk(words):
    print(words, file=sys.stderr, flush=True)
