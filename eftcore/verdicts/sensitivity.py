"""Which parameter of a network decides how deep a theory holds: a variance decomposition over configurations.

The depth t* at which a theory leaves its tolerance is known as an interval, and of a theory that holds to the last
layer T only as t* >= T. What is decomposed is therefore the restricted depth min(t*, H) with one horizon H for all
configurations, which a window that is certified up to H determines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

BINS = 6
"""Most levels of a numerical parameter; one with more values is cut into so many groups of equal size."""

DRAWS = 200
"""Draws of depths within their intervals, by which the spread of a share is estimated."""

BLOCKS = 100
"""Most groups of configurations that the jackknife leaves out one after the other."""


def restricted_depths(windows: pd.DataFrame, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest possible min(t*, H) of each window, (W,) each, in units of t; NaN where nothing is known.

    Args:
        windows: rows with status, certified_until, refuted_from.
        horizon: H, at most the smallest T of these windows.

    >>> rows = pd.DataFrame({"status": ["bounded", "beyond", "undecided", "too_noisy"],
    ...     "certified_until": [0.2, 2.0, 0.5, np.nan], "refuted_from": [0.3, np.nan, np.nan, np.nan]})
    >>> low, high = restricted_depths(rows, 1.0)
    >>> low.tolist(), high.tolist()
    ([0.2, 1.0, 0.5, nan], [0.3, 1.0, 1.0, nan])
    """
    certified = windows["certified_until"].fillna(0.0).to_numpy(dtype=float)
    refuted = windows["refuted_from"].fillna(np.inf).to_numpy(dtype=float)
    unknown = (windows["status"] == "too_noisy").to_numpy()
    low, high = np.minimum(certified, horizon), np.minimum(refuted, horizon)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def variance_shares(
    parameters: Mapping[str, Sequence[Any]],
    low: np.ndarray,
    high: np.ndarray,
    *,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """How much of the variance of a depth over configurations each parameter explains.

    With y the depth, the first-order share of a parameter x is Var(E[y | x]) / Var(y), what it explains alone, and its
    total share E[Var(y | all others)] / Var(y), what remains when all others are fixed; on a full grid of independent
    parameters these are Sobol's indices, and their difference is what x does together with others. The total share is
    taken over the configurations that have a partner differing from them in x alone. Where the parameters do not form
    a full grid, first-order shares overlap and may add up to more than 1.

    Args:
        parameters: values by name, (W,) each; numerical ones with more than ``bins`` values are grouped by size.
        low, high: (W,) bounds of the depth of each configuration; y is their middle.
        bins, draws: see BINS and DRAWS.
        seed: of the draws.

    Returns one row per parameter with more than one level, the largest first-order share first, with the columns
    parameter, levels, first_order, first_order_se, total, total_se, by_chance (the first-order share that a parameter
    without any influence has on average, (levels - 1) / (W - 1)), and compared (the share of configurations that the
    total share rests on; 0 leaves it NaN). The standard errors combine a jackknife over configurations with draws of
    the depths within their intervals. All shares are NaN where y does not vary.

    >>> grid = np.array([(a, b) for a in (-1, 1) for b in (-1, 1)])
    >>> depth = 2.0 * grid[:, 0] + grid[:, 1]
    >>> shares = variance_shares({"a": grid[:, 0], "b": grid[:, 1]}, depth, depth)
    >>> shares["first_order"].round(9).tolist(), shares["total"].round(9).tolist()
    ([0.8, 0.2], [0.8, 0.2])
    """
    codes = {name: _levels(values, bins) for name, values in parameters.items()}
    codes = {name: code for name, code in codes.items() if code.max(initial=0) > 0}
    others = {name: _together([code for other, code in codes.items() if other != name], len(low)) for name in codes}
    middle = (low + high) / 2
    everything = np.arange(len(middle))
    best = _shares(codes, others, middle, everything)
    left_out = np.array_split(np.random.default_rng(seed).permutation(everything), max(min(len(middle), BLOCKS), 1))
    reduced = np.array([_shares(codes, others, middle, np.delete(everything, block)) for block in left_out])
    generator = np.random.default_rng(seed)
    drawn = np.array(
        [_shares(codes, others, generator.uniform(low, high), everything) for _ in range(draws if len(codes) else 0)]
    )
    rows = []
    for place, (name, code) in enumerate(codes.items()):
        first, total = best[place]
        se = [_spread(reduced[:, place, kind], drawn[:, place, kind]) for kind in (0, 1)]
        rows.append(
            {
                "parameter": name,
                "levels": int(code.max()) + 1,
                "first_order": first,
                "first_order_se": se[0],
                "total": total,
                "total_se": se[1],
                "by_chance": code.max() / max(len(middle) - 1, 1),
                "compared": float(_has_partner(code, others[name]).mean()),
            }
        )
    columns = ["parameter", "levels", "first_order", "first_order_se", "total", "total_se", "by_chance", "compared"]
    return pd.DataFrame(rows, columns=columns).sort_values("first_order", ascending=False, ignore_index=True)


def full_grid(parameters: Mapping[str, Sequence[Any]], *, bins: int = BINS) -> bool:
    """Whether every combination of levels occurs, and each as often, so that parameters vary independently.

    >>> full_grid({"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]}), full_grid({"a": [0, 0, 1], "b": [0, 1, 1]})
    (True, False)
    """
    codes = [_levels(values, bins) for values in parameters.values()]
    if not codes:
        return True
    counts = np.bincount(_together(codes, len(codes[0])))
    complete = len(counts) == math.prod(int(code.max()) + 1 for code in codes)
    return complete and len(set(counts.tolist())) == 1


def _levels(values: Sequence[Any], bins: int) -> np.ndarray:
    """(W,) number of the level of each value, from 0; absent values are a level of their own."""
    series = pd.Series(list(values))
    if pd.api.types.is_numeric_dtype(series) and series.nunique() > bins:
        series = pd.qcut(series, bins, labels=False, duplicates="drop")
    codes, _ = pd.factorize(series, sort=True, use_na_sentinel=False)
    return np.asarray(codes)


def _together(codes: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(W,) number of the combination of levels of each configuration."""
    if not codes:
        return np.zeros(size, dtype=int)
    _, found = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    return np.asarray(found).ravel()


def _has_partner(code: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(W,) whether another configuration differs in this parameter alone."""
    least, most = np.full(group.max() + 1, np.iinfo(int).max), np.full(group.max() + 1, -1)
    np.minimum.at(least, group, code)
    np.maximum.at(most, group, code)
    return np.asarray((least < most)[group])


def _shares(
    codes: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], depth: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """(parameters, 2) first-order and total shares over the configurations that are kept."""
    y = depth[kept]
    variance = float(y.var()) if len(y) else 0.0
    found = np.full((len(codes), 2), np.nan)
    if variance <= 1e-24 * float((y**2).sum() + 1):
        return found
    for place, (name, whole) in enumerate(codes.items()):
        code, group = whole[kept], others[name][kept]
        found[place, 0] = 1 - _within(y, code).mean() / variance
        partner = _has_partner(code, group)
        if partner.any():
            found[place, 1] = _within(y, group)[partner].mean() / variance
    return found


def _within(y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(W,) squared distance of each value from the mean of its group."""
    counts = np.maximum(np.bincount(group), 1)
    squared: np.ndarray = (y - (np.bincount(group, weights=y) / counts)[group]) ** 2
    return squared


def _spread(reduced: np.ndarray, drawn: np.ndarray) -> float:
    """Standard error by the jackknife, from values without each block, and by draws within intervals."""
    known = reduced[np.isfinite(reduced)]
    if len(known) < 2:
        return float("nan")
    jackknife = (len(known) - 1) * known.var()
    return float(np.sqrt(jackknife + np.nanvar(drawn)))
