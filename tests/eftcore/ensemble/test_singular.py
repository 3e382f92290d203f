"""Singular increment covariances need no jitter: duplicated, missing and surplus inputs, dead neurons."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft

ENGINES = ["cpu", "torch"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("estimator", ["paired", "plain"])
def test_duplicated_inputs_stay_equal(observe, engine, estimator):
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.3, depth=20)
    kernel = eft.InputKernel.explicit([[2.0, 2.0, 0.5], [2.0, 2.0, 0.5], [0.5, 0.5, 1.0]])
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=8, estimator=estimator)
    seen = observe(spec, 200, engine)
    assert np.isfinite(seen).all()
    # a factor of Q keeps the root of a rounding error, 2.4e-4 of float32, so that neurons may differ by epsilon times
    # that in each layer; in the mean over neurons, over 24 seeds, up to 3e-4 is left
    for same in ((0, 1), (1, 3), (2, 4)):
        assert np.abs(seen[:, :, 0, same[0]] - seen[:, :, 0, same[1]]).max() < 1e-3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_fewer_neurons_than_inputs(observe, engine, activation, lowest_p):
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.3, depth=5)
    kernel = eft.InputKernel.equicorrelated(n_inputs=5, variance=1.0, correlation=0.3)
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=2)
    seen = observe(spec, 8000, engine)
    change = seen[:, 1:, 0] - seen[:, :-1, 0] - model.epsilon**2 * model.weight_variance * seen[:, :-1, 1]
    assert lowest_p(change.mean(0), change.std(0) / len(change) ** 0.5) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_zero_input_stays_zero(observe, engine):
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.3, depth=10)
    spec = eft.EnsembleSpec(model=model, kernel=eft.InputKernel.explicit([[0.0, 0.0], [0.0, 1.0]]), width=4)
    seen = observe(spec, 100, engine)
    assert np.isfinite(seen).all()
    assert np.abs(seen[:, :, 0, :2]).max() < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_whose_neurons_are_all_dead_stops_changing(observe, engine):
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.3, depth=10)
    spec = eft.EnsembleSpec(
        model=model, kernel=eft.InputKernel.explicit([[1.0]]), width=1, estimator="plain", depths=(0, 1, 10)
    )
    kernel = np.array([1.0, 1.09, 1.09**10])  # K0, which the observations leave out
    seen = observe(spec, 400, engine)[:, :, :, 0]
    source = seen[:, 0, 1] + 0.5
    dead = source < 1e-12
    assert 100 < dead.sum() < 300
    last = seen[dead, :, 0] + kernel
    assert np.abs(last - last[:, :1]).max() < 1e-6


def test_a_network_that_overflows_is_an_error_not_a_number():
    model = eft.ResNet(activation="linear", weight_variance=1e6, epsilon=10.0, depth=20)
    with pytest.raises(eft.InputError, match="left the range of float32"):
        eft.simulate(model, eft.InputKernel.explicit([[1.0]]), width=4, samples=32, estimator="plain", device="cpu")
