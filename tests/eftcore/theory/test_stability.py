"""Closures at large steps: what relaxes faster than a layer must not explode."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.activations import register_activation, unregister_activation
from eftcore.theory.mean_field import mean_field
from eftcore.theory.relaxation import relaxation

ONE = eft.InputKernel.explicit([[1.0]])


def last(model: eft.ResNet, closure: str, kernel: eft.InputKernel = ONE, **options: object) -> tuple[float, float]:
    found = eft.predict(model, kernel, closure, depths=(0, model.depth), **options)
    assert found.covariance is not None
    assert found.correction is not None
    assert found.converged
    return float(found.covariance[-1, 0, 0]), float(found.correction[-1, 0, 0])


# V4 of the exact leading order, by Wick series of order 120 and by one-particle paths
HARD = [
    ("erf(scale=5)", 2.0, 0.7, 20, 785.7),
    ("sin", 5.0, 1.0, 10, 1351.3),
    ("sin", 5.0, 0.7, 10, 352.37),
    ("erf", 5.0, 1.0, 10, 3597.9),
    ("erf", 5.0, 0.7, 10, 829.52),
    ("tanh", 5.0, 1.0, 10, 3254.5),
]


@pytest.mark.parametrize(("activation", "weight_variance", "epsilon", "depth", "exact"), HARD)
@pytest.mark.parametrize("step", ["euler", "exact"])
def test_sigma_is_stable_where_its_drift_is_faster_than_a_layer(
    activation: str, weight_variance: float, epsilon: float, depth: int, exact: float, step: str
) -> None:
    model = eft.ResNet(activation=activation, weight_variance=weight_variance, epsilon=epsilon, depth=depth)
    covariance, correction = last(model, "sigma", step=step)
    # forward Euler leaves out epsilon^4 terms, which are not small here
    assert covariance == pytest.approx(exact, rel=0.005 if step == "exact" else 0.03)
    assert abs(correction) < 4


@pytest.mark.parametrize(("activation", "weight_variance", "epsilon"), [("sin", 3.0, 0.7), ("cos", 3.0, 0.7)])
def test_one_waves_sigma_closure_is_exact_at_any_step(activation: str, weight_variance: float, epsilon: float) -> None:
    """f is an eigenfunction of the conditional expectation (docs/theory.md, section 5)."""
    model = eft.ResNet(
        activation=activation, weight_variance=weight_variance, bias_variance=0.3, epsilon=epsilon, depth=5
    )
    kernel = eft.InputKernel.explicit([[0.5]])
    np.testing.assert_allclose(
        last(model, "sigma", kernel, step="exact"), last(model, "wick", kernel, order=100), rtol=1e-9
    )


def test_a_fast_wave_adds_what_is_uncorrelated_between_layers() -> None:
    """sin(40 x): each layer adds epsilon^4 C_W^2 Var(sin^2) = epsilon^4 C_W^2 / 8 to the Wishart covariance."""
    register_activation("wave", lambda x: np.sin(40 * x), torch_function=lambda x: (40 * x).sin(), parity="odd")
    try:
        model = eft.ResNet(activation="wave", weight_variance=1.0, epsilon=0.3, depth=10)
        variance = 1 + 10 * 0.09 / 2
        covariance, correction = last(model, "sigma", step="exact")
        assert covariance == pytest.approx(2 * variance**2 + 10 * 0.09**2 / 8, rel=1e-9)
        assert abs(correction) < 1e-6
        # its integrals settle on nodes fine enough for the wave, not on terms
        paths = eft.predict(model, ONE, "particle", depths=(0, 10))
        assert paths.covariance is not None
        assert paths.mean[-1, 0, 0] == pytest.approx(variance, rel=1e-9)
        assert paths.covariance[-1, 0, 0] == pytest.approx(covariance, abs=4 * paths.covariance_se[-1, 0, 0])
    finally:
        unregister_activation("wave")


def test_relaxed_functions_have_no_more_variance_than_before() -> None:
    rng = np.random.default_rng(1)
    neighbours = np.array([[0, 0, 0], [0, 1, 2], [2, 2, 2]])
    factor = rng.normal(size=(50, 3, 3))
    root = rng.normal(size=(50, 3, 3, 3))
    gram = root @ np.swapaxes(root, -1, -2)
    after = rng.uniform(0.1, 2, (50, 3))
    found = relaxation(20 * factor, gram, after, neighbours)
    assert (np.einsum("rps,rpst,rpt->rp", found, gram, found) <= after * (1 + 1e-12)).all()
    assert (found[:, [0, 2], 1:] == 0).all()


def test_relaxation_is_the_exponential_of_the_triangular_generator() -> None:
    from scipy.linalg import expm

    rng = np.random.default_rng(2)
    neighbours = np.array([[0, 0, 0], [0, 1, 2], [2, 2, 2]])
    exponent = -rng.uniform(0, 3, (1, 3, 3))
    found = relaxation(exponent, np.zeros((1, 3, 3, 3)), np.ones((1, 3)), neighbours)[0]
    e = exponent[0]
    generator = np.array([[e[0, 0], 0, 0], e[1], [0, 0, e[2, 0]]])
    np.testing.assert_allclose(found[1], expm(generator)[1], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[[0, 2], 0], np.exp([e[0, 0], e[2, 0]]), rtol=1e-14)


def test_the_mean_fields_own_path_is_resolved() -> None:
    """sin(40 x) from a tiny kernel: the susceptibility vanishes where K0 has grown, also where no probe foresaw it."""
    register_activation("wave", lambda x: np.sin(40 * x), torch_function=lambda x: (40 * x).sin(), parity="odd")
    try:
        model = eft.ResNet(activation="wave", weight_variance=0.5, epsilon=0.3, depth=60)
        path = mean_field(model, eft.InputKernel.explicit([[3.5e-8]]))
        assert np.abs(path.susceptibility[10:, 0, 0]).max() < 1e-8
    finally:
        unregister_activation("wave")


@pytest.mark.parametrize("step", ["euler", "exact"])
def test_wick_powers_of_high_order_relax_at_any_step(step: str) -> None:
    """Order k relaxes at the rate k Q / (2 K): forward Euler multiplied these by -10 in each layer."""
    model = eft.ResNet(activation="tanh", weight_variance=5.0, bias_variance=1.0, epsilon=1.0, depth=4)
    kernel = eft.InputKernel.explicit([[0.3]])
    few, many = (last(model, "wick", kernel, order=order, step=step) for order in (20, 60))
    np.testing.assert_allclose(many, few, rtol=0.05)


def test_a_stiff_limit_of_continuous_depth_is_reached() -> None:
    model = eft.ResNet(activation="sin", weight_variance=5.0, epsilon=1.0, depth=10)
    limit = last(model, "sigma", continuous=True)
    fine = eft.ResNet(activation="sin", weight_variance=5.0, epsilon=0.005**0.5, depth=2000)
    np.testing.assert_allclose(last(fine, "sigma", step="exact"), limit, rtol=0.02)


COARSE = {
    ("linear", 2.0, 0.05, 800): "g_only",
    ("relu", 2.0, 0.1, 200): "sigma",
    ("relu", 1.98, 0.965, 72): "g_only",
    ("tanh", 2.0, 0.5, 8): "sigma",
}
"""Networks for which forward Euler leaves something out, each with the closure that is not left to a campaign."""


@pytest.mark.parametrize(
    ("network", "closure"),
    [
        pytest.param(network, closure, marks=[pytest.mark.campaign] * (closure != usual), id=f"{network}-{closure}")
        for network, usual in COARSE.items()
        for closure in ("g_only", "sigma")
    ],
)
def test_what_forward_euler_leaves_out_is_estimated(
    closure: eft.Closure, network: tuple[str, float, float, int]
) -> None:
    """The estimate is above the truth, and of its size unless that is nearly all."""
    activation, weight_variance, epsilon, depth = network
    model = eft.ResNet(activation=activation, weight_variance=weight_variance, epsilon=epsilon, depth=depth)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=0.5, correlation=0.3)
    loose = eft.Numerics(rtol=1e-7)
    euler, exact = (eft.predict(model, kernel, closure, step=step, numerics=loose) for step in ("euler", "exact"))
    share = 1 - np.linalg.norm(euler.covariance[-1]) / np.linalg.norm(exact.covariance[-1])
    assert share <= euler.details["step_error"]["V4"] <= 4 * share
    assert "step_error" not in exact.details


def test_much_that_forward_euler_leaves_out_is_warned_of() -> None:
    model = eft.ResNet(activation="linear", weight_variance=5.14, epsilon=0.707, depth=103)
    with pytest.warns(eft.StepWarning, match=r"step = 'euler': .* up to 100% of V4; step = 'exact' keeps them"):
        eft.predict(model, eft.InputKernel.explicit([[1.66e-6]]), "sigma")
