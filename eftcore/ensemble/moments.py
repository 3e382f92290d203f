"""Adds a shard's observations up: one pass over each bundle of networks per recorded layer."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from eftcore.ensemble.reference import Reference
from eftcore.ensemble.sums import POWERS, on_grid, sum_shapes
from eftcore.pairs import pair_indices, pair_table
from eftcore.specs import EnsembleSpec


class Moments:
    """Sums of one shard, fed with bundles of observations in the order of the networks.

    One network after the other adds to each sum, bundle by bundle, so the result depends neither on the number of
    threads nor on how many bundles come at once.
    """

    def __init__(self, spec: EnsembleSpec, reference: Reference) -> None:
        assert spec.depths is not None
        self._paired = spec.estimator == "paired"
        shapes = sum_shapes(len(spec.depths), spec.kernel.n_inputs, paired=self._paired)
        self.sums: dict[str, np.ndarray] = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._spec = spec
        self._reference = reference
        self._kernel = reference.kernel
        self._increment = spec.model.bias_variance + spec.model.weight_variance * reference.second_moment

    def add(self, observed: np.ndarray) -> None:
        """Add observations (bundles, R, 2 or 4, P, LANES): d, s, and for paired also R, T; unused lanes are zero."""
        n_inputs = self._spec.kernel.n_inputs
        sums = self.sums
        one, two = ("deviation", "deviation_2", "deviation_3", "deviation_4"), ("source", "source_2")
        three = ("residual", "residual_2", "change", "change_2")
        arguments = (
            observed,
            self._paired,
            self._spec.model.weight_variance,
            self._kernel,
            self._increment,
            *pair_indices(n_inputs),
            pair_table(n_inputs),
            *(sums[name] for name in (*one, *two, "increment", "increment_2", "powers")),
            *(sums.get(name, np.zeros((0, 0))) for name in three),
            sums.get("change_residual", np.zeros((0, 0, 0))),
        )
        _accumulate(*arguments)

    def finished(self) -> dict[str, np.ndarray]:
        """The shard's sums, on the ensemble's grid."""
        return on_grid(self.sums, self._spec, self._reference)


@njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _accumulate(
    observed,
    paired,
    weight_variance,
    kernel,
    increment,
    first,
    second,
    table,
    deviation,
    deviation_2,
    deviation_3,
    deviation_4,
    source,
    source_2,
    increment_1,
    increment_2,
    powers,
    residual,
    residual_2,
    change,
    change_2,
    change_residual,
):
    bundles, recorded, _, pairs, lanes = observed.shape
    n_inputs = table.shape[0]
    for r in prange(recorded):
        sigma = np.empty(lanes)
        for bundle in range(bundles):
            d = observed[bundle, r, 0]
            s = observed[bundle, r, 1]
            rest = observed[bundle, r, 2] if paired else d
            rest_s = observed[bundle, r, 3] if paired else s
            for p in range(pairs):
                total = 0.0
                total_s = 0.0
                total_s2 = 0.0
                for lane in range(lanes):
                    total += d[p, lane]
                    total_s += rest_s[p, lane]
                    total_s2 += rest_s[p, lane] * rest_s[p, lane]
                deviation[r, p] += total
                source[r, p] += total_s
                source_2[r, p] += total_s2
            if paired:
                for p in range(pairs):
                    total = 0.0
                    for lane in range(lanes):
                        total += rest[p, lane]
                    residual[r, p] += total
            for a in range(n_inputs):
                p = table[a, a]
                for lane in range(lanes):
                    sigma[lane] = 1.0
                for k in range(POWERS):
                    total = 0.0
                    for lane in range(lanes):
                        sigma[lane] *= d[p, lane]
                        total += sigma[lane]
                    powers[r, a, k] += total
            for p in range(pairs):
                for q in range(pairs):
                    total = 0.0
                    for lane in range(lanes):
                        total += d[p, lane] * d[p, lane] * d[q, lane]
                    deviation_3[r, p, q] += total
            packed = 0
            for p in range(pairs):
                a, b = first[p], second[p]
                for q in range(p, pairs):
                    total_2 = 0.0
                    total_4 = 0.0
                    for lane in range(lanes):
                        product = d[p, lane] * d[q, lane]
                        total_2 += product
                        total_4 += product * product
                    deviation_2[r, packed] += total_2
                    deviation_4[r, packed] += total_4

                    for lane in range(lanes):
                        sigma[lane] = 0.0
                    for term in range(4):
                        x = a if term < 2 else b
                        y = b if term < 2 else a
                        c = first[q] if term % 2 == 0 else second[q]
                        e = second[q] if term % 2 == 0 else first[q]
                        left, right = table[x, c], table[y, e]
                        k_left, q_right = kernel[r, left], increment[r, right]
                        for lane in range(lanes):
                            sigma[lane] += (
                                weight_variance * (d[left, lane] * s[right, lane] + k_left * rest_s[right, lane])
                                + q_right * rest[left, lane]
                            )
                    total = 0.0
                    total_2 = 0.0
                    for lane in range(lanes):
                        total += sigma[lane]
                        total_2 += sigma[lane] * sigma[lane]
                    increment_1[r, packed] += total
                    increment_2[r, packed] += total_2

                    if paired:
                        total = 0.0
                        total_2 = 0.0
                        total_y = 0.0
                        total_p = 0.0
                        total_q = 0.0
                        for lane in range(lanes):
                            # d d - e e with e = d - R, without cancellation
                            y = d[p, lane] * rest[q, lane] + rest[p, lane] * d[q, lane] - rest[p, lane] * rest[q, lane]
                            total += y
                            total_2 += y * y
                            total_y += rest[p, lane] * rest[q, lane]
                            total_p += y * rest[p, lane]
                            total_q += y * rest[q, lane]
                        change[r, packed] += total
                        change_2[r, packed] += total_2
                        residual_2[r, packed] += total_y
                        change_residual[r, p, q] += total_p
                        if p != q:
                            change_residual[r, q, p] += total_q
                    packed += 1
