"""Adds up the observations of a shard on a processor: the sums of eftcore.ensemble.sums.

Each recorded layer is gone through unit by unit of networks, and each unit once for each kind of sum.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, repeat
from operator import mul
from typing import Any

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, vector_code
from eftcore.ensemble.groups import GroupSums
from eftcore.ensemble.histogram import HISTOGRAM, Histogram
from eftcore.ensemble.reference import Reference
from eftcore.ensemble.sums import LANES, POWERS, UNIT, on_grid, sum_shapes
from eftcore.ensemble.threads import in_threads
from eftcore.pairs import pair_indices, pair_table
from eftcore.specs import EnsembleSpec

BUNDLES = UNIT // LANES
"""Bundles of a unit. They are added lane by lane; then the lanes are added up, and their total joins the sum."""


class Moments:
    """The sums of one shard, to which observations are added in the order of the networks.

    Unit after unit adds to each sum, and each sum belongs to one thread. So the result does not depend on the number of
    threads, nor on how many bundles come at once where that is a multiple of BUNDLES.
    """

    def __init__(self, spec: EnsembleSpec, reference: Reference) -> None:
        assert spec.depths is not None
        n_inputs = spec.kernel.n_inputs
        paired = spec.estimator == "paired"
        shapes = sum_shapes(len(spec.depths), n_inputs, paired=paired)
        self.sums: dict[str, np.ndarray] = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._groups = GroupSums(len(spec.depths), n_inputs, paired=paired)
        self._histogram = Histogram(spec, reference)
        self._spec = spec
        self._reference = reference
        increment = spec.model.bias_variance + spec.model.weight_variance * reference.second_moment
        couples = np.stack(np.triu_indices(n_inputs * (n_inputs + 1) // 2), axis=1)
        every = sum_shapes(0, n_inputs, paired=True)
        tables = reference.kernel, increment, np.diag(pair_table(n_inputs)), couples, _products(n_inputs, couples)
        self._arguments = (
            *(int(paired), spec.model.weight_variance),
            *(np.ascontiguousarray(table) for table in tables),
            *(self.sums.get(name, np.zeros(every[name])) for name in every),
        )

    def add(self, observed: np.ndarray) -> None:
        """Add observations (bundles, R, 2 or 4, P, LANES): d, s, and for paired also R, T; unused lanes are zero."""
        in_threads(lambda begin, end: _accumulate(observed, begin, end, *self._arguments), observed.shape[1])
        self._groups.add(observed)
        self._histogram.add(observed)

    def finished(self, networks: int) -> dict[str, np.ndarray]:
        """The shard's sums over this number of networks, on the ensemble's grid, and its histogram."""
        sums = on_grid(self.sums | self._groups.sums, self._spec, self._reference)
        return sums | {HISTOGRAM: self._histogram.finished(networks)}


def _products(n_inputs: int, couples: np.ndarray) -> np.ndarray:
    """(packed, 4, 2) pairs of G and of Q in the four products of each couple of pairs (theory: section 3, Sigma)."""
    first, second = pair_indices(n_inputs)
    table = pair_table(n_inputs)
    (a, b), (c, d) = ((first[pair], second[pair]) for pair in couples.T)
    products = (((a, c), (b, d)), ((a, d), (b, c)), ((b, c), (a, d)), ((b, d), (a, c)))
    return np.array([[table[g], table[q]] for g, q in products]).transpose(2, 0, 1)


@vector_code
def _add_vectors(
    code: Code,
    observed: Array,
    first: Any,
    r: Any,
    paired: Any,
    deviation: Array,
    source: Array,
    source_2: Array,
    residual: Array,
) -> None:
    rest = code.add(paired, paired)
    for p in code.loop(0, observed.shape[3]):

        def terms(i: Any, p: Any = p) -> list[Lanes]:
            d, t = observed[i, r, 0, p], observed[i, r, code.add(rest, 1), p]
            return [d, t, t * t, observed[i, r, rest, p]]

        *sums, total_r = _totals(code, observed, first, 4, terms)
        for array, total in zip((deviation, source, source_2), sums, strict=True):
            array.increase(total, r, p)
        for _ in code.when(paired, 1):
            residual.increase(total_r, r, p)


@vector_code
def _add_powers(code: Code, observed: Array, first: Any, r: Any, diagonal: Array, powers: Array) -> None:
    for a in code.loop(0, diagonal.shape[0]):
        p = diagonal.entry(a)

        def terms(i: Any, p: Any = p) -> list[Lanes]:
            d = observed[i, r, 0, p]
            return list(accumulate(repeat(d, POWERS), mul))

        for k, total in enumerate(_totals(code, observed, first, POWERS, terms)):
            powers.increase(total, r, a, k)


@vector_code
def _add_squares(
    code: Code,
    observed: Array,
    first: Any,
    r: Any,
    couples: Array,
    deviation_2: Array,
    deviation_3: Array,
    deviation_4: Array,
) -> None:
    for k in code.loop(0, couples.shape[0]):
        p, q = couples.entry(k, 0), couples.entry(k, 1)

        def terms(i: Any, p: Any = p, q: Any = q) -> list[Lanes]:
            d, e = observed[i, r, 0, p], observed[i, r, 0, q]
            product = d * e
            return [product, product * product, product * d, product * e]

        total_2, total_4, total_p, total_q = _totals(code, observed, first, 4, terms)
        deviation_2.increase(total_2, r, k)
        deviation_4.increase(total_4, r, k)
        deviation_3.increase(total_p, r, p, q)
        for _ in code.unless(p, q):
            deviation_3.increase(total_q, r, q, p)


@vector_code
def _add_products(
    code: Code,
    observed: Array,
    first: Any,
    r: Any,
    paired: Any,
    weight_variance: Lanes,
    kernel: Array,
    increment: Array,
    products: Array,
    increment_1: Array,
    increment_2: Array,
) -> None:
    rest = code.add(paired, paired)
    for k in code.loop(0, products.shape[0]):
        pairs = [(products.entry(k, term, 0), products.entry(k, term, 1)) for term in range(4)]
        means = [(weight_variance * kernel.copies(r, g), increment.copies(r, q)) for g, q in pairs]

        def terms(i: Any, pairs: Any = pairs, means: Any = means) -> list[Lanes]:
            sigma = code.zero("float64")
            for (g, q), (mean_g, mean_q) in zip(pairs, means, strict=True):
                sigma = sigma + weight_variance * observed[i, r, 0, g] * observed[i, r, 1, q]
                sigma = sigma + mean_g * observed[i, r, code.add(rest, 1), q] + mean_q * observed[i, r, rest, g]
            return [sigma, sigma * sigma]

        total, total_2 = _totals(code, observed, first, 2, terms)
        increment_1.increase(total, r, k)
        increment_2.increase(total_2, r, k)


@vector_code
def _add_changes(
    code: Code,
    observed: Array,
    first: Any,
    r: Any,
    couples: Array,
    residual_2: Array,
    change: Array,
    change_2: Array,
    change_residual: Array,
) -> None:
    for k in code.loop(0, couples.shape[0]):
        p, q = couples.entry(k, 0), couples.entry(k, 1)

        def terms(i: Any, p: Any = p, q: Any = q) -> list[Lanes]:
            (d, rest_d), (e, rest_e) = ((observed[i, r, 0, pair], observed[i, r, 2, pair]) for pair in (p, q))
            both = rest_d * rest_e
            y = d * rest_e + rest_d * e - both  # d e - (d - R)(e - R) without cancellation
            return [y, y * y, both, y * rest_d, y * rest_e]

        total, total_2, total_both, total_p, total_q = _totals(code, observed, first, 5, terms)
        change.increase(total, r, k)
        change_2.increase(total_2, r, k)
        residual_2.increase(total_both, r, k)
        change_residual.increase(total_p, r, p, q)
        for _ in code.unless(p, q):
            change_residual.increase(total_q, r, q, p)


def _totals(code: Code, observed: Array, first: Any, count: int, terms: Callable[[Any], list[Lanes]]) -> list[Any]:
    """Sums over a unit's networks of the ``count`` terms of each bundle."""
    sums = [code.variable(code.zero("float64")) for _ in range(count)]
    for bundle in code.loop(first, code.minimum(code.add(first, BUNDLES), observed.shape[0])):
        for total, term in zip(sums, terms(bundle), strict=True):
            total.set(total.get() + term)
    return [total.get().total() for total in sums]


