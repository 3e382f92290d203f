"""How often a validity window says something false: theories of known error against many ensembles (eq. 9.7).

    python -m benchmarks.verdicts [--seeds 200] [--case 3]

For each case, ensembles that differ by their seed alone; the truth is what all of them say together. A theory is that
truth times 1 + e, with e a fraction of the tolerance tau, itself a multiple of the relative standard error at T. A
window that is refuted where e <= tau, or certified anywhere where e > tau, is false; each may happen in 5 % of them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import eftcore as eft
from benchmarks.ensembles import Ensemble
from eftcore.ensemble import Sample
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory

TAU_IN_ERRORS = 4.0
"""The tolerance over the relative standard error at T."""

FACTORS = (0.0, 0.9, 1.0, 1.01, 1.1)
"""Relative error of the theory over the tolerance."""

DEPTHS = (1, 10, 100)
"""Numbers of recorded depths that are judged."""


CASES = (
    *(Ensemble(estimator=estimator, n_inputs=n) for estimator in ("plain", "paired") for n in (1, 2, 4)),
    *(
        Ensemble(estimator=estimator, networks=networks)
        for estimator in ("plain", "paired")
        for networks in (4, 64, 4096)
    ),
    *(Ensemble(activation="relu", estimator=estimator) for estimator in ("plain", "paired")),
    *(Ensemble(activation="relu", estimator=estimator, networks=8192) for estimator in ("plain", "paired")),
    *(Ensemble(activation="relu", width=4, epsilon=0.5, depth=6, networks=networks) for networks in (256, 4000)),
    Ensemble(activation="gelu", estimator="paired", n_inputs=2, width=64, networks=2048),
    Ensemble(activation="linear", width=8, networks=2048),
)


@dataclass(frozen=True)
class Rates:
    """Shares of windows, of one quantity at one number of depths and one factor.

    Attributes:
        refuted: status bounded.
        certified: certified at some depth.
        resolved: not too_noisy.
    """

    quantity: str
    depths: int
    factor: float
    refuted: float
    certified: float
    resolved: float

    @property
    def false(self) -> float:
        """Share of false windows."""
        return self.refuted if self.factor <= 1 else self.certified


def rates(case: Ensemble, seeds: int) -> Iterator[Rates]:
    """Verdicts on theories of known error against ``seeds`` ensembles of the case."""
    samples = [case.sample(case.networks, seed) for seed in range(seeds)]
    theory = eft.predict(case.model, case.kernel, "g_only")
    truth = {name: np.mean([getattr(sample, attribute) for sample in samples], axis=0) for name, attribute in _JUDGED}
    for quantity, attribute in _JUDGED:
        spread = np.std([getattr(sample, attribute)[-1] for sample in samples], axis=0)
        tolerance = TAU_IN_ERRORS * float(np.linalg.norm(spread) / np.linalg.norm(truth[quantity][-1]))
        if not 0 < tolerance < 0.9:
            continue
        for count in DEPTHS:
            rows = np.unique(np.round(np.linspace(0, len(theory.depth) - 1, count + 1)).astype(int))[1:]
            right = _at(theory, rows, **{attribute: truth[quantity]})
            wrong = _at(theory, rows, **{attribute: truth[quantity] * (1 + tolerance)})
            found: dict[float, Counter[str]] = {factor: Counter() for factor in FACTORS}
            for sample in samples:
                for factor, window in _windows(right, wrong, sample, quantity, tolerance):
                    found[factor]["refuted"] += window["status"] == "bounded"
                    found[factor]["certified"] += not np.isnan(window["certified_until"])
                    found[factor]["resolved"] += window["status"] != "too_noisy"
            for factor, counts in found.items():
                shares = {name: counts[name] / seeds for name in ("refuted", "certified", "resolved")}
                yield Rates(quantity=quantity, depths=len(rows), factor=factor, **shares)


def _windows(
    right: Theory, wrong: Theory, sample: Sample, quantity: str, tolerance: float
) -> Iterator[tuple[float, dict[str, Any]]]:
    """The window of each factor: of a theory without error, and of one whose error is ``tolerance`` at tolerances
    around that."""
    for theory, factors in ((right, FACTORS[:1]), (wrong, FACTORS[1:])):
        asked = [tolerance / factor if factor else tolerance for factor in factors]
        windows = eft.compare(theory, sample, asked).windows
        yield from zip(factors, windows[windows["quantity"] == quantity].to_dict("records"), strict=True)


_JUDGED = [(name, QUANTITIES[name].attribute) for name in ("V4", "K1")]


def _at(theory: Theory, rows: np.ndarray, **arrays: np.ndarray) -> Theory:
    """A theory that says this and nothing else, at some of the depths."""
    empty = dict.fromkeys(("covariance", "correction", "source", "increment_covariance"))
    cut = {name: values[rows] for name, values in {"mean": theory.mean, **arrays}.items()}
    return replace(theory, **{**empty, **cut}, depth=theory.depth[rows], time=theory.time[rows], numerical_error={})


def main() -> None:
    """Print a row for each case, quantity, number of depths and error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    options = parser.parse_args()
    worst = 0.0
    print("| case | X | depths | e / tau | refuted | certified | resolved | false |\n|---|---|---|---|---|---|---|---|")
    for number in options.case:
        for row in rates(CASES[number], options.seeds):
            worst = max(worst, row.false)
            print(
                f"| {CASES[number]} | {row.quantity} | {row.depths} | {row.factor:g} | {row.refuted:.3f} |"
                f" {row.certified:.3f} | {row.resolved:.3f} | {row.false:.3f} |",
                flush=True,
            )
    print(f"\nmost false windows of a row: {100 * worst:.1f} %")


if __name__ == "__main__":
    main()
