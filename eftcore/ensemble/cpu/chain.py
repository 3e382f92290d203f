"""The fused pass for blocks with two matrices: G as a Markov chain, without the n neurons.

Given G, the hidden preactivations of a branch are fresh Gaussians, and given their second moment S, the n neurons make
independent Gaussian steps of covariance epsilon^2 Q. So only a frame of N rows is kept of the n x N matrix of neurons:
the neurons are turned so that the other rows are 0. What these n - N rows add in a layer is a Wishart matrix, which
Bartlett's decomposition draws with N^2 numbers (docs/theory.md, eq. 11.12). The cost of a layer is that of m hidden
neurons; it does not depend on n. LANES networks go side by side, as in eftcore.ensemble.cpu.kernel.
"""

from __future__ import annotations

import math

import numpy as np

from eftcore.compiled import compiled
from eftcore.ensemble.cpu.factor import ROUNDING, ROUNDING_OF_DOUBLE, cholesky
from eftcore.ensemble.cpu.kernel import LEAST_TILE, TILE, aligned
from eftcore.ensemble.cpu.layer_step import covariances, record, respond, shift, spread
from eftcore.ensemble.cpu.tile_pass import activate, add_products, advance_lower, fill_normals
from eftcore.ensemble.cpu.vector_math import STRICT, seed_generators
from eftcore.ensemble.sums import LANES
from eftcore.gaussian.roots import SINGULAR


