"""Names by which configurations and theories can be distinguished, and the order in which they are listed."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd

from db.reading.window_queries import THEORY
from eftcore.quantities import ORDER
from eftcore.specs import CLOSURES, HIDDEN
from eftcore.words import theory_name
from ui.notation import CONFIGURATION, SETTINGS, configuration_text


def split_columns(rows: pd.DataFrame) -> tuple[str, list[str]]:
    """A text with the values that all rows share, and the names of the configuration columns in which rows differ."""
    there = [column for column in (*CONFIGURATION, *SETTINGS) if column in rows and rows[column].notna().any()]
    if "block" in there and (rows["block"] == "one_matrix").all():
        there.remove("block")
    two = rows[rows["block"] == "two_matrix"] if "block" in there else rows
    # one matrix has none of these: that is no difference in them
    differing = [column for column in there if (two if column in HIDDEN else rows)[column].nunique(dropna=False) > 1]
    same = [column for column in there if column in CONFIGURATION and column not in differing]
    return configuration_text(rows.iloc[0].to_dict(), same), differing


def name_theories(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column theory, in the words of eftcore.words.theory_name."""
    named = rows.assign(theory=theory_names(rows[list(THEORY)]))
    return _tell_apart(named, "theory", "prediction_run_id", within=_reference_run(rows))


def theory_names(theories: pd.DataFrame) -> list[str]:
    """theory_name of each row; the columns of ``theories`` are the arguments of theory_name in their order."""
    return [theory_name(*theory) for theory in theories.itertuples(index=False, name=None)]


def name_configurations(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column configuration: a text with the values in which rows differ."""
    _, differing = split_columns(rows)
    names = [configuration_text(row, differing) for row in rows[differing].to_dict("records")]
    return _tell_apart(rows.assign(configuration=names), "configuration", _reference_run(rows))


def in_reading_order(windows: pd.DataFrame) -> pd.DataFrame:
    """Windows sorted for reading: within each configuration closures from crudest to finest, then quantities."""
    keys = pd.DataFrame(
        {
            "configuration": pd.factorize(windows["configuration"])[0],
            "closure": windows["closure"].map(CLOSURES.index),
            "quantity": windows["quantity"].map(ORDER),
            "tolerance": windows["tolerance"],
            "prediction_run_id": windows["prediction_run_id"],
        }
    )
    return windows.loc[keys.sort_values(keys.columns.tolist()).index].reset_index(drop=True)


def _reference_run(rows: pd.DataFrame) -> str:
    """The column with the run id of what predictions stand beside: v_trajectories has simulations alone."""
    return "reference_run_id" if "reference_run_id" in rows else "simulation_run_id"


def _tell_apart(rows: pd.DataFrame, name: str, identity: str, within: str | None = None) -> pd.DataFrame:
    """Append the run id to names that several runs would share."""
    keys: list[Hashable] = [name] if within is None else [within, name]
    shared = rows.groupby(keys, sort=False)[identity].transform("nunique") > 1
    numbered = [
        f"{text} · run {run_id}".removeprefix(" · ") for text, run_id in zip(rows[name], rows[identity], strict=True)
    ]
    renamed = rows.copy()
    renamed[name] = rows[name].where(~shared, pd.Series(numbered, index=rows.index))
    return renamed
