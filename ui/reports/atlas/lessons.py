"""The lessons of the atlas: for each question a SQL query, the table that answers it, and a summary in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from db.session import Database
from ui.notation import number
from ui.reports.atlas import blocks, finite_width, plane
from ui.reports.atlas.study import ask, in_study

STUDY = "atlas"

INTRODUCTION = (
    "Which closure holds how long, over activations, C_W, C_b, epsilon, variance and correlation of two inputs, up to"
    " T = 2. Errors are relative (Frobenius norm over all components) against the exact leading order: no"
    " noise and no finite width. Simulations with the paired"
    " estimator then say what a finite width n adds. Units: t = epsilon^2 * layer, V4 = n Cov(G), K1 = n (E[G] - K0)."
)

COST = ("source_only", "g_only", "sigma", "wick 2", "wick 8")
"""Closures from the cheapest to the most expensive."""

V4_TOLERANCE, K1_TOLERANCE, SIMULATED_TOLERANCE = 0.05, 0.10, 0.10

THEORY = "closure || COALESCE(' ' || CAST(closure_order AS text), '') AS theory"

REAL_INPUTS = "digits-16"

SAME_ERROR = 1.25
"""Errors of two kernels within this factor count as equal: they give visibly the same windows."""


IN_STUDY = in_study(STUDY)

EXACT = f"prediction_run_id IN (SELECT reference_run_id FROM v_theory_windows WHERE {IN_STUDY})"
"""SQL condition that selects predictions of the exact leading order, the reference of the study's other predictions."""


@dataclass(frozen=True)
class Lesson:
    """One lesson: a heading, the statements of the table below it, and the query that made the table."""

    title: str
    sentences: tuple[str, ...]
    table: pd.DataFrame
    sql: str


def lessons(db: Database) -> tuple[Lesson, ...]:
    """All lessons, in the order of the page. Raises InputError where the database lacks results that one needs."""
    return tuple(
        _learn(db, *question)
        for question in (
            ("How many neurons depth costs", plane.COST, plane.cost),
            ("How deep each closure follows V4", _windows("V4", V4_TOLERANCE), _covariance),
            ("How deep each closure follows K1", _windows("K1", K1_TOLERANCE), _correction),
            ("Where G-only fails, and by how much", _G_ONLY_ERRORS, _failures),
            ("What the sigma-kernel restores", _SIGMA_ERRORS, _restored),
            ("How windows move with the inputs and variances", _INPUTS, _inputs),
            ("How windows move with epsilon", _STEPS, _steps),
            ("How windows move with n", _WIDTHS, _widths),
            ("What finite width adds to K0", _finite_width("K0", "00"), finite_width.finite_width),
            ("What finite width adds to V4", _finite_width("V4", "00,00"), finite_width.finite_width),
            ("Real inputs", _REAL_INPUTS, _real_inputs),
            ("How deep G-only holds in other blocks", blocks.WINDOWS, blocks.depth),
            ("What other blocks do to the spread of kernels", blocks.GROWTH, blocks.growth),
        )
    )


def _learn(db: Database, title: str, sql: str, say: Callable[[pd.DataFrame], Iterable[str]]) -> Lesson:
    table = ask(db, sql)
    return Lesson(title, tuple(say(table)), table, sql)


def _windows(quantity: str, tolerance: float) -> str:
    return (
        f"SELECT activation, {THEORY}, COUNT(*) AS configurations,\n"
        "    SUM(CASE WHEN status = 'beyond' THEN 1 ELSE 0 END) AS to_the_end,\n"
        "    MIN(certified_until) AS shortest, AVG(certified_until) AS average, MAX(certified_until) AS longest\n"
        f"FROM v_theory_windows\nWHERE quantity = '{quantity}' AND tolerance = {tolerance}\n    AND {IN_STUDY}\n"
        "GROUP BY activation, closure, closure_order\nORDER BY activation, closure, closure_order"
    )


def _errors(columns: str, condition: str, groups: str) -> str:
    return (
        f"SELECT {columns},\n    MIN(error) AS smallest, AVG(error) AS average, MAX(error) AS largest\n"
        f"FROM v_theory_errors\nWHERE layer = depth AND defined AND {condition}\n    AND {IN_STUDY}\n"
        f"GROUP BY {groups}\nORDER BY {groups}"
    )


def _finite_width(quantity: str, component: str) -> str:
    return (
        f"SELECT {finite_width.COLUMNS}\n"
        f"FROM v_trajectories\nWHERE {EXACT} AND layer = depth\n"
        f"    AND quantity = '{quantity}' AND component = '{component}'\n"
        f"    AND {IN_STUDY}\n    AND {in_study(STUDY, 'simulation_run_id')}\n"
        "GROUP BY quantity, activation, weight_variance, width\nORDER BY activation, weight_variance, width"
    )


