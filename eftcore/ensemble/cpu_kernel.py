"""The fused pass: LANES networks side by side through all layers, in data that stays in a processor's cache.

A bundle is an array (neurons, N, LANES) float32 whose last axis fills the vector registers. Each layer is one pass over
tiles of TILE neurons: draw normals, add the increment, apply sigma, add up the products of inputs. Nothing of the size
of an ensemble is ever stored except the recorded observations.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from eftcore.ensemble import vector_math
from eftcore.ensemble.lane_root import symmetric_roots
from eftcore.ensemble.sums import LANES
from eftcore.ensemble.vector_math import GENERATORS, STRICT, fill_normals, seed_generators

TILE = 32
"""Largest number of neurons of a tile, a multiple of 8. Their products are added in float32, tiles in float64."""

KINDS = {"linear": 0, "tanh": 1, "erf": 2, "leaky_relu": 3, "gelu": 4, "silu": 5, "softplus": 6}
"""Activations that ``_activate`` knows; its parameter is erf's scale, leaky_relu's slope or softplus' beta."""


@njit(parallel=True, cache=True)
def simulate_bundles(
    key: np.uint64,
    first: int,
    observed: np.ndarray,
    rows: np.ndarray,
    kind: int,
    parameter: float,
    width: int,
    constants: np.ndarray,
    start: np.ndarray,
    reference: np.ndarray,
    twin_root: np.ndarray,
    twin_moment: np.ndarray,
    susceptibility: np.ndarray,
    neighbours: np.ndarray,
) -> None:
    """Simulate bundles ``first``, ``first`` + 1, ... and write their observations.

    Args:
        key: stream key of the shard, uint64.
        observed: (bundles, R, 2 or 4, P, LANES) float64, written; what is in it, see eftcore.ensemble.sums. Four
            vectors stand for the paired estimator.
        rows: (L+1,) row of ``observed`` for each layer, -1 where nothing is recorded.
        kind, parameter: the activation, see KINDS.
        width: neurons n.
        constants: C_W, C_b, epsilon.
        start: (N, N) symmetric root of K^0.
        reference: (2, R, P) K0 and E2(K0) at recorded layers.
        twin_root: (L, N, N) symmetric root of the mean-field increment covariance.
        twin_moment: (L+1, P) E2(K0).
        susceptibility, neighbours: (L+1, P, 3), (P, 3) chi and the pairs of its columns.
    """
    for bundle in prange(observed.shape[0]):
        _bundle(
            key,
            first + bundle,
            observed[bundle],
            rows,
            kind,
            parameter,
            width,
            constants,
            start,
            reference,
            twin_root,
            twin_moment,
            susceptibility,
            neighbours,
        )


