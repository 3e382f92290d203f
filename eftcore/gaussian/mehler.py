"""Mehler series of one-dimensional Hermite coefficients, for every activation.

By Mehler's formula, with s_k = <sigma(sqrt(K) z) h_k(z)>,

    <sigma^(i)(phi_a) sigma^(j)(phi_b)> = sum_k s^(i)_k(K_aa) s^(j)_k(K_bb) rho^k,

so every two-dimensional integral becomes one-dimensional ones; where |rho| = 1 it is a single one-dimensional integral.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from eftcore.activations import Activation
from eftcore.errors import InputError
from eftcore.gaussian.hermite import REACH, LineRule, broken_rule, concentrated_rule, panel_rule, trapezoidal_rule
from eftcore.gaussian.pair_moments import (
    CHUNK,
    GRADIENT,
    HESSIAN,
    Expectations,
    PairMoments,
    correlations,
    in_parts,
    powers,
)
from eftcore.gaussian.summed import Summed
from eftcore.pairs import pair_indices

SATURATED = 16.0
"""Variance above which sigma's own scale in z, 1 / sqrt(K), is far below 1: nodes crowd at 0, and derivatives are taken
by parts where that cancels less."""

_ORDINARY = 1e8
"""sigma is held to be finite up to here."""

BEYOND = 1e-14
"""Share of an integral that may lie at the outermost node."""

_BROKEN_ROWS = 16
"""Kernels that share a rule whose panels end at the kinks of all of them."""


@dataclass(frozen=True, eq=False)
class MehlerExpectations(Expectations):
    """Mehler series on a line rule (eq. 6.1): two ``level``s halve the node spacing, ``terms`` counts coefficients.

    ``extra`` coefficients beyond those are at hand for Wick expansions. ``width``: where nodes crowd at 0 (eq. 6.23).
    """

    activation: Activation
    level: int = 0
    terms: int = 32
    extra: int = 0
    width: float | None = None

    MAX_LEVEL = 15
    MAX_TERMS = 2048

    @property
    def rule(self) -> LineRule:
        """The line rule at this resolution; also fine enough for the highest Hermite term."""
        highest = self.terms + self.extra + 8
        if self.activation.kinks:
            return panel_rule(self._panels, highest)
        step = min(0.4 / 2 ** (self.level / 2), 3.0 / math.sqrt(highest))
        return trapezoidal_rule(step, highest) if self.width is None else concentrated_rule(step, self.width, highest)

    @property
    def _panels(self) -> int:
        highest = self.terms + self.extra + 8
        return max(round(6 * 2 ** (self.level / 2)), math.ceil(math.sqrt(highest) * 1.5))

    def rule_at(self, deviation: np.ndarray) -> LineRule:
        """The rule for standard deviations (U,): kinks away from 0 end panels at kink / sqrt(K) for each of them."""
        kinks = np.abs([kink for kink in self.activation.kinks if kink != 0])
        moving = deviation[(deviation > 0) & np.isfinite(deviation)]
        breaks = np.unique(np.divide.outer(kinks, moving))
        breaks = breaks[breaks < REACH]
        if not len(breaks):
            return self.rule
        return broken_rule(self._panels, self.terms + self.extra + 8, tuple(breaks.tolist()))

    def refined(self, *, nodes: bool, terms: bool) -> MehlerExpectations | None:
        level, count = self.level + nodes, self.terms * (2 if terms else 1)
        if level > self.MAX_LEVEL or count > self.MAX_TERMS:
            return None
        return replace(self, level=level, terms=count)

    def resolving(self, order: int) -> MehlerExpectations:
        """With nodes at least so dense that coefficients up to ``order`` can be summed over them."""
        root = math.sqrt(order + 8)
        density = root * 1.5 / 6 if self.activation.kinks else root * 0.4 / 3.0
        return replace(self, level=max(self.level, math.ceil(2 * math.log2(density))))

    def describe(self) -> dict[str, object]:
        name = "Gauss-Legendre panels" if self.activation.kinks else "trapezoidal"
        crowded = "" if self.width is None else f", crowded within {self.width:.0e} of 0"
        rule = {"rule": f"Mehler series, {name}{crowded}", "nodes": len(self.rule.nodes), "terms": self.terms}
        return rule | ({"extra": self.extra} if self.extra else {})

    @property
    def kind(self) -> Hashable | None:
        # the panels end at the kinks of all kernels that are given together
        if any(self.activation.kinks):
            return None
        return "mehler", self.activation.name, self.level, self.terms, self.extra, self.width

    @property
    def numbers(self) -> int:
        # functions of sigma on the nodes, and series of the pairs
        return 13 * len(self.rule.nodes) + 6 * (self.terms + self.extra)

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        pairs = len(pair_indices(kernel.shape[-1])[0])
        rows = max(1, CHUNK // (pairs * self.terms + 5 * kernel.shape[-1] * len(self.rule.nodes)))
        if any(self.activation.kinks):
            rows = min(rows, _BROKEN_ROWS)
        return in_parts(self._moments, kernel, order, rows)

    def _moments(self, kernel: np.ndarray, order: int) -> list[np.ndarray]:
        first, second = pair_indices(kernel.shape[-1])
        line = LineMoments(self, kernel, 2 * order)
        own = np.flatnonzero(first == second)
        cross = np.flatnonzero(first != second)
        value = np.empty((len(kernel), len(first)))
        value[:, own] = line.square(0)
        pairs = _CrossMoments(line, kernel, first[cross], second[cross])
        value[:, cross] = pairs.mean(0, 0)
        results: list[np.ndarray] = [value]
        if order >= 1:
            gradient = np.zeros((*value.shape, 3))
            gradient[:, own, 0] = line.square(2) / 2
            for q, (factor, i, j) in enumerate(GRADIENT):
                gradient[:, cross, q] = factor * pairs.mean(i, j)
            results.append(gradient)
        if order >= 2:
            hessian = np.zeros((*value.shape, 3, 3))
            hessian[:, own, 0, 0] = line.square(4) / 4
            mixed = np.stack([[factor * pairs.mean(i, j) for factor, i, j in row] for row in HESSIAN])
            mixed = np.moveaxis(mixed, (0, 1), (-2, -1))
            pairs.share(mixed)
            hessian[:, cross] = mixed
            results.append(hessian)
        return results


def concentrated(engine: Expectations, variance: float) -> Expectations:
    """``engine`` with nodes that also resolve a smooth sigma at variances up to this one, where it is large.

    >>> from eftcore.activations import get_activation
    >>> engine = concentrated(MehlerExpectations(get_activation("tanh"), level=2), 1e6)
    >>> engine.moments(np.array([[1e6]])).value.round(12)
    array([0.99920212])
    """
    if not isinstance(engine, MehlerExpectations) or engine.activation.kinks or not SATURATED < variance < np.inf:
        return engine
    # sigma may change faster than on the scale 1: by a factor of 32 to 64 for the price of a few nodes
    return replace(engine, width=2.0 ** -math.ceil(math.log2(32 * math.sqrt(variance))))


def check_values(activation: Activation, x: np.ndarray, values: np.ndarray) -> None:
    """Refuse a sigma (or derivative of it), (..., U, J) at points x, that is not finite where the integrals need it.

    Raises InputError. A kernel about to leave the range of floating-point numbers is not the activation's fault.
    """
    bad = ~np.isfinite(values) & (np.abs(x) < _ORDINARY)
    if bad.any():
        where = float(x[np.argwhere(bad)[0][-2:][0], np.argwhere(bad)[0][-1]])
        raise InputError(
            f"sigma or a derivative is not finite at x = {where:.6g}, within the {REACH:g} standard deviations that the"
            " integrals cover",
            place="activation",
            value=activation.name,
            remedy="define it there, or take a smaller kernel or depth",
        )


def check_growth(
    activation: Activation, deviation: np.ndarray, integrand: np.ndarray, rule: LineRule, power: int
) -> None:
    """Refuse sigma^power (U, J) whose Gaussian integral reaches beyond the last node, or does not exist.

    Raises InputError.
    """
    with np.errstate(all="ignore"):
        mass = np.abs(integrand) * rule.table[:, 0]
        edge = np.maximum(mass[:, 0], mass[:, -1])
        lost = edge > BEYOND * np.maximum(mass.sum(1), deviation**power)
    if lost.any():
        worst = float(deviation[lost][0]) ** 2
        raise InputError(
            f"sigma grows so fast that the Gaussian mean of sigma^{power} at variance {worst:.6g} does not exist or"
            f" lies beyond {REACH:g} standard deviations",
            place="activation",
            value=activation.name,
            remedy="take a smaller kernel, weight variance or depth, or a sigma that grows more slowly",
        )


class OnLine:
    """The line rule at every distinct diagonal entry of a stack of kernels (..., N, N).

    Attributes:
        activation, terms: those of the engine.
        where: (..., N) position of each diagonal entry among the U distinct ones.
        variance, deviation: (U,) the distinct entries and their square roots.
        rule: the rule for these.
        x: (U, J) its nodes in units of the preactivations.
    """

    def __init__(self, engine: MehlerExpectations, kernel: np.ndarray) -> None:
        self.activation, self.terms = engine.activation, engine.terms
        self.variance, where = np.unique(np.diagonal(kernel, axis1=-2, axis2=-1), return_inverse=True)
        self.where = where.reshape(kernel.shape[:-1])
        self.deviation = np.sqrt(self.variance)
        self.rule = engine.rule_at(self.deviation)
        self.x = self.deviation[:, None] * self.rule.nodes


class LineMoments(OnLine):
    """One-dimensional integrals at every distinct diagonal entry of a stack of kernels (eq. 6.1).

    Derivatives of a smooth sigma are integrated as they stand, or by parts where the variance is large and that cancels
    less: the fourth one of a saturating sigma has integrals that are K^2 times smaller than it is (eq. 6.24).
    """

    def __init__(self, engine: MehlerExpectations, kernel: np.ndarray, highest: int) -> None:
        super().__init__(engine, kernel)
        self.count = engine.terms + engine.extra
        act, x = self.activation, self.x
        if highest and act.derivatives is not None:
            self.values: np.ndarray = act.derivatives(x)
            self.by_parts = False
            self.large = self.variance > SATURATED
        else:
            self.values = np.asarray(act.function(x), dtype=float)[None]
            self.by_parts = True
            self.large = self.variance > 0
        check_values(act, x, self.values)
        check_growth(act, self.deviation, self.values[0] ** 2, self.rule, 2)
        self._coefficients: dict[int, np.ndarray] = {}

    def square(self, k: int) -> np.ndarray:
        """(R, N): <d^k/dphi^k sigma(phi)^2>, k = 0, 2, 4."""
        return self.distinct_square(k)[self.where]

    def distinct_square(self, k: int) -> np.ndarray:
        """(U,): the same, at each distinct variance."""
        v = self.values
        if k == 0:
            return self.rule.mean(v[0] ** 2)
        found = np.zeros(len(self.deviation))
        large = self.large
        if self.by_parts:
            found[large] = self._square_by_parts(k).value
            return found
        parts = (2 * v[1] ** 2, 2 * v[0] * v[2]) if k == 2 else (2 * v[0] * v[4], 8 * v[1] * v[3], 6 * v[2] ** 2)
        found = self.rule.mean(sum(parts, np.zeros(())))
        if large.any():
            size = self.rule.mean(sum(np.abs(part[large]) for part in parts))
            found[large] = Summed.least(Summed(found[large], size), self._square_by_parts(k)).value
        return found

    def _square_by_parts(self, k: int) -> Summed:
        """<f He_k> / K^(k/2), f = sigma^2, at the large variances (eq. 6.24).

        Only the even part of f counts, and not what it has of A x^2 + C, whose integrals are known: once sigma is
        saturated or linear, nothing but the step between is left.
        """
        deviation = self.deviation[self.large][:, None]
        f = self.values[0][self.large] ** 2
        f = (f + f[:, ::-1]) / 2
        square = (deviation * self.rule.nodes) ** 2
        far, near = (f[:, j, None] for j in (-1, -1 - len(self.rule.nodes) // 8))
        far_square, near_square = (square[:, j, None] for j in (-1, -1 - len(self.rule.nodes) // 8))
        curvature = (far - near) / (far_square - near_square)
        constant = far - curvature * far_square
        # sigma^2 = A x^2 exactly, as for sigma = x: a constant that is rounding alone would spoil A
        pure = np.abs(constant) <= 1e-9 * np.abs(far)
        curvature, constant = np.where(pure, far / far_square, curvature), np.where(pure, 0.0, constant)
        weights = self.rule.table[:, k] * math.sqrt(math.factorial(k))
        rest = (f - curvature * square - constant) / deviation**k
        known = 2 * curvature[:, 0] if k == 2 else np.zeros(len(f))
        return Summed(rest @ weights + known, np.abs(rest) @ np.abs(weights) + np.abs(known))

    def coefficients(self, i: int) -> np.ndarray:
        """(U, terms + extra): Hermite coefficients of the i-th derivative at each distinct variance (eq. 6.2)."""
        if i not in self._coefficients:
            self._coefficients[i] = self._derivative_coefficients(i)
        return self._coefficients[i]

    def _derivative_coefficients(self, i: int) -> np.ndarray:
        if i and self.by_parts:
            found: np.ndarray = np.zeros((len(self.deviation), self.count))
            found[self.large] = self._by_parts(self.values[0], self.rule.table, i)
            return found
        table = self.rule.table[:, : self.count]
        found = self.values[i] @ table
        if i and self.large.any():
            size = np.abs(self.values[i][self.large]) @ np.abs(table)
            shifted = self._by_parts(self.values[0], self.rule.table, i)
            shifted_size = self._by_parts(np.abs(self.values[0]), np.abs(self.rule.table), i)
            found[self.large] = Summed.least(Summed(found[self.large], size), Summed(shifted, shifted_size)).value
        return found

    def _by_parts(self, values: np.ndarray, table: np.ndarray, i: int) -> np.ndarray:
        """Coefficients of the i-th derivative at the large variances."""
        return by_parts(values[self.large], table, i, self.count, self.deviation[self.large])


def by_parts(values: np.ndarray, table: np.ndarray, i: int, terms: int, deviation: np.ndarray) -> np.ndarray:
    """(U, terms) Hermite coefficients of the i-th derivative of f, by parts; 0 at variance 0 (eq. 6.2).

    They are <f^(i) h_k> = sqrt((k+1)..(k+i)) <f h_{k+i}> / K^(i/2), for values (U, J) of f on the nodes, the rule's
    table and standard deviations (U,).
    """
    k = np.arange(terms, dtype=float)
    ratio = np.sqrt(np.prod([k + r for r in range(1, i + 1)], axis=0))
    shifted = values @ table[:, i : i + terms] * ratio
    power = deviation[:, None] ** i
    found: np.ndarray = np.divide(shifted, power, out=np.zeros_like(shifted), where=power > 0)
    return found


class _CrossMoments:
    """<sigma^(i)_a sigma^(j)_b> for pairs a < b of a stack of kernels (eq. 6.1, 6.3)."""

    def __init__(self, line: LineMoments, kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        self.line = line
        self.a, self.b = line.where[:, first], line.where[:, second]
        rho = correlations(kernel, first, second)
        self.tied = np.abs(rho) == 1
        self.sign = rho[self.tied]
        self.powers = powers(rho, line.terms)

    def mean(self, i: int, j: int) -> np.ndarray:
        """(R, M)"""
        line = self.line
        u, v = line.coefficients(i)[:, : line.terms], line.coefficients(j)[:, : line.terms]
        result: np.ndarray = np.einsum("rpk,rpk,rpk->rp", u[self.a], v[self.b], self.powers)
        if self.tied.any():
            result[self.tied] = self._tied(i, j)
        return result

    def _tied(self, i: int, j: int) -> np.ndarray:
        """phi_b = +- sqrt(K_bb / K_aa) phi_a: a one-dimensional integral (nodes are symmetric, so -z reverses them)."""
        line = self.line
        a, b = self.a[self.tied], self.b[self.tied]
        if i + j and line.by_parts:
            return np.where((i == j == 1) & self._equal(), line.distinct_square(2)[a] / 2, 0.0)
        right = np.where(self.sign[:, None] > 0, line.values[j][b], line.values[j][b][:, ::-1])
        return line.rule.mean(line.values[i][a] * right)

    def _equal(self) -> np.ndarray:
        equal: np.ndarray = (self.a[self.tied] == self.b[self.tied]) & (self.sign > 0)
        return equal

    def share(self, hessian: np.ndarray) -> None:
        """Set the (R, M, 3, 3) Hessian of equal inputs.

        They move together, so only the sum over its entries counts: it is put on ab ab. One by one the entries do not
        exist for a sigma that is integrated by parts, and cancel in that sum for a saturated one.
        """
        if not self.tied.any():
            return
        line = self.line
        equal = self._equal() & (line.by_parts | line.large[self.a[self.tied]])
        found = hessian[self.tied]
        found[equal] = 0.0
        found[equal, 1, 1] = (line.distinct_square(4) / 4)[self.a[self.tied]][equal]
        hessian[self.tied] = found
