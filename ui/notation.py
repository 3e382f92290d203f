"""Notation of quantities, closures and window states on pages and in figures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

TIME = "depth  t = ε² ℓ"
"""Title of the depth axis: t is dimensionless, ℓ is the layer."""

CONFIGURATION = {
    "activation": "σ",
    "weight_variance": "C_W",
    "bias_variance": "C_b",
    "block": "block",
    "normalisation": "normalisation",
    "hidden_ratio": "m/n",
    "hidden_weight_variance": "C_1",
    "hidden_bias_variance": "C_b1",
    "epsilon": "ε",
    "depth": "L",
    "n_inputs": "N",
    "kernel_label": "K⁰",
    "width": "n",
    "samples": "M",
}
"""Columns that describe a configuration, in the order of tables, each with its usual symbol; M counts networks."""

SETTINGS = {"estimator": "estimator", "seed": "seed", "sampler": "sampler", "dtype": "precision"}
"""Columns that describe how a simulation was done, with their titles; shown where simulations differ in them."""


def number(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` significant digits; an em dash for an absent number.

    >>> number(0.05), number(20000), number(float("nan"))
    ('0.05', '20000', '—')
    """
    if value is None or math.isnan(value):
        return "—"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def rounded(value: float, error: float) -> str:
    """A number to the second digit of its error; with six digits where the error is not known or 0.

    >>> rounded(48.4711, 0.0532), rounded(12346.0, 532.0), rounded(0.123456789, float("nan"))
    ('48.471', '12350', '0.123457')
    """
    if math.isnan(value):
        return "—"
    if not 0 < error < math.inf:
        return number(value, 6)
    decimals = 1 - math.floor(math.log10(error))
    return f"{round(value, decimals):.{max(decimals, 0)}f}"


def with_error(value: float, error: float) -> str:
    """value ± error, both to the second digit of the error.

    >>> with_error(48.4711, 0.0532), with_error(-0.45304, 0.0251), with_error(2.0, 0.0), with_error(12346.0, 532.0)
    ('48.471 ± 0.053', '-0.453 ± 0.025', '2 ± 0', '12350 ± 530')
    """
    if math.isnan(value):
        return "—"
    if math.isnan(error):
        return f"{rounded(value, error)} ± ?"
    return f"{rounded(value, error)} ± {rounded(error, error) if error > 0 else 0}"


def literal(table: pd.DataFrame) -> pd.DataFrame:
    r"""A table whose texts are escaped, so that a place that interprets Markdown shows them unchanged.

    >>> literal(pd.DataFrame({"a_b": ["> 2"]})).to_dict("list")
    {'a\\_b': ['\\> 2']}
    """
    return table.map(markdown_text).rename(columns=markdown_text)


def markdown_text(text: str) -> str:
    """A text escaped so that a place that interprets Markdown shows it unchanged."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~$:&-])", r"\\\1", text)


def configuration_text(row: Mapping[Any, Any], columns: list[str] | tuple[str, ...]) -> str:
    """One line for a configuration, from the given columns of a row.

    >>> configuration_text({"activation": "tanh", "epsilon": 0.1}, ["activation", "epsilon"])
    'tanh, ε = 0.1'
    """
    parts = []
    for column in columns:
        value = row[column]
        if pd.isna(value):
            continue
        shown = value if isinstance(value, str) else number(value)
        symbol = (CONFIGURATION | SETTINGS)[column]
        parts.append(shown if column in ("activation", "kernel_label") else f"{symbol} = {shown}")
    return ", ".join(parts)
