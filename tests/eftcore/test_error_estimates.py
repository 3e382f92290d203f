"""Estimated numerical errors hold: the true error is below the estimate in at least 99 % of random configurations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import eftcore as eft
from eftcore.closures import builder
from eftcore.expectations import MehlerExpectations
from eftcore.solving import Solution, at_resolution, relative_change

CONFIGURATIONS = 1000
PARTS = 8

ACTIVATIONS = (
    "linear",
    "tanh",
    "erf",
    "erf(scale=0.5)",
    "relu",
    "leaky_relu(slope=0.2)",
    "gelu",
    "silu",
    "softplus(beta=3)",
    "sin",
    "cos",
)


def random_spec(rng: np.random.Generator) -> eft.PredictionSpec:
    """Activation, K, rho, C_W, C_b, epsilon, closure and requested tolerance at random."""
    n_inputs = int(rng.choice([1, 2, 3], p=[0.45, 0.45, 0.1]))
    variance = float(10 ** rng.uniform(-2, 1))
    if n_inputs == 1:
        kernel = eft.InputKernel.explicit([[variance]])
    else:
        kernel = eft.InputKernel.equicorrelated(
            n_inputs=n_inputs, variance=variance, correlation=float(rng.uniform(-0.4, 0.85))
        )
    closure = str(rng.choice(["g_only", "sigma", "wick"]))
    return eft.PredictionSpec(
        model=eft.ResNet(
            activation=str(rng.choice(ACTIVATIONS)),
            weight_variance=float(rng.uniform(0.3, 3.0)),
            bias_variance=float(rng.choice([0.0, rng.uniform(0.0, 1.0)])),
            epsilon=float(10 ** rng.uniform(-1.5, -0.5)),
            depth=4,
        ),
        kernel=kernel,
        closure=closure,
        order=int(rng.choice([2, 4, 7])) if closure == "wick" else None,
        numerics=eft.Numerics(rtol=float(10 ** rng.uniform(-9, -3))),
        depths=(0, 1, 2, 4),
    )


def far_finer(spec: eft.PredictionSpec) -> Solution:
    activation = eft.get_activation(spec.model.activation)
    # a kink makes the series algebraic: only |rho|^terms converges
    engine = MehlerExpectations(activation, level=5, terms=768 if activation.kinks else 160)
    return at_resolution(spec, engine, builder(spec), loosen=1e-3)


@pytest.mark.parametrize("part", range(PARTS))
def test_true_error_is_below_the_estimate(part: int) -> None:
    rng = np.random.default_rng([20261124, part])
    exceeded, checked = [], 0
    for _ in range(CONFIGURATIONS // PARTS):
        spec = random_spec(rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", eft.NumericsWarning)
            found = eft.predict_spec(spec)
        shown = Solution(found.mean, found.covariance, found.correction, found.source)
        for name, error in relative_change(shown, far_finer(spec)).items():
            checked += 1
            if error > found.numerical_error[name]:
                exceeded.append((name, error, found.numerical_error[name], spec))
    assert len(exceeded) <= 0.01 * checked, exceeded
