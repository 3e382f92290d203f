"""predict_many gives what predict_spec gives, spec by spec, whatever else is in the batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest

import eftcore as eft
from eftcore.theory import many
from eftcore.theory.recursion import IngredientsAt, Steps
from eftcore.theory.together import Request, alone, alone_each, together

ROUNDING = 1e-12
"""Largest difference from predict_spec, relative to the largest entry of the same quantity over depth."""


def spec_of(activation: str = "tanh", closure: str = "g_only", depth: int = 12, **more: object) -> eft.PredictionSpec:
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.2, depth=depth)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    return eft.PredictionSpec(model=model, kernel=kernel, closure=closure, **more)


def overflowing() -> eft.PredictionSpec:
    model = eft.ResNet(activation="relu", weight_variance=1e6, epsilon=1.0, depth=100)
    return eft.PredictionSpec(model=model, kernel=eft.InputKernel.explicit([[1.0]]), closure="g_only")


def predicted(specs: Sequence[eft.PredictionSpec]) -> tuple[list[eft.Theory], list[tuple[type[Warning], str]]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = eft.predict_many(specs)
    return found, [(warning.category, str(warning.message)) for warning in caught]


def hold_to_single_predictions(specs: Sequence[eft.PredictionSpec]) -> None:
    found, warned = predicted(specs)
    expected = []
    for i, (spec, theory) in enumerate(zip(specs, found, strict=True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            same_but_for_rounding(theory, eft.predict_spec(spec))
        expected += [(warning.category, f"specs[{i}]: {warning.message}") for warning in caught]
    assert warned == expected


def same_but_for_rounding(theory: eft.Theory, single: eft.Theory) -> None:
    assert theory.spec is single.spec
    assert theory.converged == single.converged
    arrays, expected = theory.arrays(), single.arrays()
    assert arrays.keys() == expected.keys()
    natural = 0.0
    if single.covariance is not None and np.abs(single.mean).max() > 0:
        natural = np.abs(single.covariance).max() / np.abs(single.mean).max()
    for name, values in expected.items():
        scale = np.abs(values).max() if name not in ("correction", "source") else max(np.abs(values).max(), natural)
        np.testing.assert_allclose(arrays[name], values, rtol=0, atol=ROUNDING * scale, err_msg=name)
    assert theory.numerical_error.keys() == single.numerical_error.keys()
    for name, error in single.numerical_error.items():
        # what is left of K1 where its terms cancel has their rounding errors
        cancelled = natural / max(np.abs(single.correction).max(), 1e-300) if name == "K1" else 0.0
        left = 10 * ROUNDING + 1e-14 * cancelled
        assert theory.numerical_error[name] == pytest.approx(error, rel=1e-6, abs=left)
    agree(theory.details, single.details)


def agree(details: object, expected: object) -> None:
    """Whole numbers, such as nodes and orders, and texts are equal; other numbers are up to rounding."""
    if isinstance(expected, dict):
        assert isinstance(details, dict)
        assert details.keys() == expected.keys()
        for name, value in expected.items():
            agree(details[name], value)
    elif isinstance(expected, float):
        assert details == pytest.approx(expected, rel=1e-6, abs=10 * ROUNDING)
    else:
        assert details == expected


def random_kernel(rng: np.random.Generator, n_inputs: int) -> eft.InputKernel:
    variance = float(rng.uniform(0.3, 3.0))
    kind = rng.integers(6) if n_inputs == 2 else 5
    if kind < 3:
        matrices = (
            [[variance, -variance], [-variance, variance]],
            [[variance, 0.0], [0.0, 0.0]],
            [[variance, 2 * variance], [2 * variance, 4 * variance]],
        )
        return eft.InputKernel.explicit(matrices[kind])
    if kind == 3:
        return eft.InputKernel.explicit([[variance, variance], [variance, variance]])
    return eft.InputKernel.from_data(rng.normal(size=(n_inputs, 4)) * np.sqrt(variance))


def random_specs(seed: int, count: int) -> list[eft.PredictionSpec]:
    """Of few activations, inputs, depths and closures, so that many of them are computed together."""
    rng = np.random.default_rng(seed)
    specs = []
    for _ in range(count):
        closure = str(rng.choice(["mean", "source_only", "g_only", "sigma", "exact"]))
        model = eft.ResNet(
            activation=str(rng.choice(["tanh", "relu", "erf"])),
            weight_variance=float(rng.uniform(0.3, 3.0)),
            bias_variance=float(rng.choice([0.0, 0.4])),
            epsilon=float(rng.choice([0.05, 0.2, 0.5])),
            depth=int(rng.choice([2, 45])),
        )
        if closure == "exact" and model.activation == "relu":
            closure = "g_only"
        specs.append(
            eft.PredictionSpec(
                model=model,
                kernel=random_kernel(rng, int(rng.choice([1, 2, 2, 3 if closure != "exact" else 2]))),
                closure=closure,
                step="exact" if rng.random() < 0.3 else None,
                depths=(0, 1, model.depth) if rng.random() < 0.2 else None,
            )
        )
    return specs


def test_a_random_mixture_is_what_single_predictions_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Degenerate kernels among them: equal, opposite and proportional inputs, and an input that is 0."""
    together: dict[str, int] = {}
    for kind in (IngredientsAt, Steps):
        answers = kind.answers

        def counted(requests, answers=answers, name=kind.__name__):  # type: ignore[no-untyped-def]
            together[name] = together.get(name, 0) + len(requests)
            return answers(requests)

        monkeypatch.setattr(kind, "answers", counted)
    hold_to_single_predictions(random_specs(seed=5, count=30))
    assert min(together["IngredientsAt"], together["Steps"]) > 8


