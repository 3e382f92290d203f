"""Samplers, estimators and engines agree with each other, with exact statements and with published values.

Seeds are fixed. Over fresh seeds each comparison would fail with probability ALPHA.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import eftcore as eft

ALPHA = 1e-3
QUANTITIES = ("mean", "covariance", "correction", "source", "second_moment", "increment_covariance")


def test_plain_paired_and_weights_agree(lowest_p):
    model = eft.ResNet(activation="tanh", weight_variance=2.0, bias_variance=0.2, epsilon=0.3, depth=10)
    kernel = eft.InputKernel.explicit([[2.0, 0.6, 0.1], [0.6, 1.0, -0.2], [0.1, -0.2, 0.5]])
    samples = [
        eft.simulate(
            model, kernel, width=16, samples=6000, estimator=estimator, sampler=sampler, dtype=dtype, device="cpu"
        )
        for estimator, sampler, dtype in (
            ("plain", "block", "float32"),
            ("paired", "block", "float32"),
            ("plain", "block", "float64"),
            ("paired", "block", "float64"),
            ("plain", "weights", "float32"),
            ("paired", "weights", "float32"),
        )
    ]
    names = [*QUANTITIES, "third_cumulant", "fourth_cumulant"]
    differences, errors = [], []
    for k, one in enumerate(samples):
        for other in samples[:k]:
            for name in names:
                differences.append((getattr(one, name) - getattr(other, name)).ravel())
                errors.append(np.hypot(getattr(one, name + "_se"), getattr(other, name + "_se")).ravel())
    assert lowest_p(np.concatenate(differences), np.concatenate(errors)) > ALPHA


@pytest.mark.parametrize("activation", ["softplus(beta=2)", "relu", "erf(scale=0.7)", "gelu", "silu", "leaky_relu"])
def test_the_fused_pass_and_torch_agree(activation, lowest_p):
    model = eft.ResNet(activation=activation, weight_variance=1.5, epsilon=0.4, depth=5)
    kernel = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 3.0]])
    fused, torch = (
        eft.simulate(model, kernel, width=16, samples=8000, dtype=dtype, device="cpu")
        for dtype in ("float32", "float64")
    )
    for name in QUANTITIES:
        error = np.hypot(getattr(fused, name + "_se"), getattr(torch, name + "_se"))
        assert lowest_p(getattr(fused, name) - getattr(torch, name), error) > ALPHA


@pytest.mark.parametrize("engine", ["cpu", "torch"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "erf", "softplus(beta=2)"])
def test_the_mean_kernel_recursion_is_exact_at_every_depth(activation, engine, lowest_p, observe):
    """E[G'] = E[G] + epsilon^2 (C_b + C_W E[S]) (eq. 2.4), for G itself and for its paired residual."""
    model = eft.ResNet(activation=activation, weight_variance=1.7, bias_variance=0.3, epsilon=0.5, depth=8)
    kernel = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=6)
    for first, second in ((0, 1), (2, 3)):
        seen = observe(spec, 20_000, engine)
        g, s = seen[:, :, first], seen[:, :, second]
        # the reference obeys the recursion itself, so it drops out
        left = g[:, 1:] - g[:, :-1] - model.epsilon**2 * model.weight_variance * s[:, :-1]
        assert lowest_p(left.mean(0), left.std(0, ddof=1) / len(left) ** 0.5) > ALPHA


def test_the_source_vanishes_at_initialisation(lowest_p):
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=4)
    kernel = eft.InputKernel.equicorrelated(n_inputs=3, variance=2.0, correlation=0.3)
    plain, paired = (
        eft.simulate(model, kernel, width=16, samples=20_000, estimator=estimator, depths=(0,), device="cpu")
        for estimator in ("plain", "paired")
    )
    assert lowest_p(plain.source, plain.source_se) > ALPHA
    assert (paired.source == 0).all()


@pytest.mark.parametrize(
    ("width", "n_inputs", "gain"), [(16, 1, 135), (64, 1, 550), (64, 4, 55)], ids=["16x1", "64x1", "64x4"]
)
def test_first_correction_of_the_paper_setting_and_its_variance_gain(width, n_inputs, gain):
    """K1_00 and the gain in variance of the paired estimator, at epsilon = 0.1 and T = 2."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=200)
    kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=2.0, correlation=0.3 if n_inputs > 1 else 0.0)
    paired, plain = (
        eft.simulate(model, kernel, width=width, samples=4000, estimator=estimator, depths=(0, 200), device="cpu")
        for estimator in ("paired", "plain")
    )
    assert abs(paired.correction[-1, 0, 0] + 0.449) < 3 * paired.correction_se[-1, 0, 0]
    measured = (plain.correction_se[-1, 0, 0] / paired.correction_se[-1, 0, 0]) ** 2
    assert gain / 2 < measured < gain * 2


def test_published_simulated_values_from_20000_paired_networks():
    """The published ensemble had 5 000 000 networks, so only this sample's error counts for V4."""
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.05, depth=800)
    kernel = eft.InputKernel.explicit([[2.0]])
    sample = eft.simulate(model, kernel, width=64, samples=20_000, depths=range(0, 801, 200), device="cpu")
    published = np.array([8.005, 14.719, 23.687, 35.010, 48.735])
    z = (sample.covariance[:, 0, 0] - published) / sample.covariance_se[:, 0, 0]
    assert 2 * stats.norm.sf(np.abs(z)).min() * z.size > ALPHA
    correction, error = sample.correction[-1, 0, 0], sample.correction_se[-1, 0, 0]
    assert abs(correction + 0.452) < 3 * np.hypot(error, 0.025)
    assert error < 0.025
