"""Vectors from Parquet, as the files that the load generator reads, with the exact answer."""

import dataclasses
import pathlib
import struct

import numpy
import pyarrow
import pyarrow.parquet

SAMPLE = pathlib.Path(__file__).resolve().parents[2] / "pgwire-server" / "demo"
DATA = SAMPLE / "wordnet-sample.parquet"
QUERIES = SAMPLE / "wordnet-sample-queries.parquet"
# How many of the exact answer are kept.
NEIGHBOURS = 100


@dataclasses.dataclass
class Files:
    rows: int
    dimensions: int
    queries: int
    pgcopy: pathlib.Path
    vectors: pathlib.Path
    truth: pathlib.Path
    # The exact answer among the rows of one label.
    label: str
    filtered_truth: pathlib.Path


def embeddings(table, name):
    """n x dim float32, whatever list or binary type holds it; float16 is widened exactly."""
    column = table[name].combine_chunks()
    kind = column.type
    if pyarrow.types.is_fixed_size_binary(kind):
        # The sample: little-endian float16.
        buffer = b"".join(column.to_pylist())
        return numpy.frombuffer(buffer, "<f2").reshape(len(column), -1).astype(numpy.float32)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1).astype(numpy.float32)


def exact(rows, queries, ids, metric):
    """Ids of the nearest rows per query, nearest first: float32 to find candidates, float64 to order them."""
    keep = min(NEIGHBOURS, len(rows))
    if metric == "cosine":
        rows = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
        queries = queries / numpy.linalg.norm(queries, axis=1, keepdims=True)
    squares = (rows * rows).sum(axis=1)
    out = numpy.empty((len(queries), keep), dtype="<i8")
    for start in range(0, len(queries), 64):
        block = queries[start : start + 64]
        scores = block @ rows.T
        near = -scores if metric in ("cosine", "ip") else squares - 2 * scores
        wide = min(4 * keep, len(rows))
        candidates = numpy.argpartition(near, wide - 1, axis=1)[:, :wide]
        for number, chosen in enumerate(candidates):
            query = block[number].astype(numpy.float64)
            vectors = rows[chosen].astype(numpy.float64)
            distance = -(vectors @ query) if metric in ("cosine", "ip") else ((vectors - query) ** 2).sum(axis=1)
            order = numpy.lexsort((ids[chosen], distance))[:keep]
            out[start + number] = ids[chosen[order]]
    return out


def pgcopy(path, ids, labels, vectors):
    """The rows as COPY BINARY sends them: id int8, pos text, embedding vector."""
    dimensions = vectors.shape[1]
    big = vectors.astype(">f4")
    with open(path, "wb") as out:
        out.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
        for number, label, vector in zip(ids, labels, big):
            text = label.encode()
            out.write(struct.pack("!hiq", 3, 8, number))
            out.write(struct.pack("!i", len(text)) + text)
            out.write(struct.pack("!iHH", 4 + 4 * dimensions, dimensions, 0) + vector.tobytes())
        out.write(struct.pack("!h", -1))


def prepare(work, data, queries, metric, column="embedding"):
    table = pyarrow.parquet.read_table(data)
    asked = pyarrow.parquet.read_table(queries)
    vectors, points = embeddings(table, column), embeddings(asked, column)
    names = table.column_names
    ids = table["id"].to_numpy() if "id" in names else numpy.arange(len(vectors))
    labels = table["pos"].to_pylist() if "pos" in names else [f"l{number % 10}" for number in range(len(ids))]
    # The least common label that still fills any LIMIT: the hardest filter.
    counts = {label: labels.count(label) for label in set(labels)}
    label = min((name for name in counts if counts[name] >= 1000), key=counts.get, default=max(counts, key=counts.get))
    chosen = numpy.array([name == label for name in labels])
    files = Files(
        rows=len(vectors), dimensions=vectors.shape[1], queries=len(points), label=label,
        pgcopy=work / "rows.pgcopy", vectors=work / "queries.f32", truth=work / "truth.i64",
        filtered_truth=work / "filtered.i64",
    )
    pgcopy(files.pgcopy, ids.tolist(), labels, vectors)
    files.vectors.write_bytes(points.astype("<f4").tobytes())
    files.truth.write_bytes(exact(vectors, points, ids, metric).tobytes())
    files.filtered_truth.write_bytes(exact(vectors[chosen], points, ids[chosen], metric).tobytes())
    return files
