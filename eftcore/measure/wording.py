"""A check in words: what a module was compared with, and a table of its blocks. For terminals, reports and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from eftcore.specs import ResNet
from eftcore.words import network_text

if TYPE_CHECKING:
    from eftcore.measure.checked import Check

NEARLY_AS_GOOD = 1.3
"""Candidates whose misfit is at most this times the least one are named too."""


def check_text(found: Check) -> str:
    """What the module was compared with, in a line."""
    near = [
        network_text(guess.spec)
        for guess in found.guessed[1:]
        if guess.misfit < NEARLY_AS_GOOD * found.guessed[0].misfit
    ]
    return spec_text(found.spec, found.width, guessed=bool(found.guessed), as_good=near)


def spec_text(model: ResNet, width: int, *, guessed: bool, as_good: Sequence[str] = ()) -> str:
    """What a module of this width was compared with, in a line; ``as_good`` names other networks that fit as well.

    >>> spec_text(ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=3), 64, guessed=False)
    'Compared with tanh, C_W = 1, C_b = 0, epsilon = 0.1, 3 blocks, width 64.'
    """
    network = (
        f"{network_text(model)}, C_W = {model.weight_variance:.4g}, C_b = {model.bias_variance:.4g},"
        f" epsilon = {model.epsilon:.4g}, {model.depth} blocks, width {width}"
    )
    if not guessed:
        return f"Compared with {network}."
    others = f"; as good: {', '.join(as_good)}" if as_good else ""
    return f"Without a spec, all blocks together are most like {network}{others}."


def block_table(blocks: pd.DataFrame, model: ResNet) -> pd.DataFrame:
    """Texts, a row for each block: its p-value and what it has, beside what ``model`` says.

    Args:
        blocks: ``Check.table``, or the rows of one check in ``v_checks``.
    """
    deviating = blocks.loc[blocks["deviates"].astype(bool), "layer"].tolist()
    rows = []
    for block in blocks.sort_values("layer").to_dict("records"):
        value, se = (block[f"fitted_weight_variance{end}"] / model.weight_variance for end in ("", "_se"))
        row = {
            "block": block["block_name"],
            "p": f"{block['p_value']:.2g}",
            "largest z": f"{block['largest_z']:.2g}",
            "weight variance / spec": f"{value:.4g} +- {se:.1g}",
        }
        if not pd.isna(block["fitted_bias_variance"]):
            bias, bias_se = block["fitted_bias_variance"], block["fitted_bias_variance_se"]
            row[f"bias variance (spec {model.bias_variance:.3g})"] = f"{bias:.2g} +- {bias_se:.1g}"
        first = bool(deviating) and block["layer"] == min(deviating)
        row["verdict"] = "first that deviates" if first else "deviates" if block["deviates"] else ""
        rows.append(row)
    return pd.DataFrame(rows)
