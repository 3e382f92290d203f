"""Fits the polynomials of eftcore.ensemble.minimax anew and prints how good the fits there and here are.

Run: python -m benchmarks.minimax. It takes some seconds and writes nothing.

A fit minimises the largest of |w(x) (f(x) - P(x) / Q(x))| over POINTS points that crowd towards both ends of the
interval, with w = 1 / f for relative errors. Where Q = 1 this is a linear programme in the coefficients, which scipy's
HiGHS solves. With a denominator, f - P / Q = (f Q - P) / Q is linear in the coefficients once the Q under the fraction
is replaced by that of the round before; a few rounds converge (Loeb's method).

float32 coefficients are made one after the other, the lowest power first: round it, then fit the ones that are left
again, so that they make up for what rounding spoiled. float64 coefficients are rounded at once. f comes from mpmath
with 30 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
from scipy.optimize import linprog

from eftcore.ensemble.minimax import FITS

POINTS = 600
DIGITS = 30
ROUNDS = 6
"""Rounds in which the denominator converges."""


def _sine(x: mpmath.mpf) -> mpmath.mpf:
    root = mpmath.sqrt(x)
    return mpmath.sin(root) / root


def _tanh(x: mpmath.mpf) -> mpmath.mpf:
    root = mpmath.sqrt(x)
    return mpmath.tanh(root) / root


def _erf(x: mpmath.mpf) -> mpmath.mpf:
    root = mpmath.sqrt(x)
    return mpmath.erf(root) / root


FUNCTIONS: dict[str, tuple[Callable[[mpmath.mpf], mpmath.mpf], float]] = {
    "SINE": (_sine, 1.0),
    "COSINE": (lambda x: mpmath.cos(mpmath.sqrt(x)), 1.0),
    "MINUS_TWO_LOG": (lambda x: -2 * mpmath.log1p(x) / x, -2.0),
    "LOG": (lambda x: (mpmath.log1p(x) - x + x**2 / 2) / x**3, 1 / 3),
    "EXP": (lambda x: (mpmath.expm1(x) - x) / x**2, 0.5),
    "TANH": (_tanh, 1.0),
    "ERF": (_erf, 2 / np.sqrt(np.pi)),
    "LOG_ERFC": (lambda x: mpmath.log(mpmath.erfc(x)), 0.0),
    "SOFTPLUS": (lambda x: mpmath.log1p(x) / x, 1.0),
    "SINE_DOUBLE": (_sine, 1.0),
    "COSINE_DOUBLE": (lambda x: mpmath.cos(mpmath.sqrt(x)), 1.0),
    "LOG_DOUBLE": (lambda x: 2 * mpmath.atanh(mpmath.sqrt(x)) / mpmath.sqrt(x), 2.0),
    "EXP_DOUBLE": (lambda x: (mpmath.expm1(x) - x) / x**2, 0.5),
}
"""What each fit approximates, and the limit of that at 0, where the formula is 0 / 0."""


@dataclass(frozen=True)
class Samples:
    """A function at points of an interval.

    Attributes:
        x: (K,) points.
        value: (K,) the function there.
        weight: (K,) what its errors are multiplied with.
    """

    x: np.ndarray
    value: np.ndarray
    weight: np.ndarray

    def error(self, numerator: np.ndarray, denominator: np.ndarray) -> float:
        """The largest weighted error of P / Q, coefficients with the highest power first."""
        found = np.polyval(numerator, self.x) / np.polyval(denominator, self.x)
        return float(np.abs(self.weight * (found - self.value)).max())


def samples(name: str, points: int = POINTS) -> Samples:
    """The function of one fit at ``points`` Chebyshev points of its interval, both ends included."""
    fit = FITS[name]
    function, limit = FUNCTIONS[name]
    low, high = fit.interval
    x = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, points))) / 2
    with mpmath.workdps(DIGITS):
        value = np.array([float(function(mpmath.mpf(float(point)))) if point else limit for point in x])
    return Samples(x, value, 1 / np.abs(value) if fit.relative else np.ones_like(x))


def minimax(seen: Samples, degree: tuple[int, int], *, rounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of P and Q, the highest power first, that make the largest error small.

    Args:
        seen: the function.
        degree: degrees of P and Q.
        rounded: whether the coefficients are to be float32 numbers.
    """
    above, below = degree
    # one vector of unknowns, the lowest powers first: P_0, P_1, ... and Q_1, Q_2, ...; Q_0 = 1
    # powers of x over a power of two, so that rounded coefficients stay what they are
    scale = 2.0 ** np.ceil(np.log2(np.abs(seen.x).max()))
    powers = (seen.x[:, None] / scale) ** np.arange(max(degree) + 1)
    columns = np.hstack([powers[:, : above + 1], -seen.value[:, None] * powers[:, 1 : below + 1]])
    power = np.concatenate([np.arange(above + 1), np.arange(1, below + 1)])
    unknown = np.zeros(columns.shape[1])
    free = np.ones(columns.shape[1], dtype=bool)

    def refit() -> None:
        for _ in range(ROUNDS if below else 1):
            outside = 1 + powers[:, 1 : below + 1] @ unknown[above + 1 :]
            unknown[free] += _correction(columns, seen.value - columns @ unknown, seen.weight / outside, free)

    refit()
    refit()  # once more for what the first solution left within the solver's tolerance
    if rounded:
        for k in np.argsort(power, kind="stable"):
            unknown[k] = float(np.float32(unknown[k] / scale ** power[k])) * scale ** power[k]
            free[k] = False
            if free.any():
                refit()
    found = unknown / scale**power
    return found[above::-1], np.append(found[:above:-1], 1.0)


