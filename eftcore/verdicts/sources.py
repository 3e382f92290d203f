"""The source U1 of the mean correction, K1' = C_W U1: closures against the exact U1 (docs/theory.md, section 8.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from eftcore.errors import InputError
from eftcore.pairs import inputs_of, pair_names, to_pairs
from eftcore.results import Theory
from eftcore.specs import Numerics
from eftcore.theory.closures.g_only import wishart
from eftcore.verdicts.residuals import equations_along

if TYPE_CHECKING:
    from eftcore.ensemble import Sample


def compare_sources(theories: Iterable[Theory], reference: Theory | Sample) -> pd.DataFrame:
    """The U1 of each closure against the exact U1 over depth (eq. 8.7; K1' = C_W U1).

    Args:
        theories: predictions of the reference's model and kernel; those without U1 are left out.
        reference: a Sample, or a better Theory.

    Returns one row per closure, common recorded layer and component "01": closure, order (wick), depth, time,
    component, model, exact, exact_se (0 for a Theory), difference = model - exact.

    Raises InputError where the reference has no U1 or describes another network, or no layer is common.

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> kernel = InputKernel.explicit([[1.0]])
    >>> found = compare_sources([predict(model, kernel)], predict(model, kernel, "wick", order=12))
    >>> round(float(found["model"][0]), 3), float(found["exact"][0])
    (-0.171, 0.0)
    """
    if reference.source is None:
        raise InputError("has no source U1", place="reference", remedy="use a sample or another closure")
    frames = []
    for number, theory in enumerate(theories):
        if (theory.spec.model, theory.spec.kernel.matrix) != (reference.spec.model, reference.spec.kernel.matrix):
            raise InputError("describes another network or input kernel than the reference", place=("theories", number))
        if theory.source is None:
            continue
        depth, ours, theirs = np.intersect1d(theory.depth, reference.depth, return_indices=True)
        if not len(depth):
            raise InputError("has no recorded layer in common with the reference", place=("theories", number))
        noise = np.zeros_like(reference.source) if reference.source_se is None else reference.source_se
        model, exact = to_pairs(theory.source[ours]), to_pairs(reference.source[theirs])
        columns = {
            "model": model,
            "exact": exact,
            "exact_se": to_pairs(noise[theirs]),
            "difference": model - exact,
        }
        frame = _tidy(depth, theory.time[ours], columns)
        frame.insert(0, "closure", theory.spec.closure)
        frame.insert(1, "order", pd.Series(theory.details.get("wick_order", theory.spec.order), frame.index))
        frames.append(frame)
    if not frames:
        raise InputError(
            "none of them has a source U1",
            place="theories",
            remedy="give another closure than mean and source_only",
        )
    return pd.concat(frames, ignore_index=True)


def sources_on(reference: Theory | Sample, *, numerics: Numerics | None = None) -> pd.DataFrame:
    """The formulas of the closures for U1, evaluated with the V4 and K1 of the reference (eq. 8.8).

    This separates the error of a formula from the error of the V4 and K1 that a closure puts into it. Columns: depth,
    time, component, exact and exact_se (the reference's U1), g_only = (chi K1) / C_W + (1/2) H : V4, and
    normal_ordered, the same formula with V4 - Wishart(K0) in place of V4. The difference between exact and
    normal_ordered comes from the Wick orders other than 2.

    Raises InputError where the reference lacks V4, K1 or U1.

    >>> from eftcore import InputKernel, ResNet, predict
    >>> model = ResNet(activation="tanh", weight_variance=2.0, epsilon=0.1, depth=10)
    >>> found = sources_on(predict(model, InputKernel.explicit([[1.0]]), "wick", order=12))
    >>> found.loc[0, ["exact", "g_only", "normal_ordered"]].astype(float).round(3).tolist()
    [0.0, -0.171, 0.0]
    """
    v4, k1, u1 = reference.covariance, reference.correction, reference.source
    if v4 is None or k1 is None or u1 is None:
        raise InputError("lacks V4, K1 or U1", place="reference", remedy="use a sample or another closure")
    c_w = reference.spec.model.weight_variance
    closure, at, kernel = equations_along(reference, numerics)
    linear = [closure.respond(g, k) / c_w for g, k in zip(at["chi"], to_pairs(k1), strict=True)]
    models = {
        name: np.stack([x + closure.tadpole(h, c) for x, h, c in zip(linear, at["hessian"], covariance, strict=True)])
        for name, covariance in (("g_only", v4), ("normal_ordered", v4 - wishart(kernel)))
    }
    noise = np.zeros_like(u1) if reference.source_se is None else reference.source_se
    columns = {"exact": to_pairs(u1), "exact_se": to_pairs(noise), **models}
    return _tidy(np.asarray(reference.depth), reference.time, columns)


def _tidy(depth: np.ndarray, time: np.ndarray, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A frame with one row per layer and pair, from columns of shape (R, P)."""
    pairs = next(iter(columns.values())).shape[1]
    names = pair_names(inputs_of(pairs))
    return pd.DataFrame(
        {
            "depth": np.repeat(depth, pairs),
            "time": np.repeat(time, pairs),
            "component": names * len(depth),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )
