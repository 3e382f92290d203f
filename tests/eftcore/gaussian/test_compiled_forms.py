"""The compiled recursion of the mean kernel gives what closed forms give layer by layer, as they are and disturbed."""

from __future__ import annotations

import numpy as np
import pytest

import eftcore as eft
from eftcore.activations import get_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.compiled_forms import FAMILIES, family_of
from eftcore.theory import mean_field

KERNEL = np.array(
    [
        [1.0, 0.3, 1.0, -1.0, 2.0],
        [0.3, 2.0, 0.3, -0.3, 0.6],
        [1.0, 0.3, 1.0, -1.0, 2.0],
        [-1.0, -0.3, -1.0, 1.0, -2.0],
        [2.0, 0.6, 2.0, -2.0, 4.0],
    ]
)
"""An input, another, the first again, its opposite, and twice the first."""


@pytest.mark.parametrize("disturbed", [False, True])
@pytest.mark.parametrize(
    "activation", ["linear", "relu", "leaky_relu(slope=-0.3)", "erf(scale=0.7)", "gelu", "sin", "cos"]
)
@pytest.mark.parametrize("bias_variance", [0.0, 0.4])
def test_both_recursions_agree(
    activation: str, bias_variance: float, disturbed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = get_activation(activation)
    form = closed_form(act)
    assert form is not None
    engine = ClosedFormExpectations(act, form, disturbed)
    depth = 60
    model = eft.ResNet(
        activation=activation, weight_variance=1.5, bias_variance=bias_variance, epsilon=0.2, depth=depth
    )
    plain = mean_field.mean_path(model, KERNEL, engine)
    monkeypatch.setattr(mean_field, "DEEP", depth)
    fast = mean_field.mean_path(model, KERNEL, engine)
    for one, other in ((fast.kernel, plain.kernel), (fast.second_moment, plain.second_moment)):
        assert one == pytest.approx(other, rel=1e-13, abs=1e-13 * float(np.abs(other).max()))
    assert not disturbed or not np.array_equal(
        fast.second_moment, mean_field.mean_path(model, KERNEL, ClosedFormExpectations(act, form)).second_moment
    )


def test_every_closed_form_is_compiled() -> None:
    for name in (*FAMILIES, "relu"):
        assert family_of(get_activation(name)) is not None
        assert closed_form(get_activation(name)) is not None
    for name in ("tanh", "silu", "softplus"):
        assert family_of(get_activation(name)) is None
        assert closed_form(get_activation(name)) is None


def test_a_million_layers_end() -> None:
    """exp(1) for ReLU with C_W = 2, (1 + 1 / L)^L."""
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=1e-3, depth=10**6)
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "mean", depths=[10**6])
    assert theory.mean.item() == pytest.approx((1 + 1e-6) ** 10**6, rel=1e-9)
    assert theory.numerical_error["K0"] < 1e-9
