"""The paper's numbers beside ours, and its statements beside what the results say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eftcore.closures.g_only import noise_source
from eftcore.mean_field import MeanField, mean_field
from eftcore.published import PublishedValue, published
from eftcore.specs import Numerics
from flows.report.results import CONVERGED, EXACT, NORMAL_ORDERED, PUBLISHED, SIGMA, WIDTH, Number, Results, Theory

TOLERANCE = 0.01


@dataclass(frozen=True)
class Line:
    """One published number: as printed; with the published quadrature; converged; exact leading order; simulated here.

    ``queries`` gives what was asked of the database, in that order.
    """

    what: str
    published: str
    reproduced: str
    converged: str
    exact: str
    simulated: str
    source: str
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, whether it stands, and what was computed."""

    statement: str
    verdict: str
    computed: tuple[str, ...]
    queries: tuple[str, ...]


def lines(results: Results) -> tuple[Line, ...]:
    """Every number in eftcore/published.toml with ours beside it."""
    return tuple(_line(results, value) for value in published().value)


def _line(results: Results, value: PublishedValue) -> Line:
    model = published().model
    layer = round(value.time / model.epsilon**2)
    what = f"{value.quantity}[{value.component}] at t = {value.time:g}, " + (
        "theory"
        if value.by == "g_only"
        else (f"{value.samples} networks" if value.samples else "simulation") + f", n = {value.width}"
    )
    shown = value.value + (f" ± {value.standard_error}" if value.standard_error else "")
    source = published().sources[value.where] + (f"; {value.note}" if value.note else "")
    width = value.width or WIDTH
    if value.quantity == "Sigma":
        fixed, accurate = (value.printed(_sigma(rule, layer)) for rule in (published().numerics, Numerics()))
        measured = results.increment_covariance(layer, epsilon=model.epsilon, width=width)
        theirs = fixed if value.by == "g_only" else "—"
        return Line(what, shown, theirs, accurate, "—", "—" if measured is None else with_error(measured), source, ())
    if value.quantity == "K1 from U1":
        return Line(what, shown, "—", "—", "—", value.printed(_summed_source(results, width)), source, ())
    numbers = [
        results.number(value.quantity, value.component, layer, epsilon=model.epsilon, width=width, theory=theory)
        for theory in (PUBLISHED, CONVERGED, EXACT, None)
    ]
    reproduced, converged, exact, ours = numbers
    return Line(
        what,
        shown,
        value.printed(reproduced.value) if value.by == "g_only" else "—",
        value.printed(converged.value),
        value.printed(exact.value),
        with_error(ours),
        source,
        tuple(number.sql for number in numbers),
    )


@lru_cache(maxsize=4)
def _path(numerics: Numerics) -> MeanField:
    return mean_field(published().model, published().kernel, numerics)


def _sigma(numerics: Numerics, layer: int) -> float:
    """Sigma(K0)[00,00] of the paper's setting."""
    path = _path(numerics)
    return float(noise_source(path.kernel[layer], path.increment[layer])[0, 0])


def _summed_source(results: Results, width: int) -> float:
    """C_W eps^2 times the sum over layers of the simulated U1[00], from recorded layers by Euler and Maclaurin."""
    model = published().model
    curves = results.simulated(model.epsilon, width)
    time, source = curves["time"], curves["U1"][:, 0, 0]
    integral = float(np.trapezoid(source, time)) - model.epsilon**2 * (source[-1] - source[0]) / 2
    return model.weight_variance * integral


def findings(results: Results) -> tuple[Finding, ...]:
    """The paper's main statements, in its order."""
    return tuple(judge(results) for judge in (_mean_kernel, _covariance, _correction, _initial_source, _sigma_kernel))


def _at_end(results: Results, quantity: str, component: str, theory: Theory | None = None) -> Number:
    model = published().model
    return results.number(quantity, component, model.depth, epsilon=model.epsilon, width=WIDTH, theory=theory)


def _error_at_end(results: Results, quantity: str, theory: Theory) -> Number:
    model = published().model
    return results.error(quantity, model.depth, epsilon=model.epsilon, width=WIDTH, theory=theory)


def _mean_kernel(results: Results) -> Finding:
    epsilon = published().model.epsilon
    error = _error_at_end(results, "K0", CONVERGED)
    window, sql = results.window("K0", TOLERANCE, epsilon=epsilon, width=WIDTH, theory=CONVERGED)
    return Finding(
        "K0 is accurate at all depths.",
        "stands",
        (
            f"At n = {WIDTH} the relative error of K0 at T = 2 is {percent(error)};"
            f" at {TOLERANCE:.0%} the window {window}.",
            "What remains is K1 / n, the 1/n correction, and not an error of K0.",
        ),
        (error.sql, sql),
    )


