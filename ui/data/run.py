"""The frames behind the run page: one simulation, and every theory compared with it.

``build_*`` functions read a database and use neither Streamlit nor Plotly. The docstring of each gives the number of
SQL statements that it executes; tests check this number.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd

from db.reading import queries
from db.reading.distinguishing import SIMULATION_SETTINGS, distinguishing
from db.reading.kernel_laws import quantiles_beside_law
from db.reading.spreadsheets import csv_bytes
from db.reading.stored_results import numerical_errors, stored_specs
from db.schema.components import row_components
from db.session import Database
from eftcore.quantities import ORDER, QUANTITIES
from eftcore.specs import OF_BLOCKS, EnsembleSpec, PredictionSpec
from eftcore.words import verdict_text, window_text
from ui.data.naming import in_reading_order, name_theories
from ui.data.quantiles import build_quantiles
from ui.data.study_file import study_toml
from ui.notation import configuration_text, number, with_error

_CHOICE = (
    "activation",
    "weight_variance",
    "bias_variance",
    "block",
    *OF_BLOCKS,
    "epsilon",
    "depth",
    "kernel_label",
    "width",
    "samples",
)

_PROVENANCE = {
    "run_id": "run",
    "digest": "digest",
    "algorithm_version": "algorithm version",
    "widths": "measured at widths",
    "seed": "seed",
    "estimator": "estimator",
    "sampler": "sampler",
    "dtype": "precision of states",
    "quadrature": "quadrature",
    "nodes": "nodes",
    "rtol": "requested relative error",
    "converged": "numerics converged",
    "step": "step",
    "continuous": "continuous depth",
    "next_order": "next order in 1/n",
    "git_commit": "git commit",
    "git_dirty": "uncommitted changes",
    "host": "host",
    "device": "device",
    "python": "Python",
    "started_at": "started",
    "worker_seconds": "time of all workers / s",
    "elapsed_seconds": "elapsed time / s",
}

_DIGITS = 12

_SHOWN_FIRST = {"inputs": ["00", "01"], "pairs": ["00,00", "01,01", "00,11"], "triples": ["00,00,00"]}


def build_simulations(db: Database) -> pd.DataFrame:
    """Finished simulations, newest first: v_runs with the column label, a one-line description. One statement."""
    rows = queries.runs(db, kind="simulation", status="succeeded")
    said = [*_CHOICE, *distinguishing(rows, _CHOICE, SIMULATION_SETTINGS)]
    labels = [f"run {row['run_id']}: {configuration_text(row, said)}" for row in rows.to_dict("records")]
    return rows.assign(label=labels)


def entries_label(over: str) -> str:
    """What the field says in which entries of quantities over "inputs", "pairs" or "triples" are chosen.

    >>> entries_label("inputs"), entries_label("pairs"), entries_label("triples")
    ('entries ab of K0, K1, U1, K2', 'entries ab,cd of V4, Sigma, D', 'entries ab,ab,ab of T')
    """
    names = ", ".join(quantity.name for quantity in QUANTITIES.values() if quantity.over == over)
    written = {"inputs": "ab", "pairs": "ab,cd", "triples": "ab,ab,ab"}
    return f"entries {written[over]} of {names}"


def component_choices(quantity: str, n_inputs: int) -> tuple[list[str], list[str]]:
    """Components of a quantity that are stored as rows, and those of them that are shown at first.

    >>> component_choices("K0", 2)
    (['00', '01', '11'], ['00', '01'])
    >>> component_choices("V4", 3)[1]
    ['00,00', '01,01', '00,11']
    """
    stored = list(row_components(quantity, n_inputs)[0])
    return stored, [name for name in _SHOWN_FIRST[QUANTITIES[quantity].over] if name in stored]


def build_trajectories(db: Database, simulation_run_id: int, components: list[str]) -> pd.DataFrame:
    """The chosen components, simulated and predicted, with the columns theory and series. One statement."""
    return name_series(queries.trajectories(db, simulation_run_id=simulation_run_id, component=components))


def build_measured(db: Database, configuration_id: int, components: list[str]) -> pd.DataFrame:
    """The chosen components of the newest measured next order beside theories of it, as build_trajectories has them.

    The columns simulated and simulated_se hold what was measured, widths and samples from which simulations; width is
    absent. Empty where nothing was measured. One statement.
    """
    rows = queries.measurements(db, configuration_id=configuration_id, component=components)
    newest = rows[rows["measurement_run_id"] == rows["measurement_run_id"].max()]
    renamed = newest.rename(columns={"measured": "simulated", "measured_se": "simulated_se"})
    renamed = renamed.assign(width=pd.NA, reference_run_id=renamed["measurement_run_id"])
    alone = renamed["prediction_run_id"].isna()
    nothing = renamed[alone].assign(closure="", theory="", configuration="", series="")
    found: pd.DataFrame = pd.concat([name_series(renamed[~alone]), nothing], ignore_index=True)
    return found


def with_measured(trajectories: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Trajectories whose rows of D and K2 are those that stand beside a measurement, where there is one."""
    if measured.empty:
        return trajectories
    rest: pd.DataFrame = trajectories[~trajectories["quantity"].isin(measured["quantity"])]
    together: pd.DataFrame = pd.concat([rest, measured[measured.columns.intersection(rest.columns)]], ignore_index=True)
    return together


