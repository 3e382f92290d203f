"""The next order in 1/n: closed forms of the linear activation, reference values, and what must agree."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.pairs import pair_names
from eftcore.results import Theory
from eftcore.theory.mean_field import choose_engine, mean_path
from eftcore.theory.next_order import adapted_expansion
from eftcore.theory.next_order.adapted import AdaptedFunctions, adapted_functions
from eftcore.theory.next_order.drift import Moments
from eftcore.theory.next_order.expansion import advance, initial
from eftcore.theory.next_order.wick_powers import WickPowers
from eftcore.theory.together import alone

pytestmark = pytest.mark.usefixtures("registered")

PAIR = [[1.0, 0.3], [0.3, 2.0]]


def network(activation: str, **other) -> eft.ResNet:
    return eft.ResNet(**{"activation": activation, "weight_variance": 2.0, "epsilon": 0.1, "depth": 100} | other)


def solved(model: eft.ResNet, kernel: list[list[float]], **options) -> Theory:
    options = {"truncation": 1e-3, "next_order": True} | options
    return eft.predict(model, eft.InputKernel.explicit(kernel), "exact", **options)


def through(basis: WickPowers, model: eft.ResNet, matrix: np.ndarray) -> Moments:
    """The moments at the last layer with one set of functions."""
    path = mean_path(model, matrix, engine_of(model, matrix)).kernel
    at = basis.at(path[0])
    x = initial(basis, at)
    for deeper in path[1:]:
        before, at = at, basis.at(deeper)
        x = advance(basis, before, at, model.epsilon**2, x)
    return x


def engine_of(model: eft.ResNet, matrix: np.ndarray) -> MehlerExpectations:
    engine = alone(choose_engine(model, matrix, eft.Numerics(), series=True))
    assert isinstance(engine, MehlerExpectations)
    return engine


def powers(model: eft.ResNet, matrix: np.ndarray, highest: int) -> WickPowers:
    engine = engine_of(model, matrix)
    resolved = MehlerExpectations(engine.activation, engine.level, engine.terms, highest)
    return WickPowers(resolved, model, highest, np.diag(matrix))


def linear_moments(k: np.ndarray, c_w: float, h: float, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """V4 and D of a linear network, (P, P) each: E[G_ab G_cd] has a closed recursion at every n.

    Given G, the next G has mean c G and covariance (c^2 - 1) (G_ac G_bd + G_ad G_bc) / n with c = 1 + h C_W.
    """

    def crossed(m: np.ndarray) -> np.ndarray:
        return np.einsum("acbd->abcd", m) + np.einsum("adbc->abcd", m)

    c = 1 + h * c_w
    orders = [np.einsum("ab,cd->abcd", k, k)]
    orders += [crossed(orders[0]), np.zeros_like(orders[0])]
    for _ in range(layers):
        before = orders
        orders = [c * c * m for m in before]
        for order in (1, 2):
            orders[order] = orders[order] + (c * c - 1) * crossed(before[order - 1])
    a, b = np.triu_indices(len(k))
    first, second = (m[a[:, None], b[:, None], a, b] for m in orders[1:])
    return first, second


@pytest.mark.parametrize("layers", [1, 7])
@pytest.mark.parametrize("matrix", [[[1.0]], PAIR, [[1.0, 0.3, 0.1], [0.3, 2.0, -0.4], [0.1, -0.4, 0.7]]])
def test_linear_networks_are_exact(matrix: list[list[float]], layers: int) -> None:
    model = network("linear", weight_variance=1.5, epsilon=0.5, depth=layers)
    found = solved(model, matrix)
    assert found.covariance is not None
    covariance, following = linear_moments(np.array(matrix), 1.5, 0.25, layers)
    np.testing.assert_allclose(found.covariance[-1], covariance, rtol=1e-9)
    np.testing.assert_allclose(found.covariance_next[-1], following, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.correction_next[-1], 0.0, atol=1e-9)


def test_linear_networks_in_continuous_depth() -> None:
    k, c_w = np.array(PAIR), 1.5
    found = solved(network("linear", weight_variance=c_w), PAIR, continuous=True, depths=[40, 80])
    a, b = np.triu_indices(2)
    own = np.outer(k[a, b], k[a, b])
    crossed = k[np.ix_(a, a)] * k[np.ix_(b, b)] + k[np.ix_(a, b)] * k[np.ix_(b, a)]
    s = 2 * c_w * np.array([0.4, 0.8])[:, None, None]
    expected = np.exp(s) * (2 * own + crossed) * (s + s**2 / 2)
    error = found.details["truncation_error"]["D"]
    assert error < 1e-3
    np.testing.assert_allclose(found.covariance_next, expected, rtol=max(3 * error, 1e-6))


REFERENCE: dict[tuple[str, float], dict[int, dict[str, tuple[float, float]]]] = {
    ("tanh", 2.0): {
        100: {"V4": (23.5675, 1e-4), "K1": (-0.1552, 1e-4), "D": (6.812, 1e-3), "T": (366.68, 0.01)},
        200: {"V4": (48.4820, 1e-4), "K1": (-0.4542, 1e-4), "D": (15.113, 1e-3), "T": (1118.5, 0.1)},
    },
    ("relu", 1.0): {
        100: {"V4": (62.48, 0.01), "K1": (1.26, 0.01), "D": (384.1, 0.2), "T": (4754, 1)},
        200: {"V4": (999.2, 0.1), "K1": (12.2, 0.1), "D": (13647, 6), "T": (430_480, 100)},
    },
}
"""Values by activation and K, at t = 1 and 2 with C_W = 2, from independent prototypes that simulation agrees with;
with their last digits, and for ReLU's D and T with what more than the prototype's 12 Wick powers add."""


@pytest.mark.parametrize(("activation", "variance"), REFERENCE)
def test_one_input_has_the_values_of_independent_prototypes(activation: str, variance: float) -> None:
    known = REFERENCE[activation, variance]
    found = solved(network(activation, depth=200), [[variance]], continuous=True, depths=list(known))
    error = found.details["truncation_error"]
    assert error["D"] <= 2e-3
    for at, values in enumerate(known.values()):
        entries = {
            "V4": found.covariance[at, 0, 0],
            "K1": found.correction[at, 0, 0],
            "D": found.covariance_next[at, 0, 0],
            "T": found.third_cumulant[at, 0, 0, 0],
        }
        for name, (value, digit) in values.items():
            assert abs(entries[name] - value) <= digit + 2 * error[name] * abs(value), name


def test_discrete_layers_have_the_value_that_simulation_has() -> None:
    """ReLU with epsilon = 0.5 at t = 1: D / V4 = 3.492 of a prototype with fewer orders, 3.492 +- 0.015 simulated."""
    found = solved(network("relu", epsilon=0.5, depth=4), [[1.0]], truncation=1e-4)
    assert abs(found.covariance_next[-1, 0, 0] / found.covariance[-1, 0, 0] - 3.492) < 5e-3


@pytest.mark.parametrize(("activation", "matrix"), [("tanh", [[2.0]]), ("gelu", [[1.0]])])
def test_layers_become_the_continuous_limit_linearly_in_epsilon_squared(
    activation: str, matrix: list[list[float]]
) -> None:
    limit = solved(network(activation), matrix, continuous=True, depths=[100])
    error = limit.details["truncation_error"]
    coarse, fine = (
        solved(network(activation, epsilon=1 / np.sqrt(depth), depth=depth), matrix, depths=[depth])
        for depth in (100, 200)
    )
    for name, attribute in (("D", "covariance_next"), ("T", "third_cumulant")):
        one, two, last = (getattr(found, attribute).ravel()[0] for found in (coarse, fine, limit))
        assert abs((2 * two - one) - last) <= (2 * error[name] + 2e-4) * abs(last), name
        assert abs(two - last) > 5 * abs((2 * two - one) - last), name


def test_deep_networks_are_extrapolated_from_shallower_ones() -> None:
    model = network("tanh", epsilon=0.05, depth=300)
    found = solved(model, [[2.0]])
    direct = adapted(model, np.array([[2.0]]), 28, 3e-4)
    value = direct["D"][-1, 0, 0]
    assert abs(found.covariance_next[-1, 0, 0] / value - 1) < found.details["truncation_error"]["D"] < 2e-3


def test_a_pair_says_of_one_input_what_that_input_says_alone() -> None:
    model, matrix = network("gelu", depth=50), np.array(PAIR)
    pair = powers(model, matrix, 6)
    both = through(pair, model, matrix)
    for entry, variance in ((0, 1.0), (2, 2.0)):
        one = powers(model, np.array([[variance]]), 6)
        alone = through(one, model, np.array([[variance]]))
        for name in ("C", "D"):
            value = pair.kernel @ getattr(both, name) @ pair.kernel.T
            np.testing.assert_allclose(
                value[entry, entry], (one.kernel @ getattr(alone, name) @ one.kernel.T)[0, 0], rtol=1e-8
            )


def following(basis: WickPowers, model: eft.ResNet, matrix: np.ndarray) -> np.ndarray:
    """(P, P) D at the last layer."""
    found: np.ndarray = basis.kernel @ through(basis, model, matrix).D @ basis.kernel.T
    return found


def adapted(model: eft.ResNet, matrix: np.ndarray, modes: int, tolerance: float) -> dict[str, np.ndarray]:
    """V4, D, K2 and T at the last layer with adapted functions."""
    path = mean_path(model, matrix, engine_of(model, matrix)).kernel
    probed = path[np.linspace(0, len(path) - 1, 6).astype(int)]
    functions = adapted_functions(eft.get_activation(model.activation), 2.0, probed, modes, tolerance)
    assert isinstance(functions, AdaptedFunctions)
    return adapted_expansion.through(functions, path, model.epsilon**2, np.array([model.depth]))


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("matrix", [[[1.0]], [[1.0, 0.3], [0.3, 0.7]]])
def test_adapted_functions_and_wick_powers_agree_where_few_of_each_suffice(
    activation: str, matrix: list[list[float]]
) -> None:
    model, kernel = network(activation, depth=10), np.array(matrix)
    found = adapted(model, kernel, 20, 1e-3)["D"][-1]
    highest = 8 if len(kernel) == 1 else 6
    less, orders = (following(powers(model, kernel, order), model, kernel) for order in (highest - 2, highest))
    assert np.linalg.norm(found - orders) < np.linalg.norm(less - orders)
    np.testing.assert_allclose(found, orders, rtol=0, atol=5e-3 * np.abs(orders).max())


HARD = {
    "tanh": [[2.0, 2.5], [2.5, 4.0]],
    "erf": [[1.0, 0.99], [0.99, 1.0]],
    "sin": [[15.0, 12.0], [12.0, 15.0]],
    "cos": [[1.0, -0.4], [-0.4, 2.0]],
    "logistic": [[1.0, 0.3], [0.3, 1.0]],
}
USUAL = ("sin", "cos", "logistic")
"""Of these, an odd, an even one and one that is neither; the others are a campaign."""


@pytest.mark.parametrize(
    "activation", [pytest.param(name, marks=[pytest.mark.campaign] * (name not in USUAL)) for name in HARD]
)
def test_pairs_of_bounded_activations_converge(activation: str) -> None:
    """The error covers the change to many more functions, and what a pair says of one input is what it says alone."""
    model, matrix = network(activation, epsilon=0.25, depth=16), np.array(HARD[activation])
    found = solved(model, matrix.tolist())
    error = found.details["truncation_error"]
    assert error["D"] < 2e-3
    assert error["K2"] < 0.3  # that of logistic nearly cancels
    finer = adapted(model, matrix, 34, 3e-5)
    a, b = np.triu_indices(2)
    for name, values in (
        ("D", found.covariance_next[-1]),
        ("K2", found.correction_next[-1][a, b]),
        ("T", found.third_cumulant[-1]),
    ):
        assert np.linalg.norm(values - finer[name][-1]) <= error[name] * np.linalg.norm(finer[name][-1]), name
    alone = adapted(model, matrix[1:, 1:], 34, 3e-5)
    np.testing.assert_allclose(finer["D"][-1, 2, 2], alone["D"][-1, 0, 0], rtol=1e-3)
    np.testing.assert_allclose(finer["K2"][-1, 2], alone["K2"][-1, 0], rtol=5e-3)
    np.testing.assert_allclose(finer["T"][-1, 2, 2, 2], alone["T"][-1, 0, 0, 0], rtol=1e-4)


def test_nearly_equal_inputs_have_nearly_the_same() -> None:
    """Entries of two inputs approach those of one linearly in 1 - rho."""
    model = network("tanh", epsilon=0.25, depth=16)
    alone = adapted(model, np.array([[1.0]]), 28, 3e-4)["D"][-1, 0, 0]
    near, nearer = (
        np.abs(adapted(model, np.array([[1.0, rho], [rho, 1.0]]), 28, 3e-4)["D"][-1] - alone).max()
        for rho in (0.98, 0.99)
    )
    assert nearer < 0.1 * alone
    assert 1.5 < near / nearer < 2.5


def test_symmetries() -> None:
    found = solved(network("relu", depth=20), [[1.0, 0.3], [0.3, 1.0]], truncation=0.3)
    d, third = found.covariance_next[-1], found.third_cumulant[-1]
    np.testing.assert_allclose(d, d[::-1, ::-1], rtol=1e-9)
    np.testing.assert_allclose(d, d.T, rtol=1e-12)
    for order in ((1, 0, 2), (2, 1, 0), (1, 2, 0)):
        np.testing.assert_allclose(third, third.transpose(order), rtol=1e-12)


def test_copies_of_an_input_and_zero_have_what_follows_from_it() -> None:
    """Inputs x, x, -x and 0 of an odd activation without biases."""
    model, row = network("tanh", depth=20), np.array([1.0, 1.0, -1.0, 0.0])
    found = solved(model, np.outer(row, row).tolist())
    alone = solved(model, [[1.0]])
    a, b = np.triu_indices(4)
    s = row[a] * row[b]
    np.testing.assert_allclose(found.covariance_next[-1], np.outer(s, s) * alone.covariance_next[-1, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(found.correction_next[-1], np.outer(row, row) * alone.correction_next[-1, 0, 0])
    third = np.einsum("p,q,r->pqr", s, s, s) * alone.third_cumulant[-1, 0, 0, 0]
    np.testing.assert_allclose(found.third_cumulant[-1], third, rtol=1e-9)
    with pytest.raises(InputError, match="is 0 there"):
        eft.kernel_law(found, 64).entry(3)


def test_an_input_that_grows_from_zero() -> None:
    """Biases make it a Gaussian at once; one input has waves, which do not mind."""
    model = network("tanh", depth=40, bias_variance=0.5)
    zero, small = (solved(model, [[variance]], truncation=0.01) for variance in (0.0, 1e-5))
    np.testing.assert_allclose(zero.covariance_next[-1], small.covariance_next[-1], rtol=2e-3)
    with pytest.raises(InputError, match="does not converge with 'relu' at this kernel"):
        solved(network("relu", bias_variance=0.5), [[0.0]])


def test_more_inputs_have_the_entries_of_their_pairs() -> None:
    model = network("softplus", depth=5)
    matrix = np.eye(5) + 0.3
    five = solved(model, matrix.tolist(), truncation=0.2)
    pair = solved(model, matrix[:2, :2].tolist(), truncation=0.2)
    names = {name: p for p, name in enumerate(pair_names(5))}
    chosen = [names[name] for name in ("33", "34", "44")]
    np.testing.assert_array_equal(five.covariance_next[-1][np.ix_(chosen, chosen)], pair.covariance_next[-1])
    assert np.isnan(five.covariance_next[-1, names["01"], names["23"]])
    assert np.isfinite(five.correction_next).all()


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(InputError, match="belongs to closure = 'exact'"):
        eft.predict(network("tanh"), eft.InputKernel.explicit([[1.0]]), "g_only", next_order=True)
    with pytest.raises(InputError, match="at most 8 inputs"):
        solved(network("tanh", depth=1), np.eye(9).tolist())
    with pytest.raises(InputError, match="does not converge with 'hard_tanh' at this kernel"):
        solved(network("hard_tanh", depth=4), [[400.0]])


def test_entries_that_do_not_converge_are_left_out() -> None:
    """No set of functions suits a pair whose kernel is singular because one of the inputs is 0."""
    model = network("tanh", depth=4, bias_variance=0.5)
    with pytest.warns(eft.TruncationWarning, match="where it does not converge: D and K2 of some inputs"):
        found = solved(model, [[1.0, 0.0], [0.0, 0.0]])
    assert np.isfinite(found.covariance_next[-1]).tolist() == np.diag([True, False, True]).tolist()
    assert np.isfinite(found.correction_next[-1]).tolist() == np.eye(2, dtype=bool).tolist()
    with pytest.raises(InputError, match="the next order of these inputs is not known"):
        eft.kernel_law(found, 64).entry(0, 1)


def test_a_mean_correction_that_does_not_converge_is_left_out() -> None:
    """At the kink of ReLU, K2 needs more Wick powers than are tried for two inputs; those for one input suffice."""
    with pytest.warns(eft.TruncationWarning, match="where it does not converge: K2 of some inputs"):
        found = solved(network("relu", depth=10), [[1.0, 0.3], [0.3, 1.0]])
    assert np.isfinite(found.correction_next[-1]).tolist() == np.eye(2, dtype=bool).tolist()
    assert np.isfinite(found.covariance_next).all()
    assert found.relative_error("K2") < 0.25


def at_order(activation: str, highest: int) -> tuple[float, float]:
    """D and K2 of one input of sixteen layers with Wick powers up to one order."""
    model, matrix = network(activation, depth=16, epsilon=0.25), np.array([[1.0]])
    basis = powers(model, matrix, highest)
    x = through(basis, model, matrix)
    return (basis.kernel @ x.D @ basis.kernel.T)[0, 0], (basis.kernel @ x.b)[0]


def test_the_error_at_a_kink_covers_the_limit_of_many_wick_powers() -> None:
    found = solved(network("relu", depth=16, epsilon=0.25), [[1.0]])
    orders = np.array([at_order("relu", highest) for highest in (10, 20, 40)])
    steps = np.diff(orders, axis=0)
    limit = orders[2] - steps[1] ** 2 / (steps[1] - steps[0])  # Aitken: each doubling leaves the same part
    for name, value, exact in zip(("D", "K2"), found_of(found), limit, strict=True):
        assert abs(value - exact) <= found.relative_error(name) * abs(value), name
    assert found.relative_error("K2") < 0.25


def test_the_error_of_a_divergent_series_covers_its_best_orders() -> None:
    """Those from which it turns back, on both sides of the value."""
    found = solved(network("silu", depth=16, epsilon=0.25), [[1.0]])
    for highest in (14, 16):
        for name, value, other in zip(("D", "K2"), found_of(found), at_order("silu", highest), strict=True):
            assert abs(value - other) <= found.relative_error(name) * abs(value), name
    assert found.relative_error("D") < 1e-3
    assert found.relative_error("K2") < 0.5


def test_a_coarse_truncation_is_met_though_more_is_needed_for_k2() -> None:
    """Sets of functions that get D right but not yet K2 are better than those that get neither."""
    found = solved(network("relu", depth=16, epsilon=0.25), [[1.0]], truncation=0.01)
    assert found.relative_error("D") <= 0.01
    assert found.relative_error("K2") < 0.5


def found_of(found: Theory) -> tuple[float, float]:
    return found.covariance_next[-1, 0, 0], found.correction_next[-1, 0, 0]


def test_digests_from_before_it_existed_stay_valid() -> None:
    spec = eft.PredictionSpec(model=network("tanh", depth=1), kernel=eft.InputKernel.explicit([[1.0]]), closure="exact")
    solved_spec = solved(network("tanh", depth=1), [[1.0]]).spec
    assert "next_order" not in spec.identity()
    assert solved_spec.identity()["next_order"] is True
    assert spec.digest != solved_spec.digest
