"""The numbers that Kawase & Ota (arXiv:2604.15742) published, as data, each with its place and source.

The numbers are in published.toml and nowhere else.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from eftcore.identity import Spec
from eftcore.inputs.kernel import InputKernel
from eftcore.specs import Numerics, ResNet


class PublishedValue(Spec):
    """One printed number.

    ``value`` and ``standard_error`` keep the digits as printed; ``time`` is t = epsilon^2 * layer; ``by`` says whether
    the number is from the paper's theory ("g_only", 32-node Gauss-Hermite) or from its simulation.
    """

    quantity: Literal["K0", "V4", "K1", "K1 from U1", "U1", "Sigma"]
    component: str
    by: Literal["g_only", "simulation"]
    time: float = Field(ge=0)
    value: str
    standard_error: str | None = None
    width: int | None = None
    samples: int | None = None
    where: str
    note: str = ""

    @property
    def decimals(self) -> int:
        """Number of printed digits after the decimal point."""
        return max(0, -int(Decimal(self.value).as_tuple().exponent))

    def printed(self, number: float) -> str:
        """Another number as text, with as many digits as the published one."""
        return f"{number:.{self.decimals}f}"


class Published(Spec):
    """The setting that all values share, the values, and descriptions of their sources."""

    setting: dict[str, Any]
    sources: dict[str, str]
    value: tuple[PublishedValue, ...]

    @property
    def model(self) -> ResNet:
        """The network of the setting."""
        names = ("activation", "weight_variance", "bias_variance", "epsilon", "depth")
        return ResNet(**{name: self.setting[name] for name in names})

    @property
    def kernel(self) -> InputKernel:
        """Its input kernel K^0."""
        names = ("n_inputs", "variance", "correlation")
        return InputKernel.equicorrelated(**{name: self.setting[name] for name in names})

    @property
    def numerics(self) -> Numerics:
        """The published quadrature."""
        return Numerics(quadrature="gauss_hermite", nodes=self.setting["nodes"])


@lru_cache(maxsize=1)
def published() -> Published:
    """Everything in published.toml.

    >>> published().value[0].value
    '4.37299'
    """
    with (Path(__file__).parent / "published.toml").open("rb") as file:
        return Published(**tomllib.load(file))
