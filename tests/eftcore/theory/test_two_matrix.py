"""Blocks with two matrices: theory against closed forms at every width, against its own limits, and its refusals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.pairs import to_matrix

ONE = eft.InputKernel.explicit([[1.0]])
TWO = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 2.0]])


def network(**fields: Any) -> eft.ResNet:
    return eft.ResNet(**{"block": "two_matrix", "weight_variance": 2.0, "epsilon": 0.1, "depth": 20} | fields)


def raw_moments_of_a_layer(moments: list[Fraction], c_2: int, h: Fraction, n: int, m: int) -> list[Fraction]:
    """E xi, E xi^2, E xi^3 of G' = G xi, from the moments of sigma^2, sigma^4 and sigma^6 at unit variance.

    Given Q, n xi / (h Q) is noncentral chi-squared with n degrees of freedom and noncentrality n / (h Q).
    """
    first = moments[0]
    second = first**2 + (moments[1] - first**2) / m
    third = first**3 + 3 * (moments[1] - first**2) * first / m
    third += (moments[2] - 3 * moments[1] * first + 2 * first**3) / Fraction(m) ** 2
    a, b, c = h * c_2 * first, (h * c_2) ** 2 * second, (h * c_2) ** 3 * third
    return [
        1 + a,
        2 * (b + 2 * a) / n + 1 + 2 * a + b,
        8 * (c + 3 * b) / Fraction(n) ** 2 + 6 * (b + 2 * a + c + 2 * b) / n + 1 + 3 * a + 3 * b + c,
    ]


def exact_cumulants(moments: list[Fraction], model: eft.ResNet, n: int) -> tuple[Fraction, Fraction, Fraction]:
    """E G, n Var G and n^2 kappa_3 of a homogeneous network of one input of variance 1, at width n."""
    m = round(model.hidden_ratio * n)
    h = Fraction(model.epsilon).limit_denominator(10**6) ** 2
    layer = raw_moments_of_a_layer(moments, int(model.weight_variance), h, n, m)
    start = [Fraction(1), 1 + Fraction(2, n), (1 + Fraction(2, n)) * (1 + Fraction(4, n))]
    one, two, three = (begin * xi**model.depth for begin, xi in zip(start, layer, strict=True))
    return one, n * (two - one**2), n**2 * (three - 3 * two * one + 2 * one**3)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("activation", "moments"),
    [("relu", [Fraction(1, 2), Fraction(3, 2), Fraction(15, 2)]), ("linear", [Fraction(1), Fraction(3), Fraction(15)])],
)
def test_homogeneous_networks_are_known_at_every_width(activation: str, moments: list[Fraction], ratio: float) -> None:
    model = network(activation=activation, hidden_ratio=ratio)
    wide = 10**12
    mean, near, third = exact_cumulants(moments, model, wide)
    far = exact_cumulants(moments, model, 2 * wide)
    theory = eft.predict(model, ONE, "exact", next_order=True, depths=[20])
    assert theory.covariance_next is not None
    assert theory.third_cumulant is not None
    assert theory.mean.item() == pytest.approx(float(mean), rel=1e-12)
    assert theory.covariance.item() == pytest.approx(float(2 * far[1] - near), rel=1e-11)
    assert theory.covariance_next.item() == pytest.approx(float((near - far[1]) * 2 * wide), rel=1e-10)
    assert theory.third_cumulant.item() == pytest.approx(float(2 * far[2] - third), rel=1e-10)
    assert theory.correction.item() == pytest.approx(0, abs=1e-12)
    assert theory.correction_next.item() == pytest.approx(0, abs=1e-10)


def test_the_leading_order_of_relu() -> None:
    """The value of docs/theory.md, section 11.1, where networks of 1024 neurons have 44.02 +- 0.10."""
    model = network(activation="relu", depth=100)
    for closure in ("exact", "g_only"):
        theory = eft.predict(model, ONE, closure, step="exact", depths=[100])
        assert theory.details["leading_order"] == "exact"
        assert theory.covariance.item() == pytest.approx(43.8215197, rel=1e-8)


@pytest.mark.parametrize("normalisation", ["rms", "layer"])
@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_one_normalised_input_sums_independent_layers(normalisation: str, ratio: float) -> None:
    """Q does not depend on G: K0 grows linearly, and D is what the hidden neurons add to the spread of Q."""
    model = network(
        activation="tanh", normalisation=normalisation, hidden_ratio=ratio, epsilon=0.3, depth=10, bias_variance=0.25
    )
    density = lambda z: np.exp(-z * z / 2) / np.sqrt(2 * np.pi)  # noqa: E731
    second, fourth = (quad(lambda z, k=k: np.tanh(z) ** k * density(z), -12, 12)[0] for k in (2, 4))
    h, c_2, spread = 0.09, 2.0, fourth - second**2
    q = 0.25 + c_2 * second
    theory = eft.predict(model, eft.InputKernel.explicit([[1.5]]), "exact", next_order=True, depths=range(11))
    kernel = 1.5 + h * q * np.arange(11)
    layer = 4 * h * kernel[:-1] * q + 2 * h**2 * q**2 + h**2 * c_2**2 * spread / ratio
    assert theory.mean.ravel() == pytest.approx(kernel, rel=1e-10)
    assert theory.covariance.ravel() == pytest.approx(2 * 1.5**2 + np.concatenate([[0], layer.cumsum()]), rel=1e-9)
    assert theory.covariance_next.ravel() == pytest.approx(
        2 * h**2 * c_2**2 * spread / ratio * np.arange(11), rel=1e-8, abs=1e-10
    )


@pytest.mark.parametrize("normalisation", [None, "rms"])
def test_the_first_layer_bends_the_spread_of_the_inputs(normalisation: str | None) -> None:
    """K1 of one layer is half the Hessian of K0 after it, here by differences, times V4 before it."""
    model = network(activation="gelu", normalisation=normalisation, depth=1, epsilon=0.7, hidden_bias_variance=0.2)
    step = 1e-3
    unit = step * np.eye(3)

    def end(change: np.ndarray) -> np.ndarray:
        kernel = TWO.array + np.array([[change[0], change[1]], [change[1], change[2]]])
        theory = eft.predict(model, eft.InputKernel.explicit(kernel.tolist()), "mean", depths=[1])
        return theory.mean[0][np.triu_indices(2)]

    def second(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (end(x + y) - end(x - y) - end(y - x) + end(-x - y)) / (4 * step**2)

    hessian = np.array([[second(x, y) for y in unit] for x in unit])
    theory = eft.predict(model, TWO, "exact", depths=[0, 1])
    assert theory.covariance is not None
    assert theory.correction is not None
    expected = np.einsum("qrp,qr->p", hessian, theory.covariance[0]) / 2
    assert theory.correction[1][np.triu_indices(2)] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert abs(expected[1]) > 1e-3


def mean_after_a_layer(model: eft.ResNet, n: int) -> np.ndarray:
    """(3,) E[G] after one layer of width n, by quadrature over the Wishart law of the kernel before it.

    With L L^T = K^0, n G = L A A^T L^T and A of Bartlett's decomposition; layer normalisation sees n - 1 directions.
    """
    seen = n - 1 if model.normalisation == "layer" else n
    z, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    root = np.linalg.cholesky(TWO.array)
    total = np.zeros((2, 2))
    laws = [stats.chi2(seen - j) for j in (0, 1)]
    first, second = (np.sqrt(np.where(z < 0, x.ppf(stats.norm.cdf(z)), x.isf(stats.norm.sf(z)))) for x in laws)
    grid = np.stack(np.meshgrid(first, second, z, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.einsum("i,j,k->ijk", weight, weight, weight).ravel()
    a = np.zeros((len(grid), 2, 2))
    a[:, 0, 0], a[:, 1, 1], a[:, 1, 0] = grid.T
    factors = root @ a
    kernels = factors @ factors.swapaxes(1, 2) / seen
    series = MehlerExpectations(get_activation(model.activation), 4, 128)
    for kernel, w in zip(np.array_split(kernels, 64), np.array_split(weights, 64), strict=True):
        moments = BranchExpectations(model, series, series).moments(kernel).value
        total += to_matrix(np.einsum("r,rp->p", w, moments))
    after = TWO.array + model.epsilon**2 * (model.bias_variance + model.weight_variance * total)
    return after[np.triu_indices(2)]


@pytest.mark.parametrize("normalisation", [None, "rms", "layer"])
def test_the_mean_after_a_layer_is_known_at_every_width(normalisation: str | None) -> None:
    """K1 and K2 of two inputs, from the means at several widths."""
    model = network(activation="gelu", normalisation=normalisation, depth=1, epsilon=0.7, hidden_bias_variance=0.2)
    theory = eft.predict(model, TWO, "exact", next_order=True, depths=[1])
    pairs = np.triu_indices(2)
    k0, k1, k2 = (part[0][pairs] for part in (theory.mean, theory.correction, theory.correction_next))
    widths = np.array([40.0, 60.0, 90.0, 135.0])
    rest = np.array([n * (mean_after_a_layer(model, int(n)) - k0) for n in widths])
    # polynomials in 1 / n through n (E[G] - K0) = K1 + K2 / n + ...
    fitted = np.linalg.solve(widths[:, None] ** -np.arange(4.0), rest)
    assert fitted[0] == pytest.approx(k1, rel=1e-4, abs=1e-5)
    assert fitted[1] == pytest.approx(k2, rel=2e-2, abs=2e-4)
    assert np.abs(k2).max() > 0.01


def test_layer_normalisation_is_rms_normalisation_of_one_direction_less() -> None:
    """K2 of eq. 11.11: n - 1 directions and m hidden neurons, so that 1 / r is (n - 1) / m; K1 is linear in 1 / r."""
    fields = {"activation": "gelu", "epsilon": 0.5, "depth": 5}
    found = {
        (normalisation, ratio): eft.predict(
            network(**fields, normalisation=normalisation, hidden_ratio=ratio),
            TWO,
            "exact",
            next_order=True,
            depths=[5],
        )
        for normalisation, ratio in (("layer", 1.0), ("rms", 1.0), ("rms", 2.0))
    }
    layer, rms, wider = found.values()
    slope = (rms.correction - wider.correction) / (1.0 - 0.5)
    assert layer.correction == pytest.approx(rms.correction, abs=1e-12)
    assert layer.correction_next == pytest.approx(rms.correction_next + rms.correction - slope, abs=1e-9)
    assert np.abs(slope).max() > 1e-4


@pytest.mark.parametrize("normalisation", [None, "layer"])
def test_thin_layers_reach_the_continuous_limit(normalisation: str | None) -> None:
    model = network(activation="tanh", normalisation=normalisation, epsilon=0.1, depth=50)
    limit = eft.predict(model, TWO, "exact", next_order=True, continuous=True, depths=[50])

    def of_layers(layers: int) -> np.ndarray:
        thin = model.model_copy(update={"epsilon": (0.5 / layers) ** 0.5, "depth": layers})
        return _numbers(eft.predict(thin, TWO, "exact", next_order=True, depths=[layers]))

    one, two, four = (of_layers(layers) for layers in (50, 100, 200))
    extrapolated = (8 * four - 6 * two + one) / 3
    scale = np.abs(extrapolated).max()
    assert np.abs(extrapolated - _numbers(limit)).max() < 1e-5 * scale
    assert np.abs(four - _numbers(limit)).max() > 1e-4 * scale


@pytest.mark.parametrize("normalisation", [None, "rms", "layer"])
def test_an_input_does_not_know_of_the_other(normalisation: str | None) -> None:
    model = network(activation="gelu", normalisation=normalisation, epsilon=0.3, depth=6, hidden_bias_variance=0.1)
    pair = eft.predict(model, TWO, "exact", next_order=True, depths=[6])
    own = eft.predict(model, eft.InputKernel.explicit([[2.0]]), "exact", next_order=True, depths=[6])
    assert pair.covariance_next[0, 2, 2] == pytest.approx(own.covariance_next.item(), rel=1e-9, abs=1e-9)
    assert pair.correction_next[0, 1, 1] == pytest.approx(own.correction_next.item(), rel=1e-9, abs=1e-9)
    assert pair.third_cumulant[0, 2, 2, 2] == pytest.approx(own.third_cumulant.item(), rel=1e-9)


def test_equal_inputs_have_equal_entries_and_three_inputs_are_solved_by_pairs() -> None:
    model = network(activation="tanh", normalisation="rms", epsilon=0.3, depth=6)
    kernel = eft.InputKernel.explicit([[1.0, 0.3, 1.0], [0.3, 2.0, 0.3], [1.0, 0.3, 1.0]])
    theory = eft.predict(model, kernel, "exact", next_order=True, depths=[6])
    pair = eft.predict(model, TWO, "exact", next_order=True, depths=[6])
    copies = [0, 1, 0, 2, 1, 0]
    expected = pair.covariance_next[0][np.ix_(copies, copies)]
    assert theory.covariance_next[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    three = eft.InputKernel.explicit([[1.0, 0.3, 0.5], [0.3, 2.0, 0.1], [0.5, 0.1, 1.5]])
    found = eft.predict(model, three, "exact", next_order=True, depths=[6]).covariance_next[0]
    # 00 01 02 11 12 22: the entry of 02 with 11 belongs to three inputs
    assert np.isnan(found[2, 3])
    assert np.isnan(found[0, 4])
    assert np.isfinite(found[0, 3])


@pytest.mark.filterwarnings("ignore::eftcore.errors.NumericsWarning")
@pytest.mark.parametrize("second", [4.0, 4.0004])
def test_nearly_proportional_inputs_of_a_kink_are_left_out(second: float) -> None:
    """Derivatives of E2 grow without bound there; each of the inputs alone is known."""
    model = network(activation="relu", depth=10)
    kernel = eft.InputKernel.explicit([[1.0, 2.0], [2.0, second]])
    with pytest.warns(eft.TruncationWarning, match="D and K2 of some inputs"):
        theory = eft.predict(model, kernel, "exact", next_order=True, depths=[10])
    one = eft.predict(model, ONE, "exact", next_order=True, depths=[10])
    assert theory.covariance_next[0, 0, 0] == pytest.approx(one.covariance_next.item(), rel=1e-9)
    assert np.isnan(theory.covariance_next[0, 0, 1])


def test_the_law_of_the_kernel_follows() -> None:
    model = network(activation="relu", depth=50)
    theory = eft.predict(model, ONE, "exact", next_order=True, depths=[50])
    law = eft.kernel_law(theory, 64)
    sample = eft.simulate(model, ONE, width=64, samples=20_000, depths=[50])
    found = sample.quantiles([0.025, 0.5, 0.975])
    low, high = law.entry(0).interval(0.95)
    assert found.low.ravel()[0] < low < found.high.ravel()[0]
    assert found.low.ravel()[2] < high < found.high.ravel()[2]


def _numbers(theory: Any) -> np.ndarray:
    parts = (theory.covariance_next, theory.correction_next, theory.third_cumulant, theory.covariance)
    return np.concatenate([part[-1].ravel() for part in parts])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block": "one_matrix", "hidden_ratio": 4.0}, "hidden_ratio = 4.0: belongs to block"),
        ({"block": "three_matrix"}, "block = 'three_matrix'"),
        ({"normalisation": "batch"}, "normalisation = 'batch'"),
        ({"hidden_ratio": 0.0}, "hidden_ratio = 0.0"),
        ({"hidden_weight_variance": -1.0}, "hidden_weight_variance = -1.0"),
        ({"residual_scale": "1/sqrt(L)"}, "residual_scale = '1/sqrt(L)': does not go with epsilon"),
    ],
)
def test_wrong_networks_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        network(activation="tanh", **fields)
    assert words in str(refused.value)


def test_wrong_rules_of_the_residual_scale_are_refused() -> None:
    for rule in ("1/L^2", "-1/L", "0/L", "x/L", "sqrt(L)"):
        with pytest.raises(InputError, match="residual_scale"):
            eft.ResNet(activation="tanh", weight_variance=1.0, depth=10, residual_scale=rule)
    assert eft.ResNet(activation="tanh", weight_variance=1.0, depth=16, residual_scale="2 / sqrt(L)").epsilon == 0.5


def test_other_closures_and_ensembles_that_cannot_be_are_refused() -> None:
    model = network(activation="tanh")
    for closure in ("sigma", "wick", "particle"):
        with pytest.raises(InputError, match="G-only hierarchy is exact"):
            eft.predict(model, ONE, closure)
    with pytest.raises(InputError, match="no whole number of hidden neurons"):
        eft.simulate(network(activation="tanh", hidden_ratio=0.3), ONE, width=64, samples=16)
    with pytest.raises(InputError, match="no twin"):
        eft.simulate(model, ONE, width=4, samples=16, sampler="weights")
    for check in (eft.check_theorems, eft.stochastic_recursion, eft.ghost_free):
        with pytest.raises(InputError, match="is about the block of the paper"):
            check(model, ONE)
    with pytest.raises(InputError, match="is about the block of the paper"):
        eft.equation_residual(eft.predict(model, ONE))
    assert eft.block_law(model, ONE, samples=400).passed
    assert eft.marginal_consistency(model, TWO, "exact").passed
    normed = network(activation="tanh", normalisation="layer")
    with pytest.raises(InputError, match="cannot be normalised"):
        eft.predict(normed, eft.InputKernel.explicit([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(InputError, match="two neurons"):
        eft.simulate(normed, ONE, width=1, samples=16)


def test_old_networks_keep_their_digest() -> None:
    spec = eft.PredictionSpec(
        model=eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10), kernel=ONE, closure="g_only"
    )
    assert set(spec.identity()["model"]) == {"activation", "weight_variance", "bias_variance", "epsilon", "depth"}
    other = spec.model_copy(update={"model": network(activation="tanh", depth=10)})
    assert set(other.identity()["model"]) > {"block", "normalisation", "hidden_ratio"}
