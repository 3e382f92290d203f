"""Time and memory of the simulation on a processor, against a plain torch loop of the same algorithm, in one run.

Run: python -m benchmarks.simulation. Setting of both: tanh, n = 64, N = 4, C_W = 2, epsilon = 0.05, float32.

* torch loop: a batch of 2000 networks and, per layer, tanh, bmm (S), cholesky, bmm (G), the P x P products of G's pairs
  summed over networks, randn, bmm: what one writes first. With all of torch's threads and with one; also with one and
  products at the recorded layers alone, which is as little as such a loop can do.
* fused pass: ``simulate`` without its theory part, L = 800 with 101 recorded layers and every sum of
  eftcore.ensemble.sums, estimators plain and paired.

They are measured in turns, ROUNDS times, so that other load meets all of them; each figure is the least of its rounds.
Processor time adds up all threads. On a machine that others use too, the fairest comparison is that of processor time
with the loop of one thread: other load makes torch's threads wait for each other, and waiting costs processor time.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path as FilePath

import torch

import eftcore as eft
from eftcore.ensemble.cpu.engine import CpuEngine
from eftcore.ensemble.cpu.moments import Moments
from eftcore.ensemble.reference import Path
from eftcore.ensemble.threads import thread_count
from eftcore.specs import EnsembleSpec

WIDTH, INPUTS, EPSILON, WEIGHT_VARIANCE = 64, 4, 0.05, 2.0
DEPTH, RECORD_EVERY = 800, 8
LOOP_NETWORKS, LOOP_LAYERS = 2000, 80
NETWORKS = 4096
ROUNDS = 8
TARGET, PAIRED_TARGET = 20.0, 2.5


@dataclass
class Cost:
    """Least seconds per network-layer: of the clock, and of processors."""

    clock: float = float("inf")
    processors: float = float("inf")

    def add(self, run: Callable[[], int]) -> None:
        """Measure a run that returns how many network-layers it did."""
        clock, processors = time.perf_counter(), time.process_time()
        count = run()
        self.clock = min(self.clock, (time.perf_counter() - clock) / count)
        self.processors = min(self.processors, (time.process_time() - processors) / count)


def torch_loop(every: int, threads: int) -> Callable[[], int]:
    """The plain loop, with products of G added at every ``every``-th layer."""
    first, second = torch.triu_indices(INPUTS, INPUTS)

    def run() -> int:
        torch.set_num_threads(threads)
        state = torch.randn(LOOP_NETWORKS, WIDTH, INPUTS)
        total = torch.zeros((len(first), len(first)), dtype=torch.float64)
        for layer in range(LOOP_LAYERS):
            fired = torch.tanh(state)
            factor = torch.linalg.cholesky(WEIGHT_VARIANCE * torch.bmm(fired.mT, fired) / WIDTH)
            if layer % every == 0:
                kernel = (torch.bmm(state.mT, state) / WIDTH)[:, first, second].double()
                total += kernel.T @ kernel
            state = state + EPSILON * torch.bmm(torch.randn(LOOP_NETWORKS, WIDTH, INPUTS), factor.mT)
        return LOOP_LAYERS * LOOP_NETWORKS

    return run


def fused_pass(estimator: str) -> Callable[[], int]:
    """The engine and its moments."""
    model = eft.ResNet(activation="tanh", weight_variance=WEIGHT_VARIANCE, epsilon=EPSILON, depth=DEPTH)
    kernel = eft.InputKernel.equicorrelated(n_inputs=INPUTS, variance=2.0, correlation=0.3)
    depths = tuple(range(0, DEPTH + 1, RECORD_EVERY))
    spec = EnsembleSpec(model=model, kernel=kernel, width=WIDTH, estimator=estimator, depths=depths)
    path = Path(spec)
    engine, moments = CpuEngine(spec, path, shard=0), Moments(spec, path.reference)

    def run() -> int:
        for observed in engine.observations(NETWORKS):
            moments.add(observed)
        return DEPTH * NETWORKS

    return run


def large_network() -> tuple[float, float]:
    """Peak memory in GB of this process and seconds for 64 paired networks with n = 4096, N = 16, L = 1000."""
    start = time.perf_counter()
    model = eft.ResNet(activation="tanh", weight_variance=WEIGHT_VARIANCE, epsilon=EPSILON, depth=1000)
    kernel = eft.InputKernel.equicorrelated(n_inputs=16, variance=2.0, correlation=0.3)
    eft.simulate(model, kernel, width=4096, samples=64, device="cpu")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, time.perf_counter() - start


def processor() -> str:
    """Model name of the processor."""
    lines = FilePath("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> None:
    """Print the table."""
    threads = torch.get_num_threads()
    runs = {
        "torch loop": torch_loop(1, threads),
        "torch loop, one thread": torch_loop(1, 1),
        "the same, recorded layers": torch_loop(RECORD_EVERY, 1),
        "fused pass, plain": fused_pass("plain"),
        "fused pass, paired": fused_pass("paired"),
    }
    costs = {name: Cost() for name in runs}
    for run in runs.values():
        run()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            costs[name].add(run)
    print(f"{processor()}; threads: torch {threads}, fused pass {thread_count()}")
    print(f"{'ns per':25} {'network-layer':>14} {'neuron-input-layer':>19} {'processor time':>15}")
    for name, cost in costs.items():
        each = cost.clock / (WIDTH * INPUTS)
        print(f"{name:25} {cost.clock * 1e9:14.1f} {each * 1e9:19.3f} {cost.processors * 1e9:15.1f}")
    loop, one_thread, recorded, plain, paired = costs.values()
    print(f"torch loop / plain, clock: {loop.clock / plain.clock:.1f} (target: at least {TARGET:g})")
    print(f"torch loop of one thread / plain, processor time: {one_thread.processors / plain.processors:.1f}")
    print(f"the same with products at recorded layers alone: {recorded.processors / plain.processors:.1f}")
    ratios = paired.clock / plain.clock, paired.processors / plain.processors
    print(f"paired / plain: {ratios[0]:.2f}, processor time {ratios[1]:.2f} (target: at most {PAIRED_TARGET:g})")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        memory, seconds = pool.submit(large_network).result()
    print(f"64 paired networks, n = 4096, N = 16, L = 1000: {memory:.2f} GB at most (target: 4), {seconds:.0f} s")


if __name__ == "__main__":
    main()
