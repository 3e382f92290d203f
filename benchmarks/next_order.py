"""Time and memory of the next order, against the paired simulation that would know D as well.

``python -m benchmarks.next_order`` writes benchmarks/NEXT_ORDER.md. Each part runs in a process of its own, which
reports its processor time without imports and its peak memory. A simulation of SAMPLES networks at each of two widths
gives D with a standard error (docs/theory.md, section 10.3), which falls like 1 / sqrt(networks): so many times more
time would it take to reach the error that theory states.
"""

from __future__ import annotations

import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import eftcore as eft

TARGET = Path(__file__).with_name("NEXT_ORDER.md")
ACTIVATIONS = ("tanh", "erf", "sin", "relu", "gelu", "silu")
WIDTHS = (32, 128)
SAMPLES = 20_000
HEADING = (
    *("activation", "inputs", "error of theory", "processor s", "times the leading order", "error of simulation"),
    *("slower", "memory"),
)


@dataclass(frozen=True)
class Found:
    """D's relative error, the processor seconds that it took, and the peak memory of the process in MB."""

    error: float
    seconds: float
    memory: float


def network(activation: str, inputs: int) -> tuple[eft.ResNet, eft.InputKernel]:
    """C_W = 2, epsilon = 0.1, T = 1; inputs of variance 1 and correlation 0.3."""
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.1, depth=100)
    correlation = 0.3 if inputs > 1 else 0.0
    return model, eft.InputKernel.equicorrelated(n_inputs=inputs, variance=1.0, correlation=correlation)


def by_theory(activation: str, inputs: int, *, next_order: bool = True) -> Found:
    """D from theory, or with ``next_order`` False what the leading order alone takes."""
    model, kernel = network(activation, inputs)
    eft.predict(*network(activation, 1), "exact", next_order=True, depths=[0, 100])  # compiles what is not compiled yet
    start = time.process_time()
    theory = eft.predict(model, kernel, "exact", next_order=next_order, depths=[0, 100])
    return _found(theory.relative_error("D") or 0.0, start)


def by_simulation(activation: str, inputs: int) -> Found:
    model, kernel = network(activation, inputs)
    exact = eft.predict(model, kernel, "exact", depths=[0, 100])
    eft.simulate(model, kernel, width=WIDTHS[0], samples=64, depths=[0, 100], device="cpu")
    start = time.process_time()
    samples = [
        eft.simulate(model, kernel, width=width, samples=SAMPLES, depths=[0, 100], device="cpu") for width in WIDTHS
    ]
    measured = eft.measured_next_order(samples, exact)
    value, error = measured.covariance_next, measured.covariance_next_se
    assert value is not None
    assert error is not None
    return _found(float(np.linalg.norm(error[-1]) / np.linalg.norm(value[-1])), start)


def _found(error: float, start: float) -> Found:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Found(error, time.process_time() - start, memory)


def line(activation: str, inputs: int) -> str:
    """A row of the table."""
    found = []
    for part, options in ((by_theory, {}), (by_theory, {"next_order": False}), (by_simulation, {})):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(part, activation, inputs, **options).result())
    theory, leading, simulation = found
    needed = simulation.seconds * (simulation.error / theory.error) ** 2
    cells = (
        *(activation, str(inputs), f"{theory.error:.1e}", f"{theory.seconds:.2f}"),
        *(f"{theory.seconds / leading.seconds:.1f}", f"{simulation.error:.2g}", f"{needed / theory.seconds:.1e}"),
        f"{theory.memory / simulation.memory:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    warnings.simplefilter("ignore")
    rows = [line(activation, inputs) for inputs in (1, 2) for activation in ACTIVATIONS]
    text = f"""# What the next order costs

`python -m benchmarks.next_order`: D at t = 1 (100 layers, epsilon = 0.1, C_W = 2, inputs of variance 1 and correlation
0.3), from theory, and measured by paired simulations of {SAMPLES} networks at each of the widths
{" and ".join(map(str, WIDTHS))}. Error: relative, as stated by either. Slower: processor time of the simulation that
would reach the error of theory, as a multiple of that of theory. Memory: peak of theory's process over that of
simulation's.

"""
    table = [f"| {' | '.join(HEADING)} |", "|---" * len(HEADING) + "|", *rows]
    TARGET.write_text(text + "\n".join(table) + "\n")
    print(TARGET.read_text())


if __name__ == "__main__":
    main()
