"""What ``eft design`` answers: how deep at a width, how wide at a depth, and what one network's kernel will be."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd

import eftcore as eft
from eftcore.errors import InputError
from eftcore.verdicts.design import design_specs
from eftcore.verdicts.widths import width_windows
from eftcore.words import network_text, width_text

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Design:
    """The answer for one network, width and tolerance."""

    model: eft.ResNet
    kernel: eft.InputKernel
    law: eft.KernelLaw
    tolerance: float
    windows: pd.DataFrame
    notices: tuple[str, ...]

    @property
    def width(self) -> int:
        return self.law.width

    @property
    def heading(self) -> str:
        """The configuration in one line."""
        m = self.model
        return (
            f"{network_text(m)}, C_W = {m.weight_variance:g}, C_b = {m.bias_variance:g}, epsilon = {m.epsilon:g}, "
            f"{m.depth} layers (t = {m.total_time:g}), width {self.width}; inputs: {self.kernel.label};"
            f" within {100 * self.tolerance:g} %"
        )

    def table(self) -> pd.DataFrame:
        """A row per theory and quantity: how deep at this width, and from which width on at this depth."""
        rows = []
        for (theory, quantity), part in self.windows.groupby(["theory", "quantity"], sort=False):
            last = part.iloc[-1]
            rows.append(
                {
                    "theory": "exact leading order" if theory == "exact" else theory,
                    "quantity": quantity,
                    f"at width {self.width} down to layer": _deepest(part, self.width, self.model.depth),
                    f"at layer {self.model.depth} from width": width_text(last.to_dict()),
                }
            )
        return pd.DataFrame(rows)

    @property
    def notes(self) -> str:
        """What one network's kernel will be, how sure this is, and which theory is enough."""
        lines = [self._law(), self._advice(), *self.notices]
        return "\n".join(line for line in lines if line)

    def _law(self) -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", eft.LawWarning)
            low, high = self.law.entry(0).interval(LEVEL)
        mean = self.law.theory.mean[-1, 0, 0]
        doubt = " (outside the range in which this was measured)" if caught else ""
        return (
            f"At layer {self.model.depth} the kernel G_00 of one network lies in [{low:.4g}, {high:.4g}] with"
            f" {100 * LEVEL:g} %{doubt}; infinite width has {mean:.4g}."
        )

    def _advice(self) -> str:
        if self.model.block == "two_matrix":
            return "The G-only hierarchy (closure g_only with its exact step) is the leading order of these blocks."
        v4 = self.windows.query("quantity == 'V4'")
        good = [
            str(theory)
            for theory, part in v4.groupby("theory", sort=False)
            if theory != "exact" and part["width"].max() <= self.width
        ]
        exact = v4.query("theory == 'exact'")
        if good:
            return f"For V4 the closure {good[0]} is enough here."
        if exact["width"].max() <= self.width:
            return "For V4 no closure is enough here; the exact leading order is."
        return "For V4 the leading order in 1/n is not enough here: add its next order, V4 + D/n, or simulate."

    def as_data(self) -> dict[str, Any]:
        """All of it for programs; infinite widths are null."""
        low, high = self.law.entry(0).interval(LEVEL)
        last = self.windows[self.windows["depth"] == self.model.depth]
        rows = last.replace([math.inf], math.nan).to_dict("records")
        deepest = [
            {"theory": theory, "quantity": quantity, "layer": _deepest_layer(part, self.width)}
            for (theory, quantity), part in self.windows.groupby(["theory", "quantity"], sort=False)
        ]
        return {
            "model": self.model.identity(),
            "width": self.width,
            "tolerance": self.tolerance,
            "from_width": [{k: None if v != v else v for k, v in row.items()} for row in rows],
            "down_to_layer": deepest,
            "kernel_interval": {"level": LEVEL, "entry": "00", "low": low, "high": high},
        }


def designed(model: eft.ResNet, kernel: eft.InputKernel, width: int, tolerance: float) -> Design:
    """The answer from theory alone. Raises InputError for a tolerance that is not in (0, 1) or a width below 1."""
    if not 0 < tolerance < 1:
        raise InputError("must lie between 0 and 1", place="tolerance", value=tolerance)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", eft.NumericsWarning)
        theories = {name: eft.predict_spec(spec) for name, spec in design_specs(model, kernel).items()}
    exact = theories.pop("exact")
    law = eft.kernel_law(exact, width)
    windows = width_windows(exact, theories.values(), [tolerance])
    windows["theory"] = windows["theory"].str.removesuffix(", exact step")
    return Design(model, kernel, law, tolerance, windows, tuple(str(each.message) for each in caught))


def study_file(found: Design, inputs: int, variance: float, correlation: float) -> str:
    """A study file that checks the answer by simulation at the width, to a third of the tolerance."""
    m = found.model
    others = [name for name in design_specs(m, found.kernel) if name != "exact"]
    closures = [f'{{ name = "{name}", step = "exact" }}' for name in others]
    fields = m.model_dump(mode="json", exclude_defaults=True)
    network = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    return f"""# How far can theory be trusted at width {found.width}? Made by eft design.
name = "design"
widths = [{found.width}]
precision = {{ quantity = "V4", relative = {found.tolerance / 3:.6g} }}
closures = [{", ".join([*closures, '"exact"'])}]
tolerances = [{found.tolerance:g}]

[model]
{network}

[[kernel]]
kind = "equicorrelated"
n_inputs = {inputs}
variance = {variance!r}
correlation = {correlation!r}
"""


def _deepest_layer(part: pd.DataFrame, width: int) -> int | None:
    """The last recorded layer down to which the theory holds at every one; None where it never does."""
    good = (part["width"] <= width).to_numpy()
    if good.all():
        return int(part["depth"].iloc[-1])
    first = int(good.argmin())
    return int(part["depth"].iloc[first - 1]) if first > 0 else None


def _deepest(part: pd.DataFrame, width: int, depth: int) -> str:
    if (part["status"] == "unknown").any():
        return "not known"
    layer = _deepest_layer(part, width)
    return "nowhere" if layer is None else "all" if layer == depth else str(layer)
