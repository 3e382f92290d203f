"""The paper's numbers beside the results of the study, and its statements with verdicts that follow from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from eftcore.errors import InputError
from eftcore.inputs.kernel import InputKernel
from eftcore.quantities import QUANTITIES
from eftcore.specs import Numerics
from eftcore.theory.mean_field import MeanField, mean_field
from ui.reports.paper.published import PublishedValue, published
from ui.reports.paper.results import CONVERGED, EXACT, NORMAL_ORDERED, PUBLISHED, SIGMA, WIDTH, Number, Results, Theory

TITLE = "Collective Kernel EFT for pre-activation ResNets: published, reproduced, converged, repaired"

INTRODUCTION = (
    "The numbers of Kawase & Ota (arXiv:2604.15742): as published; computed again with the published quadrature, 32"
    " Gauss-Hermite nodes; with converged integrals; from the exact leading-order theory; and from simulations with the"
    " paired estimator. Units: t = epsilon^2 * layer, V4 = n Cov(G), K1 = n (E[G] - K0), U1 = n (E[S] - E2(K0))."
)

COLUMNS = ("value", "published", "32 nodes", "converged", "exact leading order", "our simulation", "what changes")

LEGEND = (
    "A dash: does not apply (a simulation is not reproduced digit for digit). Theories are printed with as many digits"
    " as the published value, simulations with their standard error. K1 is relative to the K0 of its own column."
)

STANDS, CHANGES, OPEN = "stands", "changes", "not yet"
"""Verdicts on a statement; OPEN while the study lacks results that the verdict needs."""

TOLERANCE = 0.01
"""K0 counts as accurate within this relative error."""

SAME_DRIFT = 0.02
"""Largest difference between two relative drifts of V4 that count as the same."""

CLEARLY = 4.0
"""Number of standard errors above which theory and simulation count as different (one false alarm in 16 000)."""


@dataclass(frozen=True)
class Line:
    """One published number and our results for it.

    The results are computed with the published quadrature, with converged integrals, by the exact leading order, and by
    simulation. ``change`` says what changes and why; ``queries`` are the SQL queries of the results in the same order.
    """

    what: str
    published: str
    reproduced: str
    converged: str
    exact: str
    simulated: str
    change: str
    source: str
    queries: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of the line in the order of COLUMNS."""
        return (self.what, self.published, self.reproduced, self.converged, self.exact, self.simulated, self.change)


@dataclass(frozen=True)
class Finding:
    """A statement of the paper, the verdict on it, and the computed numbers behind the verdict."""

    statement: str
    verdict: str
    computed: tuple[str, ...]
    queries: tuple[str, ...]


def lines(results: Results) -> tuple[Line, ...]:
    """Every number in ui/reports/paper/published.toml with our results beside it."""
    return tuple(_line(results, value) for value in published().value)


def _line(results: Results, value: PublishedValue) -> Line:
    layer = round(value.time / published().model.epsilon ** 2)
    by_theory = value.by == "g_only"
    what = f"{value.quantity}[{value.component}] at t = {value.time:g}, " + (
        "theory"
        if by_theory
        else (f"{value.samples} networks" if value.samples else "simulation") + f", n = {value.width}"
    )
    width = value.width or WIDTH
    theirs: Number | None
    converged: Number | None
    exact: Number | None = None
    if value.quantity == "K1 from U1":
        theirs = converged = None
        ours = _found(lambda: Number(_summed_source(results, width), np.nan, ""))
    else:
        theirs, converged, exact, ours = (
            _found(partial(results.number, value.quantity, value.component, layer, theory, width))
            for theory in (PUBLISHED, CONVERGED, EXACT, None)
        )
    computed = [theirs if by_theory else None, converged, exact]
    shown = ["—" if number is None else value.printed(number.value) for number in computed]
    simulated = "—" if ours is None else value.printed(ours.value) if np.isnan(ours.se) else with_error(ours)
    return Line(
        what,
        value.value + (f" ± {value.standard_error}" if value.standard_error else ""),
        shown[0],
        shown[1],
        shown[2],
        simulated,
        _change(value, layer, converged if by_theory else ours),
        published().sources[value.where] + (f"; {value.note}" if value.note else ""),
        tuple(number.sql for number in (*computed, ours) if number is not None and number.sql),
    )


def _found(ask: Callable[[], Number | None]) -> Number | None:
    """The number that ``ask`` returns; None where the study has not computed it yet."""
    try:
        return ask()
    except InputError:
        return None


