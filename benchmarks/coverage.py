"""How often value +- 2 se holds the truth, where the standard error is not marked unreliable (docs/theory.md, 7.6).

    python -m benchmarks.coverage [--seeds 200] [--first 0] [--case 3 4]

84 ensembles at their last layer; for each, ensembles that differ by their seed alone, and the truth from one with many
more networks, whose own error is allowed for. Nominal: 95.4 %. Every row counts that has FEWEST unmarked ensembles,
also where most are marked: a mark that depends on luck spares the wrong ones, and shows there alone.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.ensembles import Ensemble
from eftcore.quantities import QUANTITIES

FEWEST = 20
"""Unmarked ensembles below which a row's coverage says nothing."""

JUDGED = {name: QUANTITIES[name].attribute for name in ("K1", "U1", "V4", "Sigma")}
CUMULANTS = {"kappa3": "kappa3", "kappa4": "kappa4"}


@dataclass(frozen=True, kw_only=True)
class Case(Ensemble):
    """An ensemble; ``truth`` networks stand for all of them."""

    truth: int = 400_000


_NETWORKS = (
    ("tanh", 16, 0.1, 20),
    ("tanh", 64, 0.1, 100),
    ("erf", 4, 0.5, 8),
    ("relu", 4, 0.5, 6),
    ("relu", 32, 0.1, 100),
    ("gelu", 16, 0.2, 25),
    ("linear", 8, 0.2, 25),
)


def _drawn(count: int) -> tuple[Case, ...]:
    """Ensembles drawn from a grid, those that would take long left out."""
    rng = np.random.default_rng(20261127)
    found: list[Case] = []
    while len(found) < count:
        time, epsilon = float(rng.choice([0.5, 1.0, 2.0])), float(rng.choice([0.1, 0.2, 0.5]))
        activation = str(rng.choice(["tanh", "erf", "relu", "gelu", "silu", "linear", "sin"]))
        width, networks = int(rng.choice([4, 8, 16, 32, 64, 256])), int(rng.choice([16, 64, 256, 1000, 4000, 20_000]))
        estimator, n_inputs = str(rng.choice(["plain", "paired"])), int(rng.choice([1, 2]))
        weight_variance, depth = float(rng.choice([0.5, 1.0, 2.0, 4.0])), max(2, round(time / epsilon**2))
        work = width * depth * n_inputs
        truth = int(min(400_000, max(100 * networks, 4e8 // work)))
        if networks * work > 1.2e7 or truth < 20 * networks:
            continue
        found.append(
            Case(
                activation=activation,
                width=width,
                epsilon=epsilon,
                depth=depth,
                networks=networks,
                estimator=estimator,
                n_inputs=n_inputs,
                weight_variance=weight_variance,
                truth=truth,
            )
        )
    return tuple(found)


CASES = (
    *(
        Case(activation=a, width=n, epsilon=e, depth=depth, estimator=estimator, networks=networks)
        for (a, n, e, depth), estimator, networks in itertools.product(
            _NETWORKS, ("plain", "paired"), (16, 64, 256, 2000)
        )
    ),
    Case(activation="tanh", width=32, epsilon=0.2, depth=25, estimator="paired", networks=500, n_inputs=2),
    Case(activation="relu", width=64, epsilon=0.2, depth=25, estimator="plain", networks=4000, n_inputs=2),
    Case(activation="silu", width=256, epsilon=0.2, depth=25, estimator="paired", networks=400),
    Case(activation="gelu", width=64, epsilon=0.2, depth=25, estimator="paired", networks=20_000),
    *_drawn(24),
)
"""56 + 4 + 24; no case was chosen for its result."""


@dataclass(frozen=True)
class Coverage:
    """Of one quantity: share of ensembles with the mark "unreliable", and coverage of the others, all entries alike."""

    quantity: str
    unreliable: float
    covered: float
    raw: float
    intervals: int


def coverage(case: Case, seeds: int, first: int = 0) -> Iterator[Coverage]:
    """Coverage of value +- 2 se over ``seeds`` ensembles, by their seeds from ``first`` on."""
    truth = case.sample(case.truth, 10**6, [case.depth])
    samples = [case.sample(case.networks, seed, [case.depth]) for seed in range(first, first + seeds)]
    for quantity, attribute in (JUDGED | CUMULANTS).items():
        right, spread = (getattr(truth, f"{attribute}{suffix}")[0] for suffix in ("", "_se"))
        entries = np.triu_indices(len(right)) if right.ndim == 2 else slice(None)
        held, bare, trusted = [], [], []
        for sample in samples:
            value, error = (getattr(sample, f"{attribute}{suffix}")[0] for suffix in ("", "_se"))
            factor = sample.widening(quantity).factor[0]
            distance = np.abs(value - right)[entries]
            allowance = (spread[entries] / truth.widening(quantity).factor[0]) ** 2
            held.append(np.mean(distance <= 2 * np.sqrt(error[entries] ** 2 + allowance)))
            bare.append(np.mean(distance <= 2 * np.sqrt((error[entries] / factor) ** 2 + allowance)))
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
    parser.add_argument("--first", type=int, default=0, help="the lowest seed")
    parser.add_argument("--case", type=int, nargs="*", default=range(len(CASES)))
    options = parser.parse_args()
    rows: list[Coverage] = []
    names = " | ".join(f"{name}: bare, given, unreliable" for name in JUDGED | CUMULANTS)
    print(f"| ensemble | {names} |\n|---|{'---|' * len(JUDGED | CUMULANTS)}")
    for number in options.case:
        found = list(coverage(CASES[number], options.seeds, options.first))
        rows += found
        cells = " | ".join(f"{x.raw:.3f}, {x.covered:.3f}, {x.unreliable:.2f}" for x in found)
        print(f"| {CASES[number]} | {cells} |", flush=True)
    for quantity in JUDGED | CUMULANTS:
        print(quantity + ": " + summary([x for x in rows if x.quantity == quantity]))
    print("all: " + summary(rows))


def summary(rows: list[Coverage]) -> str:
    """All unmarked intervals together, and the rows with at least FEWEST of them."""
    printed = [x for x in rows if x.intervals]
    mine = [x for x in rows if x.intervals >= FEWEST]
    if not mine:
        return "too few intervals without a mark"
    given, counts = np.array([x.covered for x in mine]), np.array([x.intervals for x in mine])
    whole = np.average([x.covered for x in printed], weights=[x.intervals for x in printed])
    inside = 100 * np.mean((given >= 0.93) & (given <= 0.97))
    low = np.sum(stats.binom.cdf(np.round(given * counts), counts, 0.93) < 0.01)
    high = np.sum(stats.binom.sf(np.round(given * counts) - 1, counts, 0.97) < 0.01)
    return (
        f"{sum(x.intervals for x in rows)} ensembles without a mark, coverage {whole:.4f}; {len(mine)} rows,"
        f" {given.min():.3f} to {given.max():.3f}, {inside:.0f} % of them within 93 to 97 %; below 93 % at a"
        f" significance of 1 %: {low}, above 97 %: {high}"
    )


if __name__ == "__main__":
    main()
