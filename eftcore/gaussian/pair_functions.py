"""Expectations <g(phi_a) h(phi_b)> of any one-input functions built from sigma and its derivatives.

Each function has a short name, listed in PairFunctions, for a product of powers of sigma and its derivatives. A smooth
sigma is evaluated on the nodes of the rule. For a kinked sigma, derivatives are moved onto the Hermite polynomials by
parts, or its slope away from the kinks is used where the function remains regular.
Equation numbers are those of docs/theory.md.
"""

from __future__ import annotations

import numpy as np

from eftcore.gaussian.mehler import MehlerExpectations, OnLine, by_parts, check_growth, check_values
from eftcore.gaussian.pair_moments import correlations, powers
from eftcore.pairs import pair_indices


class PairFunctions(OnLine):
    """Values and Hermite coefficients of functions of sigma at the U distinct variances of R kernels.

    Names, with s = sigma: "1", "s", "s2", "s3", "s4" (powers), "d" (s'), "ds" (s' s), "dss" (s' s^2),
    "c" (s''), "cs" (s'' s), "css" (s'' s^2), "o" (half of (s^2)''), "os2" (that times s^2).
    """

    def __init__(self, engine: MehlerExpectations, kernel: np.ndarray) -> None:
        super().__init__(engine, kernel)
        act, x = self.activation, self.x
        self.smooth = act.derivatives is not None
        if act.derivatives is not None:
            s, d, c = act.derivatives(x)[:3]
            self._values = {
                **_powers(s),
                "d": d,
                "ds": d * s,
                "dss": d * s * s,
                "c": c,
                "cs": c * s,
                "css": c * s * s,
                "o": d * d + s * c,
                "os2": (d * d + s * c) * s * s,
            }
            self._coefficients: dict[str, np.ndarray] = {}
        else:
            s, d = np.asarray(act.function(x), dtype=float), act.pointwise_slope(x)
            self._values = _powers(s)
            shift = self._shift
            slope2 = {k: self._project(d * d * s**k) for k in (0, 1, 2)}
            self._coefficients = {
                "d": shift(s, 1),
                "ds": shift(s**2, 1) / 2,
                "dss": shift(s**3, 1) / 3,
                "c": shift(s, 2),
                "cs": shift(s**2, 2) / 2 - slope2[0],
                "css": shift(s**3, 2) / 3 - 2 * slope2[1],
                "o": shift(s**2, 2) / 2,
                "os2": shift(s**4, 2) / 4 - 2 * slope2[2],
            }
        check_values(act, x, s)
        check_growth(act, self.deviation, self._values["s4"], self.rule, 4)
        first, second = pair_indices(kernel.shape[-1])
        rho = correlations(kernel, first, second)
        self.tied = (np.abs(rho) == 1) & (first != second)
        self.sign = np.sign(rho)
        self.own = first == second
        self.a, self.b = self.where[:, first], self.where[:, second]
        self.powers = powers(np.where(self.tied | self.own, 0.0, rho), self.terms)

    def _project(self, values: np.ndarray) -> np.ndarray:
        found: np.ndarray = values @ self.rule.table[:, : self.terms]
        return found

    def _shift(self, values: np.ndarray, i: int) -> np.ndarray:
        return by_parts(values, self.rule.table, i, self.terms, self.deviation)

    def coefficients(self, name: str) -> np.ndarray:
        """(U, terms) Hermite coefficients of the named function at every distinct variance."""
        if name not in self._coefficients:
            self._coefficients[name] = self._project(self._values[name])
        return self._coefficients[name]

    def single(self, name: str) -> np.ndarray:
        """(R, N) <g(phi_a)> for the named function g."""
        return self.coefficients(name)[:, 0][self.where]

    def mean(self, left: str, right: str) -> np.ndarray:
        """(R, P) <g(phi_a) h(phi_b)> for pairs a < b (eq. 6.1, 6.3); entries of pairs (a, a) are 0.

        For proportional inputs of a kinked sigma only regular functions are integrated; the others give 0.
        """
        u, v = self.coefficients(left), self.coefficients(right)
        result: np.ndarray = np.einsum("rpk,rpk,rpk->rp", u[self.a], v[self.b], self.powers)
        if self.tied.any() and left in self._values and right in self._values:
            g, h = self._values[left][self.a[self.tied]], self._values[right][self.b[self.tied]]
            h = np.where(self.sign[self.tied][:, None] > 0, h, h[:, ::-1])
            result[self.tied] = self.rule.mean(g * h)
        result[:, self.own] = 0.0
        return result


def _powers(s: np.ndarray) -> dict[str, np.ndarray]:
    return {"1": np.ones_like(s), "s": s, "s2": s * s, "s3": s**3, "s4": s**4}
