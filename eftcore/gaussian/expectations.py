"""The engine that computes the Gaussian expectations of an activation."""

from __future__ import annotations

from eftcore.activations import Activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_moments import Expectations
from eftcore.gaussian.tensor import TensorGaussHermite
from eftcore.specs import Numerics


def expectations(activation: Activation, numerics: Numerics, *, series: bool = False) -> Expectations:
    """The coarsest engine, to be refined; ``series`` asks for one that has Hermite coefficients.

    Raises InputError where the fixed rule cannot serve the activation.

    >>> import numpy as np
    >>> from eftcore.activations import get_activation
    >>> engine = expectations(get_activation("tanh"), Numerics())
    >>> engine.moments(np.array([[1.0]])).value.round(9)
    array([0.39429449])
    """
    if numerics.quadrature == "gauss_hermite":
        assert numerics.nodes is not None
        return TensorGaussHermite(activation, numerics.nodes)
    form = closed_form(activation)
    if form is not None and not series:
        return ClosedFormExpectations(activation, form, disturbed=True)
    return MehlerExpectations(activation)
