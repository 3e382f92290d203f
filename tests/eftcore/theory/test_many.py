"""predict_many gives what predict_spec gives, spec by spec."""

from __future__ import annotations

import warnings

import pytest

import eftcore as eft


def spec_of(activation: str = "tanh", closure: str = "g_only", depth: int = 12, **more: object) -> eft.PredictionSpec:
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.2, depth=depth)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    return eft.PredictionSpec(model=model, kernel=kernel, closure=closure, **more)


def overflowing() -> eft.PredictionSpec:
    model = eft.ResNet(activation="relu", weight_variance=1e6, epsilon=1.0, depth=100)
    return eft.PredictionSpec(model=model, kernel=eft.InputKernel.explicit([[1.0]]), closure="g_only")


def test_the_first_failure_is_raised_in_its_place() -> None:
    with pytest.raises(eft.InputError) as alone:
        eft.predict_spec(overflowing())
    with pytest.raises(eft.InputError) as found:
        eft.predict_many([spec_of(), overflowing(), spec_of("relu"), overflowing()])
    assert found.value.place == ("specs", 1, *alone.value.place)
    assert (found.value.reason, found.value.remedy) == (alone.value.reason, alone.value.remedy)


def test_warnings_name_their_spec_and_come_in_order() -> None:
    coarse = spec_of("relu", "wick", order=2, depth=40)
    with warnings.catch_warnings(record=True) as alone:
        warnings.simplefilter("always")
        eft.predict_spec(coarse)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        eft.predict_many([coarse, spec_of(), coarse])
    assert alone
    assert [str(w.message) for w in found] == [f"specs[{i}]: {w.message}" for i in (0, 2) for w in alone]
    assert {w.category for w in found} == {w.category for w in alone}
    assert {w.filename for w in found} == {__file__}


def test_nothing_is_asked() -> None:
    assert eft.predict_many([]) == []
