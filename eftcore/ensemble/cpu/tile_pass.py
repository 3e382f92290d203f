"""What the fused pass does to a tile of neurons: normals, increment, activation, products of inputs.

A tile is the neurons ``begin``, ..., ``begin + count - 1`` of an array (neurons, N, LANES), float32 or float64. It is
small enough for a processor's first-level cache. Matrices are worked on in blocks of BLOCK x BLOCK entries, which stay
in registers while the loop over neurons runs.
"""

from __future__ import annotations

from typing import Any

from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.lanes import BLOCK, Array, Code, Lanes, vector_code
from eftcore.ensemble.cpu.sigma import written_sigmas


@vector_code
def fill_normals(code: Code, generators: Array, out: Array) -> None:
    """Fill ``out`` (an even number, LANES), float32 or float64, with standard normals.

    Every lane has a generator of its own, a column of ``generators`` (4 or 8 words, LANES) uint32, which moves on.
    """
    vector_math.write_normals(code, generators, out)


@vector_code
def advance(code: Code, state: Array, begin: Any, count: Any, root: Array, z: Array) -> None:
    """Add a layer's increment to the tile: state += z root^T.

    ``z`` (at least count, N, LANES) are normals, ``root`` (N, N, LANES) is epsilon times a factor of Q.
    """
    size = root.shape[0]
    for b, columns in code.blocks(0, size):
        for a, rows in code.blocks(0, size):
            _advance_block(code, state, begin, count, root, z, (a, rows), (b, columns))


@vector_code
def advance_lower(code: Code, state: Array, begin: Any, count: Any, root: Array, z: Array) -> None:
    """``advance`` where ``root`` is lower triangular; what is above its diagonal is not read."""
    size = root.shape[0]
    for b, columns in code.blocks(0, size):
        _advance_block(code, state, begin, count, root, z, (b, columns), (b, columns), lower=True)
        for a, rows in code.blocks(code.add(b, columns), size) if columns == BLOCK else ():
            _advance_block(code, state, begin, count, root, z, (a, rows), (b, columns))


def _advance_block(
    code: Code,
    state: Array,
    begin: Any,
    count: Any,
    root: Array,
    z: Array,
    rows: tuple[Any, int],
    columns: tuple[Any, int],
    *,
    lower: bool = False,
) -> None:
    (a, height), (b, breadth) = rows, columns
    factor = [[root[code.add(a, r), code.add(b, c)] for c in range(r + 1 if lower else breadth)] for r in range(height)]
    for j in code.loop(0, count):
        normal = [z[j, code.add(b, c)] for c in range(breadth)]
        for r in range(height):
            place = code.add(begin, j), code.add(a, r)
            neuron = state[place]
            for entry, drawn in zip(factor[r], normal, strict=False):
                neuron = neuron + entry * drawn
            state[place] = neuron


@vector_code
def activate(
    code: Code,
    kind: Any,
    parameter: Lanes,
    table: Array,
    limit: Lanes,
    beyond: Any,
    x: Array,
    begin: Any,
    count: Any,
    out: Array,
) -> None:
    """out[i] = sigma(x[begin + i]) for i < count, with x and out (numbers, LANES) both float32 or both float64.

    The arguments before x are those of eftcore.ensemble.cpu.sigma. The loop is written once for every activation, and
    the branch between them is outside the loop. Where |x| is larger than ``limit``, or NaN, the function at the address
    ``beyond`` is called once for the tile; it overwrites these numbers of ``out``.
    """
    for case, written in enumerate(written_sigmas(code, x.typed(parameter), table)):
        for _ in code.when(kind, case):
            sigma = written.begin()
            largest = x.typed(limit)
            outside = code.variable(x.zero().bits())
            for i in code.loop(0, count):
                number = x[code.add(begin, i)]
                out[i] = sigma(number)
                if written.limited:
                    outside.set(outside.get() | abs(number).where("<=", largest, 0.0, 1.0).bits())
            if written.limited:
                for _ in code.when_any(outside.get()):
                    code.call(beyond, x.address(begin), count, out.address(0))


@vector_code
def add_products(code: Code, tile: Array, begin: Any, count: Any, total: Array) -> None:
    """total[a, b] += sum over the tile's neurons of tile[:, a] tile[:, b], for inputs a <= b.

    ``total`` is (N, N, LANES) float64. The sum over the tile is made in the type of the tile.
    """
    size = tile.shape[1]
    for a, height in code.blocks(0, size):
        rows = [code.add(a, r) for r in range(height)]
        _add_block(code, tile, begin, count, total, rows, rows)
        for b, breadth in code.blocks(code.add(a, height), size) if height == BLOCK else ():
            _add_block(code, tile, begin, count, total, rows, [code.add(b, c) for c in range(breadth)])


def _add_block(
    code: Code, tile: Array, begin: Any, count: Any, total: Array, rows: list[Any], columns: list[Any]
) -> None:
    pairs = [(r, c) for r in range(len(rows)) for c in range(r if columns is rows else 0, len(columns))]
    sums = {pair: code.variable(tile.zero()) for pair in pairs}
    for j in code.loop(0, count):
        left = [tile[code.add(begin, j), a] for a in rows]
        right = left if columns is rows else [tile[code.add(begin, j), b] for b in columns]
        for r, c in pairs:
            sums[r, c].set(sums[r, c].get() + left[r] * right[c])
    for r, c in pairs:
        total[rows[r], columns[c]] = total[rows[r], columns[c]] + sums[r, c].get().double()
