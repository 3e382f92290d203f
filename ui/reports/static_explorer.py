"""A static explorer of a release: pages for a browser that need no server, with the plane of depth and width.

``index.html`` asks for an activation, a block, a network, a quantity and a tolerance, and draws from which width on
each theory holds at each layer; below it stands how deep each theory holds. The numbers of each activation lie in a
script of their own, which the page loads when it is chosen, so that it also works as a local file.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly

from db.reading.window_queries import THEORY
from db.schema.views import OF_CONFIGURATION
from eftcore.words import block_text, verdict_text
from ui.data.naming import theory_names
from ui.figures.style import CLOSURE_LINE
from ui.notation import number
from ui.reports.document import render, write_files

MOST_LAYERS = 26
"""Most layers of a curve; of more that are recorded, so many at even distances."""

_CURVE = ("configuration_id", "reference_kind", "theory", "quantity", "tolerance")
"""Columns of widths whose values belong to one curve."""

SHOWN_QUANTITIES = ("V4", "K0", "K1")


def write_static_explorer(release: Path, folder: Path) -> list[Path]:
    """Write the explorer of a release (``db.upkeep.release``) into a folder; returns its files.

    Raises EnvironmentProblem where a file cannot be written.
    """
    widths, windows = (pd.read_parquet(release / f"{name}.parquet") for name in ("widths", "windows"))
    # a width judges the leading order alone, whether or not the next one was found with it
    widths = _named(widths.assign(next_order=None)).drop_duplicates([*_CURVE, "layer"])
    windows = _named(windows)
    configurations = pd.read_parquet(release / "configurations.parquet")
    known = set(widths["configuration_id"]) | set(windows["configuration_id"])
    files, listed = {}, []
    for activation, rows in configurations.groupby("activation", sort=True):
        networks = [
            _network(row, widths, windows) for row in rows.to_dict("records") if row["configuration_id"] in known
        ]
        if not networks:
            continue
        name = f"{re.sub('[^a-z0-9]+', '-', str(activation)).strip('-')}.js"
        listed.append({"activation": activation, "file": name})
        files[folder / name] = f"loaded({json.dumps(activation)}, {json.dumps(networks, allow_nan=False)})\n"
    lines = {closure: {**line} for closure, line in CLOSURE_LINE.items()}
    page = {"title": "How deep, and how wide, can I trust which theory?", "listed": listed, "lines": lines}
    files[folder / "index.html"] = render("explorer.html.j2", page)
    written = write_files(files)
    library = folder / "plotly.min.js"
    shutil.copyfile(Path(plotly.__file__).with_name("package_data") / "plotly.min.js", library)
    return [*written, library]


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(theory=theory_names(rows[list(THEORY)]))


def _network(row: dict[Any, Any], widths: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    own = {str(name): row[name] for name in OF_CONFIGURATION}
    mine = widths[widths["configuration_id"] == row["configuration_id"]]
    deep = windows[windows["configuration_id"] == row["configuration_id"]]
    about = f"C_W = {number(own['weight_variance'])}, C_b = {number(own['bias_variance'])}"
    return {
        "block": block_text(own),
        "network": f"{about}, ε = {number(own['epsilon'])}, {own['depth']} layers",
        "inputs": own["kernel_label"],
        "epsilon": own["epsilon"],
        "depth": own["depth"],
        "curves": list(_curves(mine[mine["reference_kind"] == "theory"])),
        "measured": list(_curves(mine[mine["reference_kind"] == "simulation"])),
        "windows": [*_windows(deep)],
    }


def _curves(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """n* and its bounds over layers, for each theory, quantity and tolerance."""
    for _, part in rows[rows["layer"] > 0].groupby(list(_CURVE), sort=False):
        part = part.sort_values("layer")
        if len(part) > MOST_LAYERS:
            part = part.iloc[np.unique(np.linspace(0, len(part) - 1, MOST_LAYERS).round().astype(int))]
        yield {
            "theory": part["theory"].iloc[0],
            "closure": part["closure"].iloc[0],
            "quantity": part["quantity"].iloc[0],
            "tolerance": part["tolerance"].iloc[0],
            "layer": [int(layer) for layer in part["layer"]],
            **{name: [_short(x) for x in part[name]] for name in ("width", "width_low", "width_high")},
            "status": list(part["status"]),
        }


def _windows(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """How deep each theory holds against each reference."""
    rows = rows[rows["quantity"].isin(SHOWN_QUANTITIES)]
    for row in rows.sort_values(["closure", "closure_order", "width", "tolerance"]).to_dict("records"):
        if row["reference_kind"] == "simulation":
            reference = f"{row['samples']:.0f} simulated networks of width {row['width']:.0f}"
        else:
            reference = {"theory": "the better theory", "measurement": "several simulated widths"}.get(
                str(row["reference_kind"]), "a checked module"
            )
        yield {
            "theory": row["theory"],
            "quantity": row["quantity"],
            "tolerance": row["tolerance"],
            "reference": reference,
            "said": verdict_text(row),
        }


def _short(x: float) -> float | None:
    """Three significant digits, which is more than a width is known to; None where it is no finite number."""
    return float(f"{x:.3g}") if np.isfinite(x) else None
