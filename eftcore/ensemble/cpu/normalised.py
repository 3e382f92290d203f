"""The fused pass for blocks of one matrix behind a normalisation.

A layer is two passes over the tiles of neurons: the first adds the increment and sums what the normalisation needs, the
second applies sigma to the normalised neurons (docs/theory.md, section 11.4). Otherwise it is that of
eftcore.ensemble.cpu.kernel, whose conventions hold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.factor import ROUNDING, ROUNDING_OF_DOUBLE, cholesky, symmetrise
from eftcore.ensemble.cpu.kernel import FIRST_ROUNDS, LEAST_TILE, TILE, aligned
from eftcore.ensemble.cpu.lanes import Array, Code, vector_code
from eftcore.ensemble.cpu.layer_step import covariances, record, respond, scaled, shift, spread
from eftcore.ensemble.cpu.tile_pass import activate, add_products, advance, advance_lower, fill_normals
from eftcore.ensemble.cpu.vector_math import STRICT, seed_generators
from eftcore.ensemble.sums import LANES


@vector_code
def add_sums(code: Code, tile: Array, begin: Any, count: Any, total: Array) -> None:
    """total[a] += sum over the tile's neurons of tile[:, a]; ``total`` is (N, LANES) float64."""
    for a in code.loop(0, tile.shape[1]):
        found = code.variable(tile.zero())
        for j in code.loop(0, count):
            found.set(found.get() + tile[code.add(begin, j), a])
        total[a] = total[a] + found.get().double()


@vector_code
def normalise(code: Code, state: Array, begin: Any, count: Any, centre: Array, inverse: Array, out: Array) -> None:
    """out[j, a] = (state[begin + j, a] - centre[a]) inverse[a], with ``centre`` and ``inverse`` (N, LANES)."""
    for a in code.loop(0, out.shape[1]):
        middle, factor = centre[a], inverse[a]
        for j in code.loop(0, count):
            out[j, a] = (state[code.add(begin, j), a] - middle) * factor


