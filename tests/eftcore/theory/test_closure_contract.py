"""What every closure must provide: its methods, shapes that agree, and what it says of itself."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import eftcore as eft
from eftcore.errors import InputError
from eftcore.gaussian.branch import BranchExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_moments import Expectations, PairMoments
from eftcore.specs import CLOSURES, PredictionSpec
from eftcore.theory.closures import Closure, builder, closure_class
from eftcore.theory.closures.base import Ingredients, Observed, State
from eftcore.theory.closures.mean import Mean
from eftcore.theory.closures.trigonometric import Trigonometric, Waves
from eftcore.theory.mean_field import mean_path

ONE_MATRIX = [name for name in CLOSURES if name != "particle"]  # that one averages over paths and has no equations
NAMES = [*ONE_MATRIX, "two_matrix"]
"""Closures by name; the last is G-only of a block with two matrices."""

OWN_STEP = {"sigma": {"XS"}, "wick": {"Z"}, "exact": {"Z"}}
"""Variables whose step is not rates plus second_order, because they relax faster than forward Euler can follow."""

MATRIX = np.array([[1.0, 0.4, -0.2], [0.4, 1.5, 0.3], [-0.2, 0.3, 0.7]])


class OnlyMoments(Expectations):
    """Integrals that offer what every kind of them does, and nothing else."""

    def __init__(self, engine: Expectations) -> None:
        self.engine = engine

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        return self.engine.moments(kernel, order)

    def refined(self, *, nodes: bool, terms: bool) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {"rule": "moments alone"}


def spec_of(name: str, matrix: np.ndarray, activation: str = "tanh", epsilon: float = 0.3) -> PredictionSpec:
    """The prediction whose closure has this name."""
    block = {"block": "two_matrix", "normalisation": None, "hidden_ratio": 2.0} if name == "two_matrix" else {}
    return PredictionSpec(
        model=eft.ResNet(activation=activation, weight_variance=1.5, epsilon=epsilon, depth=3, **block),
        kernel=eft.InputKernel.explicit(matrix),
        closure="g_only" if name == "two_matrix" else name,
        order=6 if name == "wick" else None,
    )


class Walk:
    """A closure with its ingredients at the layers of a short network."""

    def __init__(self, name: str, matrix: np.ndarray, activation: str = "tanh", epsilon: float = 0.3) -> None:
        spec = spec_of(name, matrix, activation, epsilon)
        self.model = spec.model
        series = MehlerExpectations(eft.get_activation(activation), level=4, terms=64)
        self.engine: Expectations = series
        if name == "two_matrix":
            self.engine = BranchExpectations(self.model, series, series)
        self.kernel = mean_path(self.model, matrix, self.engine).kernel
        make = builder(spec)
        if name == "exact":
            waves = Waves(eft.get_activation(activation), 2 * np.diag(matrix), modes=8)
            make = partial(Trigonometric, self.model, waves=waves)
        self.closure = make(self.kernel[0], self.kernel[-1])
        self.stack = self.closure.ingredients(self.kernel, self.engine)

    def at(self, layer: int) -> Ingredients:
        return {name: values[layer] for name, values in self.stack.items()}

    def state(self, layer: int = 3) -> State:
        state = self.closure.initial()
        for deeper in range(layer):
            state = self.closure.step(self.at(deeper), state, self.model.epsilon**2, exact=True)
        return state


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in state.items()}


@pytest.mark.parametrize("n_inputs", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_agree(name: str, n_inputs: int) -> None:
    walk = Walk(name, MATRIX[:n_inputs, :n_inputs])
    closure, pairs = walk.closure, n_inputs * (n_inputs + 1) // 2
    initial, at = closure.initial(), walk.at(1)
    state = walk.state()
    assert all(shape[0] == pairs for shape in shapes(initial).values())
    assert shapes(state) == shapes(initial)
    assert shapes(closure.rates(at, state)) == shapes(initial)
    assert shapes(closure.step(at, state, 0.1, exact=False)) == shapes(initial)
    assert shapes(closure.second_order(at, state)).items() <= shapes(initial).items()
    assert closure.powers.keys() == initial.keys()
    assert {len(values) for values in walk.stack.values()} <= {len(walk.kernel)}
    observed = closure.observe(at, state)
    expected = {"covariance": (pairs, pairs), "correction": (pairs,), "source": (pairs,)}
    expected["increment_covariance"] = (pairs, pairs)
    for attribute, shape in expected.items():
        values = getattr(observed, attribute)
        assert values is None or values.shape == shape
    assert (observed.correction is None) == (observed.source is None)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_predicts_is_there_at_the_start_too(name: str) -> None:
    walk = Walk(name, MATRIX)
    start, end = (walk.closure.observe(walk.at(layer), walk.state(layer)) for layer in (0, 3))
    present = {attribute for attribute, values in vars(start).items() if values is not None}
    assert present == {attribute for attribute, values in vars(end).items() if values is not None}
    assert ("covariance" in present) == (name != "mean")
    assert ("correction" in present) == (name not in ("mean", "source_only"))


@pytest.mark.parametrize("name", NAMES)
def test_ingredients_at_one_kernel_do_not_depend_on_the_others(name: str) -> None:
    walk = Walk(name, MATRIX)
    for layer in range(len(walk.kernel)):
        alone = walk.closure.ingredients(walk.kernel[layer : layer + 1], walk.engine)
        assert alone.keys() == walk.stack.keys()
        for ingredient, values in alone.items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(walk.stack[ingredient][layer], values[0], rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_rates_plus_second_order(name: str) -> None:
    walk, h = Walk(name, MATRIX), 0.07
    closure, at, state = walk.closure, walk.at(2), walk.state(2)
    rates, second = closure.rates(at, state), closure.second_order(at, state)
    euler, exact = (closure.step(at, state, h, exact=exact) for exact in (False, True))
    own = OWN_STEP.get(name, set())
    assert own <= state.keys()
    for variable in state.keys() - own:
        first = state[variable] + h * rates[variable]
        np.testing.assert_allclose(euler[variable], first, rtol=1e-13)
        complete = first + h * h * second.get(variable, np.zeros(()))
        np.testing.assert_allclose(exact[variable], complete, rtol=1e-13, atol=1e-15)
    for variable in own:
        assert variable not in second
        np.testing.assert_array_equal(euler[variable], exact[variable])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_agrees_with_the_rates_to_first_order(name: str, exact: bool) -> None:
    """What it differs from h rates by falls as h^2, also of variables that have a step of their own."""
    state = Walk(name, MATRIX).state()
    rest = []
    for epsilon in (0.02, 0.01):
        walk, h = Walk(name, MATRIX, epsilon=epsilon), epsilon**2
        at = walk.at(0)
        after, rates = walk.closure.step(at, state, h, exact=exact), walk.closure.rates(at, state)
        rest.append({v: float(np.linalg.norm(after[v] - state[v] - h * rates[v])) for v in state})
    for variable, coarse in rest[0].items():
        rounding = 1e-14 * float(np.linalg.norm(state[variable]))
        assert rest[1][variable] <= coarse / 14 + rounding


@pytest.mark.parametrize("name", NAMES)
def test_powers_are_those_of_the_unit_of_the_kernel(name: str) -> None:
    """Without biases ReLU's kernels scale, so that every variable scales with its power."""
    small, large = (Walk(name, scale * MATRIX, "relu") for scale in (1.0, 16.0))
    before, after = small.state(), large.state()
    for variable, power in small.closure.powers.items():
        expected = 16.0**power * before[variable]
        np.testing.assert_allclose(after[variable], expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_integrals_are_asked_for_derivatives_up_to_moments_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk(name, MATRIX)
    moments, asked = MehlerExpectations.moments, [0]

    def recording(engine: MehlerExpectations, kernel: np.ndarray, order: int = 0) -> PairMoments:
        asked.append(order)
        return moments(engine, kernel, order)

    monkeypatch.setattr(MehlerExpectations, "moments", recording)
    walk.closure.ingredients(walk.kernel, walk.engine)
    assert max(asked) == walk.closure.moments_order


@pytest.mark.parametrize("name", ONE_MATRIX)
def test_a_closure_that_needs_no_series_takes_any_integrals(name: str) -> None:
    walk = Walk(name, MATRIX)
    if walk.closure.needs_series:
        with pytest.raises(InputError, match="needs 'auto'"):
            walk.closure.ingredients(walk.kernel, OnlyMoments(walk.engine))
    else:
        found = walk.closure.ingredients(walk.kernel, OnlyMoments(walk.engine))
        assert found.keys() == walk.stack.keys()
        for ingredient, values in found.items():
            np.testing.assert_array_equal(values, walk.stack[ingredient])


def test_the_mean_closure_has_no_variables_and_observes_nothing() -> None:
    walk = Walk("mean", MATRIX)
    assert isinstance(walk.closure, Mean)
    assert walk.state() == {}
    assert walk.closure.observe({}, {}) == Observed()


class Decay(Closure):
    """A closure with all that one needs: x' = -x."""

    moments_order = 0
    powers = {"x": 0}  # noqa: RUF012

    def initial(self) -> State:
        return {"x": np.ones(len(self.neighbours))}

    def ingredients(self, kernel: np.ndarray, engine: Expectations) -> Ingredients:
        return {}

    def rates(self, at: Ingredients, state: State) -> State:
        return {"x": -state["x"]}

    def second_order(self, at: Ingredients, state: State) -> State:
        return {}

    def observe(self, at: Ingredients, state: State) -> Observed:
        return Observed(correction=state["x"])


METHODS = ("initial", "ingredients", "rates", "second_order", "observe")


@pytest.mark.parametrize("forgotten", METHODS)
def test_a_forgotten_method_is_refused_at_construction(forgotten: str) -> None:
    model = eft.ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=1)
    assert Decay(model, MATRIX, MATRIX).step({}, {"x": np.ones(6)}, 0.1, exact=True)["x"][0] == 0.9
    methods = {name: getattr(Decay, name) for name in METHODS if name != forgotten}
    incomplete = type("Incomplete", (Closure,), methods)
    with pytest.raises(TypeError, match=f"abstract method '?{forgotten}'?"):
        incomplete(model, MATRIX, MATRIX)


def test_every_closure_has_a_class() -> None:
    assert set(METHODS) == Closure.__abstractmethods__
    classes = [closure_class(spec_of(name, MATRIX)) for name in NAMES]
    assert len(set(classes)) == len(NAMES)
    assert all(issubclass(found, Closure) for found in classes)
