"""Predictions that do not fit are refused before they start; what they need is bounded by the estimate."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import pytest

import eftcore as eft
from eftcore import memory
from eftcore.specs import PredictionSpec
from eftcore.theory import memory as of_predictions
from eftcore.theory.memory import demand


def request(closure: str, inputs: int, depth: int, **options: Any) -> PredictionSpec:
    return PredictionSpec(
        model=eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.05, depth=depth),
        kernel=eft.InputKernel.equicorrelated(n_inputs=inputs, variance=1.0, correlation=0.3),
        closure=closure,  # type: ignore[arg-type]
        depths=(0, depth),
        **options,
    )


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 GB, of which 0.8 are free."""
    monkeypatch.setattr(memory, "limit", lambda: 8e9)
    monkeypatch.setattr(memory, "available", lambda: 8e8)


@pytest.mark.usefixtures("little")
def test_what_can_never_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        eft.InputError, match=r"closure = 'wick' of 64 inputs at order 24 needs about 88\.1 GB"
    ) as error:
        eft.predict_spec(request("wick", 64, 20, order=24))
    said = error.value.remedy
    assert said is not None
    inputs, order = (int(word) for word in said.replace(",", "").split() if word.isdigit())
    assert (
        demand(request("wick", inputs, 20, order=24)).bytes
        <= 8e9
        < demand(request("wick", inputs + 1, 20, order=24)).bytes
    )
    assert demand(request("wick", 64, 20, order=order)).bytes <= 8e9


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize(("closure", "inputs", "depth"), [("sigma", 100, 20), ("particle", 21, 1000)])
def test_what_does_not_fit_now_may_later(closure: str, inputs: int, depth: int) -> None:
    said = r"0\.8 GB are free; wait until more is free, or take at most \d+ inputs"
    with pytest.raises(eft.EnvironmentProblem, match=said):
        eft.predict_spec(request(closure, inputs, depth))


def test_raised_orders_are_checked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step to order 12 needs less than the first one, to order 8, since it solves for orders 10 and 12 alone."""
    fitting = demand(request("wick", 2, 4, order="auto"), 8)
    monkeypatch.setattr(memory, "limit", lambda: fitting.bytes + 8)
    monkeypatch.setattr(memory, "available", lambda: math.inf)
    with pytest.raises(eft.InputError, match="of 2 inputs at order 18"):
        eft.predict_spec(request("wick", 2, 4, order="auto", truncation=1e-12))


@pytest.mark.parametrize(
    ("closure", "inputs", "depth", "options"),
    [
        ("source_only", 20, 4, {}),
        ("g_only", 20, 4, {}),
        ("sigma", 12, 4, {}),
        ("wick", 6, 4, {"order": 16}),
        ("wick", 6, 40, {"order": 16}),
        ("particle", 3, 8, {}),
    ],
)
def test_the_estimate_bounds_the_peak(
    closure: str, inputs: int, depth: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the integrals' own share as small as these predictions need."""
    monkeypatch.setattr(of_predictions, "BESIDE", 3e7)
    spec = request(closure, inputs, depth, **options)
    tracemalloc.start()
    try:
        eft.predict_spec(spec)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= demand(spec).bytes