@compiled(nogil=True, fastmath=STRICT, error_model="numpy")
def simulate_chains(
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
    twin_hidden: np.ndarray,
    twin_kernel: np.ndarray,
    twin_moment: np.ndarray,
    susceptibility: np.ndarray,
    neighbours: np.ndarray,
) -> None:
    """Simulate bundles ``first``, ``first`` + 1, ... and write their observations (docs/theory.md, section 11.3).

    Args:
        key, first, observed, rows, sigma, table, reference, susceptibility, neighbours: as in
            eftcore.ensemble.cpu.kernel.
        sizes: neurons n, hidden neurons m, and the normalisation: 0 none, 1 rms, 2 layer.
        constants: C_2, C_b2, epsilon, C_1, C_b1.
        start: (1, N, N) lower factor of K^0.
        twin_root: (L, N, N) lower factor of the mean-field increment covariance.
        twin_hidden: (L+1, N, N) lower factor of the mean-field covariance of hidden preactivations.
        twin_kernel, twin_moment: (L+1, P) K0 and E2(K0) at every layer.
    """
    paired = observed.shape[2] == 4
    copies = 2 if paired else 1
    pairs, n, depth = observed.shape[3], start.shape[1], rows.size - 1
    width, hidden, normalisation = sizes[0], sizes[1], sizes[2]
    weight_variance, bias_variance, epsilon = constants[0], constants[1], constants[2]
    inner_weight, inner_bias = constants[3], constants[4]
    neurons = width - 1 if normalisation == 2 else width
    kept = min(n, neurons)
    mean, mean_hidden, scale = 1.0 / width, 1.0 / hidden, weight_variance / hidden

    like = sigma[2]
    rounding = ROUNDING if like.itemsize == 4 else ROUNDING_OF_DOUBLE
    tiles = -(-hidden // max(LEAST_TILE, TILE // n))
    tile = -(-hidden // tiles)
    generators = np.empty((like.itemsize, LANES), np.uint32)  # 4 words for float32, 8 for float64
    normals = aligned((tile * n + 1) // 2 * 2, like).reshape((-1, LANES))
    z = normals[: tile * n].reshape((tile, n, LANES))
    flat_fired, flat_state = aligned(tile * n, like).reshape((-1, LANES)), aligned(tile * n, like).reshape((-1, LANES))
    fired, state = flat_fired.reshape((tile, n, LANES)), flat_state.reshape((tile, n, LANES))
    drawn = np.empty(((kept * n + n * (n + 1) // 2 + 1) // 2 * 2, LANES), like.dtype)
    four = np.empty((4, LANES), like.dtype)

    square = (n, n, LANES)
    frame, taken_out = np.empty((2, kept, n, LANES)), np.empty((2, n, LANES))
    root, bartlett = np.empty((2, *square)), np.empty(square)
    gram, factor, covariance = np.empty((2, *square)), np.empty(square), np.empty(square)
    hidden_root = np.empty((copies, *square), like.dtype)
    moment, empirical = np.empty((2, *square)), np.empty((2, *square))
    response, control, shifted = np.empty((pairs, LANES)), np.empty((pairs, LANES)), np.empty((pairs, LANES))

    for bundle in range(observed.shape[0]):
        seed_generators(key, (first + bundle) * LANES, generators)
        frame[:] = 0.0
        taken_out[:] = 0.0
        response[:] = 0.0
        for copy in range(copies):
            _in_every_lane(start[0], 1.0, root[copy])
        for layer in range(depth + 1):
            row = rows[layer]
            fill_normals(generators, drawn)
            _bartlett(generators, drawn, four, neurons - kept, kept * n, bartlett)
            for copy in range(copies):
                _move(frame[copy], drawn, bartlett, root[copy], neurons - kept, gram[copy], factor)
                empirical[copy] = gram[copy]
                if normalisation == 2:
                    _move_taken_out(taken_out[copy], drawn, root[copy], empirical[copy])
            _hidden_covariance(gram[0], mean, normalisation, inner_weight, inner_bias, covariance)
            cholesky(covariance, factor, SINGULAR)
            hidden_root[0] = factor
            if paired:
                spread(twin_hidden, layer, 1.0, hidden_root, 1)
            moment[:] = 0.0
            for begin in range(0, hidden, tile):
                count = min(tile, hidden - begin)
                fill_normals(generators, normals)
                for copy in range(copies):
                    flat_state[:] = 0.0
                    advance_lower(state, 0, count, hidden_root[copy], z)
                    activate(*sigma, flat_state, 0, count * n, flat_fired)
                    add_products(fired, 0, count, moment[copy])
            if paired:
                _control(empirical[1], mean, twin_kernel[layer], response, table, control)
                shift(susceptibility, neighbours, layer, control, shifted)
            if row >= 0:
                sums = (empirical, moment)
                means = (mean, mean_hidden)
                record(observed, bundle, row, *sums, *means, reference, table, response, shifted, weight_variance)
            if layer == depth:
                break
            covariances(moment, bias_variance, scale, covariance)
            cholesky(covariance, factor, rounding)
            root[0] = epsilon * factor
            if paired:
                _in_every_lane(twin_root[layer], epsilon, root[1])
                respond(response, shifted, moment, layer, twin_moment, table, epsilon * epsilon, scale, weight_variance)


@compiled(nogil=True, error_model="numpy")
def _in_every_lane(matrix: np.ndarray, scale: float, out: np.ndarray) -> None:
    for a in range(matrix.shape[0]):
        for b in range(matrix.shape[0]):
            out[a, b] = scale * matrix[a, b]


@compiled(nogil=True, error_model="numpy")
def _bartlett(
    generators: np.ndarray, drawn: np.ndarray, four: np.ndarray, degrees: int, used: int, out: np.ndarray
) -> None:
    """Lower triangular factors (N, N, LANES) of Wishart matrices with this many degrees of freedom (eq. 11.12).

    The normals below the diagonal are those of ``drawn`` after the first ``used``.
    """
    out[:] = 0.0
    for b in range(min(out.shape[0], degrees)):
        _chi(generators, four, degrees - b, out[b, b])
        for a in range(b + 1, out.shape[0]):
            out[a, b] = drawn[used]
            used += 1


@compiled(nogil=True, error_model="numpy")
def _chi(generators: np.ndarray, four: np.ndarray, degrees: int, out: np.ndarray) -> None:
    """Square roots of chi-squared variables with ``degrees`` degrees of freedom.

    By the rejection method of Marsaglia and Tsang (2000) for gamma variables; -log of its uniform number is half the
    sum of two squared normals. All lanes draw until the last has accepted.
    """
    if degrees == 1:
        fill_normals(generators, four)
        for lane in range(LANES):
            out[lane] = abs(four[0, lane])
        return
    d = 0.5 * degrees - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    out[:] = -1.0
    left = LANES
    while left > 0:
        fill_normals(generators, four)
        for lane in range(LANES):
            if out[lane] >= 0.0:
                continue
            x = float(four[0, lane])
            v = (1.0 + c * x) ** 3
            if v <= 0.0:
                continue
            exponential = 0.5 * (float(four[1, lane]) ** 2 + float(four[2, lane]) ** 2)
            if -exponential < 0.5 * x * x + d - d * v + d * math.log(v):
                out[lane] = math.sqrt(2.0 * d * v)
                left -= 1


@compiled(nogil=True, error_model="numpy")
def _move(
    frame: np.ndarray,
    drawn: np.ndarray,
    bartlett: np.ndarray,
    root: np.ndarray,
    others: int,
    gram: np.ndarray,
    factor: np.ndarray,
) -> None:
    """Add the increments of a layer, of covariance root root^T, to all neurons; ``gram`` is then n G (eq. 11.12).

    ``frame`` (rows, N, LANES) are the rows that are kept, ``others`` the number of rows that are 0 before.
    """
    kept, n = frame.shape[0], frame.shape[1]
    for f in range(kept):
        for a in range(n):
            for b in range(a + 1):
                for lane in range(LANES):
                    frame[f, a, lane] += root[a, b, lane] * drawn[f * n + b, lane]
    for a in range(n):
        for b in range(a, n):
            for lane in range(LANES):
                gram[a, b, lane] = 0.0
            for f in range(kept):
                for lane in range(LANES):
                    gram[a, b, lane] += frame[f, a, lane] * frame[f, b, lane]
    if others == 0:
        return
    # rows of (root bartlett)^T are what the other neurons come to; factor holds root bartlett for now
    for a in range(n):
        for j in range(n):
            for lane in range(LANES):
                factor[a, j, lane] = 0.0
            for b in range(j, a + 1):
                for lane in range(LANES):
                    factor[a, j, lane] += root[a, b, lane] * bartlett[b, j, lane]
    for a in range(n):
        for b in range(a, n):
            for j in range(a + 1):
                for lane in range(LANES):
                    gram[a, b, lane] += factor[a, j, lane] * factor[b, j, lane]
    cholesky(gram, factor, SINGULAR)
    for j in range(kept):
        for a in range(n):
            for lane in range(LANES):
                frame[j, a, lane] = factor[a, j, lane]


@compiled(nogil=True, error_model="numpy")
def _move_taken_out(row: np.ndarray, drawn: np.ndarray, root: np.ndarray, empirical: np.ndarray) -> None:
    """The same for the direction (1, ..., 1) / sqrt(n), whose products join ``empirical``, n G."""
    n = row.shape[0]
    last = drawn.shape[0] - n
    for a in range(n):
        for b in range(a + 1):
            for lane in range(LANES):
                row[a, lane] += root[a, b, lane] * drawn[last + b, lane]
    for a in range(n):
        for b in range(a, n):
            for lane in range(LANES):
                empirical[a, b, lane] += row[a, lane] * row[b, lane]


@compiled(nogil=True, error_model="numpy")
def _hidden_covariance(
    gram: np.ndarray, mean: float, normalisation: int, weight: float, bias: float, out: np.ndarray
) -> None:
    """A(G), upper triangle (eq. 11.2)."""
    n = gram.shape[0]
    for a in range(n):
        for b in range(a, n):
            for lane in range(LANES):
                entry = gram[a, b, lane] * mean
                if normalisation > 0:
                    scale = math.sqrt(gram[a, a, lane]) * math.sqrt(gram[b, b, lane])
                    entry = gram[a, b, lane] / scale if scale > 0.0 else 0.0
                    entry = 1.0 if a == b and scale > 0.0 else entry
                out[a, b, lane] = weight * entry + bias


@compiled(nogil=True, error_model="numpy")
def _control(
    empirical: np.ndarray, mean: float, kernel: np.ndarray, response: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """(P, LANES) the linear deviation of a network: that of its twin plus the response (eq. 11.13)."""
    for a in range(table.shape[0]):
        for b in range(a, table.shape[0]):
            p = table[a, b]
            for lane in range(LANES):
                out[p, lane] = empirical[a, b, lane] * mean - kernel[p] + response[p, lane]
