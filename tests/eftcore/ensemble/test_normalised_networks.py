"""Networks of one matrix behind a normalisation: one law from all samplers and engines, and that of the theory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.ensemble.engines import engine_name
from eftcore.quantities import QUANTITIES
from eftcore.specs import EnsembleSpec

ONE = eft.InputKernel.explicit([[1.0]])
TWO = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 2.0]])
NORMALISATIONS = ("rms", "layer")
Observe = Callable[..., np.ndarray]


def network(**fields: Any) -> eft.ResNet:
    usual = {"activation": "gelu", "normalisation": "rms", "weight_variance": 2.0, "epsilon": 0.4, "depth": 5}
    return eft.ResNet(**usual | fields)


def ensemble(model: eft.ResNet, width: int, kernel: eft.InputKernel = TWO, **fields: Any) -> EnsembleSpec:
    return EnsembleSpec(model=model, kernel=kernel, width=width, **{"depths": (0, 1, 5)} | fields)


def by_hand(model: eft.ResNet, width: int, networks: int) -> np.ndarray:
    """(networks, 3) G after the last layer, of networks written down in numpy as eq. 11.14 has them."""
    rng = np.random.default_rng(7)
    state = rng.standard_normal((networks, width, 2)) @ np.linalg.cholesky(TWO.array).T
    for _ in range(model.depth):
        centred = state - state.mean(1, keepdims=True) if model.normalisation == "layer" else state
        fired = np.maximum(centred / np.sqrt((centred**2).mean(1, keepdims=True)), 0.0)
        weights = rng.standard_normal((networks, width, width)) * np.sqrt(model.weight_variance / width)
        biases = rng.standard_normal((networks, width, 1)) * np.sqrt(model.bias_variance)
        state = state + model.epsilon * (weights @ fired + biases)
    kernel: np.ndarray = state.transpose(0, 2, 1) @ state / width
    return kernel[:, [0, 0, 1], [0, 1, 1]]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_one_networks_kernel_has_one_distribution(normalisation: str, observe: Observe) -> None:
    """By Kolmogorov's and Smirnov's test: numpy, explicit weights and blocks by torch, and the fused pass."""
    model = network(activation="relu", normalisation=normalisation, bias_variance=0.2)
    spec = ensemble(model, 4, estimator="plain")
    assert engine_name(spec, "cpu") == "fused"
    start = TWO.array[[0, 0, 1], [0, 1, 1]]
    mean = eft.predict(model, TWO, "mean", depths=[5]).mean[0][[0, 0, 1], [0, 1, 1]]
    assert (mean > start).all()
    seen = {
        "numpy": by_hand(model, 4, 20_000) - mean,
        "weights": observe(spec.model_copy(update={"sampler": "weights"}), 20_000, "torch")[:, -1, 0],
        "torch": observe(spec, 20_000, "torch", shard=1)[:, -1, 0],
        "fused": observe(spec, 20_000, "cpu", shard=2)[:, -1, 0],
    }
    for one, other in itertools.combinations(seen, 2):
        for entry in range(3):
            found = stats.ks_2samp(seen[one][:, entry], seen[other][:, entry])
            assert found.pvalue > 1e-5, (one, other, entry)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("engine", ["cpu", "torch"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_twin_has_exactly_the_leading_order(
    activation: str, normalisation: str, engine: str, observe: Observe
) -> None:
    """Mean zero and covariance V4 / n at any width (eq. 11.21), as here at n = 3."""
    model = network(activation=activation, normalisation=normalisation)
    seen = observe(ensemble(model, 3), 40_000, engine)
    control = seen[:, :, 0] - seen[:, :, 2]
    source = seen[:, :, 1] - seen[:, :, 3]
    theory = eft.predict(model, TWO, "exact", truncation=1e-4, depths=[0, 1, 5])
    products = control[..., :, None] * control[..., None, :]
    for values, expected in ((control, 0.0), (source, 0.0), (products, theory.covariance / 3)):
        mean, error = values.mean(0), values.std(0) / np.sqrt(len(values))
        z = (mean - expected) / np.where(error > 0, error, 1.0)
        assert np.abs(z).max() < 4.5


def test_paired_and_plain_networks_have_one_law() -> None:
    for normalisation in NORMALISATIONS:
        model = network(normalisation=normalisation, bias_variance=0.1)
        plain, paired = (
            eft.simulate(model, TWO, width=8, samples=30_000, estimator=estimator, seed=seed, depths=[0, 1, 5])
            for seed, estimator in enumerate(("plain", "paired"))
        )
        check = eft.same_law(plain, paired, level=1e-4)
        assert check.passed, check


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_equal_inputs_stay_equal(normalisation: str, observe: Observe) -> None:
    kernel = eft.InputKernel.explicit([[1.0, 1.0, 0.3], [1.0, 1.0, 0.3], [0.3, 0.3, 2.0]])
    seen = observe(ensemble(network(normalisation=normalisation), 6, kernel), 64)
    # pairs 00 01 02 11 12 22
    assert np.abs(seen[:, :, 0, 0] - seen[:, :, 0, 1]).max() < 1e-5
    assert np.abs(seen[:, :, 0, 2] - seen[:, :, 0, 4]).max() < 1e-5
    assert np.abs(seen[:, -1, 0, 0] - seen[:, -1, 0, 5]).min() > 1e-6


CASES = list(itertools.product(NORMALISATIONS, ("tanh", "relu", "gelu", "erf"), (ONE, TWO)))
WIDTHS = (32, 64, 128)


@pytest.mark.parametrize(
    ("cases", "samples"),
    [(CASES[::5], 20_000), pytest.param(CASES, 100_000, marks=pytest.mark.campaign)],
    ids=["some", "all"],
)
def test_theory_agrees_with_simulated_networks(cases: list[Any], samples: int) -> None:
    """V4 and K1 of the widest networks, and D and K2 as three widths give them, where theory has them.

    What theory says that it may be wrong by does not count. Within 2 standard errors as often as chance has it, and
    none beyond what the number of entries allows (1 % in all, Bonferroni).
    """
    scores = []
    for normalisation, activation, kernel in cases:
        model = network(normalisation=normalisation, activation=activation, epsilon=0.25, depth=16)
        exact = eft.predict(model, kernel, "exact", next_order=True, depths=[0, 16])
        found = [eft.simulate(model, kernel, width=n, samples=samples, seed=n, depths=[0, 16]) for n in WIDTHS]
        measured, widest, n = eft.measured_next_order(found, exact), found[-1], WIDTHS[-1]
        doubt = {
            name: error * np.nanmax(np.abs(QUANTITIES[name].of(exact)[-1]))
            for name, error in exact.details["truncation_error"].items()
            if name != "T"
        }
        doubt |= dict.fromkeys({"D", "K2"} - set(doubt), np.nan)
        upper, inputs = np.triu_indices(len(exact.covariance[0])), np.triu_indices(kernel.n_inputs)
        near = [
            (exact.covariance + exact.covariance_next / n - widest.covariance, widest.covariance_se, "V4", "D", upper),
            (
                exact.correction + exact.correction_next / n - widest.correction,
                widest.correction_se,
                "K1",
                "K2",
                inputs,
            ),
            (exact.covariance_next - measured.covariance_next, measured.covariance_next_se, None, "D", upper),
            (exact.correction_next - measured.correction_next, measured.correction_next_se, None, "K2", inputs),
        ]
        for difference, error, own, beyond, entries in near:
            known = (doubt[own] + doubt[beyond] / n) if own else doubt[beyond]
            scores.append(np.maximum(np.abs(difference[-1][entries]) - known, 0.0) / error[-1][entries])
    z = np.concatenate(scores)
    z = z[np.isfinite(z)]
    assert len(z) > 4 * len(cases)
    assert (z > 2).sum() <= stats.binom.ppf(0.99, len(z), 0.0455)
    assert stats.norm.sf(z.max()) * 2 * len(z) > 0.01
