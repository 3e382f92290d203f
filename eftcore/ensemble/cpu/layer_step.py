"""What the fused pass does once per layer, after the neurons: observations, linear response, next covariance.

Symbols are those of docs/theory.md, section 7: C_W and C_b the variances of weights and biases, u the response, chi the
susceptibility, E2 the second moment of sigma at infinite width, S~ the one of the mean-field twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from eftcore.ensemble.cpu.lanes import Array, Code, Lanes, vector_code
from eftcore.ensemble.cpu.vector_math import STRICT


@vector_code
def covariances(code: Code, moment: Array, bias_variance: Lanes, scale: Lanes, out: Array) -> None:
    """Covariances of the next increments: out = C_b + scale moment[0], with ``scale`` = C_W / n.

    Both are (N, N, LANES) float64, of which the upper triangle is used. ``moment[0]`` are sums over neurons of products
    of sigma.
    """
    size = out.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            out[a, b] = moment[0, a, b] * scale + bias_variance


@vector_code
def scaled(code: Code, factor: Array, scale: Lanes, out: Array, copy: Any) -> None:
    """out[copy] = scale factor, rounded to the type of ``out``; (N, N, LANES) each."""
    size = factor.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(0, size):
            out[copy, a, b] = out.typed(factor[a, b] * scale)


@vector_code
def spread(code: Code, matrices: Array, layer: Any, scale: Lanes, out: Array, copy: Any) -> None:
    """out[copy] = scale matrices[layer] in every lane, rounded to the type of ``out``, from ``matrices`` (L, N, N)."""
    size = matrices.shape[1]
    for a in code.loop(0, size):
        for b in code.loop(0, size):
            out[copy, a, b] = out.typed(matrices.copies(layer, a, b) * scale)


@vector_code
def shift(code: Code, susceptibility: Array, neighbours: Array, layer: Any, response: Array, out: Array) -> None:
    """out = chi u, with u = ``response``, both (P, LANES).

    chi has three entries in each row: ``susceptibility`` (L+1, P, 3), in the columns ``neighbours`` (P, 3).
    """
    for p in code.loop(0, response.shape[0]):
        terms = [susceptibility.copies(layer, p, k) * response[neighbours.entry(p, k)] for k in range(3)]
        out[p] = terms[0] + terms[1] + terms[2]


@vector_code
def respond(
    code: Code,
    response: Array,
    shifted: Array,
    moment: Array,
    layer: Any,
    expected: Array,
    table: Array,
    step: Lanes,
    scale: Lanes,
    weight_variance: Lanes,
) -> None:
    """One layer of the linear response (eq. 7.3): u += eps^2 (chi u + C_W (S~ - E2(K0))).

    u is ``response`` and chi u is ``shifted``, (P, LANES) each; ``scale`` moment[1] is C_W S~ with ``scale`` = C_W / n;
    ``expected`` (L+1, P) is E2(K0), ``step`` is eps^2, ``table`` (N, N) has the index of each pair.
    """
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            drive = moment[1, a, b] * scale - weight_variance * expected.copies(layer, p)
            response[p] = response[p] + step * (shifted[p] + drive)


@vector_code
def observe(
    code: Code,
    observed: Array,
    bundle: Any,
    row: Any,
    sums: Array,
    quantity: Any,
    reference: Array,
    table: Array,
    scale: Lanes,
) -> None:
    """Write d (quantity 0) or s (quantity 1): the mean over neurons minus its value at infinite width.

    observed[bundle, row, quantity] = scale sums[0] - reference[quantity, row] for every pair, with ``scale`` = 1 / n
    and ``sums[0]`` (N, N, LANES) the network's sums over neurons.
    """
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            observed[bundle, row, quantity, p] = sums[0, a, b] * scale - reference.copies(quantity, row, p)


@vector_code
def observe_rest(
    code: Code,
    observed: Array,
    bundle: Any,
    row: Any,
    sums: Array,
    quantity: Any,
    control: Array,
    table: Array,
    scale: Lanes,
    weight: Lanes,
) -> None:
    """Write R (quantity 2) or T (quantity 3): network minus twin minus linear response (eq. 7.4).

    observed[bundle, row, quantity] = scale (sums[0] - sums[1]) - weight control for every pair, with ``scale`` = 1 / n,
    ``sums`` the sums over neurons of network and twin, and ``control`` (P, LANES) u or chi u.
    """
    size = table.shape[0]
    for a in code.loop(0, size):
        for b in code.loop(a, size):
            p = table.entry(a, b)
            change = (sums[0, a, b] - sums[1, a, b]) * scale
            observed[bundle, row, quantity, p] = change - control[p] * weight


@njit(fastmath=STRICT, error_model="numpy")
def record(
    observed: np.ndarray,
    bundle: int,
    row: int,
    empirical: np.ndarray,
    moment: np.ndarray,
    mean: float,
    mean_fired: float,
    reference: np.ndarray,
    table: np.ndarray,
    response: np.ndarray,
    shifted: np.ndarray,
    weight_variance: float,
) -> None:
    """Write the two or four vectors of a recorded layer, from the sums of G and S over neurons.

    ``mean`` and ``mean_fired`` make means of them; ``response`` and ``shifted`` are u and chi of what S responds to.
    """
    observe(observed, bundle, row, empirical, 0, reference, table, mean)
    observe(observed, bundle, row, moment, 1, reference, table, mean_fired)
    if observed.shape[2] == 4:
        observe_rest(observed, bundle, row, empirical, 2, response, table, mean, 1.0)
        observe_rest(observed, bundle, row, moment, 3, shifted, table, mean_fired, 1.0 / weight_variance)
