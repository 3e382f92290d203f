"""The page Predict without a browser: it needs no database, and shows what theory says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import eftcore as eft
from db.reading import queries
from db.session import Database
from eftcore.errors import InputError
from eftcore.words import width_text
from tests.ui.pages import OpenPage, keyed, text_of, told
from ui.data.predict import MOST_LAYERS


def test_predict_needs_no_database(open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", sigma="erf", T="1.0", C_W="1.5")
    assert not app.exception
    model = eft.ResNet(activation="erf", weight_variance=1.5, epsilon=0.1, depth=100)
    theory = eft.predict(model, eft.InputKernel.equicorrelated(n_inputs=2, variance=2.0, correlation=0.3), "g_only")
    shown = app.table[0].value.set_index("closure").loc["g\\_only"]
    assert theory.covariance is not None
    assert float(shown["V4\\[00,00\\]"].replace("\\", "")) == pytest.approx(theory.covariance[-1, 0, 0], rel=1e-5)
    assert not (tmp_path / "none.db").exists()


def test_predict_knows_blocks_with_two_matrices(open_page: OpenPage, tmp_path: Path) -> None:
    query = {
        "sigma": "gelu",
        "T": "1.0",
        "N": "1",
        "variance": "1.0",
        "block": "two_matrix",
        "norm": "rms",
        "ratio": "4",
    }
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query)
    assert not app.exception
    model = eft.ResNet(
        activation="gelu",
        weight_variance=2.0,
        epsilon=0.1,
        depth=100,
        block="two_matrix",
        normalisation="rms",
        hidden_ratio=4.0,
    )
    theory = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "exact")
    shown = app.table[0].value.set_index("closure")
    assert [name.replace("\\", "") for name in shown.index] == ["mean", "source_only", "g_only", "exact"]
    values = shown["V4\\[00,00\\]"].str.replace("\\", "")
    assert float(values["exact"]) == pytest.approx(theory.covariance[-1, 0, 0], rel=1e-4)
    assert "two_matrix" in "".join(element.value for element in app.code)


def test_a_long_prediction_begins_when_somebody_says_so(open_page: OpenPage, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ui.waiting.LONG_SECONDS", 0.5)
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", T="1.0", N="4")
    closures = [each.replace("\\", "") for each in app.table[0].value["closure"]]
    assert closures == ["mean", "source_only", "g_only", "sigma"]
    assert "the exact leading order in 1/n: about a second." in text_of(app)
    keyed(app.button, "compute-the exact leading order in 1/n").click().run()
    assert app.table[0].value["closure"].tolist()[-1] == "exact"
    assert "about a second" not in text_of(app)


def test_predict_draws_the_stored_simulation(open_page: OpenPage, results: Database) -> None:
    query = {"eps": "0.25", "T": "1.0", "n": "16", "variance": "1.0", "correlation": "0.3"}
    app = open_page(results.url, "predict", **query)
    run = int(queries.runs(results, kind="simulation", activation="tanh")["run_id"].iloc[0])
    assert not app.exception
    (link,) = app.get("page_link")
    assert link.proto.label == f"simulation: run {run}, n = 16, M = 2048 networks"
    assert "simulation ± 2 s.e." in app.get("plotly_chart")[0].proto.spec
    app = open_page(results.url, "predict", **query, sigma="gelu")
    assert not app.get("page_link")


def test_predict_shows_the_next_order_and_widths_where_they_are_asked_for(open_page: OpenPage, tmp_path: Path) -> None:
    query = {"sigma": "relu", "eps": "0.25", "T": "1.0", "N": "1", "variance": "1.0"}
    plain = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query)
    assert len(plain.get("plotly_chart")) == 1
    assert "Windows in width n*" not in [element.value for element in plain.subheader]
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query, next="true", tau="0.1")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 2
    titles = [element.value for element in app.subheader]
    assert titles.index("The next order in 1/n at T") < titles.index("Windows in width n*")
    coefficients = next(table.value for table in app.table if "coefficient" in table.value)
    assert [name.replace("\\", "") for name in coefficients["coefficient"]] == ["D[00,00]", "K2[00]", "T[00,00,00]"]
    widths = app.table[-1].value.set_index(["closure", "quantity"])
    assert widths.columns[-1].replace("\\", "") == "τ = 0.1"
    assert widths.loc[("g\\_only", "V4")].iloc[-1] == "no width"
    model = eft.ResNet(activation="relu", weight_variance=2.0, epsilon=0.25, depth=16)
    exact = eft.predict(model, eft.InputKernel.explicit([[1.0]]), "exact", next_order=True, truncation=0.01)
    row = eft.width_windows(exact, tolerances=[0.1]).query("quantity == 'V4' and depth == 16").iloc[0]
    found = re.sub(r"\\(.)", r"\1", widths.loc[("exact leading order", "V4")].iloc[-1])
    assert found == width_text(row.to_dict())


def test_predict_tells_why_there_is_no_next_order(open_page: OpenPage, tmp_path: Path, monkeypatch) -> None:
    def refused(spec: eft.PredictionSpec) -> eft.Theory:
        if spec.next_order:
            reason = "the next order does not converge with 'sin' at this kernel"
            raise InputError(reason, place="next_order", value=True)
        return eft.predict_spec(spec)

    monkeypatch.setattr("ui.data.predict.predict_quietly", refused)
    query = {"sigma": "sin", "eps": "0.5", "T": "1.0", "N": "1"}
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", **query, next="true")
    assert told(app) == ["next_order = True: the next order does not converge with 'sin' at this kernel"]
    assert len(app.get("plotly_chart")) == 1


def test_predict_writes_the_study_file(open_page: OpenPage, results: Database, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EFT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    app = open_page(results.url, "predict", sigma="gelu", n="32")
    assert [button.label for button in app.button] == ["Write study file"]
    app.button[0].click().run()
    (path,) = (tmp_path / "home" / "studies").glob("*.toml")
    assert f"eft run {path}" in text_of(app)
    written = tomllib.loads(path.read_text())
    assert (written["model"]["activation"], written["widths"]) == ("gelu", [32])


def test_predict_shows_what_a_file_was_read_as(open_page: OpenPage, tmp_path: Path) -> None:
    app = open_page(f"sqlite:///{tmp_path / 'none.db'}", "predict", source="data file", T="0.1")
    app.file_uploader[0].set_value(("x.csv", b"a,b\n1,1\n1,-1\n3,4\n", "text/csv")).run()
    (preview,) = [each for each in app.expander if "read as" in each.label]
    assert preview.label == "read as 3 rows of 2 numbers: the table, and K⁰"
    table, kernel = (each.value.to_numpy().tolist() for each in preview.dataframe)
    assert table == [[1.0, 1.0], [1.0, -1.0], [3.0, 4.0]]
    assert kernel == [[1.0, 0.0, 3.5], [0.0, 1.0, -0.5], [3.5, -0.5, 12.5]]


def test_predict_says_what_is_wrong_below_its_fields(open_page: OpenPage, results: Database) -> None:
    app = open_page(results.url, "predict", correlation="-0.9", N="4", eps="0.001")
    assert not app.exception
    assert told(app) == [
        f"total_time = 2.0: with epsilon = 0.001 it takes 2000000 layers, and this page predicts up to {MOST_LAYERS};"
        " use `eft predict`, with --continuous for the limit epsilon -> 0",
        "correlation = -0.9: must lie between -0.333333 and 1 for 4 inputs",
    ]
    assert keyed(app.slider, "correlation").value == -0.9, "the fields of the kernel are there, whatever the model"
