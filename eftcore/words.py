"""Texts for theories and verdicts, the same in the terminal, in the explorer and in reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from eftcore.specs import Numerics, PredictionSpec, ResNet, usual_step

_USUAL_RTOL = Numerics().rtol

ONE_MATRIX = "one matrix"
"""What ``block_text`` says of the block of the paper."""

EARLY = 0.025
"""Fraction of T: a window that is resolved from a time below it counts as resolved from the start."""


def block_text(network: Mapping[Any, Any]) -> str:
    """The blocks of a network in words, from the fields of ResNet or the columns of a view with these names.

    >>> block_text({"block": "one_matrix"})
    'one matrix'
    >>> block_text({"block": "one_matrix", "normalisation": "layer"})
    'one matrix, layer'
    >>> block_text({"block": "two_matrix", "normalisation": "rms", "hidden_ratio": 4.0, "hidden_weight_variance": 1.0,
    ...             "hidden_bias_variance": 0.1})
    'two matrices, rms, m/n = 4, C_b1 = 0.1'
    """
    one = network["block"] == "one_matrix"
    symbols = {"hidden_ratio": "m/n", "hidden_weight_variance": "C_1", "hidden_bias_variance": "C_b1"}
    parts = [ONE_MATRIX if one else "two matrices"]
    if isinstance(network.get("normalisation"), str):
        parts.append(network["normalisation"])
    if one:
        return ", ".join(parts)
    for name, symbol in symbols.items():
        if network[name] != ResNet.model_fields[name].default:
            parts.append(f"{symbol} = {network[name]:.4g}")
    return ", ".join(parts)


def network_text(model: ResNet) -> str:
    """A network by its activation, and by its blocks where they are not those of the paper.

    >>> network_text(ResNet(activation="tanh", weight_variance=1.0, epsilon=0.1, depth=1, block="two_matrix"))
    'tanh (two matrices)'
    """
    block = block_text(model.model_dump())
    return model.activation if block == ONE_MATRIX else f"{model.activation} ({block})"


def resolved_from(window: Mapping[Any, Any]) -> float:
    """Time t from which the reference resolves a window's tolerance; 0 where that is early or was not recorded.

    >>> [resolved_from({"resolved_from": time, "total_time": 2.0}) for time in (0.8, 0.02, 5 * 0.1**2)]
    [0.8, 0.0, 0.0]
    """
    start = window.get("resolved_from")
    if start is None or math.isnan(start) or start <= EARLY * window["total_time"] * (1 + 1e-9):
        return 0.0
    return float(start)


def window_text(window: Mapping[Any, Any]) -> str:
    """A validity window t* in words, from status, resolved_from, certified_until, refuted_from and total_time of a row.

    >>> base = {"resolved_from": 0.01, "total_time": 2.0, "refuted_from": 0.28}
    >>> window_text({**base, "status": "bounded", "certified_until": 0.16})
    '0.16 - 0.28'
    >>> window_text({**base, "status": "bounded", "certified_until": None})
    '< 0.28'
    >>> window_text({**base, "status": "beyond", "certified_until": 2.0, "resolved_from": 0.8})
    '> 2 (seen from 0.8)'
    >>> window_text({**base, "status": "undecided", "certified_until": 0.4}), window_text({"status": "too_noisy"})
    ('> 0.4 ?', 'not resolved')
    """
    if window["status"] == "too_noisy":
        return "not resolved"
    certified = window["certified_until"]
    known = certified is not None and not math.isnan(certified)
    start = resolved_from(window)
    seen = f" (seen from {start:.4g})" if start and known else ""
    match window["status"]:
        case "bounded":
            refuted = window["refuted_from"]
            return f"{certified:.4g} - {refuted:.4g}{seen}" if known else f"< {refuted:.4g}"
        case "beyond":
            return f"> {window['total_time']:.4g}{seen}"
        case _:
            return f"> {certified:.4g} ?{seen}" if known else "undecided"


def verdict_text(window: Mapping[Any, Any]) -> str:
    """What a validity window says of a network, in layers; the row has depth too, the number of its layers.

    >>> base = {"resolved_from": 0.01, "total_time": 2.0, "depth": 200, "refuted_from": 0.28}
    >>> verdict_text({**base, "status": "bounded", "certified_until": 0.16})
    'to layer 16, not from 28 on'
    >>> verdict_text({**base, "status": "bounded", "certified_until": None}), verdict_text({"status": "too_noisy"})
    ('not from layer 28 on', 'cannot be told')
    >>> verdict_text({**base, "status": "beyond", "certified_until": 2.0, "resolved_from": 0.8})
    'to the end (seen from layer 80)'
    >>> verdict_text({**base, "status": "undecided", "certified_until": 0.4})
    'to layer 40, then it cannot be told'
    """
    if window["status"] == "too_noisy":
        return "cannot be told"

    def layer(time: float) -> int:
        return round(float(time / window["total_time"] * window["depth"]))

    certified = window["certified_until"]
    known = certified is not None and not math.isnan(certified)
    start = resolved_from(window)
    seen = f" (seen from layer {layer(start)})" if start and known else ""
    match window["status"]:
        case "bounded":
            fails = layer(window["refuted_from"])
            return f"to layer {layer(certified)}, not from {fails} on{seen}" if known else f"not from layer {fails} on"
        case "beyond":
            return f"to the end{seen}"
        case _:
            return f"to layer {layer(certified)}, then it cannot be told{seen}" if known else "cannot be told"


def width_text(row: Mapping[Any, Any]) -> str:
    """From which width on a theory holds, n*, from status, width, width_low and width_high of a row, in neurons.

    The bounds of a theory stand in parentheses. Simulations show that it fails at one width and holds at another.

    >>> width_text({"status": "from", "width": 105.6, "width_low": 99.2, "width_high": 112.0})
    '106 (100 - 112)'
    >>> width_text({"status": "never"}), width_text({"status": "unknown"})
    ('no width', 'not known')
    >>> ends = {"width_low": 16.0, "width_high": 32.0}
    >>> [width_text({**ends, "status": status}) for status in ("between", "above", "at_most")]
    ['16 - 32', '> 16', '<= 32']
    """
    match row["status"]:
        case "from":
            low, width, high = (math.ceil(row[name]) for name in ("width_low", "width", "width_high"))
            return f"{width} ({low} - {high})" if low != high else str(low)
        case "between":
            return f"{row['width_low']:.0f} - {row['width_high']:.0f}"
        case "above":
            return f"> {row['width_low']:.0f}"
        case "at_most":
            return f"<= {row['width_high']:.0f}"
        case "never":
            return "no width"
        case _:
            return "not known"


def theory_name(
    closure: str,
    order: float | str | None = None,
    nodes: float | None = None,
    converged: bool | None = None,
    step: str | None = None,
    continuous: bool | None = None,
    rtol: float | None = None,
    next_order: bool | None = None,
) -> str:
    """A prediction in few words: the closure with its order, and each setting that differs from its default.

    The arguments are columns of a row of the database, where None and NaN stand for an absent value. The text says
    where the integrals did not converge, unless their rule is fixed.

    >>> theory_name("g_only"), theory_name("wick", 8.0), theory_name("wick", "auto"), theory_name("g_only", nodes=32)
    ('g_only', 'wick 8', 'wick auto', 'g_only 32-node')
    >>> theory_name("g_only", converged=False)
    'g_only (not converged)'
    >>> theory_name("g_only", step="exact"), theory_name("wick", 8, step="exact", continuous=False, rtol=1e-6)
    ('g_only, exact step', 'wick 8, rtol 1e-06')
    >>> theory_name("exact", step="exact", next_order=True)
    'exact, next order'
    """
    fixed = _given(nodes)
    name = closure
    if _given(order):
        name += f" {order}" if isinstance(order, str) else f" {order:.0f}"
    if fixed:
        name += f" {nodes:.0f}-node"
    if _given(next_order) and next_order:
        name += ", next order"
    if _given(continuous) and continuous:
        name += ", continuous"
    elif _given(step) and step != usual_step(closure):
        name += f", {step} step"
    if not fixed and _given(rtol) and rtol != _USUAL_RTOL:
        name += f", rtol {rtol:g}"
    return f"{name} (not converged)" if not fixed and _given(converged) and not converged else name


def spec_name(spec: PredictionSpec) -> str:
    """theory_name of a prediction that is yet to be computed."""
    numerics = spec.numerics
    return theory_name(
        spec.closure,
        spec.order,
        numerics.nodes,
        step=spec.step,
        continuous=spec.continuous,
        rtol=numerics.rtol,
        next_order=spec.next_order,
    )


def _given(value: Any) -> bool:
    """Whether a value of a row is present: not None, NaN or pandas' NA."""
    return not bool(pd.isna(value))