@compiled(nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")
def _accumulate(
    observed: np.ndarray,
    begin: int,
    end: int,
    paired: bool,
    weight_variance: float,
    kernel: np.ndarray,
    increment: np.ndarray,
    diagonal: np.ndarray,
    couples: np.ndarray,
    products: np.ndarray,
    deviation: np.ndarray,
    deviation_2: np.ndarray,
    deviation_3: np.ndarray,
    deviation_4: np.ndarray,
    source: np.ndarray,
    source_2: np.ndarray,
    increment_1: np.ndarray,
    increment_2: np.ndarray,
    powers: np.ndarray,
    residual: np.ndarray,
    residual_2: np.ndarray,
    change: np.ndarray,
    change_2: np.ndarray,
    change_residual: np.ndarray,
) -> None:
    """Recorded layers ``begin`` to ``end``."""
    for r in range(begin, end):
        for first in range(0, observed.shape[0], BUNDLES):
            _add_vectors(observed, first, r, paired, deviation, source, source_2, residual)
            _add_powers(observed, first, r, diagonal, powers)
            _add_squares(observed, first, r, couples, deviation_2, deviation_3, deviation_4)
            _add_products(
                observed, first, r, paired, weight_variance, kernel, increment, products, increment_1, increment_2
            )
            if paired:
                _add_changes(observed, first, r, couples, residual_2, change, change_2, change_residual)
