"""The frames behind the compare page: several configurations or theories against depth.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from db.reading import queries
from db.reading.stored_results import StoredSample, stored_results
from db.reading.window_queries import THEORY, window_counts
from db.session import Database
from eftcore.results import Theory
from eftcore.specs import CLOSURES
from eftcore.verdicts.windows import DEFAULT_TOLERANCES, compare
from ui.data.naming import name_configurations, theory_names

MOST_SERIES = 8
"""Most curves in one figure; more could not be distinguished."""


def build_theories(db: Database, simulation_run_ids: Sequence[int]) -> pd.DataFrame:
    """Theories compared with these simulations: both run ids, closure, closure_order, next_order, theory.

    One row per simulation and prediction, theories sorted from the crudest to the finest. One statement.
    """
    columns = ["simulation_run_id", "prediction_run_id", *THEORY]
    rows = window_counts(db, columns, {"reference_run_id": list(simulation_run_ids)})
    names = theory_names(rows[list(THEORY)])
    rows = rows.assign(theory=names, rank=rows["closure"].map(CLOSURES.index))
    ordered = rows.sort_values(["rank", "closure_order", "prediction_run_id"])
    kept = ["simulation_run_id", "prediction_run_id", "closure", "closure_order", "next_order", "theory"]
    return ordered.drop_duplicates(["simulation_run_id", "theory"])[kept]


def build_series(db: Database, pairs: pd.DataFrame, components: Sequence[str]) -> pd.DataFrame:
    """Chosen components over depth, for chosen pairs of simulation and prediction (rows of build_theories).

    Columns are those of v_trajectories, and the texts configuration (what differs between the simulations; empty for a
    single one), theory, and series (both). One statement.
    """
    rows = queries.trajectories(
        db,
        simulation_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
        component=list(components),
    )
    return _named(rows, pairs)


def build_series_errors(db: Database, pairs: pd.DataFrame) -> pd.DataFrame:
    """Relative error over depth against the simulation: v_errors with the texts of build_series. One statement."""
    rows = queries.errors(
        db,
        reference_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
    )
    return _named(rows, pairs)


def build_measured_errors(db: Database, names: pd.DataFrame) -> pd.DataFrame:
    """Relative error over depth against the newest measured next order of each configuration. One statement.

    Args:
        names: series of each pair, as in build_exact_errors; only predictions of the next order have such errors.
    """
    chosen = names["prediction_run_id"].unique().tolist()
    rows = queries.errors(db, reference_kind="measurement", prediction_run_id=chosen)
    newest = rows.groupby("prediction_run_id")["reference_run_id"].transform("max")
    labelled = names.drop_duplicates("prediction_run_id")[["prediction_run_id", "configuration", "theory", "series"]]
    return rows[rows["reference_run_id"] == newest].merge(labelled, on="prediction_run_id")


def build_exact_errors(
    results: Mapping[int, Theory | StoredSample], pairs: pd.DataFrame, exact: Mapping[int, Theory], names: pd.DataFrame
) -> pd.DataFrame:
    """Relative error over depth against the exact leading order. No statement.

    Unlike the error against a simulation it has no statistical noise and no finite-width part.

    Args:
        results: the predictions of the pairs, by run id.
        exact: the exact leading order of each simulation's configuration, by run id of the simulation.
        names: series of each pair (columns simulation_run_id, prediction_run_id, configuration, theory, series).
    """
    frames = []
    for pair in pairs.to_dict("records"):
        theory = results[int(pair["prediction_run_id"])]
        assert isinstance(theory, Theory)
        errors = compare(theory, exact[int(pair["simulation_run_id"])], DEFAULT_TOLERANCES).errors
        frames.append(errors.assign(**{name: pair[name] for name in ("simulation_run_id", "prediction_run_id")}))
    keys = ["simulation_run_id", "prediction_run_id"]
    labelled = names.drop_duplicates(keys)[[*keys, "configuration", "theory", "series", "closure", "samples"]]
    return pd.concat(frames, ignore_index=True).merge(labelled, on=keys)


def build_results(db: Database, run_ids: Sequence[int]) -> dict[int, Theory | StoredSample]:
    """Results of runs by id, with all entries of their arrays. One statement."""
    return stored_results(db, run_ids)


def _named(rows: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    keys = ["simulation_run_id", "prediction_run_id"]
    kept = rows.merge(pairs[[*keys, "theory"]], on=keys)
    if kept.empty:
        return kept.assign(configuration="", series="")
    named = name_configurations(kept)
    if named["simulation_run_id"].nunique() == 1:
        named["configuration"] = ""
    series = named["configuration"] + ": " + named["theory"]
    return named.assign(series=series.str.removeprefix(": "))