def _correction(columns: np.ndarray, missing: np.ndarray, weight: np.ndarray, free: np.ndarray) -> np.ndarray:
    """What to add to the free unknowns so that the largest |weight (missing - columns @ change)| is least."""
    matrix, target = columns[:, free] * weight[:, None], missing * weight
    start = np.linalg.lstsq(matrix, target, rcond=None)[0]
    rest = target - matrix @ start
    size = np.abs(rest).max()
    if size == 0:
        return start
    one = np.ones((len(rest), 1))
    bounds = np.block([[matrix, -one], [-matrix, -one]])
    limits = np.concatenate([rest, -rest]) / size
    cost = np.append(np.zeros(matrix.shape[1]), 1.0)
    solved = linprog(cost, A_ub=bounds, b_ub=limits, bounds=(None, None), method="highs")
    if solved.status != 0:
        raise RuntimeError(f"linprog: {solved.message}")
    return start + solved.x[:-1] * size


def main() -> None:
    """Print the table."""
    print("largest error on the interval, exact arithmetic\n")
    print(f"{'fit':14} {'degree':>7} {'table':>9} {'new, rounded':>13} {'new, unrounded':>15}")
    fits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, fit in FITS.items():
        seen, dense = samples(name), samples(name, 4 * POINTS + 1)
        fits[name] = minimax(seen, fit.degree, rounded=fit.single)
        errors = [
            dense.error(np.array(fit.numerator), np.array(fit.denominator)),
            dense.error(*fits[name]),
            dense.error(*minimax(seen, fit.degree, rounded=False)),
        ]
        above, below = fit.degree
        degree = f"{above} / {below}" if below else str(above)
        print(f"{name:14} {degree:>7} {errors[0]:9.1e} {errors[1]:13.1e} {errors[2]:15.1e}")
    print("\nnew coefficients, the highest power first")
    for name, parts in fits.items():
        for part, coefficients in zip(("P", "Q"), parts, strict=True):
            if len(coefficients) > 1:
                numbers = np.float32(coefficients) if FITS[name].single else coefficients
                print(f"{name:14} {part} = {', '.join(map(str, numbers))}")


if __name__ == "__main__":
    main()
