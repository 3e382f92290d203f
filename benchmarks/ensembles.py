"""Ensembles whose repetition, seed by seed, measures how often an error or a verdict is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import eftcore as eft
from eftcore.ensemble import Sample


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """A network and its inputs, and how many of its networks an estimate or a verdict rests on."""

    activation: str = "tanh"
    estimator: str = "plain"
    n_inputs: int = 1
    width: int = 16
    networks: int = 512
    weight_variance: float = 2.0
    epsilon: float = 0.1
    depth: int = 100

    def __str__(self) -> str:
        return (
            f"{self.activation}, C_W = {self.weight_variance:g}, n = {self.width},"
            f" T = {self.epsilon**2 * self.depth:g}, N = {self.n_inputs}, {self.estimator}, M = {self.networks}"
        )

    @property
    def model(self) -> eft.ResNet:
        """The network."""
        return eft.ResNet(
            activation=self.activation,
            weight_variance=self.weight_variance,
            epsilon=self.epsilon,
            depth=self.depth,
        )

    @property
    def kernel(self) -> eft.InputKernel:
        """Inputs of variance 1 and correlation 0.3."""
        return eft.InputKernel.equicorrelated(n_inputs=self.n_inputs, variance=1.0, correlation=0.3)

    def sample(self, networks: int, seed: int, depths: Iterable[int] | None = None) -> Sample:
        """So many networks of this seed."""
        options = {"width": self.width, "samples": networks, "seed": seed, "estimator": self.estimator}
        return eft.simulate(self.model, self.kernel, depths=depths, **options)
