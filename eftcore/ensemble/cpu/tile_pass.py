"""What the fused pass does to a tile of neurons: normals, increment, activation, products of inputs.

A tile is neurons ``begin`` to ``begin + count`` of an array (neurons, N, LANES) float32. It is small enough to stay in
a processor's first cache, and blocks of BLOCK x BLOCK sums or factors stay in its registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eftcore.ensemble.cpu import vector_math
from eftcore.ensemble.cpu.lanes import BLOCK, Array, Code, Lanes, vector_code

ACTIVATIONS: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "linear": lambda x, _: x,
    "tanh": lambda x, _: vector_math.tanh(x),
    "erf": lambda x, scale: vector_math.erf(scale * x),
    "leaky_relu": lambda x, slope: x.where(">", 0, x, slope * x),
    "gelu": lambda x, _: vector_math.gelu(x),
    "silu": lambda x, _: vector_math.silu(x),
    "softplus": lambda x, beta: vector_math.softplus(beta * x) / beta,
}
"""Activations of the fused pass as functions of x and of their parameter; ``activate`` numbers them in this order."""


@vector_code
def fill_normals(code: Code, generators: Array, out: Array) -> None:
    """Standard normals into out (even number, LANES) float32, one stream (4 words, LANES) uint32 for each lane."""
    vector_math.write_normals(code, generators, out)


@vector_code
def advance(code: Code, state: Array, begin: Any, count: Any, root: Array, z: Array) -> None:
    """Tile of ``state`` += z root^T, with root (N, N, LANES) and z (at least count, N, LANES)."""
    size = root.shape[0]
    for b, columns in code.blocks(0, size):
        for a, rows in code.blocks(0, size):
            _advance_block(code, state, begin, count, root, z, (a, rows), (b, columns))


@vector_code
def advance_lower(code: Code, state: Array, begin: Any, count: Any, root: Array, z: Array) -> None:
    """``advance`` with a lower triangular root."""
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
def activate(code: Code, kind: Any, parameter: Lanes, x: Array, begin: Any, count: Any, out: Array) -> None:
    """out[i] = sigma(x[begin + i]) for i < count, of x and out (numbers, LANES); ``kind`` as in ACTIVATIONS."""
    for case, function in enumerate(ACTIVATIONS.values()):
        for _ in code.when(kind, case):
            for i in code.loop(0, count):
                out[i] = function(x[code.add(begin, i)], parameter.single())


@vector_code
def add_products(code: Code, tile: Array, begin: Any, count: Any, total: Array) -> None:
    """Add the tile's sums over neurons of products of inputs a <= b to total[a, b] of (N, N, LANES) float64."""
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
    sums = {pair: code.variable(code.zero("float32")) for pair in pairs}
    for j in code.loop(0, count):
        left = [tile[code.add(begin, j), a] for a in rows]
        right = left if columns is rows else [tile[code.add(begin, j), b] for b in columns]
        for r, c in pairs:
            sums[r, c].set(sums[r, c].get() + left[r] * right[c])
    for r, c in pairs:
        total[rows[r], columns[c]] = total[rows[r], columns[c]] + sums[r, c].get().double()
