"""E2 layer by layer gives what the moments of a stack of kernels give, and refuses the same integrals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import eftcore as eft
from eftcore.activations import Activation, get_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.second_moments import one_by_one
from eftcore.pairs import to_matrix

X = np.random.default_rng(5).standard_normal((6, 4))
X[1], X[3], X[4] = X[0], -X[2], 0.0
KERNELS = {"general": X @ X.T, "equal variances": 0.7 * np.eye(3) + 0.3, "one input": np.array([[2.0]])}
"""The first with two equal, two opposite and one vanishing input."""


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("activation", ["tanh", "cos", "silu", "relu"])
def test_one_kernel_as_in_a_stack(activation: str, kernel: np.ndarray) -> None:
    engine = MehlerExpectations(get_activation(activation), level=3, terms=48)
    expected = to_matrix(engine.moments(kernel).value)
    found = one_by_one(engine, len(kernel))(kernel)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", [X @ X.T, X[[0, 2, 5]] @ X[[0, 2, 5]].T, 1e-70 * X[[0, 2, 5]] @ X[[0, 2, 5]].T])
@pytest.mark.parametrize("disturbed", [False, True])
@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "sin", "cos", "leaky_relu(slope=-0.3)"])
def test_closed_forms_to_every_digit(activation: str, disturbed: bool, kernel: np.ndarray) -> None:
    found = get_activation(activation)
    form = closed_form(found)
    assert form is not None
    engine = ClosedFormExpectations(found, form, disturbed)
    with np.errstate(all="ignore"):
        one = one_by_one(engine, len(kernel))(kernel)
    np.testing.assert_array_equal(one, to_matrix(engine.moments(kernel).value))


@pytest.mark.parametrize(
    ("function", "said"),
    [(lambda x: np.exp(x * x / 8), "grows so fast"), (lambda x: np.where(x > 3, np.nan, x), "not finite")],
)
def test_the_same_integrals_are_refused(function: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    engine = MehlerExpectations(Activation("odd one", "odd one", function=function), level=2)
    for find in (engine.moments, one_by_one(engine, 1)):
        with pytest.raises(eft.InputError, match=said):
            find(np.array([[4.0]]))