def _covariance(results: Results) -> Finding:
    theirs = {value.by: float(value.value) for value in published().value if (value.quantity, value.time) == ("V4", 2)}
    converged, exact = _at_end(results, "V4", "00,00", CONVERGED), _at_end(results, "V4", "00,00", EXACT)
    simulated, fixed = _at_end(results, "V4", "00,00"), _at_end(results, "V4", "00,00", PUBLISHED)
    return Finding(
        "V4 drifts: at T = 2 the G-only theory is about 12 % low.",
        "changes",
        (
            f"Published: {theirs['g_only'] / theirs['simulation'] - 1:+.1%} (theory {theirs['g_only']:.3f}, simulation"
            f" {theirs['simulation']:.3f}). With 32 Gauss-Hermite nodes we find {fixed.value:.3f} too.",
            f"With converged integrals the same equations give {converged.value:.3f}:"
            f" {converged.value / exact.value - 1:+.2%} against the exact leading order ({exact.value:.3f}) and"
            f" {converged.value / simulated.value - 1:+.2%} ± {simulated.se / simulated.value:.2%}"
            f" against our simulation ({with_error(simulated)}).",
            "Most of the published drift is the error of the quadrature; the rest is the closure's and of order 1/n.",
        ),
        (fixed.sql, converged.sql, exact.sql, simulated.sql),
    )


def _correction(results: Results) -> Finding:
    mean, theory = (
        next(value for value in published().value if (value.quantity, value.by) == ("K1", by))
        for by in ("simulation", "g_only")
    )
    converged, exact = _at_end(results, "K1", "00", CONVERGED), _at_end(results, "K1", "00", EXACT)
    simulated, order_2 = _at_end(results, "K1", "00"), _at_end(results, "K1", "00", NORMAL_ORDERED)
    right, wrong = _at_end(results, "K0", "00", CONVERGED), _at_end(results, "K0", "00", PUBLISHED)
    shift = WIDTH * (wrong.value - right.value)
    return Finding(
        "K1 of the G-only theory fails.",
        "stands, and by more than published",
        (
            f"Published: K1_mic[00](T) = {mean.value} ± {mean.standard_error} against the theory's {theory.value}, but"
            f" relative to a K0 that 32 nodes put {wrong.value - right.value:.5f} too high. At n = {WIDTH} that alone"
            f" shifts K1 by {-shift:+.3f}; relative to the converged K0 their simulation says"
            f" {float(mean.value) + shift:.3f}.",
            f"Our simulation: {with_error(simulated)}; exact leading order {exact.value:.4f}; G-only, converged,"
            f" {converged.value:.4f}; with the source normal-ordered (Wick order 2) {order_2.value:.4f}.",
        ),
        (simulated.sql, exact.sql, converged.sql, order_2.sql, right.sql, wrong.sql),
    )


def _initial_source(results: Results) -> Finding:
    epsilon = published().model.epsilon
    model, exact, simulated = (
        results.number("U1", "00", 0, epsilon=epsilon, width=WIDTH, theory=theory)
        for theory in (CONVERGED, EXACT, None)
    )
    return Finding(
        "The source of K1 is wrong already at initialisation.",
        "stands",
        (
            f"U1[00] at t = 0: G-only {model.value:.4f}, exact leading order {exact.value:.4f}, simulation"
            f" {with_error(simulated)}. Subtracting the Wishart part in (1/2) H : (V4 - Wishart) removes the mismatch.",
        ),
        (model.sql, exact.sql, simulated.sql),
    )


def _sigma_kernel(results: Results) -> Finding:
    queries: list[str] = []
    texts = []
    for quantity, component in (("V4", "00,00"), ("K1", "00")):
        exact = _at_end(results, quantity, component, EXACT)
        parts = []
        for label, theory in (("G-only", CONVERGED), ("sigma-kernel closure", SIGMA)):
            found = _at_end(results, quantity, component, theory)
            parts.append(f"{label} {found.value / exact.value - 1:+.2%}")
            queries.append(found.sql)
        queries.append(exact.sql)
        texts.append(f"{quantity}[{component}] at T = 2 against the exact leading order: {', '.join(parts)}.")
    return Finding("The state should be extended by the sigma-kernel.", "stands", tuple(texts), tuple(queries))


def with_error(number: Number) -> str:
    """Value ± standard error, to the second digit of the error; an error that is rounding alone is left out.

    >>> with_error(Number(48.4711, 0.0532, "")), with_error(Number(1.25, 0.0, ""))
    ('48.471 ± 0.053', '1.25')
    """
    if not number.se > 1e-9 * abs(number.value):
        return f"{number.value:.6g}"
    digits = max(0, 1 - int(f"{number.se:e}".split("e")[1]))
    return f"{number.value:.{digits}f} ± {number.se:.{digits}f}"


def percent(number: Number) -> str:
    """A relative error with its standard error, in percent."""
    return f"{number.value:.3%} ± {number.se:.3%}"
