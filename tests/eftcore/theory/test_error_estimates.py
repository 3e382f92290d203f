"""Estimated numerical errors hold: the true error is below the estimate in at least 99 % of random configurations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import eftcore as eft
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.specs import CLOSURES
from eftcore.theory.closures import builder
from eftcore.theory.solving import Solution, at_resolution, relative_change
from eftcore.theory.together import alone

CONFIGURATIONS = 200
FEW = 5
"""The first of the configurations; all of them are a campaign."""

ACTIVATIONS = (
    "linear",
    "tanh",
    "erf",
    "erf(scale=0.5)",
    "relu",
    "leaky_relu(slope=0.2)",
    "gelu",
    "silu",
    "swish",
    "softplus(beta=3)",
    "softplus(beta=20)",
    "sin",
    "cos",
)


def random_spec(rng: np.random.Generator) -> eft.PredictionSpec:
    """Activation, K, rho, C_W, C_b, epsilon, closure, step or limit, and requested tolerance at random."""
    n_inputs = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.43, 0.08, 0.04]))
    variance = float(10 ** rng.uniform(-2, 1))
    kernel = eft.InputKernel.equicorrelated(
        n_inputs=n_inputs, variance=variance, correlation=float(rng.uniform(-0.3, 0.85))
    )
    closure = str(rng.choice(["mean", "source_only", "g_only", "sigma", "wick"], p=[0.06, 0.06, 0.28, 0.3, 0.3]))
    continuous = bool(rng.random() < 0.25)
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
        continuous=continuous,
        step=None if continuous else str(rng.choice(["euler", "exact"])),
        numerics=eft.Numerics(rtol=float(10 ** rng.uniform(-9, -3))),
        depths=(0, 1, 4),
    )


def far_finer(spec: eft.PredictionSpec) -> Solution:
    """Fixed integrals, finer than any that these configurations settle on, and a thousandth of their tolerance."""
    activation = eft.get_activation(spec.model.activation)
    # with a kink only |rho|^terms converges; the faster sigma, the closer its poles are to the real axis
    terms = 32 if spec.kernel.n_inputs == 1 else 768 if activation.kinks else 192
    level = 8 if activation.kinks else 6 + 2 * round(np.log2(activation.parameters.get("beta", 1.0)))
    engine = MehlerExpectations(activation, level=level, terms=terms)
    return alone(at_resolution(spec, engine, builder(spec), loosen=1e-3))


def test_configurations_cover_every_choice() -> None:
    specs = random_specs()
    assert len(specs) == CONFIGURATIONS
    assert len({spec.digest for spec in specs}) == CONFIGURATIONS
    assert {spec.model.activation for spec in specs} == {eft.get_activation(name).name for name in ACTIVATIONS}
    assert {spec.closure for spec in specs} == set(CLOSURES) - {"particle", "exact"}  # see test_exact.py for the latter
    assert {spec.kernel.n_inputs for spec in specs} == {1, 2, 3, 4}
    assert {(spec.continuous, spec.step) for spec in specs} == {(True, None), (False, "euler"), (False, "exact")}
    assert {spec.model.bias_variance > 0 for spec in specs} == {True, False}


def random_specs() -> list[eft.PredictionSpec]:
    rng = np.random.default_rng(20261124)
    return [random_spec(rng) for _ in range(CONFIGURATIONS)]


@pytest.mark.parametrize("configurations", [FEW, pytest.param(CONFIGURATIONS, marks=pytest.mark.campaign)])
def test_true_error_is_below_the_estimate(configurations: int) -> None:
    """In at least 99 % of the configurations every quantity's error is; each has at least K0, most V4 and K1 too."""
    exceeded: list[object] = []
    checked = 0
    for spec in random_specs()[:configurations]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", eft.NumericsWarning)
            found = eft.predict_spec(spec)
        true = relative_change(found, far_finer(spec))
        checked += len(true)
        if any(error > found.numerical_error[name] for name, error in true.items()):
            exceeded.append((true, found.numerical_error, spec))
    assert checked > 2.5 * configurations
    assert len(exceeded) <= 0.01 * configurations, exceeded
