"""Frames as text: as a table on a terminal, as JSON for other programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from db.reading.distinguishing import SIMULATION_SETTINGS, distinguishing
from eftcore.specs import OF_BLOCKS
from flows.windows_table import LEGEND, WIDTH_LEGEND, widths_table, windows_table

if TYPE_CHECKING:
    from eftcore.ensemble import Attained

_PIPE_WIDTH = 1000

RUN_COLUMNS = (
    "run_id",
    "kind",
    "status",
    "activation",
    "kernel_label",
    "epsilon",
    "depth",
    "width",
    "samples",
    "closure",
)
"""Columns of v_runs that a terminal shows; --json gives every column."""

_RUN_SETTINGS = (
    *(
        "weight_variance",
        "bias_variance",
        "block",
        *OF_BLOCKS,
        "closure_order",
        "nodes",
        "step",
        "continuous",
        "rtol",
        "next_order",
    ),
    *SIMULATION_SETTINGS,
    "superseded",
)
"""Further columns of v_runs, shown where runs differ only in them."""


def console(*, stderr: bool = False) -> Console:
    """A console that never cuts a table short when its output goes to a file or a pipe."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_PIPE_WIDTH)


def print_frame(
    frame: pd.DataFrame, *, as_json: bool = False, columns: Sequence[str] | None = None, limit: int = 0
) -> None:
    """Print rows to standard output, as JSON (a list of objects, NaN as null) or as a table of some or all columns.

    If there are more rows than ``limit`` (0 for no limit), the first ones are printed with a note on standard error;
    JSON is then an object with ``rows`` and ``"truncated": true``, so that programs notice the missing rows.
    """
    if columns is not None:
        frame = frame[list(columns)]
    cut = 0 < limit < len(frame)
    if cut:
        frame = frame.head(limit)
        print(f"the first {limit} rows of more; --limit 0 prints all", file=sys.stderr)
    if as_json:
        print_json({"rows": records(frame), "truncated": True, "limit": limit} if cut else records(frame))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name, dtype in frame.dtypes.items():
        table.add_column(str(name), justify="right" if dtype.kind in "if" else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_text(value)) for value in row))
    console().print(table)


def run_columns(runs: pd.DataFrame) -> list[str]:
    """The columns of v_runs to show on a terminal, so that these runs can be distinguished."""
    alike = [name for name in RUN_COLUMNS if name not in ("run_id", "status")]
    return [*RUN_COLUMNS, *distinguishing(runs, alike, _RUN_SETTINGS)]


def print_windows(windows: pd.DataFrame) -> None:
    """Print validity windows (with the columns that windows_table needs) as a table with its legend."""
    if windows.empty:
        print_frame(windows, columns=("activation", "quantity", "closure", "tolerance", "status"))
        return
    _print_headed(*windows_table(windows), LEGEND)


def print_widths(widths: pd.DataFrame) -> None:
    """Print windows in width (with the columns that widths_table needs) as a table with its legend."""
    if widths.empty:
        print_frame(widths, columns=("activation", "quantity", "closure", "tolerance", "status"))
        return
    _print_headed(*widths_table(widths), WIDTH_LEGEND)


def _print_headed(heading: str, table: pd.DataFrame, legend: str) -> None:
    print(heading)
    print_frame(table)
    print(legend)


def precision_table(attained: Iterable[Attained]) -> pd.DataFrame:
    """One row for each simulation with a target precision: the precision reached and why it stopped."""
    rows = [
        {
            "activation": now.spec.model.activation,
            "weight_variance": now.spec.model.weight_variance,
            "bias_variance": now.spec.model.bias_variance,
            "epsilon": now.spec.model.epsilon,
            "depth": now.spec.model.depth,
            "kernel_label": now.spec.kernel.label,
            "width": now.spec.width,
            "quantity": now.target.quantity,
            "kind": "absolute" if now.target.relative is None else "relative",
            "target": now.target.bound,
            "reached": now.error,
            "samples": now.samples,
            "stopped": now.stopped,
        }
        for now in attained
    ]
    return pd.DataFrame(rows)


def print_precision(attained: Iterable[Attained]) -> None:
    """Print the precision that simulations reached, with a hint where the largest number of networks came first."""
    results = list(attained)
    print("Largest standard error over depth:")
    print_frame(precision_table(results))
    if not all(now.met for now in results):
        print("Where a cap was reached, raise max_samples in [precision] to go on; finished shards are kept.")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able objects, NaN as None."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if value is pd.NaT or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def _text(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
