"""Names of kernel components, and the choice of components and quantiles that are stored as rows for SQL.

A component of a quantity over inputs (K0, K1, U1, K2) is a pair of inputs a <= b, written "01"; one of a quantity over
pairs (V4, Sigma, D) is two pairs p <= q (row-major order of pairs), written "00,12"; one over triples of pairs (T) is
three, "00,00,12". Inputs above 9 are written with a dash: "3-12".
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from eftcore.errors import InputError
from eftcore.pairs import pair_indices, pair_name, pair_names
from eftcore.quantities import QUANTITIES

ROW_INPUTS = 16
"""Entries over inputs, and diagonal entries [p, p] over pairs and [p, p, p] over triples, are stored as rows for pairs
p among this many first inputs."""

V4_ROW_INPUTS = 4
"""Every component over pairs among this many first inputs is stored as rows (their number grows as N^4 / 8)."""

QUANTILES = (0.005, 0.025, 0.16, 0.5, 0.84, 0.975, 0.995)
"""Probabilities at which quantiles of each G_aa of a simulation are stored: the median, and the ends of the central
intervals with 68, 95 and 99 %."""

_PAIR = re.compile(r"(\d)(\d)|(\d+)-(\d+)")


def canonical_component(name: str) -> str:
    """The stored spelling of a component; K, V4 and T are symmetric, so "10" is "01" and "11,00" is "00,11".

    >>> canonical_component("10"), canonical_component("21, 00")
    ('01', '00,12')

    Raises InputError when ``name`` is not a component.
    """
    pairs = [_parse_pair(part.strip(), name) for part in name.split(",")]
    if len(pairs) > 3:
        raise InputError(
            "has more than three pairs of inputs", remedy="write one of V4 as '00,11'", place="component", value=name
        )
    return ",".join(pair_name(*pair) for pair in sorted(pairs))


def _parse_pair(text: str, whole: str) -> tuple[int, int]:
    match = _PAIR.fullmatch(text)
    if match is None:
        raise InputError(
            "is no component",
            place="component",
            value=whole,
            remedy="write a pair of inputs as '01' (or '3-12'), and one of V4 as '00,11'",
        )
    a, b = sorted(int(group) for group in match.groups() if group is not None)
    return a, b


def diagonal_components(n_inputs: int) -> list[str]:
    """Names of the entries G_aa whose quantiles are stored: those of the first 16 inputs.

    >>> diagonal_components(3)
    ['00', '11', '22']
    """
    return [pair_name(a, a) for a in range(min(n_inputs, ROW_INPUTS))]


@lru_cache(maxsize=64)
def row_components(quantity: str, n_inputs: int) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """Names (C,) of the components of a quantity that are stored as rows, and their indices.

    The indices are an array (C,) for each axis of its array but the first, which is that of the layers.
    """
    first, second = pair_indices(n_inputs)
    names = pair_names(n_inputs)
    kept = np.flatnonzero(second < ROW_INPUTS)
    if QUANTITIES[quantity].over == "inputs":
        return tuple(names[p] for p in kept), (first[kept], second[kept])
    if QUANTITIES[quantity].over == "triples":
        return tuple(",".join([names[p]] * 3) for p in kept), (kept, kept, kept)
    inner = np.flatnonzero(second < V4_ROW_INPUTS)
    positions = {(int(p), int(q)) for p in inner for q in inner if p <= q} | {(int(p), int(p)) for p in kept}
    rows, columns = np.array(sorted(positions)).T
    return tuple(f"{names[p]},{names[q]}" for p, q in sorted(positions)), (rows, columns)
