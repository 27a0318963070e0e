"""A made-up data set: unit vectors in clusters of uneven size, the same for the same seed on any machine with one numpy.

What it shares with embeddings of text: clusters lie in groups, their sizes fall off like those of topics, and around its
centre a cluster is flat, with a few dozen directions that matter, less and less, and little in all the others. What it
does not share: nothing here means anything. Blocks of rows have generators of their own, so that a smaller set is the
beginning of a larger one, and queries are rows that are not in it.
"""

import numpy

import truth

CLUSTERS = 1000
GROUPS = 40
# Clusters share these sets of directions by turns.
BASES = 16
DIRECTIONS = 32
# Lengths, where a centre's is 1: of a cluster's place in its group, of a row's place in its cluster, of the noise.
IN_GROUP = 0.6
IN_CLUSTER = 1.6
NOISE = 0.4
BLOCK_ROWS = 16_384
MODEL, ROWS, QUERIES = range(3)


class Model:
    """Where the clusters are."""

    def __init__(self, dimensions, seed):
        random = numpy.random.default_rng([seed, MODEL])
        groups = truth.unit(random.standard_normal((GROUPS, dimensions)).astype("<f4"))
        places = truth.unit(random.standard_normal((CLUSTERS, dimensions)).astype("<f4"))
        self.centres = groups[numpy.arange(CLUSTERS) % GROUPS] + IN_GROUP * places
        shares = 1.0 / (numpy.arange(CLUSTERS) + 10.0) ** 0.7
        self.shares = shares / shares.sum()
        directions = min(DIRECTIONS, dimensions)
        self.bases = [numpy.linalg.qr(random.standard_normal((dimensions, directions)))[0].T.astype("<f4")
                      for _ in range(BASES)]
        weights = (numpy.arange(directions) + 1.0) ** -0.5
        self.weights = (IN_CLUSTER * weights / numpy.linalg.norm(weights)).astype("<f4")

    def rows(self, random, count):
        """`count` unit vectors, and their clusters."""
        dimensions = self.centres.shape[1]
        clusters = random.choice(CLUSTERS, size=count, p=self.shares)
        out = random.standard_normal((count, dimensions), dtype="f4") * numpy.float32(NOISE / dimensions**0.5)
        places = random.standard_normal((count, len(self.weights)), dtype="f4") * self.weights
        for number, basis in enumerate(self.bases):
            chosen = clusters % BASES == number
            out[chosen] += places[chosen] @ basis
        out += self.centres[clusters]
        return truth.unit(out), clusters.astype("<i2")


def write(path, clusters_path, rows, dimensions, seed):
    """Block by block: never more than one of them in memory."""
    model, clusters = Model(dimensions, seed), []
    part = path.with_suffix(".part")
    with open(part, "wb") as out:
        for block, start in enumerate(range(0, rows, BLOCK_ROWS)):
            count = min(BLOCK_ROWS, rows - start)
            # A whole block even where less is wanted: what is drawn must not depend on where the set ends.
            vectors, found = model.rows(numpy.random.default_rng([seed, ROWS, block]), BLOCK_ROWS)
            vectors[:count].astype("<f4").tofile(out)
            clusters.append(found[:count])
    numpy.concatenate(clusters).tofile(clusters_path)
    part.rename(path)


def queries(count, dimensions, seed):
    vectors, _ = Model(dimensions, seed).rows(numpy.random.default_rng([seed, QUERIES]), count)
    return vectors.astype("<f4")
