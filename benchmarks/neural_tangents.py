"""The mean kernel beside neural-tangents: time, and how far the values differ.

Run: python -m benchmarks.neural_tangents, in an environment of its own with the extra ``bench`` of this project. Where
neural-tangents is not installed, it says so and times this project alone. Setting: C_W = 2, epsilon = 0.1, L = 100,
K^0 = 0.7 I + 0.3 11^T, one thread each, all layers in float64.

Cold: processor time of the first call in a process of its own, without importing eftcore or neural_tangents; for
neural-tangents it is the time of compilation. Warm: the least of up to REPEATS calls. neural-tangents gives K0 at the
last layer; ``predict`` gives it at about 100 layers, with an estimate of its numerical error, for which it solves the
recursion twice. tanh has no closed form: neural-tangents then takes a Gauss-Hermite rule, here of DEGREE nodes.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

DEPTH, EPSILON, WEIGHT_VARIANCE, CORRELATION = 100, 0.1, 2.0, 0.3
REPEATS = 20
ENOUGH = 2.0
"""Seconds after which a call is not repeated."""

DEGREE = 32

ACTIVATIONS = ("erf", "relu", "sin", "gelu", "tanh")
INPUTS = (4, 16, 64)

Timed = tuple[float, float, np.ndarray]
"""Seconds of the processor, cold and warm, and K0 at the last layer."""


def timed(call: Callable[[], np.ndarray]) -> Timed:
    """The first call, and the least of further ones."""
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.process_time()
        found = call()
        seconds.append(time.process_time() - start)
        if sum(seconds[1:]) > ENOUGH:
            break
    return seconds[0], min(seconds[1:]), found


def ours(activation: str, inputs: int) -> Timed:
    """K0 by this project."""
    import eftcore as eft

    model = eft.ResNet(activation=activation, weight_variance=WEIGHT_VARIANCE, epsilon=EPSILON, depth=DEPTH)
    kernel = eft.InputKernel.equicorrelated(n_inputs=inputs, variance=1.0, correlation=CORRELATION)
    return timed(lambda: np.asarray(eft.predict(model, kernel, "mean").mean[-1]))


def theirs(activation: str, inputs: int) -> Timed:
    """K0 by neural-tangents: the kernel of one residual block, iterated by a compiled loop."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    import jax
    from neural_tangents import stax

    jax.config.update("jax_enable_x64", True)
    sigma: dict[str, Callable[[], Any]] = {
        "erf": stax.Erf,
        "relu": stax.Relu,
        "sin": stax.Sin,
        "gelu": stax.Gelu,
        "tanh": lambda: stax.ElementwiseNumerical(jax.numpy.tanh, deg=DEGREE),
    }
    branch = stax.serial(sigma[activation](), stax.Dense(1, W_std=EPSILON * WEIGHT_VARIANCE**0.5, b_std=None))
    _, _, block = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())
    _, _, first = stax.Dense(1, W_std=1.0, b_std=None)
    root = np.linalg.cholesky((1 - CORRELATION) * np.eye(inputs) + CORRELATION) * inputs**0.5

    def last(x: Any) -> Any:
        start = block(first(x, None))
        return jax.lax.fori_loop(1, DEPTH, lambda _, kernel: block(kernel), start).nngp

    compiled = jax.jit(last)
    return timed(lambda: np.asarray(compiled(root).block_until_ready()))


def apart(measure: Callable[[str, int], Timed], activation: str, inputs: int) -> Timed:
    """In a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, activation, inputs).result()


def main() -> None:
    """Print the table."""
    try:
        import neural_tangents

        said = f"neural-tangents {neural_tangents.__version__}"
    except ImportError as error:
        neural_tangents = None
        said = f"neural-tangents is not installed here ({error}): pip install '.[bench]' in an environment of its own"
    print(f"{said}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| sigma, N | ms cold | ms warm | theirs, cold | warm | ratio warm | values differ, relative |")
    print("|---|---|---|---|---|---|---|")
    for activation in sys.argv[1:] or ACTIVATIONS:
        for inputs in INPUTS:
            cold, warm, kernel = apart(ours, activation, inputs)
            shown = f"| {activation}, {inputs} | {1e3 * cold:.0f} | {1e3 * warm:.2f} |"
            if neural_tangents is None:
                print(f"{shown} | | | |", flush=True)
                continue
            their_cold, their_warm, other = apart(theirs, activation, inputs)
            differ = float(np.abs(kernel - other).max() / np.abs(kernel).max())
            ratio = f"{warm / their_warm:.1f}"
            print(
                f"{shown} {1e3 * their_cold:.0f} | {1e3 * their_warm:.2f} | {ratio} | {differ:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