def _change(value: PublishedValue, layer: int, ours: Number | None) -> str:
    """How a published number changes without the error of the published quadrature.

    The error is in the predictions of the theory, and in simulated differences n (E[..] - theory).
    """
    if ours is None:
        return "not computed yet"
    printed = float(value.value)
    if value.by == "g_only":
        return f"converged integrals move it by {ours.value / printed - 1:+.2%}"
    shift = (value.width or WIDTH) * _quadrature_shift(value, layer)
    if shift:
        return f"without the error of 32 nodes: {value.printed(printed + shift)}"
    return f"ours differs by {ours.value / printed - 1:+.2%}"


def _quadrature_shift(value: PublishedValue, layer: int) -> float:
    """Error of the 32-node rule in the mean (K0 or E2) that is subtracted in a simulated K1 or U1."""
    if value.quantity in ("K1", "K1 from U1"):
        theirs, right = (_path(rule).kernel[layer, 0, 0] for rule in (published().numerics, Numerics()))
    elif value.quantity == "U1":
        theirs, right = (_path(rule).second_moment[layer, 0, 0] for rule in (published().numerics, Numerics()))
    else:
        return 0.0
    return float(theirs - right)


@lru_cache(maxsize=4)
def _path(numerics: Numerics) -> MeanField:
    """Mean field of the first input in the paper's setting; by marginal consistency it needs no other input."""
    kernel = InputKernel.explicit([[published().setting["variance"]]])
    return mean_field(published().model, kernel, numerics)


def _summed_source(results: Results, width: int) -> float:
    """C_W eps^2 times the sum over layers of the simulated U1[00], by the Euler-Maclaurin formula."""
    model = published().model
    sample = results.simulated(model.epsilon, width)
    source = QUANTITIES["U1"].estimate_of(sample)[0][:, 0, 0]
    integral = float(np.trapezoid(source, sample.time)) - model.epsilon**2 * (source[-1] - source[0]) / 2
    summed: float = model.weight_variance * integral
    return summed


def findings(results: Results) -> tuple[Finding, ...]:
    """The main statements of the paper, in its order, with verdicts that follow from the numbers."""
    return tuple(_judged(results, statement, judge) for statement, judge in _STATEMENTS.items())


def _judged(results: Results, statement: str, judge: Callable[[Results], tuple[str, list[str], list[str]]]) -> Finding:
    try:
        verdict, computed, asked = judge(results)
    except InputError as problem:
        return Finding(statement, OPEN, (str(problem),), ())
    return Finding(statement, verdict, tuple(computed), tuple(dict.fromkeys(asked)))


def _at_end(results: Results, quantity: str, component: str, theory: Theory | None = None) -> Number:
    return results.number(quantity, component, published().model.depth, theory)


def _mean_kernel(results: Results) -> tuple[str, list[str], list[str]]:
    error = results.error("K0", published().model.depth, CONVERGED)
    window, sql = results.window("K0", TOLERANCE, CONVERGED)
    words = {
        "beyond": f"holds up to T = {window['certified_until']:.4g}",
        "bounded": f"ends between t = {window['certified_until']:.3g} and {window['refuted_from']:.3g}",
        "undecided": f"is certified up to t = {window['certified_until']:.3g}",
        "too_noisy": "is not resolved",
    }
    computed = [
        f"At n = {results.width} the relative error of K0 at T = 2 is {percent(error)}; at {TOLERANCE:.0%} the window"
        f" {words[window['status']]}.",
        "What remains is K1 / n, the 1/n correction, and not an error of K0.",
    ]
    verdict = {"beyond": STANDS, "bounded": CHANGES}.get(window["status"], "undecided")
    return verdict, computed, [error.sql, sql]


def _covariance(results: Results) -> tuple[str, list[str], list[str]]:
    theirs = {value.by: float(value.value) for value in published().value if (value.quantity, value.time) == ("V4", 2)}
    converged, exact, simulated, fixed = (
        _at_end(results, "V4", "00,00", theory) for theory in (CONVERGED, EXACT, None, PUBLISHED)
    )
    drift, now = theirs["g_only"] / theirs["simulation"] - 1, converged.value / simulated.value - 1
    computed = [
        f"Published: {drift:+.1%} (theory {theirs['g_only']:.3f}, simulation {theirs['simulation']:.3f}). With 32"
        f" Gauss-Hermite nodes we find {fixed.value:.3f} too.",
        f"With converged integrals the same equations give {converged.value:.3f}:"
        f" {converged.value / exact.value - 1:+.2%} against the exact leading order ({known_to(exact, 3)}) and"
        f" {now:+.2%} ± {simulated.se / simulated.value:.2%} against our simulation of width {results.width}"
        f" ({with_error(simulated)}).",
        "Most of the published drift is the error of the quadrature; the rest is the closure's and of order 1/n.",
    ]
    verdict = STANDS if abs(now - drift) < SAME_DRIFT else CHANGES
    return verdict, computed, [fixed.sql, converged.sql, exact.sql, simulated.sql]