def build_errors(db: Database, simulation_run_id: int) -> pd.DataFrame:
    """Error over depth of every theory, with the columns theory and series. One statement."""
    return name_series(queries.errors(db, reference_run_id=simulation_run_id))


def name_series(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one configuration with the columns theory and series."""
    named = name_theories(rows)
    return named.assign(configuration="", series=named["theory"])


def build_run_windows(db: Database, *reference_run_ids: int) -> pd.DataFrame:
    """Validity windows against a simulation, and a measurement of the next order if there is one, at every tolerance.

    v_windows with the column theory. One statement.
    """
    rows = name_theories(queries.windows(db, reference_run_id=list(reference_run_ids)))
    return in_reading_order(rows.assign(configuration=""))


def windows_matrix(windows: pd.DataFrame) -> pd.DataFrame:
    """Windows t* as texts: a row per quantity and theory, a column per tolerance."""
    ordered = windows.sort_values("tolerance", kind="stable")
    texts = ordered.assign(
        text=[window_text(row) for row in ordered.to_dict("records")],
        tolerance=[f"τ = {number(value)}" for value in ordered["tolerance"]],
    )
    table = texts.pivot(index=["quantity", "theory"], columns="tolerance", values="text")
    rows = windows[["quantity", "theory"]].drop_duplicates()
    rows = rows.sort_values("quantity", key=lambda names: names.map(ORDER), kind="stable")
    table = table.loc[list(rows.itertuples(index=False, name=None)), list(texts["tolerance"].drop_duplicates())]
    return table.fillna("—").reset_index()


def verdicts_table(windows: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """How deep each theory holds at one tolerance, in layers: a row per theory, a column per quantity, as texts."""
    rows = windows[windows["tolerance"] == tolerance]
    texts = rows.assign(text=[verdict_text(row) for row in rows.to_dict("records")])
    table = texts.pivot(index="theory", columns="quantity", values="text")
    quantities = sorted(table.columns, key=ORDER.__getitem__)
    return table.loc[rows["theory"].drop_duplicates().tolist(), quantities].fillna("—").reset_index()


def verdicts_said(windows: pd.DataFrame, tolerance: float) -> list[str]:
    """A sentence for each quantity: the simplest theory that holds to the last layer, or the one that holds longest."""
    said = []
    rows = windows[windows["tolerance"] == tolerance]
    for quantity in sorted(rows["quantity"].unique(), key=ORDER.__getitem__):
        some = rows[rows["quantity"] == quantity]
        holding = some[some["status"] == "beyond"]
        if len(holding):
            said.append(f"{quantity}: {holding['theory'].iloc[0]} is the simplest theory that holds to the end.")
            continue
        longest = some["certified_until"].max()
        if math.isnan(longest):
            fails = ", ".join(some.loc[some["status"] == "bounded", "theory"])
            unclear = ", ".join(some.loc[some["status"] != "bounded", "theory"])
            told = [
                f"{fails} does not hold" if fails else "",
                f"more networks would tell of {unclear}" if unclear else "",
            ]
            said.append(f"{quantity}: no theory is shown to hold; {'; '.join(filter(None, told))}.")
            continue
        best = some[some["certified_until"] == longest].iloc[0]
        layer = round(longest / best["total_time"] * best["depth"])
        said.append(
            f"{quantity}: {best['theory']} holds longest, to layer {layer} of {best['depth']} (t = {longest:.4g})."
        )
    return said


def build_values(trajectories: pd.DataFrame, time: float) -> pd.DataFrame:
    """Values at one recorded t, as texts: simulated ± s.e., and each theory with z = (theory − simulated) / s.e.

    One row per quantity and component.
    """
    here = trajectories[trajectories["time"] == time]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for value in here.to_dict("records"):
        row = rows.setdefault((value["quantity"], value["component"]), {})
        row["simulated ± s.e."] = with_error(value["simulated"], value["simulated_se"])
        if value["theory"]:
            row[value["theory"]] = _predicted(value["predicted"], value["simulated"], value["simulated_se"])
    order = sorted(rows, key=lambda key: (ORDER[key[0]], key[1]))
    theories = in_reading_order(here[here["theory"] != ""].assign(tolerance=0.0))["theory"].drop_duplicates().tolist()
    table = pd.DataFrame(
        [{"quantity": quantity, "component": name, **rows[quantity, name]} for quantity, name in order],
        columns=["quantity", "component", "simulated ± s.e.", *theories],
    )
    return table.fillna("—")


def _predicted(predicted: float, simulated: float, se: float) -> str:
    if pd.isna(predicted):
        return "—"
    text = number(predicted, 6)
    return text if pd.isna(se) or se <= 0 else f"{text}  (z = {(predicted - simulated) / se:+.1f})"


def build_precision(db: Database, errors: pd.DataFrame) -> pd.DataFrame:
    """Precision of the simulation and of the theories, as texts: a row per quantity. Two statements.

    Columns are the simulation's relative standard error (Frobenius norm over all pairs) at T, its largest value over
    depth, the depths at which it can be trusted, and the estimated relative numerical error of each theory. Quantities
    that theories alone give, such as D, come with that error alone.
    """
    shares = queries.precision(db, simulation_run_id=int(errors["simulation_run_id"].iloc[0]))
    trusted = dict(zip(shares["quantity"], shares["reliable_share"], strict=True))
    theories = errors[["prediction_run_id", "theory"]].drop_duplicates()
    found = numerical_errors(db, theories["prediction_run_id"].tolist())
    rows = []
    stored = {quantity for _, quantity in found}
    for quantity in [name for name in QUANTITIES if name in stored.union(errors["quantity"])]:
        panel = errors[errors["quantity"] == quantity]
        # the standard errors of the simulation are the same in every comparison
        own = panel[panel["prediction_run_id"] == panel["prediction_run_id"].min()].sort_values("time")["error_se"]
        row = {
            "quantity": quantity,
            "simulation, s.e. at T": _relative(None if own.empty else own.iloc[-1]),
            "largest s.e.": _relative(own.max()),
            "s.e. can be trusted": _share(trusted.get(quantity)),
        }
        for theory in theories.to_dict("records"):
            row[f"{theory['theory']}, numerics"] = _relative(found.get((theory["prediction_run_id"], quantity)))
        rows.append(row)
    return pd.DataFrame(rows)


def _share(value: float | None) -> str:
    """A text with the share of recorded depths at which a standard error can be trusted."""
    if value is None or math.isnan(value):
        return "—"
    return "everywhere" if value == 1 else "nowhere" if value == 0 else f"at {100 * value:.0f} % of depths"


def _relative(value: float | None) -> str:
    return "—" if value is None or math.isnan(value) else f"{value:.1e}"


def build_study_file(db: Database, simulation_run_id: int, prediction_run_ids: list[int], samples: int) -> str:
    """The study file that computes this simulation and these predictions. One statement."""
    specs = stored_specs(db, [simulation_run_id, *prediction_run_ids])
    ensemble = specs[simulation_run_id]
    assert isinstance(ensemble, EnsembleSpec)
    predictions = [spec for spec in specs.values() if isinstance(spec, PredictionSpec)]
    return study_toml(f"run-{simulation_run_id}", ensemble, samples, predictions)


def build_download(db: Database, simulation_run_id: int, what: str, form: str) -> bytes:
    """All "trajectories", "quantiles" or "errors" of one simulation as "csv" or "parquet".

    These are rows of v_trajectories, v_quantiles with those of the law (three statements), or v_errors; else one.
    """
    if what == "trajectories":
        frame = queries.trajectories(db, simulation_run_id=simulation_run_id)
    elif what == "quantiles":
        frame = quantiles_beside_law(db, build_quantiles(db, simulation_run_id)).rows
    else:
        frame = queries.errors(db, reference_run_id=simulation_run_id)
    return frame.to_parquet(index=False) if form == "parquet" else csv_bytes(frame)


def build_provenance(db: Database, simulation_run_id: int, other_run_ids: list[int]) -> pd.DataFrame:
    """Provenance of the numbers: a column per run, a row per recorded fact. Two statements."""
    ids = [simulation_run_id, *other_run_ids]
    rows = queries.runs(db, run_id=ids).set_index("run_id", drop=False).loc[ids]
    packages = queries.select(db, f"SELECT id, versions FROM runs WHERE id IN ({', '.join(map(str, ids))})")
    facts = rows[list(_PROVENANCE)].rename(columns=_PROVENANCE)
    # the first digits identify a run; a column has no room for more
    facts["digest"] = facts["digest"].str[:_DIGITS]
    facts["git commit"] = facts["git commit"].str[:_DIGITS]
    facts["packages"] = packages.set_index("id")["versions"].map(_packages)
    facts.index = pd.Index(
        [
            "simulation" if row["kind"] == "simulation" else f"{row['closure'] or row['kind']} (run {row['run_id']})"
            for row in rows.to_dict("records")
        ]
    )
    table = facts.dropna(axis="columns", how="all").T.map(_fact)
    return table.rename_axis("", axis="index").reset_index()


def _packages(versions: str | dict[str, str] | None) -> str | None:
    """Versions of packages as text; None without a value, which may be a null of SQL or of JSON.

    SQLite returns JSON as text, PostgreSQL as an object.
    """
    named = json.loads(versions) if isinstance(versions, str) else versions
    return None if named is None else ", ".join(f"{name} {version}" for name, version in sorted(named.items()))


def _fact(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case pd.Timestamp():
            return f"{value:%Y-%m-%d %H:%M:%S} UTC"
        case float() if not math.isnan(value):
            return number(value)
        case _:
            return "—" if pd.isna(value) else str(value)