_G_ONLY_ERRORS = _errors(
    "activation, weight_variance AS c_w, quantity",
    "closure = 'g_only' AND quantity IN ('V4', 'K1')",
    "quantity, activation, weight_variance",
)

_SIGMA_ERRORS = _errors(
    f"activation, quantity, {THEORY}",
    "closure IN ('g_only', 'sigma') AND quantity IN ('V4', 'K1')",
    "quantity, activation, closure, closure_order",
)

_INPUTS = _errors(
    "activation, weight_variance AS c_w, bias_variance AS c_b, kernel_variance AS k_0, kernel_correlation AS rho",
    "closure = 'g_only' AND quantity = 'V4' AND epsilon = 0.1",
    "activation, weight_variance, bias_variance, kernel_variance, kernel_correlation",
)

_STEPS = (
    "SELECT a.activation, a.quantity, a.closure, COUNT(*) AS pairs,\n"
    "    MAX(ABS(a.certified_until - b.certified_until)) AS largest_shift,\n"
    "    AVG(ABS(a.certified_until - b.certified_until)) AS average_shift\n"
    "FROM v_theory_windows a JOIN v_theory_windows b\n"
    "    ON b.activation = a.activation AND b.weight_variance = a.weight_variance\n"
    "    AND b.bias_variance = a.bias_variance AND b.kernel_label = a.kernel_label AND b.closure = a.closure\n"
    "    AND b.quantity = a.quantity AND b.tolerance = a.tolerance AND b.epsilon = 0.05\n"
    "WHERE a.epsilon = 0.1 AND a.closure IN ('g_only', 'sigma')\n"
    f"    AND (a.quantity = 'V4' AND a.tolerance = {V4_TOLERANCE}"
    f" OR a.quantity = 'K1' AND a.tolerance = {K1_TOLERANCE})\n"
    f"    AND a.{IN_STUDY}\n    AND b.{IN_STUDY}\n"
    "GROUP BY a.activation, a.quantity, a.closure\nORDER BY a.quantity, a.activation, a.closure"
)

_WIDTHS = (
    "SELECT activation, CASE WHEN closure = 'exact' THEN 'exact leading order' ELSE closure END AS theory, width,\n"
    "    COUNT(*) AS configurations, SUM(CASE WHEN status = 'beyond' THEN 1 ELSE 0 END) AS to_the_end,\n"
    "    SUM(CASE WHEN status = 'bounded' THEN 1 ELSE 0 END) AS refuted,\n"
    "    AVG(COALESCE(certified_until, 0)) AS average\n"
    f"FROM v_windows\nWHERE reference_kind = 'simulation' AND quantity = 'V4' AND tolerance = {SIMULATED_TOLERANCE}"
    f" AND (closure IN ('g_only', 'sigma') OR {EXACT})\n"
    f"    AND {IN_STUDY}\n"
    "GROUP BY activation, theory, width\nORDER BY activation, theory, width"
)

_DIGITS = "CASE WHEN substr(kernel_label, 1, 6) {} 'digits' THEN error END"

_REAL_INPUTS = (
    "SELECT quantity, closure, activation, n_inputs,\n"
    f"    MAX({_DIGITS.format('=')}) AS digits,\n    MAX({_DIGITS.format('<>')}) AS equicorrelated\n"
    "FROM v_theory_errors\nWHERE layer = depth AND quantity IN ('V4', 'K1') AND closure IN ('g_only', 'sigma')\n"
    f"    AND {in_study(REAL_INPUTS)}\n"
    "GROUP BY quantity, closure, activation, n_inputs\nORDER BY quantity, closure, activation, n_inputs"
)


def _covariance(table: pd.DataFrame) -> Iterable[str]:
    return _who_reaches(table, "V4", V4_TOLERANCE)


def _correction(table: pd.DataFrame) -> Iterable[str]:
    yield from _who_reaches(table, "K1", K1_TOLERANCE)
    yield (
        "The relative error of K1 counts from the first layer on, where K1 is small and its source is what a closure"
        " gets wrong first: a window of 0 means wrong from the start, not wrong everywhere."
    )