def _correction(results: Results) -> tuple[str, list[str], list[str]]:
    mean, theory = (
        next(value for value in published().value if (value.quantity, value.by) == ("K1", by))
        for by in ("simulation", "g_only")
    )
    converged, exact, simulated, order_2 = (
        _at_end(results, "K1", "00", theory) for theory in (CONVERGED, EXACT, None, NORMAL_ORDERED)
    )
    right, wrong = _at_end(results, "K0", "00", CONVERGED), _at_end(results, "K0", "00", PUBLISHED)
    shift = WIDTH * (wrong.value - right.value)
    computed = [
        f"Published: K1_mic[00] at T is {mean.value} ± {mean.standard_error}, against the theory's {theory.value}, but"
        f" relative to a K0 that 32 nodes put {wrong.value - right.value:.5f} too high. At n = {WIDTH} that alone"
        f" shifts K1 by {-shift:+.3f}; relative to the converged K0 their simulation says"
        f" {float(mean.value) + shift:.3f}.",
        f"Our simulation of width {results.width}: {with_error(simulated)}; exact leading order {known_to(exact, 4)};"
        f" G-only, converged, {converged.value:.4f}; with the source normal-ordered (Wick order 2)"
        f" {order_2.value:.4f}.",
    ]
    published_gap = abs(float(theory.value) / float(mean.value) - 1)
    gap, noise = abs(converged.value - simulated.value), CLEARLY * simulated.se
    fails = STANDS if gap > noise else CHANGES
    more = ", and by more than published" if gap - noise > published_gap * abs(simulated.value) else ""
    asked = [number.sql for number in (simulated, exact, converged, order_2, right, wrong)]
    return fails + more, computed, asked


def _initial_source(results: Results) -> tuple[str, list[str], list[str]]:
    model, exact, simulated = (results.number("U1", "00", 0, theory) for theory in (CONVERGED, EXACT, None))
    computed = [
        f"U1[00] at t = 0: G-only {model.value:.4f}, exact leading order {exact.value:.4f}, simulation"
        f" {with_error(simulated)}. Subtracting the Wishart part in (1/2) H : (V4 - Wishart) removes the mismatch."
    ]
    verdict = STANDS if abs(model.value - simulated.value) > CLEARLY * simulated.se else CHANGES
    return verdict, computed, [model.sql, exact.sql, simulated.sql]


def _sigma_kernel(results: Results) -> tuple[str, list[str], list[str]]:
    computed, asked, better = [], [], []
    for quantity, component in (("V4", "00,00"), ("K1", "00")):
        without, extended, exact = (
            _at_end(results, quantity, component, theory) for theory in (CONVERGED, SIGMA, EXACT)
        )
        asked += [without.sql, extended.sql, exact.sql]
        better.append(abs(extended.value - exact.value) < abs(without.value - exact.value))
        computed.append(
            f"{quantity}[{component}] at T = 2 against the exact leading order ({known_to(exact, 4)}): G-only"
            f" {without.value / exact.value - 1:+.2%}, sigma-kernel closure {extended.value / exact.value - 1:+.2%}."
        )
    return STANDS if all(better) else CHANGES, computed, asked


_STATEMENTS = {
    "K0 is accurate at all depths.": _mean_kernel,
    "V4 drifts: at T = 2 the G-only theory is about 12 % low.": _covariance,
    "K1 of the G-only theory fails.": _correction,
    "The source of K1 is wrong already at initialisation.": _initial_source,
    "The state should be extended by the sigma-kernel.": _sigma_kernel,
}


def with_error(number: Number) -> str:
    """Value ± standard error, to the second digit of the error; an error that is rounding alone is left out.

    >>> with_error(Number(48.4711, 0.0532, "")), with_error(Number(1.25, 0.0, ""))
    ('48.471 ± 0.053', '1.25')
    """
    if not number.se > 1e-9 * abs(number.value):
        return f"{number.value:.6g}"
    digits = max(0, 1 - int(f"{number.se:e}".split("e")[1]))
    return f"{number.value:.{digits}f} ± {number.se:.{digits}f}"


def known_to(number: Number, decimals: int) -> str:
    """The value of a theory; with its estimated error where this is large enough to affect the last digit.

    >>> known_to(Number(-0.45292, 0.0, "", 0.0002), 4), known_to(Number(48.4709, 0.0, "", 1e-5), 3)
    ('-0.4529, known to ± 0.0002', '48.471')
    """
    text = f"{number.value:.{decimals}f}"
    return text if number.unsure < 0.1 * 10.0**-decimals else f"{text}, known to ± {number.unsure:.1g}"


def percent(number: Number) -> str:
    """A relative error with its standard error, in percent."""
    return f"{number.value:.3%} ± {number.se:.3%}"
