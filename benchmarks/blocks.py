"""What networks with two matrices cost to simulate, by theory's chain of G and with explicit weights.

``python -m benchmarks.blocks`` prints the table that benchmarks/RESULTS.md has: processor time per network and layer,
as ratios to the narrowest network, for a fixed number of hidden neurons and for as many as there are neurons; beside
the block of one matrix, and explicit weights. All ratios of a table are from one run.
"""

from __future__ import annotations

import time

import eftcore as eft

WIDTHS = (64, 256, 1024, 4096)
LAYERS = 20
HIDDEN = 64
NETWORKS = 400_000
"""Networks times neurons of the wider of the two layers."""

KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)


def seconds(width: int, *, hidden: int | None, sampler: str = "block") -> float:
    """Processor seconds per network and layer; ``hidden`` None stands for the block of one matrix."""
    branch = {} if hidden is None else {"block": "two_matrix", "hidden_ratio": hidden / width}
    model = eft.ResNet(activation="gelu", weight_variance=2.0, epsilon=0.1, depth=LAYERS, **branch)  # type: ignore[arg-type]
    busy = width if hidden is None else hidden
    samples = max(512, NETWORKS // busy) if sampler == "block" else 16
    options = {"width": width, "estimator": "plain", "sampler": sampler, "depths": [0, LAYERS], "device": "cpu"}
    eft.simulate(model, KERNEL, samples=16, **options)  # compiles what is not compiled yet
    start = time.process_time()
    eft.simulate(model, KERNEL, samples=samples, **options)
    return (time.process_time() - start) / (samples * LAYERS)


def main() -> None:
    """Measure, and print the table."""
    rows = {
        f"two matrices, m = {HIDDEN}": [seconds(n, hidden=HIDDEN) for n in WIDTHS],
        "two matrices, m = n": [seconds(n, hidden=n) for n in WIDTHS],
        "one matrix": [seconds(n, hidden=None) for n in WIDTHS],
        "two matrices, m = n, explicit weights": [seconds(n, hidden=n, sampler="weights") for n in WIDTHS[:2]],
    }
    unit = rows[f"two matrices, m = {HIDDEN}"][0]
    lines = [
        "`python -m benchmarks.blocks`: GELU, two inputs, plain estimator, 20 layers. Processor time per network and"
        f" layer, in units of the first entry ({unit * 1e6:.2g} µs when this was run).\n",
        f"| | {' | '.join(f'n = {n}' for n in WIDTHS)} |",
        f"|---|{'---|' * len(WIDTHS)}",
        *(
            f"| {name} | {' | '.join(_shown(value / unit) for value in [*values, *_rest(values)])} |"
            for name, values in rows.items()
        ),
    ]
    print("\n".join(lines))


def _rest(values: list[float]) -> list[float]:
    return [float("nan")] * (len(WIDTHS) - len(values))


def _shown(value: float) -> str:
    return "" if value != value else f"{value:.3g}"


if __name__ == "__main__":
    main()
