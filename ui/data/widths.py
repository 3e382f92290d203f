"""From which width on each theory holds, n*: frames for the pages Predict and Windows.

A frame of widths has a row for each theory, quantity and depth: series (the configuration where several are shown, and
the theory, in words), closure, quantity, time, width, width_low, width_high, status, and reference_kind: "theory" where
the next order in 1/n says it, "simulation" where simulated networks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from db.reading.window_queries import THEORY, width_rows
from db.schema.views import v_width_windows
from db.session import Database
from eftcore.results import Theory
from eftcore.specs import CLOSURES
from eftcore.verdicts.widths import widths_of
from eftcore.words import width_text
from ui.data.naming import split_columns, theory_names
from ui.data.windows import WindowFilter
from ui.notation import configuration_text, number

MOST_SERIES = 12
"""Most theories, of one or several configurations, that are drawn; for more, the page asks for filters."""

_KINDS = {"theory": "next order in 1/n", "simulation": "simulated networks"}
"""What says from which width on, in words."""


def predicted_widths(theories: Mapping[str, Theory], exact: Theory, tolerances: Sequence[float]) -> pd.DataFrame:
    """A frame of widths by the next order of ``exact``, of it and of other theories by name; with column tolerance."""
    named = {"exact": exact, **{name: theory for name, theory in theories.items() if name != "exact"}}
    frames = [
        widths_of(theory, exact, tolerances).assign(closure=name, series=name, reference_kind="theory")
        for name, theory in named.items()
    ]
    return pd.concat(frames, ignore_index=True)


def predicted_widths_table(widths: pd.DataFrame) -> pd.DataFrame:
    """n* at the last depth as texts: a row per closure and quantity, a column per tolerance."""
    last = widths[widths["time"] == widths["time"].max()]
    rows = []
    for (closure, quantity), part in last.groupby(["closure", "quantity"], sort=False):
        texts = {f"τ = {number(row['tolerance'])}": width_text(row) for row in part.to_dict("records")}
        rows.append(
            {"closure": "exact leading order" if closure == "exact" else closure, "quantity": quantity, **texts}
        )
    return pd.DataFrame(rows)


def build_widths(db: Database, chosen: WindowFilter) -> pd.DataFrame:
    """A frame of widths of the stored predictions that satisfy the filter of the page Windows. One statement.

    Further columns are depth, layer, and configuration in words. What the filter says of simulations (their width,
    number of networks, settings) does not apply: a row may rest on several of them.
    """
    allowed = {
        name: list(values)
        for name, values in chosen.lists().items()
        if name in v_width_windows.c and name not in ("reference_kind", "width")
    }
    rows = width_rows(db, allowed)
    if rows.empty:
        return rows.assign(configuration="", theory="", series="")
    _, differing = split_columns(rows.drop(columns="width"))
    configuration = pd.Series([configuration_text(row, differing) for row in rows[differing].to_dict("records")])
    # only the leading order is judged, also where the next one is known
    theory = pd.Series(theory_names(rows.assign(next_order=False)[list(THEORY)]))
    series = (configuration + ", " + theory).str.removeprefix(", ")
    rank = rows["closure"].map(CLOSURES.index)
    named = rows.assign(configuration=configuration, theory=theory, series=series, rank=rank)
    return named.sort_values(["configuration", "rank", "prediction_run_id"], kind="stable").reset_index(drop=True)


def widths_table(widths: pd.DataFrame) -> pd.DataFrame:
    """n* at the last layer of each stored configuration, one row per theory, quantity and what says it."""
    last = widths[widths["layer"] == widths["depth"]]
    return pd.DataFrame(
        {
            "configuration": last["configuration"],
            "theory": last["theory"],
            "quantity": last["quantity"],
            "t": last["time"],
            "from": last["reference_kind"].map(_KINDS),
            "n*": [width_text(row) for row in last.to_dict("records")],
        }
    ).reset_index(drop=True)