def test_what_cannot_be_computed_together_is_computed_alone(registered: None) -> None:
    hold_to_single_predictions(
        [
            spec_of(depth=4, continuous=True),
            spec_of("linear", "exact", depth=3, next_order=True),
            spec_of("hard_tanh", "sigma", depth=4),
            spec_of("tanh", "g_only", depth=4, numerics=eft.Numerics(quadrature="gauss_hermite", nodes=8)),
            spec_of("relu", "wick", depth=5, order=4),
            spec_of("relu", "wick", depth=5, order=6),
            eft.PredictionSpec(
                model=eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.2, depth=3, block="two_matrix"),
                kernel=eft.InputKernel.explicit([[1.0]]),
            ),
        ]
    )


def test_results_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = random_specs(seed=11, count=12)
    whole, warned = predicted(specs)
    monkeypatch.setattr(many, "MOST_BYTES", 1.0)
    parts, also = predicted(specs)
    assert warned == also
    for one, other in zip(whole, parts, strict=True):
        same_but_for_rounding(one, other)


def test_the_first_failure_is_raised_in_its_place() -> None:
    with pytest.raises(eft.InputError) as single:
        eft.predict_spec(overflowing())
    with pytest.raises(eft.InputError) as found:
        eft.predict_many([spec_of(), overflowing(), spec_of("relu"), overflowing()])
    assert found.value.place == ("specs", 1, *single.value.place)
    assert (found.value.reason, found.value.remedy) == (single.value.reason, single.value.remedy)


def test_warnings_name_their_spec_and_come_in_order() -> None:
    coarse = spec_of("relu", "wick", order=2, depth=40)
    with warnings.catch_warnings(record=True) as single:
        warnings.simplefilter("always")
        eft.predict_spec(coarse)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        eft.predict_many([coarse, spec_of(), coarse])
    assert single
    assert [str(w.message) for w in found] == [f"specs[{i}]: {w.message}" for i in (0, 2) for w in single]
    assert {w.category for w in found} == {w.category for w in single}
    assert {w.filename for w in found} == {__file__}


def test_nothing_is_asked() -> None:
    assert eft.predict_many([]) == []


class Root(Request[float]):
    """A square root, which fails together where one of the numbers is negative."""

    kind = "root"

    def __init__(self, number: float) -> None:
        self.number = number

    def answer(self) -> float:
        if self.number < 0:
            raise ValueError(self.number)
        return float(np.sqrt(self.number))

    @classmethod
    def answers(cls, requests: Sequence[Root]) -> list[float]:
        if any(request.number < 0 for request in requests):
            raise ValueError("one of them")
        return [request.answer() + 1e-3 for request in requests]


async def fourth_root(number: float) -> float:
    try:
        return await Root(await Root(number))
    except ValueError as error:
        if error.args == (-1,):
            return 0.0
        raise


def test_a_failed_request_fails_the_computation_that_asked_for_it() -> None:
    found = together([fourth_root(number) for number in (16, -1, -2, 81)])
    assert [outcome.value for outcome in found[:2]] == [pytest.approx(2, abs=0.01), 0.0]
    assert isinstance(found[2].error, ValueError)
    assert found[2].error.args == (-2,)
    assert found[3].found > alone(fourth_root(81)) == 3.0
    with pytest.raises(ValueError, match="-2"):
        found[2].found  # noqa: B018
    with pytest.raises(ValueError, match="-2"):
        alone(fourth_root(-2))


def test_a_computation_of_several_values_is_followed_one_by_one() -> None:
    asked = []

    async def roots():  # type: ignore[no-untyped-def]
        for number in (1.0, 4.0, -1.0):
            asked.append(number)
            yield await Root(number)

    found = alone_each(roots())
    assert next(found) == 1.0
    assert asked == [1.0]
    assert next(found) == 2.0
    with pytest.raises(ValueError, match="-1"):
        next(found)
