"""The frames behind the compare page: several configurations or theories against depth.

``build_*`` functions read a database and know nothing of Streamlit or Plotly. Each says how many SQL statements it
costs; the tests hold it to that.
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
"""Curves overlaid at most; more cannot be told apart."""


def build_theories(db: Database, simulation_run_ids: Sequence[int]) -> pd.DataFrame:
    """Theories compared with these simulations: simulation_run_id, prediction_run_id, closure, closure_order, theory.

    From the crudest to the finest; one row per simulation and prediction. One statement.
    """
    columns = ["simulation_run_id", "prediction_run_id", *THEORY]
    rows = window_counts(db, columns, {"simulation_run_id": list(simulation_run_ids)})
    names = theory_names(rows[list(THEORY)])
    rows = rows.assign(theory=names, rank=rows["closure"].map(CLOSURES.index))
    ordered = rows.sort_values(["rank", "closure_order", "prediction_run_id"])
    kept = ["simulation_run_id", "prediction_run_id", "closure", "closure_order", "theory"]
    return ordered.drop_duplicates(["simulation_run_id", "theory"])[kept]


def build_series(db: Database, pairs: pd.DataFrame, components: Sequence[str]) -> pd.DataFrame:
    """Chosen components of chosen pairs (rows of build_theories) over depth: columns of v_trajectories with the texts
    configuration (what differs between the simulations; empty for one alone), theory and series (both). One statement.
    """
    rows = queries.trajectories(
        db,
        simulation_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
        component=list(components),
    )
    return _named(rows, pairs)


def build_series_errors(db: Database, pairs: pd.DataFrame) -> pd.DataFrame:
    """Relative error over depth against the simulation: v_errors, named as in build_series. One statement."""
    rows = queries.errors(
        db,
        simulation_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
    )
    return _named(rows, pairs)


def build_exact_errors(
    results: Mapping[int, Theory | StoredSample], pairs: pd.DataFrame, exact: Mapping[int, Theory], names: pd.DataFrame
) -> pd.DataFrame:
    """Relative error over depth against the exact leading order, without noise or finite-width part. No statement.

    Args:
        results: the predictions of the pairs, by run.
        exact: the exact leading order of each simulation's configuration, by the simulation's run.
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
    """Runs with all their entries. One statement."""
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
