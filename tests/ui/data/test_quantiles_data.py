"""Quantiles of one network's kernel: frames, the law from theory beside them, the figure, and the download."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import eftcore as eft
from db.reading import queries
from db.reading.kernel_laws import quantiles_beside_law
from db.session import Database
from db.writing.repository import record_prediction, record_simulation
from eftcore.results import Theory
from tests.ui.conftest import PROVENANCE
from ui.data.quantiles import build_quantiles, quantiles_table
from ui.data.run import build_download
from ui.figures import quantiles_figure

MODEL = eft.ResNet(activation="tanh", weight_variance=2.0, epsilon=0.25, depth=16)
KERNEL = eft.InputKernel.equicorrelated(n_inputs=2, variance=1.0, correlation=0.3)
ENDS = (0.025, 0.16, 0.5, 0.84, 0.975)


@pytest.fixture(scope="module")
def exact() -> Theory:
    return eft.predict(MODEL, KERNEL, "exact", next_order=True, truncation=0.05)


def test_the_law_stands_beside_what_was_simulated(
    fresh: Database, put: Callable[..., int], exact: Theory, statements: list[str]
) -> None:
    """At each layer, entry and probability it is that of kernel_law at the width of the simulation."""
    kernel = eft.InputKernel.explicit([[1.0, 0.3], [0.3, 2.0]])
    sample = eft.simulate(MODEL, kernel, width=16, samples=256, device="cpu")
    run_id = record_simulation(fresh, sample, provenance=PROVENANCE)
    here = eft.predict(MODEL, kernel, "exact", next_order=True, truncation=0.05)
    prediction = record_prediction(fresh, here, provenance=PROVENANCE)
    put(fresh, "tanh")
    record_prediction(fresh, exact, provenance=PROVENANCE)
    before = len(statements)
    simulated = build_quantiles(fresh, run_id, ["11"])
    assert len(statements) - before == 1
    compared = quantiles_beside_law(fresh, simulated)
    assert len(statements) - before == 1 + 2
    rows = compared.rows
    assert (compared.run_id, compared.said) == (prediction, "")
    assert (len(rows), set(rows["component"])) == (17 * 7, {"11"})
    pd.testing.assert_frame_equal(rows[simulated.columns], simulated)
    law = eft.kernel_law(here, 16)
    for layer in (0, 5, 16):
        some = rows[rows["layer"] == layer]
        expected = law.entry(1, layer=layer).quantile(some["probability"].to_numpy())
        np.testing.assert_allclose(some["law"], expected, rtol=1e-12)
        below = law.entry(1, layer=layer).cdf(some["value"].to_numpy())
        np.testing.assert_allclose(some["law_probability"], below, rtol=1e-12)


def test_the_table_says_where_the_law_lies(fresh: Database, put: Callable[..., int], exact: Theory) -> None:
    run_id = put(fresh, "tanh")
    assert list(quantiles_table(quantiles_beside_law(fresh, build_quantiles(fresh, run_id)).rows, 1.0)) == [
        *("component", "probability", "simulated", "95 % bounds")
    ]
    record_prediction(fresh, exact, provenance=PROVENANCE)
    rows = quantiles_beside_law(fresh, build_quantiles(fresh, run_id, ["00"])).rows
    last = rows["time"] == 1.0
    values = rows.loc[last, "value"].to_numpy()
    rows.loc[last, ["low", "high"]] = np.stack([values - 0.1, values + 0.1], axis=1)
    rows.loc[last, "law"] = values + np.array([-0.2, 0.2, 0.05, 0.0, np.nan, 0.0, 0.0])
    rows.loc[rows[last].index[-1], ["low", "high"]] = np.nan
    table = quantiles_table(rows, 1.0)
    assert table["probability"].tolist() == ["0.005", "0.025", "0.16", "0.5", "0.84", "0.975", "0.995"]
    assert table["the law lies"].tolist() == ["below", "above", "within", "within", "—", "within", "—"]
    assert table["95 % bounds"].iloc[-1] == "— … —"


def test_a_law_that_is_not_there_is_explained(fresh: Database, put: Callable[..., int], exact: Theory) -> None:
    simulated = build_quantiles(fresh, put(fresh, "tanh"), ["00"])
    without = quantiles_beside_law(fresh, simulated)
    assert without.rows["law"].isna().all()
    assert without.run_id is None
    assert "next_order = true" in without.said
    older = record_prediction(fresh, replace(exact, third_cumulant=None), provenance=PROVENANCE)
    compared = quantiles_beside_law(fresh, simulated)
    assert compared.rows["law"].isna().all()
    assert compared.said.startswith(f"Run {older} was recorded without T")
    assert quantiles_beside_law(fresh, build_quantiles(fresh, 99)).said == ""


def test_the_law_is_of_layers_before_continuous_depth_and_not_superseded_before_either(
    fresh: Database, put: Callable[..., int], exact: Theory
) -> None:
    run_id = put(fresh, "tanh")
    layers = record_prediction(fresh, exact, provenance=PROVENANCE)
    smooth = eft.predict(MODEL, KERNEL, "exact", next_order=True, truncation=0.05, continuous=True)
    continuous = record_prediction(fresh, smooth, provenance=PROVENANCE)
    assert continuous > layers
    assert quantiles_beside_law(fresh, build_quantiles(fresh, run_id)).run_id == layers
    with fresh.session() as session:
        session.connection().exec_driver_sql(f"UPDATE runs SET algorithm_version = 1 WHERE id = {layers}")
    assert quantiles_beside_law(fresh, build_quantiles(fresh, run_id)).run_id == continuous


def test_a_law_outside_the_range_in_which_it_was_measured_says_so(fresh: Database, exact: Theory) -> None:
    """Widths from 8 on."""
    sample = eft.simulate(MODEL, KERNEL, width=4, samples=256, device="cpu")
    run_id = record_simulation(fresh, sample, provenance=PROVENANCE)
    record_prediction(fresh, exact, provenance=PROVENANCE)
    compared = quantiles_beside_law(fresh, build_quantiles(fresh, run_id))
    assert "its intervals may be wrong at 17 of 17 t" in compared.said
    assert compared.rows["law"].notna().all()


def test_the_figure_has_bands_of_the_simulation_and_lines_of_the_law(
    fresh: Database, put: Callable[..., int], exact: Theory
) -> None:
    run_id = put(fresh, "tanh")
    alone = quantiles_figure(quantiles_beside_law(fresh, build_quantiles(fresh, run_id)).rows)
    names = [trace.name for trace in alone.data if trace.name]
    assert names == ["simulated: median", "68 % of networks", "95 % of networks"]
    record_prediction(fresh, exact, provenance=PROVENANCE)
    rows = quantiles_beside_law(fresh, build_quantiles(fresh, run_id)).rows
    figure = quantiles_figure(rows)
    names = [trace.name for trace in figure.data if trace.name]
    assert names == [*names[:3], "law: median", "law: 68 %", "law: 95 %"]
    assert [note.text for note in figure.layout.annotations] == [
        f"G<sub>{entry}</sub>  kernel of one network" for entry in ("00", "11")
    ]
    assert figure.layout.xaxis.title.text == "depth  t = ε² ℓ"
    assert figure.layout.yaxis2.title.text == "G<sub>11</sub>  (dimensionless)"
    of = {p: rows[(rows["component"] == "11") & (rows["probability"] == p)] for p in ENDS}
    second = [trace for trace in figure.data if trace.xaxis == "x2"]
    for level, low, high in (("68", 0.16, 0.84), ("95", 0.025, 0.975)):
        (band,) = [trace for trace in second if trace.fill and trace.legendgroup == f"{level} % of networks"]
        np.testing.assert_array_equal(band.y, [*of[high]["value"], *of[low]["value"][::-1]])
        lines = [trace.y for trace in second if trace.legendgroup == f"law: {level} %"]
        np.testing.assert_array_equal(lines, [of[low]["law"], of[high]["law"]])
    (median,) = [trace for trace in second if trace.mode == "markers"]
    np.testing.assert_array_equal(median.y, of[0.5]["value"])
    np.testing.assert_allclose(median.y + median.error_y.array, of[0.5]["high"], rtol=1e-14)
    np.testing.assert_allclose(median.y - median.error_y.arrayminus, of[0.5]["low"], rtol=1e-14)
    (line,) = [trace for trace in second if trace.legendgroup == "law: median"]
    np.testing.assert_array_equal(line.y, of[0.5]["law"])
    assert not any(trace.showlegend for trace in second)
    below = quantiles_figure(rows, narrow=True)
    assert below.layout.yaxis2.domain[1] < below.layout.yaxis.domain[0]


def test_the_download_has_every_quantile_and_the_law(fresh: Database, put: Callable[..., int], exact: Theory) -> None:
    run_id = put(fresh, "tanh")
    record_prediction(fresh, exact, provenance=PROVENANCE)
    frame = pd.read_csv(io.BytesIO(build_download(fresh, run_id, "quantiles", "csv")))
    assert list(frame)[-2:] == ["law", "law_probability"]
    assert len(frame) == len(queries.quantiles(fresh)) == 2 * 17 * 7
    assert frame["law"].notna().all()
