"""How often value +- 2 se holds the truth, where the standard error is not marked unreliable (docs/theory.md, 7.6).

    python -m benchmarks.coverage [--seeds 200] [--case 3 4]

60 ensembles at their last layer; for each, ensembles that differ by their seed alone, and the truth from one with many
more networks, whose own error is allowed for. Nominal: 95.4 %.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import eftcore as eft
from eftcore.ensemble import Sample

QUANTITIES = {"K1": "correction", "U1": "source", "V4": "covariance", "Sigma": "increment_covariance"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An ensemble and how many of its networks an estimate rests on; ``truth`` networks stand for all of them."""

    activation: str
    width: int
    epsilon: float
    depth: int
    networks: int
    estimator: str
    n_inputs: int = 1
    weight_variance: float = 2.0
    truth: int = 400_000

    def __str__(self) -> str:
        return (
            f"{self.activation}, n = {self.width}, T = {self.epsilon**2 * self.depth:g}, N = {self.n_inputs},"
            f" {self.estimator}, M = {self.networks}"
        )

    def sample(self, networks: int, seed: int) -> Sample:
        """So many networks of this seed, at the last layer."""
        model = eft.ResNet(
            activation=self.activation,
            weight_variance=self.weight_variance,
            epsilon=self.epsilon,
            depth=self.depth,
        )
        kernel = eft.InputKernel.equicorrelated(n_inputs=self.n_inputs, variance=1.0, correlation=0.3)
        options = {"width": self.width, "samples": networks, "seed": seed, "estimator": self.estimator}
        return eft.simulate(model, kernel, depths=[self.depth], **options)


_NETWORKS = (
    ("tanh", 16, 0.1, 20),
    ("tanh", 64, 0.1, 100),
    ("erf", 4, 0.5, 8),
    ("relu", 4, 0.5, 6),
    ("relu", 32, 0.1, 100),
    ("gelu", 16, 0.2, 25),
    ("linear", 8, 0.2, 25),
)
CASES = (
    *(
        Case(activation=a, width=n, epsilon=e, depth=depth, estimator=estimator, networks=networks)
        for (a, n, e, depth), estimator, networks in itertools.product(
            _NETWORKS, ("plain", "paired"), (16, 64, 256, 2000)
        )
    ),
    Case(activation="tanh", width=32, epsilon=0.2, depth=25, estimator="paired", networks=500, n_inputs=2),
    Case(activation="relu", width=64, epsilon=0.2, depth=25, estimator="plain", networks=4000, n_inputs=2),
    Case(activation="silu", width=256, epsilon=0.2, depth=25, estimator="paired", networks=400, truth=40_000),
    Case(activation="gelu", width=64, epsilon=0.2, depth=25, estimator="paired", networks=20_000),
)
"""56 + 4; no case was chosen for its result."""


@dataclass(frozen=True)
class Coverage:
    """Of one quantity: share of ensembles with the mark "unreliable", and coverage of the others, all entries alike."""

    quantity: str
    unreliable: float
    covered: float
    raw: float
    intervals: int


def coverage(case: Case, seeds: int) -> Iterator[Coverage]:
    """Coverage of value +- 2 se over ``seeds`` ensembles."""
    truth = case.sample(case.truth, seed=10**6)
    samples = [case.sample(case.networks, seed) for seed in range(seeds)]
    for quantity, attribute in QUANTITIES.items():
        right, spread = (getattr(truth, f"{attribute}{suffix}")[0] for suffix in ("", "_se"))
        held, bare, trusted = [], [], []
        for sample in samples:
            value, error = (getattr(sample, f"{attribute}{suffix}")[0] for suffix in ("", "_se"))
            factor = sample.widening(quantity).factor[0]
            distance = np.diagonal(np.abs(value - right))
            allowance = (np.diagonal(spread) / truth.widening(quantity).factor[0]) ** 2
            held.append(np.mean(distance <= 2 * np.sqrt(np.diagonal(error) ** 2 + allowance)))
            bare.append(np.mean(distance <= 2 * np.sqrt((np.diagonal(error) / factor) ** 2 + allowance)))
            trusted.append(bool(sample.reliable(quantity)[0]))
        kept = np.array(held)[trusted]
        yield Coverage(
            quantity,
            unreliable=1 - float(np.mean(trusted)),
            covered=float(kept.mean()) if len(kept) else np.nan,
            raw=float(np.mean(bare)),
            intervals=len(kept),
        )


def main() -> None:
    """Print a row for each case, and what share of the trusted intervals holds the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    options = parser.parse_args()
    rows: list[Coverage] = []
    names = " | ".join(f"{name}: bare, given, unreliable" for name in QUANTITIES)
    print(f"| ensemble | {names} |\n|---|{'---|' * len(QUANTITIES)}")
    for number in options.case:
        found = list(coverage(CASES[number], options.seeds))
        rows += found
        cells = " | ".join(f"{x.raw:.3f}, {x.covered:.3f}, {x.unreliable:.2f}" for x in found)
        print(f"| {CASES[number]} | {cells} |", flush=True)
    for quantity in QUANTITIES:
        mine = [x for x in rows if x.quantity == quantity and x.intervals >= options.seeds / 2]
        given = np.array([x.covered for x in mine])
        whole = np.average(given, weights=[x.intervals for x in mine]) if mine else np.nan
        inside = np.mean((given >= 0.93) & (given <= 0.97)) if mine else np.nan
        print(
            f"{quantity}: {len(mine)} rows where most ensembles are trusted; coverage {whole:.3f}, of the rows"
            f" {given.min(initial=1):.3f} to {given.max(initial=0):.3f}, {100 * inside:.0f} % within 93 to 97 %"
        )


if __name__ == "__main__":
    main()