@compiled(nogil=True, fastmath=STRICT, error_model="numpy")
def simulate_normalised(
    key: np.uint64,
    first: int,
    observed: np.ndarray,
    rows: np.ndarray,
    sigma: tuple[int, float, np.ndarray, float, int],
    sizes: np.ndarray,
    constants: np.ndarray,
    start: np.ndarray,
    table: np.ndarray,
    reference: np.ndarray,
    twin_root: np.ndarray,
    twin_kernel: np.ndarray,
    twin_moment: np.ndarray,
    susceptibility: np.ndarray,
    direct: np.ndarray,
    slopes: np.ndarray,
    neighbours: np.ndarray,
) -> None:
    """Simulate bundles ``first``, ``first`` + 1, ... and write their observations (docs/theory.md, 7.1, 7.2 and 11.4).

    Args:
        key, first, observed, rows, sigma, constants, start, table, reference, twin_root, twin_moment,
            susceptibility, neighbours: as in eftcore.ensemble.cpu.kernel.
        sizes: neurons n, and the normalisation: 1 rms, 2 layer.
        twin_kernel: (L+1, P) K0 at every layer.
        direct: (L+1, P, 3) the part of chi that is due to the kernel that is divided by.
        slopes: (L+1, P, 2) C_W <d f_p> by the first and the second input of a pair.
    """
    paired = observed.shape[2] == 4
    copies = 2 if paired else 1
    pairs, n_inputs, depth = observed.shape[3], start.shape[1], rows.size - 1
    width, layered = sizes[0], sizes[1] == 2
    weight_variance, bias_variance, epsilon = constants[0], constants[1], constants[2]
    mean, scale = 1.0 / width, weight_variance / width

    like = sigma[2]
    rounding = ROUNDING if like.itemsize == 4 else ROUNDING_OF_DOUBLE
    tiles = -(-width // max(LEAST_TILE, TILE // n_inputs))
    tile = -(-width // tiles)
    generators = np.empty((like.itemsize, LANES), np.uint32)  # 4 words for float32, 8 for float64
    normals = aligned((tile * n_inputs + 1) // 2 * 2, like).reshape((-1, LANES))
    z = normals[: tile * n_inputs].reshape((tile, n_inputs, LANES))
    flat_normed, flat_fired = (
        aligned(tile * n_inputs, like).reshape((-1, LANES)),
        aligned(tile * n_inputs, like).reshape((-1, LANES)),
    )
    normed, fired = flat_normed.reshape((tile, n_inputs, LANES)), flat_fired.reshape((tile, n_inputs, LANES))
    flat_state = aligned(copies * width * n_inputs, like).reshape((copies, width * n_inputs, LANES))
    state = flat_state.reshape((copies, width, n_inputs, LANES))

    square = (n_inputs, n_inputs, LANES)
    root = np.empty((2, *square), like.dtype)
    moment, empirical, total = np.empty((2, *square)), np.empty((2, *square)), np.empty((2, n_inputs, LANES))
    centre, inverse = np.zeros((2, n_inputs, LANES), like.dtype), np.empty((2, n_inputs, LANES), like.dtype)
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
            total[:] = 0.0
            for begin in range(0, width, tile):
                count = min(tile, width - begin)
                fill_normals(generators, normals)
                for copy in range(copies):
                    if paired or layer == 0:
                        advance(state[copy], begin, count, root[copy], z)
                    else:
                        advance_lower(state[copy], begin, count, root[copy], z)
                    add_products(state[copy], begin, count, empirical[copy])
                    if layered:
                        add_sums(state[copy], begin, count, total[copy])
            _by_own(empirical[0], total[0], mean, layered, centre[0], inverse[0])
            if paired:
                _by_theory(twin_kernel[layer], table, inverse[1])
            for begin in range(0, width, tile):
                count = min(tile, width - begin)
                for copy in range(copies):
                    normalise(state[copy], begin, count, centre[copy], inverse[copy], normed)
                    activate(*sigma, flat_normed, 0, count * n_inputs, flat_fired)
                    add_products(fired, 0, count, moment[copy])
            if paired:
                shift(susceptibility, neighbours, layer, response, shifted)
                _shift_directly(
                    empirical[1],
                    total[1],
                    mean,
                    layered,
                    twin_kernel[layer],
                    direct[layer],
                    slopes[layer],
                    table,
                    shifted,
                )
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


@compiled(nogil=True, error_model="numpy")
def _by_own(
    empirical: np.ndarray, total: np.ndarray, mean: float, layered: bool, centre: np.ndarray, inverse: np.ndarray
) -> None:
    """What a network's neurons are normalised by, from their sums of squares and, if ``layered``, their sums."""
    for a in range(centre.shape[0]):
        for lane in range(LANES):
            middle = total[a, lane] * mean if layered else 0.0
            variance = empirical[a, a, lane] * mean - middle * middle
            centre[a, lane] = middle
            inverse[a, lane] = 1.0 / math.sqrt(variance) if variance > 0.0 else 0.0


@compiled(nogil=True, error_model="numpy")
def _by_theory(kernel: np.ndarray, table: np.ndarray, inverse: np.ndarray) -> None:
    """What the neurons of the twin are divided by: the root of K0."""
    for a in range(inverse.shape[0]):
        inverse[a, :] = 1.0 / math.sqrt(kernel[table[a, a]])


@compiled(nogil=True, error_model="numpy")
def _shift_directly(
    empirical: np.ndarray,
    total: np.ndarray,
    mean: float,
    layered: bool,
    kernel: np.ndarray,
    direct: np.ndarray,
    slopes: np.ndarray,
    table: np.ndarray,
    shifted: np.ndarray,
) -> None:
    """Add to ``shifted`` what S responds to in the twin's own kernel and means (eq. 11.21)."""
    for a in range(table.shape[0]):
        for b in range(a, table.shape[0]):
            p, aa, bb = table[a, b], table[a, a], table[b, b]
            for lane in range(LANES):
                added = direct[p, 0] * (empirical[a, a, lane] * mean - kernel[aa])
                added += direct[p, 2] * (empirical[b, b, lane] * mean - kernel[bb])
                if layered:
                    added -= slopes[p, 0] * total[a, lane] * mean + slopes[p, 1] * total[b, lane] * mean
                shifted[p, lane] += added
