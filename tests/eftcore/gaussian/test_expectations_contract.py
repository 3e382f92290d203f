"""What every way of doing the Gaussian integrals must provide, whichever the caller has been given."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eftcore.activations import get_activation
from eftcore.gaussian.closed_forms import closed_form
from eftcore.gaussian.closed_moments import ClosedFormExpectations
from eftcore.gaussian.mehler import MehlerExpectations
from eftcore.gaussian.pair_moments import Expectations, PairMoments
from eftcore.gaussian.tensor import TensorGaussHermite
from eftcore.pairs import pair_indices

ERF, RELU = get_activation("erf"), get_activation("relu")
FORM = closed_form(ERF)
assert FORM is not None
KINDS: dict[str, Expectations] = {
    "closed form": ClosedFormExpectations(ERF, FORM),
    "closed form, disturbed": ClosedFormExpectations(ERF, FORM, disturbed=True),
    "Mehler": MehlerExpectations(ERF, level=4),
    "Mehler, kinks": MehlerExpectations(RELU, level=4),
    "tensor": TensorGaussHermite(ERF, 24),
}


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Expectations:
    return KINDS[request.param]


def kernels(rows: int, n_inputs: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((rows, n_inputs, n_inputs + 2))
    return x @ np.swapaxes(x, 1, 2) / (n_inputs + 2)


@pytest.mark.parametrize("n_inputs", [1, 3])
@pytest.mark.parametrize("leading", [(), (4,), (2, 2)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_shapes(engine: Expectations, order: int, leading: tuple[int, ...], n_inputs: int) -> None:
    stack = kernels(4, n_inputs)
    kernel = stack.reshape(*leading, n_inputs, n_inputs) if leading else stack[0]
    found = engine.moments(kernel, order)
    shape = (*leading, n_inputs * (n_inputs + 1) // 2)
    assert found.value.shape == shape
    for least, values, more in ((1, found.gradient, (3,)), (2, found.hessian, (3, 3))):
        if order < least:
            assert values is None
        else:
            assert values is not None
            assert values.shape == shape + more
            assert np.isfinite(values).all()


def test_the_value_is_the_same_whatever_else_is_asked_for_and_whatever_lies_beside_it(engine: Expectations) -> None:
    stack = kernels(5, 3)
    whole = engine.moments(stack, 2)
    for order in (0, 1):
        np.testing.assert_allclose(engine.moments(stack, order).value, whole.value, rtol=1e-13)
    for row in range(5):
        alone = engine.moments(stack[row], 2)
        for one, other in (
            (alone.value, whole.value),
            (alone.gradient, whole.gradient),
            (alone.hessian, whole.hessian),
        ):
            assert one is not None
            assert other is not None
            np.testing.assert_allclose(one, other[row], rtol=1e-10, atol=1e-12)


def test_diagonal_pairs_use_the_first_column_alone(engine: Expectations) -> None:
    found = engine.moments(kernels(4, 3), 2)
    first, second = pair_indices(3)
    own = first == second
    assert found.gradient is not None
    assert found.hessian is not None
    assert (found.gradient[:, own, 1:] == 0).all()
    assert (found.hessian[:, own].reshape(4, 3, 9)[..., 1:] == 0).all()


@pytest.mark.parametrize(("nodes", "terms"), [(True, False), (False, True), (True, True)])
def test_refining_stays_in_kind_and_ends(engine: Expectations, nodes: bool, terms: bool) -> None:
    seen: Expectations = engine
    for _ in range(40):
        finer = seen.refined(nodes=nodes, terms=terms)
        if finer is None:
            break
        assert type(finer) is type(engine)
        seen = finer
    assert finer is None


def test_the_description_is_json_and_tells_resolutions_apart(engine: Expectations) -> None:
    said = engine.describe()
    assert json.loads(json.dumps(said)) == said
    assert isinstance(said["rule"], str)
    finer = engine.refined(nodes=False, terms=True)
    assert finer is None or finer.describe() != said


def test_coefficients_for_wick_expansions_are_part_of_the_description() -> None:
    """They may ask for a finer rule."""
    assert MehlerExpectations(ERF, extra=40).describe() != MehlerExpectations(ERF).describe()


class Constant(Expectations):
    """A kind with all that one needs: sigma = 1."""

    def moments(self, kernel: np.ndarray, order: int = 0) -> PairMoments:
        return PairMoments(np.ones((*kernel.shape[:-2], len(pair_indices(kernel.shape[-1])[0]))))

    def refined(self, *, nodes: bool, terms: bool) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {"rule": "constant"}


METHODS = ("moments", "refined", "describe")


@pytest.mark.parametrize("forgotten", METHODS)
def test_a_forgotten_method_is_refused_at_construction(forgotten: str) -> None:
    assert Constant().moments(np.eye(2)).value.tolist() == [1.0, 1.0, 1.0]
    incomplete = type("Incomplete", (Expectations,), {m: getattr(Constant, m) for m in METHODS if m != forgotten})
    with pytest.raises(TypeError, match=f"abstract method '?{forgotten}'?"):
        incomplete()