def _who_reaches(table: pd.DataFrame, quantity: str, tolerance: float) -> Iterable[str]:
    """Sentences on the cheapest closure that is valid up to T in every configuration, for each activation.

    They also say up to which depth G-only is valid.
    """
    whole = table[table["to_the_end"] == table["configurations"]]
    cheapest: dict[str, list[str]] = {}
    for activation in table["activation"].unique():
        good = whole.loc[whole["activation"] == activation, "theory"]
        found = next((theory for theory in COST if theory in set(good)), "none of these")
        cheapest.setdefault(found, []).append(activation)
    listed = "; ".join(f"{theory} for {', '.join(names)}" for theory, names in sorted(cheapest.items(), key=_rank))
    yield (
        f"The cheapest closure whose {quantity} stays within {tolerance:.0%} of the exact leading order up to T in all"
        f" configurations: {listed}."
    )
    ends = table[(table["theory"] == "g_only") & (table["to_the_end"] < table["configurations"])]
    if not ends.empty:
        shown = zip(ends["activation"], ends["to_the_end"], ends["configurations"], ends["shortest"], strict=True)
        parts = [
            f"{name} {held} of {all_}, the shortest {'nowhere' if pd.isna(end) else f'up to t = {number(end)}'}"
            for name, held, all_, end in shown
        ]
        yield f"G-only reaches T in only some, or none: {'; '.join(parts)}."


def _rank(item: tuple[str, list[str]]) -> int:
    return COST.index(item[0]) if item[0] in COST else len(COST)


def _failures(table: pd.DataFrame) -> Iterable[str]:
    for quantity in ("V4", "K1"):
        rows = table[table["quantity"] == quantity].groupby("activation")
        smallest, largest = rows["smallest"].min(), rows["largest"].max()
        order = largest.sort_values().index
        parts = [f"{name} {smallest[name]:.2%} to {largest[name]:.2%}" for name in order]
        yield f"Relative error of G-only's {quantity} at T over all configurations: {'; '.join(parts)}."


def _restored(table: pd.DataFrame) -> Iterable[str]:
    for quantity in ("V4", "K1"):
        rows = table[table["quantity"] == quantity].set_index(["activation", "theory"])["average"].unstack("theory")
        parts = [f"{name} {row['g_only']:.2%} → {row['sigma']:.2%}" for name, row in rows.iterrows()]
        yield f"Average relative error of {quantity} at T, G-only → sigma-kernel: {'; '.join(parts)}."


def _inputs(table: pd.DataFrame) -> Iterable[str]:
    for parameter, symbol in (
        ("rho", "the correlation rho"),
        ("k_0", "the variance K^0"),
        ("c_b", "C_b"),
        ("c_w", "C_W"),
    ):
        others = [name for name in ("activation", "c_w", "c_b", "k_0", "rho") if name != parameter]
        spread = table.groupby(others)["average"].agg(lambda errors: errors.max() / errors.min())
        worst = spread.groupby("activation").max()
        parts = [f"{name} {value:.3g}" for name, value in worst.items()]
        yield f"By what factor {symbol} changes G-only's error of V4 at T, at most: {', '.join(parts)}."


def _steps(table: pd.DataFrame) -> Iterable[str]:
    for quantity in ("V4", "K1"):
        rows = table[table["quantity"] == quantity]
        worst = rows.sort_values("largest_shift").iloc[-1]
        yield (
            f"Halving epsilon, from 0.1 to 0.05 at the same t, moves the window of {quantity} by"
            f" {number(float(rows['average_shift'].mean()))} on average and at most"
            f" {number(float(worst['largest_shift']))} ({worst['activation']}, {worst['closure']})."
        )


def _widths(table: pd.DataFrame) -> Iterable[str]:
    for theory, rows in table.groupby("theory"):
        grid = rows.pivot(index="activation", columns="width", values="to_the_end")
        whole = rows["configurations"].iloc[0]
        widths = ", ".join(str(width) for width in grid.columns)
        parts = [f"{name} {', '.join(str(count) for count in row)}" for name, row in grid.iterrows()]
        yield (
            f"Of {whole} configurations each, {theory} keeps V4 within {SIMULATED_TOLERANCE:.0%} of simulations of n ="
            f" {widths} up to T in: {'; '.join(parts)}."
        )


def _real_inputs(table: pd.DataFrame) -> Iterable[str]:
    """Sentences on whether errors for images of digits equal those for equicorrelated inputs."""
    largest = int(table["n_inputs"].max())
    for quantity in ("V4", "K1"):
        rows = table[table["quantity"] == quantity].dropna()
        ratio = rows["digits"] / rows["equicorrelated"]
        yield (
            f"Errors of {quantity} at T with handwritten digits, 2 to {largest} inputs, are {ratio.min():.3g} to"
            f" {ratio.max():.3g} times those with equicorrelated inputs of the same variance and a correlation near"
            " theirs."
        )
    ratio = (table["digits"] / table["equicorrelated"]).dropna()
    carries = ratio.max() < SAME_ERROR and ratio.min() > 1 / SAME_ERROR
    yield f"Windows of synthetic kernels {'carry' if carries else 'do not always carry'} over to these inputs."
