"""eft.check on a corpus: correct modules get uniform p-values, planted bugs are found where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import eftcore as eft
from eftcore.errors import InputError
from eftcore.measure.guess import activations_of
from tests.eftcore.measure.corpus import BUGS, CORRECT, DEPTH, FEATURES, Block, Network, spec

INPUTS = np.random.default_rng(1).normal(size=(2, FEATURES))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """The matrices are small: more threads would wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("repeats", "networks"), [(3, 60), pytest.param(17, 200, marks=pytest.mark.campaign)], ids=["some", "many"]
)
def test_correct_modules_have_uniform_p_values(repeats: int, networks: int) -> None:
    """Those of all blocks, and those of whole modules; by Kolmogorov's and Smirnov's test at 1 % each."""
    of_blocks, of_modules = [], []
    for name, case in CORRECT.items():
        for repeat in range(repeats):
            found = eft.check(case.make, INPUTS, case.spec, networks=networks, seed=10_000 * repeat)
            of_blocks += [block.p_value for block in found.blocks]
            of_modules.append(found.p_value)
            assert found.p_value > 1e-5, (name, found.sentence())
    assert stats.kstest(of_blocks, "uniform").pvalue > 0.01
    assert stats.kstest(of_modules, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found_in_the_right_block(name: str) -> None:
    case = BUGS[name]
    found = eft.check(case.make, INPUTS, case.spec, networks=200)
    assert found.p_value < 1e-6
    assert found.first_deviating == case.first
    assert not found.passed
    assert found.blocks[case.first].name in found.sentence()


def test_the_diagnosis_has_the_size_of_the_mistake() -> None:
    found = eft.check(BUGS["one bad block of 24"].make, INPUTS, spec(depth=24), networks=200)
    bad = found.blocks[17].weight_variance
    assert abs(bad.value - 2 * 1.66) < 4 * bad.se < 0.4
    good = [block for index, block in enumerate(found.blocks) if index != 17]
    z = [(block.weight_variance.value - 2.0) / block.weight_variance.se for block in good]
    assert np.abs(z).max() < 4.5
    assert np.std(z) == pytest.approx(1.0, abs=0.45)
    biased = eft.check(BUGS["bias not zero"].make, INPUTS, spec(), networks=200)
    for block in biased.blocks:
        assert block.bias_variance is not None
        assert abs(block.bias_variance.value - 0.5) < 4.5 * block.bias_variance.se
        assert abs(block.weight_variance.value - 2.0) < 4.5 * block.weight_variance.se
    assert "bias variance 0.5" in biased.sentence()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gain forgotten", "the gain of ReLU forgotten"),
        ("m for sqrt(m)", "m for sqrt(m)"),
        ("fan_out for fan_in", "fan_in for fan_out"),
        ("1/L for 1/sqrt(L)", "the factor of depth twice"),
    ],
)
def test_common_mistakes_are_named(name: str, words: str) -> None:
    case = BUGS[name]
    assert words in eft.check(case.make, INPUTS, case.spec, networks=200).sentence()


@pytest.mark.parametrize(
    ("name", "block", "normalisations", "activation"),
    [
        ("pre-norm GELU", "two_matrix", {"rms", "layer"}, "gelu"),
        ("rms, tanh, biases", "two_matrix", {"rms", "layer"}, "tanh"),
        ("no norm, Kaiming", "two_matrix", {None}, "relu"),
        ("one matrix, tanh", "one_matrix", {None}, "tanh"),
        ("one matrix, rms, GELU", "one_matrix", {"rms", "layer"}, "gelu"),
    ],
)
def test_without_a_spec_it_says_what_the_module_is_like(
    name: str, block: str, normalisations: set[str | None], activation: str
) -> None:
    """Streams that are Gaussian have a mean over neurons near 0, so that rms and layer normalisation do the same."""
    found = eft.check(CORRECT[name].make, INPUTS, networks=200)
    assert (found.spec.block, found.spec.activation) == (block, activation)
    assert found.spec.normalisation in normalisations
    assert found.p_value > 1e-4
    meant = CORRECT[name].spec
    if activation == "relu":
        # only the product of the variances of the two matrices shows
        assert found.spec.epsilon**2 * found.spec.weight_variance == pytest.approx(
            meant.epsilon**2 * meant.weight_variance * meant.hidden_weight_variance, rel=0.05
        )
    assert found.guessed[0].misfit < found.guessed[2].misfit / 1.5


