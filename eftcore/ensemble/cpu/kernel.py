"""The fused pass: LANES networks side by side through all layers, with data that fits into a processor's cache.

The LANES networks of a bundle are an array (neurons, N, LANES), so that a vector register holds the same number of
LANES networks; it takes two registers of AVX-512 where they are float64. A layer is one pass over tiles of neurons.
While a tile is in the cache, all is done that the layer does to it: normals are drawn, the increment is added, sigma is
applied, and products of inputs are added up. Of the whole ensemble only the observations at recorded layers are stored.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.factor import ROUNDING, ROUNDING_OF_DOUBLE, cholesky, symmetrise
from eftcore.ensemble.cpu.layer_step import covariances, record, respond, scaled, shift, spread
from eftcore.ensemble.cpu.tile_pass import activate, add_products, advance, advance_lower, fill_normals
from eftcore.ensemble.cpu.vector_math import STRICT, seed_generators
from eftcore.ensemble.sums import LANES

TILE, LEAST_TILE = 128, 16
"""A tile has about TILE numbers of each network, and at least LEAST_TILE neurons.

Products are added up in the type of the states within a tile, and the sums of the tiles in float64."""

FIRST_ROUNDS = 8
"""Rounds of ``symmetrise`` at the first layer, which starts from the unit matrix; each later layer does one."""

CACHE_LINE = 64


@compiled(nogil=True, fastmath=STRICT, error_model="numpy")
def simulate_bundles(
    key: np.uint64,
    first: int,
    observed: np.ndarray,
    rows: np.ndarray,
    sigma: tuple[int, float, np.ndarray, float, int],
    width: int,
    constants: np.ndarray,
    start: np.ndarray,
    table: np.ndarray,
    reference: np.ndarray,
    twin_root: np.ndarray,
    twin_moment: np.ndarray,
    susceptibility: np.ndarray,
    neighbours: np.ndarray,
) -> None:
    """Simulate bundles ``first``, ``first`` + 1, ... and write their observations (docs/theory.md, 7.1 and 7.2).

    Args:
        key: stream key of the shard, uint64, see eftcore.ensemble.streams.
        first: index of the first bundle in the shard; bundle i has the networks i LANES, ..., (i + 1) LANES - 1.
        observed: (bundles, R, 2 or 4, P, LANES) float64, written. The two vectors of the plain estimator are d and s,
            the four of the paired one d, s, R and T, as eftcore.ensemble.sums defines them.
        rows: (L+1,) row of ``observed`` for each layer, -1 where nothing is recorded.
        sigma: the activation, see eftcore.ensemble.cpu.sigma; states and normals are of the type of its table.
        width: neurons n.
        constants: C_W, C_b, epsilon.
        start: (1, N, N) symmetric root of K^0.
        table: (N, N) index of each pair.
        reference: (2, R, P) K0 and E2(K0) at recorded layers.
        twin_root: (L, N, N) symmetric root of the mean-field increment covariance.
        twin_moment: (L+1, P) E2(K0) at every layer.
        susceptibility, neighbours: (L+1, P, 3), (P, 3) chi and the pairs that its columns stand for.
    """
    paired = observed.shape[2] == 4
    copies = 2 if paired else 1
    pairs, n_inputs, depth = observed.shape[3], start.shape[1], rows.size - 1
    weight_variance, bias_variance, epsilon = constants[0], constants[1], constants[2]
    mean, scale = 1.0 / width, weight_variance / width

    like = sigma[2]
    rounding = ROUNDING if like.itemsize == 4 else ROUNDING_OF_DOUBLE
    tiles = -(-width // max(LEAST_TILE, TILE // n_inputs))
    tile = -(-width // tiles)
    generators = np.empty((like.itemsize, LANES), np.uint32)  # 4 words for float32, 8 for float64
    normals = aligned((tile * n_inputs + 1) // 2 * 2, like).reshape((-1, LANES))
    z = normals[: tile * n_inputs].reshape((tile, n_inputs, LANES))
    flat_fired = aligned(tile * n_inputs, like).reshape((-1, LANES))
    fired = flat_fired.reshape((tile, n_inputs, LANES))
    flat_state = aligned(copies * width * n_inputs, like).reshape((copies, width * n_inputs, LANES))
    state = flat_state.reshape((copies, width, n_inputs, LANES))

    square = (n_inputs, n_inputs, LANES)
    root = np.empty((2, *square), like.dtype)
    moment, empirical = np.empty((2, *square)), np.empty((2, *square))
    covariance, factor, turned, rotation = np.empty(square), np.empty(square), np.empty(square), np.empty(square)
    response, shifted = np.empty((pairs, LANES)), np.empty((pairs, LANES))

    for bundle in range(observed.shape[0]):
        seed_generators(key, (first + bundle) * LANES, generators)
        flat_state[:] = 0.0
        response[:] = 0.0
        rotation[:] = 0.0
        for a in range(n_inputs):
            rotation[a, a] = 1.0
        for copy in range(copies):
            spread(start, 0, 1.0, root, copy)
        for layer in range(depth + 1):
            row = rows[layer]
            moment[:] = 0.0
            empirical[:] = 0.0
            for begin in range(0, width, tile):
                count = min(tile, width - begin)
                fill_normals(generators, normals)
                for copy in range(copies):
                    if paired or layer == 0:
                        advance(state[copy], begin, count, root[copy], z)
                    else:
                        advance_lower(state[copy], begin, count, root[copy], z)
                    activate(*sigma, flat_state[copy], begin * n_inputs, count * n_inputs, flat_fired)
                    add_products(fired, 0, count, moment[copy])
                    if row >= 0:
                        add_products(state[copy], begin, count, empirical[copy])
            if paired:
                shift(susceptibility, neighbours, layer, response, shifted)
            if row >= 0:
                sums = (empirical, moment)
                record(observed, bundle, row, *sums, mean, mean, reference, table, response, shifted, weight_variance)
            if layer == depth:
                break
            covariances(moment, bias_variance, scale, covariance)
            cholesky(covariance, factor, rounding)
            if paired:
                for _ in range(FIRST_ROUNDS if layer == 0 else 1):
                    symmetrise(factor, rotation, turned)
                scaled(turned, epsilon, root, 0)
                spread(twin_root, layer, epsilon, root, 1)
                respond(response, shifted, moment, layer, twin_moment, table, epsilon * epsilon, scale, weight_variance)
            else:
                scaled(factor, epsilon, root, 0)


@njit
def aligned(vectors: int, like: np.ndarray) -> np.ndarray:
    """An array for this many vectors of numbers, of the type of ``like``, that begins at the start of a cache line.

    A vector register then lies in one cache line and is read at once.
    """
    numbers = np.empty(vectors * LANES + CACHE_LINE // like.itemsize, like.dtype)
    skip = (-numbers.ctypes.data % CACHE_LINE) // like.itemsize
    return numbers[skip : skip + vectors * LANES]
