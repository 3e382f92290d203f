"""The report of a check of a module: its verdict, a table of its blocks, and its kernels beside theory."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import eftcore as eft
from eftcore.errors import EftError
from eftcore.words import network_text
from ui.figures import panels_svg
from ui.figures.panels import Curve, Panel, PanelFigure, in_rows
from ui.figures.style import INK
from ui.reports.document import render, write_files

MOST_INPUTS = 3
"""Inputs whose kernels are drawn."""

NEARLY_AS_GOOD = 1.3
"""Candidates whose misfit is at most this times the least one are named too."""

LEVEL = 0.95

THEORY = {"color": "#1f77b4"}
NETWORKS = {"color": INK}


def spec_text(found: eft.Check) -> str:
    """What the module was compared with, in a line."""
    m = found.spec
    network = (
        f"{network_text(m)}, C_W = {m.weight_variance:.4g}, C_b = {m.bias_variance:.4g}, epsilon = {m.epsilon:.4g},"
        f" {m.depth} blocks, width {found.width}"
    )
    if not found.guessed:
        return f"Compared with {network}."
    near = [
        network_text(guess.spec)
        for guess in found.guessed[1:]
        if guess.misfit < NEARLY_AS_GOOD * found.guessed[0].misfit
    ]
    others = f"; as good: {', '.join(near)}" if near else ""
    return f"Without a spec, all blocks together are most like {network}{others}."


def block_table(found: eft.Check) -> pd.DataFrame:
    """A row for each block: its p-value and what it has, beside what the spec says."""
    rows = []
    for index, block in enumerate(found.blocks):
        weight, bias = block.weight_variance, block.bias_variance
        expected = found.spec.weight_variance
        row = {
            "block": block.name,
            "p": f"{block.p_value:.2g}",
            "weight variance / spec": f"{weight.value / expected:.4g} +- {weight.se / expected:.1g}",
        }
        if bias is not None:
            row[f"bias variance (spec {found.spec.bias_variance:.3g})"] = f"{bias.value:.2g} +- {bias.se:.1g}"
        row["verdict"] = "first that deviates" if index == found.first_deviating else _verdict(block, len(found.blocks))
        rows.append(row)
    return pd.DataFrame(rows)


def _verdict(block: eft.CheckedBlock, blocks: int) -> str:
    return "deviates" if block.deviates(blocks) else ""


def write_check(found: eft.Check, path: Path) -> None:
    """Write the report, one HTML file. Raises EnvironmentProblem where it cannot be written."""
    figure = kernel_figure(found)
    table = block_table(found)
    content = {
        "title": f"Check of {found.provenance['module']}",
        "sentence": found.sentence(),
        "spec": spec_text(found),
        "passed": found.passed,
        "p_value": f"{found.p_value:.2g}",
        "networks": found.networks,
        "columns": list(table.columns),
        "rows": table.astype(str).values.tolist(),
        "figure": panels_svg(figure),
        "caption": figure.caption,
        "provenance": found.provenance,
    }
    write_files({path: render("check.html.j2", content)})


def kernel_figure(found: eft.Check) -> PanelFigure:
    """The coordinate check with error bars: each G_aa over depth, beside what theory expects of it."""
    time = found.spec.epsilon**2 * np.arange(found.spec.depth + 1)
    panels = []
    for a in range(min(MOST_INPUTS, found.kernel.shape[-1])):
        values = found.kernel[:, :, a, a]
        low, middle, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2], axis=0)
        curves = [
            *_theory(found, a, time),
            Curve(
                f"{found.networks} networks: median and {LEVEL:.0%}",
                NETWORKS,
                time,
                middle,
                np.stack([middle - low, high - middle]),
                "points",
            ),
        ]
        panels.append(Panel(f"G<sub>{a}{a}</sub>", tuple(curves), title=f"input {a}"))
    return PanelFigure(
        "check",
        f"The kernel of each network over depth, and its mean with {LEVEL:.0%} of single networks as theory has it for"
        " the spec, from the kernel before the first block on.",
        in_rows(panels, MOST_INPUTS),
    )


def _theory(found: eft.Check, a: int, time: np.ndarray) -> list[Curve]:
    """The mean kernel of the spec and the band of single networks; nothing where there is no next order."""
    kernel = eft.InputKernel.explicit([[float(found.mean[0, a, a])]])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theory = eft.predict(
                found.spec, kernel, "exact", next_order=True, truncation=0.01, depths=range(found.spec.depth + 1)
            )
            law = eft.kernel_law(theory, found.width)
            ends = np.array([law.entry(0, layer=layer).interval(LEVEL) for layer in range(len(time))])
    except EftError:
        return []
    assert theory.correction is not None
    mean = theory.mean[:, 0, 0] + theory.correction[:, 0, 0] / found.width
    middle, half = ends.mean(1), (ends[:, 1] - ends[:, 0]) / 2
    return [
        Curve(f"theory: {LEVEL:.0%} of networks", THEORY, time, middle, half, "band"),
        Curve("theory: mean", THEORY, time, mean),
    ]
