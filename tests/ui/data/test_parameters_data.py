"""Which parameter decides: the frames, against SQL on the same database."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from db.reading import queries
from db.session import Database
from ui.data.parameters import (
    averages,
    build_depths,
    parameters_of,
    said_of_shares,
    shares_of,
    shares_table,
)
from ui.data.windows import PARAMETERS, WindowFilter
from ui.figures import averages_figure, parallel_figure, shares_figure

CHOSEN = WindowFilter(tolerance=0.1)


@pytest.fixture
def depths(both: Database) -> pd.DataFrame:
    return build_depths(both, CHOSEN, list(PARAMETERS))


def test_depths_are_those_of_sql(both: Database, depths: pd.DataFrame) -> None:
    stored = queries.windows(both, tolerance=0.1, reference_kind="simulation")
    assert len(depths) == len(stored)
    assert (depths["horizon"] == stored["total_time"].min()).all()
    assert parameters_of(depths) == ["activation"]
    for quantity, part in depths.groupby("quantity"):
        rows = stored[stored["quantity"] == quantity]
        known = rows[rows["status"] != "too_noisy"]
        assert part["low"].sum() == pytest.approx(known["certified_until"].fillna(0).sum())
        refuted = known["refuted_from"].fillna(1.0).sum()
        assert part["high"].sum() == pytest.approx(refuted)
        assert part["low"].isna().sum() == (rows["status"] == "too_noisy").sum()


def test_averages_are_those_of_sql(both: Database, depths: pd.DataFrame) -> None:
    found = averages(depths, "activation")
    assert found["across"].tolist()[:2] == ["relu", "tanh"]
    for row in found.to_dict("records"):
        (middle,) = depths[
            (depths["quantity"] == row["quantity"])
            & (depths["theory"] == row["theory"])
            & (depths["activation"] == row["across"])
        ]["middle"]
        sql = (
            "SELECT avg((coalesce(certified_until, 0) + coalesce(refuted_from, total_time)) / 2) AS mean, count(*) AS n"
            " FROM v_windows WHERE tolerance = 0.1 AND status <> 'too_noisy' AND quantity = :quantity"
            " AND closure = :theory AND activation = :across"
        )
        stored = queries.select(both, sql, {name: row[name] for name in ("quantity", "theory", "across")}).iloc[0]
        assert row["windows"] == stored["n"]
        if stored["n"]:
            assert row["mean"] == pytest.approx(float(stored["mean"])) == pytest.approx(middle)


def test_shares_name_the_parameter_and_say_what_they_rest_on(depths: pd.DataFrame) -> None:
    one = depths[(depths["quantity"] == "V4") & (depths["theory"] == "source_only")]
    assert one["middle"].nunique() == 2
    shares = shares_of(one)
    assert shares["parameter"].tolist() == ["σ"]
    assert shares["first_order"].tolist() == pytest.approx([1.0])
    assert shares_table(shares)["alone by chance / %"].tolist() == ["100"], "two configurations tell nothing"
    said = said_of_shares(one)
    assert said.startswith("2 windows; of 0 only t* ≥ 1 is known")
    assert "no full grid" not in said
    noisy = pd.concat([one, one.assign(low=np.nan, high=np.nan, middle=np.nan)])
    assert "2 more are not resolved and left out" in said_of_shares(noisy)


def test_figures_draw_every_configuration_and_every_theory(depths: pd.DataFrame) -> None:
    one = depths[(depths["quantity"] == "V4") & (depths["theory"] == "source_only")]
    (lines,) = parallel_figure(one, {"activation": "σ"}).data
    assert [dimension.label for dimension in lines.dimensions] == ["σ", "min(t*, 1)"]
    assert list(lines.dimensions[0].ticktext) == ["relu", "tanh"]
    assert list(lines.dimensions[1]["values"]) == one["middle"].tolist()
    found = averages(depths, "activation")
    drawn = [trace for trace in averages_figure(found, "σ", 1.0).data if trace.mode == "lines+markers"]
    assert sum(len(trace.y) for trace in drawn) == len(found)
    assert {trace.name for trace in drawn} == {"mean", "source_only", "g_only"}
    bars = [trace for trace in shares_figure(shares_of(one)).data if trace.type == "bar"]
    assert [trace.name for trace in bars] == ["alone", "with others"]
