"""Exact nearest neighbours by blocked matrix products, for all rows or some of them, in one pass over the vectors.

float32 finds the candidates, float64 orders them; equal distances go by id.
"""

import numpy

# How many of the exact answer are kept, and of how many candidates they are chosen.
NEIGHBOURS = 100
CANDIDATES = 200
BLOCK_ROWS = 65_536


def unit(vectors):
    lengths = numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / numpy.where(lengths == 0, 1, lengths)


def blocks(vectors):
    """Position of the first row, and rows as an array in memory."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        yield start, numpy.array(vectors[start : start + BLOCK_ROWS])


def exact(vectors, queries, metric, masks):
    """Per mask (None: all rows) queries × at most NEIGHBOURS ids, nearest first."""
    found = [Candidates(len(queries)) for _ in masks]
    asked = unit(queries) if metric == "cosine" else queries
    for start, block in blocks(vectors):
        rows = unit(block) if metric == "cosine" else block
        near = asked @ rows.T
        if metric == "l2":
            near = 2 * near - (rows * rows).sum(axis=1)
        for candidates, mask in zip(found, masks):
            if mask is None:
                candidates.offer(near, numpy.arange(start, start + len(rows)))
            else:
                columns = numpy.flatnonzero(mask[start : start + len(rows)])
                candidates.offer(near[:, columns], start + columns)
    return [candidates.ordered(vectors, asked, metric) for candidates in found]


class Candidates:
    """The nearest so far, in no order."""

    def __init__(self, queries):
        self.ids = numpy.empty((queries, 0), dtype="<i8")
        self.near = numpy.empty((queries, 0), dtype="<f4")

    def offer(self, near, ids):
        ids = numpy.broadcast_to(ids, near.shape)
        # The block alone first: what is copied together is small then.
        near, ids = best(near, ids)
        self.near, self.ids = best(numpy.hstack([self.near, near]), numpy.hstack([self.ids, ids]))

    def ordered(self, vectors, queries, metric):
        keep = min(NEIGHBOURS, self.ids.shape[1])
        out = numpy.empty((len(queries), keep), dtype="<i8")
        for number, ids in enumerate(self.ids):
            query, rows = queries[number].astype("f8"), numpy.array(vectors[numpy.sort(ids)]).astype("f8")
            ids = numpy.sort(ids)
            if metric == "cosine":
                distance = -(unit(rows) @ query)
            elif metric == "ip":
                distance = -(rows @ query)
            else:
                distance = ((rows - query) ** 2).sum(axis=1)
            out[number] = ids[numpy.lexsort((ids, distance))[:keep]]
        return out


def best(near, ids):
    if near.shape[1] <= CANDIDATES:
        return near, ids
    chosen = numpy.argpartition(-near, CANDIDATES - 1, axis=1)[:, :CANDIDATES]
    return numpy.take_along_axis(near, chosen, axis=1), numpy.take_along_axis(ids, chosen, axis=1)
