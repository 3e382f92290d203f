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
from eftcore.quantities import ORDER
from eftcore.results import Theory
from eftcore.specs import CLOSURES
from eftcore.verdicts.windows import DEFAULT_TOLERANCES, compare
from eftcore.words import window_text
from ui.data.naming import name_configurations, split_columns, theory_names
from ui.notation import CONFIGURATION, SETTINGS, number

MOST_SERIES = 8
"""Most curves in one figure; more could not be distinguished."""

SHORT = 26
"""Most letters of the name of a configuration in a legend; where one is longer, all are called A, B, C ..."""


def name_simulations(runs: pd.DataFrame, chosen: Sequence[int]) -> pd.DataFrame:
    """What is compared: a row per simulation, in the order of choice, with how it is called and in what it differs.

    Args:
        runs: v_runs of simulations.
        chosen: ids of some of them.

    Returns a frame with simulation_run_id, configuration_id, configuration (its name in figures, empty for a single
    one), described (all values in which they differ, as one text), and those columns of the configuration.
    """
    some = runs.set_index("run_id", drop=False).loc[list(chosen)].reset_index(drop=True)
    named = name_configurations(some.rename(columns={"run_id": "simulation_run_id"}))
    _, differing = split_columns(some)
    described = named["configuration"]
    if len(named) == 1:
        names = [""]
    elif described.str.len().max() > SHORT:
        names = [chr(ord("A") + place) for place in range(len(named))]
    else:
        names = described.tolist()
    kept = named[["simulation_run_id", "configuration_id", *differing]]
    return kept.assign(described=described, configuration=names)


def differences_table(named: pd.DataFrame) -> pd.DataFrame:
    """The rows of name_simulations as a table: the name, a link to the run, and only what differs."""
    titles = {name: title for name, title in {**CONFIGURATION, **SETTINGS}.items() if name in named}
    table = named[list(titles)].rename(columns=titles)
    table.insert(0, "run", [f"run?simulation={run}" for run in named["simulation_run_id"]])
    if (named["configuration"] != "").any():
        table.insert(0, "in figures", named["configuration"])
    return table


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


def name_pairs(pairs: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """Rows of build_theories with the texts configuration (of name_simulations) and series (with the theory)."""
    found = pairs.merge(named[["simulation_run_id", "configuration_id", "configuration"]], on="simulation_run_id")
    place = found["simulation_run_id"].map(named["simulation_run_id"].tolist().index)
    series = (found["configuration"] + ": " + found["theory"]).str.removeprefix(": ")
    ordered = found.assign(series=series, place=place)
    ordered["rank"] = ordered["closure"].map(CLOSURES.index)
    return ordered.sort_values(["place", "rank"], kind="stable").drop(columns=["place", "rank"])


def build_series(db: Database, pairs: pd.DataFrame, components: Sequence[str]) -> pd.DataFrame:
    """Chosen components over depth, for chosen pairs of simulation and prediction (rows of name_pairs).

    Columns are those of v_trajectories, and the texts configuration, theory and series of the pairs. One statement.
    """
    rows = queries.trajectories(
        db,
        simulation_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
        component=list(components),
    )
    return _of_pairs(rows, pairs)


def build_series_errors(db: Database, pairs: pd.DataFrame) -> pd.DataFrame:
    """Relative error over depth against the simulation: v_errors with the texts of build_series. One statement."""
    rows = queries.errors(
        db,
        reference_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
    )
    return _of_pairs(rows, pairs)


def build_series_windows(db: Database, pairs: pd.DataFrame) -> pd.DataFrame:
    """Windows t* against simulations, as texts: a row per quantity and pair, a column per tolerance. One statement."""
    rows = queries.windows(
        db,
        reference_run_id=pairs["simulation_run_id"].unique().tolist(),
        prediction_run_id=pairs["prediction_run_id"].unique().tolist(),
    )
    found = _of_pairs(rows, pairs)
    texts = found.assign(
        text=[window_text(row) for row in found.to_dict("records")],
        column=[f"τ = {number(value)}" for value in found["tolerance"]],
        rank=found["quantity"].map(ORDER),
        place=found["series"].map(pairs["series"].drop_duplicates().tolist().index),
    ).sort_values(["rank", "place", "tolerance"])
    shown = ["quantity", "configuration", "theory"] if (pairs["configuration"] != "").any() else ["quantity", "theory"]
    table = texts.pivot_table(
        index=["rank", "place", *shown], columns="column", values="text", aggfunc="first", sort=False
    )
    return table[texts["column"].drop_duplicates()].fillna("—").reset_index()[[*shown, *texts["column"].unique()]]


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


def build_exact(db: Database, configuration_ids: Sequence[int]) -> dict[int, tuple[int, Theory]]:
    """The best stored prediction of the exact leading order of each configuration that has one: run id and result.

    That is one whose numerics converged, then the one of the smallest error that it states of V4 and K1; not in
    continuous depth, and of no older version of its algorithm. Two statements.
    """
    rows = queries.runs(
        db, kind="prediction", status="succeeded", closure="exact", configuration_id=list(configuration_ids)
    )
    rows = rows[~rows["superseded"] & ~rows["continuous"]]
    results = stored_results(db, rows["run_id"].tolist()) if len(rows) else {}
    best: dict[int, tuple[int, Theory]] = {}
    for run_id, configuration in zip(rows["run_id"], rows["configuration_id"], strict=True):
        theory = results[int(run_id)]
        assert isinstance(theory, Theory)
        if configuration not in best or _unsure(theory) < _unsure(best[configuration][1]):
            best[int(configuration)] = (int(run_id), theory)
    return best


def _unsure(theory: Theory) -> tuple[bool, float]:
    return not theory.converged, relative_error(theory)


def relative_error(theory: Theory) -> float:
    """The larger of the relative errors that a prediction states of V4 and K1, of numerics and functions left out."""
    return max(theory.relative_error(name) or 0.0 for name in ("V4", "K1"))


def build_exact_errors(
    results: Mapping[int, Theory | StoredSample], pairs: pd.DataFrame, exact: Mapping[int, Theory]
) -> pd.DataFrame:
    """Relative error over depth against the exact leading order, with the bounds by what it leaves out. No statement.

    Unlike the error against a simulation it has no statistical noise and no finite-width part.

    Args:
        results: the predictions of the pairs, by run id.
        pairs: rows of name_pairs.
        exact: the exact leading order of each configuration, by its id; pairs of others are left out.
    """
    frames = []
    for pair in pairs.to_dict("records"):
        if pair["configuration_id"] not in exact:
            continue
        theory = results[int(pair["prediction_run_id"])]
        assert isinstance(theory, Theory)
        errors = compare(theory, exact[pair["configuration_id"]], DEFAULT_TOLERANCES).errors
        names = ("simulation_run_id", "prediction_run_id", "configuration", "theory", "series", "closure")
        frames.append(errors.assign(**{name: pair[name] for name in names}, samples=float("nan")))
    return pd.concat(frames, ignore_index=True)


def build_results(db: Database, run_ids: Sequence[int]) -> dict[int, Theory | StoredSample]:
    """Results of runs by id, with all entries of their arrays. One statement."""
    return stored_results(db, run_ids)


def _of_pairs(rows: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows that belong to the pairs, with their texts, in their order."""
    keys = ["simulation_run_id", "prediction_run_id"]
    return pairs[[*keys, "configuration", "theory", "series"]].merge(rows, on=keys)
