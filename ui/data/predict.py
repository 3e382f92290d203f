"""Predictions for the predict page: every closure of one configuration, and windows against the exact leading order.

Nothing here reads a database or uses Streamlit. The numerics are sufficient for a screen (relative error 1e-5, about 40
recorded layers); `eft predict` and studies use 1e-9.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

import eftcore as eft
from db.reading.stored_results import StoredSample
from db.schema.components import row_components
from eftcore.errors import EftError, InputError, NumericsWarning, within
from eftcore.inputs.files import parse_table
from eftcore.inputs.layers import nearest_layers
from eftcore.quantities import QUANTITIES
from eftcore.results import Theory
from eftcore.specs import PredictionSpec, default_depths
from eftcore.theory.mean_field import shared_paths
from eftcore.verdicts.at_width import windows_at_width
from eftcore.verdicts.windows import DEFAULT_TOLERANCES
from eftcore.words import theory_name, window_text
from ui.notation import number, with_error

RTOL = 1e-5
RECORDED = 40
TRUNCATION = 1e-3
"""Relative error of V4 and K1 by what the series of the exact leading order leaves out."""

MOST_INPUTS = 16
MOST_BYTES = 4_000_000
MOST_LAYERS = 20_000

_SHOWN = ("K0", "V4", "K1", "U1")
"""Quantities of the figure; Sigma(K0) is the same for all closures."""

FOLLOWING = ("D", "K2", "T")
"""Quantities of the next order in 1/n, which the exact closure alone has."""

COARSE = 0.01
"""Relative error of V4 and K1 by functions left out, with which the next order is looked for."""


def layers_of(total_time: float, epsilon: float) -> int:
    """The whole number of layers nearest to T / epsilon^2, at least 1. Raises InputError above MOST_LAYERS.

    >>> layers_of(2.0, 0.1)
    200
    """
    layers = nearest_layers(total_time, epsilon)
    if layers > MOST_LAYERS:
        raise InputError(
            f"with epsilon = {epsilon:g} it takes {layers} layers, and this page predicts up to {MOST_LAYERS}",
            place="total_time",
            value=total_time,
            remedy="use `eft predict`, with --continuous for the limit epsilon -> 0",
        )
    return layers


def table_from_upload(name: str, content: bytes) -> np.ndarray:
    """(rows, columns) float64 from the bytes of a .npy or .csv file; reading the file runs no code.

    Raises InputError where it is too large or not a table of real numbers.
    """
    file = PurePath(name)
    if len(content) > MOST_BYTES:
        raise InputError(
            f"is larger than {MOST_BYTES // 1_000_000} MB", place=file, remedy=f"upload at most {MOST_INPUTS} inputs"
        )
    table = parse_table(content, file)
    if len(table) > MOST_INPUTS:
        raise InputError(
            f"has shape {table.shape}", place=file, remedy=f"give a table of 1 to {MOST_INPUTS} rows, one input each"
        )
    return table


def kernel_from_table(table: np.ndarray, name: str, *, gram: bool) -> eft.InputKernel:
    """The input kernel from the table of a file: K^0 itself if ``gram``, otherwise real inputs, one row each.

    Raises InputError where it is not a kernel.
    """
    make = eft.InputKernel.explicit if gram else eft.InputKernel.from_data
    with within(PurePath(name)):
        return make(table, label=name.rsplit(".", 1)[0])


def spec_of(model: eft.ResNet, kernel: eft.InputKernel, closure: str, **options: Any) -> PredictionSpec:
    """The spec of the prediction that the page shows for a closure."""
    numerics = eft.Numerics(rtol=RTOL)
    depths = default_depths(model.depth, RECORDED)
    return PredictionSpec(model=model, kernel=kernel, closure=closure, numerics=numerics, depths=depths, **options)


def stages_of(model: eft.ResNet, *, next_order: bool) -> tuple[str, ...]:
    """What is computed for a network, one after the other: closures, and "next" for the next order in 1/n."""
    sigma = ("sigma",) if "sigma" in model.closures else ()
    return ("g_only", *sigma, "exact", *["next"] * next_order)


def predictions(
    model: eft.ResNet, kernel: eft.InputKernel, stages: Sequence[str]
) -> Iterator[tuple[str, Theory | EftError]]:
    """Predictions by name, each as soon as it is there; with "g_only" also "mean" and "source_only".

    Where there is none, the error says why.
    """
    with shared_paths():
        for stage in stages:
            try:
                if stage == "g_only":
                    crude = predict_quietly(spec_of(model, kernel, "source_only"))
                    yield "mean", _only_mean(crude)
                    yield "source_only", crude
                yield stage, predict_quietly(_stage_spec(model, kernel, stage))
            except EftError as error:
                yield stage, error


def _only_mean(crude: Theory) -> Theory:
    """The mean closure's prediction from that of source_only, which has the same K0."""
    spec = spec_of(crude.spec.model, crude.spec.kernel, "mean")
    return replace(crude, spec=spec, covariance=None, numerical_error={"K0": crude.numerical_error["K0"]})


def _stage_spec(model: eft.ResNet, kernel: eft.InputKernel, stage: str) -> PredictionSpec:
    if stage == "next":
        return spec_of(model, kernel, "exact", next_order=True, truncation=COARSE)
    return spec_of(model, kernel, stage, **({"truncation": TRUNCATION} if stage == "exact" else {}))


