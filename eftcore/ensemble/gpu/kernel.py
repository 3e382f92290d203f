"""The kernel: a block of networks goes through all layers in the registers of a graphics processor.

Each program of the launch simulates NETWORKS networks side by side. Their states are N blocks (WIDTH, NETWORKS), one
for each input. Triton spreads every block over the lanes in the same way, so that products of inputs and increments
need nothing from other lanes; only sums over neurons do. The states never leave the registers. The program reads the
path of the infinite-width theory from memory, and writes the observations at recorded layers.

Triton has no arrays of blocks. So the states, and every matrix with one number per network, are Python tuples of
blocks, and loops over their entries are written out in full while the kernel is compiled.
"""

from __future__ import annotations

import triton
import triton.language as tl

from eftcore.ensemble.gpu.arithmetic import activate, normals
from eftcore.ensemble.gpu.roots import cholesky, identity, pair, symmetric_root


@triton.jit(do_not_specialize=["key", "first", "width", "networks", "depth", "recorded"])
def simulate_block(
    observed,
    rows,
    constants,
    start,
    reference,
    twin_root,
    twin_moment,
    susceptibility,
    key,
    first,
    networks,
    width,
    depth,
    recorded,
    KIND: tl.constexpr,
    PAIRED: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    MASKED: tl.constexpr,
    NETWORKS: tl.constexpr,
):
    """Simulate NETWORKS networks and write their observations (docs/theory.md, 7.1 and 7.2).

    Program i of the launch takes the networks ``first`` + i NETWORKS, ..., ``first`` + (i + 1) NETWORKS - 1.

    Args:
        observed: (R, 2 or 4, P, networks) float64, written. The two vectors of the plain estimator are d and s, the
            four of the paired one d, s, R and T, as eftcore.ensemble.sums defines them.
        rows: (L+1,) int32, row of ``observed`` for each layer, -1 where nothing is recorded.
        constants: (5,) float64 C_W, C_b, epsilon, the activation's parameter, 1 / n.
        start: (N, N) float32 symmetric root of K^0.
        reference: (2, R, P) float64 K0 and E2(K0) at recorded layers.
        twin_root: (L+1, N, N) float32 epsilon times the root of the mean-field increment covariance; the last layer's
            is not used.
        twin_moment: (L+1, P) float64 E2(K0) at every layer.
        susceptibility: (L+1, P, 3) float64 chi, columns at the pairs aa, ab, bb of each pair (a, b).
        key: stream key of the shard, see eftcore.ensemble.streams; its upper 63 bits.
        first: index of the first network in the shard.
        networks: how many networks ``observed`` holds; programs write nothing beyond them.
        width, depth, recorded: n, L, R.
        KIND: the activation's number in eftcore.ensemble.kinds.
        PAIRED: whether the estimator is the paired one.
        N: number of inputs.
        WIDTH: n rounded up to a power of two.
        MASKED: whether WIDTH differs from n, so that the neurons beyond n must be kept out of sums.
        NETWORKS: networks side by side in a program, a power of two.
    """
    PAIRS: tl.constexpr = N * (N + 1) // 2
    COPIES: tl.constexpr = 4 if PAIRED else 2
    weight_variance = tl.load(constants)
    inverse_variance = 1.0 / weight_variance
    bias_variance = tl.load(constants + 1)
    epsilon = tl.load(constants + 2)
    parameter = tl.load(constants + 3).to(tl.float32)
    inverse_width = tl.load(constants + 4)
    column = tl.program_id(0) * NETWORKS + tl.arange(0, NETWORKS)[None, :]
    neuron = tl.arange(0, WIDTH)[:, None] + tl.zeros([WIDTH, NETWORKS], tl.int32)
    network = (first + column) + tl.zeros([WIDTH, NETWORKS], tl.int32)
    live = neuron < width

    zero = tl.zeros([WIDTH, NETWORKS], tl.float32)
    still = tl.zeros([1, NETWORKS], tl.float64)
    state = ()
    spread = ()
    for a in tl.static_range(N):
        state = state + (zero,)
        for b in tl.static_range(N):
            spread = spread + (tl.load(start + a * N + b),)
    state = _advance(state, spread, _draw(key, network, 0, neuron, N), N)
    twin = state
    response = ()
    for _ in tl.static_range(PAIRS):
        response = response + (still,)
    vectors = identity(still.to(tl.float32), N)

    for layer in range(depth + 1):
        row = tl.load(rows + layer)
        fired = _fire(state, parameter, live, KIND, N, MASKED)
        moment = _products(fired, N)
        if PAIRED:
            twin_moments = _products(_fire(twin, parameter, live, KIND, N, MASKED), N)
            shifted = _chi(susceptibility + layer * PAIRS * 3, response, N)
        if row >= 0:
            empirical = _products(_alive(state, live, N, MASKED), N)
            if PAIRED:
                twin_empirical = _products(_alive(twin, live, N, MASKED), N)
            for p in tl.static_range(PAIRS):
                place = observed + (row * COPIES * PAIRS + p).to(tl.int64) * networks + column
                keep = column < networks
                kernel = tl.load(reference + row * PAIRS + p)
                second_moment = tl.load(reference + (recorded + row) * PAIRS + p)
                tl.store(place, empirical[p].to(tl.float64) * inverse_width - kernel, mask=keep)
                next_place = place + tl.cast(PAIRS, tl.int64) * networks
                tl.store(next_place, moment[p].to(tl.float64) * inverse_width - second_moment, mask=keep)
                if PAIRED:
                    change = (empirical[p].to(tl.float64) - twin_empirical[p].to(tl.float64)) * inverse_width
                    next_place += tl.cast(PAIRS, tl.int64) * networks
                    tl.store(next_place, change - response[p], mask=keep)
                    change = (moment[p].to(tl.float64) - twin_moments[p].to(tl.float64)) * inverse_width
                    next_place += tl.cast(PAIRS, tl.int64) * networks
                    tl.store(next_place, change - shifted[p] * inverse_variance, mask=keep)

        # after the last layer this step changes nothing that is read again; leaving it out would take a branch
        covariance = ()
        for p in tl.static_range(PAIRS):
            increment = bias_variance + weight_variance * (moment[p].to(tl.float64) * inverse_width)
            covariance = covariance + ((epsilon * epsilon * increment).to(tl.float32),)
        z = _draw(key, network, layer + 1, neuron, N)
        if PAIRED:
            root, vectors = symmetric_root(covariance, vectors, N)
            follow = ()
            for k in tl.static_range(N * N):
                follow = follow + (tl.load(twin_root + layer * N * N + k),)
            twin = _advance(twin, follow, z, N)
            answer = ()
            for p in tl.static_range(PAIRS):
                moved = twin_moments[p].to(tl.float64) * inverse_width - tl.load(twin_moment + layer * PAIRS + p)
                drive = epsilon * epsilon * (shifted[p] + weight_variance * moved)
                answer = answer + (response[p] + drive,)
            response = answer
            state = _advance(state, root, z, N)
        else:
            state = _advance_lower(state, cholesky(covariance, N), z, N)


