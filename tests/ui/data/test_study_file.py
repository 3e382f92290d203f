"""Study files that the explorer writes: the study that they make is the work that was asked for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import eftcore as eft
from db.reading import queries
from db.reading.stored_results import stored_specs
from db.session import Database
from db.settings import bundled_studies
from eftcore.specs import EnsembleSpec, PredictionSpec
from flows.study.expansion import expand_study, load_study
from ui.data.run import build_study_file
from ui.data.study_file import data_files, recorded_study_toml, study_toml

MODEL = eft.ResNet(activation="softplus(beta=2)", weight_variance=1.5, bias_variance=0.1, epsilon=0.05, depth=80)
KERNELS = {
    "equicorrelated": eft.InputKernel.equicorrelated(n_inputs=3, variance=2.0, correlation=0.3),
    "one input": eft.InputKernel.explicit([[1.3]]),
    "zero": eft.InputKernel.explicit([[0.0]]),
    "singular": eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=1.0),
    "any": eft.InputKernel.explicit([[1.0, 0.1], [0.1, 2.0]], label='"quoted" = [label]\n'),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("depths", [None, range(81), (0, 7, 80)])
def test_the_study_asks_for_the_same_work(kernel: eft.InputKernel, depths: tuple[int, ...] | None) -> None:
    shared = {"model": MODEL, "kernel": kernel, "depths": depths and tuple(depths), "numerics": eft.Numerics(rtol=1e-7)}
    predictions = [
        PredictionSpec(**shared, closure="g_only", step="exact"),
        PredictionSpec(**shared, closure="source_only", continuous=True),
        PredictionSpec(**shared, closure="wick"),
        PredictionSpec(**shared, closure="wick", order=8),
        PredictionSpec(**shared, closure="wick", order="auto", truncation=0.01),
        PredictionSpec(**shared, closure="exact"),
        PredictionSpec(**shared, closure="exact", truncation=0.01, next_order=True),
    ]
    del shared["numerics"]
    ensemble = EnsembleSpec(**shared, width=32, seed=5, estimator="plain", sampler="weights", dtype="float64")
    text = study_toml("again", ensemble, 1000, predictions, tolerances=[0.02])
    study = expand_study(tomllib.loads(text))
    assert set(study.predictions) == {spec.digest for spec in predictions}
    assert list(study.simulations) == [ensemble.digest]
    assert study.simulations[ensemble.digest].samples == 1000
    assert study.tolerances == (0.02,)


def test_the_file_of_a_recorded_run_finds_what_is_recorded(results: Database) -> None:
    runs = queries.runs(results, activation="tanh")
    simulation = int(runs.loc[runs["kind"] == "simulation", "run_id"].iloc[0])
    predictions = [int(run) for run in runs.loc[runs["kind"] == "prediction", "run_id"]]
    study = expand_study(tomllib.loads(build_study_file(results, simulation, predictions, 2048)))
    specs = stored_specs(results, [simulation, *predictions])
    assert list(study.simulations) == [specs[simulation].digest]
    assert set(study.predictions) == set(runs.loc[runs["kind"] == "prediction", "digest"])


@pytest.mark.parametrize("name", bundled_studies())
def test_a_recorded_study_is_the_same_study_as_a_file(name: str) -> None:
    study = load_study(bundled_studies()[name])
    again = expand_study(tomllib.loads(recorded_study_toml(study.spec)))
    assert again.record == study.record


def test_a_recorded_study_with_every_section_is_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "inputs.csv").write_text("1,2\n3,5\n")
    content = {
        "name": "all",
        "description": 'quotes " and\nlines',
        "widths": [8],
        "precision": {"quantity": "V4", "relative": 0.1},
        "closures": ["mean", {"name": "wick", "order": [2, "auto"], "numerics": {"rtol": 1e-6}}],
        "model": [{"activation": ["tanh", "relu"], "weight_variance": 1.5, "epsilon": 0.5, "depth": 4, "widths": [16]}],
        "kernel": [{"kind": "file", "path": "inputs.csv"}, {"kind": "explicit", "matrix": [[1.0, 0.5], [0.5, 1.0]]}],
        "numerics": {"quadrature": "gauss_hermite", "nodes": 32},
    }
    study = expand_study(content, folder=tmp_path)
    assert expand_study(tomllib.loads(recorded_study_toml(study.spec)), folder=tmp_path).record == study.record
    assert data_files(study.spec) == ["inputs.csv"]
