"""How configurations and theories are told apart in words, and the order in which people read them."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd

from db.reading.window_queries import THEORY
from eftcore.quantities import ORDER
from eftcore.specs import CLOSURES, Numerics, usual_step
from ui.notation import CONFIGURATION, SETTINGS, configuration_text

_USUAL_RTOL = Numerics().rtol


def split_columns(rows: pd.DataFrame) -> tuple[str, list[str]]:
    """The configuration columns that are the same in all rows, in words, and the names of those that differ."""
    there = [column for column in (*CONFIGURATION, *SETTINGS) if column in rows]
    differing = [column for column in there if rows[column].nunique(dropna=False) > 1]
    same = [column for column in there if column in CONFIGURATION and column not in differing]
    return configuration_text(rows.iloc[0].to_dict(), same), differing


def name_theories(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column theory, in the words of theory_name."""
    names = [theory_name(*theory) for theory in rows[list(THEORY)].itertuples(index=False, name=None)]
    return _tell_apart(rows.assign(theory=names), "theory", "prediction_run_id", within=_reference_run(rows))


def theory_name(
    closure: str,
    order: float | None,
    nodes: float | None,
    converged: bool | None = None,
    step: str | None = None,
    continuous: bool | None = None,
    rtol: float | None = None,
) -> str:
    """A prediction in few words: the closure with its order, and whatever of its settings is not the usual one.

    One whose integrals did not converge says so, unless its rule is fixed.

    >>> theory_name("g_only", None, None), theory_name("wick", 8, None), theory_name("g_only", None, 32)
    ('g_only', 'wick m=8', 'g_only 32-node')
    >>> theory_name("g_only", None, None, False)
    'g_only (not converged)'
    >>> theory_name("g_only", None, None, True, "exact"), theory_name("wick", 8, None, True, "exact", False, 1e-6)
    ('g_only, exact step', 'wick m=8, rtol 1e-06')
    """
    name = closure if pd.isna(order) else f"{closure} m={order:.0f}"
    if not pd.isna(nodes):
        name = f"{name} {nodes:.0f}-node"
    if not pd.isna(continuous) and continuous:
        name = f"{name}, continuous"
    elif not pd.isna(step) and step != usual_step(closure):
        name = f"{name}, {step} step"
    if pd.isna(nodes) and not pd.isna(rtol) and rtol != _USUAL_RTOL:
        name = f"{name}, rtol {rtol:g}"
    failed = pd.isna(nodes) and not pd.isna(converged) and not converged
    return f"{name} (not converged)" if failed else name


def name_configurations(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the column configuration: one line of what differs between the rows."""
    _, differing = split_columns(rows)
    names = [configuration_text(row, differing) for row in rows[differing].to_dict("records")]
    return _tell_apart(rows.assign(configuration=names), "configuration", _reference_run(rows))


def in_reading_order(windows: pd.DataFrame) -> pd.DataFrame:
    """Configurations as they come, in each the closures from the crudest to the finest, quantities in reading order."""
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
    """The column that names what the rows were held against: a simulation, or a better theory."""
    return "simulation_run_id" if "simulation_run_id" in rows else "reference_run_id"


def _tell_apart(rows: pd.DataFrame, name: str, identity: str, within: str | None = None) -> pd.DataFrame:
    """Append the run's number to names that several runs would share."""
    keys: list[Hashable] = [name] if within is None else [within, name]
    shared = rows.groupby(keys, sort=False)[identity].transform("nunique") > 1
    numbered = [
        f"{text} · run {run_id}".removeprefix(" · ") for text, run_id in zip(rows[name], rows[identity], strict=True)
    ]
    renamed = rows.copy()
    renamed[name] = rows[name].where(~shared, pd.Series(numbered, index=rows.index))
    return renamed
