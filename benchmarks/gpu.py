"""The paper's whole ensemble on one graphics processor, and how far it is from the arithmetic floor.

Run: python -m benchmarks.gpu [--networks 5000000]. Setting of the published figures: tanh, C_W = 2, n = 64, N = 4,
epsilon = 0.05, L = 800, float32, 101 recorded layers with all moments. Target: at most 10 s on one H200.

The floor counts, for each neuron, input and layer, what any kernel of this algorithm must issue, and charges each
operation to its unit at the throughput that the CUDA programming guide gives for compute capability 9.0, per cycle and
multiprocessor; nothing is charged for moments, sums across lanes, roots, or memory:

| operation | float32 (128) | integer (64) | special (16) | conversions (64) |
|---|---|---|---|---|
| Philox4x32-10, a quarter of a call: 10 rounds of 2 wide products (2 each) and 2 three-way xors | | 15 | | |
| half a Box-Muller transform: log, root, sine, cosine as polynomials | 13 | 3 | 0.5 | 1 |
| increment, lower triangular factor: (N + 1) / 2 | 2.5 | | | |
| tanh by expm1: reduction, polynomial, scale, quotient | 17 | 4 | 1 | |
| products of inputs: (N + 1) / 2 | 2.5 | | | |

The units work side by side, but a multiprocessor issues 4 warps, 128 lanes, per cycle in all: the sum of the row, 59,
over 128 is 0.46 cycles, more than any unit alone needs (integer: 22 / 64 = 0.34). The clock is the device's highest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch

import eftcore as eft
from eftcore.ensemble.engines import engine_name

WIDTH, INPUTS, EPSILON, DEPTH = 64, 4, 0.05, 800
OPERATIONS = {"float32": (35.0, 128), "integer": (22.0, 64), "special": (1.5, 16), "conversions": (1.0, 64)}
ISSUED = 128
TARGET = 10.0


def floor_seconds(networks: int, multiprocessors: int, clock: float) -> float:
    """Seconds that the operations of the plain estimator take at full throughput; ``clock`` in Hz."""
    alone = max(count / throughput for count, throughput in OPERATIONS.values())
    together = sum(count for count, _ in OPERATIONS.values()) / ISSUED
    return networks * WIDTH * INPUTS * DEPTH * max(alone, together) / (multiprocessors * clock)


def ensemble(estimator: str) -> eft.EnsembleSpec:
    """The paper's ensemble."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=EPSILON, depth=DEPTH)
    kernel = eft.InputKernel.equicorrelated(n_inputs=INPUTS, variance=2.0, correlation=0.3)
    return eft.EnsembleSpec(model=model, kernel=kernel, width=WIDTH, estimator=estimator)


def seconds(spec: eft.EnsembleSpec, networks: int) -> float:
    """Wall time of one shard, all moments included; compilation and the mean-field reference are done before."""
    options = {name: getattr(spec, name) for name in type(spec).model_fields} | {"device": "cuda"}
    eft.simulate(**options, samples=1024, shard=1)
    torch.cuda.synchronize()
    start = time.perf_counter()
    eft.simulate(**options, samples=networks)
    return time.perf_counter() - start


def highest_clock() -> float:
    """Highest clock of the multiprocessors in Hz, from the driver."""
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"]
    return 1e6 * float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The paper's ensemble on one graphics processor.")
    parser.add_argument("--networks", type=int, default=5_000_000)
    networks = parser.parse_args().networks
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch finds no CUDA device here; nothing was measured")
    device = torch.cuda.get_device_properties(0)
    clock = highest_clock()
    floor = floor_seconds(networks, device.multi_processor_count, clock)
    print(f"{device.name}, {device.multi_processor_count} multiprocessors, {clock / 1e9:.2f} GHz")
    print(f"{networks} networks, n = {WIDTH}, N = {INPUTS}, L = {DEPTH}; arithmetic floor (plain) {floor:.2f} s")
    for estimator in ("plain", "paired"):
        spec = ensemble(estimator)
        taken = seconds(spec, networks)
        each = taken / (networks * DEPTH * WIDTH * INPUTS)
        engine = engine_name(spec, "cuda")
        print(f"{estimator:7} {engine:7} {taken:8.2f} s  {each * 1e12:8.3f} ps / neuron-input-layer")
        if estimator == "plain":
            verdict = "met" if taken <= TARGET * networks / 5_000_000 else "missed"
            print(f"        {floor / taken:.0%} of the floor's speed; target of {TARGET:g} s for 5 000 000: {verdict}")


if __name__ == "__main__":
    main()
