"""The coordinate check with error bars: kernels of single networks over depth beside what theory expects of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import eftcore as eft
from eftcore.errors import EftError
from ui.figures.panels import Curve, Panel, PanelFigure, in_rows
from ui.figures.style import INK

MOST_INPUTS = 3
"""Inputs whose kernels are drawn."""

LEVEL = 0.95
"""Share of networks between the ends of a bar, and of a band."""

ENDS = (0.025, 0.5, 0.975)
"""Probabilities of the quantiles that are drawn: the ends of that share, and the median."""

THEORY = {"color": "#1f77b4"}
NETWORKS = {"color": INK}


@dataclass(frozen=True, eq=False)
class Measured:
    """Kernels of a checked module.

    Attributes:
        spec: the network that it is compared with.
        width: neurons n.
        networks: initialisations.
        layers: (R,) layers.
        start: (N,) mean of G_aa before the first block.
        quantiles: (R, N, 3) of G_aa at ``ENDS``.
        single: whether a kernel is of one position, which theory is about.
    """

    spec: eft.ResNet
    width: int
    networks: int
    layers: np.ndarray
    start: np.ndarray
    quantiles: np.ndarray
    single: bool


def coordinate_check(measured: Measured) -> PanelFigure:
    """Each G_aa over depth: median and spread of the networks, beside mean and band from theory where it has them."""
    time = measured.spec.epsilon**2 * measured.layers
    panels = []
    for a in range(min(MOST_INPUTS, len(measured.start))):
        low, middle, high = measured.quantiles[:, a].T
        label = f"{measured.networks} networks: median and {LEVEL:.0%}"
        bars = Curve(label, NETWORKS, time, middle, np.stack([middle - low, high - middle]), "points")
        band = theory_band(measured.spec, measured.start[a], measured.width, measured.layers.tolist())
        drawn = [] if band is None or not measured.single else _curves(time, *band)
        panels.append(Panel(f"G<sub>{a}{a}</sub>", (*drawn, bars), title=f"input {a}"))
    return PanelFigure(
        "check",
        f"The kernel of each network over depth, and its mean with {LEVEL:.0%} of single networks as theory has it for"
        " the spec, from the mean kernel before the first block on"
        + ("." if measured.single else "; not shown here, where kernels are averages over positions."),
        in_rows(panels, MOST_INPUTS),
    )


def theory_band(
    spec: eft.ResNet, start: float, width: int, layers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Mean, lower and upper end of the band (R,) of one input's kernel; None where there is no next order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kernel = eft.InputKernel.explicit([[float(start)]])
            theory = eft.predict(spec, kernel, "exact", next_order=True, truncation=0.01, depths=layers)
            law = eft.kernel_law(theory, width)
            ends = np.array([law.entry(0, layer=layer).interval(LEVEL) for layer in range(len(layers))])
    except EftError:
        return None
    assert theory.correction is not None
    return theory.mean[:, 0, 0] + theory.correction[:, 0, 0] / width, *ends.T


def _curves(time: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[Curve]:
    return [
        Curve(f"theory: {LEVEL:.0%} of networks", THEORY, time, (low + high) / 2, (high - low) / 2, "band"),
        Curve("theory: mean", THEORY, time, mean),
    ]
