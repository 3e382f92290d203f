"""The next order in 1/n: closed forms of the linear activation, reference values, and what must agree."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.theory.next_order.solution import NextOrder, next_order

Digits = tuple[float, float]
"""A reference value and its last digit."""


def solved(activation: str, kernel: list[list[float]], times: list[float], rtol: float = 1e-3, **model) -> NextOrder:
    network = eft.ResNet(activation=activation, **{"weight_variance": 2.0, "epsilon": 0.1, "depth": 1} | model)
    return next_order(network, eft.InputKernel.explicit(kernel), np.array(times), rtol=rtol)


def test_linear_networks_are_exact() -> None:
    """E[G_ab G_cd] and its two other pairings obey a closed linear system at every n, solved here in powers of 1/n."""
    k, c_w, t = np.array([[1.0, 0.3], [0.3, 2.0]]), 1.5, np.array([0.4, 0.8])
    found = solved("linear", k.tolist(), t.tolist(), weight_variance=c_w)
    a, b = np.triu_indices(2)
    own = np.outer(k[a, b], k[a, b])
    crossed = k[np.ix_(a, a)] * k[np.ix_(b, b)] + k[np.ix_(a, b)] * k[np.ix_(b, a)]
    s = 2 * c_w * t[:, None, None]
    np.testing.assert_allclose(found.covariance, np.exp(s) * crossed * (1 + s), rtol=1e-5)
    np.testing.assert_allclose(found.covariance_next, np.exp(s) * (2 * own + crossed) * (s + s**2 / 2), rtol=1e-5)
    np.testing.assert_allclose(found.correction, 0.0, atol=1e-9)
    np.testing.assert_allclose(found.correction_next, 0.0, atol=1e-9)


REFERENCE: dict[tuple[str, float], dict[float, dict[str, Digits]]] = {
    ("tanh", 2.0): {
        1.0: {"V4": (23.5675, 1e-4), "K1": (-0.1552, 1e-4), "D": (6.812, 1e-3), "T": (366.68, 0.01)},
        2.0: {"V4": (48.4820, 1e-4), "K1": (-0.4542, 1e-4), "D": (15.113, 1e-3), "T": (1118.5, 0.1)},
    },
    ("relu", 1.0): {
        1.0: {"V4": (62.48, 0.01), "K1": (1.26, 0.01), "D": (384.1, 0.1), "T": (4754, 1)},
        2.0: {"V4": (999.2, 0.1), "K1": (12.2, 0.1), "D": (13647, 1), "T": (430_480, 10)},
    },
}
"""Values by activation and K at each t, with C_W = 2, from independent prototypes that simulation agrees with."""


@pytest.mark.parametrize(("activation", "variance"), REFERENCE)
def test_one_input_has_the_values_of_independent_prototypes(activation: str, variance: float) -> None:
    known = REFERENCE[activation, variance]
    found = solved(activation, [[variance]], list(known))
    assert found.error["D"] <= 1e-3
    for at, values in enumerate(known.values()):
        entries = {
            "V4": found.covariance[at, 0, 0],
            "K1": found.correction[at, 0],
            "D": found.covariance_next[at, 0, 0],
            "T": found.third_cumulant[at, 0, 0, 0],
        }
        for name, (value, digit) in values.items():
            assert abs(entries[name] - value) <= digit / 2 + 2 * found.error[name] * abs(value), name


@pytest.mark.parametrize("activation", ["erf", "gelu"])
def test_leading_order_is_that_of_the_wick_hierarchy(activation: str) -> None:
    model = eft.ResNet(activation=activation, weight_variance=1.5, bias_variance=0.1, epsilon=0.1, depth=100)
    kernel = eft.InputKernel.explicit([[1.0]])
    found = next_order(model, kernel, np.array([0.5, 1.0]))
    known = eft.predict(model, kernel, "wick", order=40, continuous=True, depths=(0, 50, 100))
    scale = found.error
    np.testing.assert_allclose(found.mean[:, 0], known.mean[1:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(found.covariance[:, 0, 0], known.covariance[1:, 0, 0], rtol=1e-5 + 2 * scale["V4"])
    np.testing.assert_allclose(found.correction[:, 0], known.correction[1:, 0, 0], rtol=1e-3 + 2 * scale["K1"])


def test_a_pair_says_of_one_input_what_that_input_says_alone() -> None:
    pair = solved("gelu", [[1.0, 0.3], [0.3, 0.5]], [0.5], rtol=0.2)
    for entry, variance in ((0, 1.0), (2, 0.5)):
        alone = solved("gelu", [[variance]], [0.5], rtol=0.01)
        np.testing.assert_allclose(pair.covariance[0, entry, entry], alone.covariance[0, 0, 0], rtol=1e-3)
        np.testing.assert_allclose(pair.covariance_next[0, entry, entry], alone.covariance_next[0, 0, 0], rtol=0.03)
        np.testing.assert_allclose(
            pair.third_cumulant[0, entry, entry, entry], alone.third_cumulant[0, 0, 0, 0], rtol=0.01
        )


def test_symmetries_of_a_pair() -> None:
    found = solved("tanh", [[1.0, 0.3], [0.3, 1.0]], [0.2], rtol=0.5)
    turned = found.covariance_next[0][::-1, ::-1]
    np.testing.assert_allclose(found.covariance_next[0], turned, rtol=1e-6)
    np.testing.assert_allclose(found.covariance_next[0], found.covariance_next[0].T, rtol=1e-9)
    third = found.third_cumulant[0]
    for order in ((1, 0, 2), (2, 1, 0), (1, 2, 0)):
        np.testing.assert_allclose(third, third.transpose(order), rtol=1e-8)