@njit(cache=True, fastmath=STRICT, error_model="numpy")
def _bundle(
    key,
    bundle,
    observed,
    rows,
    kind,
    parameter,
    width,
    constants,
    start,
    reference,
    twin_root,
    twin_moment,
    susceptibility,
    neighbours,
):
    paired = observed.shape[1] == 4
    pairs = observed.shape[2]
    n_inputs = start.shape[0]
    depth = rows.size - 1
    weight_variance, bias_variance, epsilon = constants[0], constants[1], constants[2]

    generators = np.empty((4, GENERATORS), np.uint32)
    seed_generators(key, bundle * LANES + np.arange(LANES), generators)
    tile = min(TILE, (width + 7) // 8 * 8)
    blocks = tile * n_inputs * LANES // (2 * GENERATORS)
    normals = np.empty((2, blocks * GENERATORS), np.float32)
    z = normals.reshape((tile, n_inputs, LANES))
    fired = np.empty((tile, n_inputs, LANES), np.float32)
    partial = np.empty((pairs, LANES), np.float32)

    state = np.zeros((2 if paired else 1, width, n_inputs, LANES), np.float32)
    root = np.empty((2, n_inputs, n_inputs, LANES), np.float32)
    moment = np.empty((2, pairs, LANES))
    empirical = np.empty((2, pairs, LANES))
    response = np.zeros((pairs, LANES))
    shifted = np.zeros((pairs, LANES))

    covariance = np.empty((n_inputs, n_inputs, LANES))
    vectors = np.zeros((n_inputs, n_inputs, LANES))
    work = np.empty((n_inputs, n_inputs, LANES))
    scratch = np.empty((n_inputs, n_inputs, LANES))
    for a in range(n_inputs):
        vectors[a, a] = 1.0
    _spread(start, 1.0, root[0])
    _spread(start, 1.0, root[1])

    for layer in range(depth + 1):
        row = rows[layer]
        moment[:] = 0.0
        empirical[:] = 0.0
        for begin in range(0, width, tile):
            end = min(begin + tile, width)
            fill_normals(generators, normals, blocks)
            for copy in range(state.shape[0]):
                neurons = state[copy, begin:end]
                _advance(neurons, root[copy], z)
                _activate(kind, parameter, neurons.reshape(-1), fired.reshape(-1))
                _add_products(fired[: end - begin], partial, moment[copy])
                if row >= 0:
                    _add_products(neurons, partial, empirical[copy])
        if paired:
            _chi(susceptibility[layer], neighbours, response, shifted)
        if row >= 0:
            for p in range(pairs):
                for lane in range(LANES):
                    observed[row, 0, p, lane] = empirical[0, p, lane] / width - reference[0, row, p]
                    observed[row, 1, p, lane] = moment[0, p, lane] / width - reference[1, row, p]
                if paired:
                    for lane in range(LANES):
                        change = (empirical[0, p, lane] - empirical[1, p, lane]) / width
                        observed[row, 2, p, lane] = change - response[p, lane]
                        change = (moment[0, p, lane] - moment[1, p, lane]) / width
                        observed[row, 3, p, lane] = change - shifted[p, lane] / weight_variance
        if layer == depth:
            break
        p = 0
        for a in range(n_inputs):
            for b in range(a, n_inputs):
                for lane in range(LANES):
                    q = bias_variance + weight_variance * moment[0, p, lane] / width
                    covariance[a, b, lane] = q
                    covariance[b, a, lane] = q
                p += 1
        symmetric_roots(covariance, vectors, work, scratch, epsilon, root[0])
        if paired:
            _spread(twin_root[layer], epsilon, root[1])
            for p in range(pairs):
                for lane in range(LANES):
                    drive = weight_variance * (moment[1, p, lane] / width - twin_moment[layer, p])
                    response[p, lane] += epsilon * epsilon * (shifted[p, lane] + drive)


@njit(fastmath=STRICT, error_model="numpy")
def _spread(matrix, scale, out):
    """The same matrix in every lane."""
    for a in range(matrix.shape[0]):
        for b in range(matrix.shape[1]):
            out[a, b] = np.float32(scale * matrix[a, b])


@njit(fastmath=STRICT, error_model="numpy")
def _advance(tile, root, z):
    """tile += z root."""
    neurons, n_inputs, _ = tile.shape
    fours = n_inputs - n_inputs % 4
    for a in range(n_inputs):
        for b in range(0, fours, 4):
            for j in range(neurons):
                for lane in range(LANES):
                    tile[j, a, lane] += (
                        root[a, b, lane] * z[j, b, lane]
                        + root[a, b + 1, lane] * z[j, b + 1, lane]
                        + root[a, b + 2, lane] * z[j, b + 2, lane]
                        + root[a, b + 3, lane] * z[j, b + 3, lane]
                    )
        for b in range(fours, n_inputs):
            for j in range(neurons):
                for lane in range(LANES):
                    tile[j, a, lane] += root[a, b, lane] * z[j, b, lane]


@njit(fastmath=STRICT, error_model="numpy")
def _add_products(tile, partial, total):
    """Add the sums over a tile's neurons of the products of inputs a <= b to total (P, LANES)."""
    neurons, n_inputs, _ = tile.shape
    fours = neurons - neurons % 4
    p = 0
    for a in range(n_inputs):
        for b in range(a, n_inputs):
            for lane in range(LANES):
                partial[p, lane] = np.float32(0)
            for j in range(0, fours, 4):
                for lane in range(LANES):
                    partial[p, lane] += (
                        tile[j, a, lane] * tile[j, b, lane]
                        + tile[j + 1, a, lane] * tile[j + 1, b, lane]
                        + tile[j + 2, a, lane] * tile[j + 2, b, lane]
                        + tile[j + 3, a, lane] * tile[j + 3, b, lane]
                    )
            for j in range(fours, neurons):
                for lane in range(LANES):
                    partial[p, lane] += tile[j, a, lane] * tile[j, b, lane]
            for lane in range(LANES):
                total[p, lane] += partial[p, lane]
            p += 1


@njit(fastmath=STRICT, error_model="numpy")
def _chi(susceptibility, neighbours, response, out):
    for p in range(response.shape[0]):
        for lane in range(LANES):
            out[p, lane] = 0.0
        for k in range(3):
            q = neighbours[p, k]
            for lane in range(LANES):
                out[p, lane] += susceptibility[p, k] * response[q, lane]


@njit(fastmath=STRICT, error_model="numpy")
def _activate(kind, parameter, x, out):
    scale = np.float32(parameter)
    if kind == 0:
        for i in range(x.size):
            out[i] = x[i]
    elif kind == 1:
        for i in range(x.size):
            out[i] = vector_math.tanh(x[i])
    elif kind == 2:
        for i in range(x.size):
            out[i] = vector_math.erf(scale * x[i])
    elif kind == 3:
        for i in range(x.size):
            out[i] = x[i] if x[i] > np.float32(0) else scale * x[i]
    elif kind == 4:
        for i in range(x.size):
            out[i] = vector_math.gelu(x[i])
    elif kind == 5:
        for i in range(x.size):
            out[i] = vector_math.silu(x[i])
    else:
        inverse = np.float32(1) / scale
        for i in range(x.size):
            out[i] = vector_math.softplus(scale * x[i]) * inverse
