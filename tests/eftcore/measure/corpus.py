"""Modules as people write them: correct ones with the spec that they follow, and ones with a planted bug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import eftcore as eft

WIDTH, HIDDEN, DEPTH, FEATURES = 32, 64, 6, 10
EPSILON = DEPTH**-0.5


class Block(nn.Module):
    """x + epsilon W_2 sigma(W_1 norm(x) + b_1) + b_2, written plainly."""

    def __init__(
        self,
        *,
        norm: nn.Module | None = None,
        act: nn.Module | None = None,
        inner: float = 1.0,
        outer: float = 2.0,
        bias: float = 0.0,
        inner_bias: float = 0.0,
        epsilon: float = EPSILON,
        initialise: Callable[[Block], None] | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm or nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.act = act or nn.GELU()
        self.epsilon = epsilon
        nn.init.normal_(self.up.weight, std=(inner / WIDTH) ** 0.5)
        nn.init.normal_(self.down.weight, std=(outer / HIDDEN) ** 0.5)
        nn.init.normal_(self.up.bias, std=inner_bias**0.5)
        nn.init.normal_(self.down.bias, std=bias**0.5)
        if initialise is not None:
            initialise(self)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(self.norm(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.epsilon * self.branch(x)


class OneMatrix(nn.Module):
    """The block of the paper, or the same behind a normalisation."""

    def __init__(
        self,
        act: Callable[[torch.Tensor], torch.Tensor],
        variance: float,
        bias: float = 0.0,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.act = act
        nn.init.normal_(self.linear.weight, std=(variance / WIDTH) ** 0.5)
        nn.init.normal_(self.linear.bias, std=bias**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + EPSILON * self.linear(self.act(self.norm(x)))


class Network(nn.Module):
    """An embedding and a row of blocks."""

    def __init__(self, make_block: Callable[[int], nn.Module], depth: int = DEPTH) -> None:
        super().__init__()
        self.embedding = nn.Linear(FEATURES, WIDTH, bias=False)
        nn.init.normal_(self.embedding.weight, std=FEATURES**-0.5)
        self.blocks = nn.ModuleList([make_block(index) for index in range(depth)])
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def spec(**fields: Any) -> eft.ResNet:
    """That of ``Block``."""
    usual = {
        "block": "two_matrix",
        "normalisation": "layer",
        "activation": "gelu",
        "weight_variance": 2.0,
        "hidden_ratio": HIDDEN / WIDTH,
        "residual_scale": "1/sqrt(L)",
        "depth": DEPTH,
    }
    return eft.ResNet(**usual | fields)


def _kaiming(block: Block) -> None:
    nn.init.kaiming_normal_(block.up.weight, nonlinearity="relu")
    nn.init.kaiming_normal_(block.down.weight, nonlinearity="relu")


def _xavier(block: OneMatrix) -> OneMatrix:
    nn.init.xavier_normal_(block.linear.weight, gain=2**0.5)
    return block


@dataclass(frozen=True)
class Case:
    """A module, the spec that its author has in mind, and the first block that is not so."""

    make: Callable[[], nn.Module]
    spec: eft.ResNet = field(default_factory=spec)
    first: int | None = None


CORRECT = {
    "pre-norm GELU": Case(lambda: Network(lambda _: Block())),
    "rms, tanh, biases": Case(
        lambda: Network(lambda _: Block(norm=nn.RMSNorm(WIDTH), act=nn.Tanh(), bias=0.3, inner_bias=0.2, inner=1.5)),
        spec(
            normalisation="rms",
            activation="tanh",
            bias_variance=0.3,
            hidden_bias_variance=0.2,
            hidden_weight_variance=1.5,
        ),
    ),
    "no norm, Kaiming": Case(
        lambda: Network(lambda _: Block(norm=nn.Identity(), act=nn.ReLU(), initialise=_kaiming)),
        spec(normalisation=None, activation="relu", hidden_weight_variance=2.0),
    ),
    "one matrix, tanh": Case(
        lambda: Network(lambda _: OneMatrix(torch.tanh, 1.5, 0.1)),
        eft.ResNet(activation="tanh", weight_variance=1.5, bias_variance=0.1, residual_scale="1/sqrt(L)", depth=DEPTH),
    ),
    "one matrix, rms, GELU": Case(
        lambda: Network(lambda _: OneMatrix(nn.GELU(), 2.0, 0.1, nn.RMSNorm(WIDTH))),
        eft.ResNet(
            normalisation="rms",
            activation="gelu",
            weight_variance=2.0,
            bias_variance=0.1,
            residual_scale="1/sqrt(L)",
            depth=DEPTH,
        ),
    ),
    "one matrix, ReLU, Xavier": Case(
        lambda: Network(lambda _: _xavier(OneMatrix(torch.relu, 2.0))),
        eft.ResNet(activation="relu", weight_variance=2.0, residual_scale="1/sqrt(L)", depth=DEPTH),
    ),
}


def _all(**fields: Any) -> Callable[[], nn.Module]:
    return lambda: Network(lambda _: Block(**fields))


def _after(block: Block) -> nn.Module:
    block.forward = lambda x: block.norm(x + block.epsilon * block.down(block.act(block.up(x))))  # type: ignore[method-assign]
    return block


def _norm_of_the_branch(block: Block) -> nn.Module:
    block.forward = lambda x: x + block.epsilon * block.norm(block.down(block.act(block.up(x))))  # type: ignore[method-assign]
    return block


def _no_skip(block: Block) -> nn.Module:
    block.forward = lambda x: block.epsilon * block.branch(x)  # type: ignore[method-assign]
    return block


def _larger(block: Block) -> nn.Module:
    block.forward = lambda x: 1.05 * x + block.epsilon * block.branch(x)  # type: ignore[method-assign]
    return block


def _shared() -> nn.Module:
    one = Block(inner=3.0)
    return Network(lambda _: one)


def _shared_one_matrix() -> nn.Module:
    one = OneMatrix(torch.relu, 2.0)
    return Network(lambda _: one)


def _default(block: Block) -> None:
    block.up.reset_parameters()
    block.down.reset_parameters()


def _fan_out(block: Block) -> None:
    nn.init.normal_(block.down.weight, std=(2.0 / WIDTH) ** 0.5)


def _one_direction(block: Block) -> None:
    with torch.no_grad():
        block.down.weight[:] = block.down.weight[:1]


BUGS = {
    "fan_out for fan_in": Case(_all(initialise=_fan_out), first=0),
    "gain forgotten": Case(_all(outer=1.0), first=0),
    "m for sqrt(m)": Case(_all(outer=2.0 / HIDDEN), first=0),
    "factor of depth on the inner matrix": Case(_all(inner=EPSILON**2, epsilon=1.0), first=0),
    "factor of depth twice": Case(_all(outer=2.0 / DEPTH), first=0),
    "factor of depth upside down": Case(_all(epsilon=1 / EPSILON), first=0),
    "1/L for 1/sqrt(L)": Case(_all(epsilon=EPSILON**2), first=0),
    "bias not zero": Case(_all(bias=0.5), first=0),
    "hidden bias not zero": Case(_all(inner_bias=1.0), first=0),
    "torch's default initialisation": Case(_all(initialise=_default), first=0),
    "shared weights": Case(
        _shared_one_matrix,
        eft.ResNet(activation="relu", weight_variance=2.0, residual_scale="1/sqrt(L)", depth=DEPTH),
        1,
    ),
    "shared weights, two matrices": Case(_shared, spec(hidden_weight_variance=3.0), first=1),
    "norm after": Case(lambda: Network(lambda _: _after(Block())), first=0),
    "norm of the branch": Case(lambda: Network(lambda _: _norm_of_the_branch(Block())), first=0),
    "norm forgotten": Case(_all(norm=nn.Identity(), inner=3.0), spec(hidden_weight_variance=3.0), first=0),
    "no residual connection": Case(lambda: Network(lambda _: _no_skip(Block())), first=0),
    "epsilon depends on the width": Case(_all(epsilon=EPSILON / WIDTH**0.25), first=0),
    "another activation": Case(_all(act=nn.ReLU()), first=0),
    "one matrix taken for two": Case(
        lambda: Network(lambda _: OneMatrix(torch.tanh, 2.0)),
        spec(normalisation=None, activation="tanh", hidden_ratio=1e3),
        first=0,
    ),
    "norm forgotten before one matrix": Case(
        lambda: Network(lambda _: OneMatrix(nn.GELU(), 2.0)),
        eft.ResNet(
            normalisation="layer", activation="gelu", weight_variance=2.0, residual_scale="1/sqrt(L)", depth=DEPTH
        ),
        first=0,
    ),
    "residual connection of 1.05": Case(lambda: Network(lambda _: _larger(Block())), first=0),
    "all neurons get the same": Case(_all(initialise=_one_direction), first=0),
    "one bad block of 24": Case(
        lambda: Network(lambda index: Block(outer=2.0 * (1.66 if index == 17 else 1.0), epsilon=24**-0.5), depth=24),
        spec(depth=24),
        first=17,
    ),
}
