"""How well theory knows the width from which on the leading order of V4 holds.

``python -m benchmarks.widths`` draws 60 configurations at random, simulates networks of the width n* at which theory
says that the leading order of V4 is off by the tolerance, and writes by how much the width at which it really is
differs, to benchmarks/WIDTHS.md.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import eftcore as eft
from benchmarks.kernel_law import Case, random_case

CONFIGURATIONS = 60
NARROWEST, WIDEST = 8, 400
PRECISION = 0.06
"""Standard error that is wanted of the error of the leading order, as a fraction of the tolerance."""

MOST_SAMPLES = 400_000
TARGET = Path(__file__).with_name("WIDTHS.md")


@dataclass(frozen=True)
class Outcome:
    """One configuration: predicted n*, the width that simulation implies, and its standard error."""

    case: Case
    tolerance: float
    predicted: float
    measured: float
    error: float

    @property
    def off(self) -> float:
        """Relative deviation of the predicted width."""
        return self.predicted / self.measured - 1


def measure(case: Case) -> Outcome | None:
    """The outcome where n* is a width that can be simulated; the tolerance is chosen so that n* is about 40."""
    depths = [0, case.model.depth]
    exact = eft.predict(case.model, case.kernel, "exact", next_order=True, truncation=0.02, depths=depths)
    assert exact.covariance is not None
    assert exact.covariance_next is not None
    leading, following = exact.covariance[-1], exact.covariance_next[-1]
    known = np.isfinite(following)
    size = float(np.linalg.norm(following[known]) / np.linalg.norm(leading[known]))
    tolerance = float(np.clip(round(size / 40, 3), 0.01, 0.3))
    row = eft.width_windows(exact, tolerances=[tolerance]).query("quantity == 'V4'").iloc[-1]
    width = round(row["width"])
    if not NARROWEST <= width <= WIDEST:
        return None
    samples = 20_000
    while True:
        sample = eft.simulate(case.model, case.kernel, width=width, samples=samples, seed=1, depths=depths)
        true, noise = sample.covariance[-1][known], sample.covariance_se[-1][known]
        off = leading[known] - true
        found = float(np.linalg.norm(off) / np.linalg.norm(true))
        # of the projection onto the deviation, which is what noise changes
        spread = float(np.sqrt(np.sum((off * noise) ** 2)) / np.linalg.norm(off) / np.linalg.norm(true))
        if spread <= PRECISION * tolerance or samples >= MOST_SAMPLES:
            break
        samples = min(MOST_SAMPLES, math.ceil(1.2 * samples * (spread / (PRECISION * tolerance)) ** 2))
    # the error of the leading order is very nearly proportional to 1/n
    return Outcome(case, tolerance, float(row["width"]), width * found / tolerance, width * spread / tolerance)


def outcomes(configurations: int, seed: int = 20261129) -> list[Outcome]:
    """Configurations with one and with two inputs, until there are as many with a width that can be simulated."""
    rng = np.random.default_rng(seed)
    found: list[Outcome] = []
    while len(found) < configurations:
        case = random_case(rng, 1 + len(found) % 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", eft.NumericsWarning)
            outcome = measure(case)
        if outcome is not None:
            found.append(outcome)
    return found


def report(found: list[Outcome]) -> str:
    """A page of Markdown."""
    off = np.array([outcome.off for outcome in found])
    noise = np.array([outcome.error / outcome.measured for outcome in found])
    lines = [
        "# The width from which on the leading order of V4 holds",
        "",
        f"`python -m benchmarks.widths`: {len(found)} random configurations (ten activations, one or two inputs,",
        "t from 0.2 to 2, C_W from 0.5 to 2.5, with and without biases), each with the tolerance for which theory says",
        "a width of about 40, where networks can be simulated precisely.",
        "",
        f"Within 20 %: {np.mean(np.abs(off) <= 0.2):.0%}. Within 10 %: {np.mean(np.abs(off) <= 0.1):.0%}.",
        f"Median deviation {100 * np.median(np.abs(off)):.1f} %, largest {100 * np.abs(off).max():.0f} %; the"
        f" standard error of the simulated width is {100 * np.median(noise):.1f} % (median).",
        "",
        "| activation | inputs | t | C_W | C_b | tolerance | n* of theory | n* simulated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in sorted(found, key=lambda outcome: -abs(outcome.off)):
        model = outcome.case.model
        lines.append(
            f"| {model.activation} | {outcome.case.kernel.n_inputs} | {model.total_time:.2f}"
            f" | {model.weight_variance:g} | {model.bias_variance:g} | {outcome.tolerance:.3f}"
            f" | {outcome.predicted:.1f} | {outcome.measured:.1f} ± {outcome.error:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(report(outcomes(CONFIGURATIONS)), encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))