@triton.jit
def _draw(key, network, layer, neuron, N: tl.constexpr):
    """Standard normals for every input, a tuple of N blocks.

    They depend on key, network, layer, neuron and input alone.
    """
    z = ()
    for group in tl.static_range((N + 3) // 4):
        z = z + normals(key, network, neuron * 0 + layer, neuron, neuron * 0 + group)
    return z[:N]


@triton.jit
def _advance(state, root, z, N: tl.constexpr):
    """state + z root^T."""
    moved = ()
    for a in tl.static_range(N):
        entry = state[a]
        for b in tl.static_range(N):
            entry += root[a * N + b] * z[b]
        moved = moved + (entry,)
    return moved


@triton.jit
def _advance_lower(state, root, z, N: tl.constexpr):
    """state + z root^T where ``root`` is lower triangular."""
    moved = ()
    for a in tl.static_range(N):
        entry = state[a]
        for b in tl.static_range(a + 1):
            entry += root[a * N + b] * z[b]
        moved = moved + (entry,)
    return moved


@triton.jit
def _fire(state, parameter, live, KIND: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr):
    """sigma of the states, 0 for neurons beyond n."""
    fired = ()
    for a in tl.static_range(N):
        fired = fired + (activate(state[a], parameter, KIND),)
    return _alive(fired, live, N, MASKED)


@triton.jit
def _alive(state, live, N: tl.constexpr, MASKED: tl.constexpr):
    """The states, 0 for neurons beyond n."""
    alive = state
    if MASKED:
        alive = ()
        for a in tl.static_range(N):
            alive = alive + (tl.where(live, state[a], 0.0),)
    return alive


@triton.jit
def _products(state, N: tl.constexpr):
    """Sums over neurons of the products of inputs a <= b, a tuple of P blocks (1, NETWORKS)."""
    sums = ()
    for a in tl.static_range(N):
        for b in tl.static_range(a, N):
            sums = sums + (tl.sum(state[a] * state[b], axis=0, keep_dims=True),)
    return sums


@triton.jit
def _chi(susceptibility, response, N: tl.constexpr):
    """chi u: row (a, b) of the susceptibility has entries in the columns aa, ab and bb alone."""
    shifted = ()
    for a in tl.static_range(N):
        for b in tl.static_range(a, N):
            row = susceptibility + 3 * pair(a, b, N)
            entry = tl.load(row) * response[pair(a, a, N)]
            entry += tl.load(row + 1) * response[pair(a, b, N)]
            entry += tl.load(row + 2) * response[pair(b, b, N)]
            shifted = shifted + (entry,)
    return shifted
