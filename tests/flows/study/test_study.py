"""Study files: what they expand to, and that wrong ones name file, field, value and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.settings import bundled_studies
from eftcore.ensemble.shards import shard_size
from eftcore.errors import InputError
from eftcore.identity import digest_of
from eftcore.inputs.layers import whole_layers
from flows.study.expansion import Simulation, expand_study, find_study, load_study
from tests.flows.study.contents import BASE, changed


def test_a_study_is_the_product_of_its_grid():
    study = expand_study(BASE)
    configurations = 2 * 2 * 2
    assert len(study.predictions) == configurations * 2
    assert len(study.simulations) == configurations * 2
    assert len(study.comparisons) == configurations * 2 * 2
    for prediction, ensemble in study.comparisons:
        theory, simulation = study.predictions[prediction], study.simulations[ensemble]
        assert theory.model == simulation.spec.model
        assert theory.kernel == simulation.spec.kernel
        assert theory.depths == simulation.spec.depths


def test_work_that_two_grid_points_share_is_done_once():
    twice = [*BASE["kernel"], {"kind": "explicit", "matrix": [[1.0, 0.5], [0.5, 1.0]]}]
    study, reference = expand_study(changed(kernel=twice)), expand_study(BASE)
    assert study.predictions.keys() == reference.predictions.keys()
    assert study.simulations.keys() == reference.simulations.keys()
    assert study.comparisons == reference.comparisons


def test_total_time_and_depth_describe_the_same_model():
    by_time = expand_study(changed(model__epsilon=0.25))
    model = {**BASE["model"], "epsilon": 0.25, "depth": 16}
    del model["total_time"]
    assert expand_study(changed(model=model)).predictions.keys() == by_time.predictions.keys()


def test_blocks_make_a_grid_of_their_own():
    """Fields that a branch with two matrices alone has do not multiply networks of one."""
    branch = {"block": ["one_matrix", "two_matrix"], "normalisation": ["none", "rms"], "hidden_ratio": [1.0, 2.0]}
    study = expand_study(changed(model={**BASE["model"], "activation": "tanh", "epsilon": 0.5, **branch}))
    models = {
        (spec.model.block, spec.model.normalisation, spec.model.hidden_ratio) for spec in study.predictions.values()
    }
    two = {("two_matrix", normalisation, ratio) for normalisation in (None, "rms") for ratio in (1.0, 2.0)}
    assert models == {("one_matrix", None, 1.0), ("one_matrix", "rms", 1.0), *two}
    assert len(study.simulations) == 6 * 2 * 2
    alone = expand_study(changed(model={**BASE["model"], "activation": "tanh", "epsilon": 0.5}))
    assert alone.predictions.keys() < study.predictions.keys()


def test_a_rule_of_the_residual_scale_goes_with_depth():
    model = {"activation": "tanh", "weight_variance": 2.0, "depth": [16, 64], "residual_scale": ["1/sqrt(L)", "1/L"]}
    study = expand_study(changed(model=model))
    scales = {(spec.model.depth, spec.model.epsilon) for spec in study.predictions.values()}
    assert scales == {(16, 0.25), (16, 0.0625), (64, 0.125), (64, 0.015625)}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"hidden_ratio": 2.0}, "hidden_ratio: belongs to block = 'two_matrix'"),
        ({"block": "one_matrix", "hidden_ratio": 2.0}, "hidden_ratio: belongs to block = 'two_matrix'"),
        ({"block": "two_matrix", "normalisation": "batch"}, "normalisation = 'batch'"),
        ({"block": "two_matrix", "hidden_ratio": 0.3}, "no whole number of hidden neurons"),
        ({"residual_scale": "1/L"}, "epsilon: one of two is needed"),
        ({"epsilon": None}, "epsilon"),
        ({"epsilon": None, "residual_scale": "1/L"}, "residual_scale = ['1/L']: goes with depth"),
    ],
)
def test_wrong_blocks_are_told_with_their_place(model: dict[str, Any], words: str):
    fields = {name: value for name, value in {**BASE["model"], **model}.items() if value is not None}
    with pytest.raises(InputError) as refused:
        expand_study(changed(model=fields))
    assert words in str(refused.value)


def test_recorded_depths_are_a_list_or_a_count():
    listed = expand_study(changed(recorded_depths=[0, 2, 4]))
    assert {spec.depths for spec in listed.predictions.values()} == {(0, 2, 4)}
    counted = expand_study(changed(recorded_depths=2))
    assert {spec.depths for spec in counted.predictions.values()} == {(0, 2, 4), (0, 8, 16)}


def test_closures_take_orders():
    study = expand_study(changed(closures=["mean", {"name": "wick", "order": [4, 8]}]))
    assert {(spec.closure, spec.order) for spec in study.predictions.values()} == {
        ("mean", None),
        ("wick", 4),
        ("wick", 8),
    }


def test_a_raised_order_ends_where_the_study_says():
    reference = {"name": "wick", "order": "auto", "truncation": 0.01}
    study = expand_study(changed(closures=["mean", {**reference, "order": [4, "auto"]}], reference=reference))
    found = {(spec.order, spec.truncation) for spec in study.predictions.values() if spec.closure == "wick"}
    assert found == {(4, None), ("auto", 0.01)}
    with pytest.raises(InputError, match=r"^closures\[0\]\.truncation = 0\.01: goes with order = 'auto'"):
        expand_study(changed(closures=[{"name": "wick", "order": [4, 8], "truncation": 0.01}]))
    with pytest.raises(InputError, match=r"^reference\.truncation = 0\.01: goes with order = 'auto'"):
        expand_study(changed(closures=["mean"], reference={"name": "g_only", "truncation": 0.01}))


def test_the_exact_closure_takes_the_next_order_and_a_truncation():
    exact = {"name": "exact", "next_order": True, "truncation": 0.01}
    study = expand_study(changed(closures=["g_only", "exact", exact], reference=exact))
    found = {(spec.next_order, spec.truncation) for spec in study.predictions.values() if spec.closure == "exact"}
    assert found == {(False, 1e-3), (True, 0.01)}
    assert len(study.predictions) == 3 * len(study.references)
    wrong = {"name": "g_only", "next_order": True}
    for field, place in ({"closures": [wrong]}, r"closures\[0\]"), ({"reference": wrong}, "reference"):
        with pytest.raises(
            InputError, match=rf"^{place}\.next_order = True: belongs to closure = 'exact'; leave it out"
        ):
            expand_study(changed(**{"closures": ["mean"], **field}))


def test_closures_take_a_step_or_the_continuous_limit():
    study = expand_study(
        changed(closures=["g_only", {"name": "g_only", "step": "exact"}, {"name": "sigma", "continuous": True}])
    )
    assert {(spec.closure, spec.step, spec.continuous) for spec in study.predictions.values()} == {
        ("g_only", "euler", False),
        ("g_only", "exact", False),
        ("sigma", None, True),
    }
    with pytest.raises(InputError, match=r"^closures\[0\]\.step = 'exact': does not go with continuous"):
        expand_study(changed(closures=[{"name": "sigma", "continuous": True, "step": "exact"}]))


def test_ensembles_take_the_sampler_and_the_precision_of_states():
    study = expand_study(changed(sampler="weights", dtype="float64", estimator="plain"))
    drawn = {(item.spec.sampler, item.spec.dtype, item.spec.estimator) for item in study.simulations.values()}
    assert drawn == {("weights", "float64", "plain")}


def test_digest_changes_with_the_work_and_not_with_the_description():
    digest = expand_study(BASE).digest
    assert expand_study(changed(description="other words")).digest == digest
    for other in (changed(samples=65), changed(seed=1), changed(name="other"), changed(tolerances=[0.2])):
        assert expand_study(other).digest != digest


def test_more_samples_keep_every_full_shard():
    spec = next(iter(expand_study(BASE).simulations.values())).spec
    size = shard_size(spec)
    few, many = (Simulation(spec=spec, samples=samples).all_shards for samples in (2 * size + 5, 5 * size))
    assert few == ((0, size), (1, size), (2, 5))
    assert many[:2] == few[:2]
    assert [index for index, _ in many] == [0, 1, 2, 3, 4]
    assert sum(count for _, count in many) == 5 * size


PRECISION = {"quantity": "V4", "relative": 0.02, "max_samples": 100_000}


def with_precision(**changes: Any) -> dict[str, Any]:
    """BASE that aims at a precision in place of a number of networks."""
    content = changed(precision=PRECISION | changes)
    del content["samples"]
    return content


def test_a_study_may_aim_at_a_precision():
    study = expand_study(with_precision())
    simulation = next(iter(study.simulations.values()))
    assert simulation.precision is not None
    assert simulation.precision.bound == 0.02
    assert simulation.networks == 100_000
    assert simulation.all_shards[: len(simulation.first_round)] == simulation.first_round
    assert study.spec["precision"] == PRECISION
    assert "samples" not in study.spec
    for other in (with_precision(relative=0.03), with_precision(max_samples=99), with_precision(quantity="K1")):
        assert expand_study(other).digest != study.digest
        assert expand_study(other).simulations.keys() == study.simulations.keys()


def test_shards_are_smaller_where_networks_are_larger():
    small, large = (
        shard_size(next(iter(expand_study(changed(widths=[width])).simulations.values())).spec) for width in (64, 65536)
    )
    assert small > large >= 64


def test_bundled_studies_load_and_use_real_data():
    assert {"quick", "digits"} <= bundled_studies().keys()
    quick = load_study(find_study("quick"))
    spec = next(iter(quick.simulations.values())).spec
    assert (spec.width, spec.kernel.n_inputs, spec.model.total_time) == (64, 4, 2.0)
    digits = load_study(find_study("digits"))
    assert len({spec.model.activation for spec in digits.predictions.values()}) >= 2
    assert {spec.kernel.n_inputs for spec in digits.predictions.values()} == {3}


def test_digits_kernels_are_those_of_the_images():
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    section = {"kind": "digits", "classes": [3, 3, 7]}
    study = expand_study(changed(kernel=[section]))
    threes, seven = np.flatnonzero(classes == 3)[:2], np.flatnonzero(classes == 7)[:1]
    rows = images[[*threes, *seven]] / 16
    kernel = next(iter(study.predictions.values())).kernel
    np.testing.assert_allclose(kernel.array, rows @ rows.T / 64, rtol=1e-12)
    scaled = expand_study(changed(kernel=[{**section, "variance": 1.5}]))
    assert next(iter(scaled.predictions.values())).kernel.variance == pytest.approx(1.5)
    indexed = expand_study(changed(kernel=[{"kind": "digits", "indices": [*map(int, threes), int(seven[0])]}]))
    assert indexed.predictions.keys() == study.predictions.keys()


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_a_data_file_is_found_beside_the_study(tmp_path: Path, suffix: str):
    data = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
    if suffix == "npy":
        np.save(tmp_path / "data.npy", data)
    else:
        np.savetxt(tmp_path / "data.csv", data, delimiter=",", header="x,y", comments="")
    section = {"kind": "file", "path": f"data.{suffix}", "rows": [2, 0]}
    study = expand_study(changed(kernel=[section]), folder=tmp_path)
    kernel = next(iter(study.predictions.values())).kernel
    np.testing.assert_allclose(kernel.array, data[[2, 0]] @ data[[2, 0]].T / 2)


def test_model_sections_add_up_and_a_closure_may_bring_its_own_rule():
    grids = [{**BASE["model"], "epsilon": 0.1, "total_time": 1.0}, {**BASE["model"], "epsilon": 0.5, "total_time": 1.0}]
    published = {"name": "g_only", "numerics": {"quadrature": "gauss_hermite", "nodes": 32}}
    study = expand_study(changed(model=grids, closures=["g_only", published]))
    models = {(spec.model.epsilon, spec.model.depth) for spec in study.predictions.values()}
    assert models == {(0.1, 100), (0.5, 4)}
    assert {spec.numerics.nodes for spec in study.predictions.values()} == {None, 32}


def test_a_model_section_may_have_its_own_widths_and_samples():
    own = {**BASE["model"], "epsilon": 0.5, "widths": [32], "samples": 256}
    study = expand_study(changed(model=[own, {**BASE["model"], "epsilon": 0.25}]))
    sizes = {(item.spec.model.epsilon, item.spec.width, item.samples) for item in study.simulations.values()}
    assert sizes == {(0.5, 32, 256), (0.25, 8, 64), (0.25, 16, 64)}
    twice = expand_study(changed(model=[BASE["model"], {**BASE["model"], "samples": 256}]))
    assert {item.samples for item in twice.simulations.values()} == {256}


def test_studies_without_a_reference_keep_their_identity():
    """Results are recorded under it: a study that was run before must not become another one."""
    study = expand_study(BASE)
    simulations = dict.fromkeys(study.simulations, 64)
    work = {"simulations": simulations, "comparisons": sorted(study.comparisons), "tolerances": [0.01, 0.05, 0.1]}
    assert study.digest == digest_of({"study": "tiny", **work})


WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("negative weight variance", changed(model__weight_variance=-1.0), ["weight_variance", "-1", "greater than 0"]),
    ("unknown activation", changed(model__activation="tahn"), ["activation", "tahn", "tanh"]),
    ("unknown field", changed(model__width=3), ["model.width", "unknown field", "remove"]),
    ("unknown section", changed(wdiths=[3]), ["wdiths", "unknown field"]),
    ("text for a number", changed(model__epsilon="small"), ["model.epsilon", "small", "number"]),
    ("NaN", changed(model__epsilon=float("nan")), ["model.epsilon", "nan", "finite"]),
    ("width 0", changed(widths=[0]), ["width", "0", "greater than or equal to 1"]),
    ("neither samples nor precision", {k: v for k, v in BASE.items() if k != "samples"}, ["samples", "[precision]"]),
    ("samples and precision", changed(precision={"quantity": "V4", "relative": 0.1}), ["samples", "not both"]),
    ("unknown quantity", changed(precision={"quantity": "V5", "relative": 0.1}), ["precision.quantity = 'V5'", "'V4'"]),
    ("no bound", changed(precision={"quantity": "V4"}), ["precision", "relative (such as 0.01) or absolute"]),
    ("bound of 200 %", changed(precision={"quantity": "V4", "relative": 2.0}), ["relative = 2.0", "less than 1"]),
    ("no width", changed(widths=[]), ["no widths", "[64]", "reference = 'exact'"]),
    (
        "no width in one section",
        changed(model=[BASE["model"], {**BASE["model"], "widths": []}]),
        ["model[1]: has no widths", "reference"],
    ),
    (
        "a reference, widths, and no samples",
        {k: v for k, v in changed(reference="wick").items() if k != "samples"},
        ["samples", "[precision]"],
    ),
    (
        "two orders of a reference",
        changed(reference={"name": "wick", "order": [8, 24]}),
        ["reference.order", "[8, 24]"],
    ),
    ("unknown reference", changed(reference="exakt"), ["reference.name = 'exakt'", "'wick'"]),
    (
        "nothing but the reference",
        changed(widths=[], closures=["wick"], reference="wick"),
        ["closures", "reference is the only theory", "add a closure"],
    ),
    ("depth and time", changed(model__depth=4), ["depth", "total_time", "not both"]),
    ("partial layers", changed(model__epsilon=0.3), ["model.total_time = 1.0", "0.3", "whole", "0.99"]),
    ("unknown closure", changed(closures=["g-only"]), ["closures", "g-only", "g_only"]),
    ("order without wick", changed(closures=[{"name": "mean", "order": 3}]), ["closures[0].order = 3", "wick"]),
    ("unknown kernel", changed(kernel=[{"kind": "random"}]), ["kernel[0].kind = 'random'", "equicorrelated"]),
    (
        "kernel of no kind",
        changed(kernel=[{"matrix": [[1.0]]}]),
        ["kernel[0].kind: required field is missing", "'explicit'"],
    ),
    (
        "asymmetric matrix",
        changed(kernel=[{"kind": "explicit", "matrix": [[1.0, 0.5], [0.4, 1.0]]}]),
        ["kernel[0].matrix = ", "not symmetric", "(K + K^T) / 2"],
    ),
    (
        "indefinite matrix",
        changed(kernel=[{"kind": "explicit", "matrix": [[1.0, 2.0], [2.0, 1.0]]}]),
        ["matrix", "not positive semi-definite", "-1"],
    ),
    (
        "ragged matrix",
        changed(kernel=[{"kind": "explicit", "matrix": [[1.0, 2.0], [2.0]]}]),
        ["kernel[0].matrix[1] = [2.0]: has 1 numbers", "square"],
    ),
    (
        "missing file",
        changed(kernel=[{"kind": "file", "path": "no.csv"}]),
        ["kernel[0].path: no.csv: there is no such file"],
    ),
    ("missing choice", changed(kernel=[{"kind": "digits"}]), ["kernel[0].classes", "indices"]),
    ("depth outside", changed(recorded_depths=[0, 99]), ["recorded_depths = [0, 99]", "depth = 4"]),
]


@pytest.mark.parametrize(("content", "parts"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_content_names_field_value_and_remedy(content: dict[str, Any], parts: list[str]):
    with pytest.raises(InputError) as caught:
        expand_study(content)
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


def test_a_list_with_a_wrong_entry_is_not_called_too_short():
    with pytest.raises(InputError) as caught:
        expand_study(changed(kernel=[{"matrix": [[1.0]]}]))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_does_not_parse_is_named(tmp_path: Path):
    path = tmp_path / "broken.toml"
    path.write_text("name = [1,\n")
    with pytest.raises(InputError, match=r"broken\.toml: is not valid TOML .*correct"):
        load_study(path)


def test_a_wrong_field_names_its_file(tmp_path: Path):
    path = tmp_path / "wrong.toml"
    path.write_text(bundled_studies()["quick"].read_text().replace("tanh", "tahn"))
    with pytest.raises(InputError, match=r"wrong\.toml: model\.activation = 'tahn'"):
        load_study(path)


def test_an_unknown_study_lists_the_bundled_ones():
    with pytest.raises(InputError, match=r"study = 'slow': no such file .* digits, paper-quick, paper, plane, quick"):
        find_study("slow")


def test_duplicated_inputs_and_fewer_neurons_than_inputs_are_legal():
    section = {"kind": "equicorrelated", "n_inputs": 4, "variance": 1.0, "correlation": 1.0}
    study = expand_study(changed(kernel=[section], widths=[2]))
    assert next(iter(study.simulations.values())).spec.width == 2


def test_layers_are_whole_up_to_rounding():
    assert whole_layers(2.0, 0.05) == 800
    assert whole_layers(0.3, 0.1) == 30
