"""Networks with two matrices in a block: one law from all samplers and engines, and that of the theory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

import eftcore as eft
from eftcore.ensemble.engines import engine_name
from eftcore.specs import EnsembleSpec

TWO = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 2.0]])
ONE = eft.InputKernel.explicit([[1.0]])
NORMALISATIONS = (None, "rms", "layer")
Observe = Callable[..., np.ndarray]


def network(**fields: Any) -> eft.ResNet:
    usual = {"block": "two_matrix", "activation": "tanh", "weight_variance": 2.0, "epsilon": 0.4, "depth": 5}
    return eft.ResNet(**usual | fields)


def ensemble(model: eft.ResNet, width: int, kernel: eft.InputKernel = TWO, **fields: Any) -> EnsembleSpec:
    return EnsembleSpec(model=model, kernel=kernel, width=width, **{"depths": (0, 1, 5)} | fields)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("width", "ratio"), [(2, 2.0), (3, 1.0), (8, 0.5)])
def test_the_chain_has_the_law_of_explicit_weights(normalisation: str | None, width: int, ratio: float) -> None:
    """Moments of G and S, up to third order; at n = 2 and n = 3 fewer directions are left over than there are inputs.

    The least chance of a false alarm in nine cases is that of one in ten thousand each.
    """
    model = network(
        activation="relu",
        normalisation=normalisation,
        hidden_ratio=ratio,
        bias_variance=0.2,
        hidden_bias_variance=0.1,
        hidden_weight_variance=1.3,
    )
    weights, chain = (
        eft.simulate(model, TWO, width=width, samples=30_000, estimator="plain", sampler=sampler, depths=[0, 1, 5])
        for sampler in ("weights", "block")
    )
    check = eft.same_law(weights, chain, level=1e-4)
    assert check.passed, check


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_one_networks_kernel_has_one_distribution(normalisation: str | None, observe: Observe) -> None:
    """By Kolmogorov's and Smirnov's test: explicit weights, the chain by torch, and the fused chain."""
    model = network(normalisation=normalisation, bias_variance=0.2)
    spec = ensemble(model, 4, estimator="plain")
    assert engine_name(spec, "cpu") == "fused"
    seen = {
        "weights": observe(spec.model_copy(update={"sampler": "weights"}), 20_000, "torch"),
        "torch": observe(spec, 20_000, "torch", shard=1),
        "fused": observe(spec, 20_000, "cpu", shard=2),
    }
    for one, other in itertools.combinations(seen, 2):
        for quantity, entry in itertools.product((0, 1), range(3)):
            found = stats.ks_2samp(seen[one][:, -1, quantity, entry], seen[other][:, -1, quantity, entry])
            assert found.pvalue > 1e-5, (one, other, quantity, entry)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 64])
def test_inputs_start_as_wishart_matrices(width: int, observe: Observe) -> None:
    seen = observe(ensemble(network(), width, ONE, depths=(0,)), 40_000)[:, 0, 0, 0]
    assert stats.kstest(width * (seen + 1.0), stats.chi2(width).cdf).pvalue > 1e-4


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_the_twin_has_exactly_the_leading_order(normalisation: str | None, engine: str, observe: Observe) -> None:
    """Mean zero and covariance V4 / n at any width (eq. 11.13), as here at n = 3."""
    model = network(normalisation=normalisation)
    seen = observe(ensemble(model, 3), 40_000, engine)
    control = seen[:, :, 0] - seen[:, :, 2]
    source = seen[:, :, 1] - seen[:, :, 3]
    theory = eft.predict(model, TWO, "exact", depths=[0, 1, 5])
    assert theory.covariance is not None
    for values, expected in ((control, None), (source, None), (_products(control), theory.covariance / 3)):
        mean, error = values.mean(0), values.std(0) / np.sqrt(len(values))
        z = (mean - (0 if expected is None else expected)) / np.where(error > 0, error, 1.0)
        assert np.abs(z).max() < 4.5


def _products(values: np.ndarray) -> np.ndarray:
    product: np.ndarray = values[..., :, None] * values[..., None, :]
    return product


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_equal_inputs_stay_equal(normalisation: str | None, observe: Observe) -> None:
    kernel = eft.InputKernel.explicit([[1.0, 1.0, 0.3], [1.0, 1.0, 0.3], [0.3, 0.3, 2.0]])
    seen = observe(ensemble(network(normalisation=normalisation, activation="gelu"), 6, kernel), 64)
    # pairs 00 01 02 11 12 22
    assert np.abs(seen[:, :, 0, 0] - seen[:, :, 0, 1]).max() < 1e-6
    assert np.abs(seen[:, :, 0, 0] - seen[:, :, 0, 3]).max() < 1e-6
    assert np.abs(seen[:, :, 0, 2] - seen[:, :, 0, 4]).max() < 1e-6
    assert np.abs(seen[:, -1, 0, 0] - seen[:, -1, 0, 5]).min() > 1e-6


def test_results_do_not_depend_on_how_the_networks_are_cut_into_shards_and_pieces() -> None:
    model = network(normalisation="rms")
    whole = eft.simulate(model, TWO, width=8, samples=5000, depths=[5])
    again = eft.simulate(model, TWO, width=8, samples=5000, depths=[5])
    assert whole.covariance == pytest.approx(again.covariance, rel=0, abs=0)
    parts = [eft.simulate(model, TWO, width=8, samples=500, shard=shard, depths=[5]) for shard in (0, 1)]
    assert np.array_equal((parts[0] + parts[1]).mean, (parts[1] + parts[0]).mean)


ACTIVATIONS = ("tanh", "relu", "gelu", "erf")
RATIOS = (0.5, 1.0, 4.0)
CASES = list(itertools.product(NORMALISATIONS, ACTIVATIONS, RATIOS, (ONE, TWO)))
WIDTHS = (32, 64, 128)


@pytest.mark.parametrize(
    ("cases", "samples"),
    [(CASES[::13], 20_000), pytest.param(CASES, 100_000, marks=pytest.mark.campaign)],
    ids=["some", "all"],
)
def test_theory_agrees_with_simulated_networks(cases: list[Any], samples: int) -> None:
    """V4 and K1 of the widest networks, and D and K2 as three widths give them.

    Within 2 standard errors as often as chance has it, and none beyond what the number of entries allows (1 % in all,
    Bonferroni).
    """
    scores = []
    for normalisation, activation, ratio, kernel in cases:
        model = network(normalisation=normalisation, activation=activation, hidden_ratio=ratio, epsilon=0.25, depth=16)
        exact = eft.predict(model, kernel, "exact", next_order=True, depths=[0, 16])
        found = [eft.simulate(model, kernel, width=n, samples=samples, seed=n, depths=[0, 16]) for n in WIDTHS]
        measured, widest = eft.measured_next_order(found, exact), found[-1]
        upper = np.triu_indices(len(exact.covariance[0]))
        inputs = np.triu_indices(kernel.n_inputs)
        near = [
            (exact.covariance + exact.covariance_next / WIDTHS[-1] - widest.covariance, widest.covariance_se, upper),
            (exact.correction + exact.correction_next / WIDTHS[-1] - widest.correction, widest.correction_se, inputs),
            (exact.covariance_next - measured.covariance_next, measured.covariance_next_se, upper),
            (exact.correction_next - measured.correction_next, measured.correction_next_se, inputs),
        ]
        scores += [difference[-1][entries] / error[-1][entries] for difference, error, entries in near]
    z = np.abs(np.concatenate(scores))
    z = z[np.isfinite(z)]
    assert len(z) > 4 * len(cases)
    assert (z > 2).sum() <= stats.binom.ppf(0.99, len(z), 0.0455)
    assert stats.norm.sf(z.max()) * 2 * len(z) > 0.01
