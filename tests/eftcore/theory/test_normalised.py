"""One matrix behind a normalisation: theory against exact statements and itself derived twice; its refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.errors import InputError
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.pairs import to_pairs
from eftcore.theory.mean_field import mean_field
from eftcore.theory.next_order import expansion
from eftcore.theory.next_order.curvature import SHIFTS
from eftcore.theory.next_order.wick_powers import WickPowers

ONE = eft.InputKernel.explicit([[1.0]])
TWO = eft.InputKernel.explicit([[1.0, 0.4], [0.4, 2.0]])
NORMALISATIONS = ("rms", "layer")


def network(**fields: Any) -> eft.ResNet:
    usual = {"normalisation": "rms", "weight_variance": 2.0, "bias_variance": 0.1, "epsilon": 0.3, "depth": 6}
    return eft.ResNet(**usual | fields)


def mean_square(activation: str, normalisation: str, n: int) -> float:
    """E[sigma^2] of one of n independent Gaussian neurons after normalisation.

    They are uniform on the sphere of radius sqrt(n) in n dimensions, or in the n - 1 that layer normalisation leaves,
    of which a neuron's axis has the part (1 - 1/n).
    """
    dimensions, radius = (n, np.sqrt(n)) if normalisation == "rms" else (n - 1, np.sqrt(n - 1))
    constant = np.exp(gammaln(dimensions / 2) - gammaln((dimensions - 1) / 2)) / np.sqrt(np.pi)
    sigma = get_activation(activation).function

    def integrand(w: float) -> float:
        weight = constant * (1 - w * w) ** ((dimensions - 3) / 2)
        return float(weight * sigma(np.array(radius * w)) ** 2)

    reach = min(1.0, 12 / radius)
    halves = ((-reach, 0.0), (0.0, reach))
    return sum(float(quad(integrand, *half, epsabs=1e-13, limit=200)[0]) for half in halves)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_what_gaussian_neurons_have_is_known_at_every_width(activation: str, normalisation: str) -> None:
    """n (E[S] - E2) at layer 0 has U1 as its limit, extrapolated here from two widths."""
    theory = eft.predict(network(activation=activation, normalisation=normalisation), ONE, "exact", depths=[0])
    second = (theory.source.item(), [n * mean_square(activation, normalisation, n) for n in (2000, 4000)])
    limit = quad(
        lambda z: get_activation(activation).function(np.array(z)) ** 2 * np.exp(-z * z / 2), -12, 12, points=[0]
    )
    expected = limit[0] / np.sqrt(2 * np.pi)
    near, far = (value - n * expected for value, n in zip(second[1], (2000, 4000), strict=True))
    # of ReLU, whose square scales with that of its argument, E[S] is E2 at every width
    assert abs(far) < 1e-6 if activation == "relu" else abs(far) > 1e-3
    assert second[0] == pytest.approx(2 * far - near, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("activation", "highest", "rel"), [("gelu", 12, 2e-3), ("relu", 12, 1e-2)])
def test_the_leading_order_follows_from_the_expansion_in_the_width(
    activation: str, highest: int, rel: float, normalisation: str
) -> None:
    """V4 and K1 from the moments of all Wick powers, where S is a polynomial in them, and from the Wick hierarchy."""
    model = network(activation=activation, normalisation=normalisation)
    path = mean_field(model, TWO).kernel
    engine = MehlerExpectations(get_activation(activation), 4, 64, highest + SHIFTS)
    basis = WickPowers(engine, model, highest, np.diag(path[-1]))
    at = basis.at(path[0])
    moments = expansion.initial(basis, at)
    for kernel in path[1:]:
        before, at = at, basis.at(kernel)
        moments = expansion.advance(basis, before, at, model.epsilon**2, moments)
    exact = eft.predict(model, TWO, "exact", truncation=1e-4, depths=[6])
    assert basis.kernel @ moments.C @ basis.kernel.T == pytest.approx(exact.covariance[0], rel=3e-4)
    assert basis.kernel @ moments.a == pytest.approx(to_pairs(exact.correction[0]), rel=rel, abs=rel * 0.1)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_one_linear_input_sums_independent_layers(normalisation: str) -> None:
    """S = 1 whatever the neurons are: G is a sum of independent steps, and at order 1/n^2 V4 has nothing more.

    With layer normalisation too: S is the mean of squares about the mean, over itself.
    """
    model = network(activation="linear", normalisation=normalisation)
    theory = eft.predict(model, ONE, "exact", next_order=True, depths=range(7))
    q, h = 2.1, 0.09
    kernel = 1 + h * q * np.arange(7)
    layers = 4 * h * q * kernel[:-1] + 2 * h**2 * q**2
    assert theory.mean.ravel() == pytest.approx(kernel, rel=1e-12)
    assert theory.covariance.ravel() == pytest.approx(2 + np.concatenate([[0], layers.cumsum()]), rel=1e-10)
    assert theory.correction.ravel() == pytest.approx(0, abs=1e-10)
    assert theory.covariance_next.ravel() == pytest.approx(0, abs=1e-8)
    assert theory.correction_next.ravel() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_scaled_inputs_are_the_same_input(normalisation: str) -> None:
    """norm forgets the length: of proportional inputs without biases the increments are equal."""
    model = network(activation="relu", normalisation=normalisation, bias_variance=0.0, depth=1)
    kernel = eft.InputKernel.explicit([[1.0, 2.0], [2.0, 4.0]])
    theory = eft.predict(model, kernel, "exact", depths=[0, 1])
    assert theory.mean[1] - theory.mean[0] == pytest.approx(0.09 * np.ones((2, 2)), rel=1e-9)
    assert theory.source[0] == pytest.approx(np.full((2, 2), theory.source[0, 0, 0]), rel=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_network_without_residual_connection_is_a_limit(layers: int) -> None:
    """Where the branch is far larger than the stream, relative fluctuations are those of x' = W sigma(x).

    For ReLU with C_W = 2 the kernel is then a product of independent factors, with (1 + 2/n) (1 + 5/n)^L for its mean
    square: n Var is 2 + 5 L at leading order (Hanin and Nica 2018; Roberts, Yaida and Hanin 2022, chapter 5).
    """
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=1e6, depth=layers)
    theory = eft.predict(model, ONE, "exact", truncation=1e-5, depths=[layers])
    assert theory.covariance.item() / theory.mean.item() ** 2 == pytest.approx(2 + 5 * layers, rel=2e-5)


def test_the_next_order_without_residual_connection() -> None:
    """(1 + 2/n) (1 + 5/n) has 10 / n^2."""
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=100.0, depth=1)
    theory = eft.predict(model, ONE, "exact", next_order=True, depths=[1])
    assert theory.covariance_next.item() / theory.mean.item() ** 2 == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize("closure", ["sigma", "particle"])
def test_closures_of_the_papers_block_alone_are_refused(closure: str) -> None:
    with pytest.raises(InputError, match="is there without normalisation only; take one of mean, source_only"):
        eft.predict(network(activation="tanh"), ONE, closure)  # type: ignore[arg-type]


def test_statements_about_the_papers_block_are_refused() -> None:
    model = network(activation="tanh")
    for check in (eft.check_theorems, eft.stochastic_recursion, eft.ghost_free):
        with pytest.raises(InputError, match="is about the block of the paper"):
            check(model, ONE)


def test_old_digests_stay_and_new_ones_differ() -> None:
    plain = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=3)
    assert "normalisation" not in plain.identity()
    specs = [
        eft.PredictionSpec(model=plain.model_copy(update={"normalisation": name}), kernel=ONE)
        for name in NORMALISATIONS
    ]
    digests = {eft.PredictionSpec(model=plain, kernel=ONE).digest, *(spec.digest for spec in specs)}
    assert len(digests) == 3


def test_an_input_of_zero_cannot_be_normalised() -> None:
    with pytest.raises(InputError, match="an input that is 0 cannot be normalised"):
        eft.predict(network(activation="tanh"), eft.InputKernel.explicit([[0.0]]))
