"""Time and memory of the closures, and how the cost grows with inputs N, layers L and Wick order m.

Run: python -m benchmarks.theory. Each case runs in a process of its own, which reports its peak memory. Time is the
best of the repeats, on the clock and on the processor: on a busy machine the latter says more. Settings: tanh, C_W = 2,
K^0 = 2 [0.7 I + 0.3 11^T], epsilon = 0.05; about 100 recorded layers unless said otherwise.
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

import eftcore as eft

RTOL = eft.Numerics().rtol


@dataclass(frozen=True)
class Case:
    """One prediction; ``clock`` and ``memory`` are its targets in seconds and GB."""

    closure: str
    inputs: int
    depth: int
    order: int | None = None
    continuous: bool = False
    ends_only: bool = False
    repeats: int = 1
    clock: float | None = None
    memory: float | None = None

    @property
    def name(self) -> str:
        order = "" if self.order is None else f", m = {self.order}"
        ends = ", first and last layer recorded" if self.ends_only else ""
        limit = "continuous " if self.continuous else ""
        return f"{limit}{self.closure}, N = {self.inputs}, L = {self.depth}{order}{ends}"


@dataclass(frozen=True)
class Measured:
    """Seconds on the clock and the processor, GB at the peak and before, GB of the V4 array, worst estimated error."""

    clock: float
    processor: float
    peak: float
    before: float
    array: float
    error: float


TARGETS = (
    Case("g_only", 4, 800, repeats=5, clock=0.3),
    Case("sigma", 4, 800, repeats=5, clock=1.0),
    Case("wick", 4, 800, order=24, repeats=3, clock=3.0),
    Case("g_only", 4, 800, continuous=True, repeats=5, clock=0.2),
    Case("g_only", 32, 200, clock=60.0, memory=4.0),
    Case("sigma", 32, 200, clock=60.0, memory=4.0),
)

OTHERS = (
    Case("wick", 8, 200, order=24),
    Case("g_only", 64, 20, ends_only=True),
    Case("sigma", 64, 20, ends_only=True),
)

GROWTH = {
    "g_only, N = 8 .. 48 (L = 40)": [(n, Case("g_only", n, 40, ends_only=True)) for n in (8, 16, 32, 48)],
    "sigma, N = 8 .. 32 (L = 40)": [(n, Case("sigma", n, 40, ends_only=True)) for n in (8, 16, 24, 32)],
    "g_only, L = 400 .. 6400 (N = 4)": [(d, Case("g_only", 4, d)) for d in (400, 1600, 6400)],
    "sigma, L = 400 .. 6400 (N = 4)": [(d, Case("sigma", 4, d)) for d in (400, 1600, 6400)],
    "wick, m = 16 .. 96 (N = 6, L = 40)": [(m, Case("wick", 6, 40, order=m)) for m in (16, 32, 64, 96)],
}


def peak_memory() -> float:
    """GB this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def run(case: Case) -> Measured:
    """The best of the case's repeats, in this process."""
    # the depth sets T = epsilon^2 L, which stays at 2 or less, so that growth in L is not growth in T
    model = eft.ResNet(
        activation="tanh", weight_variance=2.0, epsilon=min(0.05, (2 / case.depth) ** 0.5), depth=case.depth
    )
    kernel = eft.InputKernel.equicorrelated(n_inputs=case.inputs, variance=2.0, correlation=0.3)
    before, clock, processor = peak_memory(), float("inf"), float("inf")
    for _ in range(case.repeats):
        start = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", eft.NumericsWarning)
            found = eft.predict(
                model,
                kernel,
                case.closure,  # type: ignore[arg-type]
                order=case.order,
                continuous=case.continuous,
                depths=(0, case.depth) if case.ends_only else None,
            )
        clock, processor = min(clock, time.perf_counter() - start[0]), min(processor, time.process_time() - start[1])
    assert found.covariance is not None
    error = max(found.numerical_error.values())
    return Measured(clock, processor, peak_memory(), before, found.covariance.nbytes / 1e9, error)


def apart(case: Case) -> Measured:
    """run, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, case).result()


def main() -> None:
    """Print the tables."""
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start; requested accuracy {RTOL:g}")
    print("\n| | s, clock | s, processor | GB, peak | of which V4 | error | target |\n|---|---|---|---|---|---|---|")
    for case in (*TARGETS, *OTHERS):
        found = apart(case)
        limits = [
            f"{name} {limit:g} {unit}: {'met' if value <= limit else 'MISSED'}"
            for name, value, limit, unit in (
                ("time", found.clock, case.clock, "s"),
                ("memory", found.peak, case.memory, "GB"),
            )
            if limit is not None
        ]
        print(
            f"| {case.name} | {found.clock:.2f} | {found.processor:.2f} | {found.peak:.2f} | {found.array:.3f} |"
            f" {found.error:.0e} | {', '.join(limits)} |",
            flush=True,
        )
        if case.ends_only:
            matrix = found.array / 2
            print(
                f"|   in P x P matrices of {matrix:.4f} GB | | | {(found.peak - found.before) / matrix:.0f} | 2 | | |"
            )
    print("\n| cost | processor s | exponent |\n|---|---|---|")
    for name, cases in GROWTH.items():
        seconds = [apart(case).processor for _, case in cases]
        slope = np.polyfit(np.log([size for size, _ in cases]), np.log(seconds), 1)[0]
        print(f"| {name} | {', '.join(f'{s:.2f}' for s in seconds)} | {slope:.2f} |", flush=True)


if __name__ == "__main__":
    main()
