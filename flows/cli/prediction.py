"""One prediction as a small table: the first components of K0, V4 and K1, a row for each recorded layer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eftcore.pairs import pair_name, pair_table
from eftcore.results import Theory
from eftcore.words import network_text, theory_name


def prediction_frame(theory: Theory) -> pd.DataFrame:
    """A row for each recorded layer: t, layer, K0_00, K0_01, V4_00,00 and so on; V4, K1, D, K2 and T if they are there.

    The components are those of the first two inputs; by marginal consistency they do not depend on the other inputs.
    """
    n_inputs = theory.mean.shape[-1]
    pairs = [(0, 0)] if n_inputs == 1 else [(0, 0), (0, 1)]
    table = pair_table(n_inputs)
    columns: dict[str, np.ndarray] = {"t": theory.time, "layer": theory.depth}
    for a, b in pairs:
        columns[f"K0_{a}{b}"] = theory.mean[:, a, b]
    if theory.covariance is not None:
        products = [(pair, pair) for pair in pairs] + ([((0, 0), (1, 1))] if n_inputs > 1 else [])
        for symbol, values in (("V4", theory.covariance), ("D", theory.covariance_next)):
            if values is not None:
                for first, second in products:
                    name = f"{symbol}_{first[0]}{first[1]},{second[0]}{second[1]}"
                    columns[name] = values[:, table[first], table[second]]
    for symbol, values in (("K1", theory.correction), ("K2", theory.correction_next)):
        if values is not None:
            columns |= {f"{symbol}_{a}{b}": values[:, a, b] for a, b in pairs}
    if theory.third_cumulant is not None:
        for pair in pairs:
            p = table[pair]
            columns["T_" + ",".join([pair_name(*pair)] * 3)] = theory.third_cumulant[:, p, p, p]
    return pd.DataFrame(columns)


def prediction_notes(theory: Theory) -> str:
    """The text below the table: the configuration, the closure and the estimated errors of its numbers."""
    model, spec = theory.spec.model, theory.spec
    scheme = "continuous depth" if spec.continuous else f"{spec.step} step"
    errors = ", ".join(f"{name} {error:.1e}" for name, error in theory.numerical_error.items())
    verdict = "within" if theory.converged else "NOT within"
    lines = [
        f"{network_text(model)}, C_W = {model.weight_variance:g}, C_b = {model.bias_variance:g}, "
        f"epsilon = {model.epsilon:g}, L = {model.depth}; inputs: {spec.kernel.label}",
        f"closure: {theory_name(spec.closure, theory.order, next_order=spec.next_order)}, {scheme}",
        f"Estimated relative error of the numerics: {errors} ({verdict} rtol = {spec.numerics.rtol:g})",
    ]
    if exactness := theory.details.get("leading_order"):
        lines.append(f"Two matrices in a block: this closure is the leading order in 1/n, {exactness}")
    remaining = theory.details.get("truncation_error")
    if isinstance(remaining, dict):
        changes = ", ".join(f"{name} {change:.1e}" for name, change in remaining.items())
        asked = "" if spec.truncation is None else f" (asked: {spec.truncation:g})"
        lines.append(f"Left out at most by ending the series there, relative: {changes}{asked}")
    step = theory.details.get("step_error")
    if isinstance(step, dict):
        lines.append(f"Left out by forward Euler, relative: {', '.join(f'{n} {e:.1e}' for n, e in step.items())}")
    return "\n".join(lines)
