"""Rows as COPY BINARY sends them: id int8, label, scattered and region int4, embedding vector.

In several files, so that neither the client nor a transaction has to hold a large set at once.
"""

import struct

import numpy

import truth

TABLE = "CREATE TABLE items (id bigint, label integer, scattered integer, region integer, embedding vector({}))"
FILE_BYTES = 256 * 2**20


def record(dimensions):
    fields = [("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i8")]
    for name in ("label", "scattered", "region"):
        fields += [(f"{name}_bytes", ">i4"), (name, ">i4")]
    fields += [("vector_bytes", ">i4"), ("dimensions", ">u2"), ("unused", ">u2"), ("vector", ">f4", (dimensions,))]
    return numpy.dtype(fields)


def write(folder, name, dataset, positions):
    """Files of these rows, in order; the ids are the positions."""
    kind, paths = record(dataset.dimensions), []
    each = max(1, FILE_BYTES // kind.itemsize)
    for start in range(0, len(positions), each):
        paths.append(folder / f"{name}-{len(paths)}.pgcopy")
        with open(paths[-1], "wb") as out:
            out.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            chosen = positions[start : start + each]
            for first in range(0, len(chosen), truth.BLOCK_ROWS):
                out.write(rows(dataset, chosen[first : first + truth.BLOCK_ROWS], kind).tobytes())
            out.write(struct.pack("!h", -1))
    return paths


def rows(dataset, positions, kind):
    out = numpy.zeros(len(positions), kind)
    out["columns"], out["id_bytes"], out["id"] = 5, 8, positions
    for name in ("label", "scattered", "region"):
        out[f"{name}_bytes"], out[name] = 4, getattr(dataset, name)[positions]
    out["vector_bytes"], out["dimensions"] = 4 + 4 * dataset.dimensions, dataset.dimensions
    out["vector"] = dataset.vectors[positions]
    return out
