"""Studies that hold predictions against a better theory, with simulations or without."""

from __future__ import annotations

from typing import Any

import pytest

from eftcore.errors import InputError
from flows.study.expansion import expand_study
from tests.flows.study.contents import BASE, EXACT, changed, without_samples


def test_every_prediction_is_held_against_the_reference():
    study, without = expand_study(changed(reference=EXACT)), expand_study(BASE)
    configurations = 2 * 2 * 2
    assert study.simulations == without.simulations
    assert study.comparisons == without.comparisons
    assert len(study.predictions) == configurations * (2 + 1)
    assert len(study.references) == configurations
    assert len(study.theory_comparisons) == configurations * 2
    for prediction, reference in study.theory_comparisons:
        theory, exact = study.predictions[prediction], study.predictions[reference]
        assert (exact.closure, exact.order, theory.closure in ("mean", "g_only")) == ("wick", "auto", True)
        assert (theory.model, theory.kernel, theory.depths) == (exact.model, exact.kernel, exact.depths)
    assert study.digest != without.digest
    assert expand_study(study.spec).digest == study.digest


def test_a_reference_among_the_closures_is_computed_once_and_not_held_against_itself():
    study = expand_study(changed(closures=["g_only", "wick"], reference="wick"))
    assert len(study.predictions) == 8 * 2
    assert len(study.theory_comparisons) == 8
    assert all(prediction != reference for prediction, reference in study.theory_comparisons)


def test_a_reference_may_bring_its_own_rule_and_step():
    reference = {"name": "g_only", "step": "exact", "numerics": {"rtol": 1e-11}}
    study = expand_study(changed(closures="g_only", reference=reference))
    (exact, *_) = (study.predictions[digest] for digest in study.references)
    assert (exact.closure, exact.step, exact.numerics.rtol) == ("g_only", "exact", 1e-11)


@pytest.mark.parametrize("widths", [{"widths": []}, {}])
def test_with_a_reference_nothing_needs_to_be_simulated(widths: dict[str, Any]):
    content = without_samples(reference=EXACT)
    del content["widths"]
    study = expand_study({**content, **widths})
    assert not study.simulations
    assert not study.comparisons
    assert len(study.theory_comparisons) == 8 * 2
    assert len({expand_study({**content, "closures": [name]}).digest for name in ("mean", "g_only")}) == 2
    with pytest.raises(InputError, match="study = 'tiny': simulates nothing"):
        study.topped_up(samples=100)


def test_some_models_of_many_are_simulated():
    grids = [{**BASE["model"], "widths": []}, {**BASE["model"], "activation": "erf", "samples": 128}]
    study = expand_study(changed(model=grids, reference=EXACT))
    assert {item.spec.model.activation for item in study.simulations.values()} == {"erf"}
    assert len(study.references) == 8 + 4
