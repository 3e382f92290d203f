"""Properties of every closure: symmetries, exact cases, limits, degenerate inputs, two independent methods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import eftcore as eft
from eftcore.pairs import pair_indices, pair_table, to_pairs
from eftcore.theory.closures.g_only import wishart

EVOLVING = [("g_only", {}), ("sigma", {}), ("wick", {"order": 6})]
SMOOTH = ["tanh", "erf", "gelu", "silu", "softplus(beta=2)", "sin"]


def predict(model: eft.ResNet, matrix: np.ndarray, closure: str, **options: object) -> eft.Theory:
    return eft.predict(model, eft.InputKernel.explicit(matrix), closure, **options)  # type: ignore[arg-type]


def network(activation: str = "tanh", **fields: float) -> eft.ResNet:
    defaults = {"weight_variance": 1.5, "bias_variance": 0.1, "epsilon": 0.2, "depth": 20}
    return eft.ResNet(activation=activation, **{**defaults, **fields})  # type: ignore[arg-type]


@st.composite
def kernels(draw: st.DrawFn, n_inputs: int = 3) -> np.ndarray:
    seed = draw(st.integers(0, 2**32 - 1))
    x = np.random.default_rng(seed).standard_normal((n_inputs, n_inputs + 2)) * draw(st.floats(0.2, 2.0))
    return x @ x.T / (n_inputs + 2)


def close(a: np.ndarray | None, b: np.ndarray | None, rtol: float = 1e-9) -> None:
    assert a is not None
    assert b is not None
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


@pytest.mark.parametrize(("closure", "options"), EVOLVING)
@settings(max_examples=8, deadline=None)
@given(matrix=kernels())
def test_symmetry_permutation_marginals_and_positivity(
    closure: str, options: dict[str, object], matrix: np.ndarray
) -> None:
    model = network(epsilon=0.4, depth=5)
    full = predict(model, matrix, closure, depths=(0, 3, 5), **options)
    assert full.covariance is not None
    np.testing.assert_allclose(full.covariance, np.swapaxes(full.covariance, 1, 2), rtol=1e-12, atol=1e-12)
    lowest = np.linalg.eigvalsh(full.covariance)[:, 0]
    assert (lowest > -1e-9 * np.abs(full.covariance).max((1, 2))).all()
    order = [2, 0, 1]
    turned = predict(model, matrix[np.ix_(order, order)], closure, depths=(0, 3, 5), **options)
    pairs = to_pairs(pair_table(3)[np.ix_(order, order)])
    close(turned.mean, full.mean[:, order][:, :, order])
    close(turned.covariance, full.covariance[:, pairs][:, :, pairs])
    close(turned.correction, full.correction[:, order][:, :, order])  # type: ignore[index]
    part = predict(model, matrix[:2, :2], closure, depths=(0, 3, 5), **options)
    inner = to_pairs(pair_table(3)[:2, :2])
    close(part.mean, full.mean[:, :2, :2])
    close(part.covariance, full.covariance[:, inner][:, :, inner])
    close(part.correction, full.correction[:, :2, :2])  # type: ignore[index]


@settings(max_examples=20, deadline=None)
@given(
    matrix=kernels(2),
    activation=st.sampled_from([*SMOOTH, "relu", "leaky_relu(slope=0.2)", "cos"]),
    closure=st.sampled_from(["wick", "sigma"]),
    bias_variance=st.sampled_from([0.0, 0.3]),
)
def test_source_vanishes_at_depth_zero(matrix: np.ndarray, activation: str, closure: str, bias_variance: float) -> None:
    """At l = 0 the neurons are exactly Gaussian: U1 = 0, whatever the network and the inputs."""
    found = predict(network(activation, bias_variance=bias_variance, depth=1), matrix, closure, depths=(0, 1))
    assert found.source is not None
    assert found.covariance is not None
    np.testing.assert_array_equal(found.source[0], 0.0)
    close(found.covariance[0], wishart(matrix), 1e-14)


def test_g_only_has_a_source_at_depth_zero() -> None:
    matrix = np.array([[1.0, 0.4], [0.4, 1.5]])
    for activation in (*SMOOTH, "relu"):
        g_only = predict(network(activation), matrix, "g_only", depths=(0, 1))
        assert g_only.source is not None
        # for ReLU E2 is homogeneous, H : Wishart vanishes, and even G-only starts right
        assert (np.abs(g_only.source[0]).max() > 1e-3) == (activation != "relu")


@settings(max_examples=10, deadline=None)
@given(matrix=kernels(3), slope=st.sampled_from([0.0, 0.2]), weight_variance=st.floats(0.2, 3.0))
def test_homogeneous_sigma_has_no_g_only_correction_on_the_diagonal(
    matrix: np.ndarray, slope: float, weight_variance: float
) -> None:
    """E2_aa is linear in K_aa, so G-only K1_aa = 0 at every depth and for every bias."""
    model = network(f"leaky_relu(slope={slope})", weight_variance=weight_variance, depth=5)
    g_only = predict(model, matrix, "g_only", depths=(0, 5))
    assert g_only.correction is not None
    np.testing.assert_allclose(np.diagonal(g_only.correction[-1]), 0.0, atol=1e-13)


def test_relu_does_have_a_correction_on_the_diagonal() -> None:
    exact = predict(network("relu"), np.array([[1.0, 0.4], [0.4, 1.5]]), "wick", depths=(0, 20))
    assert exact.correction is not None
    assert np.diagonal(exact.correction[-1]).min() > 0.1


@pytest.mark.parametrize("closure", ["g_only", "sigma", "wick"])
def test_linear_network_is_solved_exactly(closure: str) -> None:
    """sigma = phi: V4 follows from products of random matrices, K1 = 0."""
    model = network("linear", bias_variance=0.0)
    options = {} if closure == "wick" else {"step": "exact"}
    found = predict(model, np.array([[1.3]]), closure, depths=(0, 1, 20), **options)
    growth = 1 + model.weight_variance * model.epsilon**2
    # n Var(G'): G' = |phi + eps W phi|^2 / n, with W phi Gaussian of variance C_W G given phi
    noise = 4 * model.weight_variance * model.epsilon**2 + 2 * (model.weight_variance * model.epsilon**2) ** 2
    variance, mean = 2 * 1.3**2, 1.3
    for _ in range(20):
        variance, mean = growth**2 * variance + noise * mean**2, growth * mean
    assert found.covariance is not None
    assert found.correction is not None
    np.testing.assert_allclose(found.covariance[-1, 0, 0], variance, rtol=1e-11)
    np.testing.assert_allclose(found.correction, 0.0, atol=1e-10)


@pytest.mark.parametrize(("closure", "options"), [*EVOLVING, ("mean", {}), ("source_only", {})])
def test_recursion_converges_to_the_ode_with_slope_one_in_epsilon_squared(
    closure: str, options: dict[str, object]
) -> None:
    matrix = np.array([[1.0, 0.4], [0.4, 1.5]])
    limit = predict(network(), matrix, closure, depths=(0, 20), continuous=True, **options)
    steps = [None] if closure == "mean" else ["euler", "exact"]
    for step in steps:
        errors = []
        for refine in (4, 8, 16):
            model = network(epsilon=0.2 / np.sqrt(refine), depth=20 * refine)
            found = predict(model, matrix, closure, depths=(0, model.depth), step=step, **options)
            errors.append(
                [
                    np.linalg.norm(getattr(found, name)[-1] - getattr(limit, name)[-1])
                    for name in ("mean", "covariance", "correction")
                    if getattr(limit, name) is not None
                ]
            )
        slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
        np.testing.assert_allclose(slopes[-1], 1.0, atol=0.06)


def test_wick_orders_add_up() -> None:
    """Solving for orders 1..8 at once, and for 5..8 on top of 1..4, is the same."""
    from functools import partial

    from eftcore.gaussian.mehler import MehlerExpectations
    from eftcore.theory.closures.wick import Wick
    from eftcore.theory.solving import at_resolution
    from eftcore.theory.together import alone

    spec = eft.PredictionSpec(
        model=network("gelu"), kernel=eft.InputKernel.explicit([[1.0, 0.3], [0.3, 0.8]]), closure="wick", order=8
    )
    engine = MehlerExpectations(eft.get_activation("gelu"), level=3, terms=64)
    low, rest, whole = (
        alone(at_resolution(spec, engine, partial(Wick, spec.model, order=order, above=above)))
        for order, above in ((4, 0), (8, 4), (8, 0))
    )
    total = low.plus(rest)
    close(total.covariance, whole.covariance, 1e-12)
    close(total.correction, whole.correction, 1e-11)


def test_second_wick_order_is_g_only_with_a_normal_ordered_source() -> None:
    matrix = np.array([[1.0, 0.4], [0.4, 1.5]])
    g_only = predict(network(), matrix, "g_only", step="exact")
    wick = predict(network(), matrix, "wick", order=2)
    close(wick.covariance, g_only.covariance, 1e-11)


@pytest.mark.parametrize("n_inputs", [1, 2, 3])
@pytest.mark.parametrize("activation", [*SMOOTH, "relu"])
def test_wick_series_agrees_with_one_particle_paths(activation: str, n_inputs: int) -> None:
    """Two independent methods. Student t with 15 degrees of freedom, Bonferroni over entries: false alarm 1e-3."""
    model = network(activation)
    kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=1.0, correlation=0.3)
    depths = (0, 10, 20)
    paths = eft.predict(model, kernel, "particle", depths=depths)
    series = eft.predict(model, kernel, "wick", order="auto", truncation=2e-4, depths=depths)
    for value, error, other in (
        (paths.covariance, paths.covariance_se, series.covariance),
        (paths.correction, paths.correction_se, series.correction),
    ):
        assert value is not None
        assert error is not None
        assert other is not None
        t = np.abs(value - other)[1:] / error[1:]
        entries = t[0].shape[0] * (t[0].shape[0] + 1)
        assert t.max() < stats.t.isf(1e-3 / (2 * entries), df=15)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize(("closure", "options"), EVOLVING)
def test_duplicated_inputs_share_everything(activation: str, closure: str, options: dict[str, object]) -> None:
    single = predict(network(activation), np.array([[1.2]]), closure, depths=(0, 20), **options)
    double = predict(network(activation), np.full((2, 2), 1.2), closure, depths=(0, 20), **options)
    for name, rtol in (("mean", 1e-11), ("covariance", 1e-8), ("correction", 1e-7)):
        one, two = getattr(single, name), getattr(double, name)
        np.testing.assert_allclose(two, np.broadcast_to(one, two.shape), rtol=rtol)


@pytest.mark.parametrize(("closure", "options"), [*EVOLVING, ("source_only", {})])
@pytest.mark.parametrize("bias_variance", [0.0, 0.4])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_zero_input_and_low_rank_kernels_agree_with_nearby_ones(
    activation: str, bias_variance: float, closure: str, options: dict[str, object]
) -> None:
    """A zero input and rank 2 of 4: finite, and continuous under a small change that makes the kernel regular."""
    x = np.array([[1.0, 0.5], [0.2, -1.0], [0.0, 0.0], [0.7, 0.9]])
    kernel = x @ x.T
    model, numerics = network(activation, bias_variance=bias_variance, depth=2), eft.Numerics(rtol=1e-6)
    found = predict(model, kernel, closure, depths=(0, 2), numerics=numerics, **options)
    near = predict(model, kernel + 1e-5 * np.eye(4), closure, depths=(0, 2), numerics=numerics, **options)
    for name in ("mean", "covariance", "correction"):
        one, two = getattr(found, name), getattr(near, name)
        if one is not None:
            assert np.isfinite(one).all()
            # a kink makes the dependence on 1 - rho a square root
            np.testing.assert_allclose(
                one, two, rtol=0, atol=(2e-2 if activation == "relu" else 1e-3) * np.abs(two).max()
            )
    if bias_variance == 0.0:
        np.testing.assert_allclose(found.mean[-1, 2], 0.0, atol=1e-12)
        assert found.covariance is not None
        touched = [p for p, pair in enumerate(zip(*pair_indices(4), strict=True)) if 2 in pair]
        np.testing.assert_allclose(found.covariance[-1][touched], 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("closure", "options", "n_inputs"),
    [
        ("g_only", {}, 24),
        ("g_only", {}, 64),
        ("sigma", {}, 24),
        ("wick", {"order": 2}, 24),
        pytest.param("sigma", {}, 64, marks=pytest.mark.campaign),
        pytest.param("wick", {"order": 2}, 64, marks=pytest.mark.campaign),
    ],
)
def test_up_to_sixty_four_inputs(closure: str, options: dict[str, object], n_inputs: int) -> None:
    """Entries of two inputs among many are those of the two alone, to the requested accuracy."""
    kernel = eft.InputKernel.equicorrelated(n_inputs=n_inputs, variance=1.0, correlation=0.1)
    model, numerics = network(depth=1), eft.Numerics(rtol=1e-6)
    many = eft.predict(model, kernel, closure, depths=(1,), numerics=numerics, **options)  # type: ignore[arg-type]
    two = predict(model, kernel.array[:2, :2], closure, depths=(1,), numerics=numerics, **options)
    assert many.converged
    assert many.covariance is not None
    inner = to_pairs(pair_table(n_inputs)[:2, :2])
    close(many.covariance[:, inner][:, :, inner], two.covariance, 1e-6)
    close(many.correction[:, :2, :2], two.correction, 1e-6)  # type: ignore[index]


def test_automatic_order_reports_what_is_left() -> None:
    kernel = eft.InputKernel.explicit([[1.0]])
    found = eft.predict(network(), kernel, "wick", order="auto", truncation=1e-3, depths=(0, 20))
    better = eft.predict(network(), kernel, "wick", order=80, depths=(0, 20))
    assert found.correction is not None
    assert better.correction is not None
    left = found.details["truncation_error"]
    assert isinstance(left, dict)
    assert abs(found.correction[-1, 0, 0] / better.correction[-1, 0, 0] - 1) < left["K1"] <= 1e-3
    kinked = eft.predict(network("relu"), kernel, "wick", order="auto", truncation=1e-9, depths=(0, 20))
    left = kinked.details["truncation_error"]
    assert isinstance(left, dict)
    assert max(left.values()) <= 1e-9


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_many_inputs_are_as_exact_as_few(activation: str) -> None:
    kernel = eft.InputKernel.equicorrelated(n_inputs=7, variance=1.0, correlation=0.3)
    many = eft.predict(network(activation, depth=4), kernel, "sigma", depths=(0, 4))
    few = eft.predict(
        network(activation, depth=4), eft.InputKernel.explicit(kernel.array[:4, :4]), "sigma", depths=(0, 4)
    )
    assert many.converged
    assert many.covariance is not None
    assert few.covariance is not None
    pair, same = pair_table(7)[[0, 0, 2], [1, 0, 3]], pair_table(4)[[0, 0, 2], [1, 0, 3]]
    close(many.covariance[-1][np.ix_(pair, pair)], few.covariance[-1][np.ix_(same, same)], 2e-9)
    close(many.correction[-1, :4, :4], few.correction[-1], 2e-9)  # type: ignore[index]
