"""The report of a check of a module: its verdict, a table of its blocks, and its kernels beside theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import eftcore as eft
from eftcore.measure.kernels import measured_kernels
from eftcore.measure.wording import block_table, check_text
from ui.figures import panels_svg
from ui.figures.coordinate_check import ENDS, Measured, coordinate_check
from ui.reports.document import render, write_files


def write_check(found: eft.Check, path: Path) -> None:
    """Write the report, one HTML file. Raises EnvironmentProblem where it cannot be written."""
    figure = coordinate_check(measured(found))
    table = block_table(found.table(), found.spec)
    content = {
        "title": f"Check of {found.provenance['module']}",
        "sentence": found.sentence(),
        "spec": check_text(found),
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


def measured(found: eft.Check) -> Measured:
    """What the coordinate check draws of a check."""
    kernels = measured_kernels(found)
    return Measured(
        spec=found.spec,
        width=found.width,
        networks=found.networks,
        layers=kernels.depth,
        start=np.diag(found.mean[0]),
        quantiles=kernels.quantiles(ENDS).value,
        single=kernels.spec.has_covariance,
    )
