"""The activations of both compiled engines, with the number that stands for each in their code.

The engine for processors has others besides, see eftcore.ensemble.cpu.sigma.
"""

from __future__ import annotations

from eftcore.activations import get_activation

KINDS = ("linear", "tanh", "erf", "leaky_relu", "gelu", "silu", "softplus")
"""The number of an activation is its index in this tuple. The parameter is the scale of erf, the slope of leaky_relu or
the beta of softplus."""

_ALIASES = {"relu": "leaky_relu", "swish": "silu"}


def activation_kind(name: str) -> tuple[int, float] | None:
    """(number, parameter) of an activation, the parameter 0 where it has none; None if it is none of them.

    >>> activation_kind("relu"), activation_kind("erf(scale=0.7)"), activation_kind("sin")
    ((3, 0.0), (2, 0.7), None)
    """
    activation = get_activation(name)
    family = _ALIASES.get(activation.family, activation.family)
    if not activation.builtin or family not in KINDS:
        return None
    return KINDS.index(family), next(iter(activation.parameters.values()), 0.0)
