"""Processor time and memory of eft.predict_many for one prediction, beside predict_spec on the same specs.

Run: python -m benchmarks.many [MOST], with the largest number of configurations (default 1000). Random networks: C_W
uniform in 0.5 .. 3, epsilon in 0.03 .. 0.15, L = 100, N = 2, variance in 0.5 .. 2, correlation in -0.9 .. 0.9. Each
case runs in a process of its own, with one thread. Ratios of processor time in one process are what a busy machine
leaves comparable.
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

import eftcore as eft

COUNTS = (1, 10, 100, 1000)
SINGLE = 10
"""Specs that are predicted one by one, to compare with."""

FEW = {("relu", "exact"): 100}
"""Cases of which fewer are predicted, since each takes long."""

GOAL = 10_000
"""Configurations, half of them tanh and half ReLU, each with g_only, sigma and exact."""


@dataclass(frozen=True)
class Measured:
    """Seconds of the processor for one prediction, one by one and together; MB at the peak above the imports, and of
    the results; largest relative difference."""

    single: float
    many: float
    peak: float
    results: float
    difference: float


def random_specs(activation: str, closure: str, count: int, seed: int = 0) -> list[eft.PredictionSpec]:
    """Networks that differ in everything but activation, inputs and layers."""
    rng = np.random.default_rng(seed)
    specs = []
    for _ in range(count):
        model = eft.ResNet(
            activation=activation,
            weight_variance=float(rng.uniform(0.5, 3)),
            epsilon=float(rng.uniform(0.03, 0.15)),
            depth=100,
        )
        kernel = eft.InputKernel.equicorrelated(
            n_inputs=2, variance=float(rng.uniform(0.5, 2)), correlation=float(rng.uniform(-0.9, 0.9))
        )
        specs.append(eft.PredictionSpec(model=model, kernel=kernel, closure=closure))
    return specs


def measure(activation: str, closure: str, count: int) -> Measured:
    """One case, in this process."""
    warnings.simplefilter("ignore")
    specs = random_specs(activation, closure, count)
    eft.predict_many(random_specs(activation, closure, 2, seed=1))  # tables that every prediction needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    together = eft.predict_many(specs)
    many = (time.process_time() - start) / count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    start = time.process_time()
    alone = [eft.predict_spec(spec) for spec in specs[:SINGLE]]
    single = (time.process_time() - start) / len(alone)
    difference = max(
        float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-300))
        for left, right in zip(alone, together, strict=False)
        for one, other in ((left.mean, right.mean), (left.covariance, right.covariance))
        if one is not None and other is not None
    )
    size = sum(values.nbytes for theory in together for values in theory.arrays().values())
    return Measured(single, many, peak / 1e3, size / 1e6, difference)


def main() -> None:
    """Print the tables of benchmarks/RESULTS.md."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else COUNTS[-1]
    total = 0.0
    print("| | configurations | ms singly | ms together | ratio | MB, peak | of which results | difference |")
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for activation in ("tanh", "relu"):
            for closure in ("mean", "g_only", "sigma", "exact"):
                counts = [n for n in COUNTS if n <= min(most, FEW.get((activation, closure), most))]
                for count in counts:
                    found = pool.submit(measure, activation, closure, count).result()
                    print(
                        f"| {activation}, {closure} | {count} | {1e3 * found.single:.0f} | {1e3 * found.many:.1f}"
                        f" | {found.single / found.many:.1f} | {found.peak:.0f} | {found.results:.0f}"
                        f" | {found.difference:.0e} |",
                        flush=True,
                    )
                if closure != "mean":
                    total += GOAL / 2 * found.many
    print(
        f"\n{GOAL} configurations, half tanh and half relu, with g_only, sigma and exact: {total:.0f} s of a processor."
    )


if __name__ == "__main__":
    main()
