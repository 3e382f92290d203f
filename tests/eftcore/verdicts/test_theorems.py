"""The exact statements hold on many configurations; the checks have the law that they state; broken ones are caught.

Seeds are fixed. Over fresh seeds a statistical check fails with probability LEVEL, and by its kurtosis a little more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import eftcore as eft
from eftcore.activations import unregister_activation
from eftcore.ensemble.cpu.moments import Moments
from eftcore.ensemble.reference import Path
from eftcore.ensemble.sums import LANES
from eftcore.verdicts import checks, theorems
from eftcore.verdicts.checks import LEVEL, MeanZero

PAIR = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 2.0]])
SINGLE = eft.InputKernel.explicit([[1.3]])
Check = Callable[..., eft.TheoremCheck]
STATISTICAL: tuple[Check, ...] = (eft.block_law, eft.stochastic_recursion, eft.initialisation)


def network(activation: str = "tanh", **fields: Any) -> eft.ResNet:
    defaults = {"weight_variance": 2.0, "bias_variance": 0.5, "epsilon": 0.3, "depth": 6}
    return eft.ResNet(activation=activation, **{**defaults, **fields})


CONFIGURATIONS = {
    "four inputs": (network(), eft.InputKernel.equicorrelated(n_inputs=4, variance=2.0, correlation=0.3)),
    "large steps": (network("gelu", epsilon=1.0), PAIR),
    "small steps": (network("silu", epsilon=0.01, depth=40), PAIR),
    "kinked, no bias": (network("relu", bias_variance=0.0), PAIR),
    "even": (network("cos"), PAIR),
    "duplicated inputs": (network("erf(scale=2)"), eft.InputKernel.explicit([[1.2, 1.2], [1.2, 1.2]])),
    "opposite inputs": (network("softplus", bias_variance=0.0), eft.InputKernel.explicit([[1.0, -2.0], [-2.0, 4.0]])),
    "a zero input": (network("tanh", bias_variance=0.0), eft.InputKernel.explicit([[1.0, 0.0], [0.0, 0.0]])),
    "many inputs, low rank": (network("sin"), eft.InputKernel.from_data(np.arange(20.0).reshape(10, 2) % 7 - 3)),
    "one layer": (network("leaky_relu", depth=1), SINGLE),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_all_five_hold(name: str) -> None:
    model, kernel = CONFIGURATIONS[name]
    found = eft.check_theorems(model, kernel, width=7, samples=2000)
    table = eft.theorem_table(found)
    assert table["name"].tolist() == [
        "block law",
        "stochastic recursion",
        "ghost-free",
        "initialisation",
        "marginal consistency",
    ]
    assert table["passed"].all(), table.to_string()
    assert table["p_value"].isna().tolist() == table["bound"].notna().tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("width", [1, 40])
def test_they_hold_at_any_width(width: int) -> None:
    for check in STATISTICAL:
        found = check(network("gelu"), SINGLE, width=width, samples=3000)
        assert found.passed, found


@pytest.mark.parametrize("seeds", [150, pytest.param(400, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("check", STATISTICAL[1:], ids=lambda check: check.__name__)
def test_p_values_are_calibrated(check: Check, seeds: int) -> None:
    """Networks of 4 neurons. Each of the two assertions has a false-alarm rate of 1e-3."""
    model = network("gelu", epsilon=0.5, depth=3)
    p = np.array([check(model, SINGLE, width=4, samples=1000, seed=seed).p_value for seed in range(seeds)])
    # two scores and more, Bonferroni: at most the nominal rate, up to the rest that Hall's transformation leaves
    for rate in (0.01, 0.05):
        assert (p < rate).sum() <= stats.binom.isf(5e-4, p.size, 1.3 * rate)
    # and not idle either
    assert (p < 0.2).sum() >= stats.binom.ppf(1e-3, p.size, 0.1)


@pytest.mark.parametrize("seeds", [80, pytest.param(200, marks=pytest.mark.campaign)])
def test_the_block_laws_p_values_are_calibrated(seeds: int) -> None:
    """Each of the two assertions has a false-alarm rate of 1e-3."""
    model = network("relu", depth=2)
    p = np.array([eft.block_law(model, SINGLE, width=4, samples=500, seed=seed).p_value for seed in range(seeds)])
    assert (p < 0.05).sum() <= stats.binom.isf(1e-3, p.size, 0.05)
    assert (p < 0.5).sum() >= stats.binom.ppf(1e-3, p.size, 0.15)


def test_scores_of_skewed_numbers_are_normal_after_halls_transformation() -> None:
    """Squares of normals, 200 at a time: Kolmogorov-Smirnov at 1e-3. Student's t itself fails by far."""
    values = np.random.default_rng(1).standard_normal((200, 20_000)) ** 2 - 1
    found = MeanZero()
    for part in np.split(values, 5):
        found.add(part)
    assert stats.kstest(found.scores(), "norm").pvalue > 1e-3
    student = values.mean(0) / values.std(0, ddof=1) * 200**0.5
    assert stats.kstest(student, "norm").pvalue < 1e-9