def predict_quietly(spec: PredictionSpec) -> Theory:
    """A prediction without warnings of its numerics, as the page shows its estimates; raises as predict_spec does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        return eft.predict_spec(spec)


def theory_label(theory: Theory) -> str:
    """Name of the closure, with its Wick order where it has one."""
    return theory_name(theory.spec.closure, theory.order)


def trajectories_frame(
    theories: Mapping[str, Theory],
    sample: StoredSample | None,
    components: Sequence[str],
    following: Theory | None = None,
) -> pd.DataFrame:
    """Predicted entries and, if there is a sample, simulated ones: columns as for ui.figures.trajectories_figure.

    ``following`` is the exact closure with its next order, of which D, K2 and T are shown where they are known.
    """
    frames = []
    shown = [(name, theory, _SHOWN) for name, theory in theories.items()]
    for name, theory, quantities in [*shown, *([] if following is None else [("exact", following, FOLLOWING)])]:
        for quantity in quantities:
            values = QUANTITIES[quantity].of(theory)
            for component, at in _entries(quantity, theory.spec.kernel.n_inputs, components):
                if values is None or np.isnan(values[at]).all():
                    continue
                columns = {"time": theory.time, "predicted": values[at]}
                frames.append(
                    pd.DataFrame(columns).assign(
                        quantity=quantity, component=component, closure=name, theory=theory_label(theory)
                    )
                )
    for quantity in _SHOWN if sample is not None else ():
        assert sample is not None
        values, errors = QUANTITIES[quantity].estimate_of(sample)
        for component, at in _entries(quantity, sample.spec.kernel.n_inputs, components):
            columns = {"time": sample.time, "simulated": values[at], "simulated_se": errors[at]}
            frames.append(pd.DataFrame(columns).assign(quantity=quantity, component=component, closure="", theory=""))
    frame = pd.concat(frames, ignore_index=True)
    for missing in ("simulated", "simulated_se"):
        if missing not in frame:
            frame[missing] = np.nan
    width, samples = (0, 0) if sample is None else (sample.spec.width, sample.samples)
    return frame.assign(series=frame["theory"], configuration="", width=width, samples=samples)


def _entries(quantity: str, n_inputs: int, components: Sequence[str]) -> list[tuple[str, tuple[Any, ...]]]:
    """Those of the components that the quantity has, and where each stands in its array over layers."""
    names, index = row_components(quantity, n_inputs)
    return [(name, (slice(None), *at)) for name, *at in zip(names, *index, strict=True) if name in components]


def windows_frame(
    theories: Mapping[str, Theory], exact: Theory, width: int, following: Theory | None = None
) -> pd.DataFrame:
    """Windows t* of every closure for networks of this width, as texts: a row per closure and quantity.

    The reference is the exact leading order and what finite width adds: K1/n to K0, and, where ``following``, the exact
    closure with its next order, has them, D/n to V4 and K2/n to K1. The column "for networks" says where that is not
    known and the window is that of infinitely wide ones; there the exact closure is its own reference and has no row.
    What the reference leaves out counts as its error, so that a window is certified or refuted only where this error
    cannot change the verdict.
    """
    rows = []
    for name, theory in theories.items():
        windows = windows_at_width(theory, exact, width, DEFAULT_TOLERANCES, following=following)
        for (quantity, counted), part in windows.groupby(["quantity", "finite_width"], sort=False):
            if theory is exact and not counted:
                continue
            texts = {
                f"τ = {number(window['tolerance'])}": window_text(
                    {**window, "total_time": theory.spec.model.total_time}
                )
                for window in part.to_dict("records")
            }
            wide = f"n = {width}" if counted else "n → ∞"
            rows.append({"closure": name, "quantity": quantity, "for networks": wide, **texts})
    return pd.DataFrame(rows)


def next_order_frame(exact: Theory, components: Sequence[str]) -> pd.DataFrame:
    """D, K2 and T at the last layer with their estimated errors, as texts; entries that are not known say so."""
    rows = []
    for quantity in FOLLOWING:
        values, error = QUANTITIES[quantity].of(exact), exact.relative_error(quantity)
        assert values is not None
        for component, at in _entries(quantity, exact.spec.kernel.n_inputs, components):
            value = float(values[at][-1])
            text = "not known" if error is None or np.isnan(value) else with_error(value, error * abs(value))
            rows.append({"coefficient": f"{quantity}[{component}]", "of": _OF[quantity], "at T": text})
    return pd.DataFrame(rows, columns=["coefficient", "of", "at T"])


_OF = {
    "D": "1/n in V4 = n Cov(G, G)",
    "K2": "1/n in K1 = n (E G - K0)",
    "T": "1/n² in the third cumulant of G",
}


def values_frame(theories: Mapping[str, Theory], width: int) -> pd.DataFrame:
    """Values at T for the first input, as texts: K0, V4, K1, and mean and spread of its kernel entry at width n."""
    rows = []
    for theory in theories.values():
        k0 = float(theory.mean[-1, 0, 0])
        v4 = None if theory.covariance is None else float(theory.covariance[-1, 0, 0])
        k1 = None if theory.correction is None else float(theory.correction[-1, 0, 0])
        rows.append(
            {
                "closure": theory_label(theory),
                "K0[00]": number(k0, 6),
                "V4[00,00]": number(v4, 6),
                "K1[00]": number(k1, 6),
                f"E G[00] at n = {width}": number(None if k1 is None else k0 + k1 / width, 6),
                "s.d. of G[00]": "—" if v4 is None or v4 < 0 else number(float(np.sqrt(v4 / width)), 4),
                "numerics, largest relative error": f"{max(theory.numerical_error.values()):.0e}",
            }
        )
    return pd.DataFrame(rows)
