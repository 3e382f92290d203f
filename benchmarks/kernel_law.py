"""How often one network's kernel lies in the interval that theory predicts for it.

``python -m benchmarks.kernel_law`` draws 300 configurations at random, half with one input and half with two,
simulates 10 000 networks of each, and writes the coverage of the 95 % and 99 % intervals, and Kolmogorov's distance, to
benchmarks/KERNEL_LAW.md.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import eftcore as eft

ACTIVATIONS = ("tanh", "erf", "sin", "cos", "linear", "relu", "leaky_relu", "gelu", "silu", "softplus")
LAYERS = 40
LEVELS = (0.95, 0.99)
TARGET = Path(__file__).with_name("KERNEL_LAW.md")


@dataclass(frozen=True)
class Case:
    """A network, its inputs, and by how much its width exceeds the smallest for which the law is meant."""

    model: eft.ResNet
    kernel: eft.InputKernel
    widening: float


@dataclass(frozen=True)
class Outcome:
    """What was found for one number of a case: its name, coverage of LEVELS, and Kolmogorov's distance."""

    case: Case
    width: int
    name: str
    covered: tuple[float, ...]
    distance: float


def random_case(rng: np.random.Generator, inputs: int) -> Case:
    """A configuration with t up to 2."""
    time = float(rng.uniform(0.2, 2.0))
    model = eft.ResNet(
        activation=str(rng.choice(ACTIVATIONS)),
        weight_variance=float(np.round(rng.uniform(0.5, 2.5), 2)),
        bias_variance=float(rng.choice([0.0, 0.2])),
        epsilon=math.sqrt(time / LAYERS),
        depth=LAYERS,
    )
    variance = rng.uniform(0.5, 2.0, inputs)
    correlation = rng.uniform(-0.6, 0.9)
    matrix = correlation * np.sqrt(np.outer(variance, variance))
    np.fill_diagonal(matrix, variance)
    return Case(model, eft.InputKernel.explicit(matrix.tolist()), float(rng.uniform(1.0, 3.0)))


def simulated(case: Case, width: int, networks: int, rng: np.random.Generator) -> np.ndarray:
    """(networks, N, N) kernels at the last layer; given a layer, the next one's increments are Gaussian."""
    model, activation = case.model, eft.get_activation(case.model.activation)
    inputs = case.kernel.n_inputs

    def drawn(covariance: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(covariance)
        factor = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
        return rng.standard_normal((networks, width, inputs)) @ np.swapaxes(factor, -1, -2)

    phi = drawn(case.kernel.array)
    for _ in range(model.depth):
        sigma = np.asarray(activation.function(phi), dtype=float)
        q = model.bias_variance + model.weight_variance * np.swapaxes(sigma, 1, 2) @ sigma / width
        phi = phi + model.epsilon * drawn(q)
    found: np.ndarray = np.swapaxes(phi, 1, 2) @ phi / width
    return found


def measure(case: Case, networks: int, rng: np.random.Generator) -> Iterator[Outcome]:
    """The outcomes for G_00 or, with two inputs, for G_01 and the correlation; none where D is not known."""
    theory = eft.predict(
        case.model, case.kernel, "exact", next_order=True, truncation=0.05, depths=[0, case.model.depth]
    )
    assert theory.covariance is not None
    assert theory.covariance_next is not None
    if not np.isfinite(theory.covariance_next[-1]).all():
        return
    ratio = np.abs(np.diagonal(theory.covariance_next[-1] / theory.covariance[-1])).max()
    width = math.ceil(max(8.0, 2 * ratio) * case.widening)
    law = eft.kernel_law(theory, width)
    kernels = simulated(case, width, networks, rng)
    g = kernels[:, 0, 0]
    numbers = {"one input": (law.entry(0), g)}
    if case.kernel.n_inputs == 2:
        crossed = kernels[:, 0, 1]
        numbers = {
            "two inputs": (law.entry(0, 1), crossed),
            "correlation": (law.correlation(0, 1), crossed / np.sqrt(g * kernels[:, 1, 1])),
        }
    for name, (own, values) in numbers.items():
        covered = [float(np.mean((low <= values) & (values <= high))) for low, high in map(own.interval, LEVELS)]
        rank = (np.arange(networks) + 0.5) / networks
        distance = float(np.abs(np.sort(own.cdf(values)) - rank).max())
        yield Outcome(case, width, name, tuple(covered), distance)


def outcomes(configurations: int, networks: int, seed: int = 20261129) -> list[Outcome]:
    """Those of half as many configurations with one input, and half with two."""
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, 1 + number % 2) for number in range(configurations)]
    found: list[Outcome] = []
    for case in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", eft.NumericsWarning)
            found += measure(case, networks, rng)
    return found


def report(found: list[Outcome], networks: int) -> str:
    """A page of Markdown."""
    lines = [
        "# Coverage of the law of the kernel",
        "",
        f"`python -m benchmarks.kernel_law`: {networks} simulated networks of {LAYERS} layers for each configuration,",
        "with ten activations, t from 0.2 to 2, C_W from 0.5 to 2.5, with and without biases, and a width from",
        "max(8, 2 D / V4) to three times that. A share of networks has a standard error of"
        f" {100 * math.sqrt(0.05 * 0.95 / networks):.2f} % at 95 %.",
        "",
        "| number | configurations | 95 % interval holds | in 94 to 96 % | 99 % interval holds | in 98.5 to 99.3 %"
        " | distance, median and largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(outcome.name for outcome in found):
        own = [outcome for outcome in found if outcome.name == name]
        c95, c99 = (np.array([outcome.covered[level] for outcome in own]) for level in (0, 1))
        distance = np.array([outcome.distance for outcome in own])
        lines.append(
            f"| {name} | {len(own)} | {100 * c95.mean():.2f} % ({100 * c95.min():.1f} to {100 * c95.max():.1f})"
            f" | {np.mean((c95 >= 0.94) & (c95 <= 0.96)):.0%}"
            f" | {100 * c99.mean():.2f} % ({100 * c99.min():.1f} to {100 * c99.max():.1f})"
            f" | {np.mean((c99 >= 0.985) & (c99 <= 0.993)):.0%} | {np.median(distance):.3f}, {distance.max():.3f} |"
        )
    worst = sorted(found, key=lambda outcome: -abs(outcome.covered[0] - 0.95))[:8]
    lines += [
        "",
        "The farthest from 95 %:",
        "",
        "| number | activation | n | t | C_W | C_b | 95 % | 99 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in worst:
        model = outcome.case.model
        lines.append(
            f"| {outcome.name} | {model.activation} | {outcome.width} | {model.total_time:.2f}"
            f" | {model.weight_variance:g} | {model.bias_variance:g}"
            f" | {100 * outcome.covered[0]:.1f} | {100 * outcome.covered[1]:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(report(outcomes(300, 10_000), 10_000), encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))
