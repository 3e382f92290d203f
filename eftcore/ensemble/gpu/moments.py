"""Adds observations up on the graphics processor that made them: the sums of eftcore.ensemble.sums."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from eftcore.ensemble.groups import GroupSums
from eftcore.ensemble.histogram import HISTOGRAM, Histogram
from eftcore.ensemble.reference import Reference
from eftcore.ensemble.sums import DEVICE_UNIT, POWERS, on_grid, sum_shapes
from eftcore.pairs import pair_indices, pair_table
from eftcore.specs import EnsembleSpec

BLOCK = 512
"""Networks that a program adds side by side, before it sums them up; a divisor of DEVICE_UNIT."""

_SINGLE = ("deviation", "source", "source_2", "residual")
"""Sums with an entry for each pair, in the order in which ``add_single`` adds to them."""

_SYMMETRIC = ("deviation_2", "deviation_4", "increment", "increment_2", "residual_2", "change", "change_2")
"""Sums with an entry for each two pairs p <= q, in the order in which ``add_pairs`` adds to them."""

_ORDERED = ("deviation_3", "change_residual")
"""Sums with an entry for each pair p and each pair q, likewise."""


class DeviceMoments:
    """The sums of one shard, to which observations are added on the device where they are; only sums leave it.

    Each sum is added to by one program, unit after unit of networks in order. So the result is the same in every run,
    and does not depend on how many networks come at once where that is a multiple of DEVICE_UNIT.
    """

    def __init__(self, spec: EnsembleSpec, reference: Reference, *, device: str) -> None:
        assert spec.depths is not None
        self._spec = spec
        self._reference = reference
        self._device = torch.device(device)
        n_inputs = spec.kernel.n_inputs
        paired = spec.estimator == "paired"
        self._shapes = sum_shapes(len(spec.depths), n_inputs, paired=paired)
        self._pairs = n_inputs * (n_inputs + 1) // 2
        self._groups = GroupSums(len(spec.depths), n_inputs, paired=paired)
        self._histogram = Histogram(spec, reference)
        increment = spec.model.bias_variance + spec.model.weight_variance * reference.second_moment
        self._kernel, self._increment = self._double(reference.kernel), self._double(increment)
        self._weight_variance = self._double(np.array([spec.model.weight_variance]))
        row, column = np.triu_indices(self._pairs)
        self._tables = [self._index(table) for table in (row, column, *pair_indices(n_inputs), pair_table(n_inputs))]
        self._packed = len(row)
        recorded, zeros = len(spec.depths), np.zeros
        self._single = self._double(zeros((recorded, self._pairs, len(_SINGLE) + POWERS)))
        self._symmetric = self._double(zeros((recorded, self._packed, len(_SYMMETRIC))))
        self._ordered = self._double(zeros((recorded, self._pairs, self._pairs, len(_ORDERED))))

    def add(self, observed: torch.Tensor) -> None:
        """Add observations (1, R, 2 or 4, P, networks) float64: d, s, and for the paired estimator also R, T."""
        for begin in range(0, observed.shape[-1], DEVICE_UNIT):
            self._add_unit(observed, begin, min(DEVICE_UNIT, observed.shape[-1] - begin))
        self._groups.add_networks(observed)
        self._histogram.add_networks(observed)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _add_unit(self, observed: torch.Tensor, begin: int, networks: int) -> None:
        _, recorded, copies, pairs, stride = observed.shape
        known = {"PAIRED": copies == 4, "BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": True}
        unit = observed[..., begin:]
        add_single[(recorded, pairs)](unit, self._single, pairs, stride, networks, POWERS=POWERS, **known)
        add_pairs[(recorded, self._packed)](
            unit,
            self._symmetric,
            self._ordered,
            self._kernel,
            self._increment,
            self._weight_variance,
            *self._tables,
            pairs,
            stride,
            networks,
            self._spec.kernel.n_inputs,
            **known,
        )

    @property
    def sums(self) -> dict[str, np.ndarray]:
        """The sums so far, by the names of eftcore.ensemble.sums.sum_shapes."""
        first, second = pair_indices(self._spec.kernel.n_inputs)
        single, symmetric, ordered = (x.cpu().numpy() for x in (self._single, self._symmetric, self._ordered))
        found = {name: single[..., k] for k, name in enumerate(_SINGLE)}
        found |= {name: symmetric[..., k] for k, name in enumerate(_SYMMETRIC)}
        found |= {name: ordered[..., k] for k, name in enumerate(_ORDERED)}
        found["powers"] = single[:, first == second, len(_SINGLE) :]
        return {name: np.ascontiguousarray(found[name]) for name in self._shapes}

    def finished(self, networks: int) -> dict[str, np.ndarray]:
        """The shard's sums over this number of networks, on the ensemble's grid, and its histogram."""
        sums = on_grid(self.sums | self._groups.sums, self._spec, self._reference)
        return sums | {HISTOGRAM: self._histogram.finished(networks)}

    def _double(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64, device=self._device)

    def _index(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.array(array, order="C"), dtype=torch.int32, device=self._device)


@triton.jit(do_not_specialize=["pairs", "stride", "networks"])
def add_single(observed, out, pairs, stride, networks, POWERS: tl.constexpr, PAIRED: tl.constexpr, BLOCK: tl.constexpr):
    """Add the sums over networks of d, T, T^2, R and the powers of d to ``out`` (R, P, 4 + POWERS).

    Each program does one recorded layer and one pair.
    """
    COPIES: tl.constexpr = 4 if PAIRED else 2
    row, p = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = observed + (row * COPIES * pairs + p) * stride
    step = pairs.to(tl.int64) * stride
    zero = tl.zeros([BLOCK], tl.float64)
    source, source_2, residual = zero, zero, zero
    powers = ()
    for _ in tl.static_range(POWERS):
        powers = powers + (zero,)
    for begin in range(0, networks, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        keep = column < networks
        d = tl.load(place + column, mask=keep, other=0.0)
        rest_s = tl.load(place + (COPIES - 1) * step + column, mask=keep, other=0.0)
        source += rest_s
        source_2 += rest_s * rest_s
        if PAIRED:
            residual += tl.load(place + 2 * step + column, mask=keep, other=0.0)
        power = d
        more = ()
        for k in tl.static_range(POWERS):
            more = more + (powers[k] + power,)
            power = power * d
        powers = more
    out += (row * pairs + p) * (4 + POWERS)
    _add(out, powers[0])
    _add(out + 1, source)
    _add(out + 2, source_2)
    _add(out + 3, residual)
    for k in tl.static_range(POWERS):
        _add(out + 4 + k, powers[k])


@triton.jit(do_not_specialize=["pairs", "stride", "networks", "n_inputs"])
def add_pairs(
    observed,
    symmetric,
    ordered,
    kernel,
    increment,
    weight_variance,
    row_of,
    column_of,
    first_of,
    second_of,
    table,
    pairs,
    stride,
    networks,
    n_inputs,
    PAIRED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the sums over networks that two pairs p <= q share to ``symmetric`` and ``ordered``.

    These are (R, packed, 7) and (R, P, P, 2), in the order of ``_SYMMETRIC`` and ``_ORDERED``. Each program does one
    recorded layer and two pairs.
    """
    COPIES: tl.constexpr = 4 if PAIRED else 2
    row, packed = tl.program_id(0).to(tl.int64), tl.program_id(1)
    p, q = tl.load(row_of + packed), tl.load(column_of + packed)
    a, b = tl.load(first_of + p), tl.load(second_of + p)
    c, e = tl.load(first_of + q), tl.load(second_of + q)
    # the four products of the increment's covariance are G_left Q_right with these pairs (docs/theory.md, section 3)
    left = (_pair(table, a, c, n_inputs), _pair(table, a, e, n_inputs), _pair(table, b, c, n_inputs))
    left = left + (_pair(table, b, e, n_inputs),)
    right = (left[3], left[2], left[1], left[0])
    kernel += row * pairs
    increment += row * pairs
    k_left = ()
    q_right = ()
    for term in tl.static_range(4):
        k_left = k_left + (tl.load(kernel + left[term]),)
        q_right = q_right + (tl.load(increment + right[term]),)
    scale = tl.load(weight_variance)

    step = pairs.to(tl.int64) * stride
    deviation = observed + row * COPIES * step
    source = deviation + step
    residual = deviation + (COPIES - 2) * step
    rest_source = deviation + (COPIES - 1) * step
    zero = tl.zeros([BLOCK], tl.float64)
    d_2, d_4, d_3_pq, d_3_qp, sigma_1, sigma_2 = zero, zero, zero, zero, zero, zero
    r_2, y_1, y_2, y_p, y_q = zero, zero, zero, zero, zero
    for begin in range(0, networks, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        d_p = _row(deviation, p, column, stride, networks)
        d_q = _row(deviation, q, column, stride, networks)
        product = d_p * d_q
        d_2 += product
        d_4 += product * product
        d_3_pq += product * d_p
        d_3_qp += product * d_q
        sigma = zero
        for term in tl.static_range(4):
            d = _row(deviation, left[term], column, stride, networks)
            s = _row(source, right[term], column, stride, networks)
            rest = _row(residual, left[term], column, stride, networks)
            rest_s = _row(rest_source, right[term], column, stride, networks)
            sigma += scale * (d * s + k_left[term] * rest_s) + q_right[term] * rest
        sigma_1 += sigma
        sigma_2 += sigma * sigma
        if PAIRED:
            r_p = _row(residual, p, column, stride, networks)
            r_q = _row(residual, q, column, stride, networks)
            # d d - e e with e = d - R, without cancellation
            y = d_p * r_q + r_p * d_q - r_p * r_q
            r_2 += r_p * r_q
            y_1 += y
            y_2 += y * y
            y_p += y * r_p
            y_q += y * r_q
    symmetric += (row * (pairs * (pairs + 1) // 2) + packed) * 7
    _add(symmetric, d_2)
    _add(symmetric + 1, d_4)
    _add(symmetric + 2, sigma_1)
    _add(symmetric + 3, sigma_2)
    upper = ordered + ((row * pairs + p) * pairs + q) * 2
    lower = ordered + ((row * pairs + q) * pairs + p) * 2
    _add(upper, d_3_pq)
    if p != q:
        _add(lower, d_3_qp)
    if PAIRED:
        _add(symmetric + 4, r_2)
        _add(symmetric + 5, y_1)
        _add(symmetric + 6, y_2)
        _add(upper + 1, y_p)
        if p != q:
            _add(lower + 1, y_q)


@triton.jit
def _pair(table, a, b, n_inputs):
    """Index of the pair {a, b}."""
    return tl.load(table + a * n_inputs + b)


@triton.jit
def _row(array, p, column, stride, networks):
    """The numbers of pair p for the networks ``column``, 0 beyond the last network."""
    return tl.load(array + p.to(tl.int64) * stride + column, mask=column < networks, other=0.0)


@triton.jit
def _add(place, lanes):
    """Add the sum of a block to one number in memory."""
    tl.store(place, tl.load(place) + tl.sum(lanes, axis=0))
