"""The task nodes of a study, and the number of runs that it is recorded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from db.settings import bundled_studies
from eftcore.specs import MeasurementSpec
from flows.study.expansion import Study, expand_study, find_study, load_study
from flows.work.listing import nodes_of
from flows.work.store import ResultStore
from tests.flows.study.contents import BASE, EXACT, changed, without_samples

SAME_KERNEL = {"kind": "explicit", "matrix": [[1.0, 0.5], [0.5, 1.0]]}
TO_A_PRECISION = without_samples(precision={"quantity": "V4", "relative": 0.01})


def runs_of_nodes(study: Study, folder: Path) -> int:
    """Number of predictions and simulations to which a node of the study belongs."""
    return len({node.run.digest for node in nodes_of(study, ResultStore(folder)) if node.run is not None})


def test_widths_are_recorded_once_for_each_network_with_the_next_order(tmp_path: Path):
    """Of every prediction of the network, by each that has the next order; without simulations and a reference too."""
    following = {"name": "exact", "next_order": True}
    content = without_samples(widths=[], closures=["mean", "g_only", "exact", following], reference=EXACT)
    study = expand_study(content)
    widths = [node for node in nodes_of(study, ResultStore(tmp_path)) if node.kind == "widths"]
    assert len(widths) == len({node.digest for node in widths}) == 8
    for node in widths:
        exact = study.predictions[node.inputs["exact"]]
        judged = [study.predictions[digest] for digest in node.inputs["predictions"]]
        assert exact.next_order
        assert [(spec.model, spec.kernel) for spec in judged] == [(exact.model, exact.kernel)] * (
            len(study.predictions) // 8
        )
        assert exact in judged
        assert node.inputs["tolerances"] == [0.01, 0.05, 0.1]
    assert "widths" not in {node.kind for node in nodes_of(expand_study(BASE), ResultStore(tmp_path))}


FOLLOWING = {"name": "exact", "next_order": True}


@pytest.mark.parametrize(
    ("closures", "widths", "measured", "compared"),
    [
        (["g_only", "exact"], [8, 16], 8, 0),
        (["exact", FOLLOWING], [8, 16, 32], 8, 8),
        ([FOLLOWING, {**FOLLOWING, "truncation": 0.01}], [8, 16], 8, 16),
        ([FOLLOWING], [8], 0, 0),
        (["g_only"], [8, 16], 0, 0),
        ([{"name": "exact", "continuous": True}], [8, 16], 0, 0),
    ],
)
def test_the_next_order_is_measured_once_for_each_network(
    closures: list[Any], widths: list[int], measured: int, compared: int, tmp_path: Path
):
    """Beside the discrete leading order, at two widths or more; each prediction of it is held against that."""
    study = expand_study(changed(closures=closures, widths=widths))
    every = nodes_of(study, ResultStore(tmp_path))
    nodes = [node for node in every if node.kind == "measure"]
    assert len(nodes) == len({node.digest for node in nodes}) == measured
    for node in nodes:
        spec = node.run
        assert isinstance(spec, MeasurementSpec)
        exact = study.predictions[spec.exact]
        assert exact.closure == "exact"
        assert exact.next_order == ("exact" not in closures)
        assert spec.of_same_network(exact)
        assert spec.widths == widths
        merged = {node.digest for node in every if node.kind == "merge"}
        assert {digest for _, _, digest in spec.samples} <= merged
    against = [
        node for node in every if node.kind == "compare" and node.inputs["reference"] in {node.digest for node in nodes}
    ]
    assert len(against) == compared
    assert all(study.predictions[node.inputs["prediction"]].next_order for node in against)
    recorded = [
        node for node in every if node.kind == "record" and node.inputs["reference"] in {node.digest for node in nodes}
    ]
    assert len(recorded) == measured
    assert study.record["runs_asked"] == runs_of_nodes(study, tmp_path)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.campaign] * (name == "atlas")) for name in sorted(bundled_studies())],
)
def test_a_bundled_study_asks_for_the_runs_of_its_nodes(name: str, tmp_path: Path):
    study = load_study(find_study(name))
    assert study.record["runs_asked"] == runs_of_nodes(study, tmp_path)


@pytest.mark.parametrize(
    ("content", "runs"),
    [
        pytest.param(BASE, 8 * (2 + 2), id="two closures and two widths"),
        pytest.param(changed(kernel=[*BASE["kernel"], SAME_KERNEL]), 8 * (2 + 2), id="a kernel twice"),
        pytest.param(changed(model=[BASE["model"]] * 2), 8 * (2 + 2), id="a model twice"),
        pytest.param(changed(reference=EXACT), 8 * (3 + 2), id="a reference"),
        pytest.param(changed(closures=["g_only", "wick"], reference="wick"), 8 * (2 + 2), id="a closure as reference"),
        pytest.param(
            changed(closures=["mean", {"name": "wick", "order": [8, 24]}], reference="wick"),
            8 * (3 + 2),
            id="one of several orders as reference",
        ),
        pytest.param(without_samples(widths=[], reference=EXACT), 8 * 3, id="no simulation"),
        pytest.param(TO_A_PRECISION, 8 * (2 + 2), id="to a precision"),
    ],
)
def test_a_study_asks_for_the_runs_of_its_nodes(content: dict[str, Any], runs: int, tmp_path: Path):
    study = expand_study(content)
    assert study.record["runs_asked"] == runs_of_nodes(study, tmp_path) == runs