class Averaged(nn.Module):
    """Tokens that a network of ``Block`` treats one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network(lambda _: Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def test_tokens_are_averaged_or_told_apart_only_if_asked() -> None:
    tokens = np.random.default_rng(2).normal(size=(2, 2, FEATURES))
    with pytest.raises(InputError, match="positions"):
        eft.check(Averaged, tokens, spec(), networks=100)
    for positions in ("average", "separate"):
        found = eft.check(Averaged, tokens, spec(), networks=200, positions=positions)
        assert found.passed, found.sentence()
        assert found.kernel.shape[-1] == (2 if positions == "average" else 4)


def test_the_stream_is_found_or_named() -> None:
    make = CORRECT["pre-norm GELU"].make
    assert [b.name for b in eft.check(make, INPUTS, spec(), networks=60).blocks] == [
        f"blocks.{i}" for i in range(DEPTH)
    ]
    named = eft.check(make, INPUTS, spec(), networks=60, stream="blocks.*")
    assert [b.name for b in named.blocks] == [f"blocks.{i}" for i in range(DEPTH)]
    assert [b.name for b in eft.check(make, INPUTS, spec(depth=1), networks=60, stream="blocks.2").blocks] == [
        "blocks.2"
    ]
    with pytest.raises(InputError, match="no module that is called has such a name"):
        eft.check(make, INPUTS, spec(), networks=60, stream="layers.*")
    with pytest.raises(InputError, match=f"the module has {DEPTH} blocks"):
        eft.check(make, INPUTS, spec(depth=3), networks=60)


def test_it_says_beforehand_what_it_will_see() -> None:
    plans = []
    eft.check(CORRECT["pre-norm GELU"].make, INPUTS, spec(), networks=60, planned=plans.append)
    assert plans[0].networks == 60
    assert plans[0].needed == 625  # (5 / 0.05)^2 * 2 / 32
    assert 0 < plans[0].seconds < 120


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = eft.check(CORRECT["pre-norm GELU"].make, INPUTS, spec(), networks=60)
    assert torch.equal(torch.rand(1), expected)
    again = eft.check(CORRECT["pre-norm GELU"].make, INPUTS, spec(), networks=60)
    assert one.p_value == again.p_value
    assert one.p_value != eft.check(CORRECT["pre-norm GELU"].make, INPUTS, spec(), networks=60, seed=99).p_value


class Mixing(nn.Module):
    """A block that looks at all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x - x.mean(0))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(32, 32), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.linear(x))


class Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x).log()


def fixed() -> nn.Module:
    torch.manual_seed(0)
    return Network(lambda _: Block())


REFUSED = {
    "the same each time": (fixed, {}, "returns the same weights each time"),
    "inputs of another shape": (lambda: Network(lambda _: Block()), {"inputs": np.ones((2, 3))}, "shape (2, 3)"),
    "no stream": (lambda: nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, 1)), {}, "no residual stream was found"),
    "samples mixed": (lambda: Network(lambda _: Mixing()), {}, "depends on the other samples, in blocks.0"),
    "dropout": (lambda: Network(lambda _: Dropping()), {"train": True}, "dropout is active in blocks.0.dropout"),
    "batch norm": (
        lambda: Network(lambda _: Block(norm=nn.BatchNorm1d(32))),
        {"train": True},
        "batch normalisation in training mode mixes the samples: blocks.0.norm",
    ),
    "not finite": (lambda: Network(lambda _: Exploding()), {}, "not finite after 'blocks.0'"),
    "no module": (lambda: 3, {}, "no torch.nn.Module but int"),
    "too few networks": (lambda: Network(lambda _: Block()), {"networks": 5}, "need at least 30 networks"),
    "inputs not finite": (lambda: Network(lambda _: Block()), {"inputs": np.full((2, FEATURES), np.nan)}, "finite"),
    "fails": (lambda: 1 / 0, {}, "it failed (ZeroDivisionError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_refused_by_name(name: str) -> None:
    make, options, words = REFUSED[name]
    with pytest.raises(InputError) as refused:
        eft.check(make, options.pop("inputs", INPUTS), spec(), **{"networks": 60} | options)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_one_input_is_enough() -> None:
    found = eft.check(CORRECT["pre-norm GELU"].make, INPUTS[:1], spec(), networks=100)
    assert found.passed
    assert found.blocks[0].bias_variance is None
    assert not eft.check(BUGS["gain forgotten"].make, INPUTS[:1], spec(), networks=100).passed


def test_a_block_that_adds_nothing_deviates() -> None:
    silent = lambda: Network(lambda _: Block(outer=0.0))  # noqa: E731
    found = eft.check(silent, INPUTS, spec(), networks=60)
    assert (found.first_deviating, found.p_value) == (0, pytest.approx(0.0, abs=1e-12))
    assert found.blocks[0].weight_variance.value == pytest.approx(0.0)


def test_the_activations_of_a_module_are_its_parts() -> None:
    parts = nn.Sequential(nn.LeakyReLU(0.2), nn.Softplus(beta=2), nn.GELU(), nn.Linear(2, 2), nn.Identity())
    assert activations_of(parts) == ("gelu", "leaky_relu(slope=0.2)", "softplus(beta=2)")
    assert activations_of(nn.Linear(2, 2)) == ("relu", "gelu", "silu", "tanh"), "the usual ones where none is a part"
