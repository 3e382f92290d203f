"""What other blocks than the paper's change: two matrices instead of one, and a normalisation before them.

From the results of ``studies/blocks.toml``, whose networks differ in activation, block and normalisation alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from eftcore.words import ONE_MATRIX, block_text
from ui.notation import number
from ui.reports.atlas.study import in_study

STUDY = "blocks"
TOLERANCE, WIDTH_TOLERANCE = 0.01, 0.05

WINDOWS = (
    "SELECT activation, block, COALESCE(normalisation, '') AS normalisation,\n"
    "    total_time, certified_until, refuted_from, status\n"
    "FROM v_windows\nWHERE reference_kind = 'theory' AND closure = 'g_only' AND quantity = 'V4'"
    f" AND tolerance = {TOLERANCE}\n    AND {in_study(STUDY)}\n"
    "ORDER BY activation, block, normalisation"
)

GROWTH = (
    "SELECT w.activation, w.block, COALESCE(w.normalisation, '') AS normalisation, w.width AS neurons,\n"
    "    v.predicted / (k.predicted * k.predicted) AS relative_v4\n"
    "FROM v_width_windows w\n"
    + "".join(
        f"JOIN v_trajectories {name} ON {name}.prediction_run_id = w.prediction_run_id"
        f" AND {name}.layer = w.layer AND {name}.quantity = '{quantity}'\n"
        for name, quantity in (("v", "V4"), ("k", "K0"))
    )
    + "WHERE w.reference_kind = 'theory' AND w.closure = 'exact' AND w.quantity = 'V4'"
    f" AND w.tolerance = {WIDTH_TOLERANCE} AND w.layer = w.depth\n    AND w.{in_study(STUDY)}\n"
    f"    AND v.{in_study(STUDY, 'simulation_run_id')}\n    AND k.{in_study(STUDY, 'simulation_run_id')}\n"
    "ORDER BY w.activation, w.block, w.normalisation"
)


def _named(table: pd.DataFrame) -> pd.Series:
    """Each row's block in words."""
    plain = {"hidden_ratio": 1.0, "hidden_weight_variance": 1.0, "hidden_bias_variance": 0.0}
    rows = table[["block", "normalisation"]].to_dict("records")
    return pd.Series([block_text({**plain, **row, "normalisation": row["normalisation"] or None}) for row in rows])


def depth(table: pd.DataFrame) -> Iterable[str]:
    """Sentences on how deep the G-only hierarchy follows the exact leading order of V4 in each kind of block."""
    two = table[table["block"] == "two_matrix"]
    held = int((two["status"] == "beyond").sum())
    yield (
        f"G-only stays within {TOLERANCE:.0%} of the exact leading order of V4 up to T in {held} of {len(two)} networks"
        " with two matrices in a block, where theory says that it is exact."
    )
    for name, rows in table.groupby(_named(table), sort=False):
        if rows["block"].iloc[0] == "two_matrix":
            continue
        ends = zip(rows["activation"], rows["status"], rows["certified_until"].fillna(0.0), strict=True)
        parts = [f"{label} {'T' if status == 'beyond' else f't = {number(end)}'}" for label, status, end in ends]
        yield f"With {name}, G-only follows it up to: {', '.join(parts)}."


def growth(table: pd.DataFrame) -> Iterable[str]:
    """Sentences on how large the spread of the kernel becomes, and from which width on the leading order holds."""
    names = _named(table)
    for name, rows in table.groupby(names, sort=False):
        spread, width = rows["relative_v4"], rows["neurons"]
        yield (
            f"{str(name).capitalize() if name != ONE_MATRIX else 'The block of the paper'}: V4 / K0^2 at T is"
            f" {number(spread.min(), 3)} to {number(spread.max(), 3)}, and its leading order is within"
            f" {WIDTH_TOLERANCE:.0%} from {number(width.min(), 3)} to {number(width.max(), 3)} neurons on."
        )
