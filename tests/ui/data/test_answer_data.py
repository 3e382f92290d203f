"""The answer of the first page: bounds that count every error, and words that say no more than these."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import eftcore as eft
from db.session import Database
from eftcore.errors import EftError
from eftcore.results import Theory
from eftcore.verdicts.widths import widths_of
from tests.ui.conftest import record
from ui.data.answer import THEORY_NAMES, Answer, design_predictions, plane_frame
from ui.data.answer_words import caveats, details, headline
from ui.data.evidence import build_evidence
from ui.figures import plane_figure

ONE = eft.InputKernel.explicit([[1.0]])
RELU = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.1, depth=100)


def _theories(model: eft.ResNet, kernel: eft.InputKernel = ONE) -> dict[str, Theory]:
    return {name: part for name, part in design_predictions(model, kernel) if isinstance(part, Theory)}


@pytest.fixture(scope="module")
def relu() -> dict[str, Theory]:
    return _theories(RELU)


def test_the_recommended_theory_is_the_simplest_of_those_that_hold_deepest(relu: dict[str, Theory]) -> None:
    wide, usual = (Answer(relu, width, 0.05, "V4") for width in (300, 64))
    assert wide.best is not None
    assert wide.best.theory == "sigma"
    assert headline(wide) == "Use **sigma**: within 5 % down to the last of 100 layers"
    assert [text for text in details(wide) if text.startswith(("G-only", "The exact"))] == [
        "G-only: down to layer 22 of 100 (t = 0.22)."
    ]
    assert usual.best is not None
    assert usual.best.theory == "exact"
    assert usual.best.certain is not None
    assert usual.best.refuted is not None
    assert usual.best.certain < usual.best.refuted
    assert headline(usual) == (
        f"Use **the exact leading order**: within 5 % down to layer {usual.best.certain} of 100 "
        f"(t = 0.{usual.best.certain}), surely not from layer {usual.best.refuted} on"
    )
    low, high = eft.kernel_law(relu["exact"], 64).entry(0).interval(0.95)
    assert f"lies in **[{low:.3g}, {high:.3g}]** with 95 %" in " ".join(details(usual))


def test_depth_at_a_width_and_width_at_a_depth_do_not_contradict(relu: dict[str, Theory]) -> None:
    for width in (8, 32, 64, 128, 512, 4096):
        answer = Answer(relu, width, 0.05, "V4")
        for judged in answer.judged:
            if judged.certain == 100:
                assert not width < judged.least
            if judged.refuted is not None:
                assert not width >= judged.most
    holds = Answer(relu, 64, 0.05, "V4").judged[-1]
    central = widths_of(relu["exact"], relu["exact"], [0.05]).query("quantity == 'V4'")["width"].max()
    assert holds.least < central < holds.most


def test_errors_of_the_theories_make_the_answer_unknown_and_never_certain(relu: dict[str, Theory]) -> None:
    exact = relu["exact"]
    rough = replace(exact, details={**exact.details, "truncation_error": {"V4": 0.2, "K1": 0.2}})
    answer = Answer({**relu, "exact": rough}, 300, 0.05, "V4")
    assert [judged.certain for judged in answer.judged] == [None, None, None]
    assert np.isnan([judged.most for judged in answer.judged]).all()
    assert answer.best is None
    assert headline(answer).startswith("**Not known**")
    left_out = {**exact.details["truncation_error"], "V4": 0.004}
    slightly = replace(exact, details={**exact.details, "truncation_error": left_out})
    before, after = (Answer({**relu, "exact": each}, 64, 0.05, "V4").judged[-1] for each in (exact, slightly))
    assert before.certain is not None
    assert after.certain is not None
    assert before.refuted is not None
    assert after.certain < before.certain
    assert after.refuted is None or after.refuted > before.refuted
    assert after.least < before.least
    assert after.most > before.most


def test_what_finite_width_adds_is_said_to_be_unknown_where_it_is(relu: dict[str, Theory]) -> None:
    exact = relu["exact"]
    nothing = replace(exact, correction_next=np.full_like(exact.correction_next, np.nan))  # as of GELU at two inputs
    answer = Answer({**relu, "exact": nothing}, 64, 0.05, "K1")
    assert headline(answer).startswith("**Not known at width 64**: the exact leading order is within 5 % from layer")
    assert "what finite width adds is not known" in headline(answer)
    assert not [text for text in details(answer) if "holds at all" in text]
    without = dict(relu)
    without["leading"] = replace(without.pop("exact"), covariance_next=None, third_cumulant=None, correction_next=None)
    answer = Answer(without, 64, 0.05, "V4")
    assert headline(answer).startswith("**Not known at width 64**")
    assert any("What finite width adds to V4 is not known" in text for text in caveats(answer))
    assert answer.interval is None
    assert plane_frame(answer).empty


def test_where_there_is_no_next_order_the_leading_one_comes_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = eft.predict_spec

    def refused(spec: eft.PredictionSpec) -> Theory:
        if spec.next_order:
            raise eft.InputError("does not converge", place="next_order", value=True)
        return usual(spec)

    monkeypatch.setattr("eftcore.predict_spec", refused)
    model = RELU.model_copy(update={"depth": 5})
    found = dict(design_predictions(model, ONE))
    assert list(found) == ["g_only", "sigma", "exact", "leading"]
    assert isinstance(found["exact"], EftError)


def test_every_quantity_and_block_is_answered() -> None:
    model = eft.ResNet(
        activation="tanh", weight_variance=2.0, epsilon=0.1, depth=20, block="two_matrix", normalisation="rms"
    )
    theories = _theories(model)
    assert list(theories) == ["exact"]
    for quantity, theory in (("K0", "mean"), ("V4", "exact")):
        answer = Answer(theories, 64, 0.05, quantity)
        assert answer.best is not None
        assert answer.best.theory == theory
        assert headline(answer).startswith(f"Use **{THEORY_NAMES[theory]}**")
    assert any("from width **8** on at least" in text for text in details(answer))
    nothing = Answer(theories, 64, 0.05, "K1")
    assert headline(nothing) == "**K1 is 0** at every layer, and relative errors of it mean nothing"
    assert len(details(nothing)) == 1


def test_the_plane_shows_the_region_and_the_network(relu: dict[str, Theory]) -> None:
    answer = Answer(relu, 64, 0.05, "V4")
    frame = plane_frame(answer)
    last = frame[frame["layer"] == 100].set_index("theory")
    assert np.isinf(last.loc["g_only", "high"])
    assert last.loc["exact", "high"] == pytest.approx(answer.judged[-1].most)
    figure = plane_figure(frame, "exact", 57, 64, 100, 0.1)
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert list(named) == ["G-only", "sigma", "the exact leading order", "your network"]
    assert (named["your network"].x, named["your network"].y) == ((100,), (64,))
    assert np.nanmax(named["the exact leading order"].y) == pytest.approx(answer.judged[-1].most)
    assert figure.layout.xaxis.ticktext[-1] == "100<br>t = 1"


def test_evidence_is_what_was_simulated_nearby_in_two_statements(
    fresh: Database, put: Callable[..., int], statements: list[str]
) -> None:
    model = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
    kernel = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
    assert build_evidence(fresh, model, kernel, 16, "V4", 0.05).empty
    narrow, wide = record(fresh, "tanh"), put(fresh, "tanh", width=64)
    put(fresh, "relu")
    before = len(statements)
    found = build_evidence(fresh, model, kernel, 60, "V4", 0.04)
    assert len(statements) - before == 2
    assert found["run"].tolist() == [f"run?simulation={wide}", f"run?simulation={narrow}"]
    assert found[["network", "n", "M", "τ"]].iloc[0].tolist() == ["the same", 64, 2048, "0.05"]
    told = build_evidence(fresh, model, kernel, 60, "K0", 0.1)["g_only, Euler steps"].iloc[0]
    assert re.fullmatch(r"layer .* \(t = .*\)", told)
    other = build_evidence(fresh, model.model_copy(update={"weight_variance": 1.0}), kernel, 60, "V4", 0.04)
    assert other["network"].tolist() == ["C_W = 2", "C_W = 2"]
