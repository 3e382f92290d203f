"""What each activation costs in the fused pass, in float32 and in float64, in one run.

Run: python -m benchmarks.activations. It takes a few minutes.

A figure is the processor time of a network and layer (n = 64, L = 100, 13 recorded layers, with all sums, one thread)
over that of tanh with the same estimator and number of inputs; in float64, over that of the same case in float32. Three
activations are registered, as a user's are: mish, which is smooth, hardswish, which has two kinks, and snake, which
takes polynomials of the highest degree. All are measured in turns, ROUNDS times; each figure is the least of its
rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import eftcore as eft
from benchmarks.simulation import processor
from eftcore.activations import register_activation
from eftcore.ensemble import threads
from eftcore.ensemble.engines import engine_and_moments
from eftcore.ensemble.reference import Path
from eftcore.specs import EnsembleSpec

WIDTH, DEPTH, EPSILON = 64, 100, 0.1
INPUTS = (1, 2, 4)
ESTIMATORS = ("plain", "paired")
NETWORKS = 256
ROUNDS = 7
GOAL, DOUBLE_GOAL = 2.0, 4.0

REGISTERED = {
    "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    "hardswish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "snake": lambda x: x + np.sin(x) ** 2,
}
ACTIVATIONS = ("tanh", "linear", "erf", "relu", "leaky_relu", "gelu", "silu", "softplus", "sin", "cos", *REGISTERED)

DTYPES = ("float32", "float64")

Case = tuple[str, str, int, str]


def ensemble(activation: str, estimator: str, n_inputs: int, dtype: str) -> EnsembleSpec:
    """The ensemble of one case."""
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=EPSILON, depth=DEPTH)
    correlation = 0.3 if n_inputs > 1 else 0.0
    kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=2.0, correlation=correlation)
    depths = tuple(range(0, DEPTH + 1, 8))
    return EnsembleSpec(model=model, kernel=kernel, width=WIDTH, estimator=estimator, depths=depths, dtype=dtype)


def run_of(spec: EnsembleSpec) -> Callable[[], float]:
    """Simulates the ensemble and returns nanoseconds of processor time per network and layer."""
    path = Path(spec)
    engine, moments = engine_and_moments(spec, path, shard=0, device="cpu")

    def run() -> float:
        start = time.process_time()
        for observed in engine.observations(NETWORKS):
            moments.add(observed)
        return (time.process_time() - start) / (NETWORKS * DEPTH) * 1e9

    return run


def main() -> None:
    """Print both tables."""
    threads.thread_count = lambda: 1  # type: ignore[assignment]
    for name, function in REGISTERED.items():
        register_activation(name, function)
    columns = [(estimator, n) for estimator in ESTIMATORS for n in INPUTS]
    cases: list[Case] = [(a, *column, dtype) for column in columns for a in ACTIVATIONS for dtype in DTYPES]
    runs = {case: run_of(ensemble(*case)) for case in cases}
    least = {case: run() for case, run in runs.items()}
    for _ in range(ROUNDS):
        for case, run in runs.items():
            least[case] = min(least[case], run())
    print(f"{processor()}; one thread; n = {WIDTH}, L = {DEPTH}")
    head = "| | " + " | ".join(f"{estimator}, N = {n}" for estimator, n in columns) + " |\n" + "|---" * 7 + "|"
    print(f"\nfloat32, in units of tanh (goal: at most {GOAL:g})\n\n{head}")
    tanh = [least["tanh", *column, "float32"] for column in columns]
    print("| tanh, nanoseconds | " + " | ".join(f"{unit:.0f}" for unit in tanh) + " |")
    for name in ACTIVATIONS:
        ratios = [least[name, *column, "float32"] / unit for column, unit in zip(columns, tanh, strict=True)]
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    print(f"\nfloat64, in units of the same activation in float32 (goal: at most {DOUBLE_GOAL:g})\n\n{head}")
    for name in ACTIVATIONS:
        ratios = [least[name, *column, "float64"] / least[name, *column, "float32"] for column in columns]
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
