#!/usr/bin/env python3
"""Makes the sample that `sepal demo` loads: wordnet-sample.parquet and wordnet-sample-queries.parquet.

    make_sample.py SYNSETS.parquet QUERIES.parquet OUT_DIR

SYNSETS has id, pos, word, definition and embedding (fixed_size_list<float16>[384]) for all of WordNet 3.0;
QUERIES has id, text, embedding and neighbors (the ids of the nearest synsets, nearest first).

The sample holds the ten nearest synsets of each of 100 queries in the whole of WordNet, and of the queries
that the demo shows also the ten nearest of one part of speech, so that the answers on the small sample are
the answers on the large set; the rest is drawn at random, so that every part of speech keeps its share.
Embeddings are written as 768 bytes: 384 little-endian float16, exactly as they were stored.

Needs numpy and pyarrow. The same input always gives the same sample.
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 10_240
QUERIES = 100
NEIGHBOURS = 10
DIMENSIONS = 384
SEED = 2006
# The three that the demo prints, in this order: plain, nouns only, verbs only.
SHOWN = [
    ("We ferment the grapes for a very long time to achieve high alcohol content", None),
    ("The setting sun kindled the sky with oranges and reds", "noun"),
    ("The rocket lofted the space shuttle into the air", "verb"),
]


def halves(table):
    """The embeddings as n x 384 float16, row-major."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float16).reshape(-1, DIMENSIONS)


def packed(vectors):
    """Each row's 768 bytes, little-endian."""
    little = np.ascontiguousarray(vectors.astype("<f2"))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * DIMENSIONS), len(little), [None, pa.py_buffer(little.tobytes())]
    )


def choose_queries(queries, random):
    """Row numbers of the queries: the shown ones first, then others of a length that reads well."""
    texts = queries["text"].to_pylist()
    shown = [texts.index(text) for text, _ in SHOWN]
    readable = [row for row, text in enumerate(texts) if 30 <= len(text) <= 90 and row not in shown]
    others = random.permutation(readable)[: QUERIES - len(shown)]
    return shown + sorted(int(row) for row in others)


def choose_synsets(synsets, queries, chosen, random):
    """Sorted row numbers of the sample."""
    row_of_id = {synset: row for row, synset in enumerate(synsets["id"].to_pylist())}
    neighbours = queries["neighbors"].to_pylist()
    rows = {row_of_id[synset] for query in chosen for synset in neighbours[query][:NEIGHBOURS]}
    pos = np.array(synsets["pos"].to_pylist())
    vectors = halves(synsets).astype(np.float32)
    query_vectors = halves(queries).astype(np.float32)
    for query, (_, wanted) in zip(chosen, SHOWN):
        candidates = np.flatnonzero(pos == wanted) if wanted else np.arange(len(pos))
        nearest = np.argsort(-(vectors[candidates] @ query_vectors[query]), kind="stable")[:NEIGHBOURS]
        rows.update(int(row) for row in candidates[nearest])
    for row in random.permutation(synsets.num_rows):
        if len(rows) == ROWS:
            break
        rows.add(int(row))
    return sorted(rows)


def write(table, path):
    """Embeddings do not compress; the text columns do."""
    text = [name for name in table.column_names if name != "embedding"]
    compression = {name: "lz4" for name in text} | {"embedding": "none"}
    pq.write_table(table, path, compression=compression, use_dictionary=["pos"] if "pos" in text else False,
                   write_statistics=False, store_schema=False, row_group_size=2048)
    print(f"{path}: {table.num_rows} rows", file=sys.stderr)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    synsets, queries, out = pq.read_table(sys.argv[1]), pq.read_table(sys.argv[2]), sys.argv[3]
    random = np.random.default_rng(SEED)
    chosen = choose_queries(queries, random)
    rows = choose_synsets(synsets, queries, chosen, random)
    sample = synsets.take(rows)
    write(
        pa.table({**{name: sample[name] for name in ("id", "pos", "word", "definition")},
                  "embedding": packed(halves(sample))}),
        f"{out}/wordnet-sample.parquet",
    )
    asked = queries.take(chosen)
    write(
        pa.table({"id": asked["id"], "text": asked["text"], "embedding": packed(halves(asked))}),
        f"{out}/wordnet-sample-queries.parquet",
    )


if __name__ == "__main__":
    main()
