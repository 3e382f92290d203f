"""The activations that the compiled engines know, with the numbers by which both engines call them."""

from __future__ import annotations

from eftcore.activations import get_activation

KINDS = ("linear", "tanh", "erf", "leaky_relu", "gelu", "silu", "softplus")
"""An activation's number is its place here. Its parameter is erf's scale, leaky_relu's slope or softplus' beta."""

_ALIASES = {"relu": "leaky_relu", "swish": "silu"}


def activation_kind(name: str) -> tuple[int, float] | None:
    """The number of an activation and its parameter, 0 where it has none; None where no compiled engine knows it.

    >>> activation_kind("relu"), activation_kind("erf(scale=0.7)"), activation_kind("sin")
    ((3, 0.0), (2, 0.7), None)
    """
    activation = get_activation(name)
    family = _ALIASES.get(activation.family, activation.family)
    if not activation.builtin or family not in KINDS:
        return None
    return KINDS.index(family), next(iter(activation.parameters.values()), 0.0)
