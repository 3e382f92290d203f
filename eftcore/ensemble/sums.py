"""The additive float64 sums over networks from which every estimate and its standard error is computed.

Per network and recorded layer there are four vectors in pair space, all measured from the infinite-width reference:
d = G - K0 and s = S - E2(K0), and the residuals R and T, which have the means of d and s and are averaged in their
place. For the plain estimator R = d and T = s. For the paired one R = d - (G~ - K0 + u) and
T = s - (S~ - E2(K0) + chi u / C_W); the controls in parentheses have mean zero (docs/theory.md, eq. 7.4).
"""

from __future__ import annotations

import numpy as np

from eftcore.ensemble.reference import Reference
from eftcore.pairs import pair_indices
from eftcore.specs import EnsembleSpec

LANES = 16
"""Networks that are processed side by side; observations come in bundles of this many."""

UNIT = 8 * LANES
"""Number of networks that a processor sums up before the total is added to the sum of the shard.

Pieces of a shard are whole units, so that the sum does not depend on the number of networks in a piece. Another unit
would add in another order and change the last digits."""

DEVICE_UNIT = 4096
"""Number of networks that a GPU sums up before the total is added to the sum of the shard."""

GROUPS = 32
"""Number of groups into which the networks of an ensemble are divided, for the joint law of errors over depth."""

GROUP_SUMS = ("group_deviation", "group_square", "group_residual", "group_change")
"""Names of the sums over the networks of each group; only the paired estimator has the last two."""

POWERS = 8
"""Highest power sum of the diagonal of G: the variance of the fourth cumulant needs the eighth."""

GRID_BITS = 22
"""Bits that a shard's sum keeps below the size of one network's term; fewer for products (see on_grid)."""


def sum_shapes(recorded: int, n_inputs: int, *, paired: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the sums; P pairs, packed = upper triangle of P x P, row-major.

    deviation (R, P) sum d; deviation_2 (R, packed) sum d_p d_q; deviation_3 (R, P, P) sum d_p^2 d_q;
    deviation_4 (R, packed) sum d_p^2 d_q^2; source and source_2 (R, P) sum T, T^2; increment and increment_2
    (R, packed) sum of the G Q products minus Sigma(K0) and their linear control, and of its square; powers (R, N, 8)
    sum d_aa^k.
    Paired only, with y = d d^T - (d - R)(d - R)^T: residual (R, P) sum R; residual_2 (R, packed) sum R_p R_q;
    change and change_2 (R, packed) sum y, y^2; change_residual (R, P, P) sum y_pq R_p.
    """
    pairs = n_inputs * (n_inputs + 1) // 2
    packed = pairs * (pairs + 1) // 2
    shapes: dict[str, tuple[int, ...]] = {
        "deviation": (recorded, pairs),
        "deviation_2": (recorded, packed),
        "deviation_3": (recorded, pairs, pairs),
        "deviation_4": (recorded, packed),
        "source": (recorded, pairs),
        "source_2": (recorded, pairs),
        "increment": (recorded, packed),
        "increment_2": (recorded, packed),
        "powers": (recorded, n_inputs, POWERS),
    }
    if paired:
        shapes |= {
            "residual": (recorded, pairs),
            "residual_2": (recorded, packed),
            "change": (recorded, packed),
            "change_2": (recorded, packed),
            "change_residual": (recorded, pairs, pairs),
        }
    return shapes


def group_shapes(recorded: int, n_inputs: int, *, paired: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes (GROUPS, R, P) of the sums by group: of d_p and d_p^2 and, if paired, of R_p and y_pp.

    Samples of older versions lack these sums.
    """
    shape = (GROUPS, recorded, n_inputs * (n_inputs + 1) // 2)
    return dict.fromkeys(GROUP_SUMS if paired else GROUP_SUMS[:2], shape)


def on_grid(sums: dict[str, np.ndarray], spec: EnsembleSpec, reference: Reference) -> dict[str, np.ndarray]:
    """A shard's sums rounded to multiples of a power of two that the ensemble fixes (eq. 7.13).

    Sums of multiples of one power of two are exact in float64 until they outgrow it by 2^53, so shards add up to the
    same digits in any order and grouping (for up to some 10^9 networks). The power is chosen 2^22 below the size of one
    network's term (2^8 for the eighth power), far below the statistical error of any shard.
    """
    kernel, source, increment, relative = _sizes(spec, reference)
    control = relative if spec.estimator == "paired" else 1.0
    second = {"deviation_2": (2, 1.0), "deviation_4": (4, 1.0), "residual_2": (2, control)}
    units: dict[str, tuple[np.ndarray, int]] = {
        "deviation": (kernel, 1),
        "deviation_3": (kernel[:, :, None] ** 2 * kernel[:, None, :], 3),
        "source": (source * control, 1),
        "source_2": ((source * control) ** 2, 2),
        "increment": (increment, 1),
        "increment_2": (increment**2, 2),
        "powers": (_diagonal(kernel, spec)[:, :, None] ** np.arange(1, POWERS + 1), POWERS),
        "residual": (kernel * control, 1),
        "change": (_outer(kernel) * control, 2),
        "change_2": ((_outer(kernel) * control) ** 2, 4),
        "change_residual": (kernel[:, :, None] ** 2 * kernel[:, None, :] * control**2, 3),
        "group_deviation": (kernel, 1),
        "group_square": (kernel**2, 2),
        "group_residual": (kernel * control, 1),
        "group_change": (kernel**2 * control, 2),
    }
    units |= {name: ((_outer(kernel) ** (order // 2)) * factor**2, order) for name, (order, factor) in second.items()}
    return {name: _rounded(value, *units[name]) for name, value in sums.items()}


def unpack(packed: np.ndarray, pairs: int) -> np.ndarray:
    """Symmetric matrices (R, P, P) from their packed upper triangles (R, packed)."""
    row, column = np.triu_indices(pairs)
    full = np.empty((len(packed), pairs, pairs))
    full[:, row, column] = full[:, column, row] = packed
    return full


def _sizes(spec: EnsembleSpec, reference: Reference) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Sizes of one network's d (R, P), s (R, P) and G Q products (R, packed), and of R and T relative to d and s."""
    n_inputs = spec.kernel.n_inputs
    first, second = pair_indices(n_inputs)
    fluctuation = spec.width**-0.5
    kernel, source = (
        np.sqrt(np.abs(diagonal[:, first] * diagonal[:, second]))
        for diagonal in (_diagonal(x, spec) for x in (reference.kernel, reference.second_moment))
    )
    increment = spec.model.bias_variance + spec.model.weight_variance * source
    product = _outer(np.sqrt(kernel * increment))
    return kernel * fluctuation, source * fluctuation, product * fluctuation, fluctuation


def _diagonal(pairs: np.ndarray, spec: EnsembleSpec) -> np.ndarray:
    first, second = pair_indices(spec.kernel.n_inputs)
    return pairs[:, first == second]


def _outer(vector: np.ndarray) -> np.ndarray:
    """(R, packed) products x_p x_q, p <= q, of the vectors (R, P)."""
    row, column = np.triu_indices(vector.shape[1])
    products: np.ndarray = vector[:, row] * vector[:, column]
    return products


def _rounded(value: np.ndarray, size: np.ndarray, order: int) -> np.ndarray:
    bits = GRID_BITS - 2 * (order - 1)
    known = size > np.finfo(float).tiny
    unit = np.ldexp(1.0, np.frexp(np.where(known, size, 1.0))[1] - bits)
    return np.where(known, np.rint(value / unit) * unit, value)
