"""Time of the simulation engine per network-layer, against a plain torch loop of the same algorithm, in one run.

Run: python -m benchmarks.simulation. Setting: tanh, n = 64, N = 4, epsilon = 0.1, L = 200, about every second layer
recorded. Each figure is the best of three; the two are measured in turns, so that other load meets both.
"""

from __future__ import annotations

import time

import numba
import torch

import eftcore as eft
from eftcore.ensemble.cpu_engine import CpuEngine
from eftcore.ensemble.moments import Moments
from eftcore.ensemble.reference import Path
from eftcore.specs import EnsembleSpec

WIDTH, INPUTS, EPSILON, DEPTH = 64, 4, 0.1, 200
LOOP_NETWORKS, LOOP_LAYERS = 2000, 60
NETWORKS = 8192
REPEATS = 3


def torch_loop() -> float:
    """Seconds per network-layer of tanh, bmm, cholesky, randn, bmm per layer with the products of G summed."""
    first, second = torch.triu_indices(INPUTS, INPUTS)
    state = torch.randn(LOOP_NETWORKS, WIDTH, INPUTS)
    total = torch.zeros((len(first), len(first)), dtype=torch.float64)
    start = time.perf_counter()
    for _ in range(LOOP_LAYERS):
        fired = torch.tanh(state)
        factor = torch.linalg.cholesky(2.0 * torch.bmm(fired.mT, fired) / WIDTH)
        kernel = (torch.bmm(state.mT, state) / WIDTH)[:, first, second].double()
        total += kernel.T @ kernel
        state = state + EPSILON * torch.bmm(torch.randn(LOOP_NETWORKS, WIDTH, INPUTS), factor.mT)
    return (time.perf_counter() - start) / (LOOP_LAYERS * LOOP_NETWORKS)


def fused_pass(estimator: str) -> float:
    """Seconds per network-layer, all moments of sections 4 and 6 included."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=EPSILON, depth=DEPTH)
    kernel = eft.InputKernel.equicorrelated(n_inputs=INPUTS, variance=2.0, correlation=0.3)
    spec = EnsembleSpec(model=model, kernel=kernel, width=WIDTH, estimator=estimator)
    path = Path(spec)
    engine, moments = CpuEngine(spec, path, shard=0), Moments(spec, path.reference)
    for observed in engine.observations(16):
        moments.add(observed)
    start = time.perf_counter()
    for observed in engine.observations(NETWORKS):
        moments.add(observed)
    return (time.perf_counter() - start) / (DEPTH * NETWORKS)


def main() -> None:
    """Print the table."""
    runs = {"torch loop": torch_loop, "plain": lambda: fused_pass("plain"), "paired": lambda: fused_pass("paired")}
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS):
        for name, run in runs.items():
            seconds[name] = min(seconds[name], run())
    print(f"threads: torch {torch.get_num_threads()}, numba {numba.get_num_threads()}")
    for name, value in seconds.items():
        print(
            f"{name:10}  {value * 1e6:7.3f} us / network-layer  {value / (WIDTH * INPUTS) * 1e9:6.2f} ns / neuron-input"
        )
    print(f"torch loop / plain: {seconds['torch loop'] / seconds['plain']:.1f}")
    print(f"paired / plain: {seconds['paired'] / seconds['plain']:.2f}")


if __name__ == "__main__":
    main()