# Negative controls: the statement, or the network that it speaks of, is made wrong; the check must see it.


def dropped(product: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *kernels: 0.0 * product(*kernels)


def common_noise(increment: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Increments that neurons share in part, with the right variance."""

    def correlated(model: eft.ResNet, phi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        own = increment(model, phi, rng)
        return 0.95 * own + (1 - 0.95**2) ** 0.5 * own[:, :1]

    return correlated


def late_drift(increment_covariance: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda model, phi: 1.1 * increment_covariance(model, phi)


BROKEN_RECURSION = {
    "no epsilon^4 term": ("wishart", dropped),
    "no epsilon^2 term": ("noise_source", dropped),
    "half of Sigma": ("noise_source", lambda f: lambda g, q: 0.5 * f(g, q)),
    "correlated neurons": ("_increment", common_noise),
    "10 % more drift": ("_increment_covariance", late_drift),
    "no bias": ("_increment_covariance", lambda f: lambda m, phi: f(m, phi) - m.bias_variance),
}


@pytest.mark.parametrize("name", BROKEN_RECURSION)
def test_a_broken_recursion_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, wrong = BROKEN_RECURSION[name]
    model = network(epsilon=0.7)
    assert eft.stochastic_recursion(model, PAIR, width=8, samples=20_000).passed
    monkeypatch.setattr(theorems, attribute, wrong(getattr(theorems, attribute)))
    found = eft.stochastic_recursion(model, PAIR, width=8, samples=20_000)
    assert not found.passed
    assert found.p_value is not None
    assert found.p_value < 1e-6


def uniform_start(networks: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """phi^0 with the right covariance, but not Gaussian."""

    def wrong(*arguments: Any) -> Iterator[Any]:
        for phi, rng in networks(*arguments):
            yield rng.uniform(-(3**0.5), 3**0.5, phi.shape) * 1.3**0.5, rng

    return wrong


def shared_start(networks: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """phi^0 correlated over neurons."""

    def wrong(*arguments: Any) -> Iterator[Any]:
        for phi, rng in networks(*arguments):
            yield 0.95 * phi + (1 - 0.95**2) ** 0.5 * phi[:, :1], rng

    return wrong


BROKEN_START = {
    "V4 off by 10 %": ("wishart", lambda f: lambda k: 1.1 * f(k)),
    "not Gaussian": ("_networks", uniform_start),
    "correlated neurons": ("_networks", shared_start),
    "another sigma in E2": ("mean_field", lambda f: lambda m, k: f(network("erf", depth=1), k)),
}


@pytest.mark.parametrize("name", BROKEN_START)
def test_a_broken_initialisation_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, wrong = BROKEN_START[name]
    assert eft.initialisation(network(), SINGLE, width=8, samples=20_000).passed
    monkeypatch.setattr(theorems, attribute, wrong(getattr(theorems, attribute)))
    found = eft.initialisation(network(), SINGLE, width=8, samples=20_000)
    assert found.p_value is not None
    assert found.p_value < 1e-6


def hand_made(model: eft.ResNet, kernel: eft.InputKernel, seed: int, shared: float, width: int = 8) -> eft.Sample:
    """A sample by the block law with numpy, its increments' normals sharing a part over neurons."""
    depths = (1, model.depth)
    spec = eft.EnsembleSpec(model=model, kernel=kernel, width=width, depths=depths, estimator="plain", seed=seed)
    rng, path = np.random.default_rng(seed), Path(spec)
    phi = rng.standard_normal((512 * LANES, width, kernel.n_inputs)) @ path.start
    recorded = []
    for layer in range(model.depth + 1):
        fired = np.tanh(phi)
        moments = [np.swapaxes(x, 1, 2) @ x / width for x in (phi, fired)]
        if layer in depths:
            row = depths.index(layer)
            upper = np.triu_indices(kernel.n_inputs)
            zero = (path.reference.kernel[row], path.reference.second_moment[row])
            recorded.append([x[:, upper[0], upper[1]] - y for x, y in zip(moments, zero, strict=True)])
        q = model.bias_variance + model.weight_variance * moments[1]
        z = rng.standard_normal(phi.shape)
        z = (1 - shared) ** 0.5 * z + shared**0.5 * rng.standard_normal((len(z), 1, z.shape[2]))
        phi = phi + model.epsilon * z @ np.swapaxes(np.linalg.cholesky(q), 1, 2)
    observed = np.moveaxis(np.array(recorded), 2, 0).reshape(-1, LANES, 2, 2, len(upper[0]))
    total = Moments(spec, path.reference)
    total.add(np.ascontiguousarray(np.moveaxis(observed, 1, -1)))
    return eft.Sample(spec=spec, shards=((0, len(phi)),), reference=path.reference, sums=total.finished(len(phi)))


def test_samples_of_another_law_are_told_apart() -> None:
    large = {"depth": 4, "epsilon": 0.7}
    model = network(**large)
    same, correlated = (hand_made(model, PAIR, 1, shared) for shared in (0.0, 0.5))
    weights = eft.simulate(
        model, PAIR, width=8, samples=8192, estimator="plain", sampler="weights", depths=(1, 4), device="cpu"
    )
    assert eft.same_law(weights, same).passed
    wrong = eft.same_law(weights, correlated)
    assert wrong.p_value is not None
    assert wrong.p_value < 1e-6
    for change in ({"weight_variance": 2.4}, {"bias_variance": 0.6}, {"epsilon": 0.75}):
        other = hand_made(network(**{**large, **change}), PAIR, 2, 0.0)
        assert not eft.same_law(weights, other).passed
    with pytest.raises(eft.InputError, match="different layers"):
        eft.same_law(weights, eft.simulate(model, PAIR, width=8, samples=64, depths=(1, 2)))


def test_where_nothing_fluctuates_any_difference_counts() -> None:
    scores = checks.in_errors(np.array([0.0, 1e-3, 1.0]), np.array([0.0, 0.0, 0.5]))
    assert scores.tolist() == [0.0, np.inf, 2.0]
    found = MeanZero()
    found.add(np.array([[1e-15, 1e-3], [1e-15, 1e-3]]))
    assert (np.abs(found.scores()) > 4).tolist() == [False, True]


def test_noise_that_sigma_sees_in_its_own_layer_has_ghosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluated at the layer's end, as in a Stratonovich rule, sigma makes the determinant differ from 1."""

    def implicit(start: Any, weights: Any, biases: Any, noise: Any, epsilon: float, activation: Any) -> Any:
        phi, found = start, []
        for w, b, h in zip(weights, biases, noise, strict=True):
            phi = phi + epsilon * (w @ activation(phi + h) + b) + h
            found.append(phi)
        return torch.stack(found).reshape(-1)

    assert eft.ghost_free(network(), PAIR, layers=6, width=5).passed
    monkeypatch.setattr(theorems, "forced_path", implicit)
    found = eft.ghost_free(network(), PAIR, layers=6, width=5)
    assert not found.passed
    assert found.statistic > 0.01


def test_ghosts_need_an_activation_that_torch_can_differentiate() -> None:
    eft.register_activation("wobble", lambda x: x + 0.1 * np.sin(3 * x))
    eft.register_activation("cubic", lambda x: x**3, torch_function=lambda x: x**3)
    try:
        with pytest.raises(eft.InputError, match="torch_function"):
            eft.ghost_free(network("wobble"), SINGLE)
        assert eft.ghost_free(network("cubic", epsilon=0.05), SINGLE).passed
    finally:
        unregister_activation("wobble")
        unregister_activation("cubic")


@pytest.mark.parametrize(
    ("closure", "options"), [("mean", {}), ("source_only", {}), ("sigma", {}), ("wick", {"order": 4})]
)
def test_every_closure_is_marginally_consistent(closure: Any, options: dict[str, Any]) -> None:
    kernel = eft.InputKernel.explicit([[1.0, 0.3, 0.1], [0.3, 2.0, -0.2], [0.1, -0.2, 0.7]])
    found = eft.marginal_consistency(network("gelu", depth=3), kernel, closure, inputs=[2, 1], **options)
    assert found.passed, found


def test_inputs_that_leak_into_others_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative error of 1e-7 in any of the three quantities."""

    def leaking(predict: Callable[..., eft.Theory], name: str, *arguments: Any, **options: Any) -> eft.Theory:
        theory = predict(*arguments, **options)
        value = getattr(theory, name)
        value *= 1 + 1e-7 * theory.mean.shape[-1]
        return theory

    for name in ("mean", "covariance", "correction"):
        monkeypatch.setattr(theorems, "predict", partial(leaking, eft.predict, name))
        for kernel in (PAIR, SINGLE):
            assert not eft.marginal_consistency(network(), kernel).passed
        monkeypatch.undo()
    assert eft.marginal_consistency(network(), SINGLE).passed


def test_arguments_that_make_no_sense_are_refused() -> None:
    model = network()
    with pytest.raises(eft.InputError, match="particle"):
        eft.marginal_consistency(model, PAIR, "particle")
    for inputs in ([], [0, 0], [2], [-1]):
        with pytest.raises(eft.InputError, match="different numbers between 0 and 1"):
            eft.marginal_consistency(model, PAIR, inputs=inputs)
    with pytest.raises(eft.InputError, match="samples"):
        eft.initialisation(model, PAIR, samples=1)
    with pytest.raises(eft.InputError, match=r"^layer = "):
        eft.stochastic_recursion(model, PAIR, layer=6)
    with pytest.raises(eft.InputError, match="width"):
        eft.ghost_free(model, PAIR, width=0)
    assert eft.stochastic_recursion(model, PAIR, level=0.5, samples=100).level == 0.5
    assert LEVEL == 1e-3
